//! Blobs in a directory and in a real object store: the same must hold of both. Then what only an object store can do:
//! fail, be slow, refuse. And one database with one bucket under two machines, through the real command.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowstone::{
    bindings::flowstone::asset::{
        inputs::{Host as _, HostReader as _},
        output::Host as _,
    },
    blob::{
        BlobError, BlobPlace, BlobReader, BlobStore, BlobWriter, Content, Digest, S3Credentials, S3Settings, Stored,
    },
    capability::{
        Abort, Refusal,
        inputs::{InputGrant, InputVersion, Inputs},
        output::Output,
    },
    limit::{BLOB_PART_BYTES, BLOB_PATIENCE, BLOB_RETRY_BUDGET, CHUNK_BYTES_MAX, INLINE_OUTPUT_BYTES_MAX},
    secret::SecretValue,
};
use flowstone_tests::{
    Database, Flowstone,
    object_server::{ACCESS_KEY_ID, Bucket, SECRET_ACCESS_KEY},
    pipeline::{Scenario, ended},
    relay::{Relay, Trouble},
    web::{Web, answer},
};
use tempfile::TempDir;
use wasmtime::component::Resource;

/// A store, and a way behind it.
struct Setting {
    store: BlobStore,
    kept: Kept,
    folder: TempDir,
}

enum Kept {
    Directory(PathBuf),
    Bucket(Bucket),
}

impl Setting {
    async fn directory() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("blobs");
        Self { store: BlobStore::open(&root).unwrap(), kept: Kept::Directory(root), folder }
    }

    async fn s3() -> Self {
        let bucket = Bucket::new();
        let folder = tempfile::tempdir().unwrap();
        let store = open(&bucket, &bucket.endpoint(), SECRET_ACCESS_KEY, &folder).await.unwrap();
        Self { store, kept: Kept::Bucket(bucket), folder }
    }

    /// Over a wire that can be in trouble.
    async fn behind_relay() -> (Self, Relay) {
        let bucket = Bucket::new();
        let relay = Relay::to(bucket.address());
        let folder = tempfile::tempdir().unwrap();
        let store = open(&bucket, &relay.endpoint(), SECRET_ACCESS_KEY, &folder).await.unwrap();
        (Self { store, kept: Kept::Bucket(bucket), folder }, relay)
    }

    /// Everything that is kept, half of anything included.
    fn keys(&self) -> Vec<String> {
        let mut keys = match &self.kept {
            Kept::Directory(root) => files_below(root),
            Kept::Bucket(bucket) => {
                let keys = bucket.keys().into_iter().filter(|key| key != "prefix/write.probe");
                keys.map(|key| key.strip_prefix("prefix/").unwrap_or(&key).to_owned()).collect()
            }
        };
        keys.extend(files_below(&self.folder.path().join("spool")));
        keys.sort();
        keys
    }

    fn damage(&self, tenant: &str, digest: Digest, bytes: &[u8]) {
        match &self.kept {
            Kept::Directory(root) => fs::write(root.join(key(tenant, digest)), bytes).unwrap(),
            Kept::Bucket(bucket) => bucket.put(&format!("prefix/{}", key(tenant, digest)), bytes),
        }
    }

    fn remove(&self, tenant: &str, digest: Digest) {
        match &self.kept {
            Kept::Directory(root) => fs::remove_file(root.join(key(tenant, digest))).unwrap(),
            Kept::Bucket(bucket) => bucket.remove(&format!("prefix/{}", key(tenant, digest))),
        }
    }

    async fn write(&self, tenant: &str, bytes: &[u8]) -> Stored {
        written(self.store.writer(tenant), bytes).finish_stored().await.unwrap()
    }

    /// One input with this as its only version.
    fn input(&self, stored: Stored) -> Inputs {
        let version = InputVersion {
            asset: "raw".into(),
            partition: vec![],
            materialization: "m".into(),
            digest: stored.digest,
            size: stored.size,
            media_type: "text/plain".into(),
            metadata: vec![],
            content: Content::Stored,
        };
        let grant = InputGrant { name: "raw".into(), versions: vec![version] };
        Inputs::new(vec![grant], self.store.clone(), "t".into())
    }
}

