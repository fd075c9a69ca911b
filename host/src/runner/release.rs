//! Releasing what waits for jobs that have ended and was too much for their commits: the dependents of very wide jobs, and
//! those that had joined a job with very many others. The reconciler runs in every process, so that what a process left
//! that died, or an earlier version did not know of, is found by the others.

use std::sync::Arc;

use super::{Event, Shared};
use crate::{
    limit::RELEASE_POLL,
    store::{
        StoreError,
        commit::{Committed, SweepPosition},
    },
};

/// Releases batch by batch until the runner stops. Whatever is left then is in the database, for the next one.
pub(super) async fn release_put_off(shared: Arc<Shared>) {
    let mut swept_to = None;
    while !shared.stopping.is_cancelled() {
        match release_next(&shared, &mut swept_to).await {
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
                tracing::debug!(error = &error as &dyn std::error::Error, "nothing can be released for now");
            }
        }
        tokio::select! {
            () = shared.release.notified() => {}
            () = shared.pause(RELEASE_POLL) => {}
        }
    }
}

/// The next batch of dependents or of joined jobs; none when there is neither.
async fn release_next(shared: &Shared, swept_to: &mut Option<SweepPosition>) -> Result<Option<Committed>, StoreError> {
    if let Some(committed) = shared.store.release_next_dependents().await? {
        return Ok(Some(committed));
    }
    let swept = shared.store.sweep_joined_jobs(swept_to.as_ref()).await?;
    // From the start again after the last one.
    *swept_to = swept.position;
    Ok((swept.jobs > 0).then_some(swept.committed))
}
