//! At most one live job makes one recipe of one partition: whoever wants the same joins it, and takes what it comes to.

use std::collections::HashMap;

use flowstone::{
    blob::Digest,
    id::{JobId, RunId},
    limit::JOINED_ENDED_MAX,
    pipeline::policy::Route,
    store::{
        Store,
        commit::{Committed, Counts, Ending, FinishedJob},
        live_jobs::{Joined, LiveKey},
        queue::Claim,
        submissions::{NewJob, NewRun},
    },
};
use flowstone_tests::{
    Flowstone, Running,
    deadline::{wait_until, wait_until_database_says},
    fault::let_sessions_expire,
    pipeline::{Scenario, guest},
};
use serde_json::{Value, json};

use crate::{
    checker::{assert_sound, violations},
    store::{Bench, TENANT, version},
};

/// A bench with jobs of `a` in runs of their own, each claimed and each wanting the recipe of the same name.
struct Wanted {
    bench: Bench,
    jobs: Vec<(RunId, LiveKey)>,
}

impl Wanted {
    /// `forced` tells for each run whether it is.
    async fn by(forced: &[bool]) -> Self {
        let bench = Bench::new().await;
        let mut jobs = Vec::new();
        for forced in forced {
            let run = submit(&bench, *forced).await;
            jobs.push((run, key(&bench, bench.claim_one().await)));
        }
        Self { bench, jobs }
    }

    fn store(&self) -> &Store {
        &self.bench.store
    }

    /// As a worker does: a key, or the job that has it.
    async fn take_or_join(&self, at: usize) -> Option<Joined> {
        let key = [self.jobs[at].1.clone()];
        if !self.store().take_live_keys(&key).await.unwrap().is_empty() {
            return None;
        }
        self.store().join_live_jobs(&key).await.unwrap().remove(&key[0].claim.job)
    }

    /// The first has the key, and all others have joined it.
    async fn joined(forced: &[bool]) -> Self {
        let wanted = Self::by(forced).await;
        assert_eq!(wanted.take_or_join(0).await, None);
        for at in 1..forced.len() {
            assert_eq!(wanted.take_or_join(at).await, Some(Joined::Run(wanted.jobs[0].0)));
        }
        wanted
    }

    async fn end_first(&self, ending: Ending) -> Committed {
        let (run, key) = &self.jobs[0];
        let finished = self.bench.finished(key.claim.clone(), *run, ending);
        self.store().commit_finished_jobs(&[finished]).await.unwrap()
    }

    fn made(&self) -> Ending {
        self.bench.made("a", "none", b"out", vec![])
    }

    async fn state(&self, at: usize) -> String {
        self.bench.states(self.jobs[at].0).await.remove(0)
    }

    async fn cause(&self, at: usize) -> String {
        let jobs = self.store().list_jobs(TENANT, self.jobs[at].0, None, 1).await.unwrap();
        jobs[0].cause.clone().expect("it says why")
    }

    async fn assert_nothing_is_held(&self) {
        assert_eq!((self.bench.count("live_job").await, self.bench.count("job_joined").await), (0, 0));
    }

    async fn sweep(&self) -> usize {
        self.store().sweep_joined_jobs(None).await.unwrap().jobs
    }
}

async fn submit(bench: &Bench, forced: bool) -> RunId {
    let run = NewRun {
        id: RunId::new(),
        tenant: TENANT.to_owned(),
        pipeline: bench.pipeline.pipeline,
        pipeline_version: bench.pipeline.id,
        owner: None,
        backfill: None,
        request: json!({}),
        reaches_out: false,
        jobs: vec![NewJob {
            id: JobId::new(),
            asset_version: bench.asset("a").id,
            route: Route::default(),
            partition_key: "none".to_owned(),
            reason: "never materialized".to_owned(),
            forced,
            inputs: vec![],
        }],
    };
    bench.store.submit_run(&run).await.unwrap();
    run.id
}

fn key(bench: &Bench, claim: Claim) -> LiveKey {
    // The recipe of what the bench makes.
    let recipe = Digest::of(b"none");
    LiveKey { claim, asset: bench.asset("a").asset, partition_key: "none".to_owned(), recipe }
}

