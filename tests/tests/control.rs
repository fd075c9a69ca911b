//! Steering a run from outside: cancelled by a second process, stopped by signals, its Postgres taken away.

use std::time::{Duration, Instant};

use flowstone_tests::{
    Flowstone, StateFolder,
    pipeline::{Scenario, ended},
    signal,
};

use crate::checker::{assert_sound, violations};

/// `spins` never ends by itself, whatever fuel it burns.
const ENDLESS: &str = "[assets.spins]\nlimits = { fuel = \"900T\", timeout = \"1h\" }\n";
/// Far less than the deadline of a guest and than the usual grace, and far more than a stop takes.
const SOON: Duration = Duration::from_secs(8);

/// The attempts of the newest run: verdict, and whether it was charged.
fn attempts(flowstone: &Flowstone) -> Vec<(String, bool)> {
    let logs = flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    let logs: Vec<serde_json::Value> = serde_json::from_str(&logs).unwrap();
    logs.iter().map(|log| (log["verdict"].as_str().unwrap().to_owned(), log["charged"].as_bool().unwrap())).collect()
}

#[tokio::test]
async fn a_second_process_cancels_what_waits_and_what_runs() {
    let scenario = Scenario::new(ENDLESS);
    let mut run = scenario.flowstone.start(["run", scenario.manifest(), "spins", "--json"]);
    run.event("job.started");
    let asked = Instant::now();
    scenario.flowstone.run(["cancel", "latest"]).expect_status(0);
    run.wait().expect_status(1);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_eq!(attempts(&scenario.flowstone), [("cancelled".to_owned(), false)]);
    let database = scenario.flowstone.database();
    assert_eq!(database.ask("select state from run"), ["cancelled"]);
    assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
    scenario.flowstone.run(["cancel", "latest"]).expect_status(2);
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_the_job_is_given_back_uncharged() {
    let scenario = Scenario::new(ENDLESS);
    for (first, second) in [("INT", "TERM"), ("TERM", "INT")] {
        let mut run = scenario.flowstone.start(["run", scenario.manifest(), "spins", "--json"]);
        run.event("job.started");
        let asked = Instant::now();
        run.signal(first);
        run.signal(second);
        run.wait().expect_status(1);
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert_eq!(attempts(&scenario.flowstone), [("cancelled".to_owned(), false)]);
        let database = scenario.flowstone.database();
        assert_eq!(database.ask("select released::text from job_ready"), ["1"], "it is ready again");
        assert_eq!(database.ask("select count(*)::text from job_lease"), ["0"]);
    }
    // The next run of anything ends what nobody waits for any more.
    scenario.run(&["numbers"], 0);
    let database = scenario.flowstone.database();
    assert_eq!(database.ask("select count(*)::text from run where state = 'running'"), ["0"]);
    assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
}

#[tokio::test]
async fn what_ends_within_the_grace_is_recorded_and_nothing_more_is_claimed() {
    for signal in ["INT", "TERM"] {
        let scenario = Scenario::new("");
        let database = scenario.flowstone.database();
        let mut run = scenario.flowstone.start(["run", scenario.manifest(), "after_waits", "--json"]);
        run.event("job.started");
        run.signal(signal);
        run.said("stopping");
        scenario.go("on");
        run.event("job.ended");
        let interrupted = run.event("run.interrupted");
        assert_eq!((&interrupted["jobs"], &interrupted["ended"]), (&2.into(), &1.into()));
        run.wait().expect_status(1);
        assert_eq!(attempts(&scenario.flowstone), [("succeeded".to_owned(), true)]);
        assert_eq!(scenario.show("waits", None), "on");
        // A claim that was on its way at the signal may take it once, and gives it back.
        let given_back = "select a.name from job_ready r join job j using (tenant_id, job_id)
             join asset_version v using (tenant_id, asset_version_id) join asset a using (tenant_id, asset_id)
             where r.charged = 0 and r.released <= 1";
        assert_eq!(database.ask(given_back), ["after_waits"], "it became ready, and nobody made it");
        assert_eq!(database.ask("select worker_id::text from worker"), [""; 0], "the session is ended");
        assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);

        assert_eq!(ended(&scenario.run(&["after_waits"], 0)), ["after_waits succeeded"], "the rest, and nothing twice");
        assert_eq!(scenario.show("after_waits", None), "after on");
    }
}

