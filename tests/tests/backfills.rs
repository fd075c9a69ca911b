//! Backfills: each partition is released once and counted once, whatever their number, however many processes see it and
//! wherever they die.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use flowstone::{
    id::{BackfillId, RunId},
    pipeline::{backfill::WindowOutcome, ranges::IndexRanges},
    store::{
        Store,
        backfills::{BackfillPlace, NewBackfill, NewWindow},
        submissions::NewRun,
    },
};
use flowstone_tests::{
    Database, Flowstone, Running,
    deadline::wait_until_database_says,
    fault::{self, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When, let_sessions_expire},
    pipeline::guest,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT},
};

impl Bench {
    /// A backfill of ten partitions of which four may be in flight.
    async fn backfill(&self) -> BackfillId {
        let id = BackfillId::new();
        let new = NewBackfill {
            id,
            tenant: TENANT.to_owned(),
            pipeline: self.pipeline.pipeline,
            settings: json!({ "assets": ["a"] }),
            dimensions: json!([]),
            selected: IndexRanges::from(0..10),
            concurrency: 4,
            halt_after: None,
        };
        self.store.insert_backfill(&new).await.unwrap();
        id
    }

    async fn place(&self, id: BackfillId) -> BackfillPlace {
        self.store.find_backfill_place(TENANT, id).await.unwrap().expect("it runs")
    }

    fn window(&self, backfill: BackfillId, place: BackfillPlace) -> (NewWindow, NewRun) {
        let run = NewRun {
            id: RunId::new(),
            tenant: TENANT.to_owned(),
            pipeline: self.pipeline.pipeline,
            pipeline_version: self.pipeline.id,
            owner: None,
            backfill: Some(backfill),
            request: json!({ "backfill": backfill }),
            reaches_out: false,
            jobs: vec![],
        };
        let from = place.cursor as u32;
        let selected = IndexRanges::from(from..from + 4);
        (NewWindow { backfill, place, released: 4, up_to_date: 0, skipped: 0, selected }, run)
    }
}

#[tokio::test]
async fn of_two_that_release_the_same_window_one_does() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let id = bench.backfill().await;
    let other = Store::connect(bench.database.options()).await.unwrap();
    let place = bench.place(id).await;
    let ((window, run), (window_of_other, run_of_other)) = (bench.window(id, place), bench.window(id, place));

    let gate = Gate::close(&bench.database).await;
    let submitted = Step { table: "run", operation: "insert", only: "true" };
    submitted.inject(&pool, When::After, Fault::Gated).await;
    let (store, first_run) = (bench.store.clone(), run.clone());
    let first = tokio::spawn(async move { store.release_window(TENANT, &window, Some(&first_run)).await });
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    let second = tokio::spawn(async move { other.release_window(TENANT, &window_of_other, Some(&run_of_other)).await });
    let waits = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
         where not l.granted and l.locktype = 'transactionid' and a.datname = current_database())";
    wait_until_database_says(&pool, waits).await;
    gate.open().await;
    assert!(first.await.unwrap().unwrap());
    assert!(!second.await.unwrap().unwrap(), "the window is released");
    fault::remove(&pool).await;
    let runs: Vec<uuid::Uuid> = sqlx::query_scalar("select run_id from run").fetch_all(&pool).await.unwrap();
    assert_eq!(runs, [run.id.0]);
    assert_eq!(bench.place(id).await, BackfillPlace { cursor: 4, windows: 1, ..place });

    // And of two that count it, one does.
    let outcome = WindowOutcome { made: 4, ..WindowOutcome::default() };
    assert!(bench.store.settle_window(TENANT, id, run.id, &outcome).await.unwrap());
    assert!(!bench.store.settle_window(TENANT, id, run.id, &outcome).await.unwrap());
    let record = bench.store.find_backfill(TENANT, id).await.unwrap().unwrap();
    assert_eq!((record.made, record.in_flight, record.waiting), (4, 0, 6));
}