async fn open(bucket: &Bucket, endpoint: &str, secret: &str, folder: &TempDir) -> Result<BlobStore, BlobError> {
    open_as(bucket, endpoint, ACCESS_KEY_ID, secret, folder).await
}

async fn open_as(
    bucket: &Bucket,
    endpoint: &str,
    access_key_id: &str,
    secret: &str,
    folder: &TempDir,
) -> Result<BlobStore, BlobError> {
    let settings = settings(&bucket.name, endpoint, access_key_id, secret);
    BlobStore::open_place(&BlobPlace::S3(settings), &folder.path().join("spool")).await
}

fn settings(bucket: &str, endpoint: &str, access_key_id: &str, secret: &str) -> S3Settings {
    let value = |text: &str| SecretValue::new(text.as_bytes().to_vec());
    S3Settings {
        bucket: bucket.to_owned(),
        prefix: "prefix".to_owned(),
        endpoint: Some(S3Settings::parse_endpoint(endpoint, false).unwrap()),
        authorities: String::new(),
        region: "us-east-1".to_owned(),
        credentials: S3Credentials {
            access_key_id: value(access_key_id),
            secret_access_key: value(secret),
            session_token: None,
        },
    }
}

fn written(mut writer: BlobWriter, bytes: &[u8]) -> BlobWriter {
    bytes.chunks(100_000).for_each(|chunk| writer.write(chunk).unwrap());
    writer
}

fn key(tenant: &str, digest: Digest) -> String {
    let name = digest.to_string();
    format!("{tenant}/{}/{name}", &name[..2])
}

fn bytes_of(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8 ^ (n >> 16) as u8).collect()
}

async fn read_to_end(reader: &mut BlobReader, at_a_time: usize) -> Result<Vec<u8>, BlobError> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; at_a_time]);
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(all),
            count => all.extend(&buffer[..count]),
        }
    }
}

fn files_below(root: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    files
}

/// Each of these is run over a directory and over a bucket.
macro_rules! over_each_store {
    ($($name:ident,)*) => {
        mod in_a_directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Setting::directory().await).await;
            })*
        }
        mod in_a_bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Setting::s3().await).await;
            })*
        }
    };
}

over_each_store! {
    what_was_written_is_read_from_any_offset_in_pieces_of_any_size,
    a_blob_of_many_parts_is_one_blob,
    small_blobs_stay_inline_and_large_ones_are_stored,
    the_same_bytes_are_one_blob_however_many_write_them,
    tenants_do_not_share,
    what_is_not_there_is_missing_and_nothing_else_is,
    damage_is_found_and_mended_by_writing_again,
    what_is_not_finished_leaves_nothing,
    an_output_over_its_limit_leaves_nothing,
    a_guest_is_given_no_end_of_a_damaged_input,
    threads_without_io_read_and_write,
}

async fn what_was_written_is_read_from_any_offset_in_pieces_of_any_size(setting: Setting) {
    for size in [0, 1, INLINE_OUTPUT_BYTES_MAX, 3 * CHUNK_BYTES_MAX + 17] {
        let bytes = bytes_of(size);
        let stored = setting.write("t", &bytes).await;
        assert_eq!(stored, Stored { digest: Digest::of(&bytes), size: size as u64 });
        for at_a_time in [10_000, 1 << 20, 5 << 20] {
            let mut reader = setting.store.read("t", stored.digest).unwrap();
            assert!(read_to_end(&mut reader, at_a_time).await.unwrap() == bytes, "{size} {at_a_time}");
            assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
        }
        let mut reader = setting.store.read("t", stored.digest).unwrap();
        for offset in [size, size / 2, 0, size / 3, size / 3 + 5, size.saturating_sub(3), 0] {
            reader.seek(offset as u64).unwrap();
            let mut piece = [0; 100];
            let mut filled = 0;
            while filled < piece.len() {
                match reader.read(&mut piece[filled..]).await.unwrap() {
                    0 => break,
                    count => filled += count,
                }
            }
            let expected: Vec<u8> = bytes.iter().copied().skip(offset).take(100).collect();
            assert_eq!(piece[..filled], expected, "{size} {offset}");
        }
    }
}

