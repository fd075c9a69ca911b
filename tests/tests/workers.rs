//! Runs that nobody waits for, and the workers that take them: submitted by one process, worked on by others, followed
//! by a third.

use std::time::Duration;

use flowstone_tests::{
    Flowstone, Output, Running,
    deadline::wait_until,
    fault::let_sessions_expire,
    pipeline::{Scenario, ended},
};
use serde_json::{Value, json};

use crate::checker::{assert_sound, violations};

/// `spins` never ends by itself, whatever fuel it burns.
const ENDLESS: &str = "[assets.spins]\nlimits = { fuel = \"900T\", timeout = \"1h\" }\n";

/// Submits a run and leaves it; returns its id.
#[track_caller]
fn detach(scenario: &Scenario, assets: &[&str]) -> String {
    let output = scenario.command("run", &[assets, &["--detach"]].concat()).expect_status(0);
    let id = output.stdout.trim_end();
    assert_eq!(id.len(), 36, "the id alone is on stdout: {}", output.stdout);
    id.to_owned()
}

fn work(flowstone: &Flowstone) -> Running {
    let mut worker = flowstone.start(["work"]);
    worker.said("takes jobs");
    worker
}

fn events(output: &Output) -> Vec<Value> {
    output.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn state(flowstone: &Flowstone, run: &str) -> Value {
    serde_json::from_str(&flowstone.run(["status", run, "--json"]).expect_status(0).stdout).unwrap()
}

async fn assert_all_sound(flowstone: &Flowstone) {
    let pool = flowstone.database().pool().await;
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}

#[tokio::test]
async fn a_run_that_is_left_waits_for_any_worker_and_is_worked_off_by_one() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let run = detach(&scenario, &["sum", "verdict"]);
    // A process that starts and ends meanwhile takes nobody's run for abandoned. It may work on it, too.
    let waiting = state(flowstone, &run);
    assert_eq!((&waiting["state"], &waiting["succeeded"]), (&"running".into(), &0.into()));
    let worker = work(flowstone);
    let watched = flowstone.run(["watch", &run, "--json"]).expect_status(0);
    let events = events(&watched);
    assert_eq!(events[0]["event"], "run.started");
    assert!(events[0]["up_to_date"].is_null(), "whoever only watches does not know it");
    assert_eq!(events.last().unwrap()["state"], "succeeded");
    assert_eq!(
        ended(&events),
        ["doubled succeeded", "numbers succeeded", "parity succeeded", "sum succeeded", "verdict succeeded"]
    );
    worker.signal("TERM");
    assert_eq!(worker.wait().expect_status(0).stdout, "");
    assert_eq!(flowstone.database().ask("select count(*)::text from worker"), ["0"], "its session is ended");
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn a_run_that_is_left_outlives_the_workers_that_are_killed_over_it() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let run = detach(&scenario, &["after_waits"]);
    for _ in 0..2 {
        let worker = work(flowstone);
        wait_until("it is being worked on", || state(flowstone, &run)["job_list"][0]["state"] == "running");
        worker.kill();
        let_sessions_expire(&flowstone.database().pool().await).await;
    }
    scenario.go("on");
    // Another command's worker ends what is abandoned, and this is not.
    scenario.run(&["numbers"], 0);
    let worker = work(flowstone);
    flowstone.run(["watch", &run]).expect_status(0);
    assert_eq!(scenario.show("waits", None), "on");
    let charged = "select count(*)::text from attempt where charged and verdict = 'lost'";
    assert_eq!(flowstone.database().ask(charged), ["0"]);
    drop(worker);
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn two_workers_share_a_run_and_make_each_output_once() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let first = work(flowstone);
    let second = work(flowstone);
    let run = detach(&scenario, &["daily", "trailing", "keyed", "after_keyed", "sum"]);
    flowstone.run(["watch", &run]).expect_status(0);
    for worker in [first, second] {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    let database = flowstone.database();
    let twice = "select count(*)::text from (select from materialization
                 group by asset_id, partition_key having count(*) > 1) as m";
    assert_eq!(database.ask(twice), ["0"]);
    assert_all_sound(flowstone).await;
}