#[tokio::test]
async fn what_was_cancelled_or_has_ended_releases_nothing() {
    let bench = Bench::new().await;
    let id = bench.backfill().await;
    assert_eq!(bench.store.end_backfill(TENANT, id).await.unwrap(), None, "nothing of it is released");
    let place = bench.place(id).await;
    assert_eq!(bench.store.cancel_backfill(TENANT, id).await.unwrap(), Some(0));
    assert_eq!(bench.store.cancel_backfill(TENANT, id).await.unwrap(), None);
    let (window, run) = bench.window(id, place);
    assert!(!bench.store.release_window(TENANT, &window, Some(&run)).await.unwrap());
    assert!(!bench.store.halt_backfill(TENANT, id, &place, "too late").await.unwrap());
    assert_eq!(bench.store.find_backfill_place(TENANT, id).await.unwrap(), None);
    assert!(bench.store.list_active_backfills().await.unwrap().is_empty());
    let told: Vec<String> =
        sqlx::query_scalar("select action from audit where action like 'backfill.%' order by sequence")
            .fetch_all(&bench.database.pool().await)
            .await
            .unwrap();
    assert_eq!(told, ["backfill.started", "backfill.cancelled"]);
}

/// A pipeline whose partitions fail, are skipped or are made, by their names.
struct Filled {
    flowstone: Flowstone,
    database: Database,
    pool: PgPool,
}

impl Filled {
    async fn new() -> Self {
        let database = Database::new().await;
        let (pool, flowstone) = (database.pool().await, Flowstone::on(&database));
        fs::create_dir_all(flowstone.folder().join("counter")).unwrap();
        let filled = Self { flowstone, database, pool };
        filled.deploy("");
        filled
    }

    fn deploy(&self, more: &str) {
        let text = format!(
            "[pipeline]\nname = \"filled\"\n[[components]]\npath = \"{}\"\n[resources.counter]\nkind = \"directory\"\n\
             path = \"counter\"\naccess = \"read-write\"\n[assets.waits]\ngrants = {{ counter = {{ access = \"read-write\", \
             paths = [\"go\"] }} }}\nlimits = {{ fuel = \"100000G\" }}\nfresh_for = \"1h\"\n{more}",
            guest("backfill").display()
        );
        fs::write(self.folder().join("flowstone.toml"), text).unwrap();
        self.flowstone.run(["deploy", "."]).expect_status(0);
    }

    fn folder(&self) -> &Path {
        self.flowstone.folder()
    }

    /// A process that works, fires and releases. Killed when it is dropped.
    fn up(&self) -> Running {
        self.flowstone.start(["up", "-j", "8"])
    }

    /// `flowstone backfill start filled ARGUMENTS...`: its id.
    #[track_caller]
    fn backfill(&self, arguments: &[&str]) -> String {
        let all = [&["backfill", "start", "filled"], arguments].concat();
        self.flowstone.run(all).expect_status(0).stdout.trim().to_owned()
    }

    #[track_caller]
    fn status(&self, id: &str) -> Value {
        let said = self.flowstone.run(["backfill", "status", id, "--json"]).expect_status(0).stdout;
        serde_json::from_str(&said).unwrap()
    }

    /// The counts of a status: made, up to date, skipped, failed, in flight, waiting.
    #[track_caller]
    fn counts(&self, id: &str) -> [i64; 6] {
        let status = self.status(id);
        ["made", "up_to_date", "skipped", "failed", "in_flight", "waiting"].map(|count| status[count].as_i64().unwrap())
    }

    async fn ended(&self) {
        wait_until_database_says(
            &self.pool,
            "select bool_and(state <> 'running') and not exists (select from backfill_window) from backfill",
        )
        .await;
    }

    async fn count(&self, what: &'static str) -> i64 {
        sqlx::query_scalar(what).fetch_one(&self.pool).await.unwrap()
    }