#[tokio::test]
async fn whoever_wants_the_same_joins_the_live_job_and_ends_in_its_transaction() {
    let wanted = Wanted::joined(&[false, false, false]).await;
    assert_eq!(wanted.bench.count("job_lease").await, 1, "who has joined holds no lease");
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["running", "joined"]);
    let shown = wanted.store().list_jobs(TENANT, wanted.jobs[1].0, None, 1).await.unwrap();
    assert_eq!(shown[0].joined_run, Some(wanted.jobs[0].0));

    let committed = wanted.end_first(wanted.made()).await;
    assert_eq!(committed.ended.len(), 3);
    assert_eq!(committed.finished_runs.len(), 3, "every run is over with the first job's commit");
    assert_eq!(committed.ended.iter().map(|end| end.reused).collect::<Vec<_>>(), [false, true, true]);
    let made = committed.ended[0].materialization;
    assert!(made.is_some() && committed.ended.iter().all(|end| end.materialization == made));
    assert_eq!(wanted.bench.count("attempt").await, 1);
    wanted.assert_nothing_is_held().await;
    let run = wanted.store().find_run(TENANT, wanted.jobs[1].0).await.unwrap().unwrap();
    assert_eq!((&*run.state, run.succeeded, run.reused), ("succeeded", 1, 1));
}

#[tokio::test]
async fn what_needs_a_joined_job_is_released_by_the_live_jobs_commit() {
    let bench = Bench::new().await;
    let (first, _) = bench.submit(&[("a", "none", &[])]).await;
    let live = key(&bench, bench.claim_one().await);
    let (second, _) = bench.submit(&[("a", "none", &[]), ("b", "none", &[(0, false)])]).await;
    let joining = key(&bench, bench.claim_one().await);
    bench.store.take_live_keys(std::slice::from_ref(&live)).await.unwrap();
    assert_eq!(bench.store.join_live_jobs(&[joining]).await.unwrap().len(), 1);
    assert_eq!(bench.states(second).await, ["joined", "blocked"]);
    let made = bench.made("a", "none", b"out", vec![]);
    let committed = bench.store.commit_finished_jobs(&[bench.finished(live.claim, first, made)]).await.unwrap();
    assert_eq!(committed.released, 1);
    assert_eq!(bench.states(second).await, ["succeeded", "ready"]);
}

/// A server that crashes may forget a key and keep the lease, because nobody waited until the key was on disk.
#[tokio::test]
async fn a_job_whose_key_was_forgotten_makes_nothing_and_runs_again() {
    let wanted = Wanted::by(&[false, false]).await;
    assert_eq!(wanted.take_or_join(0).await, None);
    let pool = wanted.bench.database.pool().await;
    sqlx::query("delete from live_job").execute(&pool).await.unwrap();
    assert_eq!(wanted.take_or_join(1).await, None, "it makes the same meanwhile");
    let keyed = |at: usize| {
        let (run, LiveKey { claim, .. }) = wanted.jobs[at].clone();
        FinishedJob { is_keyed: true, ..wanted.bench.finished(claim, run, wanted.made()) }
    };
    let first = keyed(0);
    let committed = wanted.store().commit_finished_jobs(&[first.clone(), keyed(1)]).await.unwrap();
    assert_eq!(committed.ended.iter().map(|end| end.job).collect::<Vec<_>>(), [wanted.jobs[1].1.claim.job]);
    assert_eq!(committed.deferred.iter().map(|job| job.job).collect::<Vec<_>>(), [wanted.jobs[0].1.claim.job]);
    assert_eq!((wanted.bench.count("materialization").await, wanted.bench.count("job_deferred").await), (1, 1));
    let attempts: Vec<(String, bool)> =
        sqlx::query_as("select verdict, charged from attempt order by verdict").fetch_all(&pool).await.unwrap();
    assert_eq!(attempts, [("lost".to_owned(), false), ("succeeded".to_owned(), true)]);
    sqlx::query("update job_deferred set due_at = now()").execute(&pool).await.unwrap();
    assert_eq!(wanted.store().promote_due_jobs(10).await.unwrap(), 1);
    let again = wanted.bench.claim_one().await;
    assert_eq!((again.job, again.charged, again.released), (wanted.jobs[0].1.claim.job, 0, 1));
    // Had it been applied to a database meanwhile, it would be recorded as the attempt that it was.
    let settled = FinishedJob { claim: again, is_keyed: false, ..first };
    assert_eq!(wanted.store().commit_finished_jobs(&[settled]).await.unwrap().ended.len(), 1);
}

