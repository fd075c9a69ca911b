//! Steering a run from outside: cancelled by a second process, stopped by signals, its Postgres taken away.

use std::time::{Duration, Instant};

use flowstone_tests::{Flowstone, StateFolder, pipeline::Scenario, signal};

use crate::checker::{assert_sound, violations};

/// `spins` never ends by itself, whatever fuel it burns.
const ENDLESS: &str = "[assets.spins]\nlimits = { fuel = \"900T\", timeout = \"1h\" }\n";
/// Far less than the deadline of a guest, and far more than a stop takes.
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
