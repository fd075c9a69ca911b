//! The store on a real Postgres: every transition, and the race that is lost.

use std::{collections::HashMap, sync::Mutex};

use flowstone::{
    blob::{Digest, Stored},
    id::{AttemptId, ClaimToken, JobId, MaterializationId, PipelineVersionId, RunId, WorkerId},
    pipeline::policy::Route,
    store::{
        SESSION_SETTINGS, Store,
        commit::{AttemptRecord, Counts, Ending, FinishedJob, NewEdge, NewMaterialization},
        lanes::LaneId,
        lineage::Direction,
        pipelines::{NewAssetVersion, NewPipelineVersion, PipelineVersionRecord, ResourceRecord},
        queue::{Claim, ClaimPosition, ClaimedInputs, ClaimedJob, LaneSearch, LaneShare, Served},
        running_logs::NewLines,
        submissions::{InputOrigin, NewJob, NewJobInput, NewRun},
    },
};
use flowstone_tests::{
    Database,
    deadline::wait_until_database_says,
    fault::{Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When},
};
use serde_json::json;

pub const TENANT: &str = "default";

/// An asset, its partition, and the places of the jobs that it reads, each with whether it is optional.
pub type PlannedJob<'a> = (&'a str, &'a str, &'a [(usize, bool)]);

/// A store with a worker and a deployed pipeline of three assets, `a`, `b` and `c`.
pub struct Bench {
    pub database: Database,
    pub store: Store,
    pub worker: WorkerId,
    pub pipeline: PipelineVersionRecord,
    /// What it has claimed.
    claimed: Mutex<HashMap<JobId, ClaimedJob>>,
}

