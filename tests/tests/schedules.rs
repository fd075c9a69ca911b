//! Schedules: each fire has exactly one run, however many processes see it and wherever they die.

use std::{fs, path::Path, time::Duration};

use flowstone::{
    id::{RunId, ScheduleId, WorkerId},
    store::{
        Store,
        pipelines::NewPipelineVersion,
        queue::Served,
        schedules::{DecidedFires, DueSchedule, NewSchedule, ScheduleRecord, TakenFire},
        submissions::NewRun,
    },
};
use flowstone_tests::{
    Database, Flowstone, Running,
    deadline::wait_until_database_says,
    fault::{self, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When, let_sessions_expire},
    guest::{self, Described},
};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT, version},
};

/// A version of the pipeline `p` with these schedules, each with its pattern and its next fire time.
fn declaring(seed: u8, schedules: &[(&str, &str, i64)]) -> NewPipelineVersion {
    let new = |(name, cron, next): &(&str, &str, i64)| NewSchedule {
        name: (*name).to_owned(),
        settings: json!({ "cron": cron, "time_zone": "UTC", "assets": [], "partition": null, "misfire": "run-once" }),
        next_fire_s: Some(*next),
    };
    NewPipelineVersion { schedules: schedules.iter().map(new).collect(), ..version("p", seed) }
}

impl Bench {
    async fn declare(&self, seed: u8, schedules: &[(&str, &str, i64)]) {
        self.store.deploy(&declaring(seed, schedules)).await.unwrap();
    }

    async fn schedule(&self, name: &str) -> ScheduleRecord {
        let all = self.store.list_schedules(TENANT, Some("p")).await.unwrap();
        all.into_iter().find(|schedule| schedule.name == name).expect("it is declared")
    }

    async fn now_s(&self) -> i64 {
        self.store.tell_time().await.unwrap() / 1_000
    }

    /// One due fire of the schedule `daily`, decided and not taken.
    async fn a_due_fire(&self) -> i64 {
        let fire_s = self.now_s().await - 1;
        self.declare(7, &[("daily", "@daily", fire_s)]).await;
        let [due]: [DueSchedule; 1] = self.store.list_due_schedules().await.unwrap().try_into().unwrap();
        let decided = DecidedFires { run: vec![fire_s], missed: None, next_fire_s: Some(fire_s + 86_400) };
        assert!(self.store.record_fires(&due, &decided).await.unwrap());
        fire_s
    }

    async fn run_of(&self, fire: &TakenFire) -> NewRun {
        let pipeline = self.store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
        NewRun {
            id: RunId::new(),
            tenant: TENANT.to_owned(),
            pipeline: pipeline.pipeline,
            pipeline_version: pipeline.id,
            owner: None,
            backfill: None,
            request: json!({ "schedule": fire.name, "fire_at_ms": fire.fire_s * 1_000 }),
            reaches_out: false,
            jobs: vec![],
        }
    }

    async fn fires(&self) -> Vec<(String, Option<String>)> {
        fires(&self.database.pool().await).await
    }
}

/// State and error of each fire, in order.
async fn fires(pool: &PgPool) -> Vec<(String, Option<String>)> {
    sqlx::query_as("select state, error from schedule_fire order by fire_at").fetch_all(pool).await.unwrap()
}

async fn another_worker(bench: &Bench) -> (Store, WorkerId) {
    let (store, worker) = (Store::connect(bench.database.options()).await.unwrap(), WorkerId::new());
    store.register_worker(worker, "there", &Served::default()).await.unwrap();
    (store, worker)
}

