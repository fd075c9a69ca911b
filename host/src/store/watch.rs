//! What is asked about the database and the queue from outside: how much waits, and whether a worker can work.
//!
//! Each question is a bounded statement with a time of its own: whoever watches must not load what is watched.

use sqlx::Row as _;

use super::{MIGRATIONS, Store, StoreError, error::Doing as _, unserved::count_unserved_jobs};
use crate::limit::{QUEUE_COUNT_MAX, WATCH_STATEMENT_TIMEOUT};

/// How much waits, and how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueDepth {
    /// Can be claimed now.
    pub ready: Depth,
    /// Can be claimed later.
    pub deferred: Depth,
    /// Is claimed, by this worker or another.
    pub running: Depth,
    /// Waits for other jobs of its run.
    pub blocked: Depth,
    /// Waits for the end of a pause.
    pub paused: Depth,
    /// Waits for a live job that makes the same.
    pub joined: Depth,
    /// Waits for a permit of a pool.
    pub limited: Depth,
    /// How long the oldest ready job has been ready; 0 when there is none.
    pub oldest_ready_seconds: f64,
    /// Of the ready jobs, how many no live worker takes; no more than [`QUEUE_COUNT_MAX`] are counted.
    pub unserved: u64,
}

/// A number of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// How many.
    pub jobs: u64,
    /// Whether that is the estimate of Postgres: past [`QUEUE_COUNT_MAX`] nothing is counted.
    pub is_estimate: bool,
}

/// The connections of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// A statement has them.
    pub in_use: usize,
    /// They are open and wait for one.
    pub idle: usize,
}

/// Why nothing can be recorded in the database, although it answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritable {
    /// It follows another server.
    #[error("it is a standby, which only reads: connect to the primary, or promote it")]
    Standby,
    /// Somebody set it so.
    #[error("its transactions only read: see default_transaction_read_only")]
    ReadOnly,
}

impl Store {
    /// How much waits. Of each table at most [`QUEUE_COUNT_MAX`] rows are counted; past that it is what Postgres has
    /// added up of inserts and deletes.
    pub async fn queue_depth(&self) -> Result<QueueDepth, StoreError> {
        let mut transaction = self.pool.begin().await.doing("looking at the queue")?;
        limit_statements(&mut transaction).await?;
        let row = sqlx::query!(
            r#"select (select count(*) from (select from job_ready limit $1) t) as "ready!",
                      (select count(*) from (select from job_deferred limit $1) t) as "deferred!",
                      (select count(*) from (select from job_lease limit $1) t) as "running!",
                      (select count(*) from (select from job_blocked limit $1) t) as "blocked!",
                      (select count(*) from (select from job_paused limit $1) t) as "paused!",
                      (select count(*) from (select from job_joined limit $1) t) as "joined!",
                      (select count(*) from (select from job_limited limit $1) t) as "limited!",
                      pg_stat_get_live_tuples('job_ready'::regclass) as "ready_estimated!",
                      pg_stat_get_live_tuples('job_deferred'::regclass) as "deferred_estimated!",
                      pg_stat_get_live_tuples('job_lease'::regclass) as "running_estimated!",
                      pg_stat_get_live_tuples('job_blocked'::regclass) as "blocked_estimated!",
                      pg_stat_get_live_tuples('job_paused'::regclass) as "paused_estimated!",
                      pg_stat_get_live_tuples('job_joined'::regclass) as "joined_estimated!",
                      pg_stat_get_live_tuples('job_limited'::regclass) as "limited_estimated!",
                      coalesce((select extract(epoch from now() - ready_at)::float8 from job_ready
                          order by ready_at, job_id limit 1), 0) as "oldest_ready_seconds!""#,
            QUEUE_COUNT_MAX,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("looking at the queue")?;
        let unserved = count_unserved_jobs(&mut transaction).await?;
        transaction.commit().await.doing("looking at the queue")?;
        let depth = |counted: i64, estimated: i64| Depth {
            jobs: if counted < QUEUE_COUNT_MAX { counted } else { counted.max(estimated) }.unsigned_abs(),
            is_estimate: counted >= QUEUE_COUNT_MAX,
        };
        Ok(QueueDepth {
            ready: depth(row.ready, row.ready_estimated),
            deferred: depth(row.deferred, row.deferred_estimated),
            running: depth(row.running, row.running_estimated),
            blocked: depth(row.blocked, row.blocked_estimated),
            paused: depth(row.paused, row.paused_estimated),
            joined: depth(row.joined, row.joined_estimated),
            limited: depth(row.limited, row.limited_estimated),
            oldest_ready_seconds: row.oldest_ready_seconds.max(0.0),
            unserved,
        })
    }

    /// Whether the server takes writes. That a write went through, the session's beat tells.
    pub async fn check_writable(&self) -> Result<Result<(), NotWritable>, StoreError> {
        let row = sqlx::query!(
            r#"select pg_is_in_recovery() as "is_standby!",
                      current_setting('transaction_read_only')::boolean as "is_read_only!""#
        )
        .fetch_one(&self.pool)
        .await
        .doing("asking whether the database can be written")?;
        Ok(match (row.is_standby, row.is_read_only) {
            (true, _) => Err(NotWritable::Standby),
            (false, true) => Err(NotWritable::ReadOnly),
            (false, false) => Ok(()),
        })
    }

    /// The first migration of this version that the database does not have. It may have later ones: an older worker goes
    /// on beside newer ones.
    pub async fn find_missing_migration(&self) -> Result<Option<String>, StoreError> {
        // Of sqlx's own table, which is not among the migrations that statements are checked against.
        let applied: Vec<i64> = sqlx::query("select version from _sqlx_migrations where success")
            .fetch_all(&self.pool)
            .await
            .doing("asking which migrations the database has")?
            .iter()
            .map(|row| row.try_get("version"))
            .collect::<Result<_, _>>()
            .doing("asking which migrations the database has")?;
        let missing = MIGRATIONS.iter().find(|migration| !applied.contains(&migration.version));
        Ok(missing.map(|migration| format!("{:04} {}", migration.version, migration.description)))
    }

    /// The connections of this process, now.
    pub fn connections(&self) -> Connections {
        let (open, idle) = self.pool.count();
        Connections { in_use: open.saturating_sub(idle), idle }
    }
}

/// For the rest of this transaction.
async fn limit_statements(connection: &mut super::Connection) -> Result<(), StoreError> {
    let milliseconds = WATCH_STATEMENT_TIMEOUT.as_millis().to_string();
    sqlx::query!(r#"select set_config('statement_timeout', $1, true) as "set!""#, milliseconds)
        .fetch_one(connection)
        .await
        .doing("looking at the queue")?;
    Ok(())
}