impl Bench {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let store = Store::connect(database.options()).await.unwrap();
        Self::of(database, store).await
    }

    /// Of a store that may be another database's.
    pub async fn of(database: Database, store: Store) -> Self {
        let worker = WorkerId::new();
        store.register_worker(worker, "here", &Served::default()).await.unwrap();
        store.deploy(&version("p", 1)).await.unwrap();
        let pipeline = store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
        Self { database, store, worker, pipeline, claimed: Mutex::default() }
    }

    /// A chain of jobs, each reading the one before it, in one run.
    pub async fn submit(&self, jobs: &[PlannedJob<'_>]) -> (RunId, Vec<JobId>) {
        self.submit_to(&Route::default(), jobs).await
    }

    pub async fn submit_to(&self, route: &Route, jobs: &[PlannedJob<'_>]) -> (RunId, Vec<JobId>) {
        let run = self.new_run(route, jobs);
        self.store.submit_run(&run).await.unwrap();
        (run.id, run.jobs.into_iter().map(|job| job.id).collect())
    }

    /// What is submitted.
    pub fn new_run(&self, route: &Route, jobs: &[PlannedJob<'_>]) -> NewRun {
        let ids: Vec<JobId> = jobs.iter().map(|_| JobId::new()).collect();
        let new_jobs = jobs.iter().zip(&ids).map(|((asset, partition, inputs), id)| NewJob {
            id: *id,
            asset_version: self.asset(asset).id,
            partition_key: (*partition).to_owned(),
            reason: "never materialized".to_owned(),
            route: route.clone(),
            forced: false,
            inputs: inputs
                .iter()
                .enumerate()
                .map(|(position, (upstream, optional))| NewJobInput {
                    input: "in".to_owned(),
                    position: position as i32,
                    optional: *optional,
                    origin: InputOrigin::Job(ids[*upstream]),
                })
                .collect(),
        });
        NewRun {
            id: RunId::new(),
            tenant: TENANT.to_owned(),
            pipeline: self.pipeline.pipeline,
            pipeline_version: self.pipeline.id,
            owner: Some(self.worker),
            backfill: None,
            request: json!({}),
            reaches_out: false,
            jobs: new_jobs.collect(),
        }
    }

    pub fn asset(&self, name: &str) -> &flowstone::store::pipelines::AssetVersionRecord {
        self.pipeline.assets.iter().find(|asset| asset.name == name).unwrap()
    }

    pub async fn claim(&self, limit: i64) -> Vec<Claim> {
        self.claim_as(ClaimToken::random(), limit).await
    }

    async fn claim_as(&self, token: ClaimToken, limit: i64) -> Vec<Claim> {
        self.claim_jobs_as(token, limit).await.into_iter().map(|job| job.claim).collect()
    }

    /// With what each job is.
    pub async fn claim_jobs(&self, limit: i64) -> Vec<ClaimedJob> {
        self.claim_jobs_as(ClaimToken::random(), limit).await
    }

    /// Of whatever lane is found first.
    async fn claim_jobs_as(&self, token: ClaimToken, limit: i64) -> Vec<ClaimedJob> {
        let search = LaneSearch { gaps: vec![(-1, i32::MAX)], each_found: limit };
        let claimed = self.store.claim_ready_jobs(self.worker, token, &Served::default(), &[], &search).await.unwrap();
        assert!(claimed.unknown.is_empty(), "each job is in the database");
        self.claimed.lock().unwrap().extend(claimed.jobs.iter().map(|job| (job.claim.job, job.clone())));
        claimed.jobs
    }

    /// What its last claim told of a job.
    pub fn known(&self, claim: &Claim) -> ClaimedJob {
        self.claimed.lock().unwrap()[&claim.job].clone()
    }

    pub async fn claim_one(&self) -> Claim {
        self.claim(1).await.pop().expect("a job is ready")
    }

    async fn inputs(&self, claim: &Claim) -> ClaimedInputs {
        self.store.load_inputs(&[claim]).await.unwrap().remove(&claim.job).unwrap_or_default()
    }

    pub fn made(&self, asset: &str, partition: &str, bytes: &[u8], edges: Vec<NewEdge>) -> Ending {
        let asset = self.asset(asset);
        Ending::Materialized(Box::new(NewMaterialization {
            id: MaterializationId::new(),
            asset: asset.asset,
            asset_version: asset.id,
            partition_key: partition.to_owned(),
            attempt: AttemptId::new(),
            digest: Digest::of(bytes),
            size_bytes: bytes.len() as u64,
            inline: Some(bytes.to_vec()),
            media_type: "text/plain".to_owned(),
            metadata: json!([]),
            version_digest: Digest::of(bytes),
            recipe: Digest::of(partition.as_bytes()),
            sources_digest: Digest::of(b""),
            input_digests: vec![Digest::of(b"in")],
            engine_id: "test".to_owned(),
            reused_from: None,
            edges,
            external_reads: vec![],
            staged_files: vec![],
            applied: false,
        }))
    }

    pub fn finished(&self, claim: Claim, run: RunId, ending: Ending) -> FinishedJob {
        let attempt = AttemptRecord {
            id: AttemptId::new(),
            worker: self.worker,
            verdict: "succeeded",
            message: None,
            charged: true,
            engine_id: "test".to_owned(),
            fuel_used: 1,
            memory_bytes_peak: 2,
            output_bytes: 3,
            duration_us: 4,
            log: None,
            log_bytes: 0,
            log_dropped: 0,
            denials: None,
            uses: None,
        };
        // Where nobody waits for it, nobody is found; where very many do, `FinishedJob` has to say so.
        let dependents = 1;
        let name = "a".to_owned();
        FinishedJob {
            claim,
            run,
            name,
            dependents,
            attempt: Some(attempt),
            ending,
            buckets: vec![],
            is_keyed: false,
            has_told: false,
        }
    }

    /// How many pages the look-up of everything that is the latest reads, once rows that nobody can see are gone: how
    /// soon the server removes them by itself depends on what its other databases do.
    async fn pages_of_latest(&self) -> u64 {
        let mut connection = self.database.pool().await.acquire().await.unwrap();
        sqlx::raw_sql("vacuum latest").execute(&mut *connection).await.unwrap();
        sqlx::raw_sql(SESSION_SETTINGS).execute(&mut *connection).await.unwrap();
        let statement = statement_of(&["from latest where tenant_id = $1 and asset_id = any($2)"]);
        let prepare = sqlx::AssertSqlSafe(format!("prepare look (text, uuid[]) as {statement}"));
        sqlx::raw_sql(prepare).execute(&mut *connection).await.unwrap();
        let explain = format!(
            "explain (analyze, buffers, format json) execute look ('{TENANT}', array['{}'::uuid])",
            self.asset("a").asset
        );
        let plan: serde_json::Value =
            sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_one(&mut *connection).await.unwrap();
        let top = &plan[0]["Plan"];
        ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|kind| top[kind].as_u64().unwrap()).sum()
    }

    pub async fn states(&self, run: RunId) -> Vec<String> {
        let jobs = self.store.list_jobs(TENANT, run, None, 100).await.unwrap();
        jobs.into_iter().map(|job| job.state).collect()
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        let statement = match table {
            "materialization" => "select count(*) from materialization",
            "attempt" => "select count(*) from attempt",
            "live_job" => "select count(*) from live_job",
            "job_joined" => "select count(*) from job_joined",
            "component_death" => "select count(*) from component_death",
            "job_limited" => "select count(*) from job_limited",
            "job_lease" => "select count(*) from job_lease",
            "job_ready" => "select count(*) from job_ready",
            "job_blocked" => "select count(*) from job_blocked",
            "job_release" => "select count(*) from job_release",
            "job_deferred" => "select count(*) from job_deferred",
            "job_end" => "select count(*) from job_end",
            "running_log" => "select count(*) from running_log",
            other => panic!("{other} is not counted here"),
        };
        sqlx::query_scalar(statement).fetch_one(&self.database.pool().await).await.unwrap()
    }
}

pub fn version(name: &str, seed: u8) -> NewPipelineVersion {
    let component = Digest::of(b"component");
    NewPipelineVersion {
        tenant: TENANT.to_owned(),
        name: name.to_owned(),
        digest: Digest([seed; 32]),
        manifest: String::new(),
        components: vec![Stored { digest: component, size: 9 }],
        stored_since_us: 0,
        resources: vec![ResourceRecord {
            name: "dir".to_owned(),
            kind: "directory".to_owned(),
            settings: json!({ "kind": "directory", "path": "/nowhere", "access": "read-write" }),
        }],
        assets: ["a", "b", "c"]
            .map(|name| NewAssetVersion {
                name: name.to_owned(),
                component,
                config_digest: Digest::of(b"config"),
                grants_digest: Digest::of(b"grants"),
                settings: json!({ "of": name }),
                pools: vec![],
            })
            .into(),
        schedules: vec![],
        pools: vec![],
    }
}

#[tokio::test]
async fn deploying_the_same_again_is_not_a_new_version() {
    let bench = Bench::new().await;
    assert_eq!(bench.store.deploy(&version("p", 1)).await.unwrap(), (1, false));
    assert_eq!(bench.store.deploy(&version("p", 2)).await.unwrap(), (2, true));
    assert_eq!(bench.store.deploy(&version("q", 2)).await.unwrap(), (1, true));
    let newest = bench.store.find_pipeline(TENANT, "p").await.unwrap().unwrap();
    assert_eq!(newest.number, 2);
    assert_eq!(newest.assets[1].asset, bench.asset("b").asset, "an asset keeps its id from version to version");
    assert!(bench.store.find_asset_version(TENANT, bench.asset("b").id).await.unwrap().is_some());
    assert!(bench.store.find_pipeline("other", "p").await.unwrap().is_none());
    let _other: PipelineVersionId = newest.id;
}

#[tokio::test]
async fn a_chain_is_released_job_by_job_and_ends_its_run() {
    let bench = Bench::new().await;
    let (run, jobs) =
        bench.submit(&[("a", "none", &[]), ("b", "none", &[(0, false)]), ("c", "none", &[(1, false)])]).await;
    assert_eq!(bench.states(run).await, ["ready", "blocked", "blocked"]);
    let mut upstream = Vec::new();
    for (n, asset) in ["a", "b", "c"].into_iter().enumerate() {
        let claim = bench.claim_one().await;
        assert_eq!(claim.job, jobs[n]);
        assert!(bench.claim(10).await.is_empty(), "what is claimed cannot be claimed again");
        let loaded = bench.inputs(&claim).await;
        assert_eq!(loaded.present.iter().map(|input| input.version.materialization).collect::<Vec<_>>(), upstream);
        let edges = upstream
            .iter()
            .map(|id| NewEdge { input: "in".to_owned(), position: 0, upstream: *id, bytes_read: 5 })
            .collect();
        let ending = bench.made(asset, "none", asset.as_bytes(), edges);
        let Ending::Materialized(new) = &ending else { unreachable!() };
        upstream = vec![new.id];
        let committed = bench.store.commit_finished_jobs(&[bench.finished(claim, run, ending)]).await.unwrap();
        assert_eq!((committed.ended.len(), committed.released), (1, usize::from(n < 2)));
    }
    let record = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((record.state.as_str(), record.succeeded, record.jobs), ("succeeded", 3, 3));
    assert!(record.finished_at_ms.is_some());

    // Scenario 107: depths upstream and downstream.
    let up = bench.store.walk_lineage(TENANT, upstream[0], Direction::Up, 10).await.unwrap();
    let depths: Vec<(&str, i32)> = up.nodes.iter().map(|node| (node.asset.as_str(), node.depth)).collect();
    assert_eq!(depths, [("c", 0), ("b", 1), ("a", 2)]);
    let root = up.nodes[2].id;
    let down = bench.store.walk_lineage(TENANT, root, Direction::Down, 1).await.unwrap();
    assert_eq!(down.nodes.iter().map(|node| node.asset.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_stale_attempt_cannot_commit() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let zombie = bench.claim_one().await;
    bench.store.expire_all_sessions().await.unwrap();
    assert_eq!(bench.store.rescue_lost_jobs().await.unwrap().jobs, 1);
    assert!(!bench.store.renew_session(bench.worker).await.unwrap(), "the session is over");

    bench.store.register_worker(bench.worker, "here", &Served::default()).await.unwrap();
    let second = bench.claim_one().await;
    assert_eq!((second.job, second.charged, second.released), (zombie.job, 0, 1), "a lost attempt is not charged");
    assert_ne!(second.token, zombie.token);

    let late = bench.finished(zombie.clone(), run, bench.made("a", "none", b"late", vec![]));
    let committed = bench.store.commit_finished_jobs(&[late]).await.unwrap();
    assert_eq!(committed.fenced, [zombie.key()]);
    assert_eq!((bench.count("materialization").await, bench.count("attempt").await), (0, 1), "only the lost attempt");

    let right = bench.finished(second, run, bench.made("a", "none", b"right", vec![]));
    let committed = bench.store.commit_finished_jobs(std::slice::from_ref(&right)).await.unwrap();
    assert_eq!(committed.ended.len(), 1);
    let again = bench.store.commit_finished_jobs(std::slice::from_ref(&right)).await.unwrap();
    assert_eq!(again.fenced, [right.claim.key()], "a commit repeated writes nothing");
    assert_eq!(bench.count("materialization").await, 1);
}

/// A server that forgets a claim gives its job to the same worker again, which may finish both at once.
#[tokio::test]
async fn of_two_claims_of_a_job_in_one_commit_only_the_later_one_writes() {
    for lost_is_first in [true, false] {
        let bench = Bench::new().await;
        let (run, _) = bench.submit(&[("a", "none", &[])]).await;
        let lost = bench.claim_one().await;
        bench.store.return_unanswered_claims(bench.worker, &[lost.token]).await.unwrap();
        let held = bench.claim_one().await;
        assert_eq!(held.job, lost.job);
        let deferred = Ending::Deferred { wait_ms: 0, cause: "trouble".to_owned(), counts: Counts::Released };
        let mut batch = vec![
            bench.finished(lost.clone(), run, deferred),
            bench.finished(held, run, bench.made("a", "none", b"right", vec![])),
        ];
        if !lost_is_first {
            batch.reverse();
        }
        let committed = bench.store.commit_finished_jobs(&batch).await.unwrap();
        assert_eq!(committed.fenced, [lost.key()]);
        assert_eq!((committed.ended.len(), committed.deferred.len()), (1, 0));
        assert_eq!((bench.count("job_end").await, bench.count("job_deferred").await), (1, 0));
        assert_eq!((bench.count("materialization").await, bench.count("attempt").await), (1, 1));
    }
}

#[tokio::test]
async fn a_failure_skips_what_needs_it_and_names_the_first_cause() {
    let bench = Bench::new().await;
    let (run, jobs) =
        bench.submit(&[("a", "none", &[]), ("b", "none", &[(0, false)]), ("c", "none", &[(1, false)])]).await;
    let claim = bench.claim_one().await;
    let failed = bench.finished(claim, run, Ending::Failed("no".to_owned()));
    let committed = bench.store.commit_finished_jobs(&[failed]).await.unwrap();
    let ended: Vec<_> = committed.ended.iter().map(|end| (end.job, end.state, end.cause.as_deref())).collect();
    assert_eq!(
        ended,
        [
            (jobs[0], "failed", Some("no")),
            (jobs[1], "skipped", Some("input a was not made: it failed")),
            (jobs[2], "skipped", Some("input a was not made: it failed")),
        ]
    );
    let record = bench.store.find_run(TENANT, run).await.unwrap().unwrap();
    assert_eq!((record.state.as_str(), record.failed, record.skipped), ("failed", 1, 2));
}

#[tokio::test]
async fn an_optional_input_that_failed_releases_its_consumer() {
    let bench = Bench::new().await;
    let (run, jobs) =
        bench.submit(&[("a", "none", &[]), ("b", "none", &[]), ("c", "none", &[(0, true), (1, false)])]).await;
    for claim in bench.claim(10).await {
        let ending =
            if claim.job == jobs[0] { Ending::Failed("no".to_owned()) } else { bench.made("b", "none", b"b", vec![]) };
        bench.store.commit_finished_jobs(&[bench.finished(claim, run, ending)]).await.unwrap();
    }
    let claim = bench.claim_one().await;
    assert_eq!(claim.job, jobs[2]);
    let loaded = bench.inputs(&claim).await;
    assert_eq!((loaded.present.len(), loaded.absent["in"]), (1, 1));
}

#[tokio::test]
async fn a_retry_is_charged_and_comes_back_when_it_is_due() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    let later = Ending::Deferred { wait_ms: 3_600_000, cause: "busy".to_owned(), counts: Counts::Charged };
    bench.store.commit_finished_jobs(&[bench.finished(claim, run, later)]).await.unwrap();
    assert_eq!(bench.states(run).await, ["deferred"]);
    assert_eq!(bench.store.promote_due_jobs(10).await.unwrap(), 0, "not before its time");
    sqlx::query("update job_deferred set due_at = now()").execute(&bench.database.pool().await).await.unwrap();
    assert_eq!(bench.store.promote_due_jobs(10).await.unwrap(), 1);
    assert_eq!(bench.claim_one().await.charged, 1);
}

#[tokio::test]
async fn cancelling_ends_what_waits_and_tells_the_worker_of_what_runs() {
    let bench = Bench::new().await;
    let (run, jobs) = bench.submit(&[("a", "none", &[]), ("a", "k=static:1", &[]), ("b", "none", &[(0, false)])]).await;
    let claim = bench.claim_one().await;
    assert!(bench.store.list_claims_to_cancel(bench.worker).await.unwrap().is_empty());
    assert!(bench.store.cancel_run(TENANT, run, "by hand").await.unwrap());
    assert_eq!(bench.states(run).await, ["running", "cancelled", "cancelled"]);
    assert_eq!(bench.store.list_claims_to_cancel(bench.worker).await.unwrap(), [(claim.job, claim.token)]);
    assert_eq!(claim.job, jobs[0]);
    let stopped = bench.finished(claim, run, Ending::Cancelled("by hand".to_owned()));
    bench.store.commit_finished_jobs(&[stopped]).await.unwrap();
    assert_eq!(bench.store.find_run(TENANT, run).await.unwrap().unwrap().state, "cancelled");
    assert!(!bench.store.cancel_run(TENANT, run, "again").await.unwrap());
}

#[tokio::test]
async fn latest_follows_the_sequence_and_skips_what_was_invalidated() {
    let bench = Bench::new().await;
    let asset = bench.asset("a").asset;
    for bytes in [b"one", b"two"] {
        let (run, _) = bench.submit(&[("a", "none", &[])]).await;
        let claim = bench.claim_one().await;
        let item = bench.finished(claim, run, bench.made("a", "none", bytes, vec![]));
        bench.store.commit_finished_jobs(&[item]).await.unwrap();
    }
    let latest = bench.store.list_latest(TENANT, &[asset]).await.unwrap();
    assert_eq!((latest.len(), latest[0].version_digest), (1, Digest::of(b"two")));
    let found = bench.store.find_by_recipe(TENANT, &[(asset, "none".to_owned(), Digest::of(b"none"))]).await.unwrap();
    assert_eq!((found.len(), found[0].digest, found[0].latest), (1, Digest::of(b"two"), true));

    assert_eq!(bench.store.invalidate(TENANT, "p", "a", Some("none")).await.unwrap(), 2);
    assert_eq!(bench.store.invalidate(TENANT, "p", "a", None).await.unwrap(), 0, "nothing is left to invalidate");
    assert!(bench.store.list_latest(TENANT, &[asset]).await.unwrap().is_empty());
    assert!(bench.store.find_latest(TENANT, "p", "a", "none").await.unwrap().is_none());
}

/// What a plan reads follows from the partitions, not from how often they were made.
#[tokio::test]
async fn looking_up_the_latest_does_not_read_history() {
    const VERSIONS: usize = 50;
    let bench = Bench::new().await;
    let keys: Vec<String> = (0..20).map(|n| format!("k=static:{n}")).collect();
    let jobs: Vec<PlannedJob<'_>> = keys.iter().map(|key| ("a", &**key, &[][..])).collect();
    let asset = bench.asset("a").asset;
    let mut pages = Vec::new();
    for version in 0..VERSIONS {
        let (run, ids) = bench.submit(&jobs).await;
        let key_of = |claim: &Claim| &keys[ids.iter().position(|id| *id == claim.job).unwrap()];
        let claims = bench.claim(jobs.len() as i64).await;
        let bytes = version.to_string();
        let batch: Vec<FinishedJob> = claims
            .into_iter()
            .map(|claim| {
                let ending = bench.made("a", key_of(&claim), bytes.as_bytes(), vec![]);
                bench.finished(claim, run, ending)
            })
            .collect();
        assert_eq!(bench.store.commit_finished_jobs(&batch).await.unwrap().ended.len(), keys.len());
        pages.push(bench.pages_of_latest().await);
    }
    let latest = bench.store.list_latest(TENANT, &[asset]).await.unwrap();
    let newest = Digest::of((VERSIONS - 1).to_string().as_bytes());
    assert_eq!(latest.len(), keys.len());
    assert!(latest.iter().all(|record| record.version_digest == newest));
    assert_eq!(bench.count("materialization").await, (VERSIONS * keys.len()) as i64);
    assert!(pages[VERSIONS - 1] <= pages[0] + 10, "pages read after each version: {pages:?}");
}

/// The sequence decides, not who commits first.
#[tokio::test]
async fn of_two_commits_of_one_partition_the_greater_sequence_stays_the_latest() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let asset = bench.asset("a").asset;
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let (other_run, _) = bench.submit(&[("a", "none", &[])]).await;
    let [first, second] = bench.claim(2).await.try_into().unwrap();

    let gate = Gate::close(&bench.database).await;
    let late = Step { table: "latest", operation: "insert", only: "new.version_digest = sha256('late')" };
    late.inject(&pool, When::Before, Fault::Gated).await;
    let (store, item) = (bench.store.clone(), bench.finished(first, run, bench.made("a", "none", b"late", vec![])));
    let slow = tokio::spawn(async move { store.commit_finished_jobs(&[item]).await });
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    let item = bench.finished(second, other_run, bench.made("a", "none", b"greater", vec![]));
    bench.store.commit_finished_jobs(&[item]).await.unwrap();
    gate.open().await;
    assert_eq!(slow.await.unwrap().unwrap().ended.len(), 1);

    let latest = bench.store.list_latest(TENANT, &[asset]).await.unwrap();
    assert_eq!((latest.len(), latest[0].version_digest), (1, Digest::of(b"greater")));
    let newest = "select version_digest from materialization order by sequence desc limit 1";
    let newest: Vec<u8> = sqlx::query_scalar(newest).fetch_one(&pool).await.unwrap();
    assert_eq!(newest, Digest::of(b"greater").0);
}

#[tokio::test]
async fn audit_can_only_grow() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let lines: i64 = sqlx::query_scalar("select count(*) from audit").fetch_one(&pool).await.unwrap();
    assert!(lines > 0);
    for statement in ["update audit set actor = 'nobody'", "delete from audit", "truncate audit"] {
        let refused = sqlx::query(statement).execute(&pool).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
}

/// A session of the program's that plans a statement without looking at its parameters.
async fn planning_once(bench: &Bench) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    let mut connection = bench.database.pool().await.acquire().await.unwrap();
    sqlx::raw_sql(SESSION_SETTINGS).execute(&mut *connection).await.unwrap();
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    connection
}