#[tokio::test]
async fn of_two_that_decide_about_the_same_moment_one_does() {
    let bench = Bench::new().await;
    let (other, other_worker) = another_worker(&bench).await;
    let fire_s = bench.now_s().await - 1;
    bench.declare(7, &[("daily", "@daily", fire_s)]).await;
    let seen = bench.store.list_due_schedules().await.unwrap();
    let seen_by_other = other.list_due_schedules().await.unwrap();
    assert_eq!((seen.len(), seen_by_other.len()), (1, 1));
    let decided =
        DecidedFires { run: vec![fire_s], missed: Some((fire_s - 9, fire_s - 2)), next_fire_s: Some(fire_s + 86_400) };
    assert!(bench.store.record_fires(&seen[0], &decided).await.unwrap());
    assert!(!other.record_fires(&seen_by_other[0], &decided).await.unwrap(), "it has been decided");
    assert_eq!(bench.fires().await, [("missed".to_owned(), None), ("due".to_owned(), None)]);
    assert!(other.list_due_schedules().await.unwrap().is_empty());

    let taken = other.take_due_fire(other_worker).await.unwrap().expect("a fire is due");
    assert_eq!((taken.fire_s, &*taken.name, &*taken.pipeline), (fire_s, "daily", "p"));
    assert!(bench.store.take_due_fire(bench.worker).await.unwrap().is_none(), "the other one has it");
    let run = bench.run_of(&taken).await;
    assert!(other.submit_fire(&taken, &run).await.unwrap());
    let last = bench.schedule("daily").await.last.expect("it has fired");
    assert_eq!((last.run, &*last.state, &*last.cause), (Some(run.id), "submitted", "clock"));
}

/// Both believe that the fire is theirs, as after a session that ended while its process stood still.
#[tokio::test]
async fn of_two_that_submit_the_same_fire_one_does() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    bench.a_due_fire().await;
    let taken = bench.store.take_due_fire(bench.worker).await.unwrap().unwrap();
    let (other, _) = another_worker(&bench).await;
    let (run, run_of_other) = (bench.run_of(&taken).await, bench.run_of(&taken).await);

    let gate = Gate::close(&bench.database).await;
    let submitted = Step { table: "run", operation: "insert", only: "true" };
    submitted.inject(&pool, When::After, Fault::Gated).await;
    let (store, fire, first_run) = (bench.store.clone(), taken.clone(), run.clone());
    let first = tokio::spawn(async move { store.submit_fire(&fire, &first_run).await });
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    let fire = taken.clone();
    let second = tokio::spawn(async move { other.submit_fire(&fire, &run_of_other).await });
    let waits = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
         where not l.granted and l.locktype = 'transactionid' and a.datname = current_database())";
    wait_until_database_says(&pool, waits).await;
    gate.open().await;
    assert!(first.await.unwrap().unwrap());
    assert!(!second.await.unwrap().unwrap(), "it was due no longer");
    let runs: Vec<uuid::Uuid> = sqlx::query_scalar("select run_id from run").fetch_all(&pool).await.unwrap();
    assert_eq!(runs, [run.id.0]);
    assert!(!bench.store.fail_fire(&taken, "too late").await.unwrap());
}

#[tokio::test]
async fn what_a_dead_worker_had_taken_is_for_others_to_take() {
    let bench = Bench::new().await;
    let (other, other_worker) = another_worker(&bench).await;
    let fire_s = bench.a_due_fire().await;
    assert!(bench.store.take_due_fire(bench.worker).await.unwrap().is_some());
    assert!(bench.store.take_due_fire(bench.worker).await.unwrap().is_some(), "after trouble it takes its own again");
    assert!(other.take_due_fire(other_worker).await.unwrap().is_none());
    bench.store.expire_all_sessions().await.unwrap();
    assert!(other.renew_session(other_worker).await.unwrap());
    other.rescue_lost_jobs().await.unwrap();
    assert!(bench.store.take_due_fire(bench.worker).await.unwrap().is_none(), "its session is over");
    assert_eq!(other.take_due_fire(other_worker).await.unwrap().unwrap().fire_s, fire_s);
}

