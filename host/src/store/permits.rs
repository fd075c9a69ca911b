//! Permits: who may run of those that a pool lets through, and who waits for it.
//!
//! A permit is a mark on the lease of the job, so that it lives exactly as long: whatever ends the lease, a commit or the
//! rescue of a dead worker, frees it in the same transaction, and needs to know nothing of it. A job asks for its permits
//! after it was claimed, all of them or none, under the locks of their pools' rows, taken in one order: so there are never
//! more than a pool's size, and no two jobs hold what the other one waits for. Who gets none gives up the lease
//! (`job_limited`).
//!
//! Who frees a permit makes the next one ready in the same transaction; it shares the pool's row until it commits, so
//! that nobody who takes the pool for full meanwhile goes unseen. What is freed otherwise [`Store::wake_limited_jobs`]
//! finds, in any process.

use std::collections::{BTreeSet, HashMap};

use super::{Connection, Store, StoreError, column, error::Doing as _, pools::PoolId, queue::Claim};
use crate::{id::JobId, limit::LIMITED_WOKEN_MAX};

/// A claimed job, and the pools of which it needs a permit.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The lease.
    pub claim: Claim,
    /// In the order of their ids.
    pub pools: Vec<PoolId>,
}

/// What became of jobs that asked for permits. Those that are in neither are not this worker's any more.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Hold their permits.
    pub admitted: BTreeSet<JobId>,
    /// Wait, each for the pool of this name; their claims are over.
    pub limited: HashMap<JobId, String>,
}

/// Permits of a pool that somebody may have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) pool: PoolId,
    pub(super) permits: i64,
}

/// A pool whose row is held.
struct HeldPool {
    name: String,
    /// Negative when it was made smaller than what it holds.
    free: i64,
}

/// Why a job waits that got no permit of a pool.
pub fn limited_cause(pool: &str) -> String {
    format!("the pool `{pool}` is full")
}

impl Store {
    /// Gives each of these jobs its permits, the one that was submitted first before the others, or lets it wait for the
    /// first pool that has none left. May be asked again when the answer was lost.
    pub async fn admit_jobs(&self, applicants: &[Applicant]) -> Result<Admission, StoreError> {
        const DOING: &str = "taking permits";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let mut pools = hold_pools(&mut transaction, applicants).await?;
        // A statement of its own: it sees what those did that held the rows before.
        count_permits(&mut transaction, applicants, &mut pools).await?;
        let (granted, refused) = deal(applicants, &mut pools);
        let admitted = mark_leases(&mut transaction, &granted).await?;
        let limited = limit_jobs(&mut transaction, &refused).await?;
        transaction.commit().await.doing(DOING)?;
        let name =
            |(job, pool): (JobId, PoolId)| (job, pools.get(&pool).map(|pool| pool.name.clone()).unwrap_or_default());
        Ok(Admission { admitted, limited: limited.into_iter().map(name).collect() })
    }

    /// Makes ready whoever waits for a pool that has permits left: those of a worker that died, of a job that was woken and
    /// then cancelled or paused. Any process may do it at any time; returns how many.
    pub async fn wake_limited_jobs(&self) -> Result<u64, StoreError> {
        let woken = sqlx::query!(
            "with held as materialized (
                 select h.pool_id, count(*) as permits from job_lease l cross join unnest(l.permits) as h (pool_id)
                 where l.permits is not null group by h.pool_id),
             next as materialized (
                 select q.place from pool p left join held h on h.pool_id = p.pool_id
                 cross join lateral (
                     select ctid as place from job_limited q where q.pool_id = p.pool_id
                     order by q.priority desc, q.job_id
                     limit least(greatest(p.size - coalesce(h.permits, 0), 0), $1) for update skip locked) q),
             gone as (
                 delete from job_limited where ctid = any(array(select place from next))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_ready (tenant_id, job_id, lane_id, charged, released)
             select tenant_id, job_id, lane_id, charged, released from gone",
            LIMITED_WOKEN_MAX,
        )
        .execute(&self.pool)
        .await
        .doing("looking for jobs that can have a permit")?;
        Ok(woken.rows_affected())
    }
}

/// Makes the next ones ready that wait for these pools; returns how many. Whoever waits for several may have to wait for
/// another one then.
pub(super) async fn wake_next(connection: &mut Connection, freed: &[Freed]) -> Result<usize, StoreError> {
    const DOING: &str = "letting the next jobs go on";
    if freed.is_empty() {
        return Ok(0);
    }
    let pools = column(freed, |freed| freed.pool.0);
    sqlx::query!("select from pool where pool_id = any($1) order by pool_id for share", &pools)
        .execute(&mut *connection)
        .await
        .doing(DOING)?;
    let woken = sqlx::query!(
        "with next as materialized (
             select q.place from unnest($1::int[], $2::bigint[]) as f (pool_id, permits)
             cross join lateral (
                 select ctid as place from job_limited q where q.pool_id = f.pool_id
                 order by q.priority desc, q.job_id limit least(f.permits, $3) for update skip locked) q),
         gone as (
             delete from job_limited where ctid = any(array(select place from next))
             returning tenant_id, job_id, lane_id, charged, released)
         insert into job_ready (tenant_id, job_id, lane_id, charged, released)
         select tenant_id, job_id, lane_id, charged, released from gone",
        &pools,
        &column(freed, |freed| freed.permits),
        LIMITED_WOKEN_MAX,
    )
    .execute(connection)
    .await
    .doing(DOING)?;
    Ok(woken.rows_affected() as usize)
}

