//! Collecting what is old, and what nothing names: one reconciler, which any number of processes may run at once.
//!
//! It takes no input but how long things are kept. One process collects at a time; what it had begun when it died, the
//! next one finishes. What may go, the database says; the bytes in the blob store follow, and never come first. A look at
//! what would go (`preview`) asks the same questions and changes nothing.

mod deletion;

use std::{future::pending, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    blob::{BlobError, BlobStore, ListPlace, Listed},
    id::RunId,
    limit::{
        COLLECT_INTERVAL, COLLECT_PAGES_AT_ONCE, COLLECT_ROWS_MAX, COLLECT_TROUBLE_WAIT, DROP_DAYS_ROUNDS,
        DROP_DAYS_WAIT,
    },
    store::{
        Store, StoreError,
        retention::{Amount, Collector, HistoryDay, PartitionPlace},
    },
};

/// How long what is kept; without a number, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Of runs, jobs, attempts with their logs, and what the outbox told of them: in days after a run's end.
    pub history_days: Option<u32>,
    /// In days.
    pub audit_days: Option<u32>,
    /// How many of each partition keep their bytes, the newest ones.
    pub materializations: Option<u32>,
    /// How long blobs that nothing names are left alone.
    pub unnamed: Duration,
}

/// What went, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Up to this day, as `2026-11-30`, when any history goes.
    pub history_before: Option<String>,
    /// Tables of one day each.
    pub history: Amount,
    /// In them.
    pub jobs: u64,
    /// Whose jobs these are.
    pub runs: u64,
    /// Backfills that had ended.
    pub backfills: u64,
    /// Fires of schedules that had made no run.
    pub fires: u64,
    /// What told of them.
    pub outbox: Amount,
    /// Who did what.
    pub audit: Amount,
    /// Whose bytes go, unless something else names them: the facts stay.
    pub materializations: Amount,
    /// In the blob store, named by nothing.
    pub blobs: Amount,
    /// In the database, named by nothing.
    pub inline: Amount,
    /// Left by writers that were killed.
    pub unfinished: Amount,
    /// Days that could not be dropped for now.
    pub days_in_use: Vec<HistoryDay>,
    /// A run that is older than history is kept, and goes on: nothing of its time or later goes before it ends.
    pub held_by: Option<RunId>,
}

/// Why it could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// What a collection would remove now. Changes nothing.
pub async fn preview(store: &Store, blobs: &BlobStore, keep: &Keep) -> Result<Collected, CollectError> {
    let mut found = Collected::default();
    if let Some(days) = keep.history_days {
        found.held_by = store.find_oldest_unfinished(days).await?;
        found.history_before = store.find_history_end(days).await?;
        let before = found.history_before.as_deref();
        store.list_history_days(before).await?.iter().for_each(|day| found.history += amount(day));
        if let Some(before) = before {
            (found.jobs, found.runs) = store.count_history(before).await?;
            (found.backfills, found.fires) = store.count_old_requests(before).await?;
            found.outbox = store.count_outbox(before).await?;
        }
    }
    if let Some(days) = keep.audit_days {
        found.audit = store.count_audit(days).await?;
    }
    if let Some(kept) = keep.materializations {
        found.materializations = store.count_expiring(kept).await?;
    }
    let unnamed = store.count_unnamed(keep.unnamed).await?;
    (found.blobs, found.inline) = (unnamed.stored, unnamed.inline);
    // What an earlier collection condemned and did not delete.
    store.list_condemned().await?.iter().for_each(|blob| found.blobs += Amount { count: 1, bytes: blob.size });
    for tenant in store.list_tenants().await? {
        let mut pages = Pages::of(blobs, &tenant, keep.unnamed);
        while let Some(page) = pages.next().await? {
            for unknown in store.find_unknown(&tenant, &page).await? {
                found.blobs += Amount { count: 1, bytes: unknown.size };
            }
        }
    }
    found.unfinished = unfinished(blobs, keep, false).await?;
    Ok(found)
}