#[tokio::test]
async fn a_key_outlives_the_lease_until_the_job_has_ended() {
    let wanted = Wanted::by(&[false, false]).await;
    assert_eq!(wanted.take_or_join(0).await, None);
    // Its attempt failed, and the next one is due at once.
    wanted.end_first(Ending::Deferred { wait_ms: 0, cause: "busy".to_owned(), counts: Counts::Charged }).await;
    assert_eq!(wanted.state(0).await, "deferred");
    assert_eq!(wanted.take_or_join(1).await, Some(Joined::Run(wanted.jobs[0].0)), "it is live all the same");
    assert_eq!(wanted.store().promote_due_jobs(10).await.unwrap(), 1);
    let again = key(&wanted.bench, wanted.bench.claim_one().await);
    assert!(wanted.store().take_live_keys(std::slice::from_ref(&again)).await.unwrap().is_empty());
    let joined = wanted.store().join_live_jobs(std::slice::from_ref(&again)).await.unwrap();
    assert_eq!(joined, HashMap::from([(again.claim.job, Joined::Itself)]));
    // Its worker dies, and the next one has the same key.
    wanted.store().expire_all_sessions().await.unwrap();
    assert_eq!(wanted.store().rescue_lost_jobs().await.unwrap().jobs, 1);
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["ready", "joined"]);
    assert_eq!(wanted.sweep().await, 0, "it waits for a live job");
}

#[tokio::test]
async fn the_end_of_a_live_job_is_that_of_whoever_joined_it_unless_it_does_not_answer_for_them() {
    let wanted = Wanted::joined(&[false, false]).await;
    let committed = wanted.end_first(Ending::Cancelled("cancelled by hand".to_owned())).await;
    assert_eq!((committed.ended.len(), committed.released), (1, 1));
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["cancelled", "ready"]);
    wanted.assert_nothing_is_held().await;

    let wanted = Wanted::joined(&[false, false]).await;
    wanted.end_first(Ending::Failed("out of fuel".to_owned())).await;
    assert_eq!(wanted.state(1).await, "failed");
    let told = format!("it had joined the job of run {}, which failed: out of fuel", wanted.jobs[0].0);
    assert_eq!(wanted.cause(1).await, told);

    let wanted = Wanted::joined(&[true, true]).await;
    wanted.end_first(Ending::Skipped("nothing today".to_owned())).await;
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["skipped", "skipped"]);

    // The directory that it reads had changed by its last attempt.
    let wanted = Wanted::joined(&[false, false]).await;
    let Ending::Materialized(mut made) = wanted.made() else { unreachable!("the bench makes something") };
    made.recipe = Digest::of(b"another");
    wanted.end_first(Ending::Materialized(made)).await;
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["succeeded", "ready"]);
}

#[tokio::test]
async fn a_forced_job_takes_only_what_ran() {
    let wanted = Wanted::joined(&[false, true]).await;
    wanted.end_first(wanted.made()).await;
    assert_eq!(wanted.state(1).await, "succeeded");

    let bench = wanted.bench;
    let jobs = [submit(&bench, false).await, submit(&bench, true).await];
    let earlier = bench.store.list_latest(TENANT, &[bench.asset("a").asset]).await.unwrap()[0].id;
    let mut wanted = Wanted { bench, jobs: vec![] };
    for run in jobs {
        let key = key(&wanted.bench, wanted.bench.claim_one().await);
        wanted.jobs.push((run, key));
    }
    assert_eq!(wanted.take_or_join(0).await, None);
    assert_eq!(wanted.take_or_join(1).await, Some(Joined::Run(wanted.jobs[0].0)));
    wanted.end_first(Ending::UpToDate(earlier)).await;
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["succeeded", "ready"], "nothing ran for it");
}

#[tokio::test]
async fn the_failure_of_another_version_is_nobodys_who_joined_it() {
    let wanted = Wanted::by(&[false]).await;
    assert_eq!(wanted.take_or_join(0).await, None);
    let mut bench = wanted.bench;
    bench.store.deploy(&version("p", 2)).await.unwrap();
    bench.pipeline = bench.store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
    let run = submit(&bench, false).await;
    let key = key(&bench, bench.claim_one().await);
    let wanted = Wanted { jobs: vec![wanted.jobs[0].clone(), (run, key)], bench };
    assert!(wanted.take_or_join(1).await.is_some(), "the recipe is the same");
    wanted.end_first(Ending::Failed("out of fuel".to_owned())).await;
    assert_eq!(wanted.state(1).await, "ready", "its own limits may be others");
}

