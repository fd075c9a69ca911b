//! Workers that die, stand still and come back while they share a run: no job is lost, none is made twice, and only what
//! a guest did is charged. The checker reads the whole database and every blob afterwards.
//!
//! `scripts/chaos` runs this in full: 20,000 jobs, two minutes of kills, and sessions that expire when their time comes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use flowstone_tests::{
    Flowstone, Running,
    deadline::wait_until_database_says,
    pipeline::{Scenario, guest},
};
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    support::Draws,
};

/// Workers at a time.
const WORKERS: usize = 4;
/// The sessions of those that were killed have expired, and their rows are gone.
const ONLY_THESE_ARE_LEFT: &str = "select count(*) <= 4 from worker";
/// Between two kills: at least this, and at most so much more.
const BETWEEN_KILLS_MIN: Duration = Duration::from_millis(100);
const BETWEEN_KILLS_MORE: Duration = Duration::from_millis(400);

/// Whether `scripts/chaos` asks for all of it.
pub fn is_in_full() -> bool {
    std::env::var_os("FLOWSTONE_CHAOS").is_some_and(|extent| extent == "full")
}

/// How much of it.
struct Extent {
    hours: &'static str,
    /// Four for each hour.
    jobs: i64,
    kills_for: Duration,
    /// Whether sessions expire when their time comes, or as soon as their worker is killed.
    in_real_time: bool,
}

impl Extent {
    /// In full where `scripts/chaos` asks for it.
    fn chosen() -> Self {
        match is_in_full() {
            true => Self {
                hours: "2024-01-01T00..2024-07-27T07",
                jobs: 20_000,
                kills_for: Duration::from_secs(120),
                in_real_time: true,
            },
            false => Self {
                hours: "2024-01-01T00..2024-01-25T23",
                jobs: 2_400,
                kills_for: Duration::from_secs(6),
                in_real_time: false,
            },
        }
    }
}

/// Deploys the pipeline of `tests/guests/chaos`.
pub fn deployed(flowstone: Flowstone) -> Flowstone {
    let retry = r#"retry = { max_attempts = 3, backoff = "constant", base = "10ms", cap = "10ms", jitter = false }"#;
    let component = guest("chaos");
    let text = format!(
        "[pipeline]\nname = \"chaos\"\n[[components]]\npath = \"{}\"\n[assets.third]\n{retry}\n",
        component.display()
    );
    fs::write(flowstone.folder().join("flowstone.toml"), text).unwrap();
    flowstone.run(["deploy", "./flowstone.toml"]).expect_status(0);
    flowstone
}

pub fn work(flowstone: &Flowstone) -> Running {
    flowstone.start(["work", "-j", "2"])
}

pub fn blobs(flowstone: &Flowstone) -> PathBuf {
    flowstone.state_dir().join("blobs")
}

