//! What is known of a run while it is followed: each job's name, and how many of each asset ended how.
//!
//! Counts each job once, however often it is told of. Pure: what it is told comes from elsewhere.

use std::collections::HashMap;

use crate::{id::JobId, limit::CAUSES_SHOWN_MAX, store::runs::JobRecord};

/// A run's jobs, and how far each asset is.
#[derive(Debug, Default)]
pub struct Board {
    /// In the order in which the plan names them first.
    pub assets: Vec<Tally>,
    jobs: HashMap<JobId, Entry>,
    /// Jobs that ended.
    pub ended: usize,
    /// The first failures, those of one asset with the same cause once; [`Tally::failed`] counts all.
    pub failures: Vec<Failure>,
}

/// How far an asset is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its name.
    pub asset: String,
    /// In all.
    pub jobs: usize,
    /// Succeeded by running.
    pub made: usize,
    /// Succeeded without running.
    pub reused: usize,
    /// There was nothing to make, or an input was missing.
    pub skipped: usize,
    /// Failed for good.
    pub failed: usize,
    /// Ended with the run.
    pub cancelled: usize,
}

impl Tally {
    /// Jobs that ended, however.
    pub fn ended(&self) -> usize {
        self.made + self.reused + self.skipped + self.failed + self.cancelled
    }

    /// Several as one, under this name.
    pub fn together(name: &str, tallies: &[Self]) -> Self {
        let none = Self { asset: name.to_owned(), ..Self::default() };
        tallies.iter().fold(none, |sum, tally| Self {
            jobs: sum.jobs + tally.jobs,
            made: sum.made + tally.made,
            reused: sum.reused + tally.reused,
            skipped: sum.skipped + tally.skipped,
            failed: sum.failed + tally.failed,
            cancelled: sum.cancelled + tally.cancelled,
            asset: sum.asset,
        })
    }
}

/// Jobs of an asset that failed for the same cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Of which asset.
    pub asset: String,
    /// Canonical text, of the first one.
    pub partition_key: String,
    /// Why.
    pub cause: String,
    /// How many.
    pub count: usize,
}

#[derive(Debug)]
struct Entry {
    asset: usize,
    partition_key: Box<str>,
    ended: bool,
}

/// How a job ended.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// `succeeded`, `skipped`, `failed` or `cancelled`.
    pub state: &'a str,
    /// Why, unless it succeeded.
    pub cause: Option<&'a str>,
    /// Whether it succeeded without running.
    pub reused: bool,
}

/// A job of the run by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// The place of its asset among [`Board::assets`].
    pub place: usize,
    /// What it makes.
    pub asset: &'a str,
    /// Canonical text.
    pub partition_key: &'a str,
}

impl Board {
    /// Of all jobs of a run.
    pub fn new(jobs: &[JobRecord]) -> Self {
        let mut board = Self::default();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for job in jobs {
            let place = *places.entry(&job.asset).or_insert_with(|| {
                board.assets.push(Tally { asset: job.asset.clone(), ..Tally::default() });
                board.assets.len() - 1
            });
            board.assets[place].jobs += 1;
            let entry = Entry { asset: place, partition_key: job.partition_key.as_str().into(), ended: false };
            board.jobs.insert(job.id, entry);
        }
        board
    }

