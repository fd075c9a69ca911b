//! Disks that are full and then free, and bytes that are gone or damaged: jobs wait uncharged and go on when there is room,
//! and what no wait brings back is told with what mends it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use flowstone::blob::Digest;
use flowstone_tests::{
    Flowstone, Mount, Postgres, Small,
    deadline::{wait_until, wait_until_database_says},
    pipeline::{Scenario, ended},
};
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    outages::Outage,
};

/// Takes all the room that there is.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("filler");
    let mut size = 1 << 20;
    let mut file = fs::File::create(&path).unwrap();
    while size > 0 {
        if std::io::Write::write_all(&mut file, &vec![1; size]).is_err() {
            size /= 2;
        }
    }
    path
}

async fn charged_for_nothing(pool: &PgPool) -> i64 {
    let sql = "select count(*) from attempt where charged and verdict <> 'succeeded'";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

const WAITS: &str = "select exists (select from job_deferred where released > 1 and charged = 0)";

#[tokio::test]
async fn a_blob_store_that_is_full_charges_nothing_and_work_goes_on_when_there_is_room() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let blobs = flowstone.state_dir().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let Some(_mount) = Mount::new(&blobs, 16) else { return };
    let pool = flowstone.database().pool().await;
    scenario.command("deploy", &[]).expect_status(0);
    flowstone.run(["run", "scenarios", "after_large", "--detach"]).expect_status(0);
    let worker = flowstone.start(["work", "-j", "2"]);
    // It could be written when the worker started.
    let filler = fill(&blobs);
    wait_until_database_says(&pool, WAITS).await;
    let cause: String = sqlx::query_scalar("select cause from job_deferred").fetch_one(&pool).await.unwrap();
    assert!(cause.contains("cannot write a blob") && cause.contains("No space left"), "{cause}");
    fs::remove_file(filler).unwrap();
    flowstone.run(["watch", "latest"]).expect_status(0);
    worker.interrupt();
    worker.wait().expect_status(0);
    assert_eq!(charged_for_nothing(&pool).await, 0);
    assert_sound(&violations(&pool, &blobs).await);
}

/// The files of compiled code below a folder, unfinished ones among them.
fn compiled_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().filter(|path| !path.ends_with("scratch")).flat_map(|path| compiled_files(path));
    files.into_iter().filter(|path| !path.ends_with("filler")).chain(below).collect()
}

const NOT_KEPT: &str = "a compiled component cannot be kept";

#[tokio::test]
async fn a_compiled_cache_that_is_full_keeps_nobody_from_working_and_is_used_when_there_is_room() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let cache = flowstone.state_dir().join("compiled");
    fs::create_dir_all(&cache).unwrap();
    let Some(_mount) = Mount::new(&cache, 16) else { return };
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    let pool = flowstone.database().pool().await;
    // There is room for a part of it.
    let filler = fill(&cache);
    let length = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(length - 100_000).unwrap();
    let deployed = scenario.command("deploy", &[]).expect_status(0);
    assert!(deployed.stderr.contains(NOT_KEPT) && deployed.stderr.contains("No space left"), "{}", deployed.stderr);
    flowstone.run(["run", "scenarios", "sum", "--detach"]).expect_status(0);
    let mut worker = flowstone.start(["work", "-j", "2"]);
    worker.said(NOT_KEPT);
    flowstone.run(["watch", "latest"]).expect_status(0);
    assert_eq!(compiled_files(&cache), [] as [&Path; 0], "nothing is left of what was written in part");
    worker.interrupt();
    worker.wait().expect_status(0);
    assert_eq!(scenario.show("sum", None), "30");

    fs::remove_file(filler).unwrap();
    let kept = scenario.command("run", &["sum", "--force-all"]).expect_status(0);
    assert!(!kept.stderr.contains(NOT_KEPT), "{}", kept.stderr);
    let files = compiled_files(&cache);
    let [file] = &files[..] else { panic!("one component is kept: {files:?}") };
    // As a disk would leave it that lost what it had said it kept: it is not loaded, and made anew.
    let code = fs::read(file).unwrap();
    fs::write(file, &code[..code.len() / 2]).unwrap();
    scenario.command("run", &["sum", "--force-all"]).expect_status(0);
    assert!(fs::read(file).unwrap() == code);
    // Who finds it there does not write it again.
    let written = fs::metadata(file).unwrap().modified().unwrap();
    scenario.command("run", &["sum", "--force-all"]).expect_status(0);
    assert_eq!((compiled_files(&cache), fs::metadata(file).unwrap().modified().unwrap()), (files, written));
    assert_eq!(charged_for_nothing(&pool).await, 0);
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}

