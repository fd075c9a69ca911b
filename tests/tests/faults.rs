//! The fourth finding of the review that started this project: output, materialization, lineage and job state could
//! disagree. Here a fault is put at every step of the commit, by the database or on the way to it; what is recorded
//! must be sound at every moment, and in the end everything is made exactly once.

use std::{collections::BTreeMap, fs, time::Instant};

use flowstone::{blob::Digest, limit::SESSION_EXPIRY};
use flowstone_tests::{
    Database, Flowstone,
    deadline::wait_until_database_says,
    fault::{self, COMMIT_STEPS, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, When, let_sessions_expire},
    pipeline::{Scenario, ended},
    proxy::{Cut, Proxy},
};
use sqlx::PgPool;

use crate::checker::{assert_sound, violations};

/// Together they make a commit write every kind of row: inline and stored outputs, lineage, a directory that is read
/// and one that is written, keys that come, change and go, retries, and jobs that wait for several others.
const ASSETS: &[&str] = &["sum", "early_and_late", "listing", "unique", "after_large", "flaky", "after_tallies"];
/// What a run of them makes.
const MADE: &[&str] = &[
    "after_large",
    "after_tallies",
    "doubled",
    "early_and_late",
    "flaky",
    "large",
    "listing",
    "numbers",
    "sum",
    "tallies",
    "unique",
];

/// A pipeline, its folders and its compiled component, for one database after the other.
struct Faulty {
    scenario: Scenario,
    /// How often `unique` was made: it counts in a file.
    times: u64,
}

impl Faulty {
    async fn new() -> Self {
        let first = Database::new().await;
        let scenario = Scenario::with(Flowstone::on(&first), "");
        fs::write(scenario.folder().join("shelf/a.txt"), "a").unwrap();
        scenario.command("deploy", &[]).expect_status(0);
        Self { scenario, times: 0 }
    }

    async fn use_new_database(&mut self) -> (Database, PgPool) {
        let database = Database::new().await;
        self.scenario.flowstone.use_database(database.url());
        let pool = database.pool().await;
        (database, pool)
    }

    fn start(&self) -> flowstone_tests::Running {
        let arguments = [&["run", self.scenario.manifest()], ASSETS, &["--json"]].concat();
        self.scenario.flowstone.start(arguments)
    }

    async fn assert_sound(&self, pool: &PgPool) {
        assert_sound(&violations(pool, &self.scenario.flowstone.state_dir().join("blobs")).await);
    }

    /// Everything is there exactly once, also after another run.
    async fn assert_made_once(&mut self, pool: &PgPool, where_: &str) {
        self.assert_sound(pool).await;
        assert_eq!(made(pool).await, once_each(), "{where_}");
        let again = ended(&self.scenario.run(ASSETS, 0));
        assert!(again.is_empty(), "{where_}: nothing was left to do, but {again:?}");
        self.times += 1;
        let count = fs::read_to_string(self.scenario.folder().join("counter/count")).unwrap();
        assert_eq!(count, self.times.to_string(), "{where_}: the effect is there once");
        let kept = "select key || '=' || convert_from(value, 'UTF8') from bucket_entry";
        let kept: Vec<String> = sqlx::query_scalar(kept).fetch_all(pool).await.unwrap();
        assert_eq!(kept, ["made=1"], "{where_}: what was counted is counted once");
    }
}

/// How often each asset was made.
async fn made(pool: &PgPool) -> BTreeMap<String, i64> {
    let sql = "select a.name, count(*) from materialization m join asset a using (tenant_id, asset_id) group by a.name";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap().into_iter().collect()
}

