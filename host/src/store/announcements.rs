//! Announcements: that there is work, said to workers of other processes so that they need not wait for their next look.
//!
//! Nothing depends on one: a worker that misses it looks by itself before long. They are made by statements of their own,
//! after the commit of what they tell of: within it, `notify` would have all commits wait for each other. That of a
//! submission goes to the server in the same message as its commit.

use sqlx::{Executor as _, postgres::PgListener};
use tokio::time::timeout;

use super::{Store, StoreError, error::Doing as _};
use crate::limit::{DATABASE_CONNECT_TIMEOUT, LISTENED_IN_SILENCE_MAX};

/// The channel of announcements.
const CHANNEL: &str = "flowstone_ready";
/// Ends a transaction and then announces, for [`Transaction::commit_with`](super::Transaction::commit_with).
pub(super) const COMMIT_AND_ANNOUNCE: &str = "commit; select pg_notify('flowstone_ready', '')";

impl Store {
    /// Tells the workers of all processes that jobs have become ready. What goes wrong costs them a moment.
    pub async fn announce_ready_jobs(&self) {
        if let Err(error) = sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(&self.pool).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "new work cannot be announced");
        }
    }

    /// From now on announcements are heard, over a connection of its own; none where sessions are shared.
    pub async fn listen_for_ready_jobs(&self) -> Result<ReadyJobs, StoreError> {
        const DOING: &str = "listening for announcements";
        if !self.pool.has_own_sessions() {
            return Ok(ReadyJobs(None));
        }
        let mut listener = PgListener::connect_with(self.pool.unbounded()).await.doing(DOING)?;
        listener.listen(CHANNEL).await.doing(DOING)?;
        Ok(ReadyJobs(Some(listener)))
    }
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
