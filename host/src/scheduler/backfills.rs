//! Releasing backfills: one reconciler, which any number of processes may run at once.
//!
//! A look counts the windows whose runs are over, and releases the next one where there is room. Nobody is in charge: a
//! window is released by a transaction that moves the backfill on from where its plan began, and of several processes that
//! planned the same one, one wins. So wherever a process dies, a window is released whole or not at all, and the next look
//! of any other goes on.

use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, AppError, Released},
    id::BackfillId,
    limit::{BACKFILL_BUSY_POLL, BACKFILL_POLL, SCHEDULE_TROUBLE_WAIT},
};

/// Releases the windows of all tenants' backfills until it is told to stop. `wake` says that there is work, instead of
/// leaving it to the next poll. The future may be dropped at any moment.
pub async fn release_backfills(app: App, wake: impl Fn(), stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let wait = match app.store.list_active_backfills().await {
            Ok(active) if active.is_empty() => BACKFILL_POLL,
            Ok(active) => look(&app, &active, &wake, &stopping).await,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "backfills cannot be released for now");
                SCHEDULE_TROUBLE_WAIT
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Looks at each of these; returns when to look again.
async fn look(
    app: &App,
    active: &[(String, BackfillId)],
    wake: &impl Fn(),
    stopping: &CancellationToken,
) -> std::time::Duration {
    let (mut moved, mut troubled) = (false, false);
    for (tenant, id) in active {
        if stopping.is_cancelled() {
            break;
        }
        let of_tenant = App { tenant: tenant.clone(), ..app.clone() };
        match look_at(&of_tenant, *id, wake).await {
            Ok(again) => moved |= again,
            Err(error) => {
                // The others must not wait for this one.
                troubled = true;
                tracing::warn!(backfill.id = %id, error = &error as &dyn std::error::Error, "a backfill cannot go on for now");
            }
        }
    }
    match (moved, troubled) {
        (true, _) => std::time::Duration::ZERO,
        (false, true) => SCHEDULE_TROUBLE_WAIT,
        (false, false) => BACKFILL_BUSY_POLL,
    }
}

/// True: it moved on, and may have room for more.
async fn look_at(app: &App, id: BackfillId, wake: &impl Fn()) -> Result<bool, AppError> {
    app.settle_windows(id).await?;
    match app.release_window(id).await? {
        Released::Run(run) => {
            tracing::debug!(backfill.id = %id, run.id = %run, "a window of a backfill is released");
            wake();
            Ok(true)
        }
        Released::UpToDate => Ok(true),
        Released::Halted(cause) => {
            tracing::warn!(backfill.id = %id, cause, "a backfill is halted");
            Ok(false)
        }
        Released::Ended(state) => {
            tracing::info!(backfill.id = %id, state, "a backfill has ended");
            Ok(false)
        }
        Released::Nothing => Ok(false),
    }
}
