//! The live job of each recipe: at most one, from the claim that works its recipe out until its end, whatever becomes of
//! leases in between; and joining it, for a job that would make the same. A server that crashes may forget a key: then
//! two may be at work, of which one makes something.
//!
//! A job that joins gives its lease up, and takes what the live one comes to (`commit/joined.rs`). It holds no key, and
//! only who holds one is joined: so no two jobs can come to wait for each other.

use std::collections::HashMap;

use super::{Store, StoreError, column, error::Doing as _, queue::Claim};
use crate::{
    blob::Digest,
    id::{AssetId, JobId, RunId},
};

/// The right to be the only live job that makes one recipe of one partition.
#[derive(Clone, Debug)]
pub struct LiveKey {
    /// The claimed job.
    pub claim: Claim,
    /// What it makes.
    pub asset: AssetId,
    /// Canonical text.
    pub partition_key: String,
    /// From what.
    pub recipe: Digest,
}

/// What became of a job whose key another claim had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It waits for the live job, which is of this run; its claim is over.
    Run(RunId),
    /// The live job is itself, from an earlier claim.
    Itself,
}

impl Store {
    /// Takes keys; returns the jobs that got theirs. The keys of the others are taken: by other jobs, or by themselves
    /// when they were claimed before.
    ///
    /// As a claim, it is not waited for until it is on disk: the guest starts sooner. A server that crashes may forget it
    /// and keep the lease; the commit looks whether the key is still there, and makes nothing where it is not.
    pub async fn take_live_keys(&self, wanted: &[LiveKey]) -> Result<Vec<JobId>, StoreError> {
        let taken = sqlx::query_scalar!(
            "with hasty as materialized (select set_config('synchronous_commit', 'off', true))
             insert into live_job (tenant_id, asset_id, partition_key, recipe, job_id)
             select w.tenant_id, w.asset_id, w.partition_key, w.recipe, w.job_id
             from hasty cross join unnest((select $1::text[]), $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], $6::uuid[])
                 as w (tenant_id, asset_id, partition_key, recipe, job_id, token)
             join job_lease l on l.tenant_id = w.tenant_id and l.job_id = w.job_id and l.token = w.token
             order by w.tenant_id, w.asset_id, w.partition_key, w.recipe
             on conflict do nothing returning job_id",
            &column(wanted, |w| &*w.claim.tenant) as &[&str],
            &column(wanted, |w| w.asset.0),
            &column(wanted, |w| &*w.partition_key) as &[&str],
            &column(wanted, |w| &w.recipe.0[..]) as &[&[u8]],
            &column(wanted, |w| w.claim.job.0),
            &column(wanted, |w| w.claim.token.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("taking the keys of recipes")?;
        Ok(taken.into_iter().map(JobId).collect())
    }

    /// Lets claimed jobs join the live ones of their recipes. A job that is not in the answer found its key free after
    /// all, or about to be: it has to take it again.
    ///
    /// A share of the key's row is held until this is committed, and a live job's end takes the row: whoever joins is
    /// seen by the end, or sees that it is too late. A row that an end has already is passed over, so that this never
    /// waits with rows in hand. The key of a job that ended without giving it up, as under a worker of an earlier
    /// version, goes.
    pub async fn join_live_jobs(&self, wanted: &[LiveKey]) -> Result<HashMap<JobId, Joined>, StoreError> {
        let rows = sqlx::query!(
            r#"with wanted as materialized (
                   select * from unnest((select $1::text[]), $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], $6::uuid[])
                       as w (tenant_id, asset_id, partition_key, recipe, job_id, token)),
               held as materialized (
                   select w.tenant_id, w.job_id, w.token, w.recipe, k.job_id as joined_id
                   from wanted w cross join lateral (
                       select job_id from live_job where tenant_id = w.tenant_id and asset_id = w.asset_id
                           and partition_key = w.partition_key and recipe = w.recipe for key share skip locked) k
                   left join lateral (
                       select true as is_over from job_end
                       where tenant_id = w.tenant_id and job_id = k.job_id offset 0) e on true
                   where e.is_over is null),
               stale as (
                   delete from live_job k using wanted w
                   where k.tenant_id = w.tenant_id and k.asset_id = w.asset_id and k.partition_key = w.partition_key
                     and k.recipe = w.recipe
                     and exists (select from job_end e where e.tenant_id = k.tenant_id and e.job_id = k.job_id)),
               gone as (
                   delete from job_lease l using held h
                   where l.tenant_id = h.tenant_id and l.job_id = h.job_id and l.token = h.token
                     and h.job_id <> h.joined_id
                   returning l.tenant_id, l.job_id, h.joined_id, h.recipe, l.charged, l.released, l.lane_id),
               given_up as (
                   delete from live_job k using gone
                   where k.job_id = gone.job_id and k.tenant_id is not distinct from gone.tenant_id),
               joined as (
                   insert into job_joined (tenant_id, job_id, joined_id, recipe, charged, released, lane_id)
                   select tenant_id, job_id, joined_id, recipe, charged, released, lane_id from gone
                   returning job_id)
               select h.job_id as "job_id!", h.job_id = h.joined_id as "itself!", (select j.run_id from job j
                   where j.tenant_id = h.tenant_id and j.job_id = h.joined_id) as "run_id!"
               from held h
               where h.job_id = h.joined_id or h.job_id in (select job_id from joined)"#,
            &column(wanted, |w| &*w.claim.tenant) as &[&str],
            &column(wanted, |w| w.asset.0),
            &column(wanted, |w| &*w.partition_key) as &[&str],
            &column(wanted, |w| &w.recipe.0[..]) as &[&[u8]],
            &column(wanted, |w| w.claim.job.0),
            &column(wanted, |w| w.claim.token.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("joining live jobs")?;
        let joined = |run, itself| if itself { Joined::Itself } else { Joined::Run(RunId(run)) };
        Ok(rows.into_iter().map(|row| (JobId(row.job_id), joined(row.run_id, row.itself))).collect())
    }

    /// Gives up what these jobs held for recipes that were theirs in an earlier attempt, unless their claims are not this
    /// worker's any more, and makes whoever had joined them for that ready again.
    pub async fn give_up_old_keys(&self, current: &[LiveKey]) -> Result<u64, StoreError> {
        const DOING: &str = "giving up the keys of earlier recipes";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let tenants = column(current, |key| key.claim.tenant.clone());
        let jobs = column(current, |key| key.claim.job.0);
        let recipes = column(current, |key| key.recipe.0.to_vec());
        let given_up = sqlx::query!(
            "delete from live_job k
             using unnest($1::text[], $2::uuid[], $3::bytea[], $4::uuid[]) as c (tenant_id, job_id, recipe, token)
             join job_lease l on l.tenant_id = c.tenant_id and l.job_id = c.job_id and l.token = c.token
             where k.job_id = c.job_id and k.tenant_id is not distinct from c.tenant_id and k.recipe <> c.recipe",
            &tenants,
            &jobs,
            &recipes,
            &column(current, |key| key.claim.token.0),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if given_up.rows_affected() == 0 {
            return Ok(0);
        }
        // A statement of its own: it sees who had joined before the keys were gone.
        let ready = sqlx::query!(
            "with waiting as materialized (
                 select q.place from unnest($1::text[], $2::uuid[], $3::bytea[]) as c (tenant_id, job_id, recipe)
                 cross join lateral (
                     select ctid as place from job_joined where joined_id = c.job_id
                         and tenant_id is not distinct from c.tenant_id and recipe <> c.recipe
                     for update skip locked) q),
             gone as (
                 delete from job_joined where ctid = any(array(select place from waiting))
                 returning tenant_id, job_id, charged, released, lane_id)
             insert into job_ready (tenant_id, job_id, charged, released, lane_id)
             select tenant_id, job_id, charged, released, lane_id from gone",
            &tenants,
            &jobs,
            &recipes,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(ready.rows_affected())
    }
}
