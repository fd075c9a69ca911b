//! Applying: what an attempt wrote to an operator's database is committed there, exactly once, and before our commit.
//!
//! | the process dies, or the answer is lost | the operator's database | ours | the next job of the partition |
//! |---|---|---|---|
//! | before the intent | has undone it | knows nothing | runs, and applies |
//! | after the intent, before the other commit | has undone it, names an earlier attempt | an intent that nobody names | runs, and applies |
//! | while the other database commits | names one of the two | the intent | as before or after, whichever it was |
//! | after the other commit, before ours | names the attempt | the intent | ends with what the attempt made: nothing runs |
//! | after ours | names the attempt | the materialization, no intent | runs again if it is asked to, and applies anew |
//!
//! The record in the operator's database is replaced only where it still names the attempt that was read when this
//! one began. An attempt that is late, or whose lease is gone, finds another one there and is undone; so is one that
//! began before the outcome of a lost commit was decided. Nothing that is read from the operator's database but that
//! name is believed: what was made is read from ours.

use std::sync::Arc;

use super::{
    Shared,
    known::{KnownAsset, KnownJob, Obstacle, Prepared, stopped_by},
    resources::open_written_pool,
    retry::{Fault, host_fault_wait_ms, next_wait_ms},
};
use crate::{
    capability::sql::{ApplyError, ConnectError, Failure, Record, ServerError, Uncommitted, WireError, find_applied},
    id::AttemptId,
    limit::{SQL_COMMIT_TIMEOUT, SQL_CONNECT_TIMEOUT},
    pipeline::{diagnostic::chain, partition::PartitionKey},
    store::{
        commit::{Counts, Ending, FinishedJob},
        intents::Intent,
    },
};

/// What has to be so when an attempt is applied.
pub(super) struct Fence {
    asset: Arc<KnownAsset>,
    partition: PartitionKey,
    /// The attempt that the database named before this one began.
    expected: Option<AttemptId>,
}

/// What is to be done with a prepared job.
pub(super) enum Settled {
    /// It runs.
    Wanted(Box<Prepared>, Option<Fence>),
    /// It has ended.
    Finished(Box<FinishedJob>),
}

/// Looks whether an earlier attempt has been applied and not been recorded, before a job that writes to a database runs.
pub(super) async fn settle(shared: &Shared, prepared: Prepared) -> Settled {
    let pool = match open_written_pool(shared, &prepared.job).await {
        Ok(None) => return Settled::Wanted(Box::new(prepared), None),
        Ok(Some(pool)) => pool,
        Err(obstacle) => return stopped(shared, prepared.job, obstacle),
    };
    let (asset, partition) = (prepared.job.asset.clone(), prepared.job.partition_key.clone());
    let looked = tokio::time::timeout(2 * SQL_CONNECT_TIMEOUT, find_applied(&pool, asset.id, &partition)).await;
    let expected = match looked.unwrap_or(Err(Failure::Connect(ConnectError::Slow))) {
        Ok(expected) => expected,
        Err(failure) => return stopped(shared, prepared.job, obstacle(&failure)),
    };
    let intent = match expected {
        Some(attempt) => shared.store.find_intent(&prepared.job.claim.tenant, attempt).await,
        None => Ok(None),
    };
    match intent {
        Ok(Some((recipe, intent))) if recipe == prepared.job.recipe => complete(shared, prepared.job, intent).await,
        Ok(_) => Settled::Wanted(Box::new(prepared), Some(Fence { asset, partition, expected })),
        Err(error) => stopped(shared, prepared.job, error.into()),
    }
}

/// Why the record of what was applied cannot be read. A server that is away comes back; one that refuses does not
/// change its mind by itself.
fn obstacle(failure: &Failure) -> Obstacle {
    let words = format!("the record of what was applied to its database cannot be read: {}", chain(failure));
    match failure {
        Failure::Connect(ConnectError::Unfit(_)) => Obstacle::Final(words),
        Failure::Wire(WireError::Server(error)) | Failure::Connect(ConnectError::Wire(WireError::Server(error)))
            if ["28", "3D", "42"].iter().any(|class| error.code.starts_with(class)) =>
        {
            Obstacle::Final(words)
        }
        _ => Obstacle::Host(words),
    }
}

fn stopped(shared: &Shared, job: KnownJob, obstacle: Obstacle) -> Settled {
    Settled::Finished(Box::new(stopped_by(shared, job.identity(), obstacle)))
}

