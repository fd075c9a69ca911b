//! Claiming: keeps as many jobs at hand as the guests' threads use up, and no more.

use std::{sync::Arc, sync::atomic::Ordering, time::Instant};

use tokio_util::sync::CancellationToken;

use super::{Event, Running, Shared, lanes::Lanes, meters::LeaseLoss, prepare, vital};
use crate::{
    id::ClaimToken,
    limit::{CLAIM_SWEEP, CLAIM_WAIT_MAX, CLAIM_WAIT_MIN, HOST_FAULT_WAIT_BASE, LANE_SEARCH},
    store::{
        StoreError,
        queue::{Claim, Claimed, LaneSearch, LaneShare},
    },
};

/// Claims until the runner stops. Each batch is prepared by a task of its own: code that takes minutes to compile must
/// not keep the jobs of other assets waiting.
pub(super) async fn claim_while_running(shared: Arc<Shared>) {
    let _last = shared.claimed_last.clone().drop_guard();
    let mut lanes = Lanes::new(shared.settings.served.clone());
    let (mut swept_at, mut searched_at) = (Instant::now(), Instant::now());
    let mut wait = CLAIM_WAIT_MIN;
    let meters = &shared.meters;
    while !shared.stopping.is_cancelled() {
        meters.claim_loop.turn();
        if shared.fence.is_shut() {
            meters.claim_loop.rest();
            tokio::select! {
                () = shared.fence.opened() => {}
                () = shared.stopping.cancelled() => {}
            }
            continue;
        }
        let Some(free) = reserve(&shared) else {
            // Until a guest ends, which may be a day.
            meters.claim_loop.rest();
            tokio::select! {
                () = shared.room.notified() => {}
                () = shared.wake.notified() => lanes.end_rest(),
                () = shared.stopping.cancelled() => {}
            }
            continue;
        };
        if swept_at.elapsed() >= CLAIM_SWEEP {
            lanes.start_over();
            swept_at = Instant::now();
        }
        let mut search = LaneSearch::default();
        if lanes.is_empty() || searched_at.elapsed() >= LANE_SEARCH {
            // All that is free where nothing is known; otherwise what a search costs the known lanes is little.
            search = lanes.search(if lanes.is_empty() { free } else { free.div_ceil(4) });
            searched_at = Instant::now();
        }
        let sought = search.gaps.len() * search.each_found as usize;
        let shares = lanes.share(free - sought);
        let token = ClaimToken::random();
        meters.claim_statements.inc();
        // The database answers when it can: whether it does is a question of readiness.
        meters.claim_loop.rest();
        let claimed = claim(&shared, token, &mut lanes, &shares, &search).await;
        let taken = claimed.as_ref().map_or(0, |claimed| claimed.jobs.len() + claimed.unknown.len());
        meters.claim_loop.turn();
        meters.claimed_jobs.inc_by(taken as u64);
        shared.release_pending(free - taken);
        match claimed {
            Ok(_) if taken == 0 => {
                if !lanes.is_empty() {
                    continue;
                }
                tokio::select! {
                    () = shared.wake.notified() => lanes.end_rest(),
                    () = shared.pause(wait) => {
                        wait = (wait * 2).min(CLAIM_WAIT_MAX);
                        lanes.forget_emptied();
                    }
                }
            }
            Ok(Claimed { jobs, unknown, .. }) => {
                wait = CLAIM_WAIT_MIN;
                hold(&shared, jobs.iter().map(|job| &job.claim).chain(&unknown));
                if shared.fence.is_shut() {
                    // It shut while the answer was on its way; what is held is stopped like what ran.
                    shared.stop_guests();
                }
                let shared_too = shared.clone();
                shared.tasks.spawn(vital(async move { prepare::prepare_jobs(&shared_too, jobs, unknown).await }));
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

/// One claim, and what it tells of the lanes.
async fn claim(
    shared: &Shared,
    token: ClaimToken,
    lanes: &mut Lanes,
    shares: &[LaneShare],
    search: &LaneSearch,
) -> Result<Claimed, StoreError> {
    let claimed = shared.store.claim_ready_jobs(shared.worker, token, lanes.served(), shares, search).await?;
    let unknown = lanes.unknown(&claimed);
    if !unknown.is_empty() {
        // What is not known about them yet is asked again with the next claim; the jobs are ours already.
        match shared.store.find_lanes(&unknown).await {
            Ok(found) => lanes.describe(found),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "lanes cannot be read for now"),
        }
    }
    lanes.note(shares, search, &claimed);
    Ok(claimed)
}

/// Room for more jobs, counted as pending before they are claimed, so that nobody who waits for the last one can miss
/// them.
fn reserve(shared: &Shared) -> Option<usize> {
    let free = shared.room_for_jobs()?;
    shared.pending.fetch_add(free, Ordering::AcqRel);
    Some(free)
}

/// From here on the jobs can be stopped.
fn hold<'a>(shared: &Shared, claims: impl Iterator<Item = &'a Claim>) {
    let mut running = shared.lock_running();
    for claim in claims {
        let held = Running { stop: CancellationToken::new(), cancelled: false, room: None, telling: None };
        running.insert(claim.key(), held);
    }
}