#[test]
fn a_watch_ends_as_its_run_does_and_leaves_it_alone_when_it_is_interrupted() {
    let scenario = Scenario::new(ENDLESS);
    let flowstone = &scenario.flowstone;
    let _worker = work(flowstone);
    let run = detach(&scenario, &["broken", "after_broken"]);
    let watched = flowstone.run(["watch", &run]).expect_status(1);
    assert!(watched.stdout.contains("broken: simulated failure"), "{}", watched.stdout);
    assert!(watched.stdout.ends_with('\n') && watched.stdout.contains(&format!("run {run} failed")));

    let run = detach(&scenario, &["spins"]);
    let mut watching = flowstone.start(["watch", &run]);
    watching.said(&run);
    watching.interrupt();
    let left = watching.wait().expect_status(1);
    assert!(left.stdout.contains("goes on with 1 job left"), "{}", left.stdout);
    assert_eq!(state(flowstone, &run)["state"], "running");
    let watching = flowstone.start(["watch", &run, "--json"]);
    flowstone.run(["cancel", &run]).expect_status(0);
    let watched = watching.wait().expect_status(1);
    assert_eq!(events(&watched).last().unwrap()["state"], "cancelled");
}

#[test]
fn a_retry_covers_what_a_run_left_unmade_and_nothing_else() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.run(&["broken", "after_broken", "numbers"], 1);
    let again = flowstone.run(["retry", "latest", "--json"]).expect_status(1);
    assert_eq!(ended(&events(&again)), ["after_broken skipped", "broken failed"]);
    let asked = &state(flowstone, "latest")["request"];
    let first = &flowstone.database().ask("select run_id::text from run order by run_id")[0];
    assert_eq!(asked["retry_of"], **first);

    // What was cancelled is left too; what was made by then is not made again.
    let mut run = flowstone.start(["run", scenario.manifest(), "keyed", "after_waits", "--json", "-j", "4"]);
    run.event("job.started");
    wait_until("all but the waiting ones have ended", || {
        flowstone.database().ask(
            "select count(*)::text from job_end e join job j using (job_id)
            where j.run_id = (select max(run_id::text)::uuid from run)",
        ) == ["4"]
    });
    flowstone.run(["cancel", "latest"]).expect_status(0);
    run.wait().expect_status(1);
    scenario.go("on");
    let again = flowstone.run(["retry", "latest", "--json"]).expect_status(0);
    assert_eq!(ended(&events(&again)), ["after_waits succeeded", "waits succeeded"]);
    let refused = flowstone.run(["retry", "latest"]).expect_status(2);
    assert!(refused.stderr.contains("left nothing to try again"), "{}", refused.stderr);
}

#[test]
fn a_retry_makes_again_what_was_forced_and_refuses_what_is_going_on() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.go("first");
    scenario.run(&["waits"], 0);
    std::fs::remove_file(scenario.folder().join("counter/go")).unwrap();
    let run = detach(&scenario, &["waits", "--force"]);
    let refused = flowstone.run(["retry", &run]).expect_status(2);
    assert!(refused.stderr.contains("is not over"), "{}", refused.stderr);
    flowstone.run(["cancel", &run]).expect_status(0);
    scenario.go("second");
    flowstone.run(["retry", &run]).expect_status(0);
    assert_eq!(scenario.show("waits", None), "second", "an older result was not good enough then, nor is it now");
}

#[test]
fn a_retry_of_partitions_that_are_gone_names_them() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let run = detach(&scenario, &["keyed", "--partition", "p1"]);
    flowstone.run(["cancel", &run]).expect_status(0);
    let database = flowstone.database();
    // As if the newest version had other keys.
    database.ask("update job set partition_key = replace(partition_key, 'p1', 'p9') where partition_key like '%p1' returning job_id::text");
    let refused = flowstone.run(["retry", &run]).expect_status(2);
    assert!(refused.stderr.contains("asset `keyed` has no partition `p9`"), "{}", refused.stderr);
}