/// How many permits of each pool go with leases that have ended.
pub(super) fn freed_by<'l>(permits: impl Iterator<Item = &'l [i32]>) -> Vec<Freed> {
    let mut freed: std::collections::BTreeMap<PoolId, i64> = std::collections::BTreeMap::new();
    for pool in permits.flatten() {
        *freed.entry(PoolId(*pool)).or_default() += 1;
    }
    freed.into_iter().map(|(pool, permits)| Freed { pool, permits }).collect()
}

/// Locks the pools in one order. One that was removed since is not among them, and nobody needs a permit of it.
async fn hold_pools(
    connection: &mut Connection,
    applicants: &[Applicant],
) -> Result<HashMap<PoolId, HeldPool>, StoreError> {
    let wanted: BTreeSet<PoolId> = applicants.iter().flat_map(|applicant| &applicant.pools).copied().collect();
    let wanted: Vec<i32> = wanted.into_iter().map(|pool| pool.0).collect();
    let rows = sqlx::query!(
        "select pool_id, name, size from pool where pool_id = any($1) order by pool_id for update",
        &wanted,
    )
    .fetch_all(connection)
    .await
    .doing("taking permits")?;
    let held = |name, size| HeldPool { name, free: i64::from(size) };
    Ok(rows.into_iter().map(|row| (PoolId(row.pool_id), held(row.name, row.size))).collect())
}

/// Takes off what others hold. What these jobs hold already, because they asked before, is theirs.
async fn count_permits(
    connection: &mut Connection,
    applicants: &[Applicant],
    pools: &mut HashMap<PoolId, HeldPool>,
) -> Result<(), StoreError> {
    let rows = sqlx::query!(
        r#"select h.pool_id as "pool_id!", count(*) as "permits!"
           from job_lease l cross join unnest(l.permits) as h (pool_id)
           where l.permits is not null and l.job_id <> all($1) group by h.pool_id"#,
        &column(applicants, |applicant| applicant.claim.job.0),
    )
    .fetch_all(connection)
    .await
    .doing("counting permits")?;
    for row in rows {
        if let Some(pool) = pools.get_mut(&PoolId(row.pool_id)) {
            pool.free -= row.permits;
        }
    }
    Ok(())
}

/// A job with the pools of which it gets a permit, or the one that it has to wait for.
type Granted<'a> = (&'a Claim, Vec<PoolId>);
type Refused<'a> = (&'a Claim, PoolId);

/// All permits of a job or none, the oldest job first.
fn deal<'a>(
    applicants: &'a [Applicant],
    pools: &mut HashMap<PoolId, HeldPool>,
) -> (Vec<Granted<'a>>, Vec<Refused<'a>>) {
    let mut in_turn: Vec<&Applicant> = applicants.iter().collect();
    in_turn.sort_by_key(|applicant| applicant.claim.job.0);
    let (mut granted, mut refused) = (Vec::new(), Vec::new());
    for Applicant { claim, pools: wanted } in in_turn {
        let wanted: Vec<PoolId> = wanted.iter().copied().filter(|pool| pools.contains_key(pool)).collect();
        match wanted.iter().find(|pool| pools[pool].free <= 0) {
            Some(full) => refused.push((claim, *full)),
            None => {
                for pool in &wanted {
                    pools.get_mut(pool).expect("it was looked up above").free -= 1;
                }
                granted.push((claim, wanted));
            }
        }
    }
    (granted, refused)
}

async fn mark_leases(connection: &mut Connection, granted: &[Granted<'_>]) -> Result<BTreeSet<JobId>, StoreError> {
    // Postgres has no ragged arrays: a row for each permit. Of a job whose pools are all gone there is none.
    let permits: Vec<(&Claim, PoolId)> =
        granted.iter().flat_map(|(claim, pools)| pools.iter().map(move |pool| (*claim, *pool))).collect();
    let mut admitted: BTreeSet<JobId> =
        granted.iter().filter(|(_, pools)| pools.is_empty()).map(|(claim, _)| claim.job).collect();
    if permits.is_empty() {
        return Ok(admitted);
    }
    let marked = sqlx::query_scalar!(
        "with granted as materialized (
             select tenant_id, job_id, token, array_agg(pool_id order by pool_id) as permits
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[]) as g (tenant_id, job_id, token, pool_id)
             group by tenant_id, job_id, token)
         update job_lease l set permits = g.permits from granted g
         where l.tenant_id = g.tenant_id and l.job_id = g.job_id and l.token = g.token
         returning l.job_id",
        &column(&permits, |(claim, _)| claim.tenant.clone()),
        &column(&permits, |(claim, _)| claim.job.0),
        &column(&permits, |(claim, _)| claim.token.0),
        &column(&permits, |(_, pool)| pool.0),
    )
    .fetch_all(connection)
    .await
    .doing("taking permits")?;
    admitted.extend(marked.into_iter().map(JobId));
    Ok(admitted)
}

