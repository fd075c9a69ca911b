//! Which assets and partitions a person asked for, from the text of a command or a request.
//!
//! A partition is written as its key (`2012-01`), as a range of time (`2012-01..2012-06`, either end may be left
//! out), or for several dimensions as `month=2012-01,region=eu`, where a dimension that is left out means all of its
//! keys. The canonical text, as FlowStone prints it, is understood too. What does not exist is answered with what
//! does.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use super::{
    diagnostic::{nearest, shown},
    keyspace::{Axis, KeySpace},
    partition::PartitionKey,
    ranges::IndexRanges,
    validate::BoundAsset,
};
use crate::limit::{DIAGNOSTICS_MAX, NAMES_SHOWN_MAX};

/// One asset of a request, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedAsset {
    /// Its place in the list of assets.
    pub asset: usize,
    /// Which of its partitions.
    pub partitions: SelectedPartitions,
}

/// Which partitions of an asset a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedPartitions {
    /// Every one that can be made now.
    All,
    /// These, by their indexes; that one of them cannot be made is an error.
    Only(IndexRanges),
    /// Those of these that can be made now.
    Possible(IndexRanges),
}

/// Why a selection cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// There is no asset of that name.
    #[error("there is no asset `{}`{suggestion}; the pipeline has {known}", shown(.name))]
    AssetNotFound {
        /// As it was asked for.
        name: String,
        /// "; did you mean ...", or nothing.
        suggestion: String,
        /// The names that exist, cut short.
        known: String,
    },
    /// The asset has no partitions at all.
    #[error("asset `{asset}` is not partitioned, so that it has no partition `{}`", shown(.partition))]
    Unpartitioned {
        /// The asset.
        asset: String,
        /// As it was asked for.
        partition: String,
    },
    /// The asset has partitions, but not that one.
    #[error("asset `{asset}` has no partition `{}`; {known}", shown(.partition))]
    PartitionNotFound {
        /// The asset.
        asset: String,
        /// As it was asked for.
        partition: String,
        /// The nearest key, or the first and the last.
        known: String,
    },
    /// Text that is no way to write a partition of the asset.
    #[error("`{}` does not say which partition of `{asset}`; {fix}", shown(.partition))]
    Form {
        /// The asset.
        asset: String,
        /// As it was asked for.
        partition: String,
        /// How to write it.
        fix: String,
    },
    /// None of the assets has partitions like that.
    #[error("no asset of the pipeline has a partition `{}`", shown(.0))]
    Nowhere(String),
}

/// Resolves names of assets and texts of partitions. No names mean every asset; no texts mean every partition.
///
/// With texts, a named asset that is partitioned must have one of them, and each text must be one of a selected
/// asset's; among all assets, those are selected that have one. `spaces` holds each asset's partitions, in the order
/// of `assets`.
pub fn resolve_selection(
    assets: &[BoundAsset],
    spaces: &[impl AsRef<KeySpace>],
    names: &[String],
    texts: &[String],
) -> Result<Vec<SelectedAsset>, Vec<SelectionError>> {
    let index: HashMap<&str, usize> =
        assets.iter().enumerate().map(|(i, asset)| (&*asset.definition.name, i)).collect();
    let (mut chosen, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match index.get(&**name) {
            Some(asset) => chosen.push(*asset),
            None => errors.push(asset_not_found(name, assets)),
        }
    }
    if names.is_empty() {
        chosen = (0..assets.len()).collect();
    }
    chosen.sort_unstable();
    chosen.dedup();
    if !errors.is_empty() {
        return Err(errors);
    }
    if texts.is_empty() {
        let all = |asset| SelectedAsset { asset, partitions: SelectedPartitions::All };
        return Ok(chosen.into_iter().map(all).collect());
    }
    select_partitions(assets, spaces, &chosen, texts, names.is_empty())
}

/// Resolves partitions that were planned before, by the name of their asset. What the pipeline no longer has is an error.
pub fn select_keys(
    assets: &[BoundAsset],
    spaces: &[impl AsRef<KeySpace>],
    keys: &BTreeMap<String, Vec<PartitionKey>>,
) -> Result<Vec<SelectedAsset>, Vec<SelectionError>> {
    let (mut selected, mut errors) = (Vec::new(), Vec::new());
    for (name, keys) in keys {
        let Some(asset) = assets.iter().position(|asset| asset.definition.name == *name) else {
            errors.push(asset_not_found(name, assets));
            continue;
        };
        let space = spaces[asset].as_ref();
        let mut found = IndexRanges::default();
        for key in keys {
            match space.find_key(key) {
                Some(index) => found.push(index..index + 1),
                None => errors.push(SelectionError::PartitionNotFound {
                    asset: name.clone(),
                    partition: key.label(),
                    known: known(&key.label(), space),
                }),
            }
        }
        found.normalize();
        selected.push(SelectedAsset { asset, partitions: SelectedPartitions::Only(found) });
    }
    errors.truncate(DIAGNOSTICS_MAX);
    if errors.is_empty() { Ok(selected) } else { Err(errors) }
}

