//! Committing: every finished job that waits goes in one transaction, and the next batch gathers and goes while the disk
//! has that one.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{Semaphore, mpsc};

use super::{Event, Finished, Shared, meters::LeaseLoss, retry::host_fault_wait_ms, vital};
use crate::{
    id::{ClaimToken, JobId},
    limit::{COMMIT_BYTES_MAX, COMMIT_JOBS_MAX, COMMITS_AT_ONCE, HOST_FAULT_WAIT_BASE, HOST_FAULT_WAIT_MAX},
    pipeline::diagnostic::chain,
    store::{
        StoreError,
        commit::{Committed, Counts, DeferredJob, Ending, FinishedJob, RecordedAttempt},
    },
};

/// Commits until the runner has stopped and nothing is left.
pub(super) async fn commit_finished(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<Finished>) {
    let turns = Arc::new(Semaphore::new(COMMITS_AT_ONCE));
    let mut batch = Vec::with_capacity(COMMIT_JOBS_MAX);
    loop {
        let turn = turns.clone().acquire_owned().await.expect("nobody closes the semaphore");
        tokio::select! {
            biased;
            received = queue.recv_many(&mut batch, COMMIT_JOBS_MAX) => if received == 0 { break },
            // Nothing is pending: all that was finished is in the queue, and nothing comes any more.
            () = shared.drained_after_stop() => queue.close(),
        }
        if shared.stopping.is_cancelled() {
            // A claim that was on its way takes nothing of what is given back here.
            shared.claimed_last.cancelled().await;
        }
        let (within, batch) = (shared.clone(), std::mem::take(&mut batch));
        shared.tasks.spawn(vital(async move {
            commit_in_parts(&within, batch).await;
            drop(turn);
        }));
    }
    drop(turns.acquire_many(COMMITS_AT_ONCE as u32).await);
    shared.committed.cancel();
    shared.publish.notify_one();
}

async fn commit_in_parts(shared: &Shared, batch: Vec<Finished>) {
    let jobs = batch.len();
    for part in parts(batch) {
        let (jobs, rooms): (Vec<_>, Vec<_>) = part.into_iter().map(|finished| (finished.job, finished.room)).unzip();
        commit_batch(shared, jobs).await;
        drop(rooms);
    }
    shared.uncommitted.fetch_sub(jobs, Ordering::AcqRel);
    shared.tell_of_room();
}

/// Parts of about [`COMMIT_BYTES_MAX`] each.
fn parts(batch: Vec<Finished>) -> Vec<Vec<Finished>> {
    let mut parts: Vec<Vec<Finished>> = Vec::new();
    let mut room = 0;
    for finished in batch {
        let bytes = finished.job.record_bytes();
        match parts.last_mut().filter(|_| bytes <= room) {
            Some(part) => part.push(finished),
            None => {
                parts.push(vec![finished]);
                room = COMMIT_BYTES_MAX;
            }
        }
        room = room.saturating_sub(bytes);
    }
    parts
}

/// Commits a batch. While the database is away it waits; a row that is refused does not sink the others.
async fn commit_batch(shared: &Shared, batch: Vec<FinishedJob>) {
    let mut batches = vec![batch];
    let mut failures = 0;
    while let Some(batch) = batches.pop() {
        match shared.store.commit_finished_jobs(&batch).await {
            Ok(committed) => {
                report(shared, &batch, committed, failures > 0).await;
                failures = 0;
            }
            Err(error) if !error.is_transient() => match split(batch) {
                Ok((first, second)) => batches.extend([first, second]),
                Err(job) => batches.push(vec![without_record(*job, &error)]),
            },
            Err(error) => {
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "finished jobs wait for the database");
                let wait = std::time::Duration::from_millis(host_fault_wait_ms(failures).min(1_000));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // Whatever was not recorded is not there; the leases expire, and the jobs run again.
                    () = shared.at_once.cancelled() => return,
                }
                failures += 1;
                batches.push(batch);
            }
        }
    }
}

/// Halves, or the one job that is refused.
fn split(mut batch: Vec<FinishedJob>) -> Result<(Vec<FinishedJob>, Vec<FinishedJob>), Box<FinishedJob>> {
    if batch.len() > 1 {
        let second = batch.split_off(batch.len() / 2);
        return Ok((batch, second));
    }
    Err(Box::new(batch.pop().expect("a batch is never empty")))
}

