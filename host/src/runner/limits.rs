//! Limits that jobs share: a job that has all it needs asks for the permits of its pools before it runs, and waits in the
//! database, without a lease or a slot, while one of them is full; so does a job whose tenant has used up a quota. Last of
//! all, so that what needs no attempt, because it is cancelled or there already, needs no permit.

use std::{collections::HashMap, sync::Arc};

use super::{Event, Shared, known::KnownJob, prepare::insist};
use crate::{
    id::JobId,
    limit::{LIMITED_POLL, LIMITED_WOKEN_MAX},
    store::{
        StoreError,
        commit::Ending,
        permits::{Applicant, limited_cause},
        queue::Claim,
        quotas::quota_cause,
    },
};

/// Those of these jobs whose tenants have something left of their quotas. Asks nobody when none seems to be over.
pub(super) async fn keep_within_quotas(shared: &Shared, jobs: Vec<KnownJob>) -> Vec<KnownJob> {
    let claims: Vec<Claim> = jobs.iter().filter(|job| job.over_quota).map(|job| job.claim.clone()).collect();
    if claims.is_empty() {
        return jobs;
    }
    // When its answer is lost the jobs wait already, and their commits will find that their leases are gone.
    let Some(limited) = insist(shared, || shared.store.limit_by_quota(&claims)).await else {
        jobs.into_iter().for_each(|job| shared.finish(job.finished(Ending::Released)));
        return Vec::new();
    };
    let mut limited: HashMap<JobId, String> = limited.into_iter().collect();
    let mut within = Vec::with_capacity(jobs.len());
    for job in jobs {
        match limited.remove(&job.claim.job) {
            None => within.push(job),
            Some(measure) => {
                shared.let_go(&job.claim);
                shared.tell(Event::Limited { run: job.run, job: job.claim.job, cause: quota_cause(&measure) });
            }
        }
    }
    within
}

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

/// Makes jobs ready for which there are permits that no commit told of, or whose quota is new, until the runner stops.
pub(super) async fn wake_limited(shared: Arc<Shared>) {
    while !shared.stopping.is_cancelled() {
        match wake_next(&shared).await {
            Ok(0) => {}
            Ok(woken) => {
                shared.wake.notify_one();
                if woken >= LIMITED_WOKEN_MAX as u64 {
                    continue;
                }
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no limited jobs can go on for now");
            }
        }
        shared.pause(LIMITED_POLL).await;
    }
}

async fn wake_next(shared: &Shared) -> Result<u64, StoreError> {
    Ok(shared.store.wake_limited_jobs().await? + shared.store.wake_jobs_of_new_periods().await?)
}