#[tokio::test]
async fn cancelling_the_run_of_a_joined_job_leaves_the_live_one_alone() {
    let wanted = Wanted::joined(&[false, false, false]).await;
    assert!(wanted.store().cancel_run(TENANT, wanted.jobs[1].0, "cancelled by hand").await.unwrap());
    assert_eq!([wanted.state(0).await, wanted.state(1).await], ["running", "cancelled"]);
    let committed = wanted.end_first(wanted.made()).await;
    assert_eq!(committed.ended.len(), 2);
    assert_eq!(wanted.state(2).await, "succeeded");
}

#[tokio::test]
async fn of_a_job_that_joins_and_the_live_jobs_end_neither_misses_the_other() {
    // The end comes first: whoever joins does not wait for it, and finds the key free afterwards.
    let wanted = Wanted::by(&[false, false]).await;
    assert_eq!(wanted.take_or_join(0).await, None);
    let pool = wanted.bench.database.pool().await;
    let mut ending = pool.begin().await.unwrap();
    sqlx::query("delete from live_job").execute(&mut *ending).await.unwrap();
    let joining = [wanted.jobs[1].1.clone()];
    assert_eq!(wanted.store().join_live_jobs(&joining).await.unwrap(), HashMap::new());
    assert_eq!(wanted.state(1).await, "running", "it keeps its lease");
    ending.rollback().await.unwrap();

    // Whoever joins comes first: the end waits for him, and takes him along.
    let mut joiner = pool.begin().await.unwrap();
    sqlx::query("select from live_job for key share").execute(&mut *joiner).await.unwrap();
    let ending = wanted.end_first(wanted.made());
    let joined = async {
        wait_until_database_says(&pool, "select exists (select from pg_locks where not granted)").await;
        sqlx::query(
            "with gone as (delete from job_lease where job_id = $1 returning *)
             insert into job_joined select g.tenant_id, g.job_id, k.job_id, k.recipe, g.charged, g.released, g.lane_id
             from gone g, live_job k",
        )
        .bind(wanted.jobs[1].1.claim.job.0)
        .execute(&mut *joiner)
        .await
        .unwrap();
        joiner.commit().await.unwrap();
    };
    let (committed, ()) = tokio::join!(ending, joined);
    assert_eq!(committed.ended.len(), 2);
    assert_eq!(wanted.state(1).await, "succeeded");
}

#[tokio::test]
async fn what_an_end_passed_over_is_found_by_the_sweep() {
    let wanted = Wanted::joined(&[false, false]).await;
    let pool = wanted.bench.database.pool().await;
    let mut busy = pool.begin().await.unwrap();
    sqlx::query("select from job_joined for update").execute(&mut *busy).await.unwrap();
    assert_eq!(wanted.end_first(wanted.made()).await.ended.len(), 1);
    assert_eq!(wanted.sweep().await, 0, "somebody has it");
    busy.rollback().await.unwrap();
    assert_eq!(wanted.state(1).await, "joined");
    assert_eq!(wanted.sweep().await, 1);
    assert_eq!(wanted.state(1).await, "succeeded");
    let run = wanted.store().find_run(TENANT, wanted.jobs[1].0).await.unwrap().unwrap();
    assert_eq!((&*run.state, run.reused), ("succeeded", 1));
    wanted.assert_nothing_is_held().await;
}

#[tokio::test]
async fn the_key_of_a_job_that_ended_without_giving_it_up_keeps_nobody() {
    let wanted = Wanted::by(&[false, false]).await;
    assert_eq!(wanted.take_or_join(0).await, None);
    // A worker of an earlier version ends it, which knows nothing of such keys.
    let pool = wanted.bench.database.pool().await;
    sqlx::raw_sql(
        "create table kept as select * from live_job;
         create function keep() returns trigger language plpgsql as 'begin return null; end';
         create trigger keep before delete on live_job for each row execute function keep()",
    )
    .execute(&pool)
    .await
    .unwrap();
    wanted.end_first(wanted.made()).await;
    sqlx::raw_sql("drop trigger keep on live_job").execute(&pool).await.unwrap();
    assert_eq!(wanted.bench.count("live_job").await, 1);
    assert_eq!(wanted.take_or_join(1).await, None, "it is not joined");
    assert_eq!(wanted.take_or_join(1).await, None, "the key is its own now");
    assert_eq!(wanted.bench.count("live_job").await, 1);
    assert_eq!(wanted.state(1).await, "running");
}

