//! Which partitions of an input a partition of its consumer reads.
//!
//! The rules, beyond those of `definitions.wit`:
//! - The time dimension of the one side corresponds to the time dimension of the other, whatever their names, as long as
//!   each has exactly one; otherwise time dimensions correspond by name.
//! - A time mapping (`same`, `window`, `within`) works on the time dimension. Every other dimension of the producer must be one of the
//!   consumer's, by name, and the same key is read. What the consumer has beyond that does not matter to the producer.
//! - `same` needs its partition: that a producer does not have it is an error for a required input. A window, and
//!   the intervals within one, are what there is of them.

use std::ops::Range;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    asset::{Dimension, DimensionKeys, Mapping, TimeKeys, TimeUnit},
    calendar,
    keyspace::{Axis, KeySpace, KeySpaceError},
    partition::{Partition, PartitionKey},
};

/// Why a mapping does not fit its two assets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// `window` or `within` without one time dimension on each side.
    #[error("`{mapping}` needs exactly one time dimension in the asset and in its input")]
    NoTime {
        /// The mapping's name.
        mapping: &'static str,
    },
    /// The producer is divided more finely than the mapping says how to follow.
    #[error("the input has the dimension `{0}`, which the asset lacks; map with `all` or `fixed`")]
    Lacking(String),
    /// A name that is time on one side and a list on the other.
    #[error("the dimension `{0}` is time in one of the two assets and a list in the other")]
    Kind(String),
    /// `same` to a shorter unit, or `within` to a longer one.
    #[error("`{mapping}` cannot lead from a {consumer} to a {producer}; {fix}", consumer = .consumer.name(), producer = .producer.name())]
    Unit {
        /// The mapping's name.
        mapping: &'static str,
        /// The consumer's unit.
        consumer: TimeUnit,
        /// The producer's unit.
        producer: TimeUnit,
        /// The mapping that can.
        fix: &'static str,
    },
    /// Civil intervals of two zones.
    #[error("the asset counts its intervals in {consumer} and the input in {producer}; use one time zone")]
    Zone {
        /// The consumer's.
        consumer: String,
        /// The producer's.
        producer: String,
    },
    /// A window that ends before it begins.
    #[error("the window ends ({to}) before it begins ({from})")]
    Window {
        /// As given.
        from: i32,
        /// As given.
        to: i32,
    },
    /// A fixed list that is empty.
    #[error("a fixed mapping needs at least one partition")]
    NothingFixed,
    /// A fixed partition that is not the producer's.
    #[error("the input has no partition `{0}`")]
    Fixed(String),
    /// A required partition that the producer never has.
    #[error("the asset has the partition `{consumer}`, for which the input has none")]
    Uncovered {
        /// The consumer's key.
        consumer: String,
    },
    /// One of the assets has no sound keys.
    #[error("the dimensions have no keys")]
    Keys(#[from] KeySpaceError),
}

/// A mapping worked out for two key spaces: what to read is then a look-up.
#[derive(Clone, Debug)]
pub struct Projection(Rule);

#[derive(Clone, Debug)]
enum Rule {
    /// For each of the producer's axes, what the consumer's key on it leads to.
    Product(Vec<AxisRule>),
    /// Always these, and whether one of them is not there yet.
    Fixed { indexes: Vec<u32>, missing: bool },
}

#[derive(Clone, Debug)]
enum AxisRule {
    All,
    /// By the consumer's index on its axis: a range of the producer's indexes.
    Follow {
        consumer_axis: usize,
        ranges: Vec<Range<u32>>,
        required: bool,
    },
}

/// The producer does not have the partition that `same` or `fixed` leads to, or does not have it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the input does not have that partition")]
pub struct NoSuchPartition;

impl Mapping {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::All => "all",
            Self::Window { .. } => "window",
            Self::Within => "within",
            Self::Fixed(_) => "fixed",
        }
    }
}