fn select_partitions(
    assets: &[BoundAsset],
    spaces: &[impl AsRef<KeySpace>],
    chosen: &[usize],
    texts: &[String],
    everywhere: bool,
) -> Result<Vec<SelectedAsset>, Vec<SelectionError>> {
    let (mut selected, mut errors) = (Vec::new(), Vec::new());
    let mut used = vec![false; texts.len()];
    for &asset in chosen {
        let space = spaces[asset].as_ref();
        let (mut found, mut refused) = (IndexRanges::default(), Vec::new());
        for (text, used) in texts.iter().zip(&mut used) {
            match parse_selection(&assets[asset].definition.name, text, space) {
                Ok(ranges) => {
                    ranges.ranges().iter().for_each(|range| found.push(range.clone()));
                    *used = true;
                }
                Err(error) => refused.push(error),
            }
        }
        found.normalize();
        match () {
            () if !found.is_empty() => {
                selected.push(SelectedAsset { asset, partitions: SelectedPartitions::Only(found) })
            }
            // An unpartitioned asset beside partitioned ones runs as it is.
            () if !everywhere && space.axes().is_empty() && chosen.len() > 1 => {
                selected.push(SelectedAsset { asset, partitions: SelectedPartitions::All });
            }
            () if !everywhere => errors.extend(refused),
            () => {}
        }
    }
    if errors.is_empty() {
        let unused = texts.iter().zip(used).filter(|(_, used)| !used);
        errors.extend(unused.map(|(text, _)| {
            match chosen {
                [only] => parse_selection(&assets[*only].definition.name, text, spaces[*only].as_ref())
                    .err()
                    .unwrap_or_else(|| SelectionError::Nowhere(text.clone())),
                _ => SelectionError::Nowhere(text.clone()),
            }
        }));
    }
    if errors.is_empty() { Ok(selected) } else { Err(errors) }
}

/// The error for a name that no asset has.
pub fn asset_not_found(name: &str, assets: &[BoundAsset]) -> SelectionError {
    let names = || assets.iter().map(|asset| &*asset.definition.name);
    let suggestion = nearest(name, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    SelectionError::AssetNotFound { name: name.to_owned(), suggestion, known: listed(names()) }
}

/// Names for a message: the first few, and how many more there are.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN_MAX);
    names.truncate(NAMES_SHOWN_MAX);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// The partitions of one asset that a text means, at least one.
pub fn parse_selection(asset: &str, text: &str, space: &KeySpace) -> Result<IndexRanges, SelectionError> {
    let asset = || asset.to_owned();
    let partition = || text.to_owned();
    let axes = space.axes();
    if axes.is_empty() {
        return match text {
            "" | "none" => Ok(IndexRanges::from(0..1)),
            _ => Err(SelectionError::Unpartitioned { asset: asset(), partition: partition() }),
        };
    }
    // A bare key of the only dimension comes first: such a key may hold any character.
    let bare = if axes.len() == 1 { axis_range(&axes[0], text) } else { None };
    let ranges = match (bare, named_coordinates(text, axes)) {
        (Some(range), _) => Some(vec![range]),
        (None, Some(keys)) => {
            let range =
                |(axis, key): (&Axis, Option<&str>)| key.map_or(Some(0..axis.len()), |key| axis_range(axis, key));
            axes.iter().zip(keys).map(range).collect()
        }
        (None, None) => None,
    };
    let mut found = IndexRanges::default();
    match (ranges, text.parse().ok().and_then(|key| space.find_key(&key))) {
        (Some(ranges), _) => space.visit_product(&ranges, &mut |range| found.push(range)),
        (None, Some(index)) => found.push(index..index + 1),
        (None, None) => {}
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if axes.len() > 1 && named_coordinates(text, axes).is_none() {
        let names: Vec<String> = axes.iter().map(|axis| format!("{}=...", axis.name)).collect();
        let fix = format!("write {}", names.join(","));
        return Err(SelectionError::Form { asset: asset(), partition: partition(), fix });
    }
    Err(SelectionError::PartitionNotFound { asset: asset(), partition: partition(), known: known(text, space) })
}

/// The key for each axis in `name=key,name=key`; absent when the text is not of that form. A key may hold commas, as
/// long as no dimension's name and `=` follow.
fn named_coordinates<'t>(text: &'t str, axes: &[Axis]) -> Option<Vec<Option<&'t str>>> {
    let mut starts: Vec<(usize, usize, usize)> = Vec::new();
    for (number, axis) in axes.iter().enumerate() {
        let prefix = format!("{}=", axis.name);
        let places: Vec<usize> = text
            .match_indices(&prefix)
            .map(|(at, _)| at)
            .filter(|at| *at == 0 || text.as_bytes()[at - 1] == b',')
            .collect();
        match places[..] {
            [] => {}
            [at] => starts.push((at, at + prefix.len(), number)),
            _ => return None,
        }
    }
    starts.sort_unstable();
    if starts.first()?.0 != 0 {
        return None;
    }
    let mut keys = vec![None; axes.len()];
    for (i, (_, from, number)) in starts.iter().enumerate() {
        let to = starts.get(i + 1).map_or(text.len(), |(next, ..)| next - 1);
        keys[*number] = Some(text.get(*from..to)?);
    }
    Some(keys)
}

