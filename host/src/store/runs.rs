//! Runs: following them, cancelling them.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    commit::{Committed, End, end_jobs, job_name},
    error::Doing as _,
    permits::limited_cause,
    quotas::quota_cause,
};
use crate::{
    id::{JobId, MaterializationId, RunId},
    limit::LIST_ROWS_MAX,
};

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

impl Store {
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