impl Projection {
    /// Works out a mapping that [`check_mapping`] has accepted.
    pub fn new(mapping: &Mapping, consumer: &KeySpace, producer: &KeySpace) -> Self {
        Self(match mapping {
            Mapping::Fixed(partitions) => {
                let found: Vec<Option<u32>> = partitions.iter().map(|p| producer.find(p)).collect();
                let mut indexes: Vec<u32> = found.iter().copied().flatten().collect();
                indexes.sort_unstable();
                indexes.dedup();
                Rule::Fixed { indexes, missing: found.contains(&None) }
            }
            _ => Rule::Product(
                producer.axes().iter().map(|axis| AxisRule::new(mapping, consumer, producer, axis)).collect(),
            ),
        })
    }

    /// Visits what the consumer's partition at this index reads, as ranges of the producer's indexes in order.
    ///
    /// An error says that a partition is missing; nothing has been visited then.
    pub fn visit(
        &self,
        consumer: &KeySpace,
        index: u32,
        producer: &KeySpace,
        mut visit: impl FnMut(Range<u32>),
    ) -> Result<(), NoSuchPartition> {
        let rules = match &self.0 {
            Rule::Fixed { missing: true, .. } => return Err(NoSuchPartition),
            Rule::Fixed { indexes, .. } => {
                indexes.iter().for_each(|index| visit(*index..index + 1));
                return Ok(());
            }
            Rule::Product(rules) => rules,
        };
        let coordinates = consumer.coordinates(index);
        let mut ranges = Vec::with_capacity(rules.len());
        for (rule, axis) in rules.iter().zip(producer.axes()) {
            ranges.push(match rule {
                AxisRule::All => 0..axis.len(),
                AxisRule::Follow { consumer_axis, ranges, required } => {
                    let range = ranges[coordinates[*consumer_axis] as usize].clone();
                    if *required && range.is_empty() {
                        return Err(NoSuchPartition);
                    }
                    range
                }
            });
        }
        producer.visit_product(&ranges, &mut visit);
        Ok(())
    }
}

impl AxisRule {
    fn new(mapping: &Mapping, consumer: &KeySpace, producer: &KeySpace, axis: &Axis) -> Self {
        if *mapping == Mapping::All {
            return Self::All;
        }
        let matching = corresponding(
            consumer.axes().iter().map(|a| (&*a.name, a.time().is_some())),
            producer.axes().iter().map(|a| (&*a.name, a.time().is_some())),
            (&axis.name, axis.time().is_some()),
        );
        let consumer_axis = matching.expect("check_mapping has found the corresponding dimension");
        let other = &consumer.axes()[consumer_axis];
        let ranges = (0..other.len()).map(|i| producer_range(mapping, other, i, axis)).collect();
        let required = axis.time().is_none() || *mapping == Mapping::Same;
        Self::Follow { consumer_axis, ranges, required }
    }
}

/// Which indexes of the producer's axis one key of the consumer's axis leads to.
fn producer_range(mapping: &Mapping, consumer: &Axis, index: u32, producer: &Axis) -> Range<u32> {
    let (Some(from), Some(to)) = (consumer.time(), producer.time()) else {
        return producer.find(&consumer.key(index)).map_or(0..0, |i| i..i + 1);
    };
    let ordinal = from.first + i64::from(index);
    // Hours are zoneless; between an hour and a civil interval, the civil one's zone decides.
    let zone = if from.unit == TimeUnit::Hour { &to.zone } else { &from.zone };
    let here = || calendar::converted(from.unit, ordinal, to.unit, zone);
    let wanted = match mapping {
        Mapping::Window { from, to } => here() + i64::from(*from)..here() + i64::from(*to) + 1,
        Mapping::Within => calendar::parts(from.unit, ordinal, to.unit, zone),
        _ => here()..here() + 1,
    };
    let clip = |ordinal: i64| (ordinal - to.first).clamp(0, i64::from(producer.len())) as u32;
    clip(wanted.start)..clip(wanted.end).max(clip(wanted.start))
}

