//! Disks that are full and then free, and bytes that are gone or damaged: jobs wait uncharged and go on when there is room,
//! and what no wait brings back is told with what mends it.

use std::{fs, path::Path};

use flowstone::blob::Digest;
use flowstone_tests::{
    Flowstone, Mount,
    deadline::wait_until_database_says,
    pipeline::{Scenario, ended},
};
use sqlx::PgPool;

use crate::checker::{assert_sound, violations};

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
