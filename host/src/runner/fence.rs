//! The fence: a worker that cannot renew its session stops by itself, before others may take its jobs.
//!
//! The database refuses what a worker commits that has lost its jobs; here it stops making it. The time is this process'
//! own and counts from before the last renewal was asked for, so that it is over first, however long answers take.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{Shared, meters::LeaseLoss};
use crate::limit::SESSION_FENCE;

/// Between a worker and what may be others' by now.
#[derive(Debug)]
pub(super) struct Fence {
    renewed_at: watch::Sender<Instant>,
}

impl Fence {
    /// Of a session that was opened, or asked for, then.
    pub(super) fn new(renewed_at: Instant) -> Self {
        Self { renewed_at: watch::Sender::new(renewed_at) }
    }

    /// The session was renewed: asked for then, at the latest.
    pub(super) fn renewed(&self, asked_at: Instant) {
        self.renewed_at.send_replace(asked_at);
    }

    /// When it was asked for the renewal that holds.
    pub(super) fn renewed_at(&self) -> Instant {
        *self.renewed_at.borrow()
    }

    /// Whether this worker's jobs may be others' soon: it runs none, and claims none.
    pub(super) fn is_shut(&self) -> bool {
        self.renewed_at().elapsed() >= SESSION_FENCE
    }

    /// Returns when the session was renewed, and the worker works again.
    pub(super) async fn opened(&self) {
        let mut renewals = self.renewed_at.subscribe();
        // It does not fail: the sender is here.
        drop(renewals.wait_for(|renewed_at| renewed_at.elapsed() < SESSION_FENCE).await);
    }
}

/// Stops the guests each time that the fence shuts, until the last commit is through.
pub(super) async fn keep_fence(shared: Arc<Shared>) {
    let watched = async {
        loop {
            let shuts_at = shared.fence.renewed_at() + SESSION_FENCE;
            tokio::time::sleep_until(shuts_at.into()).await;
            if !shared.fence.is_shut() {
                continue;
            }
            tracing::warn!(
                "the session could not be renewed in time: guests are stopped, before others take their jobs"
            );
            shared.stop_guests();
            shared.meters.count_lease_losses(LeaseLoss::SelfFenced, 1);
            shared.fence.opened().await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = shared.committed.cancelled() => {}
    }
}
