//! Telling what attempts say while they run: for whoever follows them, and for the record when this process dies.
//!
//! An attempt that is over within a second tells nothing: its record has it all.

use std::{collections::HashSet, sync::Arc};

use super::Shared;
use crate::{
    capability::log::{Line, Log},
    id::{ClaimToken, JobId, RunId},
    limit::{LOG_TELL_BYTES_MAX, LOG_TELL_POLL},
    store::{queue::Claim, running_logs::NewLines},
};

/// What a running attempt says, and how much of it was told.
pub(super) struct Telling {
    claim: Claim,
    run: RunId,
    log: Log,
    /// Lines that the database has.
    told: usize,
    /// Whether it may have any.
    has_told: bool,
}

impl Telling {
    pub(super) fn new(claim: &Claim, run: RunId, log: Log) -> Self {
        Self { claim: claim.clone(), run, log, told: 0, has_told: false }
    }

    /// Whether the database may have something of it.
    pub(super) fn has_told(&self) -> bool {
        self.has_told
    }
}

/// Tells until the last commit is through.
pub(super) async fn tell_what_is_said(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOG_TELL_POLL) => {}
            () = shared.committed.cancelled() => return,
        }
        // At once only when it was too much for one statement.
        while tell_new_lines(&shared).await {}
    }
}

/// Tells what is new, about [`LOG_TELL_BYTES_MAX`] of it. Returns whether there is more, and this went through.
async fn tell_new_lines(shared: &Shared) -> bool {
    let (new, is_all) = take_new_lines(attempts(shared));
    // Of one that has ended nothing: its commit has the whole log, and takes out what was told until now.
    let new = keep_running(shared, new, |_, telling| telling.has_told = true);
    if new.is_empty() {
        return false;
    }
    match shared.store.add_running_lines(&new).await {
        Ok(held) => {
            let held: HashSet<(JobId, ClaimToken)> = held.into_iter().collect();
            let added = new.into_iter().filter(|lines| held.contains(&lines.claim.key())).collect();
            keep_running(shared, added, |lines, telling| telling.told = lines.through());
            // What nothing came of is not tried again at once.
            !is_all && !held.is_empty()
        }
        Err(error) if error.is_transient() => {
            tracing::debug!(error = &error as &dyn std::error::Error, "what attempts say cannot be told for now");
            false
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "what attempts say cannot be told");
            keep_running(shared, new, |lines, telling| telling.told = lines.through());
            false
        }
    }
}

/// Every attempt that runs or is about to, with how many lines it has told.
fn attempts(shared: &Shared) -> Vec<(Claim, RunId, Log, usize)> {
    let running = shared.lock_running();
    let telling = running.values().filter_map(|running| running.telling.as_ref());
    telling.map(|telling| (telling.claim.clone(), telling.run, telling.log.clone(), telling.told)).collect()
}

/// What is new of those that have run for a while, and whether that is all of it. Apart from the others' lock: a log may
/// be in its guest's hands.
fn take_new_lines(attempts: Vec<(Claim, RunId, Log, usize)>) -> (Vec<NewLines>, bool) {
    let mut room = LOG_TELL_BYTES_MAX;
    let mut new = Vec::new();
    for (claim, run, log, told) in attempts {
        if room == 0 {
            break;
        }
        if log.is_open_since(LOG_TELL_POLL) {
            let lines = log.lines_from(told, room);
            room = room.saturating_sub(lines.iter().map(Line::bytes).sum());
            if !lines.is_empty() {
                new.push(NewLines { claim, run, first_line: told, lines: serde_json::json!(lines) });
            }
        }
    }
    (new, room > 0)
}

/// Those whose attempts run still, with this done to each.
fn keep_running(shared: &Shared, mut new: Vec<NewLines>, act: impl Fn(&NewLines, &mut Telling)) -> Vec<NewLines> {
    let mut running = shared.lock_running();
    new.retain(|lines| match running.get_mut(&lines.claim.key()).and_then(|running| running.telling.as_mut()) {
        Some(telling) => {
            act(lines, telling);
            true
        }
        None => false,
    });
    new
}
