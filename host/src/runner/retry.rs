//! What becomes of a job after an attempt: the retry rule of each verdict, as a pure function.

use crate::{
    blob::Digest,
    id::JobId,
    limit::{HOST_FAULT_WAIT_BASE, HOST_FAULT_WAIT_MAX},
    pipeline::policy::{Backoff, RetryPolicy},
};

/// How an attempt failed, as far as retrying is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest asked to be tried again, perhaps after some milliseconds.
    Retryable(Option<u64>),
    /// The guest said that it is of no use.
    Permanent,
    /// The code broke: the same inputs break it again, unless something from outside had a part in it.
    Broke,
    /// It ran into one of its own bounds, and would again.
    Bound,
    /// It ran out of wall clock, which depends on the machine.
    Slow,
}

/// The wait before the next attempt in milliseconds, or none when the job has failed for good.
///
/// `charged` counts the attempts that counted, this one included; `pure` tells that nothing but the inputs decides.
pub fn next_wait_ms(fault: Fault, policy: &RetryPolicy, pure: bool, charged: u32, job: JobId) -> Option<u64> {
    let wanted = match fault {
        Fault::Permanent | Fault::Bound => return None,
        Fault::Broke if pure => return None,
        Fault::Retryable(after_ms) => after_ms,
        Fault::Broke | Fault::Slow => None,
    };
    if charged >= policy.max_attempts {
        return None;
    }
    Some(wanted.map_or_else(|| backoff_ms(policy, charged, job), |ms| ms.min(policy.cap_ms)))
}

/// The wait after the `charged`th attempt. Jitter comes from the job's id, so that the same job waits as long again.
fn backoff_ms(policy: &RetryPolicy, charged: u32, job: JobId) -> u64 {
    let factor = match policy.backoff {
        Backoff::Constant => 1,
        Backoff::Linear => u64::from(charged),
        Backoff::Exponential => 1_u64.checked_shl(charged.saturating_sub(1)).unwrap_or(u64::MAX),
    };
    let wait = policy.base_ms.saturating_mul(factor).min(policy.cap_ms);
    if !policy.jitter {
        return wait;
    }
    let mut seed = job.0.as_bytes().to_vec();
    seed.extend(charged.to_le_bytes());
    let drawn = u64::from_le_bytes(Digest::of(&seed).0[..8].try_into().expect("a digest has 32 bytes"));
    wait / 2 + drawn % (wait / 2 + 1)
}

/// The wait after the `released`th time that the host, not the guest, was at fault.
pub fn host_fault_wait_ms(released: u32) -> u64 {
    let base = HOST_FAULT_WAIT_BASE.as_millis() as u64;
    base.saturating_mul(1 << released.min(16)).min(HOST_FAULT_WAIT_MAX.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(backoff: Backoff) -> RetryPolicy {
        RetryPolicy { max_attempts: 5, backoff, base_ms: 100, cap_ms: 1_000, jitter: false }
    }

    fn waits(policy: &RetryPolicy) -> Vec<Option<u64>> {
        (1..=5).map(|n| next_wait_ms(Fault::Retryable(None), policy, true, n, JobId::new())).collect()
    }

    #[test]
    fn waits_grow_by_the_policy_and_end_with_it() {
        assert_eq!(waits(&policy(Backoff::Constant)), [Some(100), Some(100), Some(100), Some(100), None]);
        assert_eq!(waits(&policy(Backoff::Linear)), [Some(100), Some(200), Some(300), Some(400), None]);
        assert_eq!(waits(&policy(Backoff::Exponential)), [Some(100), Some(200), Some(400), Some(800), None]);
    }

    #[test]
    fn no_wait_is_longer_than_the_cap() {
        let policy = RetryPolicy { max_attempts: 100, ..policy(Backoff::Exponential) };
        let wait = |fault, charged| next_wait_ms(fault, &policy, true, charged, JobId::new());
        assert_eq!(wait(Fault::Retryable(None), 90), Some(1_000));
        assert_eq!(wait(Fault::Retryable(Some(70)), 1), Some(70));
        assert_eq!(wait(Fault::Retryable(Some(u64::MAX)), 1), Some(1_000));
    }

    #[test]
    fn jitter_stays_in_the_upper_half_and_differs_between_jobs() {
        let policy = RetryPolicy { jitter: true, ..policy(Backoff::Constant) };
        let waits: std::collections::BTreeSet<u64> = (0..50)
            .filter_map(|_| next_wait_ms(Fault::Slow, &policy, true, 1, JobId::new()))
            .inspect(|wait| assert!((50..=100).contains(wait)))
            .collect();
        assert!(waits.len() > 10);
    }

    #[test]
    fn what_would_end_the_same_way_is_not_tried_again() {
        let policy = policy(Backoff::Constant);
        let again = |fault, pure| next_wait_ms(fault, &policy, pure, 1, JobId::new()).is_some();
        assert!(!again(Fault::Permanent, false));
        assert!(!again(Fault::Bound, false));
        assert!(!again(Fault::Broke, true));
        assert!(again(Fault::Broke, false));
        assert!(again(Fault::Slow, true));
    }

    #[test]
    fn host_faults_wait_longer_each_time_and_never_give_up() {
        let waits: Vec<u64> = (0..40).map(host_fault_wait_ms).collect();
        assert!(waits.is_sorted());
        assert_eq!(waits[39], HOST_FAULT_WAIT_MAX.as_millis() as u64);
    }
}
