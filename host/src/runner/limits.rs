//! Limits that jobs share: a job that has all it needs asks for the permits of its pools before it runs, and waits in the
//! database, without a lease or a slot, while one of them is full. Last of all, so that what needs no attempt, because it
//! is cancelled or there already, needs no permit.

use std::sync::Arc;

use super::{
    Event, Shared,
    prepare::{KnownJob, insist},
};
use crate::{
    limit::LIMITED_POLL,
    store::{
        commit::Ending,
        permits::{Applicant, limited_cause},
    },
};

/// Those of these jobs that may run now. Asks nobody when none of them is in a pool.
pub(super) async fn admit(shared: &Shared, jobs: Vec<KnownJob>) -> Vec<KnownJob> {
    let applicant = |job: &KnownJob| Applicant { claim: job.claim.clone(), pools: job.pools.clone() };
    let applicants: Vec<Applicant> = jobs.iter().filter(|job| !job.pools.is_empty()).map(applicant).collect();
    if applicants.is_empty() {
        return jobs;
    }
    let Some(mut admission) = insist(shared, || shared.store.admit_jobs(&applicants)).await else {
        jobs.into_iter().for_each(|job| shared.finish(job.finished(Ending::Released)));
        return Vec::new();
    };
    let mut admitted = Vec::with_capacity(jobs.len());
    for job in jobs {
        let id = job.claim.job;
        if job.pools.is_empty() || admission.admitted.contains(&id) {
            admitted.push(job);
            continue;
        }
        shared.let_go(&job.claim);
        if let Some(pool) = admission.limited.remove(&id) {
            shared.tell(Event::Limited { run: job.run, job: id, cause: limited_cause(&pool) });
        }
    }
    admitted
}

/// Makes jobs ready for which there are permits that no commit told of, until the runner stops.
pub(super) async fn wake_limited(shared: Arc<Shared>) {
    while !shared.stopping.is_cancelled() {
        match shared.store.wake_limited_jobs().await {
            Ok(0) => {}
            Ok(_) => shared.wake.notify_one(),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no jobs can be given permits for now");
            }
        }
        shared.pause(LIMITED_POLL).await;
    }
}
