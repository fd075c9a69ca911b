//! Faults of the database, put there by triggers in a test's own database: the commit fails, loses its connection or
//! stops at one exact statement, and nothing in the host knows of it.

use flowstone::limit::SESSION_EXPIRY;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use crate::{Database, deadline::wait_until_database_says};

/// One kind of row that a commit writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of what.
    pub table: &'static str,
    /// `insert`, `update` or `delete`.
    pub operation: &'static str,
    /// Which rows, where others than the commit write the same; `true` for all.
    pub only: &'static str,
}

/// Before or after the row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Not written yet.
    Before,
    /// Written.
    After,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The statement fails, once, as if the server were shutting down.
    Refused,
    /// The server ends the connection, once.
    Disconnected,
    /// It waits until the gate opens, see [`Gate`].
    Gated,
}

const fn step(operation: &'static str, table: &'static str, only: &'static str) -> Step {
    Step { table, operation, only }
}

/// A publisher forgets what the directory shows.
pub const FORGET_PUBLISHED: Step = step("delete", "staged_file", "true");

/// Everything that the commit of a finished job may write, in its order.
pub const COMMIT_STEPS: &[Step] = &[
    step("delete", "job_lease", "true"),
    step("insert", "bucket", "true"),
    step("update", "bucket", "true"),
    step("delete", "bucket_entry", "true"),
    step("insert", "bucket_entry", "true"),
    step("insert", "attempt", "true"),
    // A component is a blob too, and the deploy writes it before there is a run.
    step("insert", "blob", "exists (select from run)"),
    step("insert", "materialization", "true"),
    step("insert", "latest", "true"),
    step("insert", "lineage_edge", "true"),
    step("insert", "external_read", "true"),
    step("insert", "staged_file", "true"),
    step("insert", "job_deferred", "true"),
    step("insert", "job_end", "true"),
    step("update", "job_blocked", "true"),
    step("delete", "job_blocked", "true"),
    // The submission makes jobs ready too.
    step("insert", "job_ready", "exists (select from job_end)"),
    step("insert", "audit", "new.action like 'job.%'"),
    step("insert", "outbox", "new.topic like 'job.%'"),
    step("update", "run", "true"),
    step("insert", "outbox", "new.topic like 'run.%'"),
];

impl Step {
    /// Makes it happen at this step, once or at a gate; replaces what was put there before.
    pub async fn inject(&self, pool: &PgPool, when: When, fault: Fault) {
        let Self { table, operation, only } = self;
        let when = match when {
            When::Before => "before",
            When::After => "after",
        };
        let action = match fault {
            Fault::Refused => "raise exception 'injected' using errcode = 'admin_shutdown'",
            // The signal is seen at the next look for interrupts, which the sleep is full of.
            Fault::Disconnected => "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60)",
            Fault::Gated => "perform pg_advisory_xact_lock_shared(1)",
        };
        // A sequence counts on when the transaction is undone: the next try goes through.
        let once = if fault == Fault::Gated { "true" } else { "nextval('injected') = 1" };
        let row = if *operation == "delete" { "old" } else { "new" };
        remove(pool).await;
        let sql = format!(
            "create sequence injected;
             create function injected() returns trigger language plpgsql as $$
             begin
                 if {only} then
                     if {once} then {action}; end if;
                 end if;
                 return {row};
             end $$;
             create trigger injected {when} {operation} on {table} for each row execute function injected();"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.expect("the trigger is right");
    }
}

/// Takes out what was injected last; returns how often it was reached.
pub async fn remove(pool: &PgPool) -> i64 {
    let reached = "select coalesce((select last_value from pg_sequences where sequencename = 'injected'), 0)";
    let reached: i64 = sqlx::query_scalar(reached).fetch_one(pool).await.expect("sequences can be read");
    let sql = "drop function if exists injected() cascade; drop sequence if exists injected";
    sqlx::raw_sql(sql).execute(pool).await.expect("what was made can be dropped");
    reached
}

/// Closed as long as it lives. What waits at it waits in the server.
#[derive(Debug)]
pub struct Gate {
    lock: PgConnection,
}

/// Whether somebody has come to the gate.
pub const SOMEBODY_WAITS_AT_THE_GATE: &str =
    "select exists (select from pg_locks where locktype = 'advisory' and not granted
         and database = (select oid from pg_database where datname = current_database()))";

impl Gate {
    /// Closes it.
    pub async fn close(database: &Database) -> Self {
        let mut lock = PgConnection::connect_with(&database.options()).await.expect("the database exists");
        sqlx::query("select pg_advisory_lock(1)").execute(&mut lock).await.expect("nobody else closes it");
        Self { lock }
    }

    /// Closes the one at which publishers wait for each other.
    pub async fn close_publishing(database: &Database) -> Self {
        let mut lock = PgConnection::connect_with(&database.options()).await.expect("the database exists");
        let sql = "select pg_advisory_lock(hashtext('flowstone.publish'))";
        sqlx::query(sql).execute(&mut lock).await.expect("the server is there");
        Self { lock }
    }

    /// Lets everybody through.
    pub async fn open(self) {
        self.lock.close().await.expect("the server is there");
    }
}

/// Does what time would do to the session of a process that was killed: its leases expire. Returns when the server has
/// noticed that the process is gone, so that nothing of it is still being written.
pub async fn let_sessions_expire(pool: &PgPool) {
    wait_until_database_says(
        pool,
        "select not exists (select from pg_stat_activity
             where datname = current_database() and application_name = 'flowstone')",
    )
    .await;
    let sql = "update worker set beat_at = now() - make_interval(secs => $1)";
    let later = SESSION_EXPIRY.as_secs_f64() + 1.0;
    sqlx::query(sql).bind(later).execute(pool).await.expect("a session can be renewed, also backwards");
}
