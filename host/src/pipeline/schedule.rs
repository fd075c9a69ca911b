//! Schedules: which fires of a pattern run, which are missed, and which partitions a run covers.
//!
//! When a pattern fires is [`super::fire_times`]' business. No clock is read here: callers say what time it is.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    asset::{AssetDefinition, Dimension, DimensionKeys},
    calendar,
    diagnostic::{Diagnostic, did_you_mean},
    fire_times::FireTimes,
    keyspace::{Axis, KeySpace},
    manifest::Manifest,
    ranges::IndexRanges,
    selection::{SelectedAsset, SelectedPartitions, asset_not_found},
    validate::BoundAsset,
};
use crate::limit::MISFIRE_GRACE;

/// A schedule as a manifest declares it, resolved. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The pattern.
    pub cron: String,
    /// In whose wall-clock time the pattern is meant; an IANA name.
    pub time_zone: String,
    /// By name; none means all.
    pub assets: Vec<String>,
    /// Which partition of each asset a fire covers; absent when a run covers all that there are.
    pub partition: Option<FirePartition>,
    /// What becomes of fires that nobody was there for.
    pub misfire: Misfire,
}

/// The partition that goes with an instant. A partition's own time zone says when it begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirePartition {
    /// The last one that is complete.
    Previous,
    /// The one that contains the instant.
    Current,
}

/// What becomes of fires that nobody was there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misfire {
    /// None of them runs.
    Skip,
    /// The last of those that are due runs, for all of them.
    RunOnce,
    /// The last so many run, in order.
    CatchUp(u32),
}

/// What is to be done about a schedule that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The fire times that run, in order.
    pub run: Vec<Timestamp>,
    /// The first and the last of those that do not.
    pub missed: Option<(Timestamp, Timestamp)>,
    /// When the schedule is to be looked at again; none where the calendar ends.
    pub next: Option<Timestamp>,
}

/// Decides the fires from `undecided` to `now`, both included.
///
/// A fire is missed when a later one is due as well, or when it is due for longer than [`MISFIRE_GRACE`].
pub fn decide(times: &FireTimes, misfire: Misfire, undecided: Timestamp, now: Timestamp) -> Decision {
    let next = times.next_after(now);
    let is_in_time = |at: &Timestamp| now.duration_since(*at).unsigned_abs() <= MISFIRE_GRACE;
    let in_time = usize::from(times.newest_until(undecided, now, 1).last().is_some_and(is_in_time));
    let wanted = match misfire {
        Misfire::Skip => in_time,
        Misfire::RunOnce => 1,
        Misfire::CatchUp(missed) => in_time + missed as usize,
    };
    // One more than what runs: the last that does not.
    let mut run = times.newest_until(undecided, now, wanted + 1);
    let mut missed = None;
    if run.len() > wanted {
        let last = run.remove(0);
        let first = undecided.checked_sub(jiff::SignedDuration::from_secs(1)).ok();
        missed = Some((first.and_then(|before| times.next_after(before)).map_or(last, |first| first.min(last)), last));
    }
    Decision { run, missed, next }
}

/// Why a fire can cover nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FireError {
    /// The newest version of the pipeline has no such asset.
    #[error("{0}")]
    Asset(String),
    /// The pipeline's partitions do not reach there.
    #[error("no asset has the {which} partition of {fire_at}: {extent}")]
    Nowhere {
        /// "previous" or "current".
        which: &'static str,
        /// The instant.
        fire_at: Timestamp,
        /// What there is.
        extent: String,
    },
}