/// What nobody can submit, or what kills whoever tries, is in nobody's way.
#[tokio::test]
async fn what_was_tried_more_often_comes_later() {
    let bench = Bench::new().await;
    let past = bench.now_s().await - 1;
    bench.declare(7, &[("one", "@daily", past - 1), ("two", "@daily", past)]).await;
    for due in bench.store.list_due_schedules().await.unwrap() {
        let decided = DecidedFires { run: vec![due.next_fire_s], missed: None, next_fire_s: Some(past + 86_400) };
        assert!(bench.store.record_fires(&due, &decided).await.unwrap());
    }
    let mut taken = Vec::new();
    for _ in 0..4 {
        let fire = bench.store.take_due_fire(bench.worker).await.unwrap().unwrap();
        taken.push((fire.name, fire.tries));
    }
    let expected = [("one", 1), ("two", 1), ("one", 2), ("two", 2)];
    assert_eq!(taken, expected.map(|(name, tries)| (name.to_owned(), tries)));
}

#[tokio::test]
async fn the_fires_of_a_schedule_are_submitted_in_order() {
    let bench = Bench::new().await;
    let (other, other_worker) = another_worker(&bench).await;
    let last = bench.now_s().await - 1;
    bench.declare(7, &[("daily", "@daily", last - 2)]).await;
    let due = bench.store.list_due_schedules().await.unwrap().remove(0);
    let decided = DecidedFires { run: vec![last - 2, last - 1, last], missed: None, next_fire_s: Some(last + 1) };
    assert!(bench.store.record_fires(&due, &decided).await.unwrap());
    // What has been decided comes first: while it waits, nothing more is decided.
    sqlx::query("select pg_sleep(1.1)").execute(&bench.database.pool().await).await.unwrap();
    assert!(bench.store.list_due_schedules().await.unwrap().is_empty());
    for expected in [last - 2, last - 1, last] {
        let taken = bench.store.take_due_fire(bench.worker).await.unwrap().unwrap();
        assert_eq!(taken.fire_s, expected);
        assert!(other.take_due_fire(other_worker).await.unwrap().is_none(), "the next one waits for this one");
        assert!(bench.store.submit_fire(&taken, &bench.run_of(&taken).await).await.unwrap());
    }
    assert_eq!(bench.store.list_due_schedules().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_deploy_makes_the_schedules_what_it_declares_and_leaves_what_an_operator_decided() {
    let bench = Bench::new().await;
    let far = bench.now_s().await + 86_400;
    let fire_s = bench.a_due_fire().await;
    let next = async |name: &str| -> Option<i64> {
        sqlx::query_scalar("select extract(epoch from next_fire_at)::bigint from schedule where name = $1")
            .bind(name.to_owned())
            .fetch_one(&bench.database.pool().await)
            .await
            .unwrap()
    };
    // The same times go on where they were, also in a deploy that is not a new version; other times begin anew.
    bench.declare(7, &[("daily", "@daily", far), ("hourly", "@hourly", far)]).await;
    assert_eq!(next("daily").await, Some(fire_s + 86_400));
    bench.declare(8, &[("daily", "0 1 * * *", far), ("hourly", "@hourly", far)]).await;
    assert_eq!(next("daily").await, Some(far));
    assert_eq!(bench.fires().await, [("due".to_owned(), None)], "what was decided is to run");

    // Disabled, it fires no more, and what was due is missed.
    let daily = bench.schedule("daily").await.id;
    bench.store.disable_schedule(TENANT, daily).await.unwrap();
    assert_eq!(bench.fires().await, [("missed".to_owned(), None)]);
    assert!(bench.store.take_due_fire(bench.worker).await.unwrap().is_none());
    bench.declare(9, &[("daily", "0 2 * * *", far - 90_000), ("hourly", "@hourly", far)]).await;
    assert_eq!((next("daily").await, bench.schedule("daily").await.enabled), (None, false), "a deploy enables nothing");
    assert!(bench.store.list_due_schedules().await.unwrap().is_empty());

    // No longer declared, it is gone, and its history is not; back again, it is as it was.
    bench.declare(10, &[("hourly", "@hourly", far)]).await;
    let names: Vec<String> =
        bench.store.list_schedules(TENANT, None).await.unwrap().into_iter().map(|schedule| schedule.name).collect();
    assert_eq!(names, ["hourly"]);
    assert_eq!(bench.fires().await.len(), 1);
    bench.declare(11, &[("daily", "0 2 * * *", far), ("hourly", "@hourly", far)]).await;
    let back = bench.schedule("daily").await;
    assert_eq!((back.id, back.enabled, back.last.is_some()), (daily, false, true));
    bench.store.enable_schedule(TENANT, daily, Some(far + 1)).await.unwrap();
    assert_eq!((next("daily").await, bench.schedule("daily").await.enabled), (Some(far + 1), true));
    let told: Vec<String> =
        sqlx::query_scalar("select action from audit where action like 'schedule.%' order by sequence")
            .fetch_all(&bench.database.pool().await)
            .await
            .unwrap();
    assert_eq!(told, ["schedule.disabled", "schedule.enabled"]);
}

/// A decision about what is no longer so writes nothing.
#[tokio::test]
async fn what_was_disabled_or_declared_anew_meanwhile_is_not_decided() {
    let bench = Bench::new().await;
    let past = bench.now_s().await - 1;
    bench.declare(7, &[("one", "@daily", past), ("two", "@daily", past)]).await;
    let due = bench.store.list_due_schedules().await.unwrap();
    assert_eq!(due.len(), 2);
    let id = |name: &'static str| async { bench.schedule(name).await.id };
    let (one, two): (ScheduleId, ScheduleId) = (id("one").await, id("two").await);
    bench.store.disable_schedule(TENANT, one).await.unwrap();
    // The same next fire time by chance.
    bench.declare(8, &[("one", "@daily", past), ("two", "@hourly", past)]).await;
    for schedule in due {
        assert!([one, two].contains(&schedule.id));
        let decided = DecidedFires { run: vec![past], missed: None, next_fire_s: Some(past + 86_400) };
        assert!(!bench.store.record_fires(&schedule, &decided).await.unwrap());
    }
    assert!(bench.fires().await.is_empty());
}

/// A folder with a pipeline of one asset, and commands and processes that work with it.
struct Scheduled {
    flowstone: Flowstone,
    database: Database,
}

impl Scheduled {
    async fn new(schedules: &str) -> Self {
        let database = Database::new().await;
        let scheduled = Self { flowstone: Flowstone::on(&database), database };
        let assets = [Described::new("made"), Described::new("read").reading("made")];
        fs::write(scheduled.folder().join("made.wasm"), guest::component(&assets)).unwrap();
        scheduled.deploy(schedules);
        scheduled
    }

    fn folder(&self) -> &Path {
        self.flowstone.folder()
    }

    fn deploy(&self, schedules: &str) {
        let text = format!("[pipeline]\nname = \"fired\"\n[[components]]\npath = \"made.wasm\"\n{schedules}");
        fs::write(self.folder().join("flowstone.toml"), text).unwrap();
        self.flowstone.run(["deploy", "."]).expect_status(0);
    }

    /// Killed when it is dropped, and at any time before.
    fn start(&self) -> Running {
        self.flowstone.start(["up", "-j", "1"])
    }

    fn say(&self, arguments: &[&str]) -> String {
        self.flowstone.run(arguments).expect_status(0).stdout
    }

    async fn assert_sound(&self, pool: &PgPool) {
        assert_sound(&violations(pool, &self.flowstone.state_dir().join("blobs")).await);
    }
}

const EACH_SECOND: &str = "[schedules.each_second]\ncron = \"* * * * * *\"\nmisfire = { catch_up = 1000 }\n";

/// Two processes, one of which is killed again and again: at any moment, so also between any two statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fire_has_one_run_with_two_processes_that_are_killed() {
    const KILLS: u32 = 12;
    let scheduled = Scheduled::new(EACH_SECOND).await;
    let pool = scheduled.database.pool().await;
    let mut processes = [scheduled.start(), scheduled.start()];
    wait_until_database_says(&pool, "select count(*) >= 2 from schedule_fire where state = 'submitted'").await;
    for kill in 0..KILLS {
        // The sleep waits for nothing: it is the moment of the fault, another one in its second each time.
        tokio::time::sleep(Duration::from_millis(500 + u64::from(kill * 577 % 1_000))).await;
        processes[kill as usize % 2] = scheduled.start();
    }
    // What the killed ones had taken comes free with their sessions.
    drop(processes);
    let_sessions_expire(&pool).await;
    let _last = scheduled.start();
    wait_until_database_says(
        &pool,
        "select count(*) > 0 and bool_and(state <> 'due') and max(fire_at) > now() - interval '2 s' from schedule_fire",
    )
    .await;
    scheduled.say(&["schedule", "disable", "fired", "each_second"]);
    wait_until_database_says(&pool, "select not exists (select from run where finished_at is null)").await;

    let (fires, runs, span): (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(distinct run_id), extract(epoch from max(fire_at) - min(fire_at))::bigint
         from schedule_fire where state = 'submitted'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((fires, runs), (span + 1, span + 1), "each second has its run");
    assert!(span >= i64::from(KILLS) / 2, "{span} seconds");
    let all: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&pool).await.unwrap();
    assert_eq!(all, runs);
    scheduled.assert_sound(&pool).await;
}

/// Killed at the statements between which a fire could be lost or repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_is_neither_lost_nor_repeated_wherever_its_process_dies() {
    let step = |operation, table, only| Step { operation, table, only };
    let steps = [
        step("update", "schedule", "true"),
        step("insert", "schedule_fire", "true"),
        step("update", "schedule_fire", "new.taken_by is not null"),
        step("insert", "run", "true"),
        step("insert", "audit", "new.action = 'run.submitted'"),
        step("update", "schedule_fire", "new.state = 'submitted'"),
    ];
    let scheduled = Scheduled::new("").await;
    let pool = scheduled.database.pool().await;
    for (number, step) in steps.iter().enumerate() {
        // Another fire each time, and none between it and now.
        scheduled.deploy(&format!("[schedules.yearly]\ncron = \"0 0 {} 1 *\"\n", number + 1));
        let due = format!("update schedule set next_fire_at = '2026-01-{}'", number + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(due)).execute(&pool).await.unwrap();
        let gate = Gate::close(&scheduled.database).await;
        step.inject(&pool, When::After, Fault::Gated).await;
        let killed = scheduled.start();
        wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        drop(killed);
        gate.open().await;
        let_sessions_expire(&pool).await;
        fault::remove(&pool).await;

        let _next = scheduled.start();
        wait_until_database_says(
            &pool,
            "select not exists (select from schedule where next_fire_at <= now())
                and not exists (select from schedule_fire where state = 'due')
                and not exists (select from run where finished_at is null)",
        )
        .await;
        let submitted: i64 = sqlx::query_scalar("select count(*) from schedule_fire where state = 'submitted'")
            .fetch_one(&pool)
            .await
            .unwrap();
        let runs: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&pool).await.unwrap();
        let expected = number as i64 + 1;
        assert_eq!((submitted, runs), (expected, expected), "{step:?}");
        scheduled.assert_sound(&pool).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_that_cannot_run_is_recorded_and_the_next_one_goes_on() {
    let scheduled = Scheduled::new("").await;
    let pool = scheduled.database.pool().await;
    fs::create_dir(scheduled.folder().join("data")).unwrap();
    let assets = [Described::new("made").requiring("station"), Described::new("read").reading("made")];
    fs::write(scheduled.folder().join("made.wasm"), guest::component_with_files(&assets)).unwrap();
    scheduled.deploy(&format!(
        "[resources.station]\nkind = \"directory\"\npath = \"data\"\n[assets.made]\ngrants.station = {{ paths = [\"**\"] }}\n{EACH_SECOND}"
    ));
    fs::remove_dir(scheduled.folder().join("data")).unwrap();
    let _process = scheduled.start();
    wait_until_database_says(&pool, "select count(*) >= 2 from schedule_fire where state = 'failed'").await;
    let told = scheduled.say(&["schedules", "fired"]);
    assert!(told.contains("failed: resource `station`: cannot read"), "{told}");
    fs::create_dir(scheduled.folder().join("data")).unwrap();
    wait_until_database_says(&pool, "select exists (select from schedule_fire where state = 'submitted')").await;
    scheduled.say(&["schedule", "disable", "fired", "each_second"]);
    scheduled.assert_sound(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_that_kills_whoever_takes_it_is_given_up() {
    let scheduled = Scheduled::new("[schedules.yearly]\ncron = \"@yearly\"\n").await;
    let pool = scheduled.database.pool().await;
    let due = "insert into schedule_fire (tenant_id, schedule_id, fire_at, cause, state, tries)
         select tenant_id, schedule_id, '2026-01-01', 'clock', 'due', 100 from schedule";
    sqlx::raw_sql(due).execute(&pool).await.unwrap();
    let _process = scheduled.start();
    wait_until_database_says(&pool, "select bool_and(state <> 'due') from schedule_fire").await;
    let error = "given up after 100 tries; the log has their errors";
    assert_eq!(fires(&pool).await, [("failed".to_owned(), Some(error.to_owned()))]);
    scheduled.assert_sound(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_listed_disabled_enabled_and_fired_by_hand() {
    let nightly = "[schedules.nightly]\ncron = \"30 2 * * *\"\ntime_zone = \"Europe/Berlin\"\nassets = [\"read\"]\n";
    let scheduled = Scheduled::new(nightly).await;
    let pool = scheduled.database.pool().await;
    let listed = || -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&scheduled.say(&["schedules", "--json"])).unwrap();
        all[0].clone()
    };
    let nightly = listed();
    assert_eq!(
        (&nightly["schedule"], &nightly["enabled"], &nightly["last_fire"]),
        (&json!("nightly"), &json!(true), &json!(null))
    );
    let times: serde_json::Value =
        serde_json::from_str(&scheduled.say(&["schedule", "next", "fired", "nightly", "-n", "3", "--json"])).unwrap();
    assert_eq!(times["fire_at_ms"].as_array().unwrap().len(), 3);
    assert_eq!(times["fire_at_ms"][0], nightly["next_fire_at_ms"]);
    assert!(scheduled.say(&["schedule", "next", "fired", "nightly", "-n", "1"]).contains(" 02:30:00 +0"));

    scheduled.say(&["schedule", "disable", "fired", "nightly"]);
    assert_eq!((&listed()["enabled"], &listed()["next_fire_at_ms"]), (&json!(false), &json!(null)));
    // Also where it is disabled: it is run, not fired.
    scheduled.say(&["schedule", "run-now", "fired", "nightly"]);
    let last = listed()["last_fire"].clone();
    assert_eq!((&last["cause"], &last["state"]), (&json!("hand"), &json!("submitted")));
    // Nobody waits for it: it is there for whoever works.
    let _process = scheduled.start();
    wait_until_database_says(&pool, "select state = 'succeeded' and succeeded = 2 from run").await;
    scheduled.say(&["schedule", "enable", "fired", "nightly"]);
    assert_eq!(listed()["next_fire_at_ms"], nightly["next_fire_at_ms"]);
    scheduled.assert_sound(&pool).await;

    let unknown = scheduled.flowstone.run(["schedule", "enable", "fired", "nihgtly"]).expect_status(2);
    assert!(unknown.stderr.contains("has no schedule `nihgtly`; did you mean `nightly`?"), "{}", unknown.stderr);
    scheduled.deploy("");
    let gone = scheduled.flowstone.run(["schedule", "enable", "fired", "nightly"]).expect_status(2);
    assert!(gone.stderr.contains("has no schedule `nightly`"), "{}", gone.stderr);
}