#[test]
fn a_run_whose_last_job_ends_within_the_grace_has_succeeded() {
    for signal in ["INT", "TERM"] {
        let scenario = Scenario::new("");
        let mut run = scenario.flowstone.start(["run", scenario.manifest(), "waits", "--json"]);
        run.event("job.started");
        run.signal(signal);
        run.said("stopping");
        scenario.go("on");
        assert_eq!(run.event("run.finished")["state"], "succeeded");
        run.wait().expect_status(0);
    }
}

#[tokio::test]
async fn what_goes_on_past_the_grace_is_stopped_and_its_job_is_given_back_uncharged() {
    let scenario = Scenario::new(ENDLESS);
    let grace = Duration::from_millis(300);
    for signal in ["INT", "TERM"] {
        let mut run = scenario.flowstone.start(["run", scenario.manifest(), "spins", "--json", "--grace", "300ms"]);
        run.event("job.started");
        let asked = Instant::now();
        run.signal(signal);
        run.said("what runs has 300ms to finish");
        run.event("run.interrupted");
        run.wait().expect_status(1);
        assert!((grace..SOON).contains(&asked.elapsed()), "{:?}", asked.elapsed());
        assert_eq!(attempts(&scenario.flowstone), [("cancelled".to_owned(), false)]);
        let database = scenario.flowstone.database();
        let ready = "select format('charged %s, released %s', charged, released) from job_ready";
        assert_eq!(database.ask(ready), ["charged 0, released 1"]);
        assert_eq!(database.ask("select count(*)::text from job_lease"), ["0"]);
        assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
    }
}

#[test]
fn a_tight_loop_is_stopped_at_its_wall_clock_deadline() {
    let limits = "[assets.spins]\nlimits = { fuel = \"900T\", timeout = \"300ms\" }\nretry = { max_attempts = 1 }\n";
    let scenario = Scenario::new(limits);
    scenario.run(&["spins"], 1);
    assert_eq!(attempts(&scenario.flowstone), [("timed-out".to_owned(), true)]);
    let took = scenario.flowstone.database().ask("select (duration_us / 1000)::text from attempt");
    let took: u64 = took[0].parse().unwrap();
    assert!((300..2_000).contains(&took), "{took} ms");
}

#[test]
fn a_postgres_that_dies_during_a_run_costs_no_attempt() {
    let scenario = Scenario::with(Flowstone::embedded(), "");
    scenario.flowstone.run(["deploy", scenario.manifest()]).expect_status(0);
    for kill in ["KILL", "QUIT", "INT"] {
        let mut run =
            scenario.flowstone.start(["run", scenario.manifest(), "trailing", "sum", "--force-all", "--json"]);
        run.event("job.started");
        signal(StateFolder::postmaster(&scenario.flowstone.state_dir()).expect("it runs"), kill);
        run.wait().expect_status(0);
        let attempts = attempts(&scenario.flowstone);
        assert!(attempts.iter().all(|(verdict, charged)| (verdict == "succeeded") == *charged), "{kill}: {attempts:?}");
        assert_eq!(attempts.iter().filter(|(verdict, _)| verdict == "succeeded").count(), 18, "{kill}: {attempts:?}");
    }
}

#[test]
fn a_second_process_looks_on_and_a_second_run_is_refused() {
    let scenario = Scenario::with(Flowstone::embedded(), ENDLESS);
    let mut run = scenario.flowstone.start(["run", scenario.manifest(), "spins", "--json"]);
    run.event("job.started");
    let status = scenario.flowstone.run(["status"]).expect_status(0);
    assert!(status.stdout.contains("running"), "{}", status.stdout);
    let refused = scenario.flowstone.run(["run", scenario.manifest(), "numbers"]).expect_status(3);
    assert!(refused.stderr.contains(&run.pid().to_string()), "{}", refused.stderr);
    scenario.flowstone.run(["cancel", "latest"]).expect_status(0);
    run.wait().expect_status(1);
}
