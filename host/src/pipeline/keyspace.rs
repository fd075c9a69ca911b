//! The partitions that an asset has at one moment, as numbers from 0: the last dimension counts fastest.
//!
//! Time runs from the first key to the last one, or to the last interval that has ended; the caller says what time it is.
//! Nothing is enumerated to count, and no text is made before someone asks for it: a plan over a hundred thousand
//! partitions works on numbers.

use std::{collections::HashMap, ops::Range};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    asset::{Dimension, DimensionKeys, TimeKeys, TimeUnit},
    calendar,
    diagnostic::shown,
    partition::{Coordinate, KeyKind, Partition, PartitionKey},
};
use crate::limit::PARTITIONS_PER_ASSET_MAX;

/// All partitions of an asset at one moment.
#[derive(Clone, Debug)]
pub struct KeySpace {
    axes: Vec<Axis>,
    len: u32,
}

/// The keys along one dimension.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The dimension's name.
    pub name: String,
    keys: AxisKeys,
    len: u32,
}

#[derive(Clone, Debug)]
enum AxisKeys {
    Time(TimeAxis),
    Static { keys: Vec<String>, index: HashMap<String, u32> },
}

/// Consecutive intervals.
#[derive(Clone, Debug)]
pub struct TimeAxis {
    /// How long each is.
    pub unit: TimeUnit,
    /// In which civil intervals are counted.
    pub zone: TimeZone,
    /// The interval at index 0.
    pub first: i64,
    /// Whether intervals are added as time passes.
    pub grows: bool,
}

/// Why dimensions have no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySpaceError {
    /// A bound is not a key of the unit.
    #[error("`{}` is not a {}; write it like `{}`", shown(.key), .unit.name(), .unit.example())]
    Key {
        /// As it was given.
        key: String,
        /// What it should be.
        unit: TimeUnit,
    },
    /// The last key is before the first.
    #[error("the last key `{to}` is before the first, `{from}`")]
    Order {
        /// The first key.
        from: String,
        /// The last key.
        to: String,
    },
    /// Nobody knows the time zone.
    #[error("`{}` is not a time zone; write an IANA name such as `UTC` or `Europe/Berlin`", shown(.0))]
    Zone(String),
    /// A list without keys.
    #[error("a list of keys needs at least one")]
    Empty,
    /// A key twice.
    #[error("the key `{}` is listed twice", shown(.0))]
    Duplicate(String),
    /// Dynamic keys.
    #[error("dynamic keys are not supported yet")]
    Dynamic,
    /// More than [`PARTITIONS_PER_ASSET_MAX`].
    #[error("{0} partitions are more than the {PARTITIONS_PER_ASSET_MAX} that an asset may have")]
    TooMany(u128),
}

impl KeySpace {
    /// The partitions of an asset with these dimensions at this moment.
    pub fn new(dimensions: &[Dimension], now: Timestamp) -> Result<Self, KeySpaceError> {
        let axes: Vec<Axis> = dimensions.iter().map(|d| Axis::new(d, now)).collect::<Result<_, _>>()?;
        let count: u128 = axes.iter().map(|axis| u128::from(axis.len)).product();
        match u32::try_from(count) {
            Ok(len) if count <= PARTITIONS_PER_ASSET_MAX as u128 => Ok(Self { axes, len }),
            _ => Err(KeySpaceError::TooMany(count)),
        }
    }

    /// How many partitions there are: 1 for an unpartitioned asset, 0 while no interval has ended.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no partition yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The dimensions' keys, in the order of the dimensions.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Whether the partitions grow as time passes.
    pub fn grows(&self) -> bool {
        self.axes.iter().any(|axis| axis.time().is_some_and(|time| time.grows))
    }

    /// The index, along each axis, of the partition at this index.
    pub fn coordinates(&self, index: u32) -> Vec<u32> {
        let mut rest = index;
        let mut coordinates = vec![0; self.axes.len()];
        for (coordinate, axis) in coordinates.iter_mut().zip(&self.axes).rev() {
            (*coordinate, rest) = (rest % axis.len, rest / axis.len);
        }
        coordinates
    }

    /// The index of the partition with these indexes along the axes.
    pub fn index(&self, coordinates: &[u32]) -> u32 {
        self.axes.iter().zip(coordinates).fold(0, |index, (axis, coordinate)| index * axis.len + coordinate)
    }

    /// The partition at this index.
    pub fn partition(&self, index: u32) -> Partition {
        let coordinate = |(axis, i): (&Axis, u32)| Coordinate { dimension: axis.name.clone(), key: axis.key(i) };
        self.axes.iter().zip(self.coordinates(index)).map(coordinate).collect()
    }