#[tokio::test]
async fn the_claim_finds_its_rows_by_their_place_under_a_generic_plan() {
    let bench = Bench::new().await;
    let mut connection = planning_once(&bench).await;
    let claim = sqlx::AssertSqlSafe(format!(
        "prepare claim (uuid, uuid, int[], bigint[], float8[], uuid[], int[], int[], bigint, text[], text[], text) as {}",
        statement_of(&["delete from job_ready", "insert into job_lease"])
    ));
    sqlx::raw_sql(claim).execute(&mut *connection).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "explain execute claim (gen_random_uuid(), gen_random_uuid(), '{1}', '{9}', '{0}', array[gen_random_uuid()],
             '{-1,1}', '{1,99}', 1, null, '{}', 'tenant')",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let plan = plan.join("\n");
    for step in [
        "Tid Scan on job_ready",
        // Each share starts after its position, and each search between two lanes.
        "Index Cond: ((lane_id = s_1.lane_id) AND (ROW(ready_at, job_id) > ROW(s_1.after_at, s_1.after_job)))",
        "Index Only Scan using job_ready_by_lane",
        "Index Cond: ((lane_id > gap.low) AND (lane_id < gap.high))",
    ] {
        assert!(plan.contains(step), "`{step}` is not in\n{plan}");
    }
}