/// A job whose record the database refuses for good fails, with the refusal as its cause, so that it does not run for
/// ever; when even that is refused, it goes back to the queue.
fn without_record(job: FinishedJob, error: &StoreError) -> FinishedJob {
    let cause = format!("its record was refused: {}", chain(error));
    tracing::error!(job.id = %job.claim.job, cause, "a job cannot be recorded");
    let ending = match job.ending {
        Ending::Failed(_) if job.attempt.is_none() => {
            let counts = Counts::Released;
            Ending::Deferred { wait_ms: HOST_FAULT_WAIT_MAX.as_millis() as u64, cause: REFUSED.to_owned(), counts }
        }
        _ => Ending::Failed(cause),
    };
    FinishedJob { attempt: None, ending, buckets: Vec::new(), ..job }
}

/// Instead of a cause that may itself be what is refused.
const REFUSED: &str = "its record was refused";

async fn report(shared: &Shared, batch: &[FinishedJob], committed: Committed, answer_was_lost: bool) {
    let fenced: Vec<&FinishedJob> = batch.iter().filter(|item| committed.fenced.contains(&item.claim.key())).collect();
    // An earlier try at this commit may have gone through before its answer was lost.
    let recorded = match answer_was_lost && !fenced.is_empty() {
        true => find_recorded(shared, &fenced).await,
        false => Vec::new(),
    };
    for item in fenced.iter().filter(|item| item.attempt.is_some() && !recorded.contains(&item.claim.key())) {
        tracing::warn!(job.id = %item.claim.job, "a job was no longer this worker's; its result was dropped");
    }
    shared.trace_ends(batch, &committed);
    count(shared, batch.len(), &fenced, &recorded, &committed);
    if answer_was_lost {
        // Whom the lost answer would have told.
        shared.publish.notify_one();
        shared.release.notify_one();
        shared.wake.notify_one();
    }
    let told = committed.deferred.into_iter();
    // Of an earlier try that went through, as far as it is known.
    let recorded = fenced.iter().filter(|item| recorded.contains(&item.claim.key()));
    for DeferredJob { job, run, cause, wait_ms } in told.chain(recorded.filter_map(|item| DeferredJob::of(item))) {
        shared.tell(Event::Deferred { run, job, cause, wait_ms });
    }
    for ended in committed.ended {
        shared.tell(Event::Ended(ended));
    }
    if !committed.to_publish.is_empty() {
        shared.publish.notify_one();
    }
    if committed.put_off > 0 {
        shared.release.notify_one();
    }
    if committed.released > 0 {
        shared.wake.notify_one();
    }
}

/// Which of them an earlier try has recorded. While the database is away it waits, like the commit itself.
async fn find_recorded(shared: &Shared, fenced: &[&FinishedJob]) -> Vec<(JobId, ClaimToken)> {
    loop {
        match shared.store.find_recorded_attempts(fenced).await {
            Ok(recorded) => return recorded,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a lost answer cannot be looked up for now");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(HOST_FAULT_WAIT_BASE) => {}
            () = shared.at_once.cancelled() => return Vec::new(),
        }
    }
}

/// What this commit has recorded, and an earlier try at it whose answer was lost.
fn count(
    shared: &Shared,
    jobs: usize,
    fenced: &[&FinishedJob],
    recorded: &[(JobId, ClaimToken)],
    committed: &Committed,
) {
    let meters = &shared.meters;
    meters.commits.inc();
    meters.commit_batch_jobs.observe(jobs as f64);
    meters.committed_jobs.inc_by((jobs - fenced.len() + recorded.len()) as u64);
    committed.attempts.iter().for_each(|attempt| meters.count_attempt(attempt));
    let (earlier, lost): (Vec<&FinishedJob>, Vec<&FinishedJob>) =
        fenced.iter().partition(|item| recorded.contains(&item.claim.key()));
    earlier.iter().filter_map(|item| RecordedAttempt::of(item)).for_each(|attempt| meters.count_attempt(&attempt));
    meters.count_lease_losses(LeaseLoss::StaleCommit, lost.len());
}
