//! History: whole days of runs that have ended, the oldest first.
//!
//! The horizon moves first, and never back: from there on, smaller ids are history that is gone or going. Then each table
//! loses its days as partitions, one at a time, each under locks that are given up when they do not come at once. Then go
//! the rows that are in no day of their own. Facts stay: none of them refers to history.

use super::{Amount, Collector};
use crate::{
    id::RunId,
    limit::COLLECT_ROWS_MAX,
    store::{Store, StoreError, error::Doing as _},
};

/// One day of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryDay {
    /// `job`, `job_input`, `job_end` or `attempt`.
    pub history: String,
    /// As `2026-11-30`.
    pub day: String,
    /// On disk.
    pub bytes: u64,
}

impl Store {
    /// The day up to which history can go, as `2026-11-30`: the newest before which every run has ended, and did so at
    /// least that many days ago. None when that is no later than it has gone already.
    pub async fn find_history_end(&self, keep_days: u32) -> Result<Option<String>, StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        // The jobs of a run may have smaller ids than the run: it is planned meanwhile.
        sqlx::query_scalar!(
            "select to_char(d.day, 'YYYY-MM-DD') from (
                 select date_trunc('day', least(now() - make_interval(days => $1), coalesce((
                     select instant_of_id(r.run_id) - interval '1 hour' from run r
                     where r.state = 'running' or r.finished_at > now() - make_interval(days => $1)
                        -- Its backfill has yet to count what became of it.
                        or exists (select from backfill_window w where w.tenant_id = r.tenant_id and w.run_id = r.run_id)
                     order by r.run_id limit 1), 'infinity')) at time zone 'utc') as day) d, retention
             where first_id_of(d.day at time zone 'utc') > retention.history_from",
            i32::try_from(keep_days).unwrap_or(i32::MAX),
        )
        .fetch_optional(&mut *transaction)
        .await
        .doing("looking for history that can go")
        .map(Option::flatten)
    }

    /// The oldest run that goes on and is older than that many days: no history from its time on goes before it ends.
    pub async fn find_oldest_unfinished(&self, keep_days: u32) -> Result<Option<RunId>, StoreError> {
        let found = sqlx::query_scalar!(
            "select run_id from run
             where state = 'running' and run_id < first_id_of(now() - make_interval(days => $1))
             order by run_id limit 1",
            i32::try_from(keep_days).unwrap_or(i32::MAX),
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for the oldest run that goes on")?;
        Ok(found.map(RunId))
    }

    /// Moves the horizon to the beginning of a day.
    pub async fn move_history_horizon(&self, collector: Collector, day: &str) -> Result<(), StoreError> {
        const DOING: &str = "letting history go";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let moved = sqlx::query!(
            "update retention set history_from = first_id_of($1::text::timestamp at time zone 'utc')
             where history_from < first_id_of($1::text::timestamp at time zone 'utc')",
            day,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if moved.rows_affected() == 1 {
            sqlx::query!(
                "insert into audit (tenant_id, actor, action, subject, details)
                 select tenant_id, 'retention', 'history.removed', 'before ' || $1::text, '{}' from tenant",
                day,
            )
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    }

    /// The days of all tables before a day, or before the horizon, the oldest first.
    pub async fn list_history_days(&self, before: Option<&str>) -> Result<Vec<HistoryDay>, StoreError> {
        let rows = sqlx::query!(
            r#"select d.history as "history!", to_char(d.day, 'YYYY-MM-DD') as "day!", d.bytes as "bytes!" from (
                   select p.relname::text as history, to_date(right(c.relname, 8), 'YYYYMMDD') as day,
                       pg_total_relation_size(c.oid) as bytes
                   from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
                   where p.relname in ('job', 'job_input', 'job_end', 'attempt') and c.relkind = 'r'
                     and c.relname ~ '_[0-9]{8}$' and pg_table_is_visible(p.oid)) d, retention
               where d.day < coalesce($1::text::date, (instant_of_id(retention.history_from) at time zone 'utc')::date)
               order by d.day, d.history"#,
            before as Option<&str>,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing the days of history")?;
        let day = |row: (String, String, i64)| HistoryDay { history: row.0, day: row.1, bytes: row.2.max(0) as u64 };
        Ok(rows.into_iter().map(|row| day((row.history, row.day, row.bytes))).collect())
    }

    /// How many jobs and runs there are before a day.
    pub async fn count_history(&self, before: &str) -> Result<(u64, u64), StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let row = sqlx::query!(
            r#"select (select count(*) from job where job_id < b.bound) as "jobs!",
                      (select count(*) from run where run_id < b.bound) as "runs!"
               from (select first_id_of($1::text::timestamp at time zone 'utc') as bound) b"#,
            before,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("counting history")?;
        Ok((row.jobs.max(0) as u64, row.runs.max(0) as u64))
    }

    /// Drops one day of one table. False when it cannot be for now: somebody works with the table, or a run of that time,
    /// by the clock of whoever submitted it, goes on.
    pub async fn drop_history_day(&self, collector: Collector, day: &HistoryDay) -> Result<bool, StoreError> {
        const DOING: &str = "dropping a day of history";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let dropped =
            sqlx::query_scalar!(r#"select drop_history_day($1, $2::text::date) as "dropped!""#, day.history, day.day)
                .fetch_one(&mut *transaction)
                .await;
        match dropped {
            Ok(dropped) => {
                transaction.commit().await.doing(DOING)?;
                Ok(dropped)
            }
            // lock_not_available, deadlock_detected
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("55P03" | "40P01")) => {
                Ok(false)
            }
            Err(error) => Err(error).doing(DOING),
        }
    }

    /// Removes runs from before the horizon whose jobs are gone, and rows that were in no day of their own: at most
    /// [`COLLECT_ROWS_MAX`] runs at a time. How many runs went.
    pub async fn delete_old_runs(&self, collector: Collector, keep_days: u32) -> Result<u64, StoreError> {
        const DOING: &str = "removing old runs";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let keep_days = i32::try_from(keep_days).unwrap_or(i32::MAX);
        sqlx::query!(
            "delete from job_default j using run r, retention t
             where j.job_id < t.history_from and r.run_id < t.history_from
               and r.tenant_id = j.tenant_id and r.run_id = j.run_id
               and r.state <> 'running' and r.finished_at <= now() - make_interval(days => $1)",
            keep_days,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        let deleted = sqlx::query!(
            "with old as materialized (
                 select r.tenant_id, r.run_id from run r, retention t
                 where r.run_id < t.history_from and r.state <> 'running'
                   and r.finished_at <= now() - make_interval(days => $1)
                   and not exists (select from job j where j.run_id = r.run_id and j.tenant_id = r.tenant_id)
                   and not exists (select from backfill_window w
                       where w.run_id = r.run_id and w.tenant_id = r.tenant_id)
                 order by r.tenant_id, r.run_id limit $2)
             delete from run r using old where r.tenant_id = old.tenant_id and r.run_id = old.run_id",
            keep_days,
            COLLECT_ROWS_MAX,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(deleted.rows_affected())
    }

    /// Removes what was in no day of its own and belongs to jobs that are gone.
    pub async fn delete_stray_history(&self, collector: Collector) -> Result<Amount, StoreError> {
        const DOING: &str = "removing stray history";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let inputs = sqlx::query!(
            "delete from job_input_default i using retention t where i.job_id < t.history_from
               and not exists (select from job j where j.tenant_id = i.tenant_id and j.job_id = i.job_id)"
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        let ends = sqlx::query!(
            "delete from job_end_default e using retention t where e.job_id < t.history_from
               and not exists (select from job j where j.tenant_id = e.tenant_id and j.job_id = e.job_id)"
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        let attempts = sqlx::query!(
            "delete from attempt_default a using retention t where a.attempt_id < t.history_from
               and not exists (select from job j where j.tenant_id = a.tenant_id and j.job_id = a.job_id)"
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(Amount { count: inputs.rows_affected() + ends.rows_affected() + attempts.rows_affected(), bytes: 0 })
    }
}