/// What a fire covers: of each asset that is partitioned by time the partition that goes with the instant, where there is
/// one, and the others as they are. The texts say the same to people.
pub fn select_partitions(
    assets: &[BoundAsset],
    spaces: &[Arc<KeySpace>],
    schedule: &Schedule,
    fire_at: Timestamp,
) -> Result<(Vec<SelectedAsset>, Vec<String>), FireError> {
    let named = |name: &String| {
        let found = assets.iter().position(|asset| asset.definition.name == *name);
        found.ok_or_else(|| FireError::Asset(asset_not_found(name, assets).to_string()))
    };
    let mut chosen: Vec<usize> = schedule.assets.iter().map(named).collect::<Result<_, _>>()?;
    if schedule.assets.is_empty() {
        chosen = (0..assets.len()).collect();
    }
    chosen.sort_unstable();
    let (mut selected, mut texts, mut extent) = (Vec::new(), Vec::new(), None);
    for asset in chosen {
        let space = &spaces[asset];
        let Some(which) = schedule.partition.filter(|_| space.axes().iter().any(|axis| axis.time().is_some())) else {
            selected.push(SelectedAsset { asset, partitions: SelectedPartitions::All });
            continue;
        };
        let ranges: Option<Vec<_>> = space.axes().iter().map(|axis| range_at(axis, which, fire_at)).collect();
        let Some(ranges) = ranges else {
            extent.get_or_insert_with(|| format!("of `{}`, {}", assets[asset].definition.name, space.extent()));
            continue;
        };
        let text: Vec<String> = space
            .axes()
            .iter()
            .zip(&ranges)
            .filter(|(axis, _)| axis.time().is_some())
            .map(|(axis, range)| format!("{}={}", axis.name, axis.key(range.start)))
            .collect();
        let text = text.join(",");
        if !texts.contains(&text) {
            texts.push(text);
        }
        let mut found = IndexRanges::default();
        space.visit_product(&ranges, &mut |range| found.push(range));
        found.normalize();
        selected.push(SelectedAsset { asset, partitions: SelectedPartitions::Only(found) });
    }
    match (schedule.partition, extent) {
        (Some(which), Some(extent)) if texts.is_empty() => {
            Err(FireError::Nowhere { which: which.word(), fire_at, extent })
        }
        _ => Ok((selected, texts)),
    }
}

impl FirePartition {
    /// As it stands in a manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Current => "current",
        }
    }
}

impl std::fmt::Display for Misfire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::RunOnce => f.write_str("run-once"),
            Self::CatchUp(most) => write!(f, "catch up {most}"),
        }
    }
}

/// The part of an axis that goes with an instant: one interval of time, or every key of a list.
fn range_at(axis: &Axis, which: FirePartition, fire_at: Timestamp) -> Option<std::ops::Range<u32>> {
    let Some(time) = axis.time() else { return Some(0..axis.len()) };
    let holding = calendar::holding(time.unit, fire_at, &time.zone);
    let ordinal = match which {
        FirePartition::Previous => holding - 1,
        FirePartition::Current => holding,
    };
    let index = u32::try_from(ordinal - time.first).ok().filter(|index| *index < axis.len())?;
    Some(index..index + 1)
}

/// What a manifest's schedules say that the components' assets do not bear out.
pub fn schedule_mistakes(definitions: &[&AssetDefinition], manifest: &Manifest) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    for (name, schedule) in &manifest.schedules {
        let mut refuse = |key: &str, message: String, fix: Option<String>| {
            let key = format!("schedules.{name}.{key}");
            let place = manifest.place(&key).or_else(|| manifest.place(&format!("schedules.{name}")));
            mistakes.push(Diagnostic { file: manifest.file.clone(), place, key, message, fix });
        };
        let names = || definitions.iter().map(|definition| &*definition.name);
        for unknown in schedule.assets.iter().filter(|asset| !names().any(|known| known == **asset)) {
            let fix = did_you_mean(unknown, names());
            refuse("assets", format!("no component describes an asset `{unknown}`"), fix);
        }
        let covered = definitions
            .iter()
            .filter(|definition| schedule.assets.is_empty() || schedule.assets.contains(&definition.name));
        let times = covered.flat_map(|definition| definition.dimensions.iter().filter_map(ends));
        let ends: Vec<bool> = times.collect();
        match schedule.partition {
            Some(_) if ends.is_empty() => {
                let message = "changes nothing: no asset of the schedule is partitioned by time".to_owned();
                refuse("partition", message, Some("remove it".to_owned()));
            }
            Some(FirePartition::Current) if ends.iter().all(|ends| !ends) => {
                let message = "can never be made: the partitions of these assets are there when their time has ended";
                refuse("partition", message.to_owned(), Some("write \"previous\"".to_owned()));
            }
            _ => {}
        }
    }
    mistakes
}

