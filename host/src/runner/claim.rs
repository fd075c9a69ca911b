//! Claiming: keeps as many jobs at hand as the guests' threads use up, and no more.

use std::{sync::Arc, sync::atomic::Ordering, time::Instant};

use tokio_util::sync::CancellationToken;

use super::{Event, JobStop, Shared, prepare};
use crate::{
    limit::{CLAIM_SWEEP, CLAIM_WAIT_MAX, CLAIM_WAIT_MIN, HOST_FAULT_WAIT_BASE},
    store::queue::{Claim, ClaimPosition},
};

/// Claims and prepares until the runner stops. Batches are prepared one after the other: while one runs, the next is
/// looked up.
pub(super) async fn claim_while_running(shared: Arc<Shared>) {
    let mut position = ClaimPosition::START;
    let mut swept_at = Instant::now();
    let mut wait = CLAIM_WAIT_MIN;
    while !shared.stopping.is_cancelled() {
        let wanted = shared.jobs_wanted();
        let free = wanted.saturating_sub(shared.pending.load(Ordering::Acquire));
        // A claim for each slot that frees would be a statement for each job.
        if free < (wanted / 4).max(1) {
            tokio::select! {
                () = shared.wake.notified() => {}
                () = shared.stopping.cancelled() => {}
            }
            continue;
        }
        if swept_at.elapsed() >= CLAIM_SWEEP {
            position = ClaimPosition::START;
            swept_at = Instant::now();
        }
        // A claim under way is pending too: who waits for the last job must not miss those that it brings.
        shared.pending.fetch_add(1, Ordering::SeqCst);
        if shared.stopping.is_cancelled() {
            return shared.no_longer_pending();
        }
        let claimed = shared.store.claim_ready_jobs(shared.worker, free as i64, position).await;
        if let Ok((claims, _)) = &claimed {
            hold(&shared, claims);
        }
        shared.no_longer_pending();
        match claimed {
            Ok((claims, _)) if claims.is_empty() => {
                if position != ClaimPosition::START {
                    position = ClaimPosition::START;
                    continue;
                }
                tokio::select! {
                    () = shared.wake.notified() => {}
                    () = shared.pause(wait) => wait = (wait * 2).min(CLAIM_WAIT_MAX),
                }
            }
            Ok((claims, reached)) => {
                wait = CLAIM_WAIT_MIN;
                position = reached.unwrap_or(ClaimPosition::START);
                prepare::prepare_jobs(&shared, claims).await;
            }
            Err(error) => {
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "no jobs can be claimed for now");
                shared.pause(HOST_FAULT_WAIT_BASE).await;
            }
        }
    }
}

/// From here on the jobs count, and can be stopped.
fn hold(shared: &Shared, claims: &[Claim]) {
    shared.pending.fetch_add(claims.len(), Ordering::AcqRel);
    let mut running = shared.lock_running();
    for claim in claims {
        running.insert(claim.job, JobStop { token: CancellationToken::new(), cancelled: false });
    }
}
