//! Quotas: how much fuel and how many bytes of output a tenant's attempts may use in a period of UTC. What an attempt used is
//! added in its commit; a tenant that has used all of it has its jobs wait for the next period (`job_limited`). The attempt
//! that crosses the line is not stopped, and neither is what runs beside it.

use super::{Connection, Store, StoreError, column, error::Doing as _, queue::Claim};
use crate::{id::JobId, limit::LIMITED_WOKEN_MAX};

/// A quota and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    /// `fuel` or `bytes`.
    pub measure: String,
    /// For a period.
    pub amount: i64,
    /// `hour`, `day` or `month`.
    pub period: String,
    /// In this period, so far.
    pub used: i64,
    /// When the next period begins, in milliseconds since 1970.
    pub ends_at_ms: i64,
    /// Jobs that wait for it.
    pub waiting: i64,
}

/// What an attempt used.
#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) tenant: String,
    pub(super) fuel: i64,
    pub(super) bytes: i64,
}

/// Why a job waits whose tenant has used up a quota.
pub fn quota_cause(measure: &str) -> String {
    format!("the tenant's quota of {measure} is used up until its next period begins")
}

impl Store {
    /// Gives a tenant a quota, or another one; what it has used in a period of the same length stays used. Whoever waits for
    /// it is ready again, and waits anew if that is still too much.
    pub async fn set_quota(&self, tenant: &str, measure: &str, amount: i64, period: &str) -> Result<(), StoreError> {
        const DOING: &str = "setting a quota";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        sqlx::query!(
            "with quota_set as (
                 insert into quota as q (tenant_id, measure, amount, period, period_start)
                 values ($1, $2, $3, $4, date_trunc($4, now(), 'UTC'))
                 on conflict (tenant_id, measure) do update set
                     amount = excluded.amount, period = excluded.period, period_start = excluded.period_start,
                     used = case when (q.period, q.period_start) = (excluded.period, excluded.period_start)
                         then q.used else 0 end)
             insert into audit (tenant_id, actor, action, subject, details)
             values ($1, 'user', 'quota.set', $2, jsonb_build_object('amount', $3::bigint, 'period', $4::text))",
            tenant,
            measure,
            amount,
            period,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        wake_all(&mut transaction, tenant, measure).await?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(())
    }

