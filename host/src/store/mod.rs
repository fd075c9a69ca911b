//! The database: the only SQL of the host, one statement to a function, each named after what it means.
//!
//! Methods that change several tables run in one transaction of their own, and no transaction is open while a guest
//! runs. Nothing here decides: what to plan, retry or reuse arrives as a value.

use std::time::Duration;

use sqlx::{
    Executor as _, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub mod announcements;
pub mod backfills;
pub mod buckets;
pub mod commit;
pub mod error;
pub mod intents;
pub mod lanes;
pub mod latest;
pub mod lineage;
pub mod live_jobs;
pub mod materializations;
pub mod pauses;
pub mod permits;
pub mod pipelines;
pub mod pools;
pub mod queue;
pub mod rates;
pub mod registry;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod staged;
pub mod submissions;
pub mod watch;
pub mod workers;

use error::Doing as _;
pub use error::StoreError;

use crate::limit::{DATABASE_CONNECT_TIMEOUT, DATABASE_CONNECTIONS_MAX, HISTORY_DAYS_AHEAD};

/// What every connection sets.
///
/// Each statement reaches its rows by an index or by their place. A plan that was made while a table was small would
/// scan it, and a prepared statement keeps its plan until the table is analyzed: long after it has grown.
/// Compiling a plan takes longer than running any of these.
///
/// A transaction whose process stands still, or whose machine is gone, holds the locks of buckets and runs that others
/// wait for: the server ends it before the process's session expires.
pub const SESSION_SETTINGS: &str =
    "set enable_seqscan = off; set jit = off; set idle_in_transaction_session_timeout = '15s'";

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The database of one installation.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Connects, brings the tables up to date (one process does, others wait), and makes the history's next days.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(DATABASE_CONNECTIONS_MAX)
            .acquire_timeout(DATABASE_CONNECT_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { connection.execute(sqlx::raw_sql(SESSION_SETTINGS)).await.map(drop) })
            })
            .connect_with(options.application_name("flowstone"))
            .await
            .doing("connecting")?;
        let store = Self { pool };
        store.migrate().await?;
        // Rows of a day that has no partition go to the default one: nothing is lost but a little speed.
        if let Err(error) = store.ensure_history_days().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the history's next days cannot be made for now");
        }
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATIONS.run(&self.pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Version(format!(
                "its migration {version} is not known here; a later version of flowstone made it, use that one"
            )),
            MigrateError::VersionMismatch(version) => StoreError::Version(format!(
                "its migration {version} is not the one of this version; another program or a changed build made it"
            )),
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                StoreError::Refused { doing: "bringing its tables up to date", source }
            }
            other => StoreError::Version(other.to_string()),
        })
    }

    /// Makes the partitions of history for the days around now; called at start and every hour after.
    pub async fn ensure_history_days(&self) -> Result<(), StoreError> {
        sqlx::query!(
            r#"select ensure_history_days((now() at time zone 'utc')::date - 1, $1) as "made: ()""#,
            HISTORY_DAYS_AHEAD
        )
        .fetch_one(&self.pool)
        .await
        .doing("making the history's next days")?;
        Ok(())
    }

    /// Closes the connections, waiting for those in use no longer than this.
    pub async fn close(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.pool.close()).await.is_err() {
            tracing::debug!("connections were still in use when the store closed");
        }
    }
}

/// One value of each row, as the array that `unnest` takes.
fn column<R, T>(rows: &[R], value: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A digest column as a digest.
fn digest(bytes: Vec<u8>) -> Result<crate::blob::Digest, StoreError> {
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) => Ok(crate::blob::Digest(bytes)),
        Err(bytes) => Err(StoreError::unreadable("a digest", format!("{} bytes", bytes.len()))),
    }
}
