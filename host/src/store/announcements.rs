//! Announcements: that there is work, said to workers of other processes so that they need not wait for their next look.
//!
//! Nothing depends on one: a worker that misses it looks by itself before long. They are made by statements of their own,
//! after the commit of what they tell of: within it, `notify` would have all commits wait for each other.

use sqlx::{
    Executor as _,
    postgres::{PgExecutor, PgListener},
};
use tokio::time::timeout;

use super::{Store, StoreError, connection::Transaction, error::Doing as _, submissions::Durable};
use crate::limit::{DATABASE_CONNECT_TIMEOUT, LISTENED_IN_SILENCE_MAX};

/// The channel of announcements.
const CHANNEL: &str = "flowstone_ready";

impl Store {
    /// Tells the workers of all processes that jobs have become ready. What goes wrong costs them a moment.
    pub async fn announce_ready_jobs(&self) {
        announce(&self.pool).await;
    }

    /// From now on announcements are heard, over a connection of its own; none where sessions are shared.
    pub async fn listen_for_ready_jobs(&self) -> Result<ReadyJobs, StoreError> {
        const DOING: &str = "listening for announcements";
        if !self.pool.has_own_sessions() {
            return Ok(ReadyJobs(None));
        }
        let mut listener = self.pool.listen().await.doing(DOING)?;
        listener.listen(CHANNEL).await.doing(DOING)?;
        Ok(ReadyJobs(Some(listener)))
    }
}

async fn announce(executor: impl PgExecutor<'_>) {
    if let Err(error) = sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(executor).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "new work cannot be announced");
    }
}

/// Commits and announces, and where the commit did not wait for the disk waits for it then: a commit that comes later in
/// the server's log takes what is before it along. By then it has become true, whatever the answer.
pub(super) async fn commit_and_announce(transaction: Transaction, durable: Durable) -> sqlx::Result<()> {
    let mut transaction = transaction.commit_and_begin_single().await?;
    announce(&mut *transaction).await;
    if durable == Durable::ByCommit {
        return transaction.commit().await;
    }
    let mut transaction = transaction.commit_and_begin_single().await?;
    sqlx::query_scalar!(r#"select pg_logical_emit_message(true, 'flowstone', '') is not null as "is_logged!""#)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Announcements that are heard.
#[derive(Debug)]
pub struct ReadyJobs(Option<PgListener>);

impl ReadyJobs {
    /// Waits for the next one, or for the loss of the connection: who listens again has missed what was said meanwhile.
    /// A connection over which nothing comes for long is asked whether it is there.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        const DOING: &str = "listening for announcements";
        let Some(listener) = &mut self.0 else { return std::future::pending().await };
        loop {
            if let Ok(heard) = timeout(LISTENED_IN_SILENCE_MAX, listener.try_recv()).await {
                return heard.doing(DOING).map(drop);
            }
            let asked = timeout(DATABASE_CONNECT_TIMEOUT, listener.execute("select 1")).await;
            asked
                .map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
                .and_then(|answer| answer)
                .doing(DOING)?;
        }
    }
}
