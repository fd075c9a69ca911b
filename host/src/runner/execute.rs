//! Executing: each prepared job in a slot, its guest on the guests' runtime, and its report as what the commit writes.

use std::{collections::HashMap, sync::Arc, time::Instant};

use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Event, Shared,
    apply::{Settled, apply, settle},
    key_value::bucket_effects,
    known::{KnownJob, Obstacle, Prepared, Source, lost_input, stopped_by},
    prepare::take_fingerprints,
    resources::open_reach,
    retry::{Fault, host_fault_wait_ms, next_wait_ms},
    vital,
};
use crate::{
    blob::Content,
    capability::{Reach, files::Change, log::Line},
    engine::{Report, Retry, Verdict, caught},
    id::{AttemptId, MaterializationId},
    limit::SOURCE_CHANGES_MAX,
    pipeline::recipe::version_digest,
    store::commit::{AttemptRecord, Counts, Ending, ExternalRead, FinishedJob, NewMaterialization, NewStagedFile},
};

/// Runs prepared jobs, each as soon as a slot is free, until nothing is left. It lives on the guests' threads: a job that
/// was granted nothing starts and ends there, and no other thread has to be woken for it.
pub(super) async fn execute_prepared(
    shared: Arc<Shared>,
    mut queue: mpsc::UnboundedReceiver<Prepared>,
    process: Handle,
) {
    let guests = Handle::current();
    loop {
        let prepared = tokio::select! {
            prepared = queue.recv() => prepared,
            () = shared.drained_after_stop() => None,
        };
        let Some(prepared) = prepared else { return };
        let Ok(slot) = shared.slots.clone().acquire_owned().await else { return };
        if shared.stopping.is_cancelled() {
            shared.finish(prepared.job.finished(Ending::Released));
            continue;
        }
        let home = if prepared.job.asset.reaches_nothing() { &guests } else { &process };
        let (within, guests) = (shared.clone(), guests.clone());
        let attempt = vital(async move {
            let identity = prepared.job.identity();
            let finished = caught(execute(&within, &guests, prepared)).await;
            drop(slot);
            // A panic of ours is the host's fault; the job is not lost with it.
            within.finish(finished.unwrap_or_else(|panic| stopped_by(&within, identity, panicked(&panic))));
        });
        shared.tasks.spawn_on(attempt, home);
    }
}

fn panicked(panic: &str) -> Obstacle {
    tracing::error!(panic, "an attempt ended in a panic of the host");
    Obstacle::Host("the host panicked".to_owned())
}

/// Runs an attempt. Only guest code runs on the guests' threads, which do no IO of their own. What takes much room is on
/// the heap: an attempt is moved several times before it runs.
async fn execute(shared: &Arc<Shared>, guests: &Handle, prepared: Prepared) -> FinishedJob {
    if !prepared.job.asset.reaches_nothing() {
        return Box::pin(execute_reaching(shared, guests, prepared)).await;
    }
    let Prepared { job, mut attempt, stop } = prepared;
    attempt.reach.is_timed = shared.is_traced();
    let begun = begin(shared, &job);
    let report = Box::pin(shared.engine.run(attempt, stop)).await;
    shared.measure(begun.elapsed());
    let again = lost_of(&job, &report);
    conclude(shared, job, report, again, begun)
}

/// Opens what was granted, runs the attempt, and commits what it wrote elsewhere.
async fn execute_reaching(shared: &Arc<Shared>, guests: &Handle, prepared: Prepared) -> FinishedJob {
    let (prepared, fence) = match settle(shared, prepared).await {
        Settled::Wanted(prepared, fence) => (prepared, fence),
        Settled::Finished(finished) => return *finished,
    };
    let Prepared { job, mut attempt, stop } = *prepared;
    match open_reach(shared, &job).await {
        Ok(reach) => attempt.reach = Reach { is_timed: shared.is_traced(), ..reach },
        Err(obstacle) => return stopped_by(shared, job.identity(), obstacle),
    }
    let (begun, engine) = (begin(shared, &job), shared.engine.clone());
    let report = match guests.spawn(Box::pin(async move { engine.run(attempt, stop).await })).await {
        Ok(report) => report,
        Err(panic) => {
            return stopped_by(shared, job.identity(), panicked(&panic.to_string()));
        }
    };
    shared.measure(begun.elapsed());
    let blameless = matches!(report.verdict, Verdict::HostFault(_) | Verdict::Cancelled);
    let again = match lost_of(&job, &report) {
        None if !blameless && sources_changed(shared, &job).await => Some(rerun(shared, &job).await),
        lost => lost,
    };
    let uncommitted = report.uncommitted.clone();
    apply(shared, conclude(shared, job, report, again, begun), uncommitted, fence).await
}