#[test]
fn logs_are_followed_until_the_run_is_over() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let _worker = work(flowstone);
    let run = detach(&scenario, &["flaky", "after_waits"]);
    let mut following = flowstone.start(["logs", &run, "--follow", "--json"]);
    // Those of one job come one by one, while the run goes on.
    for number in 1..=3 {
        let attempt = following.line();
        let attempt: Value = serde_json::from_str(&attempt).unwrap();
        assert_eq!((&attempt["asset"], &attempt["attempt"]), (&"flaky".into(), &number.into()));
    }
    assert!(!following.has_ended());
    scenario.go("on");
    let rest = following.wait().expect_status(0);
    let assets: Vec<Value> = events(&rest).iter().skip(3).map(|attempt| attempt["asset"].clone()).collect();
    assert_eq!(assets, ["waits", "after_waits"], "{}", rest.stdout);
    // Of a run that is over, all of it at once; of one asset, only its own.
    let all = flowstone.run(["logs", &run, "--follow", "--json"]).expect_status(0);
    assert_eq!(events(&all).len(), 5);
    let one = flowstone.run(["logs", &run, "waits", "--follow", "--json"]).expect_status(0);
    assert_eq!(events(&one).len(), 1);
}

/// What `narrates` says before it waits.
const BEFORE: [&str; 3] = [
    "  info   waiting for the word  attempt=1",
    "  info   on two lines  stream=stdout",
    "  info   as printed  stream=stdout",
];

#[tokio::test]
async fn what_an_attempt_says_is_seen_while_it_runs_and_no_line_twice() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let worker = work(flowstone);
    let run = detach(&scenario, &["narrates"]);
    let mut following = flowstone.start(["logs", &run, "--follow"]);
    let mut as_json = flowstone.start(["logs", &run, "--follow", "--json"]);
    assert_eq!(following.line(), "narrates  attempt 1  running\n");
    for line in BEFORE {
        assert_eq!(following.line(), format!("{line}\n"));
    }
    let now = flowstone.run(["logs", &run]).expect_status(0).stdout;
    assert_eq!(now, format!("narrates  attempt 1  running\n{}\n", BEFORE.join("\n")));
    scenario.go("first");
    // Without its name again: nobody else has said anything.
    assert_eq!(following.line(), "  info   going on  word=first\n");
    let told = [as_json.line(), as_json.line()].map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let place = |told: &Value| (told["first_line"].as_u64(), told["log"].as_array().map(Vec::len));
    assert_eq!(told.each_ref().map(place), [(Some(0), Some(3)), (Some(3), Some(1))]);
    assert_eq!((&told[0]["verdict"], &told[0]["attempt"]), (&Value::Null, &1.into()));
    scenario.go("second");
    let rest = following.wait().expect_status(0).stdout;
    let record = rest.find("narrates  attempt 1  succeeded\n").expect("it ends with its record");
    assert!(rest[record..].contains("fuel"), "{rest}");
    let after = ["  info   going on  word=first", "  info   done  word=second"];
    for line in ["narrates  attempt 1  running"].into_iter().chain(BEFORE).chain(after) {
        assert_eq!(rest.lines().filter(|shown| *shown == line).count(), 1, "{line}: {rest}");
    }
    let rest = as_json.wait().expect_status(0);
    let ended = events(&rest).pop().unwrap();
    assert_eq!((&ended["verdict"], ended["log"].as_array().unwrap().len()), (&"succeeded".into(), 5));
    assert_eq!(ended["job"], told[0]["job"]);
    let whole = flowstone.run(["logs", &run]).expect_status(0).stdout;
    assert!(BEFORE.iter().chain(&after).all(|line| whole.contains(line)), "{whole}");
    assert_eq!(flowstone.database().ask("select count(*)::text from running_log"), ["0"]);
    drop(worker);
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn what_an_attempt_said_is_in_its_record_when_its_worker_dies() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let run = detach(&scenario, &["narrates"]);
    let worker = work(flowstone);
    let told = |lines: &str| {
        flowstone.database().ask("select coalesce(sum(jsonb_array_length(lines)), 0)::text from running_log") == [lines]
    };
    wait_until("it is told what was said first", || told("3"));
    scenario.go("first");
    wait_until("it is told what was said then", || told("4"));
    worker.kill();
    let_sessions_expire(&flowstone.database().pool().await).await;
    let worker = work(flowstone);
    wait_until("the job is another's, and it says the same", || told("4"));
    scenario.go("second");
    flowstone.run(["watch", &run]).expect_status(0);
    let logs = flowstone.run(["logs", &run]).expect_status(0).stdout;
    let (lost, second) = logs.split_once("\n\n").expect("two attempts");
    assert!(lost.starts_with("narrates  attempt 1  lost, not charged\n"), "{logs}");
    let said: Vec<&str> = lost.lines().skip_while(|line| !line.contains("waiting")).collect();
    assert_eq!(said, [&BEFORE[..], &["  info   going on  word=first"]].concat());
    assert!(second.starts_with("narrates  attempt 1  succeeded\n") && second.contains("done  word=second"), "{logs}");
    assert_eq!(flowstone.database().ask("select count(*)::text from running_log"), ["0"]);
    drop(worker);
    assert_all_sound(flowstone).await;
}