/// Of a dimension of time: whether it ends with a key, so that keys are there before their time.
fn ends(dimension: &Dimension) -> Option<bool> {
    match &dimension.keys {
        DimensionKeys::Time(time) => Some(time.to.is_some()),
        DimensionKeys::Static(_) | DimensionKeys::Dynamic => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            asset::TimeUnit,
            keyspace::tests::{at, list, time},
            manifest::parse_manifest,
            plan::{key_spaces, tests::bound},
        },
        *,
    };

    /// What of a daily schedule at 06:00, undecided since January 1st, is run now, what is missed, and what is next.
    #[track_caller]
    fn check(misfire: Misfire, now: &str, run: &[&str], missed: Option<(&str, &str)>, next: &str) {
        let times = FireTimes::new("0 6 * * *", "UTC").unwrap();
        let day = |text: &str| at(&format!("2024-01-{text}T06:00:00Z"));
        let decision = decide(&times, misfire, day("01"), at(&format!("2024-01-{now}Z")));
        let expected = Decision {
            run: run.iter().map(|text| day(text)).collect(),
            missed: missed.map(|(first, last)| (day(first), day(last))),
            next: Some(day(next)),
        };
        assert_eq!(decision, expected, "{misfire} on {now}");
    }

    #[test]
    fn each_policy_decides_what_becomes_of_missed_fires() {
        for policy in [Misfire::Skip, Misfire::RunOnce, Misfire::CatchUp(1)] {
            // In time.
            check(policy, "01T06:00:00", &["01"], None, "02");
            check(policy, "01T06:01:00", &["01"], None, "02");
            // Not due.
            check(policy, "01T05:59:59", &[], None, "01");
        }
        // Too late.
        check(Misfire::Skip, "01T06:01:01", &[], Some(("01", "01")), "02");
        check(Misfire::RunOnce, "01T06:01:01", &["01"], None, "02");
        check(Misfire::CatchUp(1), "01T06:01:01", &["01"], None, "02");
        // Three days too late.
        check(Misfire::Skip, "03T12:00:00", &[], Some(("01", "03")), "04");
        check(Misfire::RunOnce, "03T12:00:00", &["03"], Some(("01", "02")), "04");
        check(Misfire::CatchUp(1), "03T12:00:00", &["03"], Some(("01", "02")), "04");
        check(Misfire::CatchUp(2), "03T12:00:00", &["02", "03"], Some(("01", "01")), "04");
        check(Misfire::CatchUp(3), "03T12:00:00", &["01", "02", "03"], None, "04");
        check(Misfire::CatchUp(1_000), "03T12:00:00", &["01", "02", "03"], None, "04");
        // The last of them is in time, and counts as none that was missed.
        check(Misfire::Skip, "03T06:00:30", &["03"], Some(("01", "02")), "04");
        check(Misfire::RunOnce, "03T06:00:30", &["03"], Some(("01", "02")), "04");
        check(Misfire::CatchUp(1), "03T06:00:30", &["02", "03"], Some(("01", "01")), "04");
    }

    #[test]
    fn of_fires_that_are_due_together_only_the_last_is_in_time() {
        let times = FireTimes::new("* * * * * *", "UTC").unwrap();
        let second = |second: u32| at(&format!("2024-01-01T00:00:{second:02}Z"));
        let decided = |misfire| decide(&times, misfire, second(1), at("2024-01-01T00:00:03.4Z"));
        assert_eq!(
            (decided(Misfire::Skip).run, decided(Misfire::Skip).missed),
            (vec![second(3)], Some((second(1), second(2))))
        );
        assert_eq!(decided(Misfire::CatchUp(5)).run, [second(1), second(2), second(3)]);
        assert_eq!(decided(Misfire::CatchUp(5)).next, Some(second(4)));
    }

    fn weather() -> Vec<BoundAsset> {
        let mut assets =
            vec![bound("raw", &[]), bound("daily", &["raw"]), bound("monthly", &["daily"]), bound("old", &[])];
        let mut tokyo = time("day", TimeUnit::Day, "2024-01-01", None);
        let DimensionKeys::Time(keys) = &mut tokyo.keys else { panic!("it is time") };
        keys.time_zone = "Asia/Tokyo".to_owned();
        assets[1].definition.dimensions = vec![tokyo, list("region", &["eu", "us"])];
        assets[2].definition.dimensions = vec![time("month", TimeUnit::Month, "2023-01", Some("2030-12"))];
        assets[3].definition.dimensions = vec![time("year", TimeUnit::Year, "2012", Some("2015"))];
        assets
    }

    fn covered(names: &[&str], partition: Option<FirePartition>, fire_at: &str) -> Result<Vec<String>, String> {
        let assets = weather();
        let spaces = key_spaces(&assets, at("2024-03-01T12:00:00Z")).unwrap();
        let schedule = Schedule {
            cron: "@daily".to_owned(),
            time_zone: "UTC".to_owned(),
            assets: names.iter().map(|name| (*name).to_owned()).collect(),
            partition,
            misfire: Misfire::RunOnce,
        };
        let (selected, texts) =
            select_partitions(&assets, &spaces, &schedule, at(fire_at)).map_err(|e| e.to_string())?;
        let mut said: Vec<String> = selected
            .iter()
            .map(|selected| {
                let name = &assets[selected.asset].definition.name;
                let space = &spaces[selected.asset];
                match &selected.partitions {
                    SelectedPartitions::All => name.clone(),
                    SelectedPartitions::Only(ranges) | SelectedPartitions::Possible(ranges) => {
                        let keys: Vec<String> = ranges.iter().map(|index| space.key(index).label()).collect();
                        format!("{name}: {}", keys.join(" "))
                    }
                }
            })
            .collect();
        said.push(texts.join(" "));
        Ok(said)
    }

    #[test]
    fn a_fire_covers_the_last_complete_partition_in_the_partitions_own_zone() {
        let previous = Some(FirePartition::Previous);
        let expected = [
            "raw",
            "daily: day=2024-02-28,region=eu day=2024-02-28,region=us",
            "monthly: 2024-01",
            "day=2024-02-28 month=2024-01",
        ];
        assert_eq!(covered(&[], previous, "2024-02-29T14:59:59Z").unwrap(), expected);
        // In Tokyo the 29th is over.
        assert_eq!(covered(&["daily"], previous, "2024-02-29T15:00:00Z").unwrap()[1], "day=2024-02-29");
    }

    #[test]
    fn a_fire_covers_the_partition_that_contains_it_where_that_is_there() {
        let current = Some(FirePartition::Current);
        assert_eq!(
            covered(&["monthly", "raw"], current, "2024-03-01T00:00:00Z").unwrap(),
            ["raw", "monthly: 2024-03", "month=2024-03"]
        );
        // Of `daily` it will be there when the day has ended.
        assert_eq!(
            covered(&["daily"], current, "2024-03-01T12:00:00Z").unwrap_err(),
            "no asset has the current partition of 2024-03-01T12:00:00Z: of `daily`, day: its first is 2024-01-01, its last 2024-02-29; region: its first is eu, its last us"
        );
    }

    #[test]
    fn without_a_partition_a_fire_covers_all() {
        assert_eq!(covered(&[], None, "2024-03-01T00:00:00Z").unwrap(), ["raw", "daily", "monthly", "old", ""]);
        assert_eq!(covered(&["raw"], Some(FirePartition::Previous), "2024-03-01T00:00:00Z").unwrap(), ["raw", ""]);
        let unknown = covered(&["dayly"], None, "2024-03-01T00:00:00Z").unwrap_err();
        assert!(unknown.starts_with("there is no asset `dayly`; did you mean `daily`?"), "{unknown}");
        let old = covered(&["old"], Some(FirePartition::Previous), "2024-03-01T00:00:00Z").unwrap_err();
        assert!(old.contains("of `old`, its first is 2012, its last 2015"), "{old}");
    }

    /// What is said about schedules of the assets of [`weather`], below a manifest's head.
    #[track_caller]
    fn check_mistakes(lines: &str, expected: &[&str]) {
        let head = "[pipeline]\nname = \"weather\"\n[[components]]\npath = \"weather.wasm\"\n";
        let text = format!("{head}[schedules.nightly]\ncron = \"@daily\"\n{lines}");
        let manifest = parse_manifest("flowstone.toml", &text, &Default::default()).unwrap();
        let assets = weather();
        let definitions: Vec<&AssetDefinition> = assets.iter().map(|asset| &asset.definition).collect();
        let said: Vec<String> = schedule_mistakes(&definitions, &manifest).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn what_the_assets_do_not_bear_out_is_refused_with_its_place() {
        check_mistakes("partition = \"previous\"", &[]);
        check_mistakes("assets = [\"raw\"]", &[]);
        check_mistakes("assets = [\"monthly\", \"daily\"]\npartition = \"current\"", &[]);
        check_mistakes(
            "assets = [\"montly\"]",
            &[
                "flowstone.toml:7:1: schedules.nightly.assets: no component describes an asset `montly`; did you mean `monthly`?",
            ],
        );
        check_mistakes(
            "assets = [\"raw\"]\npartition = \"previous\"",
            &[
                "flowstone.toml:8:1: schedules.nightly.partition: changes nothing: no asset of the schedule is partitioned by time; \
               remove it",
            ],
        );
        check_mistakes(
            "assets = [\"daily\"]\npartition = \"current\"",
            &[
                "flowstone.toml:8:1: schedules.nightly.partition: can never be made: the partitions of these assets are there when \
               their time has ended; write \"previous\"",
            ],
        );
    }
}