/// They are planned once, perhaps while every table is small, when any index seems as good as any other.
#[tokio::test]
async fn what_is_planned_once_reaches_its_rows_by_their_keys() {
    let bench = Bench::new().await;
    let mut connection = planning_once(&bench).await;
    let statements = checked_statements().filter(|checked| text_of(checked).contains("unnest((select $"));
    let mut seen = 0;
    for (n, checked) in statements.enumerate() {
        let types = checked["describe"]["parameters"]["Left"].as_array().unwrap();
        let types: Vec<String> = types.iter().map(|name| sql_type(name.as_str().unwrap())).collect();
        let nulls = vec!["null"; types.len()].join(", ");
        let statement = text_of(&checked);
        let prepare = sqlx::AssertSqlSafe(format!("prepare s{n} ({}) as {statement}", types.join(", ")));
        sqlx::raw_sql(prepare).execute(&mut *connection).await.unwrap();
        let explain = sqlx::AssertSqlSafe(format!("explain (costs off) execute s{n} ({nulls})"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut *connection).await.unwrap();
        for (line, before) in plan.iter().skip(1).zip(&plan) {
            // A tenant has a handful of quotas.
            let is_of_all = line.contains("Index Cond: (tenant_id = ") && !before.contains("quota");
            assert!(!is_of_all && !line.contains("Join Filter"), "{line} of\n{statement}\n{}", plan.join("\n"));
        }
        seen += 1;
    }
    assert_eq!(seen, 13, "what submissions, claims and commits ask, and what is asked of many rows at once");
}

/// A session that has seen the tables small knows neither how many rows there are nor how deep an index is that it does
/// not read: one that it should not read either looks cheaper then.
#[tokio::test]
async fn earlier_results_are_found_by_their_recipe_by_a_session_that_knew_the_tables_small() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "none", &[]), ("b", "none", &[]), ("c", "none", &[])]).await;
    for claim in bench.claim(3).await {
        let asset = bench.known(&claim).asset.name.clone();
        let made = bench.made(&asset, "none", asset.as_bytes(), vec![]);
        bench.store.commit_finished_jobs(&[bench.finished(claim, run, made)]).await.unwrap();
    }
    bench.database.execute("analyze");
    let mut connection = bench.database.pool().await.acquire().await.unwrap();
    sqlx::raw_sql(SESSION_SETTINGS).execute(&mut *connection).await.unwrap();
    sqlx::raw_sql("set plan_cache_mode = force_custom_plan").execute(&mut *connection).await.unwrap();
    let prepare = sqlx::AssertSqlSafe(format!(
        "prepare earlier (text, uuid[], text[], bytea[]) as {}",
        statement_of(&["as \"latest!\"", "m.recipe = w.recipe"])
    ));
    sqlx::raw_sql(prepare).execute(&mut *connection).await.unwrap();
    for rows in [1, 12_000, 1, 1] {
        let batch = "select format('explain (analyze, timing off) execute earlier (%L, %L, %L, %L)', min(tenant_id),
                         array_agg(asset_id), array_agg(partition_key), array_agg(sha256(recipe)))
                     from (select * from materialization order by sequence desc limit 500) m";
        let explain: String = sqlx::query_scalar(batch).fetch_one(&bench.database.pool().await).await.unwrap();
        let plan: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("materialization_by_recipe on materialization m"), "before {rows} more:\n{plan}");
        let more = sqlx::AssertSqlSafe(format!(
            "insert into materialization (tenant_id, materialization_id, asset_id, asset_version_id, partition_key, run_id,
                 job_id, attempt_id, output_digest, size_bytes, media_type, metadata, version_digest, recipe,
                 sources_digest, input_digests, engine_id)
             select tenant_id, gen_random_uuid(), asset_id, asset_version_id, 'k=int:' || (100000 + n), run_id,
                 gen_random_uuid(), attempt_id, output_digest, size_bytes, media_type, metadata, version_digest,
                 sha256(gen_random_uuid()::text::bytea), sources_digest, input_digests, engine_id
             from (select * from materialization order by sequence limit 1) m cross join generate_series(1, {rows}) n"
        ));
        sqlx::raw_sql(more).execute(&bench.database.pool().await).await.unwrap();
    }
}