#[test]
fn beside_the_worker_of_an_embedded_database_others_deploy_submit_and_watch() {
    let scenario = Scenario::with(Flowstone::embedded(), "");
    let flowstone = &scenario.flowstone;
    // Nobody works yet: submitting is enough to be done later.
    let before = detach(&scenario, &["numbers"]);
    let worker = work(flowstone);
    flowstone.run(["watch", &before]).expect_status(0);
    scenario.command("deploy", &[]).expect_status(0);
    let beside = detach(&scenario, &["sum"]);
    flowstone.run(["watch", &beside]).expect_status(0);
    assert_eq!(scenario.show("sum", None), scenario.show("sum", None));
    let refused = scenario.command("run", &["sum"]).expect_status(3);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    worker.interrupt();
    worker.wait().expect_status(0);
}

#[test]
fn a_second_signal_ends_a_worker_at_once_and_its_job_is_given_back() {
    let scenario = Scenario::new(ENDLESS);
    let flowstone = &scenario.flowstone;
    let run = detach(&scenario, &["spins"]);
    let worker = work(flowstone);
    wait_until("it is being worked on", || state(flowstone, &run)["job_list"][0]["state"] == "running");
    let asked = std::time::Instant::now();
    worker.interrupt();
    worker.signal("TERM");
    worker.wait().expect_status(0);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert_eq!(state(flowstone, &run)["job_list"][0]["state"], "ready");
}

