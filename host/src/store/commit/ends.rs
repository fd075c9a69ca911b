//! Ends: the final state of jobs, what follows for those that need them, and the counters of their runs.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    release::release_dependents,
    values::{Committed, EndedJob, Ending, FinishedJob, job_name},
};
use crate::{
    id::{JobId, MaterializationId, RunId},
    store::{StoreError, column, error::Doing as _},
};

/// A job's end on its way to `job_end`.
pub(in crate::store) struct End {
    pub(in crate::store) tenant: String,
    pub(in crate::store) job: JobId,
    pub(in crate::store) run: RunId,
    pub(in crate::store) name: String,
    pub(in crate::store) state: &'static str,
    pub(in crate::store) cause: Option<String>,
    /// Why those that need it are skipped: the first job that was not made, by name.
    pub(in crate::store) first_cause: Option<String>,
    pub(in crate::store) materialization: Option<MaterializationId>,
    pub(in crate::store) reused: bool,
}

impl End {
    pub(super) fn of(item: &FinishedJob) -> Option<Self> {
        let (state, cause, materialization, reused) = match &item.ending {
            Ending::Materialized(new) => ("succeeded", None, Some(new.id), new.reused_from.is_some()),
            Ending::UpToDate(id) => ("succeeded", None, Some(*id), true),
            Ending::Skipped(cause) => ("skipped", Some(cause.clone()), None, false),
            Ending::Failed(cause) => ("failed", Some(cause.clone()), None, false),
            Ending::Cancelled(cause) => ("cancelled", Some(cause.clone()), None, false),
            Ending::Deferred { .. } | Ending::Released => return None,
        };
        Some(Self {
            tenant: item.claim.tenant.clone(),
            job: item.claim.job,
            run: item.run,
            name: item.name.clone(),
            state,
            cause,
            first_cause: None,
            materialization,
            reused,
        })
    }
}

/// Ends jobs, skips what cannot run without them, releases what waited for them, and counts for their runs.
pub(in crate::store) async fn end_jobs(connection: &mut PgConnection, ends: Vec<End>) -> Result<Committed, StoreError> {
    if ends.is_empty() {
        return Ok(Committed::default());
    }
    insert_ends(connection, &ends).await?;
    let mut all = ends;
    let mut first = 0;
    // Wave by wave: the dependents of what did not succeed, then theirs, each with the name of the first cause.
    while first < all.len() {
        let wave: Vec<&End> = all[first..].iter().filter(|end| end.materialization.is_none()).collect();
        let next = if wave.is_empty() { Vec::new() } else { skip_dependents(connection, &wave).await? };
        first = all.len();
        all.extend(next);
    }
    let released = release_dependents(connection, &all).await?;
    record_ends(connection, &all).await?;
    count_for_runs(connection, &all).await?;
    let ended = all
        .into_iter()
        .map(|end| EndedJob {
            job: end.job,
            run: end.run,
            state: end.state,
            cause: end.cause,
            reused: end.reused,
            materialization: end.materialization,
        })
        .collect();
    Ok(Committed { ended, released, ..Committed::default() })
}

async fn insert_ends(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into job_end (tenant_id, job_id, state, cause, materialization_id, reused)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bool[])",
        &column(ends, |end| end.tenant.clone()),
        &column(ends, |end| end.job.0),
        &column(ends, |end| end.state.to_owned()),
        &column(ends, |end| end.cause.clone()) as &[Option<String>],
        &column(ends, |end| end.materialization.map(|id| id.0)) as &[Option<Uuid>],
        &column(ends, |end| end.reused),
    )
    .execute(connection)
    .await
    .doing("ending jobs")?;
    Ok(())
}