/// One key, or a range of time with both ends included; absent when the axis does not have it.
fn axis_range(axis: &Axis, text: &str) -> Option<Range<u32>> {
    if let Some(index) = axis.find(text) {
        return Some(index..index + 1);
    }
    axis.time()?;
    let (from, to) = text.split_once("..")?;
    let from = if from.is_empty() { 0 } else { axis.find(from)? };
    let to = if to.is_empty() { axis.len() } else { axis.find(to)? + 1 };
    (from < to).then_some(from..to)
}

/// What there is instead.
fn known(text: &str, space: &KeySpace) -> String {
    let [axis] = space.axes() else { return space.extent() };
    match nearest(text, axis.listed().iter().map(|key| &**key)) {
        Some(near) => format!("did you mean `{}`?", shown(near)),
        None if axis.listed().is_empty() => space.extent(),
        None => format!("it has {}", listed(axis.listed().iter().map(|key| &**key))),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            asset::{Dimension, TimeUnit},
            keyspace::tests::{at, list, time},
            plan::tests::bound,
        },
        *,
    };

    fn space(dimensions: &[Dimension]) -> KeySpace {
        KeySpace::new(dimensions, at("2016-01-01T00:00:00Z")).unwrap()
    }

    fn months() -> Dimension {
        time("month", TimeUnit::Month, "2012-01", Some("2015-12"))
    }

    #[track_caller]
    fn check(text: &str, dimensions: &[Dimension], expected: &[&str]) {
        let space = space(dimensions);
        let found = parse_selection("a", text, &space).unwrap();
        let labels: Vec<String> = found.iter().map(|index| space.key(index).label()).collect();
        assert_eq!(labels, expected);
    }

    #[track_caller]
    fn check_refused(text: &str, dimensions: &[Dimension], expected: &str) {
        assert_eq!(parse_selection("a", text, &space(dimensions)).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_key_a_range_and_the_canonical_text_are_understood() {
        check("2012-01", &[months()], &["2012-01"]);
        check("2012-01..2012-03", &[months()], &["2012-01", "2012-02", "2012-03"]);
        check("2015-11..", &[months()], &["2015-11", "2015-12"]);
        check("..2012-02", &[months()], &["2012-01", "2012-02"]);
        check("month=2012-01", &[months()], &["2012-01"]);
        check("month=month:2012-01", &[months()], &["2012-01"]);
        check("none", &[], &[""]);
    }

    #[test]
    fn several_dimensions_are_named_and_may_be_left_out() {
        let dimensions = [time("year", TimeUnit::Year, "2012", Some("2014")), list("region", &["eu", "us"])];
        check("year=2012,region=eu", &dimensions, &["year=2012,region=eu"]);
        check("region=eu,year=2012", &dimensions, &["year=2012,region=eu"]);
        check("region=us", &dimensions, &["year=2012,region=us", "year=2013,region=us", "year=2014,region=us"]);
        check("year=2013..,region=eu", &dimensions, &["year=2013,region=eu", "year=2014,region=eu"]);
        check("year=year:2012;region=static:us", &dimensions, &["year=2012,region=us"]);
        check_refused("2012", &dimensions, "`2012` does not say which partition of `a`; write year=...,region=...");
        check_refused(
            "year=2012,year=2013",
            &dimensions,
            "`year=2012,year=2013` does not say which partition of `a`; write year=...,region=...",
        );
        check_refused(
            "year=2011,region=eu",
            &dimensions,
            "asset `a` has no partition `year=2011,region=eu`; \
             year: its first is 2012, its last 2014; region: its first is eu, its last us",
        );
    }

    #[test]
    fn scenario_35_keys_of_any_characters_can_be_selected() {
        let keys = ["a,b=c", "x..y", "k=static:z", "value|with|pipes", "value:with:colons", "none", "é;%"];
        keys.iter().for_each(|key| check(key, &[list("k", &keys)], &[key]));
        let both = [list("k", &keys), list("l", &["m,n"])];
        check("k=a,b=c,l=m,n", &both, &["k=a,b=c,l=m,n"]);
    }

    #[test]
    fn a_partition_that_does_not_exist_is_answered_with_what_does() {
        check_refused(
            "2011-12",
            &[months()],
            "asset `a` has no partition `2011-12`; its first is 2012-01, its last 2015-12",
        );
        check_refused(
            "2012-13",
            &[months()],
            "asset `a` has no partition `2012-13`; its first is 2012-01, its last 2015-12",
        );
        check_refused(
            "2012-03..2012-01",
            &[months()],
            "asset `a` has no partition `2012-03..2012-01`; its first is 2012-01, its last 2015-12",
        );
        check_refused("", &[months()], "asset `a` has no partition ``; its first is 2012-01, its last 2015-12");
        check_refused(
            "erope",
            &[list("r", &["europe", "asia"])],
            "asset `a` has no partition `erope`; did you mean `europe`?",
        );
        check_refused(
            "x",
            &[list("r", &["europe", "asia"])],
            "asset `a` has no partition `x`; it has `europe`, `asia`",
        );
        check_refused("2012", &[], "asset `a` is not partitioned, so that it has no partition `2012`");
        check_refused(
            "2016",
            &[time("year", TimeUnit::Year, "2016", None)],
            "asset `a` has no partition `2016`; none has ended yet",
        );
    }

    fn weather() -> Vec<BoundAsset> {
        let mut assets = vec![bound("raw", &[]), bound("monthly", &["raw"]), bound("yearly", &["monthly"])];
        assets[1].definition.dimensions = vec![months()];
        assets[2].definition.dimensions = vec![time("year", TimeUnit::Year, "2012", Some("2015"))];
        assets
    }

    fn resolve(names: &[&str], texts: &[&str]) -> Result<Vec<(usize, Option<u32>)>, String> {
        let assets = weather();
        let spaces: Vec<Box<KeySpace>> =
            assets.iter().map(|asset| Box::new(space(&asset.definition.dimensions))).collect();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let selected = resolve_selection(&assets, &spaces, &owned(names), &owned(texts));
        let count = |partitions: &SelectedPartitions| match partitions {
            SelectedPartitions::All => None,
            SelectedPartitions::Only(ranges) | SelectedPartitions::Possible(ranges) => Some(ranges.len()),
        };
        let selected = selected.map(|selected| selected.iter().map(|s| (s.asset, count(&s.partitions))).collect());
        selected.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn nothing_named_is_everything() {
        assert_eq!(resolve(&[], &[]), Ok(vec![(0, None), (1, None), (2, None)]));
        assert_eq!(resolve(&["yearly", "raw", "raw"], &[]), Ok(vec![(0, None), (2, None)]));
    }

    #[test]
    fn texts_select_the_assets_that_have_them() {
        assert_eq!(resolve(&[], &["2013-05"]), Ok(vec![(1, Some(1))]));
        assert_eq!(resolve(&[], &["2013-05", "2013-05..2013-07", "2014"]), Ok(vec![(1, Some(3)), (2, Some(1))]));
        assert_eq!(resolve(&["raw", "yearly"], &["2013"]), Ok(vec![(0, None), (2, Some(1))]));
    }

    #[test]
    fn texts_that_select_nothing_are_refused() {
        assert_eq!(resolve(&[], &["2020"]).unwrap_err(), "no asset of the pipeline has a partition `2020`");
        assert_eq!(
            resolve(&["yearly"], &["2013", "2020"]).unwrap_err(),
            "asset `yearly` has no partition `2020`; its first is 2012, its last 2015"
        );
        assert_eq!(
            resolve(&["monthly", "yearly"], &["2013"]).unwrap_err(),
            "asset `monthly` has no partition `2013`; its first is 2012-01, its last 2015-12"
        );
        assert_eq!(
            resolve(&["raw"], &["2013"]).unwrap_err(),
            "asset `raw` is not partitioned, so that it has no partition `2013`"
        );
    }

    #[test]
    fn scenario_4_an_unknown_asset_is_answered_with_the_nearest_and_the_list() {
        assert_eq!(
            resolve(&["montly", "sales"], &[]).unwrap_err(),
            "there is no asset `montly`; did you mean `monthly`?; the pipeline has `raw`, `monthly`, `yearly`\n\
             there is no asset `sales`; the pipeline has `raw`, `monthly`, `yearly`"
        );
    }
}