    /// The canonical text of the partition at this index.
    pub fn key(&self, index: u32) -> PartitionKey {
        let keys: Vec<String> = self.axes.iter().zip(self.coordinates(index)).map(|(axis, i)| axis.key(i)).collect();
        PartitionKey::encode(self.axes.iter().zip(&keys).map(|(axis, key)| (&*axis.name, axis.kind(), &**key)))
    }

    /// Where this partition is; absent when the asset does not have it at this moment.
    pub fn find(&self, partition: &[Coordinate]) -> Option<u32> {
        if partition.len() != self.axes.len() {
            return None;
        }
        let mut coordinates = Vec::with_capacity(self.axes.len());
        for (axis, coordinate) in self.axes.iter().zip(partition) {
            coordinates.push(axis.find(&coordinate.key).filter(|_| axis.name == coordinate.dimension)?);
        }
        Some(self.index(&coordinates))
    }

    /// Where the partition with this canonical text is.
    pub fn find_key(&self, key: &PartitionKey) -> Option<u32> {
        self.find(&key.partition()).filter(|index| self.key(*index) == *key)
    }

    /// Visits the partitions whose index along each axis lies in the axis's range, as ranges of neighbours in order.
    pub fn visit_product(&self, ranges: &[Range<u32>], visit: &mut impl FnMut(Range<u32>)) {
        debug_assert_eq!(ranges.len(), self.axes.len(), "one range for each axis");
        self.visit_from(0, 0, ranges, visit);
    }

    fn visit_from(&self, axis: usize, prefix: u32, ranges: &[Range<u32>], visit: &mut impl FnMut(Range<u32>)) {
        // Below an axis of which all is wanted on every further axis, the partitions are one range of neighbours.
        let whole = |axis: usize| ranges[axis] == (0..self.axes[axis].len);
        let below: u32 = self.axes.iter().skip(axis + 1).map(|axis| axis.len).product();
        match self.axes.get(axis) {
            None => visit(0..1),
            Some(here) if (axis + 1..self.axes.len()).all(whole) => {
                let base = prefix * here.len;
                if !ranges[axis].is_empty() {
                    visit((base + ranges[axis].start) * below..(base + ranges[axis].end) * below);
                }
            }
            Some(here) => {
                let base = prefix * here.len;
                ranges[axis].clone().for_each(|i| self.visit_from(axis + 1, base + i, ranges, visit));
            }
        }
    }

    /// "first .. last" of each dimension, for messages.
    pub fn extent(&self) -> String {
        match &*self.axes {
            [] => "it has no partitions".to_owned(),
            axes => {
                let texts: Vec<String> = axes.iter().map(|axis| axis.extent(axes.len() > 1)).collect();
                texts.join("; ")
            }
        }
    }
}

impl Axis {
    fn new(dimension: &Dimension, now: Timestamp) -> Result<Self, KeySpaceError> {
        let (keys, len) = match &dimension.keys {
            DimensionKeys::Time(time) => time_axis(time, now)?,
            DimensionKeys::Static(keys) => static_axis(keys)?,
            DimensionKeys::Dynamic => return Err(KeySpaceError::Dynamic),
        };
        let bounded = u32::try_from(len).ok().filter(|len| *len as usize <= PARTITIONS_PER_ASSET_MAX);
        let len = bounded.ok_or(KeySpaceError::TooMany(len.into()))?;
        Ok(Self { name: dimension.name.clone(), keys, len })
    }

    /// How many keys there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no interval has ended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The intervals, when the dimension is time.
    pub fn time(&self) -> Option<&TimeAxis> {
        match &self.keys {
            AxisKeys::Time(time) => Some(time),
            AxisKeys::Static { .. } => None,
        }
    }

    /// The kind of its keys.
    pub fn kind(&self) -> KeyKind {
        self.time().map_or(KeyKind::Static, |time| KeyKind::Time(time.unit))
    }

    /// The key at this index.
    pub fn key(&self, index: u32) -> String {
        match &self.keys {
            AxisKeys::Time(time) => calendar::key_text(time.unit, time.first + i64::from(index)),
            AxisKeys::Static { keys, .. } => keys[index as usize].clone(),
        }
    }

    /// Where this key is.
    pub fn find(&self, key: &str) -> Option<u32> {
        match &self.keys {
            AxisKeys::Time(time) => {
                let offset = calendar::parse_key(time.unit, key)? - time.first;
                u32::try_from(offset).ok().filter(|index| *index < self.len)
            }
            AxisKeys::Static { index, .. } => index.get(key).copied(),
        }
    }

