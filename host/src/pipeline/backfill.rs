//! Backfills: the partitions that somebody wants made, released in windows.
//!
//! A backfill is a set of partitions and a place in it: whatever its size, that is a few ranges and a number. Here is
//! which partitions come next, and what became of those of a window; who releases it is [`crate::scheduler`]'s.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    asset::Dimension,
    keyspace::{KeySpace, KeySpaceError},
    ranges::IndexRanges,
};

/// Where a backfill begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// With the first partition: of time, the oldest.
    OldestFirst,
    /// With the last.
    NewestFirst,
}

/// What a backfill makes, every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillSettings {
    /// The assets, which have the same partitions.
    pub assets: Vec<String>,
    /// The partitions as they were typed; none means all.
    pub partitions: Vec<String>,
    /// As of when: partitions that are complete later are none of it.
    pub as_of_ms: i64,
    /// Where it begins.
    pub order: Order,
    /// Whether what the assets need is made too, where it is missing or stale.
    pub with_inputs: bool,
    /// Whether partitions that are up to date are made again.
    pub force: bool,
}

impl BackfillSettings {
    /// The partitions that a backfill's numbers count in, whatever its pipeline has become since.
    pub fn key_space(&self, dimensions: &[Dimension]) -> Result<KeySpace, KeySpaceError> {
        KeySpace::new(dimensions, Timestamp::from_millisecond(self.as_of_ms).unwrap_or(Timestamp::MAX))
    }
}

/// How many partitions may be released, of `left` that have not been: as many as are missing to `concurrency`, but none
/// before a half is, so that no run is a single partition of a wide window.
pub fn room(concurrency: u32, in_flight: u32, left: u32) -> u32 {
    let free = concurrency.saturating_sub(in_flight);
    let enough = concurrency.div_ceil(2).min(left);
    if free >= enough { free.min(left) } else { 0 }
}

/// The next partitions of a backfill of which `cursor` have been released.
pub fn next_window(selected: &IndexRanges, order: Order, cursor: u32, count: u32) -> IndexRanges {
    let len = selected.len();
    let end = cursor.saturating_add(count).min(len);
    match order {
        Order::OldestFirst => selected.slice(cursor..end),
        Order::NewestFirst => selected.slice(len - end..len - cursor.min(len)),
    }
}

/// What failed of a backfill, and what has not been released, as one selection.
pub fn with_rest(selected: &IndexRanges, order: Order, cursor: u32, failures: &IndexRanges) -> IndexRanges {
    let mut all = failures.clone();
    let rest = next_window(selected, order, cursor, selected.len().saturating_sub(cursor));
    rest.ranges().iter().for_each(|range| all.push(range.clone()));
    all.normalize();
    all
}

/// A partition of a window that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmade {
    /// Which.
    pub index: u32,
    /// Whether something failed or was cancelled; otherwise there was nothing to make.
    pub failed: bool,
    /// Why.
    pub cause: String,
}

/// Partitions next to each other that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRange {
    /// The first of them.
    pub first: u32,
    /// The last of them.
    pub last: u32,
    /// Why the first of them did.
    pub cause: String,
}

/// What became of the partitions of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowOutcome {
    /// How many were made, or found to be made.
    pub made: u32,
    /// Of how many there was nothing to make.
    pub skipped: u32,
    /// How many failed.
    pub failed: u32,
    /// Which.
    pub failures: Vec<FailedRange>,
}

