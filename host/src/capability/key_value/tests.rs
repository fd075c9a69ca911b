//! A bucket as an attempt sees it: allowed, denied, over each limit; and what is left for the commit.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{wasi::draft2, *};
use crate::{
    capability::Abort,
    limit::{BUCKET_QUESTIONS_MAX, KEYS_PER_CALL_MAX, KEYS_READ_MAX, VALUES_CACHED_BYTES_MAX},
    secret::SecretValue,
};
use types::CapabilityError;

/// A bucket in memory, which counts what it is asked.
#[derive(Debug, Default)]
struct Shelf {
    values: Mutex<BTreeMap<String, StoredValue>>,
    keys_version: i64,
    asked: AtomicUsize,
}

impl Shelf {
    fn put(&self, key: &str, value: &[u8], version: i64) {
        self.values.lock().unwrap().insert(key.to_owned(), StoredValue { value: value.to_vec(), version });
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl BucketReader for Shelf {
    fn get(&self, key: String) -> Reading<'_, Option<StoredValue>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(self.values.lock().unwrap().get(&key).cloned()) })
    }

    fn list(&self, from: KeyBound, max: usize) -> Reading<'_, StoredKeys> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let values = self.values.lock().unwrap();
        let is_after = |key: &&String| match &from {
            KeyBound::At(from) => *key >= from,
            KeyBound::After(from) => *key > from,
        };
        let keys = values.keys().filter(is_after).take(max).cloned().collect();
        let version = self.keys_version;
        Box::pin(async move { Ok(StoredKeys { keys, version }) })
    }
}

/// One that nobody can reach.
#[derive(Debug)]
struct Gone;

impl BucketReader for Gone {
    fn get(&self, _: String) -> Reading<'_, Option<StoredValue>> {
        Box::pin(async { Err("the database is away".to_owned()) })
    }

    fn list(&self, _: KeyBound, _: usize) -> Reading<'_, StoredKeys> {
        Box::pin(std::future::pending())
    }
}

struct Setting {
    shelf: Arc<Shelf>,
    grant: BucketGrant,
}

impl Setting {
    fn new(values: &[(&str, &str)]) -> Self {
        let shelf = Shelf { keys_version: 77, ..Shelf::default() };
        for ((key, value), version) in values.iter().zip(1..) {
            shelf.put(key, value.as_bytes(), version);
        }
        let grant = BucketGrant {
            resource: "seen".to_owned(),
            access: Access::ReadWrite,
            keys: vec!["**".to_owned()],
            writes: 1_000,
            write_bytes: 1 << 20,
        };
        Self { shelf: Arc::new(shelf), grant }
    }

    fn begin(&self) -> KeyValue {
        let bucket = GrantedBucket { grant: self.grant.clone(), value_bytes_max: 1_000, reader: self.shelf.clone() };
        KeyValue::new("raw".to_owned(), vec![bucket], endless())
    }
}

fn endless() -> Interrupt {
    Interrupt::new(Instant::now() + Duration::from_secs(3_600), CancellationToken::new())
}

/// The only bucket of an attempt.
const BUCKET: u32 = 0;

async fn get(attempt: &mut KeyValue, key: &str) -> Option<String> {
    let found = attempt.read(BUCKET, key).await.unwrap();
    found.map(|found| String::from_utf8(found.value).unwrap())
}

async fn version(attempt: &mut KeyValue, key: &str) -> Option<u64> {
    attempt.read(BUCKET, key).await.unwrap().map(|found| found.version)
}

fn set(attempt: &mut KeyValue, key: &str, value: &str) {
    attempt.write(BUCKET, key, value.as_bytes().to_vec()).unwrap();
}

async fn keys(attempt: &mut KeyValue, prefix: &str, after: Option<&str>, max: usize) -> Vec<String> {
    attempt.list(BUCKET, prefix, after, max).await.unwrap()
}

#[track_caller]
fn refused<T: fmt::Debug>(result: Result<T, Refusal>, expected: &str) {
    match result {
        Err(Refusal::Guest(CapabilityError::Denied)) => assert_eq!(expected, "denied"),
        Err(Refusal::Guest(CapabilityError::Conflict)) => assert_eq!(expected, "conflict"),
        Err(Refusal::Guest(CapabilityError::LimitReached(why) | CapabilityError::Invalid(why))) => {
            assert!(why.contains(expected), "{why}");
        }
        other => panic!("{other:?}, not {expected}"),
    }
}

