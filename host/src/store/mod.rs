//! The database: the only SQL of the host, one statement to a function, each named after what it means.
//!
//! Methods that change several tables run in one transaction of their own, and no transaction is open while a guest
//! runs. Nothing here decides: what to plan, retry or reuse arrives as a value.

use std::{sync::LazyLock, time::Duration};

use sqlx::{
    Connection as _, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::timeout;

pub mod announcements;
pub mod attempts;
pub mod backfills;
pub mod buckets;
pub mod commit;
mod connection;
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
pub mod quarantine;
pub mod queue;
pub mod quotas;
pub mod rates;
pub mod registry;
pub mod retention;
pub mod running_logs;
pub mod runs;
pub mod schedules;
pub mod secrets;
pub mod staged;
pub mod submissions;
pub mod unserved;
pub mod watch;
pub mod workers;

use connection::{Connection, Pool, Transaction};
use error::Doing as _;
pub use error::StoreError;

use crate::limit::{DATABASE_CONNECT_TIMEOUT, HISTORY_DAYS_AHEAD, MIGRATIONS_WAIT};

/// What every connection sets.
///
/// Each statement reaches its rows by an index or by their place. A plan that was made while a table was small would
/// scan it, and a prepared statement keeps its plan until the table is analyzed: long after it has grown.
/// Compiling a plan takes longer than running any of these.
///
/// A transaction whose process stands still, or whose machine is gone, holds the locks of buckets and runs that others
/// wait for: the server ends it before the process's session expires, and a statement when its client has given it up
/// ([`crate::limit::DATABASE_ANSWER_WAIT`]). It asks whether a silent client is there at all after ten seconds.
pub const SESSION_SETTINGS: &str = "set enable_seqscan = off; set jit = off; set statement_timeout = '30s';
     set idle_in_transaction_session_timeout = '15s'; set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5;
     set tcp_keepalives_count = 3";

/// The same for a transaction in a session that is another's before and after; it begins with them.
const TRANSACTION_SETTINGS: &str = "BEGIN; set local enable_seqscan = off; set local jit = off; \
     set local statement_timeout = '30s'; set local idle_in_transaction_session_timeout = '15s'";

/// Whose the sessions of connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// A connection has one of its own.
    Own,
    /// A pooler gives each transaction whichever is free.
    Shared,
}

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("../migrations");
    // Its lock is a session's, which a pooler would leave with somebody else.
    migrations.set_locking(false);
    // What a later version has made since is no error by itself: see `check_floor`.
    migrations.set_ignore_missing(true);
    migrations
});

/// The database of one installation.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Connects, brings the tables up to date (one process does, others wait), and makes the history's next days.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        Self::connect_over(options, Sessions::Own).await
    }

    /// The same where a pooler may be between.
    pub async fn connect_over(options: PgConnectOptions, sessions: Sessions) -> Result<Self, StoreError> {
        // What connections are told at their start is the least that there is: a pooler refuses what it does not know.
        let options = options.application_name("flowstone").extra_float_digits(None);
        migrate(&options, sessions).await?;
        let store = Self { pool: Pool::open(options, sessions).await.doing("connecting")? };
        // Rows of a day that has no partition go to the default one: nothing is lost but a little speed.
        if let Err(error) = store.ensure_history_days().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the history's next days cannot be made for now");
        }
        Ok(store)
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
        if timeout(grace, self.pool.close()).await.is_err() {
            tracing::debug!("connections were still in use when the store closed");
        }
    }
}

/// Brings the tables up to date, on a connection of its own: whoever comes second waits until the first has committed,
/// and finds nothing left to do. All of it is one transaction, and so is the lock.
async fn migrate(options: &PgConnectOptions, sessions: Sessions) -> Result<(), StoreError> {
    const DOING: &str = "bringing its tables up to date";
    let late = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let connecting = timeout(DATABASE_CONNECT_TIMEOUT, PgConnection::connect_with(options)).await;
    let mut connection = connecting.map_err(late).and_then(|connected| connected).doing("connecting")?;
    let migrated = timeout(MIGRATIONS_WAIT, async {
        let mut transaction = connection.begin().await.doing(DOING)?;
        sqlx::query!("select pg_advisory_xact_lock(hashtext('flowstone.migrate'))")
            .fetch_one(&mut *transaction)
            .await
            .doing(DOING)?;
        MIGRATIONS.run_direct(None, &mut *transaction, false).await.map_err(not_migrated)?;
        check_floor(&mut transaction).await?;
        if sessions == Sessions::Shared {
            // Whoever has the session next may use the same names.
            sqlx::raw_sql("deallocate all").execute(&mut *transaction).await.doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    });
    migrated.await.map_err(late).doing(DOING)??;
    // What goes wrong now is nothing that anybody waits for.
    drop(timeout(DATABASE_CONNECT_TIMEOUT, connection.close()).await);
    Ok(())
}

/// Whether a later version, if one was here, has left what this one needs.
async fn check_floor(connection: &mut PgConnection) -> Result<(), StoreError> {
    let needed = sqlx::query_scalar!("select migration from schema_floor")
        .fetch_one(connection)
        .await
        .doing("asking which versions its tables are for")?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if needed > known {
        return Err(StoreError::Version(format!(
            "its tables are for versions of flowstone that know migration {needed}, and this one knows them up to {known}; \
             use the later version that made them"
        )));
    }
    Ok(())
}

fn not_migrated(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMismatch(version) => StoreError::Version(format!(
            "its migration {version} is not the one of this version; another program or a changed build made it"
        )),
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            StoreError::Refused { doing: "bringing its tables up to date", source }
        }
        other => StoreError::Version(other.to_string()),
    }
}

/// One value of each row, as the array that `unnest` takes.
///
/// What every claim and every commit asks reads one of its arrays through a subquery, `unnest((select $1::text[]), ...)`.
/// Otherwise the server plans it anew each time, because an array of two looks cheaper than one of any length, and for a
/// job or two that takes up to ten times as long as the statement. So planned once these must reach each row by its key,
/// whatever the tables hold: nothing else may be open to the planner.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A digest column as a digest.
fn digest(bytes: Vec<u8>) -> Result<crate::blob::Digest, StoreError> {
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) => Ok(crate::blob::Digest(bytes)),
        Err(bytes) => Err(StoreError::unreadable("a digest", format!("{} bytes", bytes.len()))),
    }
}