    /// The keys of a list, for suggestions; empty for time.
    pub fn listed(&self) -> &[String] {
        match &self.keys {
            AxisKeys::Time(_) => &[],
            AxisKeys::Static { keys, .. } => keys,
        }
    }

    fn extent(&self, named: bool) -> String {
        let subject = if named { format!("{}: ", self.name) } else { String::new() };
        match self.len {
            0 => format!("{subject}none has ended yet"),
            1 => format!("{subject}its only one is {}", self.key(0)),
            len => format!("{subject}its first is {}, its last {}", self.key(0), self.key(len - 1)),
        }
    }
}

fn time_axis(time: &TimeKeys, now: Timestamp) -> Result<(AxisKeys, u64), KeySpaceError> {
    let parse = |key: &String| {
        let ordinal = calendar::parse_key(time.unit, key);
        ordinal.ok_or_else(|| KeySpaceError::Key { key: key.clone(), unit: time.unit })
    };
    let zone = calendar::find_time_zone(&time.time_zone).ok_or_else(|| KeySpaceError::Zone(time.time_zone.clone()))?;
    let first = parse(&time.from)?;
    let after = match &time.to {
        Some(to) => parse(to)? + 1,
        // The interval that holds this moment has not ended.
        None => calendar::holding(time.unit, now, &zone).max(first),
    };
    if after <= first && time.to.is_some() {
        return Err(KeySpaceError::Order { from: time.from.clone(), to: time.to.clone().unwrap_or_default() });
    }
    let axis = TimeAxis { unit: time.unit, zone, first, grows: time.to.is_none() };
    Ok((AxisKeys::Time(axis), after.abs_diff(first)))
}

fn static_axis(keys: &[String]) -> Result<(AxisKeys, u64), KeySpaceError> {
    let mut index = HashMap::with_capacity(keys.len());
    for (i, key) in keys.iter().enumerate().take(PARTITIONS_PER_ASSET_MAX) {
        if index.insert(key.clone(), i as u32).is_some() {
            return Err(KeySpaceError::Duplicate(key.clone()));
        }
    }
    if keys.is_empty() {
        return Err(KeySpaceError::Empty);
    }
    Ok((AxisKeys::Static { keys: keys.to_vec(), index }, keys.len() as u64))
}