fn effects(attempt: KeyValue, has_succeeded: bool) -> Option<BucketEffects> {
    let mut effects = attempt.finish(has_succeeded, &Masks::default());
    assert!(effects.len() <= 1);
    effects.pop()
}

#[tokio::test]
async fn what_was_read_is_the_same_for_the_rest_of_the_attempt_and_not_asked_for_again() {
    let setting = Setting::new(&[("a", "1")]);
    let mut attempt = setting.begin();
    assert_eq!(get(&mut attempt, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&mut attempt, "absent").await, None);
    setting.shelf.put("a", b"2", 9);
    setting.shelf.put("absent", b"there", 10);
    assert_eq!(get(&mut attempt, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&mut attempt, "absent").await, None);
    assert_eq!(setting.shelf.asked(), 2);
    let expected = [("a".to_owned(), Some(1)), ("absent".to_owned(), None)];
    assert_eq!(effects(attempt, true).unwrap().reads, expected);
}

#[tokio::test]
async fn own_writes_are_seen_and_are_what_the_commit_gets() {
    let setting = Setting::new(&[("a", "1"), ("n", "40"), ("gone", "x")]);
    let mut attempt = setting.begin();
    set(&mut attempt, "a", "2");
    attempt.erase(BUCKET, "gone").unwrap();
    attempt.count_up(BUCKET, "n", 1).unwrap();
    attempt.count_up(BUCKET, "blind", 5).unwrap();
    attempt.count_up(BUCKET, "blind", -7).unwrap();
    assert_eq!(setting.shelf.asked(), 0, "nothing was read for that");
    assert_eq!(get(&mut attempt, "a").await.as_deref(), Some("2"));
    assert_eq!(get(&mut attempt, "gone").await, None);
    // Looked at, it is no longer blind.
    assert_eq!(get(&mut attempt, "n").await.as_deref(), Some("41"));
    attempt.count_up(BUCKET, "n", 1).unwrap();
    let effects = effects(attempt, true).unwrap();
    assert_eq!(effects.reads, [("n".to_owned(), Some(2))]);
    let written = |value: &str| KeyWrite::Set(value.as_bytes().to_vec());
    let blind = KeyWrite::Add { delta: -2, shown: "blind".to_owned() };
    let writes = [("a", written("2")), ("blind", blind), ("gone", KeyWrite::Remove), ("n", written("42"))];
    assert_eq!(effects.writes, writes.map(|(key, write)| (key.to_owned(), write)));
}

#[tokio::test]
async fn an_attempt_that_does_not_succeed_leaves_what_it_read_and_writes_nothing() {
    let setting = Setting::new(&[("a", "1")]);
    let mut attempt = setting.begin();
    set(&mut attempt, "b", "2");
    assert_eq!(effects(attempt, false), None);
    let mut attempt = setting.begin();
    set(&mut attempt, "b", "2");
    get(&mut attempt, "a").await;
    let effects = effects(attempt, false).unwrap();
    assert_eq!((effects.reads.len(), effects.writes.len()), (1, 0));
    assert_eq!(self::effects(setting.begin(), true), None, "and one that does nothing, nothing");
}

#[tokio::test]
async fn compare_and_set_compares_with_what_the_attempt_sees() {
    let setting = Setting::new(&[("a", "1")]);
    let mut attempt = setting.begin();
    refused(attempt.replace(BUCKET, "a", None, vec![]).await, "conflict");
    refused(attempt.replace(BUCKET, "a", Some(99), vec![]).await, "conflict");
    let first = version(&mut attempt, "a").await;
    attempt.replace(BUCKET, "a", first, b"2".to_vec()).await.unwrap();
    refused(attempt.replace(BUCKET, "a", first, vec![]).await, "conflict");
    let second = version(&mut attempt, "a").await;
    assert!(second.is_some_and(|second| second < 1 << 53), "a double holds it: {second:?}");
    // The same value again is another one.
    set(&mut attempt, "a", "2");
    refused(attempt.replace(BUCKET, "a", second, vec![]).await, "conflict");
    attempt.replace(BUCKET, "new", None, b"3".to_vec()).await.unwrap();
    refused(attempt.replace(BUCKET, "new", None, vec![]).await, "conflict");
    attempt.erase(BUCKET, "a").unwrap();
    attempt.replace(BUCKET, "a", None, b"4".to_vec()).await.unwrap();
    let effects = effects(attempt, true).unwrap();
    assert_eq!(effects.reads, [("a".to_owned(), Some(1)), ("new".to_owned(), None)], "it reads the key");
}