async fn a_blob_of_many_parts_is_one_blob(setting: Setting) {
    let bytes = bytes_of(2 * BLOB_PART_BYTES + 12_345);
    let stored = setting.write("t", &bytes).await;
    assert_eq!(setting.keys(), [key("t", stored.digest)]);
    assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
    // From memory too, as components are.
    setting.remove("t", stored.digest);
    assert_eq!(setting.store.put("t", bytes.clone()).await.unwrap(), stored);
    assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
    let mut reader = setting.store.read("t", stored.digest).unwrap();
    reader.seek(2 * BLOB_PART_BYTES as u64 - 5).unwrap();
    let mut seam = [0; 10];
    assert_eq!(reader.read(&mut seam).await.unwrap(), 10);
    assert_eq!(seam, bytes[2 * BLOB_PART_BYTES - 5..][..10]);
}

async fn small_blobs_stay_inline_and_large_ones_are_stored(setting: Setting) {
    for (size, inline) in [(0, true), (INLINE_OUTPUT_BYTES_MAX, true), (INLINE_OUTPUT_BYTES_MAX + 1, false)] {
        let bytes = bytes_of(size);
        let (stored, content) = written(setting.store.writer("t"), &bytes).finish().await.unwrap();
        assert_eq!(stored.digest, Digest::of(&bytes));
        assert_eq!(matches!(&content, Content::Inline(kept) if *kept == bytes), inline, "{size}");
        assert_eq!(setting.store.contains("t", stored.digest).await.unwrap(), !inline, "{size}");
    }
}

async fn the_same_bytes_are_one_blob_however_many_write_them(setting: Setting) {
    let bytes = bytes_of(BLOB_PART_BYTES + 1);
    let first = setting.write("t", &bytes).await;
    let writers = (0..6).map(|_| {
        let (writer, bytes) = (setting.store.writer("t"), bytes.clone());
        tokio::spawn(async move { written(writer, &bytes).finish_stored().await })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.unwrap().unwrap(), first);
    }
    assert_eq!(setting.keys(), [key("t", first.digest)]);
    assert!(setting.store.read_all("t", first.digest).await.unwrap() == bytes);
}

async fn tenants_do_not_share(setting: Setting) {
    let stored = setting.store.put("a", b"same").await.unwrap();
    assert!(setting.store.contains("a", stored.digest).await.unwrap());
    assert!(!setting.store.contains("b", stored.digest).await.unwrap());
    let read = setting.store.read_all("b", stored.digest).await;
    assert!(matches!(read, Err(BlobError::Missing { .. })), "{read:?}");
    setting.store.put("b", b"same").await.unwrap();
    assert_eq!(setting.keys(), [key("a", stored.digest), key("b", stored.digest)]);
}

async fn what_is_not_there_is_missing_and_nothing_else_is(setting: Setting) {
    let mut there = Vec::new();
    for n in 0..5_u8 {
        there.push(setting.store.put("t", vec![n; 100]).await.unwrap().digest);
    }
    let absent: Vec<Digest> = (0..150_u8).map(|n| Digest::of(&[n; 7])).collect();
    let missing = setting.store.find_missing("t", there.iter().chain(&absent).copied()).await.unwrap();
    assert_eq!(missing, absent.iter().copied().collect());
    let read = setting.store.read_all("t", absent[0]).await;
    assert!(matches!(read, Err(BlobError::Missing { digest }) if digest == absent[0]), "{read:?}");
    setting.remove("t", there[0]);
    assert!(!setting.store.contains("t", there[0]).await.unwrap());
}

