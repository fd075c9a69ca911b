//! A database that goes away, stands still, or cannot be heard while workers use it: nothing is lost, nothing is made
//! twice, no job is charged for it, and work goes on when it is over.
//!
//! `scripts/chaos` runs this in full: longer, and over more jobs.

use std::time::{Duration, Instant};

use flowstone::limit::{DATABASE_ANSWER_WAIT, SESSION_EXPIRY};
use flowstone_tests::{
    Flowstone, Postgres, Running, Stop, deadline::wait_until_database_says, pipeline::Scenario, proxy::Proxy,
};
use sqlx::PgPool;

use crate::{
    chaos::{assert_ended_as_it_must, blobs, deployed, is_in_full, work},
    checker::{assert_sound, violations},
    support::Draws,
};

/// A run that two workers share, on a server of its own.
pub struct Outage {
    pub server: Postgres,
    pub flowstone: Flowstone,
    pub workers: Vec<Running>,
    /// Of the run: four for each hour.
    pub jobs: i64,
}

impl Outage {
    async fn begin() -> Self {
        let server = Postgres::new().await;
        let url = server.url();
        Self::begin_on(server, url).await
    }

    /// The same, with workers that reach the server by this URL.
    pub async fn begin_on(server: Postgres, url: String) -> Self {
        let (hours, jobs) = match is_in_full() {
            true => ("2024-01-01T00..2024-07-27T07", 20_000),
            false => ("2024-01-01T00..2024-01-10T23", 960),
        };
        let mut flowstone = Flowstone::embedded();
        flowstone.use_database(server.url());
        let mut flowstone = deployed(flowstone);
        flowstone.run(["run", "chaos", "--partition", hours, "--detach"]).expect_status(0);
        flowstone.use_database(url);
        let mut workers = vec![work(&flowstone), work(&flowstone)];
        workers.iter_mut().for_each(|worker| drop(worker.said("takes jobs")));
        flowstone.use_database(server.url());
        let outage = Self { server, flowstone, workers, jobs };
        outage.wait_for_ends(1).await;
        outage
    }

    /// How many jobs have ended.
    pub async fn ends(&self) -> i64 {
        let pool = self.server.pool().await;
        let ends = sqlx::query_scalar("select count(*) from job_end").fetch_one(&pool).await.unwrap();
        pool.close().await;
        ends
    }

    /// Until so many more have.
    pub async fn wait_for_ends(&self, more: i64) {
        let pool = self.server.pool().await;
        let ends = || async { sqlx::query_scalar::<_, i64>("select count(*) from job_end").fetch_one(&pool).await };
        let (mut moved, mut last) = (Instant::now(), ends().await.unwrap());
        let enough = (last + more).min(self.jobs);
        while last < enough {
            assert!(moved.elapsed() < Duration::from_secs(60), "work does not go on after {last} ends");
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = ends().await.unwrap();
            if now != last {
                (moved, last) = (Instant::now(), now);
            }
        }
        pool.close().await;
    }

    /// The run ends as if nothing had been, and the workers end when they are asked to.
    pub async fn end(self) {
        self.flowstone.run(["watch", "latest"]).expect_status(1);
        for worker in self.workers {
            worker.interrupt();
            worker.wait().expect_status(0);
        }
        assert_ended_as_it_must(&self.flowstone, &self.server.pool().await, self.jobs).await;
    }
}

/// For how long a fault is repeated.
fn for_a_while() -> Duration {
    Duration::from_secs(if is_in_full() { 120 } else { 4 })
}

#[tokio::test]
async fn a_server_that_is_stopped_and_killed_again_and_again_costs_nothing_but_time() {
    let mut outage = Outage::begin().await;
    let (mut draws, until) = (Draws(7), Instant::now() + for_a_while());
    let mut stops = [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().cycle();
    let mut stopped = 0;
    while stopped < 3 || Instant::now() < until {
        let seen = outage.ends().await;
        outage.server.stop(stops.next().expect("they go on"));
        tokio::time::sleep(Duration::from_millis(500).mul_f64(draws.fraction())).await;
        outage.server.start().await;
        stopped += 1;
        let ends = outage.ends().await;
        assert!(ends >= seen, "of {seen} ends that were seen {ends} are left");
        outage.wait_for_ends(20).await;
    }
    println!("the server was stopped {stopped} times");
    outage.end().await;
}

#[tokio::test]
async fn connections_that_the_server_ends_at_random_cost_nothing_but_time() {
    let outage = Outage::begin().await;
    let pool = outage.server.pool().await;
    let until = Instant::now() + for_a_while();
    let mut ended = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        ended += sqlx::query_scalar::<_, i64>(
            "select count(pg_terminate_backend(pid)) from (
                 select pid from pg_stat_activity where application_name = 'flowstone' order by random() limit 1) a",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
    }
    println!("{ended} connections were ended");
    assert!(ended > 20, "only {ended} connections were ended");
    pool.close().await;
    outage.end().await;
}

