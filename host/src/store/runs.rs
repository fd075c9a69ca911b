//! Runs: submitting a plan, following it, cancelling it.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    announcements::commit_and_announce,
    column,
    commit::{Committed, End, end_jobs, job_name},
    error::Doing as _,
    permits::limited_cause,
    quotas::quota_cause,
    retention::is_any_expired,
};
use crate::{
    id::{
        AssetVersionId, AttemptId, BackfillId, JobId, MaterializationId, PipelineId, PipelineVersionId, RunId, WorkerId,
    },
    limit::{INSERT_ROWS_MAX, LIST_ROWS_MAX},
    pipeline::policy::Route,
};

/// A plan on its way to the database.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: String,
    /// Of what.
    pub pipeline: PipelineId,
    /// Of which deploy.
    pub pipeline_version: PipelineVersionId,
    /// The process that waits for it; nobody when it is detached.
    pub owner: Option<WorkerId>,
    /// Whose window it is, if it is one.
    pub backfill: Option<BackfillId>,
    /// What was asked for, for people.
    pub request: serde_json::Value,
    /// Whether anybody else may see what its attempts do before anything of it is committed: then it must be on disk before
    /// they begin.
    pub reaches_out: bool,
    /// Each after those that it reads.
    pub jobs: Vec<NewJob>,
}

/// One planned job.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// What it makes.
    pub asset_version: AssetVersionId,
    /// Canonical text.
    pub partition_key: String,
    /// Where it queues.
    pub route: Route,
    /// Why.
    pub reason: String,
    /// Whether an earlier result may not be used again.
    pub forced: bool,
    /// What it reads.
    pub inputs: Vec<NewJobInput>,
}

/// One version that a planned job reads.
#[derive(Clone, Debug)]
pub struct NewJobInput {
    /// The input's name.
    pub input: String,
    /// Among the versions of that input.
    pub position: i32,
    /// Whether the job can run without it.
    pub optional: bool,
    /// Where it comes from.
    pub origin: InputOrigin,
}

/// Where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputOrigin {
    /// A job of the same run.
    Job(JobId),
    /// What was there before.
    Materialization(MaterializationId),
    /// Nothing: only of an optional input.
    Absent,
}

/// A run as its row tells.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's version.
    pub version: i32,
    /// `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// In all.
    pub jobs: i32,
    /// Ended so far, by how.
    pub succeeded: i32,
    /// Of those that succeeded, without running.
    pub reused: i32,
    /// Ended so far, by how.
    pub skipped: i32,
    /// Ended so far, by how.
    pub failed: i32,
    /// Ended so far, by how.
    pub cancelled: i32,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Milliseconds since 1970.
    pub finished_at_ms: Option<i64>,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// What was asked for.
    pub request: serde_json::Value,
}

/// A job as its rows tell.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What it makes.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// Why it was planned.
    pub reason: String,
    /// `blocked`, `ready`, `deferred`, `paused`, `joined`, `limited`, `running`, or a final state.
    pub state: String,
    /// Why, unless it succeeded.
    pub cause: Option<String>,
    /// Whether it succeeded without running.
    pub reused: bool,
    /// What it made.
    pub materialization: Option<MaterializationId>,
    /// The run whose job it waits for.
    pub joined_run: Option<RunId>,
    /// Executions recorded.
    pub attempts: i64,
    /// Milliseconds since 1970.
    pub ended_at_ms: Option<i64>,
}

/// An attempt with its log.
#[derive(Clone, Debug)]
pub struct AttemptLog {
    /// Its id.
    pub id: AttemptId,
    /// What was being made.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// 1 for the first charged one.
    pub number: i32,
    /// How it ended.
    pub verdict: String,
    /// In words.
    pub message: Option<String>,
    /// Whether it counts.
    pub charged: bool,
    /// Units.
    pub fuel_used: i64,
    /// Summed over all memories.
    pub memory_bytes_peak: i64,
    /// From claim to verdict.
    pub duration_us: i64,
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    /// A JSON array of lines.
    pub log: Option<serde_json::Value>,
    /// Lines past the limit.
    pub log_dropped: i64,
    /// A JSON array.
    pub denials: Option<serde_json::Value>,
    /// A JSON array.
    pub uses: Option<serde_json::Value>,
}