    /// Jobs in all.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// A job of this run.
    pub fn find(&self, job: JobId) -> Option<Named<'_>> {
        let entry = self.jobs.get(&job)?;
        let asset = &self.assets[entry.asset].asset;
        Some(Named { place: entry.asset, asset, partition_key: &entry.partition_key })
    }

    /// Counts an end. False when it was counted before, or is none of this run's.
    pub fn end(&mut self, job: JobId, end: End<'_>) -> bool {
        let Some(entry) = self.jobs.get_mut(&job).filter(|entry| !entry.ended) else { return false };
        entry.ended = true;
        self.ended += 1;
        let tally = &mut self.assets[entry.asset];
        match end.state {
            "succeeded" if end.reused => tally.reused += 1,
            "succeeded" => tally.made += 1,
            "skipped" => tally.skipped += 1,
            "failed" => tally.failed += 1,
            _ => tally.cancelled += 1,
        }
        if end.state == "failed" {
            let cause = end.cause.unwrap_or_default();
            let known = self.failures.iter().position(|known| known.asset == tally.asset && known.cause == cause);
            match known {
                Some(known) => self.failures[known].count += 1,
                None if self.failures.len() < CAUSES_SHOWN_MAX => self.failures.push(Failure {
                    asset: tally.asset.clone(),
                    partition_key: entry.partition_key.to_string(),
                    cause: cause.to_owned(),
                    count: 1,
                }),
                None => {}
            }
        }
        true
    }

    /// All assets together.
    pub fn total(&self) -> Tally {
        Tally::together("all", &self.assets)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::super::status::tests::a_job, *};

    /// Of `raw`, and of `monthly` in three partitions; `ends` are those of the first ones.
    pub(crate) fn a_board(ends: &[End<'_>]) -> (Board, Vec<JobId>) {
        let months = ["month=month:2012-01", "month=month:2012-02", "month=month:2012-03"];
        let mut jobs = vec![a_job("raw", "none", "ready", None)];
        jobs.extend(months.map(|month| a_job("monthly", month, "blocked", None)));
        let mut board = Board::new(&jobs);
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        for (id, end) in ids.iter().zip(ends) {
            assert!(board.end(*id, *end));
        }
        (board, ids)
    }

    pub(crate) const MADE: End<'_> = End { state: "succeeded", cause: None, reused: false };
    pub(crate) const REUSED: End<'_> = End { state: "succeeded", cause: None, reused: true };
    pub(crate) const FAILED: End<'_> = End { state: "failed", cause: Some("out of fuel\nforged\x1b"), reused: false };
    pub(crate) const SKIPPED: End<'_> = End { state: "skipped", cause: Some("input raw was not made"), reused: false };

    #[test]
    fn each_job_is_counted_once_in_its_asset() {
        let (mut board, ids) = a_board(&[MADE, REUSED, FAILED, SKIPPED]);
        let monthly = Tally { asset: "monthly".into(), jobs: 3, reused: 1, failed: 1, skipped: 1, ..Tally::default() };
        assert_eq!(board.assets[1], monthly);
        assert!(!board.end(ids[0], FAILED), "a job ends once");
        assert!(!board.end(JobId::new(), MADE), "a job of another run does not count");
        assert_eq!((board.ended, board.total().ended(), board.total().jobs), (4, 4, 4));
        assert_eq!(board.failures.len(), 1);
    }

    #[test]
    fn jobs_are_found_by_id() {
        let (board, ids) = a_board(&[]);
        let named = board.find(ids[2]).unwrap();
        assert_eq!((named.place, named.asset, named.partition_key), (1, "monthly", "month=month:2012-02"));
        assert_eq!(board.find(JobId::new()), None);
    }

    #[test]
    fn failures_are_kept_by_cause_up_to_a_bound_and_counted_past_it() {
        let jobs: Vec<JobRecord> = (0..CAUSES_SHOWN_MAX + 3).map(|_| a_job("a", "none", "ready", None)).collect();
        let mut board = Board::new(&jobs);
        jobs.iter().for_each(|job| assert!(board.end(job.id, FAILED)));
        assert_eq!((board.failures.len(), board.failures[0].count), (1, CAUSES_SHOWN_MAX + 3));
        let mut board = Board::new(&jobs);
        for (n, job) in jobs.iter().enumerate() {
            assert!(board.end(job.id, End { cause: Some(&n.to_string()), ..FAILED }));
        }
        assert_eq!((board.failures.len(), board.total().failed), (CAUSES_SHOWN_MAX, CAUSES_SHOWN_MAX + 3));
    }
}
