//! The worker's session and what keeps the queue moving: the heartbeat, rescue, deferred jobs, cancellation.

use std::{sync::Arc, time::Instant};

use super::{Event, Shared, meters::LeaseLoss};
use crate::{
    id::ClaimToken,
    limit::{CANCEL_POLL, PROMOTE_JOBS_MAX, PROMOTE_POLL, SESSION_BEAT, SESSION_RETRY, UNANSWERED_CLAIM_KEPT},
};

/// Renews the session until the last commit is through. What becomes of a worker that cannot, the fence says.
pub(super) async fn keep_session(shared: Arc<Shared>) {
    let meters = &shared.meters;
    let mut wait = SESSION_BEAT;
    loop {
        meters.session.turned_at(shared.fence.renewed_at());
        meters.heartbeat_loop.turn();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.committed.cancelled() => {
                meters.heartbeat_loop.rest();
                return;
            }
        }
        // The session counts from before the question: the answer may have been long on its way.
        let asked_at = Instant::now();
        wait = SESSION_RETRY;
        match tokio::time::timeout(SESSION_BEAT, shared.store.renew_session(shared.worker)).await {
            Ok(Ok(true)) => {
                shared.fence.renewed(asked_at);
                wait = SESSION_BEAT;
            }
            Ok(Ok(false)) => {
                tracing::warn!("this worker's session was ended by others; it opens a new one");
                meters.count_lease_losses(LeaseLoss::SessionEnded, 1);
                shared.stop_guests();
                let settings = &shared.settings;
                let registering = shared.store.register_worker(shared.worker, &settings.host, &settings.served);
                if matches!(tokio::time::timeout(SESSION_BEAT, registering).await, Ok(Ok(()))) {
                    shared.fence.renewed(asked_at);
                    wait = SESSION_BEAT;
                }
            }
            Ok(Err(error)) => {
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "the session cannot be renewed for now");
            }
            Err(_) => tracing::warn!("the session cannot be renewed for now: the database does not answer"),
        }
    }
}

/// Rescues what dead workers left and returns claims whose answer was lost; every hour it makes the history's next days,
/// and removes what ended attempts said that a worker of an earlier version rescued.
pub(super) async fn rescue_others(shared: Arc<Shared>) {
    let mut days_made_at = std::time::SystemTime::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SESSION_BEAT) => {}
            () = shared.stopping.cancelled() => return,
        }
        if let Err(error) = rescue(&shared).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "nothing can be rescued for now");
        }
        // By the wall clock: a machine that slept has missed days.
        let due = days_made_at.elapsed().map_or(true, |since| since.as_secs() >= 3_600);
        if due && shared.store.ensure_history_days().await.is_ok() && shared.store.remove_stray_lines().await.is_ok() {
            days_made_at = std::time::SystemTime::now();
        }
    }
}

async fn rescue(shared: &Shared) -> Result<(), crate::store::StoreError> {
    let unanswered: Vec<ClaimToken> = shared.lock_unanswered().iter().map(|(token, _)| *token).collect();
    if !unanswered.is_empty() {
        if shared.store.return_unanswered_claims(shared.worker, &unanswered).await? > 0 {
            shared.wake.notify_one();
        }
        shared.lock_unanswered().retain_mut(|(token, looked_up)| {
            // Those that were lost meanwhile are looked up the next time.
            !unanswered.contains(token) || looked_up.get_or_insert_with(Instant::now).elapsed() < UNANSWERED_CLAIM_KEPT
        });
    }
    loop {
        let rescued = shared.store.rescue_lost_jobs().await?;
        if rescued.jobs == 0 {
            return Ok(());
        }
        shared.meters.count_rescued(rescued.jobs);
        if let Some((tenant, component)) = rescued.quarantined {
            tracing::error!(tenant, component = %component, "a component is quarantined: workers kept dying with it");
        }
        tracing::info!(jobs = rescued.jobs, "jobs of a dead worker are in the queue again");
        shared.wake.notify_one();
    }
}

/// Moves deferred jobs to the ready table when they are due.
pub(super) async fn promote_deferred(shared: Arc<Shared>) {
    while !shared.stopping.is_cancelled() {
        match shared.store.promote_due_jobs(PROMOTE_JOBS_MAX).await {
            Ok(0) => {}
            Ok(_) => shared.wake.notify_one(),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "no deferred jobs for now"),
        }
        shared.pause(PROMOTE_POLL).await;
    }
}

/// Stops the guests of runs that somebody cancelled, and ends what came back to the queue meanwhile.
pub(super) async fn watch_for_cancels(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CANCEL_POLL) => {}
            () = shared.committed.cancelled() => return,
        }
        match shared.store.end_waiting_jobs_of_cancelled_runs().await {
            Ok(committed) => {
                shared.trace_ends(&[], &committed);
                committed.ended.into_iter().for_each(|ended| shared.tell(Event::Ended(ended)));
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "no cancelled runs for now"),
        }
        if shared.lock_running().is_empty() {
            continue;
        }
        let Ok(claims) = shared.store.list_claims_to_cancel(shared.worker).await else { continue };
        let mut running = shared.lock_running();
        for claim in claims {
            if let Some(held) = running.get_mut(&claim) {
                held.cancelled = true;
                held.stop.cancel();
            }
        }
    }
}

/// Wakes the claimer when another process announces work. Without a connection, and behind a pooler that gives each
/// transaction another one, work is found by looking for it.
pub(super) async fn hear_of_ready_jobs(shared: Arc<Shared>) {
    loop {
        let heard = async {
            let mut ready = shared.store.listen_for_ready_jobs().await?;
            loop {
                ready.next().await?;
                shared.wake.notify_one();
            }
        };
        let lost: Result<std::convert::Infallible, crate::store::StoreError> = tokio::select! {
            lost = heard => lost,
            () = shared.stopping.cancelled() => return,
        };
        let Err(error) = lost;
        tracing::debug!(error = &error as &dyn std::error::Error, "announcements are not heard for now");
        shared.wake.notify_one();
        shared.pause(SESSION_BEAT).await;
    }
}