#[tokio::test]
async fn a_job_whose_recipe_has_changed_gives_the_old_key_up_and_lets_those_go_that_joined_it_for_that() {
    let wanted = Wanted::joined(&[false, false]).await;
    wanted.end_first(Ending::Deferred { wait_ms: 0, cause: "busy".to_owned(), counts: Counts::Charged }).await;
    wanted.store().promote_due_jobs(10).await.unwrap();
    let mut again = key(&wanted.bench, wanted.bench.claim_one().await);
    again.recipe = Digest::of(b"another");
    assert_eq!(wanted.store().take_live_keys(std::slice::from_ref(&again)).await.unwrap(), [again.claim.job]);
    assert_eq!(wanted.store().give_up_old_keys(&[again]).await.unwrap(), 1);
    assert_eq!(wanted.bench.count("live_job").await, 1);
    assert_eq!(wanted.state(1).await, "ready");
}

#[tokio::test]
async fn more_than_one_commit_ends_are_left_to_the_sweep() {
    let bench = Bench::new().await;
    submit(&bench, false).await;
    let live = key(&bench, bench.claim_one().await);
    bench.store.take_live_keys(std::slice::from_ref(&live)).await.unwrap();
    let many = JOINED_ENDED_MAX as usize + 10;
    let jobs: Vec<_> = (0..many).map(|_| ("a", "none", &[][..])).collect();
    let (run, _) = bench.submit(&jobs).await;
    let joining: Vec<LiveKey> = bench.claim(many as i64).await.into_iter().map(|claim| key(&bench, claim)).collect();
    assert_eq!(bench.store.join_live_jobs(&joining).await.unwrap().len(), many);
    let made = bench.made("a", "none", b"out", vec![]);
    let first = bench.known(&live.claim).run;
    let committed = bench.store.commit_finished_jobs(&[bench.finished(live.claim, first, made)]).await.unwrap();
    assert_eq!((committed.ended.len(), committed.put_off), (many - 10 + 1, 1));
    assert_eq!(bench.store.sweep_joined_jobs(None).await.unwrap().jobs, 10);
    let run = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((&*run.state, run.reused), ("succeeded", many as i32));
}

#[track_caller]
fn detach(scenario: &Scenario, arguments: &[&str]) -> String {
    let output = scenario.command("run", &[arguments, &["--detach"]].concat()).expect_status(0);
    output.stdout.trim_end().to_owned()
}

fn work(flowstone: &Flowstone) -> Running {
    let mut worker = flowstone.start(["work"]);
    worker.said("takes jobs");
    worker
}

fn state(flowstone: &Flowstone, run: &str) -> Value {
    serde_json::from_str(&flowstone.run(["status", run, "--json"]).expect_status(0).stdout).unwrap()
}

/// Waits until the job of `waits` is in a state.
fn wait_until_it_is(flowstone: &Flowstone, run: &str, wanted: &str) {
    wait_until(wanted, || {
        let jobs = state(flowstone, run)["job_list"].as_array().unwrap().clone();
        jobs.iter().any(|job| job["asset"] == "waits" && job["state"] == wanted)
    });
}

fn attempts(flowstone: &Flowstone) -> Vec<String> {
    flowstone.database().ask("select verdict from attempt order by started_at, attempt_id")
}

async fn assert_all_sound(flowstone: &Flowstone) {
    let pool = flowstone.database().pool().await;
    assert_sound(&violations(&pool, &flowstone.state_dir().join("blobs")).await);
}