impl Store {
    /// Writes a run and all its jobs in one transaction: jobs without a pending input are ready at its end.
    ///
    /// Unless it reaches out, workers see the run before it is on disk, and begin; whoever submits it is answered
    /// afterwards. A server that crashes in between forgets the run and all that was made of it, as if it had not been
    /// submitted, and the connection with it: over a pooler's, which outlives the server, nothing follows the commit.
    pub async fn submit_run(&self, run: &NewRun) -> Result<(), StoreError> {
        const DOING: &str = "submitting a run";
        let durable = match run.reaches_out || !self.pool.has_own_sessions() {
            true => Durable::ByCommit,
            false => Durable::ByWhatFollows,
        };
        let began = match is_one_statement(run) {
            true => self.pool.begin_single().await,
            false => self.pool.begin().await,
        };
        let mut transaction = began.doing(DOING)?;
        insert_run(&mut transaction, run, "user", durable).await?;
        commit_and_announce(transaction, durable).await.doing(DOING)
    }

    /// One run.
    pub async fn find_run(&self, tenant: &str, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.select_runs(tenant, Some(run.0), None, 1).await?.pop())
    }

    /// The newest runs first, of one pipeline or of all.
    pub async fn list_runs(
        &self,
        tenant: &str,
        pipeline: Option<&str>,
        limit: i64,
    ) -> Result<Vec<RunRecord>, StoreError> {
        self.select_runs(tenant, None, pipeline, limit.min(LIST_ROWS_MAX)).await
    }

    async fn select_runs(
        &self,
        tenant: &str,
        run: Option<Uuid>,
        pipeline: Option<&str>,
        limit: i64,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select r.run_id, p.name as pipeline, v.number, r.state, r.jobs, r.succeeded, r.reused, r.skipped, r.failed,
                      r.cancelled, (extract(epoch from r.created_at) * 1000)::bigint as "created_at_ms!",
                      (extract(epoch from r.finished_at) * 1000)::bigint as finished_at_ms,
                      (r.cancel_requested_at is not null) as "cancel_requested!", r.request
               from run r
               join pipeline_version v on v.tenant_id = r.tenant_id and v.pipeline_version_id = r.pipeline_version_id
               join pipeline p on p.tenant_id = v.tenant_id and p.pipeline_id = v.pipeline_id
               where r.tenant_id = $1 and ($2::uuid is null or r.run_id = $2) and ($3::text is null or p.name = $3)
               order by r.run_id desc limit $4"#,
            tenant,
            run as Option<Uuid>,
            pipeline as Option<&str>,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading runs")?;
        Ok(rows
            .into_iter()
            .map(|row| RunRecord {
                id: RunId(row.run_id),
                pipeline: row.pipeline,
                version: row.number,
                state: row.state,
                jobs: row.jobs,
                succeeded: row.succeeded,
                reused: row.reused,
                skipped: row.skipped,
                failed: row.failed,
                cancelled: row.cancelled,
                created_at_ms: row.created_at_ms,
                finished_at_ms: row.finished_at_ms,
                cancel_requested: row.cancel_requested,
                request: row.request,
            })
            .collect())
    }

    /// The jobs of a run in the order of its plan, after a job, a page at a time.
    pub async fn list_jobs(
        &self,
        tenant: &str,
        run: RunId,
        after: Option<JobId>,
        limit: i64,
    ) -> Result<Vec<JobRecord>, StoreError> {
        let rows = sqlx::query!(
            r#"select j.job_id, a.name as asset, j.partition_key, j.reason, e.cause as "cause?",
                      coalesce(e.reused, false) as "reused!", e.materialization_id as "materialization_id?",
                      (extract(epoch from e.ended_at) * 1000)::bigint as ended_at_ms,
                      (select count(*) from attempt t where t.tenant_id = j.tenant_id and t.job_id = j.job_id)
                          as "attempts!",
                      (select f.run_id from job f where f.tenant_id = w.tenant_id and f.job_id = w.joined_id)
                          as joined_run_id, o.name as "pool?", m.quota as "quota?",
                      coalesce(e.state,
                          case when l.job_id is not null then 'running'
                               when q.job_id is not null then 'ready'
                               when d.job_id is not null then 'deferred'
                               when p.job_id is not null then 'paused'
                               when w.job_id is not null then 'joined'
                               when m.job_id is not null then 'limited'
                               else 'blocked' end) as "state!"
               from job j
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               left join job_end e on e.tenant_id = j.tenant_id and e.job_id = j.job_id
               left join job_lease l on l.tenant_id = j.tenant_id and l.job_id = j.job_id
               left join job_ready q on q.tenant_id = j.tenant_id and q.job_id = j.job_id
               left join job_deferred d on d.tenant_id = j.tenant_id and d.job_id = j.job_id
               left join job_paused p on p.tenant_id = j.tenant_id and p.job_id = j.job_id
               left join job_joined w on w.tenant_id = j.tenant_id and w.job_id = j.job_id
               left join job_limited m on m.tenant_id = j.tenant_id and m.job_id = j.job_id
               left join pool o on o.pool_id = m.pool_id
               where j.tenant_id = $1 and j.run_id = $2 and j.job_id > $3
               order by j.job_id limit $4"#,
            tenant,
            run.0,
            after.map_or(Uuid::nil(), |job| job.0),
            limit.min(LIST_ROWS_MAX),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading the jobs of a run")?;
        Ok(rows
            .into_iter()
            .map(|row| JobRecord {
                id: JobId(row.job_id),
                asset: row.asset,
                partition_key: row.partition_key,
                reason: row.reason,
                state: row.state,
                cause: row
                    .cause
                    .or_else(|| row.pool.as_deref().map(limited_cause))
                    .or_else(|| row.quota.as_deref().map(quota_cause)),
                reused: row.reused,
                materialization: row.materialization_id.map(MaterializationId),
                joined_run: row.joined_run_id.map(RunId),
                attempts: row.attempts,
                ended_at_ms: row.ended_at_ms,
            })
            .collect())
    }

    /// The asset and partition of each job of a run that ended without a result, in the order of its plan.
    pub async fn list_unmade(&self, tenant: &str, run: RunId) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query!(
            "select a.name, j.partition_key from job j
             join job_end e on e.tenant_id = j.tenant_id and e.job_id = j.job_id and e.state <> 'succeeded'
             join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
             join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
             where j.tenant_id = $1 and j.run_id = $2
             order by j.job_id",
            tenant,
            run.0,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading what a run left unmade")?;
        Ok(rows.into_iter().map(|row| (row.name, row.partition_key)).collect())
    }

    /// The attempts of the jobs with these ids, oldest first.
    pub async fn list_attempts_of(&self, tenant: &str, jobs: &[JobId]) -> Result<Vec<AttemptLog>, StoreError> {
        sqlx::query_as!(
            AttemptLog,
            r#"select t.attempt_id as "id: AttemptId", a.name as asset, j.partition_key, t.number, t.verdict, t.message,
                      t.charged, t.fuel_used, t.memory_bytes_peak, t.duration_us,
                      (extract(epoch from t.started_at) * 1000)::bigint as "started_at_ms!",
                      t.log, t.log_dropped, t.denials, t.uses
               from unnest($2::uuid[]) as c (job_id)
               cross join lateral (select * from job where tenant_id = $1 and job_id = c.job_id offset 0) j
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               cross join lateral (select * from attempt where tenant_id = $1 and job_id = j.job_id offset 0) t
               order by t.started_at, t.attempt_id"#,
            tenant,
            &column(jobs, |job| job.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading logs")
    }

    /// The attempts of a run with their logs, oldest first, of one asset and partition or of all.
    pub async fn list_attempts(
        &self,
        tenant: &str,
        run: RunId,
        asset: Option<&str>,
        partition_key: Option<&str>,
        limit: i64,
    ) -> Result<Vec<AttemptLog>, StoreError> {
        sqlx::query_as!(
            AttemptLog,
            r#"select t.attempt_id as "id: AttemptId", a.name as asset, j.partition_key, t.number, t.verdict, t.message,
                      t.charged, t.fuel_used, t.memory_bytes_peak, t.duration_us,
                      (extract(epoch from t.started_at) * 1000)::bigint as "started_at_ms!",
                      t.log, t.log_dropped, t.denials, t.uses
               from job j
               join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
               join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
               join attempt t on t.tenant_id = j.tenant_id and t.job_id = j.job_id
               where j.tenant_id = $1 and j.run_id = $2 and ($3::text is null or a.name = $3)
                 and ($4::text is null or j.partition_key = $4)
               order by t.started_at, t.attempt_id limit $5"#,
            tenant,
            run.0,
            asset as Option<&str>,
            partition_key as Option<&str>,
            limit.min(LIST_ROWS_MAX),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading logs")
    }

    /// Asks for a run's end: what waits is cancelled now, what runs is stopped by its worker, and what comes back to the
    /// queue meanwhile is ended by whichever worker looks next. False when the run is unknown or already over.
    pub async fn cancel_run(&self, tenant: &str, run: RunId, cause: &str) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await.doing("cancelling a run")?;
        let found = sqlx::query!(
            "update run set cancel_requested_at = coalesce(cancel_requested_at, now()),
                 cancel_cause = coalesce(cancel_cause, $3)
             where tenant_id = $1 and run_id = $2 and state = 'running'",
            tenant,
            run.0,
            cause,
        )
        .execute(&mut *transaction)
        .await
        .doing("cancelling a run")?;
        if found.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!(
            "insert into audit (tenant_id, actor, action, subject, details)
             values ($1, 'user', 'run.cancel-requested', $2, jsonb_build_object('cause', $3::text))",
            tenant,
            run.to_string(),
            cause,
        )
        .execute(&mut *transaction)
        .await
        .doing("cancelling a run")?;
        transaction.commit().await.doing("cancelling a run")?;
        self.end_waiting_jobs_of_cancelled_runs().await?;
        Ok(true)
    }

    /// Ends the jobs that wait in the queue although their run was cancelled. A commit locks blocked rows first and
    /// runs last, and so does this.
    pub async fn end_waiting_jobs_of_cancelled_runs(&self) -> Result<Committed, StoreError> {
        const DOING: &str = "ending the jobs of cancelled runs";
        let mut committed = Committed::default();
        let runs = sqlx::query!(
            r#"select tenant_id, run_id, coalesce(cancel_cause, 'the run was cancelled') as "cause!" from run
               where state = 'running' and cancel_requested_at is not null order by tenant_id, run_id"#
        )
        .fetch_all(&self.pool)
        .await
        .doing(DOING)?;
        for run in runs {
            let mut transaction = self.pool.begin().await.doing(DOING)?;
            let waiting = remove_waiting_jobs(&mut transaction, &run.tenant_id, RunId(run.run_id), &run.cause).await?;
            let ended = end_jobs(&mut transaction, waiting).await?;
            transaction.commit().await.doing(DOING)?;
            committed.ended.extend(ended.ended);
        }
        Ok(committed)
    }

    /// Ends the runs whose process is gone: nobody waits for them, a new run plans anew what they left, and a process
    /// that was asked for something else must not work it off.
    pub async fn end_abandoned_runs(&self) -> Result<(), StoreError> {
        let runs = sqlx::query!(
            "select r.tenant_id, r.run_id from run r
             where r.state = 'running' and r.cancel_requested_at is null and r.owner_id is not null
               and not exists (select 1 from worker w where w.worker_id = r.owner_id)",
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for abandoned runs")?;
        for run in runs {
            let cause = "its process is gone; the next run plans anew what it left";
            self.cancel_run(&run.tenant_id, RunId(run.run_id), cause).await?;
        }
        Ok(())
    }
}

/// Who has a submission wait until it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// Its commit.
    ByCommit,
    /// What follows the commit: workers see the run meanwhile.
    ByWhatFollows,
}

/// Whether [`insert_run`] writes a run with a single statement, which needs no transaction around it.
fn is_one_statement(run: &NewRun) -> bool {
    run.jobs.len() <= INSERT_ROWS_MAX && run.jobs.iter().all(|job| job.inputs.is_empty())
}

/// Writes a run and all its jobs, on behalf of an actor.
pub(super) async fn insert_run(
    connection: &mut Connection,
    run: &NewRun,
    actor: &str,
    durable: Durable,
) -> Result<(), StoreError> {
    let routes = run.jobs.iter().map(|job| &job.route).collect();
    let parts = Parts { run, dependents: count_dependents(run), routes };
    let (first, others) = run.jobs.split_at(run.jobs.len().min(INSERT_ROWS_MAX));
    let begin = Begin { actor, durable };
    // Again only while others make the same lanes, which never go.
    while !parts.insert(connection, Some(&begin), first).await? {}
    for jobs in others.chunks(INSERT_ROWS_MAX) {
        while !parts.insert(connection, None, jobs).await? {}
    }
    let inputs: Vec<(JobId, &NewJobInput)> =
        run.jobs.iter().flat_map(|job| job.inputs.iter().map(|input| (job.id, input))).collect();
    for inputs in inputs.chunks(INSERT_ROWS_MAX) {
        insert_inputs(connection, &run.tenant, inputs).await?;
    }
    Ok(())
}

/// How many inputs wait for each job that any waits for.
fn count_dependents(run: &NewRun) -> HashMap<JobId, i32> {
    let mut dependents = HashMap::new();
    for input in run.jobs.iter().flat_map(|job| &job.inputs) {
        if let InputOrigin::Job(upstream) = input.origin {
            *dependents.entry(upstream).or_default() += 1;
        }
    }
    dependents
}

/// A run on its way to the database, part by part.
struct Parts<'a> {
    run: &'a NewRun,
    /// Of each job that any waits for, how many inputs do.
    dependents: HashMap<JobId, i32>,
    /// Of all its jobs: lanes that are missing are made with the first part, in one order in every process.
    routes: BTreeSet<&'a Route>,
}

/// What goes with the first part: the run's own row and the audit's.
struct Begin<'a> {
    actor: &'a str,
    durable: Durable,
}

