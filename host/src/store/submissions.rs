//! Submitting: a run and all its jobs, written at once; and submissions that their clients can repeat, for which the same
//! key again is the run that it made.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::{
    Connection, Store, StoreError, announcements::commit_and_announce, column, digest, error::Doing as _,
    retention::is_any_expired,
};
use crate::{
    blob::Digest,
    id::{AssetVersionId, BackfillId, JobId, MaterializationId, PipelineId, PipelineVersionId, RunId, WorkerId},
    limit::INSERT_ROWS_MAX,
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

/// What was submitted under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The run that it made.
    pub run: RunId,
    /// Of what was asked for.
    pub request: Digest,
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

    /// What a tenant's client has submitted under a key.
    pub async fn find_submission(&self, tenant: &str, key: &str) -> Result<Option<Submission>, StoreError> {
        let row = sqlx::query!(
            "select run_id, request_digest from submission where tenant_id = $1 and idempotency_key = $2",
            tenant,
            key,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for an earlier submission")?;
        row.map(|row| Ok(Submission { run: RunId(row.run_id), request: digest(row.request_digest)? })).transpose()
    }

    /// Writes a run under a key, as [`Self::submit_run`] does, unless the key has one. False: it has, and nothing is
    /// written. Of two at the same time one waits here until the other's transaction has ended.
    pub async fn submit_run_once(&self, run: &NewRun, key: &str, request: Digest) -> Result<bool, StoreError> {
        const DOING: &str = "submitting a run once";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let taken = sqlx::query!(
            "insert into submission (tenant_id, idempotency_key, request_digest, run_id) values ($1, $2, $3, $4)
             on conflict do nothing",
            run.tenant,
            key,
            &request.0[..],
            run.id.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        insert_run(&mut transaction, run, "user", Durable::ByCommit).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
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
