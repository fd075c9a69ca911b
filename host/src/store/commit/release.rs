//! Release: what waited for a job that has ended.

use sqlx::PgConnection;
use uuid::Uuid;

use super::ends::End;
use crate::store::{StoreError, column, error::Doing as _};

/// Counts arrivals down, and moves to the ready table whoever waits for nothing more. Rows are locked in one order.
pub(super) async fn release_dependents(connection: &mut PgConnection, ends: &[End]) -> Result<usize, StoreError> {
    let released = sqlx::query!(
        "with hit as (
             select i.tenant_id, i.job_id, count(*)::int as arrived
             from unnest($1::text[], $2::uuid[]) as e (tenant_id, job_id)
             cross join lateral (
                 select * from job_input where tenant_id = e.tenant_id and upstream_job_id = e.job_id offset 0) i
             group by i.tenant_id, i.job_id order by i.tenant_id, i.job_id),
         waiting as (
             select w.tenant_id, w.job_id, w.remaining, hit.arrived from hit cross join lateral (
                 select b.tenant_id, b.job_id, b.remaining from job_blocked b
                 where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
         counted as (
             update job_blocked b set remaining = waiting.remaining - waiting.arrived from waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining > waiting.arrived),
         freed as (
             delete from job_blocked b using waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining <= waiting.arrived
             returning b.tenant_id, b.job_id)
         insert into job_ready (tenant_id, job_id) select tenant_id, job_id from freed",
        &column(ends, |end| end.tenant.clone()),
        &column(ends, |end| end.job.0),
    )
    .execute(connection)
    .await
    .doing("releasing dependents")?;
    Ok(released.rows_affected() as usize)
}