impl Parts<'_> {
    /// Some of its jobs, with their places in the queue: those that wait for no other job are ready when this is committed.
    /// False: another transaction has made one of the lanes at this moment, and nothing but lanes is written.
    ///
    /// With a new lane the commit waits for the disk: workers keep what they have seen of lanes for good.
    async fn insert(
        &self,
        connection: &mut Connection,
        begin: Option<&Begin<'_>>,
        jobs: &[NewJob],
    ) -> Result<bool, StoreError> {
        let run = self.run;
        let is_awaited = |input: &&NewJobInput| matches!(input.origin, InputOrigin::Job(_));
        let awaited = |job: &NewJob| job.inputs.iter().filter(is_awaited).count() as i32;
        // Counted from 1, as the server does.
        let places: HashMap<&Route, i64> = self.routes.iter().copied().zip(1..).collect();
        sqlx::query_scalar!(
            r#"with route as materialized (
                 select r.*, l.lane_id
                 from rows from (jsonb_to_recordset($8) as (queue text, priority smallint, tags text[]))
                     with ordinality as r (queue, priority, tags, place)
                 left join lateral (
                     select lane_id from lane where tenant_id = $1 and pipeline_id = $9
                         and queue = r.queue and priority = r.priority and tags = r.tags offset 0) l on true),
             hasty as materialized (
                 select set_config('synchronous_commit',
                     case when $3 and not exists (select from route where lane_id is null) then 'off'
                     else current_setting('synchronous_commit') end, true)),
             made as (
                 insert into lane (tenant_id, pipeline_id, queue, priority, tags)
                 select $1, $9, queue, priority, tags from route where lane_id is null order by place
                 on conflict on constraint lane_is_one do nothing returning lane_id, queue, priority, tags),
             known_route as materialized (
                 select r.place, coalesce(r.lane_id, m.lane_id) as lane_id from route r
                 left join made m using (queue, priority, tags)),
             complete as materialized (
                 select from hasty where not exists (select from known_route where lane_id is null)),
             submitted as materialized (
                 select s.*, r.lane_id from complete
                 cross join unnest((select $10::uuid[]), $11::uuid[], $12::text[], $13::text[], $14::bool[], $15::int[],
                     $16::int[], $17::int[], $18::bigint[])
                     as s (job_id, asset_version_id, partition_key, reason, forced, inputs, dependents, remaining, place)
                 join known_route r using (place)),
             begun as (
                 insert into run
                     (tenant_id, run_id, pipeline_version_id, owner_id, request, jobs, state, finished_at, backfill_id)
                 select $1, $2, $19, $20, $5, $6, case when $6 = 0 then 'succeeded' else 'running' end,
                     case when $6 = 0 then now() end, $21
                 from complete where $4::text is not null),
             audited as (
                 insert into audit (tenant_id, actor, action, subject, details)
                 select $1, $4, 'run.submitted', $7, jsonb_build_object('jobs', $6::int, 'request', $5::jsonb)
                 from complete where $4::text is not null),
             known as (
                 insert into job (tenant_id, run_id, job_id, asset_version_id, partition_key, reason, forced, inputs, dependents)
                 select $1, $2, job_id, asset_version_id, partition_key, reason, forced, inputs, dependents from submitted),
             blocked as (
                 insert into job_blocked (tenant_id, job_id, lane_id, remaining)
                 select $1, job_id, lane_id, remaining from submitted where remaining > 0),
             ready as (
                 insert into job_ready (tenant_id, job_id, lane_id)
                 select $1, job_id, lane_id from submitted where remaining = 0)
             select exists (select from complete) as "complete!""#,
            run.tenant,
            run.id.0,
            begin.is_some_and(|begin| begin.durable == Durable::ByWhatFollows),
            begin.map(|begin| begin.actor),
            run.request,
            run.jobs.len() as i32,
            run.id.to_string(),
            serde_json::json!(self.routes),
            run.pipeline.0,
            &column(jobs, |job| job.id.0),
            &column(jobs, |job| job.asset_version.0),
            &column(jobs, |job| &*job.partition_key) as &[&str],
            &column(jobs, |job| &*job.reason) as &[&str],
            &column(jobs, |job| job.forced),
            &column(jobs, |job| job.inputs.len() as i32),
            &column(jobs, |job| self.dependents.get(&job.id).copied().unwrap_or(0)),
            &column(jobs, |job| awaited(job)),
            &column(jobs, |job| places[&job.route]),
            run.pipeline_version.0,
            run.owner.map(|owner| owner.0) as Option<Uuid>,
            run.backfill.map(|backfill| backfill.0) as Option<Uuid>,
        )
        .fetch_one(connection)
        .await
        .doing("submitting a run")
    }
}

