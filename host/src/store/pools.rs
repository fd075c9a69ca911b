//! Pools: how many jobs may run at once, whatever worker runs them. Here are their sizes, which an operator sets or a
//! manifest declares; who holds a permit of them, and who waits for one, is in [`super::permits`].
//!
//! Whoever changes a pool holds its row, as whoever takes a permit does: so nobody waits for a pool that is gone.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError, column,
    error::Doing as _,
    permits::{Freed, wake_next},
};

/// Names a pool. Permits are taken in the order of these, so that no two jobs can wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub i32);

/// A pool that a manifest declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPool {
    /// `pipeline:PIPELINE` or `asset:PIPELINE/ASSET`.
    pub name: String,
    /// Jobs at once.
    pub size: i32,
}

/// A pool and who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRecord {
    /// Its name.
    pub name: String,
    /// Jobs at once.
    pub size: i32,
    /// Whose manifest says so; none when an operator does.
    pub pipeline: Option<String>,
    /// Jobs that hold a permit.
    pub running: i64,
    /// Jobs that wait for one.
    pub waiting: i64,
}

impl Store {
    /// Makes an operator's pool of this size, or gives it this size; whoever can run now that it has grown is ready again.
    /// Of one that has shrunk nobody is stopped, and nobody gets a permit until it is no longer too full.
    pub async fn set_pool(&self, tenant: &str, name: &str, size: i32) -> Result<(), StoreError> {
        const DOING: &str = "setting the size of a pool";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let pool = sqlx::query_scalar!(
            "insert into pool (tenant_id, name, size) values ($1, $2, $3)
             on conflict on constraint pool_name_is_unique do update set size = excluded.size
             returning pool_id",
            tenant,
            name,
            size,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        wake_next(&mut transaction, &[Freed { pool: PoolId(pool), permits: i64::from(size) }]).await?;
        audit(&mut transaction, tenant, "pool.set", name, size).await?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(())
    }

    /// Removes an operator's pool, and makes ready whoever waits for it. None when there is none; otherwise how many.
    pub async fn remove_pool(&self, tenant: &str, name: &str) -> Result<Option<u64>, StoreError> {
        const DOING: &str = "removing a pool";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let pool = sqlx::query!(
            "select pool_id, size from pool where tenant_id = $1 and name = $2 and pipeline_id is null for update",
            tenant,
            name,
        )
        .fetch_optional(&mut *transaction)
        .await
        .doing(DOING)?;
        let Some(pool) = pool else { return Ok(None) };
        let ready = drop_pools(&mut transaction, &[PoolId(pool.pool_id)]).await?;
        audit(&mut transaction, tenant, "pool.removed", name, pool.size).await?;
        transaction.commit().await.doing(DOING)?;
        self.announce_ready_jobs().await;
        Ok(Some(ready))
    }

    /// Every pool of a tenant, by name.
    pub async fn list_pools(&self, tenant: &str) -> Result<Vec<PoolRecord>, StoreError> {
        sqlx::query_as!(
            PoolRecord,
            r#"with held as materialized (
                   select h.pool_id, count(*) as permits from job_lease l cross join unnest(l.permits) as h (pool_id)
                   where l.permits is not null group by h.pool_id)
               select p.name, p.size, l.name as "pipeline?", coalesce(h.permits, 0) as "running!",
                      (select count(*) from job_limited q where q.pool_id = p.pool_id) as "waiting!"
               from pool p
               left join pipeline l on l.tenant_id = p.tenant_id and l.pipeline_id = p.pipeline_id
               left join held h on h.pool_id = p.pool_id
               where p.tenant_id = $1 order by p.name"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing pools")
    }

    /// Which of these names are pools of the tenant.
    pub async fn find_pools(&self, tenant: &str, names: &[String]) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!("select name from pool where tenant_id = $1 and name = any($2)", tenant, names)
            .fetch_all(&self.pool)
            .await
            .doing("looking for pools")
    }
}

/// Makes the pools that a pipeline's newest version declares what it says, and removes those that it does not any more.
pub(super) async fn declare_pools(
    connection: &mut Connection,
    tenant: &str,
    pipeline: Uuid,
    pools: &[NewPool],
) -> Result<(), StoreError> {
    const DOING: &str = "declaring pools";
    let gone = sqlx::query_scalar!(
        "select pool_id from pool where tenant_id = $1 and pipeline_id = $2 and name <> all($3)
         order by pool_id for update",
        tenant,
        pipeline,
        &column(pools, |pool| pool.name.clone()),
    )
    .fetch_all(&mut *connection)
    .await
    .doing(DOING)?;
    let gone: Vec<PoolId> = gone.into_iter().map(PoolId).collect();
    drop_pools(connection, &gone).await?;
    let declared = sqlx::query!(
        "insert into pool (tenant_id, pipeline_id, name, size)
         select $1, $2, name, size from unnest($3::text[], $4::int[]) as n (name, size) order by name
         on conflict on constraint pool_name_is_unique do update set size = excluded.size
         returning pool_id, size",
        tenant,
        pipeline,
        &column(pools, |pool| pool.name.clone()),
        &column(pools, |pool| pool.size),
    )
    .fetch_all(&mut *connection)
    .await
    .doing(DOING)?;
    let grown: Vec<Freed> =
        declared.into_iter().map(|row| Freed { pool: PoolId(row.pool_id), permits: i64::from(row.size) }).collect();
    wake_next(connection, &grown).await?;
    Ok(())
}

/// Removes pools whose rows are held, and makes ready whoever waits for them.
async fn drop_pools(connection: &mut Connection, pools: &[PoolId]) -> Result<u64, StoreError> {
    const DOING: &str = "removing pools";
    if pools.is_empty() {
        return Ok(0);
    }
    let ids = column(pools, |pool| pool.0);
    // Waits for whoever is cancelling or waking one of them: what is left then is ours.
    let ready = sqlx::query!(
        "with waiting as materialized (
             select q.ctid as place from job_limited q where q.pool_id = any($1) order by q.job_id for update),
         gone as (
             delete from job_limited where ctid = any(array(select place from waiting))
             returning tenant_id, job_id, lane_id, charged, released)
         insert into job_ready (tenant_id, job_id, lane_id, charged, released)
         select tenant_id, job_id, lane_id, charged, released from gone",
        &ids,
    )
    .execute(&mut *connection)
    .await
    .doing(DOING)?;
    sqlx::query!("delete from pool where pool_id = any($1)", &ids).execute(connection).await.doing(DOING)?;
    Ok(ready.rows_affected())
}

async fn audit(
    connection: &mut Connection,
    tenant: &str,
    action: &str,
    name: &str,
    size: i32,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into audit (tenant_id, actor, action, subject, details)
         values ($1, 'user', $2, $3, jsonb_build_object('size', $4::int))",
        tenant,
        action,
        name,
        size,
    )
    .execute(connection)
    .await
    .doing("recording what an operator did")?;
    Ok(())
}
