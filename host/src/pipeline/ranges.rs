//! A set of numbers as sorted ranges: which partitions of an asset a plan is about.
//!
//! Sets of partitions are mostly runs of neighbours, so that a million of them is one range.

use std::ops::Range;

/// A set of indexes. Pushing in order keeps it sorted; after pushing out of order, [`Self::normalize`] must be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRanges {
    ranges: Vec<Range<u32>>,
    /// How many indexes lie before each range.
    before: Vec<u32>,
    sorted: bool,
}

impl From<Range<u32>> for IndexRanges {
    fn from(range: Range<u32>) -> Self {
        let mut set = Self::default();
        set.push(range);
        set.normalize();
        set
    }
}

impl IndexRanges {
    /// Adds a range. Ranges that touch the last one become one with it.
    pub fn push(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        self.sorted = false;
        match self.ranges.last_mut() {
            Some(last) if range.start >= last.start && range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.ranges.push(range),
        }
    }

    /// Sorts and joins what was pushed.
    pub fn normalize(&mut self) {
        if self.sorted {
            return;
        }
        let mut pushed = std::mem::take(&mut self.ranges);
        pushed.sort_unstable_by_key(|range| range.start);
        pushed.into_iter().for_each(|range| self.push(range));
        self.before.clear();
        let mut count = 0;
        for range in &self.ranges {
            self.before.push(count);
            count += range.end - range.start;
        }
        self.sorted = true;
    }

    /// The sorted, separate ranges.
    pub fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// How many indexes there are.
    pub fn len(&self) -> u32 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The indexes in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().cloned().flatten()
    }

    /// How many indexes of the set lie before this one; absent when it is not in the set.
    pub fn position(&self, index: u32) -> Option<u32> {
        debug_assert!(self.sorted || self.ranges.is_empty(), "positions are known after `normalize`");
        let at = self.ranges.partition_point(|range| range.end <= index);
        let range = self.ranges.get(at).filter(|range| range.contains(&index))?;
        Some(self.before[at] + index - range.start)
    }

    /// The indexes at these places of the set, counted from its first; places that it does not have are left out.
    pub fn slice(&self, places: Range<u32>) -> Self {
        debug_assert!(self.sorted || self.ranges.is_empty(), "places are known after `normalize`");
        let mut found = Self::default();
        for (range, before) in self.ranges.iter().zip(&self.before) {
            let from = range.start + places.start.clamp(*before, before + range.len() as u32) - before;
            let to = range.start + places.end.clamp(*before, before + range.len() as u32) - before;
            found.push(from..to.max(from));
        }
        found.normalize();
        found
    }

    /// Whether the index is in the set.
    pub fn contains(&self, index: u32) -> bool {
        self.position(index).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_set(pushed in prop::collection::vec((0u32..60, 0u32..8), 0..20)) {
            let (mut set, mut model) = (IndexRanges::default(), BTreeSet::new());
            for (start, len) in pushed {
                set.push(start..start + len);
                model.extend(start..start + len);
            }
            set.normalize();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start), "{set:?}");
            for index in 0..80 {
                let expected = model.contains(&index).then(|| model.range(..index).count() as u32);
                prop_assert_eq!(set.position(index), expected);
            }
            for (from, to) in [(0, 0), (0, 7), (3, 11), (5, 200), (90, 99)] {
                let expected: Vec<u32> = model.iter().copied().skip(from).take(to - from).collect();
                prop_assert_eq!(set.slice(from as u32..to as u32).iter().collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn neighbours_are_one_range() {
        let mut set = IndexRanges::default();
        (0..1_000_000).for_each(|index| set.push(index..index + 1));
        set.normalize();
        assert_eq!((set.ranges().len(), set.len()), (1, 1_000_000));
    }
}