#[tokio::test]
async fn a_listing_merges_what_was_staged_and_stays_within_the_grant() {
    let mut setting = Setting::new(&[("a", ""), ("b/1", ""), ("b/2", ""), ("b/3", ""), ("c", ""), ("d", "")]);
    setting.grant.keys = ["b/**", "d", "a", "e"].map(str::to_owned).to_vec();
    let mut attempt = setting.begin();
    set(&mut attempt, "b/15", "");
    set(&mut attempt, "e", "");
    attempt.erase(BUCKET, "b/2").unwrap();
    let all = keys(&mut attempt, "", None, 100).await;
    assert_eq!(all, ["a", "b/1", "b/15", "b/3", "d", "e"]);
    // The same in pages of each size.
    for size in 1..=7 {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = keys(&mut attempt, "", after.as_deref(), size).await;
            assert!(page.len() <= size);
            let Some(last) = page.last().cloned() else { break };
            after = Some(last);
            paged.extend(page);
        }
        assert_eq!(paged, all, "pages of {size}");
    }
    assert_eq!(keys(&mut attempt, "b/", None, 100).await, ["b/1", "b/15", "b/3"]);
    assert_eq!(keys(&mut attempt, "b/1", Some("b/1"), 100).await, ["b/15"]);
    assert_eq!(keys(&mut attempt, "b/", Some("zzz"), 100).await, [""; 0]);
    refused(attempt.list(BUCKET, "c", None, 100).await, "denied");
    refused(attempt.list(BUCKET, "", None, 0).await, "a page of no keys");
    refused(attempt.list(BUCKET, &"k".repeat(1_025), None, 1).await, "no key has more than 1024 bytes");
    assert_eq!(effects(attempt, true).unwrap().listed, Some(77));
}

#[tokio::test]
async fn one_call_lists_no_more_than_its_bound() {
    let setting = Setting::new(&[]);
    for n in 0..KEYS_PER_CALL_MAX + 5 {
        setting.shelf.put(&format!("{n:05}"), b"", 1);
    }
    let mut attempt = setting.begin();
    assert_eq!(keys(&mut attempt, "", None, usize::MAX).await.len(), KEYS_PER_CALL_MAX);
    assert_eq!(keys(&mut attempt, "", Some("00999"), usize::MAX).await.len(), 5);
}

