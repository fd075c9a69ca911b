//! Committing: every finished job that waits goes in one transaction; the next batch gathers while it runs.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Event, Shared, retry::host_fault_wait_ms};
use crate::{
    id::JobId,
    limit::COMMIT_JOBS_MAX,
    store::{
        StoreError,
        commit::{Committed, Ending, FinishedJob},
    },
};

/// Commits until the runner has stopped and nothing is left.
pub(super) async fn commit_finished(shared: Arc<Shared>, mut queue: mpsc::UnboundedReceiver<FinishedJob>) {
    let mut batch = Vec::with_capacity(COMMIT_JOBS_MAX);
    loop {
        let received = tokio::select! {
            biased;
            received = queue.recv_many(&mut batch, COMMIT_JOBS_MAX) => received,
            () = shared.drained_after_stop() => 0,
        };
        if received == 0 {
            return;
        }
        commit_batch(&shared, std::mem::take(&mut batch)).await;
    }
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
                Err(job) => abandon(shared, *job, &error).await,
            },
            Err(error) => {
                shared.tell(Event::Trouble(error.to_string()));
                tracing::warn!(error = &error as &dyn std::error::Error, "finished jobs wait for the database");
                if shared.at_once.is_cancelled() && failures > 2 {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(host_fault_wait_ms(failures).min(1_000))).await;
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

/// A job whose record the database refuses for good fails, with the refusal as its cause, so that it does not run for ever.
async fn abandon(shared: &Shared, job: FinishedJob, error: &StoreError) {
    tracing::error!(job.id = %job.claim.job, error = error as &dyn std::error::Error, "the record of a job was refused");
    let cause = format!("its record was refused: {}", super::prepare::chain(error));
    let failed = FinishedJob { attempt: None, ending: Ending::Failed(cause), ..job };
    match shared.store.commit_finished_jobs(std::slice::from_ref(&failed)).await {
        Ok(committed) => report(shared, &[failed], committed, false).await,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "and so was its failure; its lease will expire");
        }
    }
}

async fn report(shared: &Shared, batch: &[FinishedJob], committed: Committed, answer_was_lost: bool) {
    for job in &committed.fenced {
        if !(answer_was_lost && was_recorded(shared, batch, *job).await) {
            tracing::warn!(job.id = %job, "a job was no longer this worker's; its result was dropped");
        }
    }
    for job in batch {
        if let Ending::Deferred { cause, wait_ms, .. } = &job.ending {
            shared.tell(Event::Deferred { run: job.run, job: job.claim.job, cause: cause.clone(), wait_ms: *wait_ms });
        }
    }
    for ended in committed.ended {
        shared.tell(Event::Ended(ended));
    }
    if !committed.to_publish.is_empty() {
        shared.publish.notify_one();
    }
    if committed.released > 0 {
        shared.wake.notify_one();
    }
}

/// Whether an earlier try at this commit had gone through before its answer was lost.
async fn was_recorded(shared: &Shared, batch: &[FinishedJob], job: JobId) -> bool {
    shared.store.find_recorded_attempts(batch).await.is_ok_and(|recorded| recorded.contains(&job))
}
