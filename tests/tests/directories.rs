//! Granted directories while the world goes on: what changes under an attempt that reads it, and what becomes of files
//! that were committed and not yet shown when a process died, a link got in the way, or another process was faster.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use flowstone::{blob::Digest, limit::SOURCE_CHANGES_MAX};
use flowstone_tests::{
    Database, Flowstone, Running,
    deadline::wait_until_database_says,
    fault::{self, FORGET_PUBLISHED, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, When, let_sessions_expire},
    pipeline::Scenario,
};
use serde_json::Value;
use sqlx::PgPool;

use crate::checker::{assert_sound, violations};

/// A scenario, its database, and what is told of both.
struct Directories {
    scenario: Scenario,
    database: Database,
    pool: PgPool,
}

impl Directories {
    async fn new(more: &str) -> Self {
        let database = Database::new().await;
        let pool = database.pool().await;
        Self { scenario: Scenario::with(Flowstone::on(&database), more), database, pool }
    }

    fn shelf(&self, name: &str) -> PathBuf {
        self.scenario.folder().join("shelf").join(name)
    }

    fn counter(&self, name: &str) -> PathBuf {
        self.scenario.folder().join("counter").join(name)
    }

    fn start(&self, arguments: &[&str]) -> Running {
        self.scenario.flowstone.start([&["run", self.scenario.manifest()], arguments, &["--json"]].concat())
    }

    async fn assert_sound(&self) {
        assert_sound(&violations(&self.pool, &self.scenario.flowstone.state_dir().join("blobs")).await);
    }

    /// The attempts at an asset, the oldest first: verdict, and whether it was charged.
    async fn attempts(&self, asset: &str) -> Vec<(String, bool)> {
        let sql = "select t.verdict, t.charged from attempt t join job j using (tenant_id, job_id)
             join asset_version v using (tenant_id, asset_version_id) join asset a using (tenant_id, asset_id)
             where a.name = $1 order by t.attempt_id";
        sqlx::query_as(sql).bind(asset).fetch_all(&self.pool).await.unwrap()
    }

    /// What the newest result of an asset says that the shelf was.
    async fn shelf_that_was_read(&self, asset: &str) -> (Vec<u8>, i64, i64) {
        let sql = "select r.digest, r.items, r.size_bytes from external_read r
             join materialization m using (tenant_id, materialization_id) join asset a using (tenant_id, asset_id)
             where a.name = $1 and r.resource = 'shelf' order by m.sequence desc limit 1";
        sqlx::query_as(sql).bind(asset).fetch_one(&self.pool).await.unwrap()
    }

    /// The files that are committed and not known to be shown, in the order of their commits.
    async fn staged(&self) -> Vec<String> {
        let sql = "select s.path from staged_file s join materialization m using (tenant_id, materialization_id)
             order by m.sequence, s.path";
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap()
    }

    /// What the commits say that a file is: the last of them.
    async fn committed(&self, path: &str) -> Digest {
        let sql = "select s.digest from staged_file s join materialization m using (tenant_id, materialization_id)
             where s.path = $1 order by m.sequence desc limit 1";
        let digest: Vec<u8> = sqlx::query_scalar(sql).bind(path).fetch_one(&self.pool).await.unwrap();
        Digest(digest.try_into().unwrap())
    }