/// As Postgres calls what the build calls so.
fn sql_type(name: &str) -> String {
    let (name, is_array) = name.strip_suffix("Array").map_or((name, ""), |name| (name, "[]"));
    format!("{}{is_array}", name.to_lowercase())
}

/// While a table is small every such index seems as good as the primary key, and the check of a foreign key keeps the
/// plan it made then: with another index it reads all of the tenant's rows for each row that is checked.
#[tokio::test]
async fn of_a_table_that_foreign_keys_name_only_the_primary_key_begins_with_the_tenant() {
    let bench = Bench::new().await;
    let mistakable: Vec<String> = sqlx::query_scalar(
        "select i.indexrelid::regclass::text from pg_index i
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
         where a.attname = 'tenant_id' and not i.indisprimary and i.indpred is null
           and exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = i.indrelid)",
    )
    .fetch_all(&bench.database.pool().await)
    .await
    .unwrap();
    assert_eq!(mistakable, Vec::<String>::new());
}

/// The one statement with these texts as the program has it, from what its build checked.
pub fn statement_of(texts: &[&str]) -> String {
    let statements = checked_statements().map(|checked| text_of(&checked).to_owned());
    let mut found = statements.filter(|statement| texts.iter().all(|text| statement.contains(text)));
    let statement = found.next().expect("it is among the checked statements");
    assert!(found.next().is_none(), "there is one statement with {texts:?}");
    statement
}

