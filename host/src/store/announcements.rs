//! Announcements: that there is work, said to workers of other processes so that they need not wait for their next look.
//!
//! Nothing depends on one: a worker that misses it looks by itself before long. They are made by statements of their own,
//! after the commit of what they tell of: within it, `notify` would have all commits wait for each other.

use sqlx::postgres::PgListener;

use super::{Store, StoreError, error::Doing as _};

/// The channel of announcements.
const CHANNEL: &str = "flowstone_ready";

impl Store {
    /// Tells the workers of all processes that jobs have become ready. What goes wrong costs them a moment.
    pub async fn announce_ready_jobs(&self) {
        if let Err(error) = sqlx::query!("select pg_notify($1, '')", CHANNEL).execute(&self.pool).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "new work cannot be announced");
        }
    }

    /// From now on announcements are heard, over a connection of its own.
    pub async fn listen_for_ready_jobs(&self) -> Result<ReadyJobs, StoreError> {
        const DOING: &str = "listening for announcements";
        let mut listener = PgListener::connect_with(&self.pool).await.doing(DOING)?;
        listener.listen(CHANNEL).await.doing(DOING)?;
        Ok(ReadyJobs(listener))
    }
}

/// Announcements that are heard.
#[derive(Debug)]
pub struct ReadyJobs(PgListener);

impl ReadyJobs {
    /// Waits for the next one, or for the loss of the connection: who listens again has missed what was said meanwhile.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        self.0.try_recv().await.doing("listening for announcements").map(drop)
    }
}