fn begin(shared: &Shared, job: &KnownJob) -> Instant {
    shared.tell(Event::Started { run: job.run, job: job.claim.job });
    Instant::now()
}

/// The end of a job that cannot read what it needs: other attempts would find the same.
fn lost_of(job: &KnownJob, report: &Report) -> Option<Ending> {
    match (&report.verdict, report.damaged) {
        (Verdict::HostFault(why), Some(digest)) => Some(Ending::Failed(lost_input(job, digest, why))),
        _ => None,
    }
}

/// Whether a directory that the attempt could read is no longer what its recipe says.
async fn sources_changed(shared: &Arc<Shared>, job: &KnownJob) -> bool {
    if job.sources.iter().all(|source| source.fingerprint.is_none()) {
        return false;
    }
    let (asset, resources, prints) = (job.asset.clone(), job.resources.clone(), shared.fingerprints.clone());
    let after = tokio::task::spawn_blocking(move || take_fingerprints(&asset, &resources, &prints)).await;
    let digests = |sources: &[Source]| -> Vec<_> {
        sources.iter().map(|source| source.fingerprint.map(|print| print.digest)).collect()
    };
    !matches!(after, Ok(Ok(after)) if digests(&after) == digests(&job.sources))
}

/// The attempt's record, and what becomes of its job: `again` when what it read is not so any more, or not there.
fn conclude(shared: &Shared, job: KnownJob, mut report: Report, again: Option<Ending>, begun: Instant) -> FinishedJob {
    let cancelled = shared.lock_running().get(&job.claim.key()).is_some_and(|running| running.cancelled);
    let attempt_id = AttemptId::new();
    let blameless = again.is_some();
    // Whatever it ended with, it may be so because of what it read; unless it ends for the host's sake.
    let is_guests = !blameless && !matches!(report.verdict, Verdict::HostFault(_) | Verdict::Cancelled);
    let buckets = if is_guests { bucket_effects(&job, std::mem::take(&mut report.buckets)) } else { Vec::new() };
    let ending = again.unwrap_or_else(|| ending(&job, &report, cancelled, attempt_id, shared));
    let charged = match &ending {
        // Its verdict may be a success, of which nothing is kept.
        _ if blameless => false,
        Ending::Deferred { counts, .. } => *counts == Counts::Charged,
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
        log_bytes: report.log.lines.iter().map(Line::bytes).sum(),
        log_dropped: report.log.dropped,
        denials: (!report.denials.is_empty()).then(|| serde_json::json!(report.denials)),
        uses: (!report.uses.is_empty()).then(|| serde_json::json!(report.uses)),
    };
    shared.trace_attempt(&job, &attempt, begun, std::mem::take(&mut report.calls));
    let mut finished = job.finished(ending);
    finished.attempt = Some(attempt);
    finished.buckets = buckets;
    finished
}

/// The attempt read what is not so any more: again, uncharged, unless that never ends.
async fn rerun(shared: &Shared, job: &KnownJob) -> Ending {
    let cause = "a granted directory changed while the attempt read it";
    match shared.store.count_dropped_attempts(&job.claim).await {
        Ok(dropped) if dropped >= SOURCE_CHANGES_MAX => {
            return Ending::Failed(format!("{cause}, {} times", dropped + 1));
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "changes cannot be counted for now"),
    }
    let wait_ms = host_fault_wait_ms(u32::try_from(job.claim.released).unwrap_or(0));
    Ending::Deferred { wait_ms, cause: cause.to_owned(), counts: Counts::Released }
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
            let wait_ms = host_fault_wait_ms(released);
            return Ending::Deferred { wait_ms, cause: cause.clone(), counts: Counts::Released };
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
        Some(wait_ms) => Ending::Deferred { wait_ms, cause, counts: Counts::Charged },
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
    let outside = report.outside.iter().map(|read| ExternalRead {
        resource: read.resource.clone(),
        kind: read.capability.resource_kind(),
        digest: read.digest,
        items: read.items,
        size_bytes: read.bytes,
    });
    let mut reads: HashMap<(&str, u32), u64> = HashMap::new();
    for read in &report.reads {
        *reads.entry((&read.input, read.index)).or_default() += read.bytes_read;
    }
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
        version_digest: version_digest(output.stored.digest, &output.media_type, &output.metadata),
        recipe: job.recipe,
        sources_digest: job.parts.sources,
        input_digests: job.parts.inputs.clone(),
        engine_id: shared.engine.id().to_owned(),
        reused_from: None,
        edges: job.edges(|input, index| reads.get(&(input, index)).copied().unwrap_or(0)),
        external_reads: job.external_reads().into_iter().chain(outside).collect(),
        staged_files: staged_files.collect(),
        applied: false,
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