async fn insert_inputs(
    connection: &mut Connection,
    tenant: &str,
    inputs: &[(JobId, &NewJobInput)],
) -> Result<(), StoreError> {
    let origin = |input: &NewJobInput| match input.origin {
        InputOrigin::Job(job) => (Some(job.0), None),
        InputOrigin::Materialization(id) => (None, Some(id.0)),
        InputOrigin::Absent => (None, None),
    };
    sqlx::query!(
        "insert into job_input (tenant_id, job_id, input, position, optional, upstream_job_id, materialization_id)
         select $1, * from unnest($2::uuid[], $3::text[], $4::int[], $5::bool[], $6::uuid[], $7::uuid[])",
        tenant,
        &column(inputs, |(job, _)| job.0),
        &column(inputs, |(_, input)| input.input.clone()),
        &column(inputs, |(_, input)| input.position),
        &column(inputs, |(_, input)| input.optional),
        &column(inputs, |(_, input)| origin(input).0) as &[Option<Uuid>],
        &column(inputs, |(_, input)| origin(input).1) as &[Option<Uuid>],
    )
    .execute(&mut *connection)
    .await
    .doing("submitting the inputs of jobs")?;
    // Their rows are locked since, by the foreign key.
    let pinned = inputs.iter().filter_map(|(_, input)| origin(input).1);
    let pinned: Vec<Uuid> = pinned.collect::<HashSet<Uuid>>().into_iter().collect();
    match !pinned.is_empty() && is_any_expired(connection, tenant, &pinned).await? {
        true => Err(StoreError::Expired),
        false => Ok(()),
    }
}

