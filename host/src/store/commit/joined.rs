//! Joined: what becomes of the jobs that had joined one that has ended (`live_jobs.rs`).
//!
//! They end with it, in its transaction, where its end answers for them; otherwise they are ready again and run
//! themselves. A cancel answers for nobody else. A result does when it was made from the recipe that was wanted; for a
//! forced job also only when something ran for it. A failure does when the same version failed: another one may have
//! other limits.
//!
//! Nobody waits for a row of `job_joined`: the live job's end, a cancel of the joined one and the sweep each pass over
//! what another transaction has, and the sweep of any process finds what was passed over, or was more than one commit
//! takes.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    ends::{End, finish_release, insert_ends},
    release::Release,
    values::{Committed, job_name},
};
use crate::{
    blob::Digest,
    id::{JobId, MaterializationId, RunId},
    limit::{JOINED_ENDED_MAX, JOINED_SWEPT_MAX},
    store::{Connection, Store, StoreError, column, digest, error::Doing as _},
};

/// Where a sweep goes on.
pub type SweepPosition = (String, JobId);

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Swept {
    /// What became of the jobs that waited for nothing any more.
    pub committed: Committed,
    /// How many these were.
    pub jobs: usize,
    /// The last one that was looked at; none when there was none.
    pub position: Option<SweepPosition>,
}

/// What became of the jobs that had joined others.
#[derive(Default)]
pub(super) struct Settled {
    /// Those that ended.
    pub(super) ends: Vec<End>,
    /// How many are ready again.
    pub(super) ready: usize,
    /// Whether some may be left for the sweep.
    pub(super) is_partial: bool,
}

/// A joined job.
type Place = (String, Uuid);

/// A joined job that has to run itself: with what it had charged, how often it was released, and its lane.
type ReadyJob = (String, Uuid, i16, i16, i32);

impl Store {
    /// Looks at some of the jobs that have joined others, after a position, for those whose live job has ended or has
    /// given up the recipe.
    pub async fn sweep_joined_jobs(&self, after: Option<&SweepPosition>) -> Result<Swept, StoreError> {
        const DOING: &str = "looking at joined jobs";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let (position, left) = find_left(&mut transaction, after).await?;
        if left.is_empty() {
            return Ok(Swept { position, ..Swept::default() });
        }
        let left = lock(&mut transaction, &left).await?;
        let jobs = left.len();
        let mut settled = settle(&mut transaction, &left).await?;
        let more = end_joined(&mut transaction, &settled.ends).await?;
        settled.ends.extend(more.ends);
        let mut release = Release::default();
        release.add(&mut transaction, &settled.ends).await?;
        let mut committed = finish_release(&mut transaction, release, settled.ends).await?;
        committed.released += settled.ready + more.ready;
        transaction.commit().await.doing(DOING)?;
        Ok(Swept { committed, jobs, position })
    }
}

/// Gives up the keys of jobs that have ended, and from here on nobody joins them; returns which had one of which recipe.
pub(super) async fn give_up_keys(
    connection: &mut Connection,
    ends: &[End],
) -> Result<HashSet<(JobId, Digest)>, StoreError> {
    let keys = sqlx::query!(
        "delete from live_job where ctid = any(array(
             select k.place from unnest((select $1::text[]), $2::uuid[]) as e (tenant_id, job_id)
             cross join lateral (
                 select ctid as place from live_job
                 where job_id = e.job_id and tenant_id is not distinct from e.tenant_id offset 0) k))
         returning job_id, recipe",
        &column(ends, |end| &*end.tenant) as &[&str],
        &column(ends, |end| end.job.0),
    )
    .fetch_all(connection)
    .await
    .doing("giving up the keys of recipes")?;
    keys.into_iter().map(|key| Ok((JobId(key.job_id), digest(key.recipe)?))).collect()
}