#[tokio::test]
async fn what_the_grant_does_not_name_is_denied_before_anybody_is_asked() {
    let mut setting = Setting::new(&[("b", "secret")]);
    setting.grant.keys = vec!["a/**".to_owned()];
    setting.grant.access = Access::Read;
    let mut attempt = setting.begin();
    refused(attempt.read(BUCKET, "b").await, "denied");
    refused(attempt.write(BUCKET, "a/1", vec![]), "denied");
    refused(attempt.erase(BUCKET, "a/1"), "denied");
    refused(attempt.count_up(BUCKET, "a/1", 1), "denied");
    refused(attempt.replace(BUCKET, "a/1", None, vec![]).await, "denied");
    refused(attempt.list(BUCKET, "b", None, 1).await, "denied");
    assert!(matches!(attempt.find("other"), Err(Refusal::Guest(CapabilityError::Denied))));
    assert_eq!(attempt.find("seen").unwrap(), BUCKET);
    assert_eq!(setting.shelf.asked(), 0);
    let denials = attempt.take_denials();
    assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { seen = { access = "read", keys = ["b"] } }"#);
    assert_eq!(denials[1].remedy, r#"[assets.raw] grants = { seen = { access = "read-write", keys = ["a/1"] } }"#);
    let open = denials.last().unwrap();
    assert_eq!((&*open.operation, &*open.resource), ("open", "other"));
    assert!(attempt.take_uses().iter().all(|used| used.result == "denied" && used.bytes == 0));
}

#[tokio::test]
async fn each_bound_of_an_attempt_ends_it_there_and_leaves_what_was_staged() {
    let mut setting = Setting::new(&[]);
    (setting.grant.writes, setting.grant.write_bytes) = (3, 200);
    let mut attempt = setting.begin();
    refused(attempt.write(BUCKET, "a", vec![0; 1_001]), "1000 bytes a value");
    // Each key costs 32 bytes beside its own.
    attempt.write(BUCKET, "a", vec![0; 100]).unwrap();
    refused(attempt.write(BUCKET, "b", vec![0; 35]), "200 bytes of writes");
    attempt.write(BUCKET, "b", vec![0; 34]).unwrap();
    refused(attempt.write(BUCKET, "b", vec![0; 35]), "200 bytes of writes");
    attempt.write(BUCKET, "a", vec![0; 10]).unwrap();
    attempt.count_up(BUCKET, "c", 1).unwrap();
    refused(attempt.erase(BUCKET, "d"), "3 keys written");
    refused(attempt.count_up(BUCKET, "d", 1), "3 keys written");
    attempt.erase(BUCKET, "b").unwrap();
    let written: Vec<String> = effects(attempt, true).unwrap().writes.into_iter().map(|(key, _)| key).collect();
    assert_eq!(written, ["a", "b", "c"]);
}

#[tokio::test]
async fn reads_are_bounded_in_keys_and_in_questions() {
    let setting = Setting::new(&[]);
    let mut attempt = setting.begin();
    for n in 0..KEYS_READ_MAX {
        assert_eq!(get(&mut attempt, &n.to_string()).await, None);
    }
    refused(attempt.read(BUCKET, "another").await, "10000 keys are read");
    assert_eq!(get(&mut attempt, "7").await, None, "what was read stays");
    assert_eq!(effects(attempt, true).unwrap().reads.len(), KEYS_READ_MAX);

    let mut attempt = setting.begin();
    for _ in 0..BUCKET_QUESTIONS_MAX {
        keys(&mut attempt, "", None, 1).await;
    }
    refused(attempt.list(BUCKET, "", None, 1).await, "20000 reads of buckets");
    refused(attempt.read(BUCKET, "a").await, "20000 reads of buckets");
}

#[tokio::test]
async fn values_past_the_cache_are_asked_for_again_and_must_be_the_same() {
    let setting = Setting::new(&[]);
    let large = vec![b'x'; VALUES_CACHED_BYTES_MAX / 4];
    for n in 0..5 {
        setting.shelf.put(&n.to_string(), &large, n + 1);
    }
    let mut attempt = setting.begin();
    for _ in 0..2 {
        for n in 0..5 {
            assert_eq!(get(&mut attempt, &n.to_string()).await.unwrap().len(), large.len());
        }
    }
    assert_eq!(setting.shelf.asked(), 6, "one of them had no room");
    // What changed meanwhile is found by the commit: it knows what was there first.
    setting.shelf.put("4", b"other", 99);
    get(&mut attempt, "4").await;
    assert_eq!(effects(attempt, true).unwrap().reads[4], ("4".to_owned(), Some(5)));
}

#[tokio::test]
async fn a_key_has_one_form() {
    let mut attempt = Setting::new(&[]).begin();
    for key in ["", "a\0b", &"k".repeat(1_025)] {
        refused(attempt.read(BUCKET, key).await, if key.contains('\0') { "no NUL" } else { "1 to 1024 bytes" });
        assert!(attempt.write(BUCKET, key, vec![]).is_err() && attempt.count_up(BUCKET, key, 1).is_err());
    }
    let longest = "ä".repeat(512);
    set(&mut attempt, &longest, "");
    set(&mut attempt, " \u{1b}[2J\n", "");
    assert_eq!(keys(&mut attempt, "", None, 10).await, [" \u{1b}[2J\n", &longest]);
}

#[tokio::test]
async fn counters_that_cannot_be_are_refused_where_that_is_known() {
    let setting = Setting::new(&[("word", "one"), ("most", &i64::MAX.to_string())]);
    let mut attempt = setting.begin();
    set(&mut attempt, "own", "x");
    refused(attempt.count_up(BUCKET, "own", 1), "not the decimal text");
    attempt.count_up(BUCKET, "blind", i64::MAX).unwrap();
    refused(attempt.count_up(BUCKET, "blind", 1), "out of the range");
    get(&mut attempt, "word").await;
    refused(attempt.count_up(BUCKET, "word", 1), "not the decimal text");
    attempt.count_up(BUCKET, "most", 1).unwrap();
    refused(attempt.read(BUCKET, "most").await, "out of the range");
}

#[tokio::test]
async fn an_attempt_ends_when_the_database_does_not_answer() {
    let grant = Setting::new(&[]).grant;
    let begin = |interrupt: Interrupt| {
        let bucket = GrantedBucket { grant: grant.clone(), value_bytes_max: 1, reader: Arc::new(Gone) };
        KeyValue::new("raw".to_owned(), vec![bucket], interrupt)
    };
    let fault = begin(endless()).read(BUCKET, "a").await.unwrap_err();
    assert!(matches!(&fault, Refusal::Abort(Abort::HostFault(why)) if why == "the database is away"), "{fault:?}");
    let soon = Interrupt::new(Instant::now() + Duration::from_millis(5), CancellationToken::new());
    let stopped = begin(soon).list(BUCKET, "", None, 1).await.unwrap_err();
    assert!(matches!(stopped, Refusal::Abort(Abort::Interrupted)), "{stopped:?}");
}

#[tokio::test]
async fn what_was_read_has_a_digest_that_follows_from_it() {
    let read = async |values: &[(&str, &str)], listed: bool| {
        let mut attempt = Setting::new(values).begin();
        get(&mut attempt, "a").await;
        get(&mut attempt, "b").await;
        if listed {
            keys(&mut attempt, "", None, 10).await;
        }
        attempt.reads().pop().unwrap()
    };
    let one = read(&[("a", "1")], false).await;
    assert_eq!((one.items, one.bytes), (2, 1));
    assert_eq!(read(&[("a", "1"), ("other", "")], false).await, one);
    let others =
        [read(&[("a", "2")], false).await, read(&[("a", "1"), ("b", "")], false).await, read(&[], false).await];
    let listed = [read(&[("a", "1")], true).await, read(&[("a", "1"), ("other", "")], true).await];
    let mut digests: Vec<_> = others.iter().chain(&listed).chain([&one]).map(|read| read.digest).collect();
    digests.sort_unstable_by_key(|digest| digest.0);
    digests.dedup();
    assert_eq!(digests.len(), 6);
    assert!(Setting::new(&[]).begin().reads().is_empty());
}

#[tokio::test]
async fn a_failure_that_names_a_key_shows_no_secret() {
    let mut attempt = Setting::new(&[]).begin();
    attempt.count_up(BUCKET, "hunter2-live\u{1b}", 1).unwrap();
    let secret = SecretValue::new(b"hunter2-live".into());
    let mut effects = attempt.finish(true, &Masks::of([("token", &secret)]));
    let (key, write) = effects.remove(0).writes.remove(0);
    assert_eq!(key, "hunter2-live\u{1b}");
    assert_eq!(write, KeyWrite::Add { delta: 1, shown: "[secret token]␛".to_owned() });
}

#[tokio::test]
async fn the_standards_comparison_is_taken_once_and_comes_back_new_when_it_fails() {
    use draft2::atomics::{CasError, Host as _, HostCas as _};
    let setting = Setting::new(&[("a", "1")]);
    let mut attempt = setting.begin();
    let bucket = || Resource::new_own(BUCKET);
    let compared = attempt.new(bucket(), "a".to_owned()).await.unwrap();
    set(&mut attempt, "a", "2");
    let again = match attempt.swap(Resource::new_own(compared.rep()), b"3".to_vec()).await.unwrap() {
        Err(CasError::CasFailed(again)) => again,
        other => panic!("{other:?}"),
    };
    assert_eq!(attempt.current(Resource::new_own(again.rep())).await.unwrap().as_deref(), Some(&b"2"[..]));
    assert!(attempt.swap(Resource::new_own(again.rep()), b"3".to_vec()).await.unwrap().is_ok());
    assert_eq!(get(&mut attempt, "a").await.as_deref(), Some("3"));
    for closed in [compared, again] {
        let refused = attempt.swap(closed, vec![]).await.unwrap();
        assert!(matches!(refused, Err(CasError::StoreError(_))), "{refused:?}");
    }
}
