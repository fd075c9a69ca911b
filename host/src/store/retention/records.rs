//! What tells of history: the outbox goes with it, the audit by a rule of its own.
//!
//! Both are read from their oldest row on, a batch at a time: their sequence is about the order of their time, and there
//! is no other index.

use super::{Amount, Collector};
use crate::{
    limit::COLLECT_ROWS_MAX,
    store::{Store, StoreError, error::Doing as _},
};

impl Store {
    /// What of the outbox is from before a day.
    pub async fn count_outbox(&self, before: &str) -> Result<Amount, StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let row = sqlx::query!(
            r#"select count(*) as "count!", coalesce(sum(pg_column_size(o.*)), 0)::bigint as "bytes!" from outbox o
               where created_at < $1::text::timestamp at time zone 'utc'"#,
            before,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("counting the outbox")?;
        Ok(Amount::of(row.count, row.bytes))
    }

    /// Removes the oldest rows of the outbox that are from before the horizon of history; nothing more to do when none is.
    pub async fn delete_old_outbox(&self, collector: Collector) -> Result<Amount, StoreError> {
        const DOING: &str = "removing what the outbox told of old history";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let row = sqlx::query!(
            r#"with oldest as materialized (
                   select o.ctid as place, o.created_at from tenant t cross join lateral (
                       select ctid, created_at from outbox where tenant_id = t.tenant_id order by sequence limit $1) o),
               deleted as (
                   delete from outbox o where ctid = any(array(
                       select place from oldest, retention where created_at < instant_of_id(retention.history_from)))
                   returning pg_column_size(o.*) as bytes)
               select count(*) as "count!", coalesce(sum(bytes), 0)::bigint as "bytes!" from deleted"#,
            COLLECT_ROWS_MAX,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(Amount::of(row.count, row.bytes))
    }

    /// What of the audit is older than that many days.
    pub async fn count_audit(&self, keep_days: u32) -> Result<Amount, StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let row = sqlx::query!(
            r#"select count(*) as "count!", coalesce(sum(pg_column_size(a.*)), 0)::bigint as "bytes!" from audit a
               where created_at < now() - make_interval(days => $1)"#,
            i32::try_from(keep_days).unwrap_or(i32::MAX),
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("counting the audit")?;
        Ok(Amount::of(row.count, row.bytes))
    }

    /// Says from when on audit is kept; that is audited itself, whenever it lets something go.
    pub async fn move_audit_horizon(&self, collector: Collector, keep_days: u32) -> Result<(), StoreError> {
        const DOING: &str = "letting audit go";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let keep_days = i32::try_from(keep_days).unwrap_or(i32::MAX);
        sqlx::query!(
            "with moved as (
                 update retention set audit_from = now() - make_interval(days => $1)
                 where audit_from < now() - make_interval(days => $1)
                   and exists (select from audit where created_at < now() - make_interval(days => $1))
                 returning audit_from)
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'retention', 'audit.removed', 'before ' || to_char(audit_from at time zone 'utc',
                 'YYYY-MM-DD HH24:MI:SS'), '{}' from moved, tenant",
            keep_days,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// Removes the oldest audit that is from before its horizon; nothing more to do when none is.
    pub async fn delete_old_audit(&self, collector: Collector) -> Result<Amount, StoreError> {
        const DOING: &str = "removing old audit";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let row = sqlx::query!(
            r#"with oldest as materialized (
                   select a.ctid as place, a.created_at from tenant t cross join lateral (
                       select ctid, created_at from audit where tenant_id = t.tenant_id order by sequence limit $1) a),
               deleted as (
                   delete from audit a where ctid = any(array(
                       select place from oldest, retention where created_at < retention.audit_from))
                   returning pg_column_size(a.*) as bytes)
               select count(*) as "count!", coalesce(sum(bytes), 0)::bigint as "bytes!" from deleted"#,
            COLLECT_ROWS_MAX,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(Amount::of(row.count, row.bytes))
    }
}
