//! Executing: each prepared job in a slot of the guests' runtime, and its report as what the commit writes.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    Event, Shared,
    prepare::{KnownJob, Prepared},
    retry::{Fault, host_fault_wait_ms, next_wait_ms},
};
use crate::{
    blob::Content,
    capability::files::{Change, fingerprint},
    engine::{Report, Retry, Verdict},
    id::{AttemptId, MaterializationId},
    limit::SOURCE_CHANGES_MAX,
    store::commit::{AttemptRecord, Ending, FinishedJob, NewMaterialization, NewStagedFile},
};

/// Runs prepared jobs, each on the guests' runtime as soon as a slot is free, until the queue is closed and empty.
pub(super) async fn execute_prepared(
    shared: Arc<Shared>,
    mut queue: mpsc::UnboundedReceiver<Prepared>,
    guests: tokio::runtime::Handle,
) {
    loop {
        let prepared = tokio::select! {
            prepared = queue.recv() => prepared,
            () = shared.drained_after_stop() => None,
        };
        let Some(prepared) = prepared else { return };
        if shared.stopping.is_cancelled() {
            shared.finish(prepared.job.finished(Ending::Released));
            continue;
        }
        let slots = shared.clone();
        let Ok(slot) = slots.slots.acquire().await else { return };
        slot.forget();
        let shared = shared.clone();
        guests.spawn(async move {
            let finished = execute(&shared, prepared).await;
            shared.slots.add_permits(1);
            shared.finish(finished);
        });
    }
}

async fn execute(shared: &Shared, prepared: Prepared) -> FinishedJob {
    let Prepared { job, attempt, stop } = prepared;
    shared.tell(Event::Started { run: job.run, job: job.claim.job });
    let begun = Instant::now();
    let report = shared.engine.run(attempt, stop).await;
    let changed = report.verdict == Verdict::Succeeded && sources_changed(shared, &job);
    shared.measure(begun.elapsed());
    conclude(shared, job, report, changed, begun)
}

/// Whether a directory that the attempt could read is no longer what its recipe says.
fn sources_changed(shared: &Shared, job: &KnownJob) -> bool {
    job.sources.iter().any(|source| match &source.fingerprint {
        Some(before) => {
            let mut prints = shared.fingerprints.lock().expect("nothing that holds this lock can panic");
            fingerprint(&source.dir, &source.globs, &mut prints).map_or(true, |after| after.digest != before.digest)
        }
        None => false,
    })
}

/// The attempt's record, and what becomes of its job.
fn conclude(shared: &Shared, job: KnownJob, report: Report, changed: bool, begun: Instant) -> FinishedJob {
    let cancelled = shared.lock_running().get(&job.claim.job).is_some_and(|stop| stop.cancelled);
    let attempt_id = AttemptId::new();
    let ending = if changed { rerun(&job) } else { ending(&job, &report, cancelled, attempt_id, shared) };
    let charged = match &ending {
        Ending::Deferred { charged, .. } => *charged,
        Ending::Released | Ending::Cancelled(_) => false,
        _ => true,
    };
    let attempt = AttemptRecord {
        id: attempt_id,
        worker: shared.worker,
        verdict: match report.verdict {
            Verdict::HostFault(_) => "lost",
            _ => report.verdict.as_str(),
        },
        message: (!report.explanation.is_empty()).then(|| report.explanation.clone()),
        charged,
        engine_id: shared.engine.id().to_owned(),
        fuel_used: report.fuel_used,
        memory_bytes_peak: report.memory_bytes_peak,
        output_bytes: report.output.as_ref().map_or(0, |output| output.stored.size),
        duration_us: begun.elapsed().as_micros() as u64,
        log: (!report.log.lines.is_empty()).then(|| serde_json::json!(report.log.lines)),
        log_dropped: report.log.dropped,
        denials: (!report.denials.is_empty()).then(|| serde_json::json!(report.denials)),
    };
    let mut finished = job.finished(ending);
    finished.attempt = Some(attempt);
    finished
}