/// Settles whoever had joined jobs that have ended, and whoever had joined those.
pub(super) async fn end_joined(connection: &mut Connection, ends: &[End]) -> Result<Settled, StoreError> {
    let mut all = Settled::default();
    let mut joined = lock_joined(connection, ends).await?;
    while !joined.is_empty() {
        all.is_partial |= joined.len() as i64 >= JOINED_ENDED_MAX;
        let settled = settle(connection, &joined).await?;
        joined = lock_joined(connection, &settled.ends).await?;
        all.ready += settled.ready;
        all.ends.extend(settled.ends);
    }
    Ok(all)
}

/// Takes jobs out of where they wait: to their ends, or to the ready table.
async fn settle(connection: &mut Connection, joined: &[Place]) -> Result<Settled, StoreError> {
    let rows = sqlx::query!(
        r#"with gone as (
               delete from job_joined q using unnest($1::text[], $2::uuid[]) as w (tenant_id, job_id)
               where q.tenant_id = w.tenant_id and q.job_id = w.job_id
               returning q.tenant_id, q.job_id, q.joined_id, q.recipe, q.charged, q.released, q.lane_id)
           select gone.tenant_id, gone.job_id, gone.charged, gone.released, gone.lane_id, j.run_id, j.forced, j.dependents, a.name,
                  j.partition_key, live.run_id as joined_run,
                  live.asset_version_id = j.asset_version_id as "same_version!",
                  coalesce(m.recipe = gone.recipe, false) as "same_recipe!",
                  e.state as "state?", e.cause as "cause?", e.materialization_id as "materialization_id?",
                  coalesce(e.reused, false) as "reused!"
           from gone
           cross join lateral (
               select * from job where tenant_id = gone.tenant_id and job_id = gone.job_id offset 0) j
           cross join lateral (
               select * from job where tenant_id = gone.tenant_id and job_id = gone.joined_id offset 0) live
           join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
           join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
           left join lateral (
               select * from job_end where tenant_id = gone.tenant_id and job_id = gone.joined_id offset 0) e on true
           left join lateral (
               select recipe from materialization
               where tenant_id = gone.tenant_id and materialization_id = e.materialization_id offset 0) m on true"#,
        &column(joined, |place| place.0.clone()),
        &column(joined, |place| place.1),
    )
    .fetch_all(&mut *connection)
    .await
    .doing("settling joined jobs")?;
    let mut settled = Settled::default();
    let mut ready: Vec<ReadyJob> = Vec::new();
    for row in rows {
        let answers = match row.state.as_deref() {
            Some("succeeded") => row.same_recipe && !(row.forced && row.reused),
            Some("skipped") => true,
            Some("failed") => row.same_version,
            _ => false,
        };
        let state = match row.state.as_deref() {
            Some("succeeded") if answers => "succeeded",
            Some("skipped") if answers => "skipped",
            Some("failed") if answers => "failed",
            _ => {
                ready.push((row.tenant_id, row.job_id, row.charged, row.released, row.lane_id));
                continue;
            }
        };
        let joined_run = RunId(row.joined_run);
        settled.ends.push(End {
            tenant: row.tenant_id,
            job: JobId(row.job_id),
            run: RunId(row.run_id),
            name: job_name(&row.name, &row.partition_key),
            state,
            cause: row.cause.map(|cause| format!("it had joined the job of run {joined_run}, which {state}: {cause}")),
            first_cause: None,
            materialization: row.materialization_id.map(MaterializationId),
            reused: state == "succeeded",
            dependents: row.dependents,
            needs_key: None,
        });
    }
    if !settled.ends.is_empty() {
        insert_ends(connection, &settled.ends).await?;
    }
    settled.ready = make_ready(connection, &ready).await?;
    Ok(settled)
}