/// Ends a job with what an earlier attempt made, whose effects are there.
async fn complete(shared: &Shared, job: KnownJob, intent: Intent) -> Settled {
    let Intent { materialization, mut attempt } = intent;
    let stored = match materialization.inline {
        Some(_) => Ok(true),
        None => shared.blobs.contains(&job.claim.tenant, materialization.digest).await,
    };
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => return stopped(shared, job, Obstacle::Host(chain(&error))),
    };
    if !stored {
        let cause = "an earlier attempt was applied to its database, and what it made is gone from the blob store: \
                     remove its row in sql_intent to apply it again";
        return stopped(shared, job, Obstacle::Final(cause.to_owned()));
    }
    attempt.worker = shared.worker;
    attempt.message = Some("it was applied to its database before its process ended; nothing ran again".to_owned());
    let mut finished = job.finished(Ending::Materialized(Box::new(materialization)));
    finished.attempt = Some(attempt);
    Settled::Finished(Box::new(finished))
}

/// Commits what a finished attempt wrote; or undoes it, when the attempt made nothing.
pub(super) async fn apply(
    shared: &Shared,
    mut finished: FinishedJob,
    uncommitted: Uncommitted,
    fence: Option<Fence>,
) -> FinishedJob {
    let (Ending::Materialized(new), Some(attempt)) = (&mut finished.ending, &finished.attempt) else {
        uncommitted.undo();
        return finished;
    };
    let Some(fence) = fence.filter(|_| uncommitted.is_some()) else {
        uncommitted.undo();
        return finished;
    };
    // Before the intent: what the database refuses now leaves none.
    if let Err(error) = uncommitted.finish().await {
        return unapplied(finished, &fence.asset, error);
    }
    new.applied = true;
    let record = Record {
        asset: fence.asset.id,
        partition: fence.partition.clone(),
        attempt: new.attempt,
        expected: fence.expected,
    };
    let intent = Intent { materialization: (**new).clone(), attempt: attempt.clone() };
    match shared.store.insert_intent(&finished.claim, &intent).await {
        Ok(true) => {}
        Ok(false) => {
            uncommitted.undo();
            return again(finished, "it was not alone in making this any more".to_owned());
        }
        Err(error) => {
            uncommitted.undo();
            return again(finished, chain(&error));
        }
    }
    match uncommitted.apply(&record, SQL_COMMIT_TIMEOUT).await {
        Ok(()) => finished,
        Err(error) => unapplied(finished, &fence.asset, error),
    }
}

fn unapplied(finished: FinishedJob, asset: &KnownAsset, error: ApplyError) -> FinishedJob {
    match error {
        ApplyError::Refused(error) => refused(finished, asset, &error),
        ApplyError::Unpinned(_) => failed(finished, asset, Fault::Permanent, error.to_string()),
        ApplyError::Slow => failed(finished, asset, Fault::Slow, error.to_string()),
        ApplyError::Overtaken | ApplyError::Lost(_) | ApplyError::Unknown(_) => again(finished, error.to_string()),
    }
}

/// Nothing was applied, or nobody can say, and it is not the guest's fault: the next attempt looks at the record.
fn again(mut finished: FinishedJob, why: String) -> FinishedJob {
    let cause = format!("what it wrote was not committed: {why}");
    let released = u32::try_from(finished.claim.released).unwrap_or(0);
    if let Some(attempt) = &mut finished.attempt {
        (attempt.verdict, attempt.charged, attempt.message) = ("lost", false, Some(cause.clone()));
        // Its own id is that of the intent: if it was applied after all, what it made is recorded under that.
        attempt.id = AttemptId::new();
    }
    let wait_ms = host_fault_wait_ms(released);
    FinishedJob { ending: Ending::Deferred { wait_ms, cause, counts: Counts::Released }, ..finished }
}

fn refused(finished: FinishedJob, asset: &KnownAsset, error: &ServerError) -> FinishedJob {
    // What others wrote meanwhile, locks of theirs, and what the server is out of: another time it may go.
    let passing = ["40", "53", "55", "57", "58", "XX"].iter().any(|class| error.code.starts_with(class));
    let fault = if passing { Fault::Retryable(None) } else { Fault::Permanent };
    failed(finished, asset, fault, error.to_string())
}

fn failed(mut finished: FinishedJob, asset: &KnownAsset, fault: Fault, why: String) -> FinishedJob {
    let cause = format!("the database did not commit what it wrote: {why}");
    if let Some(attempt) = &mut finished.attempt {
        (attempt.verdict, attempt.message) = ("failed", Some(cause.clone()));
    }
    let charged = u32::try_from(finished.claim.charged).unwrap_or(0) + 1;
    let bound = &asset.bound;
    let ending = match next_wait_ms(fault, &bound.retry, bound.pure, charged, finished.claim.job) {
        Some(wait_ms) => Ending::Deferred { wait_ms, cause, counts: Counts::Charged },
        None => Ending::Failed(cause),
    };
    FinishedJob { ending, ..finished }
}