/// The attempt read what is not so any more: again, uncharged, unless that never ends.
fn rerun(job: &KnownJob) -> Ending {
    let cause = "a granted directory changed while the attempt read it";
    if job.claim.released >= SOURCE_CHANGES_MAX {
        return Ending::Failed(format!("{cause}, {} times in a row", job.claim.released));
    }
    Ending::Deferred { wait_ms: 0, cause: cause.to_owned(), charged: false }
}

fn ending(job: &KnownJob, report: &Report, cancelled: bool, attempt: AttemptId, shared: &Shared) -> Ending {
    let verdict = &report.verdict;
    let fault = match verdict {
        Verdict::Succeeded => return materialized(job, report, attempt, shared),
        Verdict::Skipped(reason) => return Ending::Skipped(reason.clone()),
        Verdict::Cancelled if cancelled => return Ending::Cancelled("the run was cancelled".to_owned()),
        Verdict::Cancelled => return Ending::Released,
        Verdict::HostFault(cause) => {
            shared.tell(Event::Trouble(cause.clone()));
            let released = u32::try_from(job.claim.released).unwrap_or(0);
            return Ending::Deferred { wait_ms: host_fault_wait_ms(released), cause: cause.clone(), charged: false };
        }
        Verdict::Failed { retry: Retry::Retryable { after_ms }, .. } => Fault::Retryable(*after_ms),
        Verdict::Failed { retry: Retry::Permanent, .. } | Verdict::Denied => Fault::Permanent,
        Verdict::Trapped(_) => Fault::Broke,
        Verdict::OutOfFuel | Verdict::OutOfMemory | Verdict::OutputTooLarge => Fault::Bound,
        Verdict::TimedOut => Fault::Slow,
    };
    let cause = match report.explanation.as_str() {
        "" => verdict.as_str().to_owned(),
        explanation => explanation.to_owned(),
    };
    let charged = u32::try_from(job.claim.charged).unwrap_or(0) + 1;
    let bound = &job.asset.bound;
    match next_wait_ms(fault, &bound.retry, bound.pure, charged, job.claim.job) {
        Some(wait_ms) => Ending::Deferred { wait_ms, cause, charged: true },
        None => Ending::Failed(cause),
    }
}

fn materialized(job: &KnownJob, report: &Report, attempt: AttemptId, shared: &Shared) -> Ending {
    let Some(output) = &report.output else {
        return Ending::Failed("it succeeded without an output".to_owned());
    };
    let staged_files = report.staged.iter().map(|file| NewStagedFile {
        resource: file.resource.clone(),
        path: file.path.clone(),
        content: match file.change {
            Change::Write(stored) => Some((stored.digest, stored.size)),
            Change::Remove => None,
        },
    });
    Ending::Materialized(Box::new(NewMaterialization {
        id: MaterializationId::new(),
        asset: job.asset.id,
        asset_version: job.asset.version,
        partition_key: job.partition_key.as_str().to_owned(),
        attempt,
        digest: output.stored.digest,
        size_bytes: output.stored.size,
        inline: match &output.content {
            Content::Inline(bytes) => Some(bytes.clone()),
            Content::Stored => None,
        },
        media_type: output.media_type.clone(),
        metadata: serde_json::json!(output.metadata),
        recipe: job.recipe,
        sources_digest: job.parts.sources,
        input_digests: job.parts.inputs.clone(),
        engine_id: shared.engine.id().to_owned(),
        reused_from: None,
        edges: job.edges(|input, index| {
            let of_version = report.reads.iter().filter(|read| read.input == input && read.index == index);
            of_version.map(|read| read.bytes_read).sum()
        }),
        external_reads: job.external_reads(),
        staged_files: staged_files.collect(),
    }))
}

impl Shared {
    /// Resolves when the runner stops and no claimed job is left.
    pub(super) async fn drained_after_stop(&self) {
        self.stopping.cancelled().await;
        while self.pending.load(std::sync::atomic::Ordering::Acquire) > 0 {
            let drained = self.drained.notified();
            if self.pending.load(std::sync::atomic::Ordering::Acquire) == 0 {
                break;
            }
            drained.await;
        }
    }
}