    /// Everything in the written directory, however deep, but for folders.
    fn files(&self) -> Vec<String> {
        let top = self.counter("");
        let (mut found, mut folders) = (Vec::new(), vec![top.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => found.push(entry.path().strip_prefix(&top).unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        found.sort();
        found
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn said_to_have_changed(event: &Value) -> bool {
    event["cause"]
        .as_str()
        .is_some_and(|cause| cause.starts_with("a granted directory changed while the attempt read it"))
}

#[tokio::test]
async fn an_attempt_whose_directory_changed_runs_again_uncharged_and_records_what_the_directory_became() {
    let directories = Directories::new("").await;
    fs::write(directories.shelf("a.txt"), "a").unwrap();
    let mut run = directories.start(&["reads_for_long"]);
    run.event("job.started");
    // The attempt's recipe is made, and the guest reads until it is told to go on.
    fs::write(directories.shelf("b.txt"), "bb").unwrap();
    directories.scenario.go("on");
    let deferred = run.event("job.deferred");
    assert!(said_to_have_changed(&deferred), "{deferred}");
    run.wait().expect_status(0);

    let attempts = directories.attempts("reads_for_long").await;
    assert_eq!(attempts, [("succeeded".to_owned(), false), ("succeeded".to_owned(), true)]);
    assert_eq!(directories.scenario.show("reads_for_long", None), "3 3", "the bytes of both files, twice");
    // Another asset with the same grant, which nobody disturbs.
    directories.scenario.run(&["listing"], 0);
    let recorded = directories.shelf_that_was_read("reads_for_long").await;
    assert_eq!(recorded, directories.shelf_that_was_read("listing").await);
    assert_eq!((recorded.1, recorded.2), (2, 3));
    directories.assert_sound().await;
}

#[tokio::test]
async fn a_directory_that_changes_for_ever_fails_its_job_which_says_so() {
    let directories = Directories::new("").await;
    let mut run = directories.start(&["reads_for_long"]);
    for change in 0..=SOURCE_CHANGES_MAX {
        run.event("job.started");
        fs::write(directories.shelf(&format!("{change}.txt")), "a").unwrap();
        directories.scenario.go("on");
        if change == SOURCE_CHANGES_MAX {
            break;
        }
        let deferred = run.event("job.deferred");
        assert!(said_to_have_changed(&deferred), "{deferred}");
        fs::remove_file(directories.counter("go")).unwrap();
        // What time would do: the waits grow to half a minute.
        sqlx::query("update job_deferred set due_at = now()").execute(&directories.pool).await.unwrap();
    }
    let ended = run.event("job.ended");
    assert!(said_to_have_changed(&ended), "{ended}");
    assert!(ended["cause"].as_str().unwrap().ends_with(&format!(", {} times", SOURCE_CHANGES_MAX + 1)), "{ended}");
    assert_eq!(ended["state"], "failed");
    run.wait().expect_status(1);

    let attempts = directories.attempts("reads_for_long").await;
    assert_eq!(attempts.len(), 1 + SOURCE_CHANGES_MAX as usize);
    assert!(attempts.iter().all(|(_, charged)| !charged), "the guest did nothing wrong: {attempts:?}");
    directories.assert_sound().await;
}

#[tokio::test]
async fn faults_of_the_host_are_not_counted_as_changes_of_a_directory() {
    let directories = Directories::new("").await;
    let mut run = directories.start(&["reads_for_long"]);
    for times_released in [SOURCE_CHANGES_MAX + 1, 0] {
        run.event("job.started");
        fs::write(directories.shelf(&format!("{times_released}.txt")), "a").unwrap();
        directories.scenario.go("on");
        let deferred = run.event("job.deferred");
        assert!(said_to_have_changed(&deferred), "{deferred}");
        fs::remove_file(directories.counter("go")).unwrap();
        // As after a disk that was full for some minutes, now with room again.
        let sql = "update job_deferred set due_at = now(), released = released + $1";
        sqlx::query(sql).bind(times_released).execute(&directories.pool).await.unwrap();
    }
    run.event("job.started");
    directories.scenario.go("on");
    run.wait().expect_status(0);
    assert_eq!(directories.scenario.show("reads_for_long", None), "2 2");
    directories.assert_sound().await;
}

/// Waits until a publisher is at the gate, kills its process, and lets the server notice.
async fn kill_at(gate: Gate, running: Running, directories: &Directories) {
    wait_until_database_says(&directories.pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    running.kill();
    gate.open().await;
    let_sessions_expire(&directories.pool).await;
}

#[tokio::test]
async fn what_was_committed_and_not_published_when_its_process_died_the_next_publishes() {
    let directories = Directories::new("").await;
    fs::write(directories.counter("count"), "41").unwrap();
    let gate = Gate::close_publishing(&directories.database).await;
    kill_at(gate, directories.start(&["unique"]), &directories).await;
    assert_eq!(directories.staged().await, ["count"]);
    let committed = directories.committed("count").await;
    assert_eq!(directories.scenario.show("unique", None), "42", "it is true already");
    assert_eq!(read(&directories.counter("count")), "41", "and not shown yet");
    directories.assert_sound().await;

    // It does not make the file, and starts only.
    directories.scenario.run(&["numbers"], 0);
    assert_eq!(Digest::of(&fs::read(directories.counter("count")).unwrap()), committed);
    assert_eq!(directories.staged().await, [""; 0]);
    assert_eq!(directories.files(), ["count"]);
    assert_eq!(directories.attempts("unique").await, [("succeeded".to_owned(), true)], "nothing ran again");
    directories.assert_sound().await;
}

#[tokio::test]
async fn what_was_published_and_not_known_to_be_when_its_process_died_is_published_again() {
    let directories = Directories::new("").await;
    let gate = Gate::close(&directories.database).await;
    FORGET_PUBLISHED.inject(&directories.pool, When::Before, Fault::Gated).await;
    kill_at(gate, directories.start(&["unique"]), &directories).await;
    fault::remove(&directories.pool).await;
    assert_eq!(read(&directories.counter("count")), "1", "it is shown");
    assert_eq!(directories.staged().await, ["count"], "and its row is there");
    let committed = directories.committed("count").await;
    // Whatever becomes of the file meanwhile: the commit decides.
    fs::write(directories.counter("count"), "torn").unwrap();

    directories.scenario.run(&["numbers"], 0);
    assert_eq!(Digest::of(&fs::read(directories.counter("count")).unwrap()), committed);
    assert_eq!(directories.staged().await, [""; 0]);
    assert_eq!(directories.files(), ["count"], "no temporary file is left");
    directories.assert_sound().await;
}

/// Writes `PATH` and `PATH.a`.
fn writes(path: &str) -> String {
    format!("[assets.writes.config]\npath = {path:?}\n")
}

#[tokio::test]
async fn a_link_in_place_of_a_published_file_is_replaced_and_not_written_through() {
    let directories = Directories::new(&writes("note")).await;
    let outside = directories.scenario.folder().join("outside");
    fs::write(&outside, "whole").unwrap();
    let gate = Gate::close_publishing(&directories.database).await;
    let run = directories.start(&["writes", "--partition", "a"]);
    wait_until_database_says(&directories.pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    // The guest would be refused if it were there before.
    symlink(&outside, directories.counter("note")).unwrap();
    gate.open().await;
    run.wait().expect_status(0);
    assert_eq!(read(&outside), "whole");
    assert!(fs::symlink_metadata(directories.counter("note")).unwrap().is_file(), "the file is there itself");
    assert_eq!(read(&directories.counter("note")), "a");
    assert_eq!(directories.staged().await, [""; 0]);
}

#[tokio::test]
async fn a_link_in_place_of_a_folder_stops_publication_and_the_operator_is_told() {
    let directories = Directories::new(&writes("below/deep/note")).await;
    let outside = directories.scenario.folder().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    let gate = Gate::close_publishing(&directories.database).await;
    let run = directories.start(&["writes", "--partition", "a"]);
    wait_until_database_says(&directories.pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    symlink(&outside, directories.counter("below")).unwrap();
    gate.open().await;
    let output = run.wait().expect_status(0);
    for words in ["`below/deep/note` of resource `counter` cannot be published", "`below` is a link"] {
        assert!(output.stderr.contains(words), "{words:?} is not in: {}", output.stderr);
    }
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(directories.staged().await, ["below/deep/note", "below/deep/note.a"], "it is not forgotten");
    // A link to another folder of the same directory is not followed either: the grant was checked against names.
    fs::remove_file(directories.counter("below")).unwrap();
    fs::create_dir_all(directories.counter("other/deep")).unwrap();
    symlink("other", directories.counter("below")).unwrap();
    directories.scenario.run(&["numbers"], 0);
    assert_eq!(directories.files(), ["below"]);

    fs::remove_file(directories.counter("below")).unwrap();
    directories.scenario.run(&["numbers"], 0);
    assert_eq!(directories.files(), ["below/deep/note", "below/deep/note.a"]);
    assert_eq!(read(&directories.counter("below/deep/note")), "a");
    assert_eq!(directories.staged().await, [""; 0]);
    directories.assert_sound().await;
}

/// How many connections wait for their turn to publish.
const TWO_WAIT_TO_PUBLISH: &str = "select count(*) >= 2 from pg_locks where locktype = 'advisory' and not granted
     and objid::bigint = hashtext('flowstone.publish')::bigint & 4294967295
     and database = (select oid from pg_database where datname = current_database())";

#[tokio::test]
async fn two_processes_that_publish_at_once_leave_what_the_last_commit_decided() {
    let directories = Directories::new("").await;
    directories.scenario.command("deploy", &[]).expect_status(0);
    let gate = Gate::close_publishing(&directories.database).await;
    // One claim takes all four: they are made side by side, and committed as they come.
    let first = directories.start(&["writes", "-j", "8"]);
    wait_until_database_says(&directories.pool, "select count(*) = 8 from staged_file").await;
    wait_until_database_says(&directories.pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    let second = directories.start(&["numbers"]);
    wait_until_database_says(&directories.pool, TWO_WAIT_TO_PUBLISH).await;
    assert_eq!(directories.files(), [""; 0]);
    let last = directories.committed("shared").await;
    gate.open().await;
    first.wait().expect_status(0);
    second.wait().expect_status(0);
    assert_eq!(Digest::of(&fs::read(directories.counter("shared")).unwrap()), last);
    assert_eq!(directories.files(), ["shared", "shared.a", "shared.b", "shared.c", "shared.d"]);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(read(&directories.counter(&format!("shared.{key}"))), key);
    }
    assert_eq!(directories.staged().await, [""; 0]);
    directories.assert_sound().await;
}