/// The instant that a partition is about, in milliseconds since 1970: the start of its interval in its time zone.
///
/// 0 where it has no time, and for intervals before 1970, because the contract's instants are unsigned.
pub fn logical_time_ms(dimensions: &[Dimension], partition: &Partition) -> u64 {
    let interval = dimensions.iter().zip(partition).find_map(|(dimension, coordinate)| match &dimension.keys {
        DimensionKeys::Time(time) => Some((time, &coordinate.key)),
        _ => None,
    });
    let start = interval.and_then(|(time, key)| {
        let zone = calendar::find_time_zone(&time.time_zone)?;
        Some(calendar::start(time.unit, calendar::parse_key(time.unit, key)?, &zone))
    });
    start.map_or(0, |start| u64::try_from(start.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn time(name: &str, unit: TimeUnit, from: &str, to: Option<&str>) -> Dimension {
        let keys = TimeKeys { unit, from: from.into(), to: to.map(Into::into), time_zone: "UTC".into() };
        Dimension { name: name.into(), keys: DimensionKeys::Time(keys) }
    }

    pub(crate) fn list(name: &str, keys: &[&str]) -> Dimension {
        Dimension { name: name.into(), keys: DimensionKeys::Static(keys.iter().map(|k| (*k).into()).collect()) }
    }

    pub(crate) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The partitions of these dimensions, as people write them.
    fn labels(dimensions: &[Dimension], now: &str) -> Vec<String> {
        let space = KeySpace::new(dimensions, at(now)).unwrap();
        (0..space.len()).map(|index| space.key(index).label()).collect()
    }

    #[test]
    fn time_runs_from_the_first_key_to_the_last() {
        let months = [time("month", TimeUnit::Month, "2012-01", Some("2015-12"))];
        let labels = labels(&months, "1980-01-01T00:00:00Z");
        assert_eq!((labels.len(), &*labels[0], &*labels[47]), (48, "2012-01", "2015-12"));
    }

    #[test]
    fn open_time_ends_with_the_last_interval_that_has_ended() {
        let days = [time("day", TimeUnit::Day, "2024-01-30", None)];
        assert_eq!(labels(&days, "2024-02-01T00:00:00Z"), ["2024-01-30", "2024-01-31"]);
        assert_eq!(labels(&days, "2024-01-31T23:59:59Z"), ["2024-01-30"]);
        assert!(labels(&days, "2024-01-30T12:00:00Z").is_empty());
        assert!(labels(&days, "2020-01-01T00:00:00Z").is_empty());
    }

    #[test]
    fn a_day_ends_when_it_ends_in_its_zone() {
        let mut days = [time("day", TimeUnit::Day, "2024-01-30", None)];
        let DimensionKeys::Time(keys) = &mut days[0].keys else { unreachable!("the dimension is time") };
        keys.time_zone = "America/Los_Angeles".into();
        assert!(labels(&days, "2024-01-31T07:59:59Z").is_empty());
        assert_eq!(labels(&days, "2024-01-31T08:00:00Z"), ["2024-01-30"]);
        let partition = vec![Coordinate { dimension: "day".into(), key: "2024-01-30".into() }];
        assert_eq!(logical_time_ms(&days, &partition), 1_706_601_600_000);
    }

    #[test]
    fn dimensions_multiply_and_the_last_counts_fastest() {
        let dimensions = [time("year", TimeUnit::Year, "2012", Some("2013")), list("region", &["eu", "us"])];
        assert_eq!(
            labels(&dimensions, "2024-01-01T00:00:00Z"),
            ["year=2012,region=eu", "year=2012,region=us", "year=2013,region=eu", "year=2013,region=us"]
        );
    }

    #[test]
    fn an_unpartitioned_asset_has_one_partition() {
        let space = KeySpace::new(&[], at("2024-01-01T00:00:00Z")).unwrap();
        assert_eq!((space.len(), space.key(0)), (1, PartitionKey::unpartitioned()));
        assert_eq!(space.find(&[]), Some(0));
        assert_eq!(logical_time_ms(&[], &vec![]), 0);
    }

    #[test]
    fn every_partition_is_found_again_and_no_other() {
        let dimensions = [list("a", &["x", "2012"]), time("year", TimeUnit::Year, "2012", Some("2014"))];
        let space = KeySpace::new(&dimensions, at("2024-01-01T00:00:00Z")).unwrap();
        for index in 0..space.len() {
            assert_eq!(space.find(&space.partition(index)), Some(index));
            assert_eq!(space.find_key(&space.key(index)), Some(index));
        }
        for other in ["a=static:x;year=year:2015", "a=static:x;year=static:2012", "year=year:2012;a=static:x", "none"] {
            assert_eq!(space.find_key(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn products_are_visited_as_few_ranges_in_order() {
        let dimensions = [list("a", &["1", "2", "3"]), list("b", &["1", "2"]), list("c", &["1", "2"])];
        let space = KeySpace::new(&dimensions, at("2024-01-01T00:00:00Z")).unwrap();
        let ranges = |ranges: [Range<u32>; 3]| {
            let mut visited = Vec::new();
            space.visit_product(&ranges, &mut |range| visited.push((range.start, range.end)));
            visited
        };
        assert_eq!(ranges([0..3, 0..2, 0..2]), [(0, 12)]);
        assert_eq!(ranges([1..3, 0..2, 0..2]), [(4, 12)]);
        assert_eq!(ranges([0..2, 1..2, 0..2]), [(2, 4), (6, 8)]);
        assert_eq!(ranges([1..2, 0..2, 1..2]), [(5, 6), (7, 8)]);
        assert_eq!(ranges([0..3, 1..1, 0..2]), []);
    }

    #[track_caller]
    fn check_refused(dimension: Dimension, message: &str) {
        assert_eq!(KeySpace::new(&[dimension], at("2024-01-01T00:00:00Z")).unwrap_err().to_string(), message);
    }

    #[test]
    fn dimensions_without_sound_keys_are_refused() {
        let month = TimeUnit::Month;
        check_refused(time("m", month, "2012", None), "`2012` is not a month; write it like `2024-01`");
        check_refused(
            time("m", month, "2012-02", Some("2012-01")),
            "the last key `2012-01` is before the first, `2012-02`",
        );
        check_refused(list("l", &[]), "a list of keys needs at least one");
        check_refused(list("l", &["a", "b", "a"]), "the key `a` is listed twice");
        check_refused(
            time("h", TimeUnit::Hour, "1900-01-01T00", Some("2900-01-01T00")),
            "8765833 partitions are more than the 1000000 that an asset may have",
        );
        check_refused(
            Dimension { name: "d".into(), keys: DimensionKeys::Dynamic },
            "dynamic keys are not supported yet",
        );
    }
}