#[tokio::test]
async fn two_processes_that_ask_for_the_same_run_the_guest_once() {
    for force in [&[][..], &["--force"]] {
        let scenario = Scenario::new("");
        let flowstone = &scenario.flowstone;
        let mut first = flowstone.start([&["run", scenario.manifest(), "waits", "--json"], force].concat());
        first.event("job.started");
        let mut second =
            flowstone.start([&["run", scenario.manifest(), "after_waits", "waits", "--json"], force].concat());
        let run = second.event("run.started")["run"].as_str().unwrap().to_owned();
        wait_until_it_is(flowstone, &run, "joined");
        let shown = flowstone.run(["status", &run]).expect_status(0).stdout;
        let live = flowstone.database().ask("select min(run_id::text) from run");
        assert!(shown.contains(&format!("joined:\n  waits: run {}", live[0])), "{shown}");
        scenario.go("on");
        first.wait().expect_status(0);
        second.wait().expect_status(0);
        assert_eq!(attempts(flowstone), ["succeeded", "succeeded"], "of waits, and of after_waits");
        assert_eq!(scenario.show("after_waits", None), "after on");
        assert_all_sound(flowstone).await;
    }
}

#[tokio::test]
async fn a_joined_job_goes_on_when_the_first_run_is_cancelled() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let worker = work(flowstone);
    let first = detach(&scenario, &["waits"]);
    wait_until_it_is(flowstone, &first, "running");
    let second = detach(&scenario, &["waits"]);
    wait_until_it_is(flowstone, &second, "joined");
    flowstone.run(["cancel", &first]).expect_status(0);
    wait_until_it_is(flowstone, &second, "running");
    assert_eq!(state(flowstone, &first)["state"], "cancelled");
    scenario.go("on");
    flowstone.run(["watch", &second]).expect_status(0);
    assert_eq!(attempts(flowstone), ["cancelled", "succeeded"]);
    worker.interrupt();
    worker.wait().expect_status(0);
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_worker_of_the_live_job_is_killed() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let worker = work(flowstone);
    let runs = [detach(&scenario, &["waits"]), detach(&scenario, &["waits"])];
    let has = |wanted: &str| runs.iter().any(|run| state(flowstone, run)["job_list"][0]["state"] == wanted);
    wait_until("one runs and one has joined it", || has("running") && has("joined"));
    worker.kill();
    let pool = flowstone.database().pool().await;
    let_sessions_expire(&pool).await;
    let worker = work(flowstone);
    wait_until("it is taken over", || has("running"));
    assert!(has("joined"), "the key was the job's, not the lease's");
    scenario.go("on");
    for run in &runs {
        flowstone.run(["watch", run]).expect_status(0);
    }
    assert_eq!(attempts(flowstone), ["lost", "succeeded"]);
    worker.interrupt();
    worker.wait().expect_status(0);
    assert_all_sound(flowstone).await;
}

#[tokio::test]
async fn a_thousand_jobs_that_are_submitted_twice_run_once() {
    let flowstone = Flowstone::new();
    let manifest = flowstone.folder().join("flowstone.toml");
    let text = format!(
        r#"[pipeline]
name = "twice"
[[components]]
path = "{}"
[resources.wall]
kind = "clock"
[resources.seen]
kind = "key-value"
[assets.bucket_gets]
grants = {{ seen = {{ access = "read", keys = ["**"] }} }}
[assets.clock_calls]
grants = {{ wall = {{}} }}
[assets.clock_partitioned]
grants = {{ wall = {{}} }}
"#,
        guest("bench").display()
    );
    std::fs::write(&manifest, text).unwrap();
    let manifest = manifest.to_str().unwrap();
    let submit = || {
        let asked = ["run", manifest, "noop_partitioned", "--partition", "2020-01-01T00..2020-02-11T15", "--detach"];
        flowstone.run(asked).expect_status(0).stdout.trim_end().to_owned()
    };
    let runs = [submit(), submit()];
    assert_eq!(state(&flowstone, &runs[1])["jobs"], 1_000);
    let workers = [work(&flowstone), work(&flowstone)];
    for run in &runs {
        flowstone.run(["watch", run]).expect_status(0);
    }
    assert_eq!(flowstone.database().ask("select count(*)::text from attempt"), ["1000"]);
    for worker in workers {
        worker.interrupt();
        worker.wait().expect_status(0);
    }
    assert_all_sound(&flowstone).await;
}

const KEYED: &[&str] = &["waits", "--idempotency-key", "order 7"];

