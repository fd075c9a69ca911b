//! Releasing what waits for a job with very many dependents: its commit left them to this reconciler, which every process
//! runs, so that those of a process that died are found by the others.

use std::sync::Arc;

use super::{Event, Shared};
use crate::limit::RELEASE_POLL;

/// Releases batch by batch until the runner stops. Whatever is left then is in the database, for the next one.
pub(super) async fn release_put_off(shared: Arc<Shared>) {
    while !shared.stopping.is_cancelled() {
        match shared.store.release_next_dependents().await {
            Ok(Some(committed)) => {
                shared.trace_ends(&[], &committed);
                for ended in committed.ended {
                    shared.tell(Event::Ended(ended));
                }
                if committed.released > 0 {
                    shared.wake.notify_one();
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no dependents can be released for now");
            }
        }
        tokio::select! {
            () = shared.release.notified() => {}
            () = shared.pause(RELEASE_POLL) => {}
        }
    }
}
