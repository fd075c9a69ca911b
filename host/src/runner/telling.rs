//! Telling what attempts say while they run: for whoever follows them, and for the record when this process dies.
//!
//! An attempt that is over within a second tells nothing: its record has it all.

use std::{sync::Arc, time::Instant};

use super::Shared;
use crate::{
    capability::log::Log,
    id::RunId,
    limit::{LOG_TELL_BYTES_MAX, LOG_TELL_POLL},
    store::{queue::Claim, running_logs::NewLines},
};

/// What a running attempt says, and how much of it was told.
pub(super) struct Telling {
    claim: Claim,
    run: RunId,
    log: Log,
    begun: Instant,
    told: usize,
}

impl Telling {
    pub(super) fn new(claim: &Claim, run: RunId, log: Log, begun: Instant) -> Self {
        Self { claim: claim.clone(), run, log, begun, told: 0 }
    }

    /// Whether the database may have something of it.
    pub(super) fn has_told(&self) -> bool {
        self.told > 0
    }

    /// What was said since, about so many bytes of it; from now on it counts as told.
    fn take_new(&mut self, bytes_max: usize) -> Option<NewLines> {
        if self.begun.elapsed() < LOG_TELL_POLL {
            return None;
        }
        let lines = self.log.lines_from(self.told, bytes_max);
        if lines.is_empty() {
            return None;
        }
        let first_line = self.told;
        self.told += lines.len();
        Some(NewLines { claim: self.claim.clone(), run: self.run, first_line, lines: serde_json::json!(lines) })
    }
}

/// Tells until the last commit is through.
pub(super) async fn tell_what_is_said(shared: Arc<Shared>) {
    let mut untold = Vec::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOG_TELL_POLL) => {}
            () = shared.committed.cancelled() => return,
        }
        loop {
            if untold.is_empty() {
                untold = take_new(&shared);
            }
            if untold.is_empty() {
                break;
            }
            match shared.store.add_running_lines(&untold).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "what attempts say cannot be told for now"
                    );
                    break;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "what attempts say cannot be told");
                    untold.clear();
                }
                Ok(()) => untold.clear(),
            }
        }
    }
}

/// What is new of all attempts, about [`LOG_TELL_BYTES_MAX`] of it.
fn take_new(shared: &Shared) -> Vec<NewLines> {
    let mut room = LOG_TELL_BYTES_MAX;
    let mut new = Vec::new();
    for telling in shared.lock_running().values_mut().filter_map(|running| running.telling.as_mut()) {
        if room == 0 {
            break;
        }
        if let Some(lines) = telling.take_new(room) {
            room = room.saturating_sub(lines.lines.to_string().len());
            new.push(lines);
        }
    }
    new
}
