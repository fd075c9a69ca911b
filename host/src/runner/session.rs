//! The worker's session and what keeps the queue moving: the heartbeat, rescue, deferred jobs, cancellation.

use std::{sync::Arc, time::Instant};

use super::{Event, Shared};
use crate::limit::{CANCEL_POLL, PROMOTE_JOBS_MAX, PROMOTE_POLL, SESSION_BEAT, SESSION_FENCE};

/// Renews the session until the runner has stopped, and rescues what dead workers left.
///
/// A worker that cannot renew stops its guests before its leases expire: what others may take over, it must not go on
/// making. The database would refuse its commits anyway; its guests would only cost.
pub(super) async fn keep_session(shared: Arc<Shared>) {
    let mut renewed_at = Instant::now();
    let mut days_made_at = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SESSION_BEAT) => {}
            () = shared.drained_after_stop() => return,
        }
        match shared.store.renew_session(shared.worker).await {
            Ok(true) => renewed_at = Instant::now(),
            Ok(false) => {
                tracing::warn!("this worker's session was ended by others; it opens a new one");
                shared.stop_guests();
                if shared.store.register_worker(shared.worker, &shared.settings.host).await.is_ok() {
                    renewed_at = Instant::now();
                }
            }
            Err(error) => {
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "the session cannot be renewed for now");
            }
        }
        if renewed_at.elapsed() >= SESSION_FENCE {
            shared.stop_guests();
            continue;
        }
        if let Err(error) = rescue(&shared).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "nothing can be rescued for now");
        }
        if days_made_at.elapsed().as_secs() >= 3_600 && shared.store.ensure_history_days().await.is_ok() {
            days_made_at = Instant::now();
        }
    }
}

async fn rescue(shared: &Shared) -> Result<(), crate::store::StoreError> {
    loop {
        let rescued = shared.store.rescue_lost_jobs().await?;
        if rescued.jobs == 0 {
            return Ok(());
        }
        tracing::info!(jobs = rescued.jobs, "jobs of a dead worker are ready again");
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

/// Stops the guests of runs that somebody cancelled.
pub(super) async fn watch_for_cancels(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CANCEL_POLL) => {}
            () = shared.drained_after_stop() => return,
        }
        if shared.lock_running().is_empty() {
            continue;
        }
        let Ok(jobs) = shared.store.list_leases_to_cancel(shared.worker).await else { continue };
        let mut running = shared.lock_running();
        for job in jobs {
            if let Some(stop) = running.get_mut(&job) {
                stop.cancelled = true;
                stop.token.cancel();
            }
        }
    }
}