/// How many jobs of a run are in each state, by asset.
fn states(flowstone: &Flowstone, run: &str) -> Vec<String> {
    let mut states: Vec<String> = state(flowstone, run)["job_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("{} {}", job["asset"].as_str().unwrap(), job["state"].as_str().unwrap()))
        .collect();
    states.sort();
    states
}

#[tokio::test]
async fn what_is_paused_waits_uncharged_and_what_is_not_goes_on() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.command("deploy", &[]).expect_status(0);
    flowstone.run(["pause", "scenarios", "doubled"]).expect_status(0);
    let twice = flowstone.run(["pause", "scenarios", "doubled"]).expect_status(2);
    assert!(twice.stderr.contains("paused already"), "{}", twice.stderr);
    let unknown = flowstone.run(["pause", "scenarios", "dubled"]).expect_status(2);
    assert!(unknown.stderr.contains("doubled"), "{}", unknown.stderr);

    let submitted = scenario.command("run", &["sum", "flaky", "--detach"]).expect_status(0);
    assert!(submitted.stderr.contains("wait for `flowstone resume scenarios doubled`"), "{}", submitted.stderr);
    let run = submitted.stdout.trim_end();
    let _worker = work(flowstone);
    let waiting = ["doubled paused", "flaky succeeded", "numbers succeeded", "sum blocked"];
    wait_until("all but the paused asset has gone on", || states(flowstone, run) == waiting);
    let pauses: Value = serde_json::from_str(&flowstone.run(["pauses", "--json"]).expect_status(0).stdout).unwrap();
    assert_eq!((&pauses[0]["asset"], &pauses[0]["parked"]), (&"doubled".into(), &1.into()));
    assert_all_sound(flowstone).await;

    // A second pause over it: the first one's end is not enough.
    flowstone.run(["pause", "scenarios"]).expect_status(0);
    let resumed = flowstone.run(["resume", "scenarios", "doubled"]).expect_status(0);
    assert!(resumed.stderr.contains("0 jobs"), "{}", resumed.stderr);
    assert_eq!(states(flowstone, run), waiting);
    let resumed = flowstone.run(["resume", "scenarios"]).expect_status(0);
    assert!(resumed.stderr.contains("1 job can"), "{}", resumed.stderr);
    flowstone.run(["watch", run]).expect_status(0);
    flowstone.run(["resume", "scenarios"]).expect_status(2);
    assert_eq!(flowstone.database().ask("select count(*)::text from attempt where not charged"), ["0"]);
    assert_eq!(
        flowstone.database().ask(
            "select action || ' ' || subject from audit where action ~ 'pipeline.(paused|resumed)' order by sequence"
        ),
        [
            "pipeline.paused scenarios doubled",
            "pipeline.paused scenarios",
            "pipeline.resumed scenarios doubled",
            "pipeline.resumed scenarios",
        ]
    );
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn a_run_that_is_paused_can_be_cancelled() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.command("deploy", &[]).expect_status(0);
    flowstone.run(["pause", "scenarios"]).expect_status(0);
    let run = detach(&scenario, &["keyed", "sum"]);
    let _worker = work(flowstone);
    wait_until("what could run is parked", || {
        states(flowstone, &run).iter().filter(|state| state.ends_with(" paused")).count() == 5
    });
    flowstone.run(["cancel", &run]).expect_status(0);
    flowstone.run(["watch", &run]).expect_status(1);
    assert_eq!(flowstone.database().ask("select count(*)::text from job_paused"), ["0"]);
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn pausing_and_resuming_while_workers_park_leaves_no_job_behind() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.command("deploy", &[]).expect_status(0);
    let _workers = [work(flowstone), work(flowstone)];
    let runs: Vec<String> =
        (0..4).map(|_| detach(&scenario, &["daily", "trailing", "keyed", "after_keyed", "sum", "--force"])).collect();
    for _ in 0..10 {
        flowstone.run(["pause", "scenarios"]).expect_status(0);
        flowstone.run(["resume", "scenarios"]).expect_status(0);
    }
    for run in &runs {
        flowstone.run(["watch", run]).expect_status(0);
    }
    assert_all_sound(flowstone).await;
}

/// Jobs of these lanes, as `queue priority tags`, each of one run of its own.
const QUEUES: &str = "[assets.numbers]\nqueue = \"slow\"\n[assets.verdict]\nworker_tags = [\"gpu\", \"big\"]\n";

#[tokio::test]
async fn a_worker_takes_the_jobs_of_its_queues_and_tags_alone() {
    let scenario = Scenario::new(QUEUES);
    let flowstone = &scenario.flowstone;
    let queue = |arguments: &[&str]| {
        let mut worker = flowstone.start([&["work"], arguments].concat());
        worker.said("takes jobs");
        worker
    };
    let run = detach(&scenario, &["sum", "verdict", "keyed"]);
    let of_no_such_queue = queue(&["--queue", "other"]);
    let default_queue = queue(&["--queue", "default", "--queue", "other"]);
    // `keyed` asks for nothing special, and needs nobody.
    wait_until("what needs nothing special is made", || state(flowstone, &run)["succeeded"].as_i64() >= Some(3));
    let waiting = state(flowstone, &run);
    let not_made: Vec<&str> = waiting["job_list"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|job| job["state"] != "succeeded")
        .map(|job| job["asset"].as_str().unwrap())
        .collect();
    assert!(not_made.contains(&"numbers") && not_made.contains(&"sum"), "{not_made:?}");
    let all_queues = queue(&["--tag", "gpu"]);
    wait_until("the slow queue is served", || state(flowstone, &run)["job_list"].to_string().contains("sum"));
    let needs_both =
        "select count(*)::text from job_ready r join lane l using (lane_id) where l.tags = array['big', 'gpu']";
    wait_until("only what asks for both tags is left", || flowstone.database().ask(needs_both) == ["1"]);
    assert_eq!(state(flowstone, &run)["state"], "running");
    let with_both = queue(&["--tag", "gpu,big"]);
    flowstone.run(["watch", &run]).expect_status(0);
    drop((of_no_such_queue, default_queue, all_queues, with_both));
    assert_all_sound(flowstone).await;
}

