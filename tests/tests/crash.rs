//! `kill -9` at any moment of a real pipeline: the next run completes it, nothing is lost, nothing is recorded twice,
//! and every output has the bytes that an undisturbed run gives it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowstone::embedded::Cluster;
use flowstone_tests::{Database, Flowstone, fault::let_sessions_expire, pipeline::example};
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    support::Draws,
};

/// The times that the issue asks for, some of them with an embedded cluster, which is killed with its owner.
const KILLS: u32 = 50;
const EMBEDDED_KILLS: u32 = 5;
/// Of the kills, those that come when so many jobs have ended: moments alone miss the middle of a run on a machine that
/// has become faster or slower meanwhile.
const COUNTED_KILLS: usize = 15;
/// Jobs of the weather pipeline: raw, clean, 48 months, 4 years, the report.
const WEATHER_JOBS: usize = 55;

fn weather() -> PathBuf {
    // Says what to do when it has not been built.
    let component = example("weather");
    component.ancestors().nth(4).expect("it is four folders down").join("flowstone.toml")
}

fn run_weather() -> [String; 2] {
    ["run".to_owned(), weather().display().to_string()]
}

/// The digest of each asset's partition, each made exactly once.
type Digests = BTreeMap<(String, String), String>;

async fn digests(pool: &PgPool) -> Digests {
    let sql = "select a.name, m.partition_key, encode(m.output_digest, 'hex')
         from materialization m join asset a using (tenant_id, asset_id)";
    let rows: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(pool).await.unwrap();
    let made = rows.len();
    let digests: Digests = rows.into_iter().map(|(asset, key, digest)| ((asset, key), digest)).collect();
    assert_eq!((made, digests.len()), (WEATHER_JOBS, WEATHER_JOBS), "each partition is made once");
    digests
}

/// What a run that nobody disturbs makes, and how long it takes.
async fn undisturbed(flowstone: &mut Flowstone) -> (Digests, Duration) {
    // The first run compiles; the second is like those that are killed.
    let mut took = Duration::ZERO;
    let mut made = Vec::new();
    for _ in 0..2 {
        let database = Database::new().await;
        flowstone.use_database(database.url());
        let started = Instant::now();
        flowstone.run(run_weather()).expect_status(0);
        took = started.elapsed();
        made.push(digests(&database.pool().await).await);
    }
    assert_eq!(made[0], made[1]);
    (made.remove(0), took)
}

/// Moments over the whole of a run: one in each of as many equal parts, where in it is drawn.
fn moments(seed: u64, count: u32, whole: Duration) -> impl Iterator<Item = Duration> {
    let mut draws = Draws(seed);
    (0..count).map(move |part| whole.mul_f64((f64::from(part) + draws.fraction()) / f64::from(count)))
}

/// When a run is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    After(Duration),
    AfterJobs(usize),
}

/// Starts a run and kills it after a while. The sleep is not there to wait for anything: it is the fault.
fn kill_after(flowstone: &Flowstone, moment: Duration) {
    let running = flowstone.start(run_weather());
    std::thread::sleep(moment);
    running.kill();
}

/// Starts a run and kills it when it says that so many jobs have ended, however fast the machine is just now.
fn kill_after_jobs(flowstone: &Flowstone, jobs: usize) {
    let mut running = flowstone.start([run_weather().as_slice(), &["--json".to_owned()]].concat());
    for _ in 0..jobs {
        running.event("job.ended");
    }
    running.kill();
}

/// How far runs had come when they were killed, by the number of jobs that had ended; none before there was a run.
async fn ended(pool: &PgPool) -> Option<i64> {
    let sql = "select (select count(*) from job_end) from run";
    sqlx::query_scalar(sql).fetch_optional(pool).await.unwrap()
}

fn blobs(flowstone: &Flowstone) -> PathBuf {
    flowstone.state_dir().join("blobs")
}