/// A guest that goes on until it is told a word, with one worker over a server of its own.
struct Held {
    server: Postgres,
    scenario: Scenario,
    pool: PgPool,
}

impl Held {
    async fn new() -> Self {
        let server = Postgres::new().await;
        let mut flowstone = Flowstone::embedded();
        flowstone.use_database(server.url());
        let scenario = Scenario::with(flowstone, "");
        scenario.command("run", &["after_waits", "--detach"]).expect_status(0);
        let pool = server.pool().await;
        Self { server, scenario, pool }
    }

    async fn wait_for_a_lease(&self) {
        wait_until_database_says(&self.pool, "select count(*) = 1 from job_lease").await;
    }

    /// Verdicts of the run's attempts, and whether they count, in the order of their ends.
    async fn verdicts(&self) -> Vec<(String, bool)> {
        let sql = "select verdict, charged from attempt order by started_at + duration_us * interval '1 microsecond'";
        sqlx::query_as(sql).fetch_all(&self.pool).await.unwrap()
    }

    async fn assert_sound(&self) {
        assert_sound(&violations(&self.pool, &blobs(&self.scenario.flowstone)).await);
    }
}

/// Nobody could take over before this worker has stopped: from its last renewal it counts on its own.
#[tokio::test]
async fn a_worker_that_cannot_renew_stops_its_guests_before_its_leases_end_and_works_on_later() {
    let held = Held::new().await;
    let mut worker = held.scenario.flowstone.start(["work", "-j", "1"]);
    held.wait_for_a_lease().await;
    held.server.pause();
    let paused = Instant::now();
    worker.said("guests are stopped");
    // On a machine that has time for it after SESSION_FENCE, counted from the last renewal.
    let fenced_after = paused.elapsed();
    assert!(fenced_after < SESSION_EXPIRY, "it went on for {fenced_after:?}");
    // In full, until statements that wait for their answer have been given up too.
    let still = if is_in_full() { DATABASE_ANSWER_WAIT + Duration::from_secs(5) } else { SESSION_EXPIRY };
    tokio::time::sleep(still.saturating_sub(paused.elapsed())).await;
    held.server.resume();
    // It claims again, a job of its own or of others.
    wait_until_database_says(
        &held.pool,
        "select count(*) = 1 from job_lease where claimed_at > now() - interval '5 s'",
    )
    .await;
    held.scenario.go("on");
    held.scenario.flowstone.run(["watch", "latest"]).expect_status(0);
    worker.interrupt();
    worker.wait().expect_status(0);
    let verdicts = held.verdicts().await;
    let (charged, free): (Vec<_>, Vec<_>) = verdicts.iter().partition(|(_, charged)| *charged);
    assert_eq!(charged.len(), 2, "{verdicts:?}");
    assert!(charged.iter().all(|(verdict, _)| verdict == "succeeded"), "{verdicts:?}");
    let stopped = |(verdict, _): &&(String, bool)| verdict == "cancelled" || verdict == "lost";
    // None where it had not begun to run when everything stood still.
    assert!(free.iter().all(stopped), "{verdicts:?}");
    held.assert_sound().await;
}