#[test]
fn a_submission_that_is_repeated_under_its_key_is_the_run_that_it_made() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let submit = |assets: &[&str]| detach(&scenario, &[assets, &["--idempotency-key", "order 7"]].concat());
    let run = submit(&["numbers", "sum"]);
    assert_eq!(submit(&["sum", "numbers"]), run, "the order is no difference");
    assert_ne!(detach(&scenario, &["numbers", "sum", "--idempotency-key", "order 8"]), run);
    assert_ne!(detach(&scenario, &["numbers", "sum"]), run, "without a key every submission is its own");
    for other in [&["numbers"][..], &["numbers", "sum", "--force"]] {
        let refused = scenario.command("run", &[other, &["--detach", "--idempotency-key", "order 7"]].concat());
        let refused = refused.expect_status(2);
        assert!(refused.stderr.contains("`order 7` is the key of another request"), "{}", refused.stderr);
        assert!(refused.stderr.contains(&run), "it names the run: {}", refused.stderr);
    }
    let refused = scenario.command("run", &["numbers", "--idempotency-key", ""]).expect_status(2);
    assert!(refused.stderr.contains("1 to 255 bytes"), "{}", refused.stderr);
    // A deploy in between makes it no other submission, and whoever does not detach follows it.
    scenario.bind("[assets.doubled]\nconfig = { factor = 4 }\n");
    let events = scenario.run(&["numbers", "sum", "--idempotency-key", "order 7"], 0);
    assert_eq!((&events[0]["run"], &events[0]["version"]), (&run.as_str().into(), &1.into()));
    let again = scenario.run(&["numbers", "sum", "--idempotency-key", "order 7"], 0);
    assert_eq!(again.last().unwrap()["run"], run.as_str());
    assert_eq!(flowstone.database().ask("select count(*)::text from run"), ["3"]);
}

#[test]
fn of_many_submissions_under_one_key_at_the_same_time_one_makes_the_run() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.command("deploy", &[]).expect_status(0);
    let submitting: Vec<Running> =
        (0..6).map(|_| flowstone.start([&["run", scenario.manifest(), "--detach"], KEYED].concat())).collect();
    let runs: Vec<String> = submitting.into_iter().map(|run| run.wait().expect_status(0).stdout).collect();
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:?}");
    assert_eq!(flowstone.database().ask("select run_id::text from run"), [runs[0].trim_end()]);
    assert_eq!(flowstone.database().ask("select count(*)::text from job"), ["1"]);
}

#[tokio::test]
async fn a_client_that_is_killed_before_it_knows_its_run_finds_it_again_by_its_key() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let command = [&["run", scenario.manifest(), "--json"], KEYED].concat();
    let client = flowstone.start(&command);
    let submitted = || flowstone.database().ask("select run_id::text from run");
    wait_until("it is submitted", || !submitted().is_empty());
    client.kill();
    let pool = flowstone.database().pool().await;
    let_sessions_expire(&pool).await;
    // The worker of another command ends what is abandoned, and this is not: its client will come back.
    scenario.run(&["numbers"], 0);
    let mut again = flowstone.start(&command);
    assert_eq!(again.event("run.started")["run"], *submitted()[0]);
    again.event("job.started");
    scenario.go("on");
    again.wait().expect_status(0);
    assert_eq!(flowstone.database().ask("select count(*)::text from materialization m join asset a using (tenant_id, asset_id) where a.name = 'waits'"), ["1"]);
    assert_all_sound(flowstone).await;
}

#[test]
fn a_run_with_a_key_goes_on_when_its_client_is_interrupted() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    let mut client = flowstone.start([&["run", scenario.manifest(), "--grace", "0s"], KEYED].concat());
    client.said(": 1 job");
    client.interrupt();
    let left = client.wait().expect_status(1);
    assert!(left.stdout.contains("goes on with 1 job left"), "{}", left.stdout);
    let run = &flowstone.database().ask("select run_id::text from run")[0];
    let _worker = work(flowstone);
    scenario.go("on");
    flowstone.run(["watch", run]).expect_status(0);
}

#[test]
fn a_key_goes_with_its_run() {
    let scenario = Scenario::new("");
    let flowstone = &scenario.flowstone;
    scenario.run(&["numbers"], 0);
    let key = ["numbers", "--idempotency-key", "k"];
    // It is up to date: a run without jobs.
    let run = detach(&scenario, &key);
    assert_eq!(detach(&scenario, &key), run);
    // As retention does.
    flowstone.database().ask("delete from run where jobs = 0 returning run_id::text");
    assert_ne!(detach(&scenario, &key), run);
}
