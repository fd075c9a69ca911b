//! Ends: the final state of jobs, what follows for those that need them, and the counters of their runs.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::{
    joined::{end_joined, give_up_keys},
    release::Release,
    values::{Committed, EndedJob, Ending, FinishedJob},
};
use crate::{
    blob::Digest,
    id::{JobId, MaterializationId, RunId},
    store::{Connection, StoreError, column, error::Doing as _},
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
    /// How many inputs of other jobs wait for it.
    pub(in crate::store) dependents: i32,
    /// The recipe of which it has to have the key to end like this.
    pub(in crate::store) needs_key: Option<Digest>,
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
            dependents: item.dependents,
            needs_key: match &item.ending {
                Ending::Materialized(new) if item.is_keyed => Some(new.recipe),
                _ => None,
            },
        })
    }
}

/// Ends jobs, and gives up the keys of their recipes; returns those whose key had gone although they need it.
pub(super) async fn end_themselves(connection: &mut Connection, ends: &[End]) -> Result<HashSet<JobId>, StoreError> {
    if ends.is_empty() {
        return Ok(HashSet::new());
    }
    insert_ends(connection, ends).await?;
    let given_up = give_up_keys(connection, ends).await?;
    let is_keyless = |end: &&End| end.needs_key.is_some_and(|recipe| !given_up.contains(&(end.job, recipe)));
    Ok(ends.iter().filter(is_keyless).map(|end| end.job).collect())
}

/// What follows for others when jobs have ended: those that had joined them end too, what cannot run without them is
/// skipped, what waited for them is released, and their runs count them.
pub(super) async fn end_followers(connection: &mut Connection, mut ends: Vec<End>) -> Result<Committed, StoreError> {
    if ends.is_empty() {
        return Ok(Committed::default());
    }
    // After the keys: whoever joined before they went is there to be seen.
    let joined = end_joined(connection, &ends).await?;
    ends.extend(joined.ends);
    let mut release = Release::default();
    release.add(connection, &ends).await?;
    let mut committed = finish_release(connection, release, ends).await?;
    committed.released += joined.ready;
    committed.put_off += usize::from(joined.is_partial);
    Ok(committed)
}

/// Ends jobs that make nothing, with all that follows.
pub(in crate::store) async fn end_jobs(connection: &mut Connection, ends: Vec<End>) -> Result<Committed, StoreError> {
    end_themselves(connection, &ends).await?;
    end_followers(connection, ends).await
}

/// Releases, and writes down what ended with it, beside what had ended before.
pub(super) async fn finish_release(
    connection: &mut Connection,
    mut release: Release,
    mut ends: Vec<End>,
) -> Result<Committed, StoreError> {
    // Wave by wave: the dependents of what did not succeed, then theirs, each with the name of the first cause.
    loop {
        let skipped = release.skip_next_wave(connection).await?;
        if skipped.is_empty() {
            break;
        }
        release.add(connection, &skipped).await?;
        ends.extend(skipped);
    }
    let released = release.count_down(connection).await?;
    let mut finished_runs = Vec::new();
    if !ends.is_empty() {
        finished_runs = record_ends(connection, &ends).await?;
    }
    let ended = ends
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
    Ok(Committed { ended, released, put_off: release.put_off, finished_runs, ..Committed::default() })
}

pub(super) async fn insert_ends(connection: &mut Connection, ends: &[End]) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into job_end (tenant_id, job_id, state, cause, materialization_id, reused)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bool[])",
        &column(ends, |end| &*end.tenant) as &[&str],
        &column(ends, |end| end.job.0),
        &column(ends, |end| end.state) as &[&str],
        &column(ends, |end| end.cause.as_deref()) as &[Option<&str>],
        &column(ends, |end| end.materialization.map(|id| id.0)) as &[Option<Uuid>],
        &column(ends, |end| end.reused),
    )
    .execute(connection)
    .await
    .doing("ending jobs")?;
    Ok(())
}

/// One line of audit and one of the outbox for the ends of one kind in one run: a line for each job would be a fifth of
/// all that a job writes. The runs' counters move with them; the last job ends its run: which did, and how. Of that the
/// outbox tells after the ends.
async fn record_ends(connection: &mut Connection, ends: &[End]) -> Result<Vec<(RunId, String)>, StoreError> {
    let mut groups: BTreeMap<(&str, RunId, &str), Vec<&End>> = BTreeMap::new();
    for end in ends {
        groups.entry((&end.tenant, end.run, end.state)).or_default().push(end);
    }
    groups.values_mut().for_each(|ends| ends.sort_by_key(|end| end.job));
    let groups: Vec<_> = groups.into_iter().collect();
    let finished = sqlx::query!(
        r#"with ended as materialized (
               select * from unnest($1::text[], $2::uuid[], $3::text[], $4::jsonb[], $5::int[], $6::int[])
                   as e (tenant_id, run_id, state, jobs, ended, reused)),
           audited as (
               insert into audit (tenant_id, actor, action, subject, details)
               select tenant_id, 'worker', 'job.' || state, run_id::text, jsonb_build_object('jobs', jobs) from ended),
           told as (
               insert into outbox (tenant_id, topic, payload)
               select tenant_id, 'job.' || state, jsonb_build_object('run', run_id, 'jobs', jobs) from ended
               returning 1),
           c as (
               select tenant_id, run_id, sum(ended)::int as ended, sum(reused)::int as reused,
                   coalesce(sum(ended) filter (where state = 'succeeded'), 0)::int as succeeded,
                   coalesce(sum(ended) filter (where state = 'skipped'), 0)::int as skipped,
                   coalesce(sum(ended) filter (where state = 'failed'), 0)::int as failed,
                   coalesce(sum(ended) filter (where state = 'cancelled'), 0)::int as cancelled
               from ended group by tenant_id, run_id),
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
           select tenant_id, 'run.' || state, jsonb_build_object('run', run_id) from counted
           where state <> 'running' and (select count(*) from told) > 0
           returning (payload ->> 'run')::uuid as "run_id!", substr(topic, 5) as "state!""#,
        &column(&groups, |((tenant, ..), _)| *tenant) as &[&str],
        &column(&groups, |((_, run, _), _)| run.0),
        &column(&groups, |((.., state), _)| *state) as &[&str],
        &column(&groups, |(_, ends)| serde_json::Value::Array(ends.iter().map(|end| record_of(end)).collect())),
        &column(&groups, |(_, ends)| ends.len() as i32),
        &column(&groups, |(_, ends)| ends.iter().filter(|end| end.reused).count() as i32),
    )
    .fetch_all(connection)
    .await
    .doing("recording the ends of jobs")?;
    Ok(finished.into_iter().map(|row| (RunId(row.run_id), row.state)).collect())
}

/// What is told of one job. Postgres would build it from its columns at ten times the cost.
fn record_of(end: &End) -> serde_json::Value {
    let mut record = serde_json::json!({"job": end.job, "name": end.name});
    if let Some(cause) = &end.cause {
        record["cause"] = cause.as_str().into();
    }
    if let Some(materialization) = end.materialization {
        record["materialization"] = materialization.to_string().into();
    }
    record
}
