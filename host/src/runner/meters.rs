//! What a runner counts and times while it works. How these are called outside is in `telemetry`, which reads them.
//!
//! Attempts are counted when their commit is through, by what it recorded, so that the counters and the database say the
//! same. Nothing here is labelled with an asset, a run or a partition: there may be millions of them, a tenant makes them
//! up, and each would be a series that lives as long as the process. The handles are made once; counting is an addition
//! to an atomic, or to a histogram under a lock that nobody holds for longer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    histogram::{Histogram, exponential_buckets},
};

use crate::store::commit::RecordedAttempt;

/// Counters by labels of which all values are known beforehand.
pub type Labelled<const N: usize> = Family<[(&'static str, &'static str); N], Counter>;

/// Everything that is counted.
#[derive(Debug)]
pub struct Meters {
    /// Statements that asked for jobs, answered or not.
    pub claim_statements: Counter,
    /// Jobs that they brought.
    pub claimed_jobs: Counter,
    /// Transactions that committed finished jobs.
    pub commits: Counter,
    /// Jobs in them that were still this worker's.
    pub committed_jobs: Counter,
    /// Of each of these transactions.
    pub commit_batch_jobs: Histogram,
    /// By verdict, and whether they were charged.
    pub attempts: Labelled<2>,
    /// By the place of their verdict: uncharged, charged.
    attempts_of: [[Counter; 2]; VERDICTS.len()],
    /// Units, of all attempts.
    pub fuel: Counter,
    /// Of each attempt.
    pub attempt_memory_peak_bytes: Histogram,
    /// Of each attempt, as its record has it.
    pub attempt_duration_seconds: Histogram,
    /// By cause.
    pub lease_losses: Labelled<1>,
    lease_losses_of: [Counter; LEASE_LOSSES.len()],
    /// Jobs of dead workers that this one made ready again.
    pub rescued_jobs: Counter,
    /// Spans that nobody took in time.
    pub spans_dropped: Counter,
    /// Of the loop that claims.
    pub claim_loop: Pulse,
    /// Of the loop that renews the session.
    pub heartbeat_loop: Pulse,
    /// Turns when the session is renewed.
    pub session: Pulse,
}

/// As the database constrains them; a test compares.
const VERDICTS: [&str; 13] = [
    "succeeded",
    "failed",
    "skipped",
    "suspended",
    "trapped",
    "out-of-fuel",
    "out-of-memory",
    "timed-out",
    "output-too-large",
    "denied",
    "cancelled",
    "lost",
    "conflicted",
];

/// How a worker loses what it held.
#[derive(Clone, Copy, Debug)]
pub enum LeaseLoss {
    /// A job's result was dropped, because others have the job.
    StaleCommit,
    /// Others ended the session.
    SessionEnded,
    /// It could not renew its session, and stopped its guests before others may take their jobs.
    SelfFenced,
    /// It was never told what a claim brought.
    UnansweredClaim,
}

const LEASE_LOSSES: [&str; 4] = ["stale-commit", "session-ended", "self-fenced", "unanswered-claim"];

impl Default for Meters {
    fn default() -> Self {
        let attempts = Labelled::default();
        let lease_losses = Labelled::default();
        // All series are there from the start: a rate needs the value before the first event.
        let attempts_of = VERDICTS.map(|verdict| {
            ["false", "true"].map(|charged| attempts.get_or_create_owned(&[("verdict", verdict), ("charged", charged)]))
        });
        let lease_losses_of = LEASE_LOSSES.map(|cause| lease_losses.get_or_create_owned(&[("cause", cause)]));
        Self {
            claim_statements: Counter::default(),
            claimed_jobs: Counter::default(),
            commits: Counter::default(),
            committed_jobs: Counter::default(),
            // Up to COMMIT_JOBS_MAX.
            commit_batch_jobs: Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 350.0, 500.0]),
            attempts,
            attempts_of,
            fuel: Counter::default(),
            // From one page of WebAssembly to all that a 32-bit memory has.
            attempt_memory_peak_bytes: Histogram::new(exponential_buckets(65_536.0, 4.0, 9)),
            // The shortest attempts take some tens of microseconds, the longest a day.
            attempt_duration_seconds: Histogram::new([
                0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1_000.0,
                10_000.0,
            ]),
            lease_losses,
            lease_losses_of,
            rescued_jobs: Counter::default(),
            spans_dropped: Counter::default(),
            claim_loop: Pulse::default(),
            heartbeat_loop: Pulse::default(),
            session: Pulse::default(),
        }
    }
}

impl Meters {
    /// An attempt that the database has.
    pub(super) fn count_attempt(&self, attempt: &RecordedAttempt) {
        let place = VERDICTS.iter().position(|verdict| *verdict == attempt.verdict);
        if let Some(place) = place {
            self.attempts_of[place][usize::from(attempt.charged)].inc();
        }
        self.fuel.inc_by(attempt.fuel_used);
        self.attempt_memory_peak_bytes.observe(attempt.memory_bytes_peak as f64);
        self.attempt_duration_seconds.observe(attempt.duration_us as f64 / 1e6);
    }