/// As if the time of this process' session were over.
async fn expire(pool: &PgPool, pid: u32) {
    let sql = "update worker set beat_at = '-infinity' where pid = $1";
    sqlx::query(sql).bind(pid as i32).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_run_whose_workers_are_killed_again_and_again_ends_as_it_must() {
    let extent = Extent::chosen();
    let flowstone = deployed(Flowstone::new());
    let pool = flowstone.database().pool().await;
    flowstone.run(["run", "chaos", "--partition", extent.hours, "--detach"]).expect_status(0);
    let mut draws = Draws(4);
    let mut workers: Vec<Running> = (0..WORKERS).map(|_| work(&flowstone)).collect();
    let (mut kills, until) = (0, Instant::now() + extent.kills_for);
    while Instant::now() < until {
        tokio::time::sleep(BETWEEN_KILLS_MIN + BETWEEN_KILLS_MORE.mul_f64(draws.fraction())).await;
        let place = (draws.fraction() * WORKERS as f64) as usize % WORKERS;
        let killed = std::mem::replace(&mut workers[place], work(&flowstone));
        let pid = killed.pid();
        killed.kill();
        kills += 1;
        if !extent.in_real_time {
            expire(&pool, pid).await;
        }
    }
    flowstone.run(["watch", "latest"]).expect_status(1);
    wait_until_database_says(&pool, ONLY_THESE_ARE_LEFT).await;
    for worker in workers {
        worker.interrupt();
        worker.wait().expect_status(0);
    }

    assert_ended_as_it_must(&flowstone, &pool, extent.jobs).await;
    let lost: i64 = sqlx::query_scalar("select count(*) from attempt where verdict = 'lost' and not charged")
        .fetch_one(&pool)
        .await
        .unwrap();
    println!("{kills} kills, {lost} attempts lost, {} jobs", extent.jobs);
    assert!(lost > 0, "{kills} kills met no attempt");
}

/// That nothing is wrong in the whole database and with any blob, and that each of a run's jobs ended as the name of its
/// hour says.
pub async fn assert_ended_as_it_must(flowstone: &Flowstone, pool: &PgPool, jobs: i64) {
    assert_sound(&violations(pool, &blobs(flowstone)).await);
    let failing: i64 = sqlx::query_scalar(
        "select count(*) from job j join asset_version v using (tenant_id, asset_version_id)
         join asset a using (tenant_id, asset_id)
         where a.name = 'second' and j.partition_key ~ '-(04|08|12|16|20|24|28)T13$'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(failing > 0);
    let ended: (i32, i32, i32, i32) =
        sqlx::query_as("select succeeded, skipped, failed, cancelled from run").fetch_one(pool).await.unwrap();
    let succeeded = jobs - 3 * failing;
    assert_eq!(ended, (succeeded as i32, 2 * failing as i32, failing as i32, 0));
    // The checker knows that a job makes one; here, that no partition has two.
    let made: (i64, i64) =
        sqlx::query_as("select count(*), count(distinct (asset_id, partition_key)) from materialization")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(made, (succeeded, succeeded));
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from worker) + (select count(*) from live_job) + (select count(*) from job_joined)
             + (select count(*) from job_limited)
             + (select count(*) from job_lease)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_worker_that_stood_still_for_longer_than_its_session_writes_nothing_and_works_on() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let pool = flowstone.database().pool().await;
    scenario.command("run", &["after_waits", "--detach"]).expect_status(0);
    // One guest at a time: what it is given next runs only when this one is over.
    let zombie = flowstone.start(["work", "-j", "1"]);
    wait_until_database_says(&pool, "select count(*) = 1 from job_lease").await;
    zombie.signal("STOP");
    expire(&pool, zombie.pid()).await;
    let other = work(flowstone);
    wait_until_database_says(
        &pool,
        "select count(*) = 1 from job_lease join attempt using (job_id) where attempt.verdict = 'lost'
             and job_lease.token <> attempt.token",
    )
    .await;
    // Both guests find the word; the one that stood still finds it first.
    other.signal("STOP");
    scenario.go("on");
    zombie.signal("CONT");
    let run = flowstone.run(["runs", "--json"]).expect_status(0).stdout;
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let run = run[0]["run"].as_str().unwrap();
    flowstone.run(["run", "scenarios", "numbers", "--detach"]).expect_status(0);
    flowstone.run(["watch", "latest"]).expect_status(0);
    let made: i64 = sqlx::query_scalar("select count(*) from materialization").fetch_one(&pool).await.unwrap();
    assert_eq!(made, 1, "what came too late is not written");
    other.signal("CONT");
    flowstone.run(["watch", run]).expect_status(0);
    let sql = "select t.verdict, t.charged from attempt t join job j using (tenant_id, job_id)
         where j.run_id = $1::uuid order by t.started_at";
    let verdicts: Vec<(String, bool)> = sqlx::query_as(sql).bind(run).fetch_all(&pool).await.unwrap();
    let verdicts: Vec<(&str, bool)> = verdicts.iter().map(|(verdict, charged)| (&**verdict, *charged)).collect();
    assert_eq!(verdicts, [("lost", false), ("succeeded", true), ("succeeded", true)]);
    assert_sound(&violations(&pool, &blobs(flowstone)).await);

    // It is a worker as before.
    other.kill();
    flowstone.run(["run", "scenarios", "sum", "--detach"]).expect_status(0);
    flowstone.run(["watch", "latest"]).expect_status(0);
    zombie.interrupt();
    zombie.wait().expect_status(0);
}
