//! Worker processes: one row and one heartbeat each, and what becomes of the jobs of one that died.

use std::time::Duration;

use super::{
    Store, StoreError,
    error::Doing as _,
    quarantine::{LostJob, note_deaths, take_back},
};
use crate::{
    blob::Digest,
    id::{AttemptId, JobId, WorkerId},
    limit::{RESCUE_JOBS_MAX, SESSION_EXPIRY},
};

/// What became of the jobs of dead workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that are ready again, uncharged.
    pub jobs: usize,
    /// The tenant and the component that is quarantined for it.
    pub quarantined: Option<(String, Digest)>,
}

impl Store {
    /// Opens a worker's session; its leases hold as long as it beats.
    pub async fn register_worker(&self, worker: WorkerId, host: &str) -> Result<(), StoreError> {
        const DOING: &str = "registering this worker";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        // It may be one that others took for dead.
        take_back(&mut transaction, worker).await?;
        sqlx::query!(
            "insert into worker (worker_id, host, pid, version) values ($1, $2, $3, $4)",
            worker.0,
            host,
            std::process::id() as i32,
            env!("CARGO_PKG_VERSION"),
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
    /// Any process may do it at any time; a batch at a time, until it returns no more.
    pub async fn rescue_lost_jobs(&self) -> Result<Rescued, StoreError> {
        let mut transaction = self.pool.begin().await.doing("rescuing jobs")?;
        let lost = sqlx::query!(
            r#"with dead as (
                   select worker_id from worker where beat_at < now() - make_interval(secs => $1)
                   for update skip locked),
               lost as (
                   select l.tenant_id, l.job_id from job_lease l join dead using (worker_id)
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
        .doing("rescuing jobs")?;
        let died = lost.iter().map(|job| LostJob {
            tenant: job.tenant_id.clone(),
            job: JobId(job.job_id),
            worker: WorkerId(job.worker_id),
        });
        let quarantined = note_deaths(&mut transaction, &died.collect::<Vec<_>>()).await?;
        for job in &lost {
            sqlx::query!(
                "insert into attempt (tenant_id, attempt_id, job_id, number, token, worker_id, verdict, message, charged,
                     engine_id, fuel_used, memory_bytes_peak, output_bytes, started_at, duration_us, log_dropped)
                 values ($1, $2, $3, $4, $5, $6, 'lost', 'its worker ended or lost the database', false,
                     '', 0, 0, 0, now() - make_interval(secs => $7), $8, 0)",
                job.tenant_id,
                AttemptId::new().0,
                job.job_id,
                i32::from(job.charged) + 1,
                job.token,
                job.worker_id,
                Duration::from_micros(job.held_us.max(0) as u64).as_secs_f64(),
                job.held_us,
            )
            .execute(&mut *transaction)
            .await
            .doing("recording a lost attempt")?;
            sqlx::query!(
                "insert into job_ready (tenant_id, job_id, lane_id, charged, released) values ($1, $2, $3, $4, $5)",
                job.tenant_id,
                job.job_id,
                job.lane_id,
                job.charged,
                job.released.saturating_add(1),
            )
            .execute(&mut *transaction)
            .await
            .doing("making a rescued job ready")?;
        }
        sqlx::query!(
            "delete from worker w where beat_at < now() - make_interval(secs => $1)
             and not exists (select 1 from job_lease l where l.worker_id = w.worker_id)",
            SESSION_EXPIRY.as_secs_f64(),
        )
        .execute(&mut *transaction)
        .await
        .doing("removing dead workers")?;
        transaction.commit().await.doing("rescuing jobs")?;
        Ok(Rescued { jobs: lost.len(), quarantined })
    }
}
