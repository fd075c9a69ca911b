//! Worker processes: one row and one heartbeat each, and what becomes of the jobs of one that died.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError, column,
    error::Doing as _,
    quarantine::{LostJob, note_deaths, take_back},
    queue::Served,
};
use crate::{
    blob::Digest,
    id::{AttemptId, JobId, WorkerId},
    limit::{HOST_FAULT_WAIT_BASE, HOST_FAULT_WAIT_MAX, LOGS_AT_ONCE, RESCUE_JOBS_MAX, SESSION_EXPIRY},
};

/// What became of the jobs of dead workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that are in the queue again, uncharged.
    pub jobs: usize,
    /// The tenant and the component that is quarantined for it.
    pub quarantined: Option<(String, Digest)>,
}

impl Store {
    /// Opens a worker's session; its leases hold as long as it beats. What it serves is for people to see.
    pub async fn register_worker(&self, worker: WorkerId, host: &str, served: &Served) -> Result<(), StoreError> {
        const DOING: &str = "registering this worker";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        // It may be one that others took for dead.
        take_back(&mut transaction, worker).await?;
        sqlx::query!(
            "insert into worker (worker_id, host, pid, version, queues, tags) values ($1, $2, $3, $4, $5, $6)",
            worker.0,
            host,
            std::process::id() as i32,
            env!("CARGO_PKG_VERSION"),
            served.queues.as_deref() as Option<&[String]>,
            &served.tags,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// Renews a session. False: it has been ended by others, and its jobs are theirs.
    pub async fn renew_session(&self, worker: WorkerId) -> Result<bool, StoreError> {
        let renewed = sqlx::query!("update worker set beat_at = now() where worker_id = $1", worker.0)
            .execute(&self.pool)
            .await
            .doing("renewing this worker's session")?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Ends a session that holds no lease any more.
    pub async fn deregister_worker(&self, worker: WorkerId) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from worker w where worker_id = $1
             and not exists (select 1 from job_lease l where l.worker_id = w.worker_id)",
            worker.0
        )
        .execute(&self.pool)
        .await
        .doing("ending this worker's session")?;
        Ok(())
    }

    /// Ends every session: only for a process that knows itself alone, because it owns the cluster.
    pub async fn expire_all_sessions(&self) -> Result<(), StoreError> {
        sqlx::query!("update worker set beat_at = '-infinity'")
            .execute(&self.pool)
            .await
            .doing("ending the sessions of earlier processes")?;
        Ok(())
    }

    /// Gives the jobs of expired sessions back to the queue, with a record that an attempt was lost, uncharged.
    /// Any process may do it at any time; a batch at a time, until it returns no more. A lease may outlive the row of its
    /// worker: when that was taken for dead while its claim was on the way.
    pub async fn rescue_lost_jobs(&self) -> Result<Rescued, StoreError> {
        const DOING: &str = "rescuing jobs";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let lost = sqlx::query_as!(
            LostLease,
            r#"with dead as (
                   select worker_id from worker where beat_at < now() - make_interval(secs => $1)
                   for update skip locked),
               lost as (
                   select l.tenant_id, l.job_id from job_lease l
                   where l.worker_id in (select worker_id from dead)
                      or not exists (select from worker w where w.worker_id = l.worker_id)
                   order by l.tenant_id, l.job_id limit $2 for update of l skip locked)
               delete from job_lease l using lost
               where l.tenant_id = lost.tenant_id and l.job_id = lost.job_id
               returning l.tenant_id, l.job_id, l.lane_id, l.token, l.worker_id, l.charged, l.released,
                         (extract(epoch from now() - l.claimed_at) * 1000000)::bigint as "held_us!""#,
            SESSION_EXPIRY.as_secs_f64(),
            RESCUE_JOBS_MAX,
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        let died: Vec<LostJob> = lost.iter().map(LostLease::death).collect();
        let quarantined = note_deaths(&mut transaction, &died).await?;
        if !lost.is_empty() {
            for some in lost.chunks(LOGS_AT_ONCE) {
                record_lost_attempts(&mut transaction, some).await?;
            }
            put_back(&mut transaction, &lost).await?;
        }
        // Not those that another rescue holds: it may be waiting for this one.
        sqlx::query!(
            "delete from worker where worker_id = any(array(
                 select worker_id from worker w where beat_at < now() - make_interval(secs => $1)
                   and not exists (select 1 from job_lease l where l.worker_id = w.worker_id)
                 for update skip locked))",
            SESSION_EXPIRY.as_secs_f64(),
        )
        .execute(&mut *transaction)
        .await
        .doing("removing dead workers")?;
        transaction.commit().await.doing(DOING)?;
        Ok(Rescued { jobs: lost.len(), quarantined })
    }
}