fn checked_statements() -> impl Iterator<Item = serde_json::Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
    std::fs::read_dir(folder).unwrap().map(|entry| {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        serde_json::from_str(&text).unwrap()
    })
}

fn text_of(checked: &serde_json::Value) -> &str {
    checked["query"].as_str().unwrap()
}

#[tokio::test]
async fn a_session_that_the_server_has_ended_fails_once_and_is_not_lent_again() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let asked = || bench.store.find_run(TENANT, run);
    let mut lock = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table run in access exclusive mode").execute(&mut *lock).await.unwrap();
    let let_go = async {
        let all_wait = "select count(*) = 3 from pg_stat_activity
                        where datname = current_database() and application_name = 'flowstone' and wait_event_type = 'Lock'";
        wait_until_database_says(&pool, all_wait).await;
        lock.commit().await.unwrap();
    };
    let (first, second, third, ()) = tokio::join!(asked(), asked(), asked(), let_go);
    assert!([first, second, third].iter().all(Result::is_ok), "each over a session of its own");
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and application_name = 'flowstone'";
    let ended: i64 = sqlx::query_scalar(end).fetch_one(&pool).await.unwrap();
    assert!(ended >= 3, "{ended}");
    let gone = "select count(*) = 0 from pg_stat_activity
                where datname = current_database() and application_name = 'flowstone'";
    wait_until_database_says(&pool, gone).await;
    let mut failures = 0;
    while asked().await.is_err() {
        failures += 1;
        assert!(failures <= ended, "a session that is gone was lent twice");
    }
    assert!(asked().await.is_ok());
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_returned() {
    let bench = Bench::new().await;
    bench.submit(&[("a", "none", &[]), ("a", "k=static:1", &[])]).await;
    let lost = ClaimToken::random();
    bench.claim_as(lost, 1).await;
    let kept = bench.claim_one().await;
    assert_eq!(bench.store.return_unanswered_claims(bench.worker, &[lost]).await.unwrap(), 1);
    let again = bench.claim_one().await;
    assert_ne!(again.job, kept.job);
    assert_eq!((again.charged, again.released), (0, 0));
    assert_eq!(bench.store.return_unanswered_claims(bench.worker, &[lost]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_claimed_by_a_worker_that_was_taken_for_dead_is_rescued() {
    let bench = Bench::new().await;
    bench.submit(&[("a", "none", &[])]).await;
    // Its row goes while its claim is on the way.
    bench.store.deregister_worker(bench.worker).await.unwrap();
    let claim = bench.claim_one().await;
    assert_eq!(bench.store.rescue_lost_jobs().await.unwrap().jobs, 1);
    assert_eq!(bench.count("job_lease").await, 0);
    let again = bench.claim_one().await;
    assert_eq!((again.job, again.charged, again.released), (claim.job, 0, 1));
}

#[tokio::test]
async fn ready_jobs_that_no_live_worker_takes_are_counted() {
    let bench = Bench::new().await;
    let unserved = async || bench.store.queue_depth().await.unwrap().unserved;
    bench.submit(&[("a", "none", &[])]).await;
    assert_eq!(unserved().await, 0);
    let route = Route { tags: ["gpu".to_owned()].into(), ..Route::default() };
    bench.submit_to(&route, &[("a", "none", &[]), ("b", "none", &[]), ("c", "none", &[(0, false)])]).await;
    assert_eq!(unserved().await, 2, "the third waits for its input");
    let slow = Served { queues: Some(vec!["slow".to_owned()]), tags: vec!["gpu".to_owned()] };
    bench.store.register_worker(WorkerId::new(), "of another queue", &slow).await.unwrap();
    assert_eq!(unserved().await, 2);
    let served = Served { tags: vec!["big".to_owned(), "gpu".to_owned()], ..Served::default() };
    bench.store.register_worker(WorkerId::new(), "there", &served).await.unwrap();
    assert_eq!(unserved().await, 0);
    bench.database.execute("update worker set beat_at = '-infinity' where host = 'there'");
    assert_eq!(unserved().await, 2);
}

#[tokio::test]
async fn what_attempts_say_is_told_once_and_only_of_those_that_run() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "k=static:p1", &[]), ("a", "k=static:p2", &[])]).await;
    let claims = bench.claim(2).await;
    let tell = |claim: &Claim, first_line, lines| NewLines { claim: claim.clone(), run, first_line, lines };
    let other_attempt = Claim { token: ClaimToken::random(), ..claims[0].clone() };
    let told = [
        tell(&claims[0], 0, json!(["one", "two"])),
        tell(&claims[1], 0, json!(["other"])),
        tell(&other_attempt, 0, json!(["of a claim that is over"])),
    ];
    bench.store.add_running_lines(&told).await.unwrap();
    bench.store.add_running_lines(&told).await.unwrap();
    bench.store.add_running_lines(&[tell(&claims[0], 2, json!(["three"]))]).await.unwrap();
    let attempts = bench.store.list_telling_attempts(TENANT, run, Some("a"), Some("k=static:p1")).await.unwrap();
    let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!(
        (&*attempt.asset, &*attempt.partition_key, attempt.number, attempt.last_line),
        ("a", "k=static:p1", 1, 2)
    );
    let keys = [attempt.key(), claims[1].key()];
    let read = async |after: i32| {
        let told = bench.store.read_told_lines(TENANT, run, &keys.map(|key| (key, after))).await.unwrap();
        told.into_iter().map(|told| (told.attempt, told.first_line, told.lines)).collect::<Vec<_>>()
    };
    let (one_two, three) = ((keys[0], 0, json!(["one", "two"])), (keys[0], 2, json!(["three"])));
    assert_eq!(read(0).await, [one_two, three.clone(), (keys[1], 0, json!(["other"]))]);
    assert_eq!(read(1).await, [three]);
    assert_eq!(bench.store.list_telling_attempts(TENANT, run, None, None).await.unwrap().len(), 2);
    assert!(bench.store.list_telling_attempts("other", run, None, None).await.unwrap().is_empty());

    // It goes with the commit; of the other one, whose commit forgets it, with the hour.
    let ended = |claim: &Claim, partition, has_told| FinishedJob {
        has_told,
        ..bench.finished(claim.clone(), run, bench.made("a", partition, b"", vec![]))
    };
    let batch = [ended(&claims[0], "k=static:p1", true), ended(&claims[1], "k=static:p2", false)];
    bench.store.commit_finished_jobs(&batch).await.unwrap();
    assert_eq!(read(0).await, [(keys[1], 0, json!(["other"]))]);
    assert!(bench.store.list_telling_attempts(TENANT, run, None, None).await.unwrap().is_empty());
    bench.store.add_running_lines(&told).await.unwrap();
    assert_eq!(bench.count("running_log").await, 1);
    assert_eq!(bench.store.remove_stray_lines().await.unwrap(), 1);
}

