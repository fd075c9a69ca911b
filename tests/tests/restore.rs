//! What `docs/operations.md` says of backups, done: a dump and a copy of the blobs, taken while a worker works, are put
//! into an empty place, and a run there reuses what was there.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use flowstone_tests::{
    Database, Flowstone,
    deadline::wait_until_database_says,
    pipeline::{Scenario, ended},
};

use crate::checker::{assert_sound, violations};

/// Together they make outputs in rows and in files, read and write a directory, and use a bucket.
const ASSETS: &[&str] = &["sum", "after_large", "unique", "after_tallies"];

/// Runs a program of Postgres or of the system, whose absence is no reason not to test.
#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}, which scripts/setup installs: {error}"));
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

#[tokio::test]
async fn a_dump_and_the_blobs_in_an_empty_place_are_all_there_is() {
    let old = Scenario::new("");
    old.run(ASSETS, 0);
    let (unique, large) = (old.show("unique", None), old.show("large", None));
    // Somebody works while it is saved: what is not done by then is done after it was restored.
    let pool = old.flowstone.database().pool().await;
    old.command("run", &["waits", "--detach"]).expect_status(0);
    let working = old.flowstone.start(["work", "-j", "1"]);
    wait_until_database_says(&pool, "select exists (select from job_lease)").await;

    let backup = tempfile::tempdir().unwrap();
    let (dump, saved) = (backup.path().join("flowstone.dump"), backup.path().join("blobs"));
    let all_blobs = old.flowstone.state_dir().join("blobs/.");
    fs::create_dir(&saved).unwrap();
    run("cp", &["-a", path(&all_blobs), path(&saved)]);
    run("pg_dump", &["--format=custom", "--file", path(&dump), &old.flowstone.database().url()]);
    run("cp", &["-a", path(&all_blobs), path(&saved)]);
    working.kill();

    let database = Database::empty().await;
    run("pg_restore", &["--no-owner", "--exit-on-error", "--dbname", &database.url(), path(&dump)]);
    let flowstone = Flowstone::on(&database);
    fs::create_dir_all(flowstone.state_dir()).unwrap();
    run("cp", &["-a", path(&saved), path(&flowstone.state_dir().join("blobs"))]);
    let pool = database.pool().await;
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
    assert_eq!(show(&flowstone, "large"), large);
    assert_eq!(show(&flowstone, "unique"), unique);

    // Nothing is made again. The workers that the dump knows of are dead, and their jobs are taken over.
    let rerun = flowstone.run([&["run", "scenarios"], ASSETS, &["--json"]].concat()).expect_status(0);
    let events: Vec<_> = rerun.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ended(&events), [""; 0], "all is up to date");
    old.go("on");
    let working = flowstone.start(["work", "-j", "1"]);
    flowstone.run(["watch", "latest"]).expect_status(0);
    working.interrupt();
    working.wait().expect_status(0);
    // And it goes on as if nothing had been: another version, another result, and the lineage of both.
    let again = flowstone.run(["run", "scenarios", "numbers", "--force", "--json"]).expect_status(0);
    let events: Vec<_> = again.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ended(&events), ["numbers succeeded"]);
    let lineage = flowstone.run(["lineage", "scenarios", "sum"]).expect_status(0).stdout;
    assert!(lineage.contains("doubled"), "{lineage}");
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}

fn show(flowstone: &Flowstone, asset: &str) -> String {
    flowstone.run(["show", "scenarios", asset]).expect_status(0).stdout
}