    /// Removes a quota, and makes ready whoever waits for it: how many. None when there is none.
    pub async fn remove_quota(&self, tenant: &str, measure: &str) -> Result<Option<u64>, StoreError> {
        const DOING: &str = "removing a quota";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let removed = sqlx::query!(
            "with gone as (delete from quota where tenant_id = $1 and measure = $2 returning measure)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'quota.removed', measure, '{}' from gone",
            tenant,
            measure,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if removed.rows_affected() == 0 {
            return Ok(None);
        }
        let ready = wake_all(&mut transaction, tenant, measure).await?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(Some(ready))
    }

    /// A tenant's quotas.
    pub async fn list_quotas(&self, tenant: &str) -> Result<Vec<QuotaRecord>, StoreError> {
        sqlx::query_as!(
            QuotaRecord,
            r#"select q.measure, q.amount, q.period,
                      case when q.period_start = date_trunc(q.period, now(), 'UTC') then q.used else 0 end as "used!",
                      (extract(epoch from (date_trunc(q.period, now() at time zone 'UTC') + ('1 ' || q.period)::interval) at time zone 'UTC') * 1000)::bigint
                          as "ends_at_ms!",
                      (select count(*) from job_limited j
                       where j.tenant_id = q.tenant_id and j.quota = q.measure and j.due_at is not null) as "waiting!"
               from quota q where q.tenant_id = $1 order by q.measure desc"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing quotas")
    }

    /// Lets claimed jobs wait whose tenant has used up a quota; returns those that do, each with the measure. The others may
    /// run, or are not this claim's.
    pub async fn limit_by_quota(&self, claims: &[Claim]) -> Result<Vec<(JobId, String)>, StoreError> {
        let rows = sqlx::query!(
            r#"with over as materialized (
                 select l.ctid as place, l.tenant_id, l.job_id, q.measure,
                        ((q.period_start at time zone 'UTC') + ('1 ' || q.period)::interval) at time zone 'UTC'
                            as due_at
                 from unnest($1::text[], $2::uuid[], $3::uuid[]) as c (tenant_id, job_id, token)
                 join job_lease l on l.tenant_id = c.tenant_id and l.job_id = c.job_id and l.token = c.token
                 join quota q on q.tenant_id = l.tenant_id and q.used >= q.amount
                     and q.period_start = date_trunc(q.period, now(), 'UTC')
                 order by l.tenant_id, l.job_id for share of q for update of l),
             gone as (
                 delete from job_lease where ctid = any(array(select place from over))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_limited (tenant_id, job_id, quota, due_at, priority, lane_id, charged, released)
             select distinct on (g.tenant_id, g.job_id) g.tenant_id, g.job_id, o.measure, o.due_at,
                    coalesce(n.priority, 0), g.lane_id, g.charged, g.released
             from gone g join over o on o.tenant_id = g.tenant_id and o.job_id = g.job_id
             left join lane n on n.lane_id = g.lane_id
             order by g.tenant_id, g.job_id, o.due_at desc
             returning job_id, quota as "quota!""#,
            &column(claims, |claim| claim.tenant.clone()),
            &column(claims, |claim| claim.job.0),
            &column(claims, |claim| claim.token.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("letting jobs wait for a quota")?;
        Ok(rows.into_iter().map(|row| (JobId(row.job_id), row.quota)).collect())
    }

    /// Makes jobs ready that have waited for a period which has begun; returns how many. Any process may do it at any time.
    pub async fn wake_jobs_of_new_periods(&self) -> Result<u64, StoreError> {
        let woken = sqlx::query!(
            "with due as materialized (
                 select ctid as place from job_limited where due_at <= now()
                 order by due_at limit $1 for update skip locked),
             gone as (
                 delete from job_limited where ctid = any(array(select place from due))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_ready (tenant_id, job_id, lane_id, charged, released)
             select tenant_id, job_id, lane_id, charged, released from gone",
            LIMITED_WOKEN_MAX,
        )
        .execute(&self.pool)
        .await
        .doing("looking for jobs whose quota is new")?;
        Ok(woken.rows_affected())
    }
}

/// Adds what attempts used to the quotas of their tenants, in one order in every process.
pub(super) async fn count_use(connection: &mut Connection, used: &[Used]) -> Result<(), StoreError> {
    if used.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with used as materialized (
             select tenant_id, sum(fuel) as fuel, sum(bytes) as bytes
             from unnest($1::text[], $2::bigint[], $3::bigint[]) as u (tenant_id, fuel, bytes) group by tenant_id),
         held as materialized (
             select q.tenant_id, q.measure from used u join quota q on q.tenant_id = u.tenant_id
             order by q.tenant_id, q.measure for update of q)
         update quota q set
             used = least(case when q.period_start = date_trunc(q.period, now(), 'UTC') then q.used else 0 end
                 + case q.measure when 'fuel' then u.fuel else u.bytes end, 9000000000000000000)::bigint,
             period_start = date_trunc(q.period, now(), 'UTC')
         from held h join used u on u.tenant_id = h.tenant_id
         where q.tenant_id = h.tenant_id and q.measure = h.measure",
        &column(used, |used| used.tenant.clone()),
        &column(used, |used| used.fuel),
        &column(used, |used| used.bytes),
    )
    .execute(connection)
    .await
    .doing("counting what attempts used")?;
    Ok(())
}

/// Whoever waits for this quota.
async fn wake_all(connection: &mut Connection, tenant: &str, measure: &str) -> Result<u64, StoreError> {
    let woken = sqlx::query!(
        "with waiting as materialized (
             select ctid as place from job_limited where tenant_id = $1 and quota = $2 and due_at is not null
             order by job_id for update skip locked),
         gone as (
             delete from job_limited where ctid = any(array(select place from waiting))
             returning tenant_id, job_id, lane_id, charged, released)
         insert into job_ready (tenant_id, job_id, lane_id, charged, released)
         select tenant_id, job_id, lane_id, charged, released from gone",
        tenant,
        measure,
    )
    .execute(connection)
    .await
    .doing("letting jobs go on")?;
    Ok(woken.rows_affected())
}