async fn limit_jobs(connection: &mut Connection, refused: &[Refused<'_>]) -> Result<Vec<(JobId, PoolId)>, StoreError> {
    if refused.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"with refused as materialized (
             select l.ctid as place, l.tenant_id, l.job_id, r.pool_id
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[]) as r (tenant_id, job_id, token, pool_id)
             join job_lease l on l.tenant_id = r.tenant_id and l.job_id = r.job_id and l.token = r.token),
         gone as (
             delete from job_lease where ctid = any(array(select place from refused))
             returning tenant_id, job_id, lane_id, charged, released)
         insert into job_limited (tenant_id, job_id, pool_id, priority, lane_id, charged, released)
         select g.tenant_id, g.job_id, r.pool_id, coalesce(n.priority, 0), g.lane_id, g.charged, g.released
         from gone g join refused r on r.tenant_id = g.tenant_id and r.job_id = g.job_id
         left join lane n on n.lane_id = g.lane_id
         returning job_id, pool_id as "pool_id!""#,
        &column(refused, |(claim, _)| claim.tenant.clone()),
        &column(refused, |(claim, _)| claim.job.0),
        &column(refused, |(claim, _)| claim.token.0),
        &column(refused, |(_, pool)| pool.0),
    )
    .fetch_all(connection)
    .await
    .doing("letting jobs wait for a permit")?;
    Ok(rows.into_iter().map(|row| (JobId(row.job_id), PoolId(row.pool_id))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::ClaimToken, store::lanes::LaneId};

    fn applicant(pools: &[i32]) -> Applicant {
        let claim = Claim {
            tenant: "default".to_owned(),
            job: JobId::new(),
            lane: LaneId(1),
            token: ClaimToken::random(),
            charged: 0,
            released: 0,
        };
        Applicant { claim, pools: pools.iter().copied().map(PoolId).collect() }
    }

    fn pools(free: &[(i32, i64)]) -> HashMap<PoolId, HeldPool> {
        free.iter().map(|(pool, free)| (PoolId(*pool), HeldPool { name: pool.to_string(), free: *free })).collect()
    }

    /// What each applicant comes to: none for its permits, or the pool that it waits for.
    fn dealt(applicants: &[Applicant], free: &[(i32, i64)]) -> Vec<Option<i32>> {
        let mut pools = pools(free);
        let (granted, refused) = deal(applicants, &mut pools);
        assert_eq!(granted.len() + refused.len(), applicants.len());
        let waits = |applicant: &Applicant| {
            refused.iter().find(|(claim, _)| claim.job == applicant.claim.job).map(|(_, pool)| pool.0)
        };
        applicants.iter().map(waits).collect()
    }

    #[test]
    fn a_pool_lets_as_many_through_as_it_has_permits_and_the_oldest_first() {
        let mut applicants = [applicant(&[1]), applicant(&[1]), applicant(&[1])];
        assert_eq!(dealt(&applicants, &[(1, 2)]), [None, None, Some(1)]);
        applicants.reverse();
        assert_eq!(dealt(&applicants, &[(1, 2)]), [Some(1), None, None]);
        assert_eq!(dealt(&applicants, &[(1, -3)]), [Some(1); 3], "it was made smaller than what it holds");
    }

    #[test]
    fn a_job_of_several_pools_holds_none_while_one_is_full() {
        let applicants = [applicant(&[1, 2]), applicant(&[1]), applicant(&[2, 3])];
        assert_eq!(dealt(&applicants, &[(1, 1), (2, 0), (3, 1)]), [Some(2), None, Some(2)]);
    }

    #[test]
    fn a_pool_that_is_gone_limits_nobody() {
        assert_eq!(dealt(&[applicant(&[1, 2]), applicant(&[1])], &[(2, 1)]), [None, None]);
    }

    #[test]
    fn freed_permits_are_counted_for_each_pool() {
        let permits: [&[i32]; 3] = [&[2, 5], &[5], &[]];
        let freed = freed_by(permits.into_iter());
        assert_eq!(freed, [Freed { pool: PoolId(2), permits: 1 }, Freed { pool: PoolId(5), permits: 2 }]);
    }
}