#[tokio::test]
async fn a_run_that_is_killed_at_any_moment_is_completed_by_the_next() {
    let first = Database::new().await;
    let mut flowstone = Flowstone::on(&first);
    let (expected, whole) = undisturbed(&mut flowstone).await;
    let mut progress = Vec::new();
    let timed = moments(2, KILLS - EMBEDDED_KILLS - COUNTED_KILLS as u32, whole).map(Kill::After);
    let counted = (0..COUNTED_KILLS).map(|kill| Kill::AfterJobs(1 + kill * (WEATHER_JOBS / 2) / COUNTED_KILLS));
    for kill in timed.chain(counted) {
        let database = Database::new().await;
        flowstone.use_database(database.url());
        let pool = database.pool().await;
        match kill {
            Kill::After(moment) => kill_after(&flowstone, moment),
            Kill::AfterJobs(jobs) => kill_after_jobs(&flowstone, jobs),
        }
        let_sessions_expire(&pool).await;
        assert_sound(&violations(&pool, &blobs(&flowstone)).await);
        progress.push(ended(&pool).await);

        flowstone.run(run_weather()).expect_status(0);
        assert_sound(&violations(&pool, &blobs(&flowstone)).await);
        assert_eq!(digests(&pool).await, expected, "{kill:?} of {whole:?}");
        assert_nothing_is_left(&pool).await;
    }
    let in_between = progress.iter().flatten().filter(|ended| (1..WEATHER_JOBS as i64).contains(*ended)).count();
    assert!(in_between >= 10, "the kills met runs that had begun and were not over: {progress:?}");
}

/// No job waits and no run goes on: what the killed process left was taken over or ended.
async fn assert_nothing_is_left(pool: &PgPool) {
    let sql = "select (select count(*) from job_ready) + (select count(*) from job_deferred)
         + (select count(*) from job_blocked) + (select count(*) from job_lease) + (select count(*) from live_job) + (select count(*) from job_joined) + (select count(*) from job_limited)
         + (select count(*) from staged_file) + (select count(*) from worker)
         + (select count(*) from run where state = 'running')";
    let left: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_run_that_is_killed_with_its_embedded_cluster_is_completed_by_the_next() {
    let first = Database::new().await;
    let mut undisturbed_flowstone = Flowstone::on(&first);
    let (expected, _) = undisturbed(&mut undisturbed_flowstone).await;
    // Deployed before, so that the moments meet runs and not the making of a cluster.
    let flowstone = Flowstone::embedded();
    flowstone.run(["deploy".as_ref(), weather().as_os_str()]).expect_status(0);
    let once = Flowstone::embedded();
    let started = Instant::now();
    once.run(["deploy".as_ref(), weather().as_os_str()]).expect_status(0);
    let whole = started.elapsed();
    // Each kill meets what the one before left; the last run completes it all.
    for moment in moments(3, EMBEDDED_KILLS, whole) {
        kill_after(&flowstone, moment);
        let cluster = Cluster::own(&flowstone.state_dir()).await.unwrap();
        let pool = PgPool::connect_with(cluster.options()).await.unwrap();
        assert_sound(&violations(&pool, &blobs(&flowstone)).await);
        pool.close().await;
        cluster.stop().await.unwrap();
    }
    flowstone.run(run_weather()).expect_status(0);
    let cluster = Cluster::own(&flowstone.state_dir()).await.unwrap();
    let pool = PgPool::connect_with(cluster.options()).await.unwrap();
    assert_sound(&violations(&pool, &blobs(&flowstone)).await);
    assert_eq!(digests(&pool).await, expected);
    assert_nothing_is_left(&pool).await;
    pool.close().await;
    cluster.stop().await.unwrap();
}

/// Two installations that share nothing: other folders, other databases, one guest at a time or several.
#[tokio::test]
async fn two_machines_make_the_same_bytes() {
    let mut made = Vec::new();
    for concurrency in ["1", "4"] {
        let database = Database::new().await;
        let flowstone = Flowstone::on(&database);
        let copy = flowstone.folder().join("clone");
        copy_pipeline(&copy);
        let manifest = copy.join("flowstone.toml");
        flowstone.run(["run".as_ref(), manifest.as_os_str(), "-j".as_ref(), concurrency.as_ref()]).expect_status(0);
        let pool = database.pool().await;
        assert_sound(&violations(&pool, &blobs(&flowstone)).await);
        made.push(digests(&pool).await);
    }
    assert_eq!(made[0], made[1]);
}

/// What a clone has of the example once it is built.
fn copy_pipeline(to: &Path) {
    let component = "target/wasm32-wasip2/release/weather.wasm";
    let from = weather();
    let from = from.parent().expect("a manifest is in a folder");
    for file in ["flowstone.toml", component, "data/seattle-weather.csv"] {
        let copy = to.join(file);
        std::fs::create_dir_all(copy.parent().expect("it is in the folder")).unwrap();
        std::fs::copy(from.join(file), copy).unwrap();
    }
}