#[test]
fn jobs_that_no_live_worker_serves_are_told_with_the_command_that_helps() {
    let scenario = Scenario::new(QUEUES);
    let flowstone = &scenario.flowstone;
    let database = flowstone.database();
    let plain = r#"wait for a worker: queue "default" (no live worker serves them; start one with `flowstone work`)"#;
    let slow = r#"1 job waits for a worker: queue "slow" (no live worker serves them; start one with `flowstone work --queue slow`)"#;
    let tagged = r#"1 job waits for a worker: queue "default", tags ["big", "gpu"] (no live worker serves them; start one with `flowstone work --tag big,gpu`)"#;
    let submitted = scenario.command("run", &["sum", "verdict", "keyed", "--detach"]).expect_status(0);
    let run = submitted.stdout.trim();
    for told in [plain, slow, tagged] {
        assert!(submitted.stderr.contains(told), "{}", submitted.stderr);
    }
    // Which of them `status` tells of.
    let told = || {
        let status = flowstone.run(["status", run]).expect_status(0).stdout;
        [plain, slow, tagged].map(|told| status.contains(told))
    };
    assert_eq!(told(), [true; 3]);

    let start = |arguments: &[&str]| {
        let mut worker = flowstone.start([&["work"], arguments].concat());
        worker.said("takes jobs");
        worker
    };
    let worker = start(&["--queue", "default", "--tag", "gpu"]);
    assert_eq!(told(), [false, true, true]);
    let pending = state(flowstone, run)["unserved"].clone();
    let expected = json!([
        { "queue": "default", "tags": ["big", "gpu"], "jobs": 1 },
        { "queue": "slow", "tags": [], "jobs": 1 },
    ]);
    assert_eq!(pending, expected);
    // One of the version before does not say what it serves: it may be everything.
    database.execute("create table said as table worker; update worker set queues = null, tags = null");
    assert_eq!(told(), [false; 3]);
    database
        .execute("update worker w set queues = s.queues, tags = s.tags from said s where s.worker_id = w.worker_id");
    assert_eq!(told(), [false, true, true]);
    // One that died serves nobody.
    let others = start(&["--tag", "gpu,big"]);
    flowstone.run(["watch", run]).expect_status(0);
    assert_eq!((told(), &state(flowstone, run)["unserved"]), ([false; 3], &json!([])));
    drop((worker, others));
    database.execute("update worker set beat_at = '-infinity'");
    let watched = scenario.command("run", &["keyed", "--force", "--detach"]).expect_status(0);
    assert!(watched.stderr.contains(plain), "{}", watched.stderr);
    // Whoever works on its own run alone is told of what it does not serve.
    let mut own = flowstone.start(["run", "scenarios", "numbers", "--force", "--queue", "default"]);
    own.said(slow);
}

#[tokio::test]
async fn a_paused_queue_keeps_its_jobs_until_it_is_resumed() {
    let scenario = Scenario::new(QUEUES);
    let flowstone = &scenario.flowstone;
    flowstone.run(["pause", "--queue", "slow"]).expect_status(0);
    let again = flowstone.run(["pause", "--queue", "slow"]).expect_status(2);
    assert!(again.stderr.contains("the queue `slow` is paused already"), "{}", again.stderr);
    let worker = work(flowstone);
    let run = detach(&scenario, &["sum"]);
    let others = detach(&scenario, &["keyed"]);
    flowstone.run(["watch", &others]).expect_status(0);
    assert_eq!(flowstone.database().ask("select count(*)::text from job_ready"), ["1"], "numbers stays where it is");
    let pauses: Value = serde_json::from_str(&flowstone.run(["pauses", "--json"]).expect_status(0).stdout).unwrap();
    assert_eq!((&pauses[0]["queue"], &pauses[0]["parked"]), (&"slow".into(), &1.into()), "{pauses}");
    flowstone.run(["resume", "--queue", "slow"]).expect_status(0);
    flowstone.run(["watch", &run]).expect_status(0);
    let told = "select action || ' ' || subject from audit where action like 'queue.%' order by sequence";
    assert_eq!(flowstone.database().ask(told), ["queue.paused slow", "queue.resumed slow"]);
    drop(worker);
    assert_all_sound(flowstone).await;
}