async fn damage_is_found_and_mended_by_writing_again(setting: Setting) {
    let bytes = bytes_of(50_000);
    let stored = setting.write("t", &bytes).await;
    let mut other = bytes.clone();
    other[40_000] ^= 1;
    for damaged in [other.clone(), bytes[..49_999].to_vec(), [&bytes[..], b"x"].concat(), vec![]] {
        setting.damage("t", stored.digest, &damaged);
        let read = setting.store.read_all("t", stored.digest).await;
        assert!(matches!(read, Err(BlobError::Corrupt { .. })), "{} bytes: {read:?}", damaged.len());
        assert_eq!(setting.write("t", &bytes).await, stored);
        assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
    }
    setting.damage("t", stored.digest, &other);
    setting.store.put("t", bytes.clone()).await.unwrap();
    assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
}

async fn what_is_not_finished_leaves_nothing(setting: Setting) {
    let writer = written(setting.store.writer("t"), &bytes_of(3_000_000));
    assert_eq!(writer.size(), 3_000_000);
    assert_eq!(writer.read_at(2_999_000, 10).unwrap(), bytes_of(3_000_000)[2_999_000..2_999_010]);
    drop(writer);
    assert_eq!(setting.keys(), [] as [&str; 0]);
}

async fn an_output_over_its_limit_leaves_nothing(setting: Setting) {
    let mut output = Output::new(&setting.store, "t", 3_000_000, "text/plain".into());
    for _ in 0..3 {
        output.write(vec![7; 1_000_000]).unwrap();
    }
    assert!(output.write(vec![7]).is_err() && output.is_too_large());
    assert!(output.finish().await.unwrap().is_none());
    assert_eq!(setting.keys(), [] as [&str; 0]);
}

