//! Leases: the fence that they are, and the way back to the queue.

use std::collections::HashMap;

use uuid::Uuid;

use super::values::{Counts, Ending, FinishedJob};
use crate::{
    id::ClaimToken,
    store::{Connection, StoreError, column, error::Doing as _, queue::Claim},
};

/// A lease that a commit ended.
pub(super) struct EndedLease {
    /// Of the claim that had it.
    pub(super) token: ClaimToken,
    /// When it was claimed, in microseconds since 1970, by the database's clock.
    pub(super) claimed_us: i64,
    /// The permits that went with it.
    pub(super) permits: Vec<i32>,
    /// Whether any tenant has a quota.
    pub(super) are_there_quotas: bool,
    /// Whether any component has lost its workers lately.
    pub(super) are_deaths_noted: bool,
}

/// The fence: only rows that still carry the claim's token go, and only what was finished under it is written. A batch may
/// hold the same job of an earlier claim of the same worker, which was lost. Returns the leases that went, by job.
/// A row that a rescue takes meanwhile is gone when the delete comes to it; nobody else
/// waits for leases of this worker, so no order of locks is needed.
pub(super) async fn delete_leases(
    connection: &mut Connection,
    batch: &[FinishedJob],
) -> Result<HashMap<Uuid, EndedLease>, StoreError> {
    let held = sqlx::query!(
        r#"with held as materialized (
             select l.ctid as place
             from unnest((select $1::text[]), $2::uuid[], $3::uuid[]) as b (tenant_id, job_id, token)
             join job_lease l on l.tenant_id = b.tenant_id and l.job_id = b.job_id and l.token = b.token)
         delete from job_lease l where ctid = any(array(select place from held))
         returning job_id, token, permits, (extract(epoch from claimed_at) * 1000000)::bigint as "claimed_us!",
              (select exists (select from component_death)) as "are_deaths_noted!",
              (select exists (select from quota)) as "are_there_quotas!""#,
        &column(batch, |item| &*item.claim.tenant) as &[&str],
        &column(batch, |item| item.claim.job.0),
        &column(batch, |item| item.claim.token.0),
    )
    .fetch_all(connection)
    .await
    .doing("ending leases")?;
    Ok(held
        .into_iter()
        .map(|row| {
            let lease = EndedLease {
                token: ClaimToken(row.token),
                claimed_us: row.claimed_us,
                permits: row.permits.unwrap_or_default(),
                are_there_quotas: row.are_there_quotas,
                are_deaths_noted: row.are_deaths_noted,
            };
            (row.job_id, lease)
        })
        .collect())
}

/// Retries go to the deferred table, released jobs to the ready one; returns how many are ready.
pub(super) async fn return_to_queue(connection: &mut Connection, batch: &[&FinishedJob]) -> Result<usize, StoreError> {
    defer_jobs(connection, batch).await?;
    release_jobs(connection, batch).await
}

async fn defer_jobs(connection: &mut Connection, batch: &[&FinishedJob]) -> Result<(), StoreError> {
    let rows: Vec<(&Claim, u64, &str, Counts)> = batch
        .iter()
        .filter_map(|item| match &item.ending {
            Ending::Deferred { wait_ms, cause, counts } => Some((&item.claim, *wait_ms, cause.as_str(), *counts)),
            _ => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into job_deferred (tenant_id, job_id, due_at, cause, charged, released, lane_id)
         select tenant_id, job_id, now() + wait_ms * interval '1 millisecond', cause, charged, released, lane_id
         from unnest($1::text[], $2::uuid[], $3::float8[], $4::text[], $5::smallint[], $6::smallint[], $7::int[])
             as d (tenant_id, job_id, wait_ms, cause, charged, released, lane_id)",
        &column(&rows, |(claim, ..)| claim.tenant.clone()),
        &column(&rows, |(claim, ..)| claim.job.0),
        &column(&rows, |(_, wait_ms, ..)| *wait_ms as f64),
        &column(&rows, |(_, _, cause, _)| (*cause).to_owned()),
        &column(&rows, |(claim, .., counts)| claim.charged.saturating_add(i16::from(*counts == Counts::Charged))),
        &column(&rows, |(claim, .., counts)| claim.released.saturating_add(i16::from(*counts == Counts::Released))),
        &column(&rows, |(claim, ..)| claim.lane.0),
    )
    .execute(connection)
    .await
    .doing("deferring jobs")?;
    Ok(())
}

async fn release_jobs(connection: &mut Connection, batch: &[&FinishedJob]) -> Result<usize, StoreError> {
    let claims: Vec<&Claim> =
        batch.iter().filter(|item| matches!(item.ending, Ending::Released)).map(|item| &item.claim).collect();
    if claims.is_empty() {
        return Ok(0);
    }
    sqlx::query!(
        "insert into job_ready (tenant_id, job_id, lane_id, charged, released)
         select * from unnest($1::text[], $2::uuid[], $3::int[], $4::smallint[], $5::smallint[])",
        &column(&claims, |claim| claim.tenant.clone()),
        &column(&claims, |claim| claim.job.0),
        &column(&claims, |claim| claim.lane.0),
        &column(&claims, |claim| claim.charged),
        &column(&claims, |claim| claim.released.saturating_add(1)),
    )
    .execute(connection)
    .await
    .doing("releasing jobs")?;
    Ok(claims.len())
}