/// A lease of a worker that died.
struct LostLease {
    tenant_id: String,
    job_id: Uuid,
    lane_id: i32,
    token: Uuid,
    worker_id: Uuid,
    charged: i16,
    released: i16,
    held_us: i64,
}

impl LostLease {
    fn death(&self) -> LostJob {
        LostJob {
            tenant: self.tenant_id.clone(),
            job: JobId(self.job_id),
            worker: WorkerId(self.worker_id),
            held_us: self.held_us,
        }
    }
}

/// With what each had said until then, as far as its worker told.
async fn record_lost_attempts(connection: &mut Connection, lost: &[LostLease]) -> Result<(), StoreError> {
    sqlx::query!(
        "with lost as materialized (
             select * from unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::bigint[])
                 as l (tenant_id, attempt_id, job_id, number, token, worker_id, held_us)),
         taken as (
             delete from running_log r using lost l cross join lateral (
                 select run_id from job where tenant_id = l.tenant_id and job_id = l.job_id offset 0) j
             where r.tenant_id = l.tenant_id and r.run_id = j.run_id and r.job_id = l.job_id and r.token = l.token
             returning r.tenant_id, r.job_id, r.first_line, r.lines),
         said as (
             select tenant_id, job_id, ('[' || string_agg(substr(lines::text, 2, length(lines::text) - 2), ', '
                 order by first_line) || ']')::jsonb as log
             from taken group by tenant_id, job_id)
         insert into attempt (tenant_id, attempt_id, job_id, number, token, worker_id, verdict, message, charged,
             engine_id, fuel_used, memory_bytes_peak, output_bytes, started_at, duration_us, log, log_dropped)
         select l.tenant_id, attempt_id, l.job_id, number, token, worker_id, 'lost', $8, false,
                '', 0, 0, 0, now() - greatest(held_us, 0) * interval '1 microsecond', held_us, said.log, 0
         from lost l left join said on said.tenant_id = l.tenant_id and said.job_id = l.job_id",
        &column(lost, |lost| lost.tenant_id.clone()),
        &column(lost, |_| AttemptId::new().0),
        &column(lost, |lost| lost.job_id),
        &column(lost, |lost| i32::from(lost.charged) + 1),
        &column(lost, |lost| lost.token),
        &column(lost, |lost| lost.worker_id),
        &column(lost, |lost| lost.held_us),
        LOST,
    )
    .execute(connection)
    .await
    .doing("recording lost attempts")?;
    Ok(())
}

/// Why a job is in the queue once more.
const LOST: &str = "its worker ended or lost the database";

/// A job that comes back for the first time is ready. One that had come back before waits for a random part of a growing
/// time: jobs that were lost together, one of which may be the cause, are not together again.
async fn put_back(connection: &mut Connection, lost: &[LostLease]) -> Result<(), StoreError> {
    sqlx::query!(
        "with lost as materialized (
             select * from unnest($1::text[], $2::uuid[], $3::int[], $4::smallint[], $5::smallint[])
                 as l (tenant_id, job_id, lane_id, charged, released)),
         apart as (
             insert into job_deferred (tenant_id, job_id, lane_id, charged, released, cause, due_at)
             select tenant_id, job_id, lane_id, charged, released, $6,
                    now() + make_interval(secs => random() * least($7 * power(2, released), $8))
             from lost where released > 1)
         insert into job_ready (tenant_id, job_id, lane_id, charged, released)
         select tenant_id, job_id, lane_id, charged, released from lost where released <= 1",
        &column(lost, |lost| lost.tenant_id.clone()),
        &column(lost, |lost| lost.job_id),
        &column(lost, |lost| lost.lane_id),
        &column(lost, |lost| lost.charged),
        &column(lost, |lost| lost.released.saturating_add(1)),
        LOST,
        HOST_FAULT_WAIT_BASE.as_secs_f64(),
        HOST_FAULT_WAIT_MAX.as_secs_f64(),
    )
    .execute(connection)
    .await
    .doing("putting rescued jobs back")?;
    Ok(())
}