/// Workers over a server of which one part has no more room, until there is room again: what was acknowledged is there, and
/// the run ends as if nothing had been.
async fn work_while_it_is_full(part: Small, what_the_server_says: &str) {
    let Some(server) = Postgres::on_small_disk(part, 160).await else { return };
    let url = server.url();
    let mut outage = Outage::begin_on(server, url).await;
    let acknowledged = outage.ends().await;
    let filler = fill(outage.server.small_disk());
    wait_until("the server says so", || outage.server.said().contains(what_the_server_says));
    // Into whatever it does then: it may stop by itself, and would not start.
    let full_since = Instant::now();
    wait_until("it is so for a while", || full_since.elapsed() > Duration::from_secs(3));
    assert!(outage.workers.iter_mut().all(|worker| !worker.has_ended()), "they wait");
    fs::remove_file(filler).unwrap();
    if outage.server.has_ended() {
        outage.server.start().await;
    }
    let left = outage.ends().await;
    assert!(left >= acknowledged, "of {acknowledged} ends that were acknowledged {left} are left");
    assert!(left < outage.jobs, "there was room for all of it");
    outage.end().await;
}

#[tokio::test]
async fn a_database_whose_tables_have_no_room_costs_nothing_but_time() {
    work_while_it_is_full(Small::Tables, "could not extend file").await;
}

/// It stops by itself then, and cannot recover before there is room.
#[tokio::test]
async fn a_database_whose_log_has_no_room_costs_nothing_but_time() {
    work_while_it_is_full(Small::Log, "PANIC").await;
}

#[tokio::test]
async fn an_input_that_is_damaged_ends_its_job_with_what_mends_it_and_a_missing_one_is_noticed() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["large"], 0);
    let sql = "select output_digest from materialization";
    let digest: Vec<u8> = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    let digest = Digest(digest.try_into().unwrap());
    let file = file_of(flowstone, digest);
    let bytes = fs::read(&file).unwrap();
    let mut other = bytes.clone();
    other[700_000] ^= 1;
    for damaged in [&other[..], &bytes[..1_000]] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(ended(&scenario.run(&["after_large"], 1)), ["after_large failed"]);
        let cause: String =
            sqlx::query_scalar("select cause from job_end where cause is not null order by ended_at desc")
                .fetch_one(&pool)
                .await
                .unwrap();
        let id: String =
            sqlx::query_scalar("select materialization_id::text from latest").fetch_one(&pool).await.unwrap();
        for named in [&digest.to_string(), &id, "corrupt", "`flowstone run scenarios large --force`"] {
            assert!(cause.contains(named), "{named}: {cause}");
        }
        // As it says.
        let again = flowstone.run(["run", "scenarios", "large", "--force", "--json"]).expect_status(0);
        assert!(again.stdout.contains("job.ended"), "{}", again.stdout);
        assert!(fs::read(&file).unwrap() == bytes, "the bytes are mended");
    }
    assert_eq!(ended(&scenario.run(&["after_large"], 0)), ["after_large succeeded"]);
    assert_eq!(charged_for_nothing(&pool).await, 0, "it is no guest's fault");

    fs::remove_file(&file).unwrap();
    let plan = flowstone.run(["plan", "scenarios", "after_large", "--jobs"]).expect_status(0).stdout;
    assert!(plan.contains("large"), "{plan}");
    let again = ended(&scenario.run(&["after_large"], 0));
    assert_eq!(again, ["after_large succeeded, reused", "large succeeded"], "what reads it need not be made");
    assert!(fs::read(&file).unwrap() == bytes);
}

/// It goes while the job is on its way.
#[tokio::test]
async fn an_input_that_is_missing_when_it_is_claimed_ends_its_job_with_what_mends_it() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.run(&["large"], 0);
    flowstone.run(["run", "scenarios", "after_large", "--detach"]).expect_status(0);
    let digest: Vec<u8> =
        sqlx::query_scalar("select output_digest from materialization").fetch_one(&pool).await.unwrap();
    fs::remove_file(file_of(flowstone, Digest(digest.try_into().unwrap()))).unwrap();
    let worker = flowstone.start(["work", "-j", "1"]);
    flowstone.run(["watch", "latest"]).expect_status(1);
    worker.interrupt();
    worker.wait().expect_status(0);
    let cause: String =
        sqlx::query_scalar("select cause from job_end where state = 'failed'").fetch_one(&pool).await.unwrap();
    assert!(cause.contains("missing") && cause.contains("`flowstone run scenarios large --force`"), "{cause}");
    assert_eq!(ended(&scenario.run(&["after_large"], 0)), ["after_large succeeded", "large succeeded"]);
}

fn file_of(flowstone: &Flowstone, digest: Digest) -> std::path::PathBuf {
    let name = digest.to_string();
    flowstone.state_dir().join("blobs/default").join(&name[..2]).join(name)
}