    async fn assert_sound(&self) {
        assert_sound(&violations(&self.pool, &self.flowstone.state_dir().join("blobs")).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_partitions_are_one_row_and_those_in_flight() {
    let filled = Filled::new().await;
    let started = Instant::now();
    let id = filled.backfill(&["million", "--concurrency", "50"]);
    let (started, asked) = (started.elapsed(), Instant::now());
    assert_eq!(filled.counts(&id), [0, 0, 0, 0, 0, 1_000_000]);
    let asked = asked.elapsed();
    // Both with the start of a process. Writing a million rows takes half a minute.
    assert!(started < Duration::from_secs(5) && asked < Duration::from_secs(5), "{started:?}, {asked:?}");
    let rows = "select (select count(*) from backfill) + (select count(*) from backfill_window)
         + (select count(*) from run) + (select count(*) from job)";
    assert_eq!(filled.count(rows).await, 1);
    let size = "select pg_column_size(b.*)::bigint from backfill b";
    assert!(filled.count(size).await < 1_000);

    let up = filled.up();
    wait_until_database_says(&filled.pool, "select made >= 500 from backfill").await;
    let (made, rows): (i64, i64) = sqlx::query_as("select b.made::bigint, (select count(*) from job) from backfill b")
        .fetch_one(&filled.pool)
        .await
        .unwrap();
    assert!(rows <= made + 2 * 50, "{rows} jobs, and {made} partitions are made");
    let asked = Instant::now();
    filled.flowstone.run(["backfill", "list"]).expect_status(0);
    let said = filled.flowstone.run(["backfill", "cancel", &id]).expect_status(0).stderr;
    assert!(said.contains("is cancelled"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(10));
    filled.ended().await;
    drop(up);
    let [made, up_to_date, skipped, _, in_flight, waiting] = filled.counts(&id);
    assert!(made >= 500 && waiting > 900_000, "{made} {waiting}");
    assert_eq!((up_to_date, skipped, in_flight), (0, 0, 0));
    assert_eq!(
        filled.count("select (made + failed + selected_partitions - cursor)::bigint from backfill").await,
        1_000_000
    );
    filled.assert_sound().await;
}

const DAYS_ENDED: [i64; 6] = [90, 0, 4, 6, 0, 0];

/// What each partition came to: never twice, and none left out.
async fn assert_days_are_done(filled: &Filled, id: &str) {
    assert_eq!(filled.counts(id), DAYS_ENDED);
    let status = filled.status(id);
    assert_eq!((&status["state"], &status["partitions"]), (&json!("failed"), &json!(100)));
    let failures: Vec<(&str, &str, i64)> = status["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|range| {
            let text = |name: &str| range[name].as_str().unwrap();
            (text("first"), text("last"), range["partitions"].as_i64().unwrap())
        })
        .collect();
    let days: i64 = failures.iter().map(|(.., count)| count).sum();
    assert_eq!(days, 6, "{failures:?}");
    for month in ["01", "02", "03"] {
        let first = format!("2024-{month}-13");
        assert!(failures.iter().any(|(from, ..)| *from == first), "{failures:?}");
    }
    let jobs = filled.count("select count(*) from job").await;
    assert_eq!((jobs, filled.count("select count(distinct partition_key) from job").await), (100, 100));
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_makes_each_partition_and_says_what_failed() {
    let filled = Filled::new().await;
    let _up = filled.up();
    let id = filled.backfill(&["days", "--concurrency", "100"]);
    filled.ended().await;
    assert_days_are_done(&filled, &id).await;
    let said = filled.flowstone.run(["backfill", "status"]).expect_status(0).stdout;
    assert!(said.contains("2024-01-13 .. 2024-01-14 (2): no rain on 2024-01-13 (run "), "{said}");
    assert!(said.contains("  90 made\n") && said.contains("   6 failed\n"), "{said}");

    // What is made is not made again; what failed is tried once more, as any run would.
    let again = filled.backfill(&["days", "-p", "2024-01-02..2024-01-15"]);
    filled.ended().await;
    assert_eq!(filled.counts(&again), [0, 12, 0, 2, 0, 0]);
    // Where all is up to date there is no run.
    let idle = filled.backfill(&["days", "-p", "2024-02-02..2024-02-12"]);
    filled.ended().await;
    assert_eq!((filled.counts(&idle), &filled.status(&idle)["state"]), ([0, 11, 0, 0, 0, 0], &json!("succeeded")));
    assert_eq!(filled.count("select count(*) from run").await, 2);
    // Unless it is forced.
    let forced = filled.backfill(&["days", "-p", "2024-02-02..2024-02-12", "--force"]);
    filled.ended().await;
    assert_eq!(filled.counts(&forced), [11, 0, 0, 0, 0, 0]);
    let listed: Value =
        serde_json::from_str(&filled.flowstone.run(["backfill", "list", "filled", "--json"]).expect_status(0).stdout)
            .unwrap();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["backfill"].as_str().unwrap()).collect();
    assert_eq!(listed, [&forced, &idle, &again, &id]);
    filled.assert_sound().await;
}

/// At any moment, so also between any two statements: one of two processes is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_partition_is_released_once_with_two_processes_that_are_killed() {
    let filled = Filled::new().await;
    let id = filled.backfill(&["days", "--concurrency", "4"]);
    let mut processes = [filled.up(), filled.up()];
    for kill in 0..8_u64 {
        wait_until_database_says(
            &filled.pool,
            "select exists (select from backfill_window) or exists (select from backfill where state <> 'running')",
        )
        .await;
        // The sleep waits for nothing: it is the moment of the fault, another one each time.
        tokio::time::sleep(Duration::from_millis(37 * kill % 100)).await;
        processes[kill as usize % 2] = filled.up();
    }
    // What the killed ones had taken comes free with their sessions.
    drop(processes);
    let_sessions_expire(&filled.pool).await;
    let _last = [filled.up(), filled.up()];
    filled.ended().await;
    assert_days_are_done(&filled, &id).await;
}

/// Killed at the statements between which a window could be lost, released twice or counted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_neither_lost_nor_repeated_wherever_its_process_dies() {
    let step = |operation, table, only| Step { operation, table, only };
    let steps = [
        step("update", "backfill", "new.cursor <> old.cursor"),
        step("insert", "run", "true"),
        step("insert", "audit", "new.action = 'run.submitted'"),
        step("insert", "backfill_window", "true"),
        step("delete", "backfill_window", "true"),
        step("update", "backfill", "new.made <> old.made"),
        step("insert", "backfill_failure", "true"),
        step("update", "backfill", "new.state <> old.state"),
    ];
    let filled = Filled::new().await;
    let id = filled.backfill(&["days", "--concurrency", "20"]);
    for step in &steps {
        let gate = Gate::close(&filled.database).await;
        step.inject(&filled.pool, When::After, Fault::Gated).await;
        let killed = filled.up();
        wait_until_database_says(&filled.pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        drop(killed);
        gate.open().await;
        let_sessions_expire(&filled.pool).await;
        fault::remove(&filled.pool).await;
        filled.assert_sound().await;
    }
    let _next = filled.up();
    filled.ended().await;
    assert_days_are_done(&filled, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_in_order_and_no_more_at_a_time_than_asked_for() {
    let filled = Filled::new().await;
    let newest = filled.backfill(&["waits", "--newest-first", "-c", "3"]);
    let up = filled.up();
    wait_until_database_says(&filled.pool, "select count(*) = 3 from job_lease").await;
    // Others go on meanwhile: it has been looked at again and again.
    let months = filled.backfill(&["months", "-c", "1"]);
    wait_until_database_says(&filled.pool, "select count(*) = 1 from backfill where state = 'succeeded'").await;
    assert_eq!(filled.counts(&months), [3, 0, 0, 0, 0, 0]);
    assert_eq!(filled.counts(&newest), [0, 0, 0, 0, 3, 5]);
    let in_flight = "select string_agg(right(j.partition_key, 1), '' order by j.job_id) from job j join job_lease using (tenant_id, job_id)";
    let in_flight: String = sqlx::query_scalar(in_flight).fetch_one(&filled.pool).await.unwrap();
    assert_eq!(in_flight, "hgf", "the last first, within a window too");

    fs::write(filled.folder().join("counter/go"), "go").unwrap();
    filled.ended().await;
    assert_eq!(filled.counts(&newest), [8, 0, 0, 0, 0, 0]);
    let order = |asset: &'static str| {
        let pool = filled.pool.clone();
        async move {
            let sql = "select string_agg(keys, '' order by run_id) from (
                 select j.run_id, string_agg(right(j.partition_key, 1), '' order by j.job_id) as keys from job j
                 join asset_version v using (tenant_id, asset_version_id) join asset a using (tenant_id, asset_id)
                 where a.name = $1 group by j.run_id) as runs";
            sqlx::query_scalar::<_, String>(sql).bind(asset).fetch_one(&pool).await.unwrap()
        }
    };
    assert_eq!(order("months").await, "123");
    assert_eq!(order("waits").await, "hgfedcba");
    drop(up);
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_halts_after_the_failures_that_it_allows() {
    let filled = Filled::new().await;
    let _up = filled.up();
    let id = filled.backfill(&["days", "--concurrency", "2", "--halt-after", "2"]);
    filled.ended().await;
    let status = filled.status(&id);
    assert_eq!((&status["state"], &status["cause"]), (&json!("halted"), &json!("2 partitions failed")));
    let [made, _, skipped, failed, in_flight, waiting] = filled.counts(&id);
    assert_eq!((skipped, failed, in_flight), (1, 2, 0));
    // The 13th and the 14th were released with at most one other at a time.
    assert!((11..30).contains(&made) && made + waiting == 97, "{made} {waiting}");
    let said = filled.flowstone.run(["backfill", "status", &id]).expect_status(0).stdout;
    assert!(said.contains("is halted: 2 partitions failed"), "{said}");
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_partition_needs_is_made_with_it_and_fails_it() {
    let filled = Filled::new().await;
    let _up = filled.up();
    let id = filled.backfill(&["after_days", "-p", "2024-01-01..2024-01-14", "-c", "5"]);
    filled.ended().await;
    // The first is skipped with its input, the last two fail with theirs.
    assert_eq!(filled.counts(&id), [11, 0, 1, 2, 0, 0]);
    let failures = filled.status(&id)["failures"].clone();
    assert!(failures[0]["cause"].as_str().unwrap().contains("2024-01-13] was not made: it failed"), "{failures}");

    // Without inputs, what is not there cannot be had.
    let without = filled.backfill(&["after_days", "-p", "2024-02-02..2024-02-04", "--no-inputs"]);
    wait_until_database_says(&filled.pool, "select count(*) = 1 from backfill where state = 'halted'").await;
    let cause = filled.status(&without)["cause"].clone();
    assert!(cause.as_str().unwrap().contains("needs `days` 2024-02-02, which has not been materialized"), "{cause}");

    // Two assets with the same partitions are one backfill: a partition counts once.
    let both = filled.backfill(&["days", "after_days", "-p", "2024-03-12..2024-03-15"]);
    wait_until_database_says(&filled.pool, "select count(*) = 2 from backfill where state = 'failed'").await;
    assert_eq!(filled.counts(&both), [2, 0, 0, 2, 0, 0]);
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_backfill_ends_what_it_has_in_flight() {
    let filled = Filled::new().await;
    let up = filled.up();
    let id = filled.backfill(&["waits", "-c", "4"]);
    wait_until_database_says(&filled.pool, "select count(*) = 4 from job_lease").await;
    let said = filled.flowstone.run(["backfill", "cancel", "latest"]).expect_status(0).stderr;
    assert!(said.contains("1 run of it is cancelled"), "{said}");
    filled.ended().await;
    assert_eq!(filled.counts(&id), [0, 0, 0, 4, 0, 4]);
    let status = filled.status(&id);
    assert_eq!(
        (&status["state"], &status["failures"][0]["cause"]),
        (&json!("cancelled"), &json!("the run was cancelled"))
    );
    assert_eq!(filled.count("select count(*) from run where state = 'cancelled'").await, 1);
    let again = filled.flowstone.run(["backfill", "cancel", &id]).expect_status(2).stderr;
    assert!(again.contains("is over: it was cancelled"), "{again}");
    drop(up);
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_backfill_releases_nothing_until_it_is_resumed() {
    let filled = Filled::new().await;
    let up = filled.up();
    let id = filled.backfill(&["waits", "-c", "3"]);
    wait_until_database_says(&filled.pool, "select count(*) = 3 from job_lease").await;
    let say = |arguments: &[&str], status| {
        filled.flowstone.run([&["backfill"], arguments].concat()).expect_status(status).stderr
    };
    let said = say(&["pause", &id], 0);
    assert!(said.contains("is paused: nothing more is released, and what is in flight goes on"), "{said}");
    assert!(say(&["pause", &id], 2).contains("does not run: it is paused"));
    assert!(say(&["retry", &id], 2).contains("nothing of it failed"));
    fs::write(filled.folder().join("counter/go"), "go").unwrap();
    let watched = filled.flowstone.run(["backfill", "watch", &id]).expect_status(1);
    assert!(watched.stdout.contains("is paused") && watched.stderr.contains("paused: "), "{watched:?}");
    // Others go on meanwhile: it would have been looked at again and again.
    filled.backfill(&["months"]);
    wait_until_database_says(&filled.pool, "select count(*) = 1 from backfill where state = 'succeeded'").await;
    assert_eq!(filled.counts(&id), [3, 0, 0, 0, 0, 5]);
    say(&["resume", &id], 0);
    let watched = filled.flowstone.run(["backfill", "watch", &id, "--json"]).expect_status(0).stdout;
    let last: Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!((&last["state"], &last["made"]), (&json!("succeeded"), &json!(8)));
    assert!(say(&["resume", &id], 2).contains("is neither paused nor halted: it succeeded"));
    drop(up);
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halted_backfill_goes_on_until_as_many_have_failed_again() {
    let filled = Filled::new().await;
    let _up = filled.up();
    let id = filled.backfill(&["days", "--concurrency", "2", "--halt-after", "2"]);
    for failed in [2, 4, 6] {
        let halted = format!("select state = 'halted' and failed = {failed} from backfill");
        wait_until_database_says(&filled.pool, Box::leak(halted.into_boxed_str())).await;
        filled.flowstone.run(["backfill", "resume", &id]).expect_status(0);
    }
    filled.ended().await;
    assert_days_are_done(&filled, &id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_tried_again_with_the_newest_version_and_only_that() {
    let filled = Filled::new().await;
    let _up = filled.up();
    let id = filled.backfill(&["days", "--newest-first", "--concurrency", "30"]);
    filled.ended().await;
    filled.deploy("[assets.days]\nconfig = { mended = true }\n");
    let said = filled.flowstone.run(["backfill", "retry", "latest"]).expect_status(0).stderr;
    assert!(said.contains("6 partitions of backfill"), "{said}");
    filled.ended().await;
    let status = filled.status(&id);
    assert_eq!(
        (filled.counts(&id), &status["state"], &status["failures"]),
        ([96, 0, 4, 0, 0, 0], &json!("succeeded"), &json!([]))
    );
    assert_eq!(filled.count("select count(*) from job").await, 106);
    let again = filled.flowstone.run(["backfill", "retry", &id]).expect_status(2).stderr;
    assert!(again.contains("nothing of it failed"), "{again}");
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_backfill_can_be_taken_up_again() {
    let filled = Filled::new().await;
    let up = filled.up();
    let id = filled.backfill(&["waits", "-c", "2"]);
    wait_until_database_says(&filled.pool, "select count(*) = 2 from job_lease").await;
    filled.flowstone.run(["backfill", "cancel", &id]).expect_status(0);
    filled.ended().await;
    assert_eq!(filled.counts(&id), [0, 0, 0, 2, 0, 6]);
    fs::write(filled.folder().join("counter/go"), "go").unwrap();
    filled.flowstone.run(["backfill", "retry", &id]).expect_status(0);
    filled.ended().await;
    assert_eq!(filled.counts(&id), [8, 0, 0, 0, 0, 0]);
    drop(up);
    filled.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_counts_by_reason_and_starts_nothing() {
    let filled = Filled::new().await;
    let up = filled.up();
    filled.backfill(&["days", "-p", "2024-02-02..2024-02-05"]);
    filled.ended().await;
    drop(up);
    let start = ["backfill", "start", "filled", "after_days", "-p", "2024-02-02..2024-02-10", "--dry-run"];
    let said = filled.flowstone.run([&start[..], &["--json"]].concat()).expect_status(0).stdout;
    let preview: Value = serde_json::from_str(&said).unwrap();
    let expected = json!([
        { "asset": "days", "jobs": 5, "reasons": { "never-materialized": 5 }, "up_to_date": 4, "not_yet": 0 },
        { "asset": "after_days", "jobs": 9, "reasons": { "never-materialized": 9 }, "up_to_date": 0, "not_yet": 0 },
    ]);
    assert_eq!(preview["assets"], expected);
    let said = filled.flowstone.run(start).expect_status(0).stdout;
    assert!(said.contains("14 jobs, 4 up to date"), "{said}");
    assert_eq!(filled.count("select count(*) from backfill").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_backfill_is_refused_with_the_fix() {
    let filled = Filled::new().await;
    let refused = |arguments: &[&str], expected: &str| {
        let said = filled.flowstone.run([&["backfill"], arguments].concat()).expect_status(2).stderr;
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    refused(
        &["start", "filled", "days", "months"],
        "assets `days` and `months` have different partitions: name assets",
    );
    refused(&["start", "filled"], "have different partitions");
    refused(&["start", "filled", "whole"], "asset `whole` is not partitioned: leave it out");
    refused(&["start", "filled", "dyas"], "did you mean `days`?");
    refused(&["start", "filled", "days", "-p", "2024-13"], "asset `days` has no partition `2024-13`");
    refused(&["start", "flled", "days"], "did you mean `filled`?");
    refused(&["status"], "there are no backfills yet");
    refused(&["status", "0193b5a0-1c2d-7abc-8def-0123456789ab"], "there is no backfill 0193b5a0-1c2d-");
    refused(&["cancel", "0193b5a0-1c2d-7abc-8def-0123456789ab"], "there is no backfill 0193b5a0-1c2d-");
    assert_eq!(filled.count("select count(*) from backfill").await, 0);
}
