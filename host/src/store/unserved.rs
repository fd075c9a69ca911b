//! Jobs that no live worker serves: they stay in the queue, and nothing is wrong with them but that nobody comes.
//!
//! A worker says what it takes jobs from when it opens its session. Of a worker of the version before nothing is known, so
//! that it may serve everything. A paused queue, or a pool that is full, keeps jobs of served queues waiting too; that is told
//! elsewhere.

use super::{Connection, Store, StoreError, error::Doing as _};
use crate::{
    id::RunId,
    limit::{QUEUE_COUNT_MAX, SESSION_EXPIRY},
};

/// Jobs of one route that no live worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedJobs {
    /// Where they wait.
    pub queue: String,
    /// What a worker must have to take them, sorted.
    pub tags: Vec<String>,
    /// How many wait, for a worker now or for their inputs first.
    pub jobs: i64,
}

impl Store {
    /// Jobs of a run that wait for workers which are not there, by queue and tags. Where all that its pipeline has is served,
    /// no job is looked at.
    pub async fn list_unserved_jobs(&self, tenant: &str, run: RunId) -> Result<Vec<UnservedJobs>, StoreError> {
        let rows = sqlx::query!(
            r#"with unserved as materialized (
                   select l.lane_id, l.queue, l.tags from run r
                   join pipeline_version p
                       on p.tenant_id = r.tenant_id and p.pipeline_version_id = r.pipeline_version_id
                   join lane l on l.tenant_id = p.tenant_id and l.pipeline_id = p.pipeline_id
                   where r.tenant_id = $1 and r.run_id = $2 and r.state = 'running'
                     and not exists (select from worker w
                         where w.beat_at >= now() - make_interval(secs => $3)
                           and (w.tags is null
                                or (w.queues is null or l.queue = any(w.queues)) and l.tags <@ w.tags)))
               select u.queue, u.tags, count(*) as "jobs!" from job j
               cross join lateral (
                   select lane_id from job_ready where tenant_id = j.tenant_id and job_id = j.job_id
                   union all
                   select lane_id from job_blocked where tenant_id = j.tenant_id and job_id = j.job_id
                   union all
                   select lane_id from job_deferred where tenant_id = j.tenant_id and job_id = j.job_id offset 0) q
               join unserved u on u.lane_id = q.lane_id
               where j.tenant_id = $1 and j.run_id = $2 and (select exists (select from unserved))
               group by u.queue, u.tags order by u.queue, u.tags"#,
            tenant,
            run.0,
            SESSION_EXPIRY.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for jobs that no worker serves")?;
        Ok(rows.into_iter().map(|row| UnservedJobs { queue: row.queue, tags: row.tags, jobs: row.jobs }).collect())
    }
}

/// Ready jobs of all runs that no live worker takes; no more than [`QUEUE_COUNT_MAX`] are counted.
pub(super) async fn count_unserved_jobs(connection: &mut Connection) -> Result<u64, StoreError> {
    let jobs = sqlx::query_scalar!(
        r#"with waiting as materialized (
               select lane_id, queue, tags from lane l
               where exists (select from job_ready r where r.lane_id = l.lane_id)),
           unserved as materialized (
               select lane_id from waiting l
               where not exists (select from worker w
                   where w.beat_at >= now() - make_interval(secs => $1)
                     and (w.tags is null or (w.queues is null or l.queue = any(w.queues)) and l.tags <@ w.tags)))
           select count(*) as "jobs!" from (
               select from unserved u
               cross join lateral (select from job_ready where lane_id = u.lane_id limit $2) r limit $2) j"#,
        SESSION_EXPIRY.as_secs_f64(),
        QUEUE_COUNT_MAX,
    )
    .fetch_one(connection)
    .await
    .doing("counting jobs that no worker serves")?;
    Ok(jobs.unsigned_abs())
}
