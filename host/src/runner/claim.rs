//! Claiming: keeps as many jobs at hand as the guests' threads use up, and no more.

use std::{sync::Arc, sync::atomic::Ordering, time::Instant};

use tokio_util::sync::CancellationToken;

use super::{Event, Running, Shared, meters::LeaseLoss, prepare, vital};
use crate::{
    id::ClaimToken,
    limit::{CLAIM_SWEEP, CLAIM_WAIT_MAX, CLAIM_WAIT_MIN, COMMIT_JOBS_MAX, HOST_FAULT_WAIT_BASE},
    store::queue::{Claim, ClaimPosition},
};

/// Claims until the runner stops. Each batch is prepared by a task of its own: code that takes minutes to compile must
/// not keep the jobs of other assets waiting.
pub(super) async fn claim_while_running(shared: Arc<Shared>) {
    let _last = shared.claimed_last.clone().drop_guard();
    let mut position = ClaimPosition::START;
    let mut swept_at = Instant::now();
    let mut wait = CLAIM_WAIT_MIN;
    let meters = &shared.meters;
    while !shared.stopping.is_cancelled() {
        meters.claim_loop.turn();
        let Some(free) = reserve(&shared) else {
            // Until a guest ends, which may be a day.
            meters.claim_loop.rest();
            tokio::select! {
                () = shared.wake.notified() => {}
                () = shared.stopping.cancelled() => {}
            }
            continue;
        };
        if swept_at.elapsed() >= CLAIM_SWEEP {
            position = ClaimPosition::START;
            swept_at = Instant::now();
        }
        let token = ClaimToken::random();
        meters.claim_statements.inc();
        // The database answers when it can: whether it does is a question of readiness.
        meters.claim_loop.rest();
        let claimed = shared.store.claim_ready_jobs(shared.worker, token, free as i64, position).await;
        let taken = claimed.as_ref().map_or(0, |(claims, _)| claims.len());
        meters.claim_loop.turn();
        meters.claimed_jobs.inc_by(taken as u64);
        shared.release_pending(free - taken);
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
                hold(&shared, &claims);
                let shared_too = shared.clone();
                shared.tasks.spawn(vital(async move { prepare::prepare_jobs(&shared_too, claims).await }));
            }
            Err(error) => {
                // The database may have done it all the same.
                shared.remember_unanswered(token);
                meters.count_lease_losses(LeaseLoss::UnansweredClaim, 1);
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "no jobs can be claimed for now");
                shared.pause(HOST_FAULT_WAIT_BASE).await;
            }
        }
    }
    meters.claim_loop.rest();
}

/// Room for more jobs, counted as pending before they are claimed, so that nobody who waits for the last one can miss
/// them. None when there is too little: a claim for each slot that frees would be a statement for each job.
fn reserve(shared: &Shared) -> Option<usize> {
    let wanted = shared.jobs_wanted();
    if shared.uncommitted.load(Ordering::Acquire) > wanted + 2 * COMMIT_JOBS_MAX {
        return None;
    }
    let free = wanted.saturating_sub(shared.pending.load(Ordering::Acquire));
    if free < (wanted / 4).max(1) {
        return None;
    }
    shared.pending.fetch_add(free, Ordering::AcqRel);
    Some(free)
}

/// From here on the jobs can be stopped.
fn hold(shared: &Shared, claims: &[Claim]) {
    let mut running = shared.lock_running();
    for claim in claims {
        let held = Running { stop: CancellationToken::new(), cancelled: false, room: None };
        running.insert((claim.token, claim.job), held);
    }
}
