//! What asked for runs and is over: backfills that have ended, and fires of schedules that made no run. They go with
//! history, when their runs have gone; the deaths that are held against components go by their own time.

use super::{Amount, Collector};
use crate::{
    limit::{COLLECT_ROWS_MAX, DEATHS_KEPT},
    store::{Store, StoreError, column, error::Doing as _},
};

impl Store {
    /// How many backfills ended before a day, and how many fires that made no run were decided on before it.
    pub async fn count_old_requests(&self, before: &str) -> Result<(u64, u64), StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let row = sqlx::query!(
            r#"select (select count(*) from backfill f where f.finished_at < b.instant
                          and not exists (select from run r where r.backfill_id = f.backfill_id
                              and r.tenant_id = f.tenant_id and r.run_id >= first_id_of(b.instant))) as "backfills!",
                      (select count(*) from schedule_fire where state in ('missed', 'failed')
                          and decided_at < b.instant) as "fires!"
               from (select $1::text::timestamp at time zone 'utc' as instant) b"#,
            before,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("counting old backfills and fires")?;
        Ok((row.backfills.max(0) as u64, row.fires.max(0) as u64))
    }

    /// Removes backfills that ended before the horizon of history and whose runs are gone, with what they tell of failures:
    /// at most [`COLLECT_ROWS_MAX`] at a time. How many went.
    pub async fn delete_old_backfills(&self, collector: Collector) -> Result<u64, StoreError> {
        const DOING: &str = "removing old backfills";
        let mut transaction = self.collect_in_transaction(collector).await?;
        // Who has locked one lets it go on; who comes later finds none.
        let old = sqlx::query!(
            "select f.tenant_id, f.backfill_id from backfill f, retention t
             where f.finished_at < instant_of_id(t.history_from)
               and not exists (select from run r where r.backfill_id = f.backfill_id and r.tenant_id = f.tenant_id)
               and not exists (select from backfill_window w
                   where w.tenant_id = f.tenant_id and w.backfill_id = f.backfill_id)
             order by f.tenant_id, f.backfill_id limit $1 for update of f skip locked",
            COLLECT_ROWS_MAX,
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        sqlx::query!(
            "with old as materialized (
                 select * from unnest($1::text[], $2::uuid[]) as k (tenant_id, backfill_id)),
             failures as (
                 delete from backfill_failure f using old
                 where f.tenant_id = old.tenant_id and f.backfill_id = old.backfill_id)
             delete from backfill f using old where f.tenant_id = old.tenant_id and f.backfill_id = old.backfill_id",
            &column(&old, |row| row.tenant_id.clone()),
            &column(&old, |row| row.backfill_id),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(old.len() as u64)
    }

    /// Removes fires that made no run and were decided on before the horizon of history: at most [`COLLECT_ROWS_MAX`] at a
    /// time. How many went. Those that made one go with it.
    pub async fn delete_old_fires(&self, collector: Collector) -> Result<u64, StoreError> {
        const DOING: &str = "removing old fires of schedules";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let deleted = sqlx::query!(
            "delete from schedule_fire where ctid = any(array(
                 select f.ctid from schedule_fire f, retention t
                 where f.state in ('missed', 'failed') and f.decided_at < instant_of_id(t.history_from) limit $1))",
            COLLECT_ROWS_MAX,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(deleted.rows_affected())
    }

    /// Forgets deaths that are held against nobody any more: the next death would, and there may never be one.
    pub async fn forget_old_deaths(&self, collector: Collector) -> Result<Amount, StoreError> {
        const DOING: &str = "forgetting old deaths of workers";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let deleted = sqlx::query!(
            "delete from component_death where died_at < now() - make_interval(secs => $1)",
            DEATHS_KEPT.as_secs_f64(),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(Amount { count: deleted.rows_affected(), bytes: 0 })
    }
}