async fn a_guest_is_given_no_end_of_a_damaged_input(setting: Setting) {
    let bytes = bytes_of(3 * CHUNK_BYTES_MAX);
    let stored = setting.write("t", &bytes).await;
    let mut inputs = setting.input(stored);
    let reader = inputs.open("raw".into(), 0).unwrap();
    let again = || Resource::new_borrow(reader.rep());
    for piece in bytes.chunks(CHUNK_BYTES_MAX) {
        assert!(inputs.read(again(), u32::MAX).await.unwrap() == piece);
    }
    inputs.seek(again(), 1_000).unwrap();
    assert_eq!(inputs.read(again(), 10).await.unwrap(), bytes[1_000..1_010]);

    let mut other = bytes.clone();
    other[5] ^= 1;
    for damaged in [other, bytes[..2 * CHUNK_BYTES_MAX].to_vec()] {
        setting.damage("t", stored.digest, &damaged);
        let mut inputs = setting.input(stored);
        let reader = inputs.open("raw".into(), 0).unwrap();
        let again = || Resource::new_borrow(reader.rep());
        inputs.read(again(), u32::MAX).await.unwrap();
        inputs.read(again(), u32::MAX).await.unwrap();
        let end = inputs.read(again(), u32::MAX).await;
        let Err(Refusal::Abort(Abort::HostFault(why))) = end else { panic!("{end:?}") };
        assert!(why.contains("corrupt") && why.contains(&stored.digest.to_string()), "{why}");
    }
    setting.remove("t", stored.digest);
    let mut inputs = setting.input(stored);
    let opened = inputs.open("raw".into(), 0);
    let refused = match opened {
        Ok(reader) => inputs.read(reader, 10).await.map(drop),
        Err(refused) => Err(refused),
    };
    let Err(Refusal::Abort(Abort::HostFault(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("missing"), "{why}");
}

/// As guests' threads are: their runtime has timers, and no network.
async fn threads_without_io_read_and_write(setting: Setting) {
    let guests = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let bytes = bytes_of(300_000);
    let (store, expected) = (setting.store.clone(), bytes.clone());
    let work = guests.spawn(async move {
        let stored = written(store.writer("t"), &expected).finish_stored().await.unwrap();
        store.read_all("t", stored.digest).await.unwrap()
    });
    assert!(work.await.unwrap() == bytes);
    guests.shutdown_background();
}

fn why(error: BlobError) -> String {
    let shown = format!("{error:?}");
    assert!(!shown.contains(SECRET_ACCESS_KEY) && !shown.contains("StringToSign"), "{shown}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_ask_is_told_what_to_look_at() {
    let bucket = Bucket::new();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = bucket.endpoint();
    let refused = why(open(&bucket, &endpoint, "wrong", &folder).await.unwrap_err());
    let key = format!("s3://{}/prefix/write.probe", bucket.name);
    assert!(refused.contains(&key) && refused.contains("AWS_SECRET_ACCESS_KEY"), "{refused}");
    let refused = why(open_as(&bucket, &endpoint, "nobody", "x", &folder).await.unwrap_err());
    assert!(refused.contains("AWS_ACCESS_KEY_ID"), "{refused}");
    let mut absent = bucket;
    absent.name = "no-such-bucket".into();
    let refused = why(open(&absent, &endpoint, SECRET_ACCESS_KEY, &folder).await.unwrap_err());
    assert!(refused.contains("there is no bucket `no-such-bucket`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_goes_away_is_trouble_and_not_a_missing_blob() {
    let setting = Setting::s3().await;
    let stored = setting.write("t", b"there").await;
    let Kept::Bucket(bucket) = &setting.kept else { unreachable!() };
    bucket.remove("");
    let read = why(setting.store.read_all("t", stored.digest).await.unwrap_err());
    assert!(read.contains("there is no bucket"), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_there_is_named() {
    let bucket = Bucket::new();
    let folder = tempfile::tempdir().unwrap();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = why(open(&bucket, &format!("http://{unused}"), SECRET_ACCESS_KEY, &folder).await.unwrap_err());
    assert!(refused.contains(&unused.to_string()) && refused.contains("AWS_ENDPOINT_URL"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_in_the_middle_is_tried_again() {
    let (setting, relay) = Setting::behind_relay().await;
    let bytes = bytes_of(2 * BLOB_PART_BYTES + 1);
    for trouble in [
        Trouble::CutAfter(1_000),
        Trouble::CutAfter(BLOB_PART_BYTES + 1_000_000),
        Trouble::Answers(503, 2),
        Trouble::Answers(500, 1),
    ] {
        relay.set(trouble);
        let stored = setting.write("t", &bytes).await;
        assert_eq!(relay.trouble(), Trouble::None, "{trouble:?} has happened");
        assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
        relay.set(Trouble::Answers(503, 1));
        assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);
        assert_eq!(relay.trouble(), Trouble::None);
        assert_eq!(setting.keys(), [key("t", stored.digest)], "no parts are left");
        setting.remove("t", stored.digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_on_failing_is_told_and_leaves_nothing() {
    let (setting, relay) = Setting::behind_relay().await;
    let stored = setting.write("t", b"there").await;
    relay.set(Trouble::Answers(503, usize::MAX));
    let bytes = bytes_of(BLOB_PART_BYTES / 8);
    let written = written(setting.store.writer("t"), &bytes).finish_stored().await;
    let said = why(written.unwrap_err());
    let Kept::Bucket(bucket) = &setting.kept else { unreachable!() };
    let place = format!("s3://{}/prefix/{}", bucket.name, key("t", Digest::of(&bytes)));
    assert_eq!(said, format!("cannot write {place}: the answer was 503"));
    let said = why(setting.store.contains("t", stored.digest).await.unwrap_err());
    assert!(said.starts_with("cannot look for s3://"), "trouble is never a no: {said}");
    relay.set(Trouble::None);
    assert!(setting.store.contains("t", stored.digest).await.unwrap(), "and it is over when it is over");
    assert_eq!(setting.keys(), [key("t", stored.digest)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_service_is_waited_for_and_a_silent_one_is_not() {
    let (setting, relay) = Setting::behind_relay().await;
    let bytes = bytes_of(2_000_000);
    relay.set(Trouble::Slow);
    let stored = setting.write("t", &bytes).await;
    assert!(setting.store.read_all("t", stored.digest).await.unwrap() == bytes);

    relay.set(Trouble::Silent);
    let started = Instant::now();
    let said = why(setting.store.contains("t", stored.digest).await.unwrap_err());
    assert!(said.contains(&format!("nothing came from {}", relay.endpoint().trim_start_matches("http://"))), "{said}");
    assert!(started.elapsed() < BLOB_PATIENCE + BLOB_RETRY_BUDGET + Duration::from_secs(5), "{:?}", started.elapsed());
    relay.set(Trouble::None);
    assert!(setting.store.contains("t", stored.digest).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_by_the_authorities_that_browsers_trust_and_those_that_are_named() {
    let web = Web::start(|_, _| "HTTP/1.1 200 Fine\r\netag: \"x\"\r\ncontent-length: 0\r\n\r\n".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let mut settings = settings("data", &format!("https://{}", web.authority()), ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let refused = BlobStore::open_place(&BlobPlace::S3(settings.clone()), &spool).await.unwrap_err();
    assert!(why(refused).contains("certificate"));
    settings.authorities = web.ca().to_owned();
    settings.credentials.session_token = Some(SecretValue::new(b"t0k3n".to_vec()));
    BlobStore::open_place(&BlobPlace::S3(settings.clone()), &spool).await.unwrap();
    let [probe] = web.requests().try_into().unwrap();
    assert_eq!(probe.line, "PUT /data/prefix/write.probe");
    assert_eq!(probe.header("host"), Some(web.authority().as_str()));
    assert_eq!(probe.header("x-amz-security-token"), Some("t0k3n"));
    settings.authorities = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    assert!(BlobStore::open_place(&BlobPlace::S3(settings), &spool).await.is_err());
}

/// Services repeat what was signed, and more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_answer_only_status_and_code_are_told() {
    for (status, body, told) in [
        (400, "<Error><Code>Odd</Code><StringToSign>SECRET</StringToSign></Error>", "the answer was 400 Odd"),
        (400, "<Error><Code>SECRET IT IS</Code></Error>", "the answer was 400"),
        (403, "<Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>", "access is denied (AccessDenied)"),
        (403, "<Error><Code>ExpiredToken</Code><Token-0>SECRET</Token-0></Error>", "look at AWS_SESSION_TOKEN"),
        (301, "SECRET", "look at AWS_REGION"),
        (200, "SECRET", "the answer makes no sense"),
    ] {
        let web = Web::start(move |_, _| answer(status, &body.replace("SECRET", SECRET_ACCESS_KEY)));
        let folder = tempfile::tempdir().unwrap();
        let endpoint = format!("https://{}", web.authority());
        let settings = S3Settings {
            authorities: web.ca().to_owned(),
            ..settings("data", &endpoint, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
        };
        let opened = BlobStore::open_place(&BlobPlace::S3(settings), &folder.path().join("spool")).await;
        let said = why(opened.unwrap_err());
        assert!(said.contains(told) && said.contains("s3://data/prefix/write.probe"), "{status} {body}: {said}");
    }
}

#[test]
fn an_attempt_whose_time_is_up_while_the_store_is_silent_is_not_blamed() {
    let (database, bucket) = (Database::new_blocking(), Bucket::new());
    let relay = Relay::to(bucket.address());
    let one = machine(&database, &bucket, &relay.endpoint());
    one.bind("[assets.after_large]\nlimits = { timeout = \"7s\" }\n");
    one.run(&["large"], 0);
    relay.set(Trouble::SilentReadsOf("/prefix/default/"));
    let mut running = one.flowstone.start(["run", one.manifest(), "after_large", "--json"]);
    let trouble = running.event("trouble");
    assert!(trouble["message"].as_str().unwrap().contains("the blob store had not answered for"), "{trouble}");
    relay.set(Trouble::None);
    running.wait().expect_status(0);
    let verdicts = database.ask("select verdict || ' ' || charged from attempt order by attempt_id");
    assert_eq!(verdicts, ["succeeded true", "lost false", "succeeded true"]);
    assert_eq!(one.show("after_large", None), large_sum());
}

/// A machine with a state directory of its own, on a database and a bucket that it shares.
fn machine(database: &Database, bucket: &Bucket, endpoint: &str) -> Scenario {
    let mut flowstone = Flowstone::on(database);
    flowstone.set(bucket.variables(endpoint));
    // Nobody is there: what goes this way goes nowhere.
    let nowhere =
        ["HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name.to_owned(), "http://127.0.0.1:9".to_owned()));
    flowstone.set(nowhere);
    Scenario::with(flowstone, "")
}

fn large_sum() -> String {
    (0..200_000_u32).flat_map(u32::to_le_bytes).map(u64::from).sum::<u64>().to_string()
}

#[test]
fn two_machines_share_what_one_of_them_made() {
    let (database, bucket) = (Database::new_blocking(), Bucket::new());
    let [one, other] = [(); 2].map(|()| machine(&database, &bucket, &bucket.endpoint()));
    one.run(&["after_large"], 0);
    let large = one.show("large", None);
    assert_eq!(one.show("after_large", None), large_sum());
    assert!(!one.flowstone.state_dir().join("blobs").exists(), "nothing is kept on the machine");
    assert_eq!(files_below(&one.flowstone.state_dir().join("spool")), [] as [&str; 0]);

    // Component and input come out of the bucket; nothing is made twice.
    let rerun = other.flowstone.run(["run", "scenarios", "after_large", "--force", "--json"]).expect_status(0);
    let events: Vec<_> = rerun.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ended(&events), ["after_large succeeded"]);
    assert_eq!(other.show("large", None), large);
    assert_eq!(other.show("after_large", None), large_sum());
    assert!(ended(&other.run(&["after_large"], 0)).is_empty(), "all is up to date");

    // What is gone or damaged is noticed, and made again.
    let digest = Digest::of(&large_bytes());
    let object = format!("prefix/{}", key("default", digest));
    bucket.remove(&object);
    assert_eq!(ended(&other.run(&["large"], 0)), ["large succeeded"]);
    assert!(bucket.get(&object) == large_bytes());
    bucket.put(&object, b"damaged");
    let refused = one.flowstone.run(["show", "scenarios", "large"]);
    assert!(refused.status != Some(0) && refused.stderr.contains(&format!("blob {digest} is corrupt")), "{refused:?}");
    one.run(&["large", "--force"], 0);
    assert!(bucket.get(&object) == large_bytes());
}

fn large_bytes() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn an_object_store_in_trouble_charges_no_attempt_and_shows_no_secret() {
    let (database, bucket) = (Database::new_blocking(), Bucket::new());
    let relay = Relay::to(bucket.address());
    let one = machine(&database, &bucket, &relay.endpoint());
    one.flowstone.run(["deploy", one.manifest()]).expect_status(0);
    relay.set(Trouble::RefusesWritesOf("/prefix/default/"));
    let variables = [("FLOWSTONE_LOG", "debug,flowstone=trace,hyper=trace,object_store=trace")];
    let mut running = one.flowstone.start_with(["run", "scenarios", "after_large", "--json"], variables);
    let trouble = running.event("trouble");
    let message = trouble["message"].as_str().unwrap();
    assert!(message.contains(&format!("s3://{}/prefix/default/", bucket.name)), "{message}");
    assert!(message.contains("the answer was 503"), "{message}");
    relay.set(Trouble::None);
    let output = running.wait().expect_status(0);
    let charged = database.ask("select count(*)::text from attempt where charged and verdict <> 'succeeded'");
    assert_eq!(charged, ["0"], "what the store did not do is nobody's attempt");
    assert_eq!(one.show("after_large", None), large_sum());
    let rows = "select query_to_xml(format('select t::text as row from %I t', tablename), true, false, '')::text
                from pg_tables where schemaname = 'public'";
    for said in [output.stdout, output.stderr, database.ask(rows).concat()] {
        assert!(!said.contains(SECRET_ACCESS_KEY) && !said.contains(ACCESS_KEY_ID), "{said}");
    }
}