/// Removes it. None when another process collects at this moment.
pub async fn collect(store: &Store, blobs: &BlobStore, keep: &Keep) -> Result<Option<Collected>, CollectError> {
    collect_unless(pending(), store, blobs, keep).await
}

/// The same, and gives up when it is told to.
async fn collect_unless(
    stopped: impl Future<Output = ()>,
    store: &Store,
    blobs: &BlobStore,
    keep: &Keep,
) -> Result<Option<Collected>, CollectError> {
    let Some(collector) = store.begin_collecting().await? else { return Ok(None) };
    let collected = tokio::select! {
        collected = collect_as(collector, store, blobs, keep) => collected.map(Some),
        () = stopped => Ok(None),
    };
    // Of one that failed or was given up the lease runs out; the next one need not wait for that.
    let ended = store.end_collecting(collector).await;
    let collected = collected?;
    ended?;
    Ok(collected)
}

/// Collects now and from time to time until it is told to stop. The future may be dropped at any moment: what it had begun
/// is finished by the next collection, of any process.
pub async fn collect_while_up(store: Store, blobs: BlobStore, keep: Keep, stopping: CancellationToken) {
    loop {
        let wait = match collect_unless(stopping.cancelled(), &store, &blobs, &keep).await {
            Ok(Some(collected)) => {
                tell(&collected);
                COLLECT_INTERVAL
            }
            // Whoever it is has the next hour, too.
            Ok(None) => COLLECT_INTERVAL,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "nothing can be collected for now");
                COLLECT_TROUBLE_WAIT
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopping.cancelled() => return,
        }
    }
}

fn tell(collected: &Collected) {
    let Collected {
        history,
        runs,
        outbox,
        audit,
        materializations,
        blobs,
        inline,
        unfinished,
        days_in_use,
        held_by,
        ..
    } = collected;
    tracing::info!(
        history.days = history.count,
        runs,
        outbox = outbox.count,
        audit = audit.count,
        materializations = materializations.count,
        blobs = blobs.count + inline.count + unfinished.count,
        bytes = history.bytes + outbox.bytes + audit.bytes + blobs.bytes + inline.bytes + unfinished.bytes,
        "collected"
    );
    if !days_in_use.is_empty() {
        tracing::info!(days = days_in_use.len(), "history is in use, and goes another time");
    }
    if let Some(run) = held_by {
        tracing::warn!(run.id = %run, "history since this run is kept, because it goes on");
    }
}

async fn collect_as(
    collector: Collector,
    store: &Store,
    blobs: &BlobStore,
    keep: &Keep,
) -> Result<Collected, CollectError> {
    let mut collected = Collected::default();
    if let Some(days) = keep.history_days {
        collect_history(collector, store, days, &mut collected).await?;
    }
    if let Some(days) = keep.audit_days {
        store.move_audit_horizon(collector, days).await?;
    }
    // What an earlier collection let go and did not remove goes too, whatever is kept now.
    loop {
        match store.delete_old_audit(collector).await? {
            Amount { count: 0, .. } => break,
            some => collected.audit += some,
        }
    }
    if let Some(kept) = keep.materializations {
        let mut next = Some(PartitionPlace::start());
        while let Some(after) = next {
            let expired;
            (expired, next) = store.expire_materializations(collector, kept, after).await?;
            collected.materializations += expired;
        }
    }
    store.forget_old_deaths(collector).await?;
    collect_blobs(collector, store, blobs, keep, &mut collected).await?;
    Ok(collected)
}