#[tokio::test]
async fn a_lease_that_is_being_ended_keeps_no_other_attempt_from_telling() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "k=static:p1", &[]), ("a", "k=static:p2", &[])]).await;
    let claims = bench.claim(2).await;
    let mut ending = bench.database.pool().await.begin().await.unwrap();
    sqlx::query("delete from job_lease where job_id = $1").bind(claims[0].job.0).execute(&mut *ending).await.unwrap();
    let told: Vec<NewLines> = claims
        .iter()
        .map(|claim| NewLines { claim: claim.clone(), run, first_line: 0, lines: json!(["one"]) })
        .collect();
    let added = bench.store.add_running_lines(&told).await.unwrap();
    assert_eq!(added, [claims[1].key()]);
    ending.commit().await.unwrap();
    let telling = bench.store.list_telling_attempts(TENANT, run, None, None).await.unwrap();
    assert_eq!(telling.iter().map(|attempt| attempt.job).collect::<Vec<_>>(), [claims[1].job]);
    assert_eq!(bench.count("running_log").await, 1, "of the lease that has gone nothing is left");
}

#[tokio::test]
async fn a_job_that_comes_back_to_the_queue_of_a_cancelled_run_is_ended() {
    let bench = Bench::new().await;
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let claim = bench.claim_one().await;
    bench.store.cancel_run(TENANT, run, "by hand").await.unwrap();
    let later = Ending::Deferred { wait_ms: 3_600_000, cause: "busy".to_owned(), counts: Counts::Charged };
    bench.store.commit_finished_jobs(&[bench.finished(claim, run, later)]).await.unwrap();
    assert_eq!(bench.states(run).await, ["deferred"]);
    assert_eq!(bench.store.end_waiting_jobs_of_cancelled_runs().await.unwrap().ended.len(), 1);
    assert_eq!(bench.store.find_run(TENANT, run).await.unwrap().unwrap().state, "cancelled");
}

#[tokio::test]
async fn a_guests_words_cannot_hide_whose_failure_it_was() {
    let bench = Bench::new().await;
    let (run, jobs) = bench.submit(&[("a", "none", &[]), ("b", "none", &[(0, false)])]).await;
    let claim = bench.claim_one().await;
    let failed = bench.finished(claim, run, Ending::Failed("input somebody_else was not made".to_owned()));
    let committed = bench.store.commit_finished_jobs(&[failed]).await.unwrap();
    let skipped = committed.ended.iter().find(|end| end.job == jobs[1]).unwrap();
    assert_eq!(skipped.cause.as_deref(), Some("input a was not made: it failed"));
}

#[tokio::test]
async fn a_day_that_has_rows_in_the_default_partition_does_not_stop_the_others() {
    let bench = Bench::new().await;
    let pool = bench.database.pool().await;
    // A clock that is four days ahead submits a job, and then the day comes.
    let ahead = "(lpad(to_hex((extract(epoch from now() + interval '4 days') * 1000)::bigint), 12, '0') || '7000' || repeat('0', 16))::uuid";
    let (run, _) = bench.submit(&[("a", "none", &[])]).await;
    let insert = format!(
        "insert into job (tenant_id, job_id, run_id, asset_version_id, partition_key, reason, forced, inputs, dependents)
         select tenant_id, {ahead}, run_id, asset_version_id, partition_key, reason, forced, inputs, dependents from job where run_id = '{run}'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&pool).await.unwrap();
    let days = "select ensure_history_days((now() at time zone 'utc')::date + 3, 3)";
    sqlx::raw_sql(days).execute(&pool).await.unwrap();
    let made: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relname = 'attempt_' || to_char((now() at time zone 'utc') + interval '4 days', 'YYYYMMDD')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(made, 1, "the other tables have their day");
}