    /// Jobs of dead workers, each with a `lost` attempt of which no more is known.
    pub(super) fn count_rescued(&self, jobs: usize) {
        self.rescued_jobs.inc_by(jobs as u64);
        let lost = VERDICTS.iter().position(|verdict| *verdict == "lost").expect("it is one of them");
        self.attempts_of[lost][0].inc_by(jobs as u64);
    }

    /// Something that this worker held is not its own any more.
    pub(super) fn count_lease_losses(&self, cause: LeaseLoss, times: usize) {
        self.lease_losses_of[cause as usize].inc_by(times as u64);
    }
}

/// When a loop last turned, for whoever asks whether it still does.
#[derive(Debug)]
pub struct Pulse {
    since: Instant,
    /// Milliseconds after that, or [`RESTS`].
    turned_ms: AtomicU64,
}

/// The loop waits for something that may take any time: room for more jobs, an answer of the database, its end.
const RESTS: u64 = u64::MAX;

impl Default for Pulse {
    fn default() -> Self {
        Self { since: Instant::now(), turned_ms: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// It turns.
    pub(super) fn turn(&self) {
        self.turned_at(Instant::now());
    }

    /// It turned then.
    pub(super) fn turned_at(&self, at: Instant) {
        let turned_ms = at.saturating_duration_since(self.since).as_millis() as u64;
        self.turned_ms.store(turned_ms, Ordering::Relaxed);
    }

    /// It waits, and that is as it should be, until it turns again.
    pub(super) fn rest(&self) {
        self.turned_ms.store(RESTS, Ordering::Relaxed);
    }

    /// How long ago it turned; none while it rests.
    pub fn age(&self) -> Option<Duration> {
        match self.turned_ms.load(Ordering::Relaxed) {
            RESTS => None,
            turned_ms => Some(self.since.elapsed().saturating_sub(Duration::from_millis(turned_ms))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdicts_are_those_of_the_database() {
        let history = include_str!("../../../migrations/0004_runs_and_jobs.sql");
        let (_, rule) = history.split_once("attempt_verdict_is_known check (verdict in (").unwrap();
        let mut known: Vec<&str> = rule.split_once(')').unwrap().0.split('\'').skip(1).step_by(2).collect();
        let mut counted = VERDICTS.to_vec();
        known.sort_unstable();
        counted.sort_unstable();
        assert_eq!(counted, known);
    }

    #[test]
    fn an_attempt_is_counted_under_its_verdict_and_its_charge() {
        let meters = Meters::default();
        let attempt = RecordedAttempt {
            verdict: "out-of-fuel",
            charged: true,
            fuel_used: 7,
            memory_bytes_peak: 65_536,
            duration_us: 31,
        };
        meters.count_attempt(&attempt);
        meters.count_attempt(&RecordedAttempt { charged: false, ..attempt });
        meters.count_rescued(3);
        let counted =
            |verdict, charged| meters.attempts.get_or_create_owned(&[("verdict", verdict), ("charged", charged)]).get();
        assert_eq!([counted("out-of-fuel", "true"), counted("out-of-fuel", "false")], [1, 1]);
        assert_eq!([counted("lost", "false"), counted("lost", "true"), counted("failed", "true")], [3, 0, 0]);
        assert_eq!((meters.fuel.get(), meters.rescued_jobs.get()), (14, 3));
    }

    #[test]
    fn each_cause_of_a_loss_has_its_own_name() {
        let meters = Meters::default();
        for (cause, name) in [
            (LeaseLoss::StaleCommit, "stale-commit"),
            (LeaseLoss::SessionEnded, "session-ended"),
            (LeaseLoss::SelfFenced, "self-fenced"),
            (LeaseLoss::UnansweredClaim, "unanswered-claim"),
        ] {
            meters.count_lease_losses(cause, 2);
            assert_eq!(meters.lease_losses.get_or_create_owned(&[("cause", name)]).get(), 2);
        }
    }

    #[test]
    fn a_loop_ages_unless_it_rests() {
        let pulse = Pulse { since: Instant::now() - Duration::from_secs(100), turned_ms: AtomicU64::new(0) };
        assert!(pulse.age().unwrap() >= Duration::from_secs(100));
        pulse.turned_at(Instant::now() - Duration::from_secs(40));
        let age = pulse.age().unwrap();
        assert!(age >= Duration::from_secs(40) && age < Duration::from_secs(100), "{age:?}");
        pulse.turn();
        assert!(pulse.age().unwrap() < Duration::from_secs(40));
        pulse.rest();
        assert_eq!(pulse.age(), None);
    }
}