async fn collect_history(
    collector: Collector,
    store: &Store,
    keep_days: u32,
    collected: &mut Collected,
) -> Result<(), StoreError> {
    collected.held_by = store.find_oldest_unfinished(keep_days).await?;
    collected.history_before = store.find_history_end(keep_days).await?;
    if let Some(before) = &collected.history_before {
        collected.jobs = store.count_history(before).await?.0;
        store.move_history_horizon(collector, before).await?;
    }
    collected.days_in_use = store.list_history_days(None).await?;
    for round in 0..DROP_DAYS_ROUNDS {
        if round > 0 && !collected.days_in_use.is_empty() {
            tokio::time::sleep(DROP_DAYS_WAIT).await;
        }
        for day in std::mem::take(&mut collected.days_in_use) {
            // Each try waits for locks no longer than a claim may be held up.
            match store.drop_history_day(collector, &day).await? {
                true => collected.history += amount(&day),
                false => collected.days_in_use.push(day),
            }
        }
    }
    loop {
        match store.delete_old_runs(collector, keep_days).await? {
            0 => break,
            runs => collected.runs += runs,
        }
    }
    store.delete_stray_history(collector).await?;
    loop {
        match store.delete_old_backfills(collector).await? {
            0 => break,
            backfills => collected.backfills += backfills,
        }
    }
    loop {
        match store.delete_old_fires(collector).await? {
            0 => break,
            fires => collected.fires += fires,
        }
    }
    loop {
        match store.delete_old_outbox(collector).await? {
            Amount { count: 0, .. } => return Ok(()),
            some => collected.outbox += some,
        }
    }
}

async fn collect_blobs(
    collector: Collector,
    store: &Store,
    blobs: &BlobStore,
    keep: &Keep,
    collected: &mut Collected,
) -> Result<(), CollectError> {
    // What an earlier collection had condemned when it died.
    collected.blobs += deletion::delete_condemned(collector, store, blobs).await?;
    loop {
        let condemned = store.condemn_unnamed(collector, keep.unnamed).await?;
        collected.inline += condemned.inline;
        collected.blobs += deletion::delete_condemned(collector, store, blobs).await?;
        if condemned.stored.count + condemned.inline.count == 0 {
            break;
        }
    }
    for tenant in store.list_tenants().await? {
        let mut pages = Pages::of(blobs, &tenant, keep.unnamed);
        while let Some(page) = pages.next().await? {
            store.renew_collecting(collector).await?;
            let unknown = store.find_unknown(&tenant, &page).await?;
            for unknown in unknown.chunks(COLLECT_ROWS_MAX as usize) {
                store.condemn_unknown(collector, &tenant, unknown).await?;
                collected.blobs += deletion::delete_condemned(collector, store, blobs).await?;
            }
        }
    }
    store.forget_deleted(collector).await?;
    collected.unfinished = unfinished(blobs, keep, true).await?;
    Ok(())
}

/// No attempt writes for longer than the longest one, so that an operator who wants room at once does not break any.
async fn unfinished(blobs: &BlobStore, keep: &Keep, remove: bool) -> Result<Amount, BlobError> {
    let (count, bytes) = blobs.sweep_unfinished(keep.unnamed.max(crate::limit::KEEP_UNNAMED), remove).await?;
    Ok(Amount { count, bytes })
}

fn amount(day: &HistoryDay) -> Amount {
    Amount { count: 1, bytes: day.bytes }
}

/// The blobs of a tenant that are old enough, some at a time.
struct Pages<'a> {
    blobs: &'a BlobStore,
    tenant: &'a str,
    older: Duration,
    /// Where the listing goes on; none when it is through.
    next: Option<Option<ListPlace>>,
}

impl<'a> Pages<'a> {
    fn of(blobs: &'a BlobStore, tenant: &'a str, older: Duration) -> Self {
        Self { blobs, tenant, older, next: Some(None) }
    }

    /// Those of the next few pages, perhaps none; none at all at the end.
    async fn next(&mut self) -> Result<Option<Vec<Listed>>, BlobError> {
        if self.next.is_none() {
            return Ok(None);
        }
        let mut old = Vec::new();
        for _ in 0..COLLECT_PAGES_AT_ONCE {
            let Some(from) = self.next.take() else { break };
            let (listed, next) = self.blobs.list(self.tenant, from).await?;
            self.next = next.map(Some);
            old.extend(listed.into_iter().filter(|blob| blob.age >= self.older));
        }
        Ok(Some(old))
    }
}