/// The index of the consumer's dimension that corresponds to one of the producer's, each given as (name, is time).
fn corresponding<'a>(
    consumer: impl Iterator<Item = (&'a str, bool)>,
    producer: impl Iterator<Item = (&'a str, bool)>,
    (name, is_time): (&str, bool),
) -> Option<usize> {
    let consumer: Vec<(&str, bool)> = consumer.collect();
    let times = |sides: &mut dyn Iterator<Item = (&'a str, bool)>| sides.filter(|(_, time)| *time).count();
    if is_time && times(&mut consumer.iter().copied()) == 1 && times(&mut { producer }) == 1 {
        return consumer.iter().position(|(_, time)| *time);
    }
    consumer.iter().position(|(other, time)| *other == name && *time == is_time)
}

/// Checks that a mapping fits the dimensions of its two assets, whatever time it is.
pub fn check_mapping(
    mapping: &Mapping,
    consumer: &[Dimension],
    producer: &[Dimension],
    required: bool,
) -> Result<(), MappingError> {
    match mapping {
        Mapping::All => return Ok(()),
        Mapping::Fixed(partitions) => return check_fixed(partitions, producer),
        Mapping::Window { from, to } if from > to => return Err(MappingError::Window { from: *from, to: *to }),
        Mapping::Window { .. } | Mapping::Within => {
            let times = |dimensions: &[Dimension]| dimensions.iter().filter(|d| is_time(d)).count();
            if times(consumer) != 1 || times(producer) != 1 {
                return Err(MappingError::NoTime { mapping: mapping.name() });
            }
        }
        Mapping::Same => {}
    }
    for dimension in producer {
        let found = corresponding(consumer.iter().map(side), producer.iter().map(side), side(dimension));
        let Some(found) = found else {
            return Err(match consumer.iter().any(|other| other.name == dimension.name) {
                true => MappingError::Kind(dimension.name.clone()),
                false => MappingError::Lacking(dimension.name.clone()),
            });
        };
        check_dimension(mapping, &consumer[found], dimension, required)?;
    }
    Ok(())
}

fn side(dimension: &Dimension) -> (&str, bool) {
    (&dimension.name, is_time(dimension))
}

fn is_time(dimension: &Dimension) -> bool {
    matches!(dimension.keys, DimensionKeys::Time(_))
}

fn check_dimension(
    mapping: &Mapping,
    consumer: &Dimension,
    producer: &Dimension,
    required: bool,
) -> Result<(), MappingError> {
    match (&consumer.keys, &producer.keys) {
        (DimensionKeys::Time(from), DimensionKeys::Time(to)) => {
            check_units(mapping, from, to)?;
            if *mapping == Mapping::Same && required { check_cover(from, to) } else { Ok(()) }
        }
        (DimensionKeys::Static(from), DimensionKeys::Static(to)) if required => {
            let known: std::collections::HashSet<&String> = to.iter().collect();
            match from.iter().find(|key| !known.contains(key)) {
                Some(key) => Err(MappingError::Uncovered { consumer: key.clone() }),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_units(mapping: &Mapping, from: &TimeKeys, to: &TimeKeys) -> Result<(), MappingError> {
    let refuse = |fix| Err(MappingError::Unit { mapping: mapping.name(), consumer: from.unit, producer: to.unit, fix });
    match mapping {
        Mapping::Same if to.unit < from.unit => return refuse("map with `within`"),
        Mapping::Same if !from.unit.nests_in(to.unit) => return refuse("a week may cross its end: map with `window`"),
        Mapping::Within if to.unit >= from.unit => return refuse("map with `same` or `window`"),
        _ => {}
    }
    let civil = from.unit != TimeUnit::Hour && to.unit != TimeUnit::Hour;
    if civil && from.time_zone != to.time_zone {
        return Err(MappingError::Zone { consumer: from.time_zone.clone(), producer: to.time_zone.clone() });
    }
    Ok(())
}

/// Checks that the producer's intervals begin no later and end no earlier than the consumer's.
fn check_cover(from: &TimeKeys, to: &TimeKeys) -> Result<(), MappingError> {
    let uncovered = |key: &str| Err(MappingError::Uncovered { consumer: key.to_owned() });
    let zone_of = if from.unit == TimeUnit::Hour { to } else { from };
    let zone: TimeZone =
        calendar::find_time_zone(&zone_of.time_zone).ok_or_else(|| KeySpaceError::Zone(zone_of.time_zone.clone()))?;
    let parse = |unit, key: &str| {
        calendar::parse_key(unit, key).ok_or_else(|| KeySpaceError::Key { key: key.to_owned(), unit })
    };
    let leads_to =
        |key: &str| Ok::<_, KeySpaceError>(calendar::converted(from.unit, parse(from.unit, key)?, to.unit, &zone));
    if leads_to(&from.from)? < parse(to.unit, &to.from)? {
        return uncovered(&from.from);
    }
    match (&from.to, &to.to) {
        (Some(last), Some(bound)) if leads_to(last)? > parse(to.unit, bound)? => uncovered(last),
        (None, Some(bound)) => uncovered(&format!("{}, and every one after {bound}", from.unit.name())),
        _ => Ok(()),
    }
}

fn check_fixed(partitions: &[Partition], producer: &[Dimension]) -> Result<(), MappingError> {
    if partitions.is_empty() {
        return Err(MappingError::NothingFixed);
    }
    // Open time has no end: what lies ahead is waited for, what lies before the first key never comes.
    let space = KeySpace::new(producer, Timestamp::UNIX_EPOCH)?;
    for partition in partitions {
        let fits = partition.len() == producer.len()
            && space.axes().iter().zip(partition).all(|(axis, coordinate)| {
                let ahead = |time: &super::keyspace::TimeAxis| {
                    time.grows && calendar::parse_key(time.unit, &coordinate.key).is_some_and(|n| n >= time.first)
                };
                axis.name == coordinate.dimension
                    && (axis.find(&coordinate.key).is_some() || axis.time().is_some_and(ahead))
            });
        if !fits {
            let keys: Vec<&str> = partition.iter().map(|c| &*c.key).collect();
            return Err(MappingError::Fixed(super::diagnostic::shown(&keys.join(","))));
        }
    }
    Ok(())
}

/// The partitions of the producer that one partition of the consumer reads at this moment, in partition order.
///
/// For one partition at a time, as when a job is explained; a plan keeps its [`Projection`]s.
pub fn producer_partitions(
    mapping: &Mapping,
    consumer: &[Dimension],
    partition: &Partition,
    producer: &[Dimension],
    now: Timestamp,
) -> Result<Result<Vec<PartitionKey>, NoSuchPartition>, MappingError> {
    check_mapping(mapping, consumer, producer, false)?;
    let (from, to) = (KeySpace::new(consumer, now)?, KeySpace::new(producer, now)?);
    let Some(index) = from.find(partition) else { return Ok(Err(NoSuchPartition)) };
    let mut keys = Vec::new();
    let visited =
        Projection::new(mapping, &from, &to).visit(&from, index, &to, |range| keys.extend(range.map(|i| to.key(i))));
    Ok(visited.map(|()| keys))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            keyspace::tests::{at, list, time},
            partition::Coordinate,
        },
        *,
    };

    /// What the consumer's partition (its keys, in order) reads at the start of 2016, as people write it.
    #[track_caller]
    fn check(mapping: Mapping, consumer: &[Dimension], keys: &[&str], producer: &[Dimension], expected: &[&str]) {
        assert_eq!(labels(&mapping, consumer, keys, producer).unwrap().unwrap(), expected);
    }

    fn labels(
        mapping: &Mapping,
        consumer: &[Dimension],
        keys: &[&str],
        producer: &[Dimension],
    ) -> Result<Result<Vec<String>, NoSuchPartition>, MappingError> {
        let coordinate = |(d, key): (&Dimension, &&str)| Coordinate { dimension: d.name.clone(), key: (*key).into() };
        let partition = consumer.iter().zip(keys).map(coordinate).collect();
        let keys = producer_partitions(mapping, consumer, &partition, producer, at("2016-01-01T00:00:00Z"))?;
        Ok(keys.map(|keys| keys.iter().map(PartitionKey::label).collect()))
    }

    fn years() -> [Dimension; 1] {
        [time("year", TimeUnit::Year, "2012", Some("2015"))]
    }

    fn months() -> [Dimension; 1] {
        [time("month", TimeUnit::Month, "2012-01", Some("2015-12"))]
    }

    fn days() -> [Dimension; 1] {
        [time("day", TimeUnit::Day, "2012-01-01", None)]
    }

    #[test]
    fn same_reads_the_same_key_or_the_longer_interval_that_holds_it() {
        check(Mapping::Same, &months(), &["2013-05"], &months(), &["2013-05"]);
        check(Mapping::Same, &months(), &["2013-05"], &years(), &["2013"]);
        check(Mapping::Same, &days(), &["2013-05-31"], &months(), &["2013-05"]);
        let hours = [time("hour", TimeUnit::Hour, "2013-01-01T00", Some("2013-12-31T23"))];
        check(Mapping::Same, &hours, &["2013-05-31T23"], &days(), &["2013-05-31"]);
    }

    #[test]
    fn same_reads_the_only_partition_of_an_unpartitioned_input() {
        check(Mapping::Same, &months(), &["2013-05"], &[], &[""]);
        check(Mapping::Same, &[], &[], &[], &[""]);
    }

    #[test]
    fn all_reads_everything() {
        check(Mapping::All, &[], &[], &years(), &["2012", "2013", "2014", "2015"]);
        check(Mapping::All, &months(), &["2013-05"], &years(), &["2012", "2013", "2014", "2015"]);
    }

    #[test]
    fn within_makes_a_year_from_its_twelve_months() {
        let expected: Vec<String> = (1..=12).map(|month| format!("2013-{month:02}")).collect();
        let expected: Vec<&str> = expected.iter().map(|text| &**text).collect();
        check(Mapping::Within, &years(), &["2013"], &months(), &expected);
    }

    #[test]
    fn a_window_reads_the_days_before_and_stops_at_the_first() {
        let before = Mapping::Window { from: -2, to: -1 };
        check(before.clone(), &days(), &["2013-03-01"], &days(), &["2013-02-27", "2013-02-28"]);
        check(before.clone(), &days(), &["2012-01-02"], &days(), &["2012-01-01"]);
        check(before.clone(), &days(), &["2012-01-01"], &days(), &[]);
        check(
            Mapping::Window { from: i32::MIN, to: i32::MAX },
            &years(),
            &["2013"],
            &years(),
            &["2012", "2013", "2014", "2015"],
        );
        // Counted in the producer's unit, from the interval in which the consumer's begins.
        check(before, &months(), &["2013-03"], &days(), &["2013-02-27", "2013-02-28"]);
        check(Mapping::Window { from: 0, to: 1 }, &days(), &["2013-12-31"], &years(), &["2013", "2014"]);
    }

    #[test]
    fn fixed_reads_the_same_whatever_the_partition() {
        let fixed = |key: &str| Mapping::Fixed(vec![vec![Coordinate { dimension: "year".into(), key: key.into() }]]);
        check(fixed("2014"), &months(), &["2013-05"], &years(), &["2014"]);
        let open = [time("year", TimeUnit::Year, "2012", None)];
        assert_eq!(labels(&fixed("2016"), &months(), &["2013-05"], &open), Ok(Err(NoSuchPartition)));
        assert_eq!(labels(&fixed("2011"), &months(), &["2013-05"], &open), Err(MappingError::Fixed("2011".into())));
        assert_eq!(labels(&Mapping::Fixed(vec![]), &[], &[], &[]), Err(MappingError::NothingFixed));
    }

    #[test]
    fn other_dimensions_follow_by_name() {
        let region = |keys: &[&str]| list("region", keys);
        let consumer = [region(&["eu", "us"]), time("year", TimeUnit::Year, "2012", Some("2015"))];
        let producer = [time("month", TimeUnit::Month, "2012-01", Some("2015-12")), region(&["us", "eu", "asia"])];
        let read = labels(&Mapping::Within, &consumer, &["eu", "2013"], &producer).unwrap().unwrap();
        assert_eq!((read.len(), &*read[0], &*read[11]), (12, "month=2013-01,region=eu", "month=2013-12,region=eu"));
        // A dimension that the producer lacks does not matter to it.
        check(Mapping::Same, &consumer, &["eu", "2013"], &years(), &["2013"]);
        check(Mapping::Same, &consumer, &["eu", "2013"], &[region(&["us", "eu"])], &["eu"]);
    }

    #[test]
    fn an_interval_that_has_not_ended_is_missing() {
        let now = [time("hour", TimeUnit::Hour, "2015-12-31T00", Some("2016-01-01T23"))];
        assert_eq!(labels(&Mapping::Same, &now, &["2016-01-01T05"], &days()), Ok(Err(NoSuchPartition)));
    }

    #[track_caller]
    fn check_refused(mapping: Mapping, consumer: &[Dimension], producer: &[Dimension], message: &str) {
        assert_eq!(check_mapping(&mapping, consumer, producer, true).unwrap_err().to_string(), message);
    }

    #[test]
    fn mappings_that_do_not_fit_are_refused() {
        let weeks = [time("week", TimeUnit::Week, "2013-W01", None)];
        let window = Mapping::Window { from: -1, to: 0 };
        check_refused(
            Mapping::Same,
            &years(),
            &months(),
            "`same` cannot lead from a year to a month; map with `within`",
        );
        check_refused(
            Mapping::Same,
            &weeks,
            &[time("month", TimeUnit::Month, "2012-01", None)],
            "`same` cannot lead from a week to a month; a week may cross its end: map with `window`",
        );
        check_refused(
            Mapping::Within,
            &months(),
            &years(),
            "`within` cannot lead from a month to a year; map with `same` or `window`",
        );
        check_refused(
            window.clone(),
            &[],
            &months(),
            "`window` needs exactly one time dimension in the asset and in its input",
        );
        check_refused(
            window,
            &months(),
            &[],
            "`window` needs exactly one time dimension in the asset and in its input",
        );
        check_refused(Mapping::Window { from: 1, to: 0 }, &days(), &days(), "the window ends (0) before it begins (1)");
        check_refused(
            Mapping::Same,
            &[],
            &[list("region", &["eu"])],
            "the input has the dimension `region`, which the asset lacks; map with `all` or `fixed`",
        );
        check_refused(
            Mapping::Same,
            &[list("k", &["a"])],
            &[time("k", TimeUnit::Year, "2012", None)],
            "the dimension `k` is time in one of the two assets and a list in the other",
        );
    }

    #[test]
    fn a_required_partition_that_never_comes_is_refused() {
        check_refused(
            Mapping::Same,
            &[time("year", TimeUnit::Year, "2011", Some("2015"))],
            &years(),
            "the asset has the partition `2011`, for which the input has none",
        );
        check_refused(
            Mapping::Same,
            &[time("month", TimeUnit::Month, "2012-01", Some("2016-01"))],
            &years(),
            "the asset has the partition `2016-01`, for which the input has none",
        );
        check_refused(
            Mapping::Same,
            &[list("k", &["a", "b"])],
            &[list("k", &["a"])],
            "the asset has the partition `b`, for which the input has none",
        );
        assert!(check_mapping(&Mapping::Same, &[list("k", &["a", "b"])], &[list("k", &["a"])], false).is_ok());
    }

    #[test]
    fn civil_intervals_of_two_zones_do_not_meet_but_hours_meet_any() {
        let mut berlin = days();
        let DimensionKeys::Time(keys) = &mut berlin[0].keys else { unreachable!("the dimension is time") };
        keys.time_zone = "Europe/Berlin".into();
        check_refused(
            Mapping::Same,
            &days(),
            &berlin,
            "the asset counts its intervals in UTC and the input in Europe/Berlin; use one time zone",
        );
        let hours = [time("hour", TimeUnit::Hour, "2013-01-01T00", Some("2013-12-31T23"))];
        check(Mapping::Same, &hours, &["2013-05-31T22"], &berlin, &["2013-06-01"]);
        let within = labels(&Mapping::Within, &berlin, &["2013-03-31"], &hours).unwrap().unwrap();
        assert_eq!(within.len(), 23);
    }
}