fn once_each() -> BTreeMap<String, i64> {
    MADE.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

/// Verdicts of the attempts that did not count, or that count for an asset other than `flaky`, which fails by itself.
async fn odd_verdicts(pool: &PgPool) -> Vec<String> {
    let sql = "select a.name || ' ' || t.verdict from attempt t join job j using (tenant_id, job_id)
         join asset_version v using (tenant_id, asset_version_id) join asset a using (tenant_id, asset_id)
         where not t.charged or (t.verdict <> 'succeeded' and a.name <> 'flaky')";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn finding_4_a_statement_of_the_commit_that_fails_leaves_nothing_half_done() {
    let mut faulty = Faulty::new().await;
    for step in COMMIT_STEPS {
        for (when, fault) in [(When::Before, Fault::Refused), (When::After, Fault::Disconnected)] {
            let place = format!("{fault:?} {when:?} {step:?}");
            let (_database, pool) = faulty.use_new_database().await;
            step.inject(&pool, when, fault).await;
            let output = faulty.start().wait();
            assert_eq!(output.status, Some(0), "{place}\n{}{}", output.stdout, output.stderr);
            let reached = fault::remove(&pool).await;
            assert!(reached >= 2, "{place}: the commit was tried again, but the step was reached {reached} times");
            assert_eq!(odd_verdicts(&pool).await, [""; 0], "{place}: nothing ran again");
            faulty.assert_made_once(&pool, &place).await;
        }
    }
}

#[tokio::test]
async fn finding_4_a_process_that_dies_between_two_statements_leaves_nothing_half_done() {
    let mut faulty = Faulty::new().await;
    for step in COMMIT_STEPS {
        let (database, pool) = faulty.use_new_database().await;
        let gate = Gate::close(&database).await;
        step.inject(&pool, When::After, Fault::Gated).await;
        let running = faulty.start();
        wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        running.kill();
        gate.open().await;
        let_sessions_expire(&pool).await;
        fault::remove(&pool).await;
        faulty.assert_sound(&pool).await;
        let place = format!("killed at {step:?}");
        let output = faulty.start().wait();
        assert_eq!(output.status, Some(0), "{place}\n{}{}", output.stdout, output.stderr);
        // The run that was killed is taken over, then ended.
        let odd = odd_verdicts(&pool).await;
        let not_charged = |verdict: &String| [" lost", " cancelled"].iter().any(|end| verdict.ends_with(end));
        assert!(odd.iter().all(not_charged), "{place}: {odd:?}");
        faulty.assert_made_once(&pool, &place).await;
    }
}

#[tokio::test]
async fn finding_4_a_connection_that_is_cut_during_commit_loses_nothing_and_repeats_nothing() {
    let mut faulty = Faulty::new().await;
    for cut in [Cut::BeforeCommit, Cut::BeforeAnswer] {
        let mut cut_while_running = 0;
        for nth in 1.. {
            let (database, pool) = faulty.use_new_database().await;
            let proxy = Proxy::new(&database);
            faulty.scenario.flowstone.use_database(proxy.url());
            proxy.cut_at(cut, nth);
            let output = faulty.start().wait();
            let place = format!("{cut:?} {nth}: {}{}", output.stdout, output.stderr);
            faulty.assert_sound(&pool).await;
            // A command that cannot deploy or submit says so; once a run has started, it waits for the database.
            let had_started = output.stdout.contains("run.started");
            assert_eq!(output.status, Some(if had_started { 0 } else { 3 }), "{place}");
            cut_while_running += i32::from(proxy.has_cut() && had_started);
            faulty.scenario.flowstone.use_database(database.url());
            if !had_started {
                let_sessions_expire(&pool).await;
                let output = faulty.start().wait();
                assert_eq!(output.status, Some(0), "{place}\n{}{}", output.stdout, output.stderr);
            }
            assert_eq!(odd_verdicts(&pool).await, [""; 0], "{place}: nothing ran again");
            faulty.assert_made_once(&pool, &place).await;
            if !proxy.has_cut() {
                break;
            }
        }
        assert!(cut_while_running >= 3, "a chain of three has three commits, and {cut_while_running} were cut");
    }
}

/// A record that is refused for good is no reason to run for ever, nor to lose the others of its batch.
#[tokio::test]
async fn finding_4_a_record_that_is_refused_for_good_fails_its_job_and_no_other() {
    let mut faulty = Faulty::new().await;
    let (_database, pool) = faulty.use_new_database().await;
    let refuse = "alter table materialization add constraint injected check (size_bytes <> 800000)";
    sqlx::query(refuse).execute(&pool).await.unwrap();
    let output = faulty.start().wait().expect_status(1);
    assert!(output.stdout.contains("its record was refused"), "{}", output.stdout);
    faulty.assert_sound(&pool).await;
    let mut others = once_each();
    others.retain(|name, _| !name.contains("large"));
    assert_eq!(made(&pool).await, others);
    sqlx::query("alter table materialization drop constraint injected").execute(&pool).await.unwrap();
    faulty.start().wait().expect_status(0);
    faulty.assert_made_once(&pool, "after the refusal").await;
}

fn large_output() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn finding_4_an_output_that_cannot_be_stored_is_not_recorded() {
    let mut faulty = Faulty::new().await;
    let (_database, pool) = faulty.use_new_database().await;
    let digest = Digest::of(&large_output()).to_string();
    let blobs = faulty.scenario.flowstone.state_dir().join("blobs/default");
    // A folder where the blob should be: not even root can put a file in its place.
    let in_the_way = blobs.join(&digest[..2]).join(&digest);
    fs::create_dir_all(&in_the_way).unwrap();
    let mut running = faulty.start();
    let trouble = running.event("trouble");
    assert!(trouble["message"].as_str().unwrap().contains("cannot write a blob"), "{trouble}");
    faulty.assert_sound(&pool).await;
    assert_eq!(made(&pool).await.get("large"), None);
    fs::remove_dir(&in_the_way).unwrap();
    running.wait().expect_status(0);
    let odd = odd_verdicts(&pool).await;
    assert!(!odd.is_empty() && odd.iter().all(|verdict| verdict == "large lost"), "never charged: {odd:?}");
    faulty.assert_made_once(&pool, "after the blob could be written").await;
}

#[tokio::test]
async fn finding_4_an_output_that_is_stored_and_not_recorded_does_not_exist() {
    let mut faulty = Faulty::new().await;
    let (database, pool) = faulty.use_new_database().await;
    let digest = Digest::of(&large_output()).to_string();
    let file = faulty.scenario.flowstone.state_dir().join("blobs/default").join(&digest[..2]).join(&digest);
    let gate = Gate::close(&database).await;
    COMMIT_STEPS[0].inject(&pool, When::Before, Fault::Gated).await;
    let running = faulty.scenario.flowstone.start(["run", faulty.scenario.manifest(), "large"]);
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    assert!(file.is_file(), "the bytes come before the commit");
    running.kill();
    gate.open().await;
    let_sessions_expire(&pool).await;
    fault::remove(&pool).await;
    faulty.assert_sound(&pool).await;
    assert!(made(&pool).await.is_empty());
    faulty.scenario.flowstone.run(["show", "scenarios", "large"]).expect_status(2);
    faulty.start().wait().expect_status(0);
    faulty.assert_made_once(&pool, "after the next run").await;
}

/// The database has leased the jobs, and nobody knows of it: no wait for the end of a session that goes on brings them
/// back.
#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_given_back_while_its_process_goes_on() {
    let mut faulty = Faulty::new().await;
    let (database, pool) = faulty.use_new_database().await;
    let proxy = Proxy::new(&database);
    faulty.scenario.flowstone.use_database(proxy.url());
    proxy.lose_next_claim();
    let mut running = faulty.start();
    running.event("run.started");
    let started = Instant::now();
    let finished = running.event("run.finished");
    assert!(proxy.has_cut(), "a claim that took jobs was cut off");
    assert!(started.elapsed() < SESSION_EXPIRY, "{:?}", started.elapsed());
    assert_eq!(finished["state"], "succeeded");
    let output = running.wait().expect_status(0);
    assert!(output.stderr.contains("no jobs can be claimed for now"), "{}", output.stderr);
    assert_eq!(odd_verdicts(&pool).await, [""; 0], "nothing was lost, nothing ran again");
    assert_eq!(workers(&pool).await, 1, "and nobody else had to take over");
    faulty.scenario.flowstone.use_database(database.url());
    faulty.assert_made_once(&pool, "after a claim was lost").await;
}

/// How many processes made an attempt.
async fn workers(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(distinct worker_id) from attempt").fetch_one(pool).await.unwrap()
}