async fn skip_dependents(connection: &mut PgConnection, wave: &[&End]) -> Result<Vec<End>, StoreError> {
    let rows = sqlx::query!(
        r#"with hit as (
               select distinct on (i.tenant_id, i.job_id) i.tenant_id, i.job_id, w.cause
               from unnest($1::text[], $2::uuid[], $3::text[]) as w (tenant_id, job_id, cause)
               cross join lateral (
                   select * from job_input where tenant_id = w.tenant_id and upstream_job_id = w.job_id offset 0) i
               where not i.optional order by i.tenant_id, i.job_id),
           waiting as (
               select w.tenant_id, w.job_id, hit.cause from hit cross join lateral (
                   select b.tenant_id, b.job_id from job_blocked b
                   where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
           gone as (
               delete from job_blocked b using waiting
               where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               returning b.tenant_id, b.job_id, waiting.cause),
           ended as (
               insert into job_end (tenant_id, job_id, state, cause, reused)
               select tenant_id, job_id, 'skipped', cause, false from gone)
           select gone.tenant_id, gone.job_id, gone.cause as "cause!", j.run_id, a.name, j.partition_key
           from gone join job j on j.tenant_id = gone.tenant_id and j.job_id = gone.job_id
           join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
           join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id"#,
        &column(wave, |end| end.tenant.clone()),
        &column(wave, |end| end.job.0),
        &column(wave, |end| match &end.first_cause {
            Some(cause) => cause.clone(),
            None => format!("input {} was not made: it {}", end.name, end.state),
        }),
    )
    .fetch_all(connection)
    .await
    .doing("skipping what cannot run")?;
    Ok(rows
        .into_iter()
        .map(|row| End {
            tenant: row.tenant_id,
            job: JobId(row.job_id),
            run: RunId(row.run_id),
            name: job_name(&row.name, &row.partition_key),
            state: "skipped",
            first_cause: Some(row.cause.clone()),
            cause: Some(row.cause),
            materialization: None,
            reused: false,
        })
        .collect())
}

/// One line of audit and one of the outbox for each end.
async fn record_ends(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    sqlx::query!(
        "with ended as (
             select tenant_id, run_id, job_id, name, state, jsonb_strip_nulls(jsonb_build_object(
                 'run', run_id, 'job', job_id, 'cause', cause, 'materialization', materialization_id)) as details
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::uuid[])
                 as e (tenant_id, run_id, job_id, name, state, cause, materialization_id)),
         audited as (
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'worker', 'job.' || state, name, details from ended)
         insert into outbox (tenant_id, topic, payload)
         select tenant_id, 'job.' || state, details || jsonb_build_object('name', name) from ended",
        &column(ends, |end| end.tenant.clone()),
        &column(ends, |end| end.run.0),
        &column(ends, |end| end.job.0),
        &column(ends, |end| end.name.clone()),
        &column(ends, |end| end.state.to_owned()),
        &column(ends, |end| end.cause.clone()) as &[Option<String>],
        &column(ends, |end| end.materialization.map(|id| id.0)) as &[Option<Uuid>],
    )
    .execute(connection)
    .await
    .doing("writing audit and outbox")?;
    Ok(())
}

/// Moves the runs' counters; the last job ends its run.
async fn count_for_runs(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    sqlx::query!(
        "with c as (
             select tenant_id, run_id,
                 count(*) filter (where state = 'succeeded')::int as succeeded,
                 count(*) filter (where reused)::int as reused,
                 count(*) filter (where state = 'skipped')::int as skipped,
                 count(*) filter (where state = 'failed')::int as failed,
                 count(*) filter (where state = 'cancelled')::int as cancelled,
                 count(*)::int as ended
             from unnest($1::text[], $2::uuid[], $3::text[], $4::bool[]) as e (tenant_id, run_id, state, reused)
             group by tenant_id, run_id),
         locked as (
             select r.tenant_id, r.run_id from run r join c using (tenant_id, run_id)
             order by r.tenant_id, r.run_id for update of r),
         counted as (
             update run r set
                 succeeded = r.succeeded + c.succeeded, reused = r.reused + c.reused, skipped = r.skipped + c.skipped,
                 failed = r.failed + c.failed, cancelled = r.cancelled + c.cancelled,
                 state = case
                     when r.succeeded + r.skipped + r.failed + r.cancelled + c.ended < r.jobs then r.state
                     when r.failed + c.failed > 0 then 'failed'
                     when r.cancelled + c.cancelled > 0 then 'cancelled'
                     else 'succeeded' end,
                 finished_at = case
                     when r.succeeded + r.skipped + r.failed + r.cancelled + c.ended < r.jobs then null
                     else clock_timestamp() end
             from c join locked using (tenant_id, run_id)
             where r.tenant_id = c.tenant_id and r.run_id = c.run_id
             returning r.tenant_id, r.run_id, r.state)
         insert into outbox (tenant_id, topic, payload)
         select tenant_id, 'run.' || state, jsonb_build_object('run', run_id) from counted where state <> 'running'",
        &column(ends, |end| end.tenant.clone()),
        &column(ends, |end| end.run.0),
        &column(ends, |end| end.state.to_owned()),
        &column(ends, |end| end.reused),
    )
    .execute(connection)
    .await
    .doing("counting for runs")?;
    Ok(())
}
