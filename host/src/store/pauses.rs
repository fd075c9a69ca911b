//! Pauses of pipelines and assets: what becomes ready meanwhile is parked, and taken out again at their end. Of queues:
//! what is ready stays where it is, and nobody claims it.

use uuid::Uuid;

use super::{Store, StoreError, column, error::Doing as _};
use crate::{
    id::{AssetId, JobId, PipelineId},
    store::queue::Claim,
};

/// A pause that is on.
#[derive(Clone, Debug)]
pub struct PauseRecord {
    /// Of which pipeline; none for a queue's.
    pub pipeline: Option<String>,
    /// Of which of its assets; none for all.
    pub asset: Option<String>,
    /// Of which queue.
    pub queue: Option<String>,
    /// Milliseconds since 1970.
    pub paused_at_ms: i64,
    /// Jobs that wait for its end, or for that of another pause of the same pipeline.
    pub parked: i64,
}

impl Store {
    /// Pauses a pipeline, or one of its assets. False when it is paused already.
    pub async fn pause(
        &self,
        tenant: &str,
        pipeline: PipelineId,
        asset: Option<AssetId>,
        subject: &str,
    ) -> Result<bool, StoreError> {
        const DOING: &str = "pausing";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let paused = sqlx::query!(
            "insert into pause (tenant_id, pipeline_id, asset_id) values ($1, $2, $3) on conflict do nothing",
            tenant,
            pipeline.0,
            asset.map_or(Uuid::nil(), |asset| asset.0),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if paused.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, tenant, "pipeline.paused", subject).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Ends the pause of a pipeline, or of an asset that it has now or had once, and makes ready what it alone had parked; returns how many jobs. None when it was not paused.
    pub async fn resume(
        &self,
        tenant: &str,
        pipeline: PipelineId,
        asset: Option<&str>,
        subject: &str,
    ) -> Result<Option<u64>, StoreError> {
        const DOING: &str = "resuming";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        // Waits for whoever is parking: what it parks is seen by the next statement.
        let resumed = sqlx::query!(
            "delete from pause where tenant_id = $1 and pipeline_id = $2 and asset_id = case
                 when $3::text is null then '00000000-0000-0000-0000-000000000000'
                 else (select asset_id from asset where pipeline_id = $2 and tenant_id = $1 and name = $3) end",
            tenant,
            pipeline.0,
            asset as Option<&str>,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if resumed.rows_affected() == 0 {
            return Ok(None);
        }
        let moved = sqlx::query!(
            "with free as materialized (
                 select j.ctid as place from job_paused j
                 where j.pipeline_id = $2 and j.tenant_id = $1
                   and not exists (select from pause p where p.tenant_id = j.tenant_id and p.pipeline_id = j.pipeline_id
                       and p.asset_id in ('00000000-0000-0000-0000-000000000000', j.asset_id))
                 order by j.job_id for update of j),
             gone as (
                 delete from job_paused where ctid = any(array(select place from free))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_ready (tenant_id, job_id, lane_id, charged, released)
             select tenant_id, job_id, lane_id, charged, released from gone",
            tenant,
            pipeline.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        audit(&mut transaction, tenant, "pipeline.resumed", subject).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(Some(moved.rows_affected()))
    }

    /// Pauses a queue, for the pipelines of a tenant. False when it is paused already.
    pub async fn pause_queue(&self, tenant: &str, queue: &str) -> Result<bool, StoreError> {
        const DOING: &str = "pausing a queue";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let paused = sqlx::query!(
            "insert into queue_pause (tenant_id, queue) values ($1, $2) on conflict do nothing",
            tenant,
            queue,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if paused.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, tenant, "queue.paused", queue).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Ends the pause of a queue. False when it was not paused.
    pub async fn resume_queue(&self, tenant: &str, queue: &str) -> Result<bool, StoreError> {
        const DOING: &str = "resuming a queue";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let resumed = sqlx::query!("delete from queue_pause where tenant_id = $1 and queue = $2", tenant, queue)
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        if resumed.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, tenant, "queue.resumed", queue).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }

    /// Every pause of a tenant, by name.
    pub async fn list_pauses(&self, tenant: &str) -> Result<Vec<PauseRecord>, StoreError> {
        sqlx::query_as!(
            PauseRecord,
            r#"select l.name as "pipeline?", a.name as "asset?", null::text as queue,
                      (extract(epoch from p.paused_at) * 1000)::bigint as "paused_at_ms!",
                      (select count(*) from job_paused j
                       where j.pipeline_id = p.pipeline_id and j.tenant_id = p.tenant_id
                         and (a.asset_id is null or j.asset_id = a.asset_id)) as "parked!"
               from pause p
               join pipeline l on l.tenant_id = p.tenant_id and l.pipeline_id = p.pipeline_id
               left join asset a on a.tenant_id = p.tenant_id and a.asset_id = p.asset_id
               where p.tenant_id = $1
               union all
               select null, null, p.queue, (extract(epoch from p.paused_at) * 1000)::bigint,
                      (select count(*) from lane l join job_ready r on r.lane_id = l.lane_id
                       where l.tenant_id = p.tenant_id and l.queue = p.queue)
               from queue_pause p where p.tenant_id = $1
               order by 1, 2 nulls first, 3"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing what is paused")
    }

    /// Parks claimed jobs whose pipeline or asset is paused, uncharged; returns those that were. The others are not
    /// paused any more, or not this claim's.
    pub async fn park_jobs(&self, claims: &[Claim]) -> Result<Vec<JobId>, StoreError> {
        let parked = sqlx::query_scalar!(
            "with held as materialized (
                 select l.ctid as place, p.pipeline_id, a.asset_id, l.tenant_id, l.job_id
                 from unnest($1::text[], $2::uuid[], $3::uuid[]) as c (tenant_id, job_id, token)
                 join job_lease l on l.tenant_id = c.tenant_id and l.job_id = c.job_id and l.token = c.token
                 join job j on j.tenant_id = l.tenant_id and j.job_id = l.job_id
                 join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
                 join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
                 join pause p on p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
                     and p.asset_id in ('00000000-0000-0000-0000-000000000000', a.asset_id)
                 order by l.tenant_id, l.job_id
                 for share of p for update of l),
             gone as (
                 delete from job_lease where ctid = any(array(select place from held))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_paused (tenant_id, job_id, lane_id, pipeline_id, asset_id, charged, released)
             select distinct on (g.tenant_id, g.job_id)
                    g.tenant_id, g.job_id, g.lane_id, h.pipeline_id, h.asset_id, g.charged, g.released
             from gone g join held h on h.tenant_id = g.tenant_id and h.job_id = g.job_id
             returning job_id",
            &column(claims, |claim| claim.tenant.clone()),
            &column(claims, |claim| claim.job.0),
            &column(claims, |claim| claim.token.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("parking paused jobs")?;
        Ok(parked.into_iter().map(JobId).collect())
    }
}

async fn audit(
    connection: &mut super::Connection,
    tenant: &str,
    action: &str,
    subject: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into audit (tenant_id, actor, action, subject, details) values ($1, 'user', $2, $3, '{}')",
        tenant,
        action,
        subject,
    )
    .execute(connection)
    .await
    .doing("recording what an operator did")?;
    Ok(())
}