/// What became of a window's partitions, of which these were not made, by any of the assets. One failed where anything of
/// it did.
pub fn conclude(window: &IndexRanges, unmade: Vec<Unmade>) -> WindowOutcome {
    let mut worst: BTreeMap<u32, Unmade> = BTreeMap::new();
    for one in unmade.into_iter().filter(|one| window.contains(one.index)) {
        match worst.get(&one.index) {
            Some(known) if known.failed || !one.failed => {}
            _ => drop(worst.insert(one.index, one)),
        }
    }
    let mut outcome = WindowOutcome::default();
    for (index, one) in worst {
        if !one.failed {
            outcome.skipped += 1;
            continue;
        }
        outcome.failed += 1;
        match outcome.failures.last_mut() {
            Some(range) if range.last + 1 == index => range.last = index,
            _ => outcome.failures.push(FailedRange { first: index, last: index, cause: one.cause }),
        }
    }
    outcome.made = window.len() - outcome.skipped - outcome.failed;
    outcome
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(u32, u32)]) -> IndexRanges {
        let mut set = IndexRanges::default();
        ranges.iter().for_each(|(from, to)| set.push(*from..*to));
        set.normalize();
        set
    }

    #[test]
    fn windows_follow_each_other_from_either_end() {
        let selected = set(&[(0, 3), (10, 14)]);
        let windows = |order| -> Vec<Vec<u32>> {
            [0, 2, 4, 6].map(|cursor| next_window(&selected, order, cursor, 2).iter().collect()).to_vec()
        };
        assert_eq!(windows(Order::OldestFirst), [vec![0, 1], vec![2, 10], vec![11, 12], vec![13]]);
        assert_eq!(windows(Order::NewestFirst), [vec![12, 13], vec![10, 11], vec![1, 2], vec![0]]);
    }

    #[test]
    fn what_failed_comes_back_with_what_was_not_released() {
        let selected = set(&[(0, 10)]);
        let rest = |order, cursor, failures: &[(u32, u32)]| with_rest(&selected, order, cursor, &set(failures));
        assert_eq!(rest(Order::OldestFirst, 6, &[(1, 2), (5, 6)]).ranges(), [1..2, 5..10]);
        assert_eq!(rest(Order::NewestFirst, 6, &[(7, 9)]).ranges(), [0..4, 7..9]);
        assert_eq!(rest(Order::OldestFirst, 10, &[(3, 4)]).iter().collect::<Vec<_>>(), [3]);
        assert!(rest(Order::OldestFirst, 10, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn windows_are_the_selection_and_each_partition_is_in_one(
            ranges in prop::collection::vec((0u32..200, 1u32..9), 0..12),
            counts in prop::collection::vec(1u32..20, 1..40),
            newest in any::<bool>(),
        ) {
            let selected = set(&ranges.iter().map(|(from, len)| (*from, from + len)).collect::<Vec<_>>());
            let order = if newest { Order::NewestFirst } else { Order::OldestFirst };
            let (mut cursor, mut released) = (0, Vec::new());
            for count in counts.into_iter().cycle() {
                if cursor == selected.len() {
                    break;
                }
                let window = next_window(&selected, order, cursor, count);
                prop_assert_eq!(window.len(), count.min(selected.len() - cursor));
                cursor += window.len();
                let mut indexes: Vec<u32> = window.iter().collect();
                if newest {
                    indexes.reverse();
                }
                released.extend(indexes);
            }
            let mut expected: Vec<u32> = selected.iter().collect();
            if newest {
                expected.reverse();
            }
            prop_assert_eq!(released, expected);
        }
    }

    #[test]
    fn no_more_are_in_flight_than_may_be_and_a_half_is_waited_for() {
        assert_eq!(room(100, 0, 1_000_000), 100);
        assert_eq!((room(100, 51, 1_000), room(100, 50, 1_000), room(100, 100, 1_000)), (0, 50, 0));
        assert_eq!((room(1, 1, 9), room(1, 0, 9), room(3, 2, 9), room(3, 1, 9)), (0, 1, 0, 2));
        assert_eq!((room(100, 90, 7), room(100, 97, 7), room(100, 0, 0)), (7, 0, 0));
        assert_eq!(room(10, 300, 7), 0);
    }

    #[test]
    fn what_failed_is_told_as_ranges_and_a_failure_counts_before_a_skip() {
        let unmade = |index, failed, cause: &str| Unmade { index, failed, cause: cause.to_owned() };
        let outcome = conclude(
            &set(&[(0, 10), (20, 22)]),
            vec![
                unmade(4, true, "second"),
                unmade(3, true, "first"),
                unmade(9, false, "nothing to make"),
                unmade(9, true, "not skipped"),
                unmade(9, true, "too late"),
                unmade(20, true, "other"),
                unmade(21, false, "nothing to make"),
                unmade(15, true, "of no partition of it"),
            ],
        );
        let range = |first, last, cause: &str| FailedRange { first, last, cause: cause.to_owned() };
        let failures = vec![range(3, 4, "first"), range(9, 9, "not skipped"), range(20, 20, "other")];
        assert_eq!(outcome, WindowOutcome { made: 7, skipped: 1, failed: 4, failures });
    }
}