/// In real time: others have taken over when it wakes, and it has to find that out by itself.
#[tokio::test]
async fn a_worker_that_wakes_after_its_session_writes_nothing_of_what_it_had_made() {
    let held = Held::new().await;
    let zombie = held.scenario.flowstone.start(["work", "-j", "1"]);
    held.wait_for_a_lease().await;
    zombie.signal("STOP");
    let other = held.scenario.flowstone.start(["work", "-j", "1"]);
    wait_until_database_says(
        &held.pool,
        "select count(*) = 1 from job_lease join attempt using (job_id) where attempt.verdict = 'lost'
             and job_lease.token <> attempt.token",
    )
    .await;
    // Its guest finds the word before the other's does, which stands still now.
    other.signal("STOP");
    held.scenario.go("on");
    zombie.signal("CONT");
    wait_until_database_says(&held.pool, "select count(*) = 2 from worker where beat_at > now() - interval '10 s'")
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let made: i64 = sqlx::query_scalar("select count(*) from materialization").fetch_one(&held.pool).await.unwrap();
    assert_eq!(made, 0, "what it had made is not written");
    other.signal("CONT");
    held.scenario.flowstone.run(["watch", "latest"]).expect_status(0);
    for worker in [zombie, other] {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    held.assert_sound().await;
}

/// Connections that are half open: the server hears nothing of it either, and keeps what they have locked.
#[tokio::test]
async fn connections_that_are_silent_are_given_up_and_work_goes_on_over_others() {
    let server = Postgres::new().await;
    let proxy = Proxy::to(&server.options());
    let url = proxy.url();
    let mut outage = Outage::begin_on(server, url).await;
    // So slow that something is always on its way.
    proxy.delay(Duration::from_millis(40));
    outage.wait_for_ends(20).await;
    proxy.leave_half_open();
    proxy.delay(Duration::ZERO);
    let silent_at = Instant::now();
    outage.workers[0].said(&format!("no answer within {} s", DATABASE_ANSWER_WAIT.as_secs()));
    assert!(silent_at.elapsed() < DATABASE_ANSWER_WAIT + Duration::from_secs(5), "{:?}", silent_at.elapsed());
    outage.end().await;
}

/// The whole network is gone for longer than a session, and comes back; what was open stays lost.
#[tokio::test]
async fn a_network_that_was_gone_for_longer_than_a_session_is_used_again_when_it_is_back() {
    let server = Postgres::new().await;
    let proxy = Proxy::to(&server.options());
    let url = proxy.url();
    let outage = Outage::begin_on(server, url).await;
    proxy.swallow_everything();
    tokio::time::sleep(SESSION_EXPIRY + Duration::from_secs(2)).await;
    let before = outage.ends().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(outage.ends().await, before, "nobody can work");
    proxy.let_pass();
    outage.end().await;
}

#[tokio::test]
async fn a_network_that_is_cut_and_slow_again_and_again_costs_nothing_but_time() {
    let server = Postgres::new().await;
    let proxy = Proxy::to(&server.options());
    let url = proxy.url();
    let outage = Outage::begin_on(server, url).await;
    let (mut draws, until) = (Draws(11), Instant::now() + for_a_while());
    while Instant::now() < until {
        proxy.take_down();
        tokio::time::sleep(Duration::from_millis(400).mul_f64(draws.fraction())).await;
        proxy.bring_up();
        proxy.delay(Duration::from_millis((draws.fraction() * 30.0) as u64));
        tokio::time::sleep(Duration::from_secs(1).mul_f64(draws.fraction())).await;
    }
    proxy.delay(Duration::ZERO);
    outage.end().await;
}

/// Dead rows cannot be removed meanwhile: work only slows down.
#[tokio::test]
async fn a_transaction_that_is_open_for_the_whole_run_keeps_nobody_from_working() {
    let outage = Outage::begin().await;
    let pool = outage.server.pool().await;
    let mut open = pool.begin().await.unwrap();
    sqlx::query("set transaction isolation level repeatable read").execute(&mut *open).await.unwrap();
    let seen: i64 = sqlx::query_scalar("select count(*) from job_end").fetch_one(&mut *open).await.unwrap();
    outage.flowstone.run(["watch", "latest"]).expect_status(1);
    let still: i64 = sqlx::query_scalar("select count(*) from job_end").fetch_one(&mut *open).await.unwrap();
    assert_eq!(still, seen, "it was open all the time");
    open.rollback().await.unwrap();
    pool.close().await;
    outage.end().await;
}

/// A standby has what was acknowledged, and takes over under the same address.
#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_a_standby_takes_over() {
    let server = Postgres::new().await;
    let proxy = Proxy::to(&server.options());
    let url = proxy.url();
    let mut outage = Outage::begin_on(server, url).await;
    let standby = outage.server.standby().await;
    outage.server.wait_for_standbys().await;
    outage.wait_for_ends(if is_in_full() { 4_000 } else { 50 }).await;
    // Seen by another client: so it was acknowledged.
    let pool = outage.server.pool().await;
    let acknowledged: Vec<uuid::Uuid> =
        sqlx::query_scalar("select job_id from job_end").fetch_all(&pool).await.unwrap();
    outage.server.stop(Stop::Kill);
    pool.close().await;
    standby.promote().await;
    proxy.lead_to(&standby.options());
    outage.flowstone.use_database(standby.url());
    outage.server = standby;
    let pool = outage.server.pool().await;
    let left: i64 = sqlx::query_scalar("select count(*) from job_end where job_id = any($1)")
        .bind(&acknowledged)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, acknowledged.len() as i64);
    println!("{left} ends were acknowledged, and are there");
    pool.close().await;
    outage.end().await;
}

/// What is due, what has expired and what is recorded is said by the database's clock.
#[tokio::test]
async fn workers_whose_clocks_are_an_hour_off_work_like_any_other() {
    let mut outage = Outage::begin().await;
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(std::path::Path::new(library).exists(), "run scripts/setup");
    outage.workers.drain(..).for_each(Running::kill);
    for offset in ["+1h", "-1h"] {
        let variables = [("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        outage.workers.push(outage.flowstone.start_with(["work", "-j", "2"], variables));
    }
    outage.flowstone.run(["watch", "latest"]).expect_status(1);
    let pool = outage.server.pool().await;
    let sql = "select count(*) from attempt t, run r where t.started_at not between r.created_at and clock_timestamp()";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap(), 0);
    let who: i64 = sqlx::query_scalar("select count(distinct worker_id) from attempt where verdict = 'succeeded'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(who >= 3, "both have worked, after those that were killed: {who}");
    pool.close().await;
    outage.end().await;
}