async fn make_ready(connection: &mut Connection, jobs: &[ReadyJob]) -> Result<usize, StoreError> {
    if jobs.is_empty() {
        return Ok(0);
    }
    sqlx::query!(
        "insert into job_ready (tenant_id, job_id, charged, released, lane_id)
         select * from unnest($1::text[], $2::uuid[], $3::smallint[], $4::smallint[], $5::integer[])",
        &column(jobs, |job| job.0.clone()),
        &column(jobs, |job| job.1),
        &column(jobs, |job| job.2),
        &column(jobs, |job| job.3),
        &column(jobs, |job| job.4),
    )
    .execute(connection)
    .await
    .doing("making joined jobs ready")?;
    Ok(jobs.len())
}

/// Whoever has joined these, up to a bound: of one that very many have joined the sweep takes the rest.
async fn lock_joined(connection: &mut Connection, ends: &[End]) -> Result<Vec<Place>, StoreError> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"select q.tenant_id as "tenant_id!", q.job_id as "job_id!"
           from unnest($1::text[], $2::uuid[]) as e (tenant_id, job_id)
           cross join lateral (
               select tenant_id, job_id from job_joined
               where joined_id = e.job_id and tenant_id is not distinct from e.tenant_id
               order by job_id limit $3 for update skip locked) q
           limit $3"#,
        &column(ends, |end| &*end.tenant) as &[&str],
        &column(ends, |end| end.job.0),
        JOINED_ENDED_MAX,
    )
    .fetch_all(connection)
    .await
    .doing("looking for joined jobs")?;
    Ok(rows.into_iter().map(|row| (row.tenant_id, row.job_id)).collect())
}

/// Of these, the ones that no other transaction has.
async fn lock(connection: &mut Connection, joined: &[Place]) -> Result<Vec<Place>, StoreError> {
    let rows = sqlx::query!(
        r#"select q.tenant_id as "tenant_id!", q.job_id as "job_id!"
           from unnest($1::text[], $2::uuid[]) as w (tenant_id, job_id)
           cross join lateral (
               select tenant_id, job_id from job_joined where tenant_id = w.tenant_id and job_id = w.job_id
               for update skip locked) q"#,
        &column(joined, |place| place.0.clone()),
        &column(joined, |place| place.1),
    )
    .fetch_all(connection)
    .await
    .doing("looking for joined jobs")?;
    Ok(rows.into_iter().map(|row| (row.tenant_id, row.job_id)).collect())
}

/// The next joined jobs after a position: the last of them, and those that wait for nothing any more.
async fn find_left(
    connection: &mut Connection,
    after: Option<&SweepPosition>,
) -> Result<(Option<SweepPosition>, Vec<Place>), StoreError> {
    let rows = sqlx::query!(
        r#"with looked as materialized (
               select tenant_id, job_id, joined_id, recipe from job_joined
               where (tenant_id, job_id) > ($1, $2) order by tenant_id, job_id limit $3),
           judged as (
               select tenant_id, job_id, row_number() over (order by tenant_id desc, job_id desc) = 1 as is_last,
                      not exists (select from live_job k where k.job_id = looked.joined_id
                          and k.tenant_id is not distinct from looked.tenant_id and k.recipe = looked.recipe)
                      or exists (select from job_end e where e.tenant_id = looked.tenant_id
                          and e.job_id = looked.joined_id) as is_left
               from looked)
           select tenant_id, job_id, is_last as "is_last!", is_left as "is_left!" from judged where is_last or is_left"#,
        after.map_or("", |(tenant, _)| tenant),
        after.map_or(Uuid::nil(), |(_, job)| job.0),
        JOINED_SWEPT_MAX,
    )
    .fetch_all(connection)
    .await
    .doing("looking at joined jobs")?;
    let position = rows.iter().find(|row| row.is_last).map(|row| (row.tenant_id.clone(), JobId(row.job_id)));
    let left = rows.into_iter().filter(|row| row.is_left).map(|row| (row.tenant_id, row.job_id)).collect();
    Ok((position, left))
}