#[tokio::test]
async fn a_claim_takes_shares_of_lanes_finds_others_and_leaves_what_it_may_not_have() {
    let bench = Bench::new().await;
    let route = |queue: &str, tags: &[&str]| Route {
        queue: queue.into(),
        priority: 0,
        tags: tags.iter().map(|&tag| tag.into()).collect(),
    };
    let routes = [route("a", &[]), route("b", &[]), route("c", &["gpu"]), route("d", &[])];
    for (lane, route) in (1..).zip(&routes) {
        let jobs: Vec<String> = (0..5).map(|key| format!("k=static:{lane}{key}")).collect();
        let jobs: Vec<PlannedJob<'_>> = jobs.iter().map(|key| ("a", &**key, &[][..])).collect();
        bench.submit_to(route, &jobs).await;
    }
    bench.store.pause_queue(TENANT, "d").await.unwrap();
    let claim = async |served: Served, shares: &[(i32, i64)], gaps: &[(i32, i32)]| {
        let shares: Vec<LaneShare> = shares
            .iter()
            .map(|(lane, most)| LaneShare { lane: LaneId(*lane), most: *most, after: ClaimPosition::START })
            .collect();
        let search = LaneSearch { gaps: gaps.to_vec(), each_found: 2 };
        let token = ClaimToken::random();
        let claimed = bench.store.claim_ready_jobs(bench.worker, token, &served, &shares, &search).await.unwrap();
        assert!(claimed.jobs.iter().all(|job| job.claim.token == token));
        let mut reached: Vec<(i32, i64)> =
            claimed.reached.iter().map(|(lane, reached)| (lane.0, reached.jobs)).collect();
        reached.sort();
        for (lane, jobs) in &reached {
            let claims = claimed.jobs.iter().filter(|job| job.claim.lane.0 == *lane);
            assert_eq!(claims.count() as i64, *jobs);
        }
        reached
    };
    let all = Served::default;
    assert_eq!(claim(all(), &[(1, 3)], &[(1, 99)]).await, [(1, 3), (2, 2)], "a share, and a lane that is found");
    assert_eq!(claim(all(), &[(1, 3), (2, 1)], &[(2, 99)]).await, [(1, 2), (2, 1), (3, 0)], "no tag, no job");
    let with_tag = || Served { queues: None, tags: vec!["gpu".into()] };
    assert_eq!(claim(with_tag(), &[], &[(2, 4), (3, 99)]).await, [(3, 2), (4, 0)], "nobody claims from a paused queue");
    let of_queue = || Served { queues: Some(vec!["b".into()]), tags: vec![] };
    assert_eq!(claim(of_queue(), &[], &[(-1, 99)]).await, [(2, 2)], "lane 1 is empty, and 2 is its queue");
    bench.store.resume_queue(TENANT, "d").await.unwrap();
    assert_eq!(claim(all(), &[(4, 9)], &[]).await, [(4, 5)]);
    assert_eq!(bench.store.find_lanes(&[LaneId(3)]).await.unwrap()[0].1.route, routes[2]);
}

/// Of a job of each kind of place in the queue, its lane comes back with it.
#[tokio::test]
async fn a_job_stays_in_its_lane_wherever_it_goes() {
    let bench = Bench::new().await;
    let route = Route { queue: "q".into(), priority: 3, tags: [].into() };
    let (run, _) = bench.submit_to(&route, &[("a", "none", &[]), ("b", "none", &[(0, false)])]).await;
    let lanes = || async {
        let places = "select lane_id from job_ready union all select lane_id from job_blocked
             union all select lane_id from job_deferred union all select lane_id from job_lease";
        let mut lanes: Vec<i32> = sqlx::query_scalar(places).fetch_all(&bench.database.pool().await).await.unwrap();
        lanes.dedup();
        lanes
    };
    let [lane] = lanes().await[..] else { panic!("both are in one lane") };
    assert!(lane > 0, "which is not that of jobs without one");
    let later = |wait_ms| Ending::Deferred { wait_ms, cause: "busy".to_owned(), counts: Counts::Charged };
    for ending in [later(0), Ending::Released] {
        let claim = bench.claim_one().await;
        assert_eq!(lanes().await, [lane], "leased");
        bench.store.commit_finished_jobs(&[bench.finished(claim, run, ending)]).await.unwrap();
        assert_eq!(lanes().await, [lane], "given back");
        bench.store.promote_due_jobs(9).await.unwrap();
        assert_eq!(lanes().await, [lane], "promoted");
    }
    let lost = ClaimToken::random();
    bench.claim_as(lost, 1).await;
    bench.store.return_unanswered_claims(bench.worker, &[lost]).await.unwrap();
    assert_eq!(lanes().await, [lane], "returned");
    bench.claim_one().await;
    bench.store.expire_all_sessions().await.unwrap();
    assert_eq!(bench.store.rescue_lost_jobs().await.unwrap().jobs, 1);
    assert_eq!(lanes().await, [lane], "rescued, for later: it had come back before");
    bench.database.execute("update job_deferred set due_at = now()");
    assert_eq!(bench.store.promote_due_jobs(9).await.unwrap(), 1);
    assert_eq!(lanes().await, [lane], "promoted");
    bench.store.register_worker(bench.worker, "here", &Served::default()).await.unwrap();
    let claim = bench.claim_one().await;
    let made = bench.made("a", "none", b"1", vec![]);
    bench.store.commit_finished_jobs(&[bench.finished(claim, run, made)]).await.unwrap();
    assert_eq!(lanes().await, [lane], "released by its input");
}