/// Takes the jobs of a run that nobody works on out of the queue, wherever they wait.
async fn remove_waiting_jobs(
    connection: &mut Connection,
    tenant: &str,
    run: RunId,
    cause: &str,
) -> Result<Vec<End>, StoreError> {
    let rows = sqlx::query!(
        r#"with mine as materialized (
               select tenant_id, job_id from job where tenant_id = $1 and run_id = $2 order by job_id),
           locked as materialized (
               select w.tenant_id, w.job_id from mine cross join lateral (
                   select b.tenant_id, b.job_id from job_blocked b
                   where b.tenant_id = mine.tenant_id and b.job_id = mine.job_id for update) w),
           ready as (delete from job_ready q using mine
               where q.tenant_id = mine.tenant_id and q.job_id = mine.job_id returning q.tenant_id, q.job_id),
           deferred as (delete from job_deferred q using mine
               where q.tenant_id = mine.tenant_id and q.job_id = mine.job_id returning q.tenant_id, q.job_id),
           blocked as (delete from job_blocked q using locked
               where q.tenant_id = locked.tenant_id and q.job_id = locked.job_id returning q.tenant_id, q.job_id),
           parked as materialized (
               select w.tenant_id, w.job_id from mine cross join lateral (
                   select p.tenant_id, p.job_id from job_paused p
                   where p.tenant_id = mine.tenant_id and p.job_id = mine.job_id for update) w),
           paused as (delete from job_paused q using parked
               where q.tenant_id = parked.tenant_id and q.job_id = parked.job_id returning q.tenant_id, q.job_id),
           waiting as materialized (
               select w.tenant_id, w.job_id from mine cross join lateral (
                   select q.tenant_id, q.job_id from job_joined q
                   where q.tenant_id = mine.tenant_id and q.job_id = mine.job_id for update skip locked) w),
           joined as (delete from job_joined q using waiting
               where q.tenant_id = waiting.tenant_id and q.job_id = waiting.job_id returning q.tenant_id, q.job_id),
           held as materialized (
               select w.tenant_id, w.job_id from mine cross join lateral (
                   select q.tenant_id, q.job_id from job_limited q
                   where q.tenant_id = mine.tenant_id and q.job_id = mine.job_id for update skip locked) w),
           limited as (delete from job_limited q using held
               where q.tenant_id = held.tenant_id and q.job_id = held.job_id returning q.tenant_id, q.job_id),
           gone as (select * from ready union all select * from deferred union all select * from blocked
               union all select * from paused union all select * from joined union all select * from limited)
           select gone.job_id as "job_id!", a.name, j.partition_key from gone
           cross join lateral (
               select * from job where tenant_id = gone.tenant_id and job_id = gone.job_id offset 0) j
           join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
           join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id"#,
        tenant,
        run.0,
    )
    .fetch_all(connection)
    .await
    .doing("cancelling waiting jobs")?;
    Ok(rows
        .into_iter()
        .map(|row| End {
            tenant: tenant.to_owned(),
            job: JobId(row.job_id),
            run,
            name: job_name(&row.name, &row.partition_key),
            state: "cancelled",
            cause: Some(cause.to_owned()),
            first_cause: None,
            materialization: None,
            reused: false,
            // What needed it waited too, and is cancelled with it.
            dependents: 0,
            needs_key: None,
        })
        .collect())
}
