//! Asking a component what its assets are: guest code that runs at deploy, without grants and under small limits.
//!
//! Every list and string is measured here before anything is made of it; whether what it says makes sense is judged
//! by the pipeline's validation.

use std::{collections::BTreeSet, time::Instant};

use tokio_util::sync::CancellationToken;

use super::{
    Component, Engine,
    linker::Granted,
    parameters::{self, AssetParameters},
    sandbox::{self, Ingredients, State, caught},
    verdict::{Circumstances, Ended, Verdict, judge},
};
use crate::{
    bindings::{
        Everything,
        exports::flowstone::asset::definitions as wit,
        flowstone::asset::types::{Coordinate as WitCoordinate, Field as WitField},
    },
    blob::BlobStore,
    capability::{
        Interrupt, Reach,
        context::Context,
        log::{Lines, Log},
    },
    limit::{
        ASSETS_PER_COMPONENT_MAX, DESCRIBE_FUEL, DESCRIBE_LOG_BYTES, DESCRIBE_MEMORY_BYTES, DESCRIBE_TIMEOUT,
        DESCRIPTION_BYTES_MAX, DIMENSIONS_PER_ASSET_MAX, FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX,
        INPUTS_PER_ASSET_MAX, MEDIA_TYPE_BYTES_MAX, NAME_BYTES_MAX, PARAMETERS_PER_ASSET_MAX, PARTITION_KEY_BYTES_MAX,
        REASON_BYTES_MAX, REQUIREMENTS_PER_ASSET_MAX, STATIC_KEYS_MAX, TAGS_PER_ASSET_MAX,
    },
    pipeline::{
        asset::{
            AssetDefinition, AssetKind, Capability, Dimension, DimensionKeys, Field, Input, Mapping, Requirement,
            TimeKeys, TimeUnit,
        },
        partition::{Coordinate, Partition},
        policy::Limits,
    },
};

/// Why a component has no description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeFailure {
    /// `describe` did not return: it trapped, or met one of its limits.
    #[error("`describe` did not return: {explanation}")]
    Ended {
        /// How it ended.
        verdict: Verdict,
        /// One sentence.
        explanation: String,
        /// What it said before.
        log: Lines,
    },
    /// What it returned is out of bounds. All of it, in the order in which it was met.
    #[error("what `describe` returned is out of bounds: {}", .0.join("; "))]
    OutOfBounds(Vec<String>),
    /// Our own trouble.
    #[error("cannot run `describe`: {0}")]
    Host(String),
}

/// Runs `describe` and measures what it returns.
pub(super) async fn describe(
    engine: &Engine,
    component: &Component,
    blobs: BlobStore,
) -> Result<Vec<AssetDefinition>, DescribeFailure> {
    let limits = Limits {
        fuel: DESCRIBE_FUEL,
        memory_bytes: DESCRIBE_MEMORY_BYTES,
        timeout_ms: DESCRIBE_TIMEOUT.as_millis() as u64,
        output_bytes: 0,
        log_bytes: DESCRIBE_LOG_BYTES,
    };
    let interrupt = Interrupt::new(Instant::now() + DESCRIBE_TIMEOUT, CancellationToken::new());
    let state = State::new(Ingredients {
        context: Context { config: "{}".into(), ..Context::default() },
        inputs: vec![],
        reach: Reach::default(),
        limits: &limits,
        media_type: String::new(),
        log: Log::default(),
        seed: [0; 32],
        tenant: String::new(),
        blobs,
        interrupt: interrupt.clone(),
    });
    let state = state.map_err(DescribeFailure::Host)?;
    let host = |error: wasmtime::Error| DescribeFailure::Host(format!("{error:#}"));
    let mut store = sandbox::store(engine.running(), state).map_err(host)?;
    let mut is_started = false;
    let called = caught(async {
        let guest = component.linked(engine.linkers(), Granted::default()).map_err(Ended::Errored)?;
        let started = sandbox::start(&mut store, guest, &interrupt).await.ok_or(Ended::Late)?;
        let instance = started.map_err(Ended::Errored)?;
        let exports = Everything::new(&mut store, &instance).map_err(Ended::Errored)?;
        store.set_fuel(limits.fuel).map_err(Ended::Errored)?;
        is_started = true;
        let calls = async {
            let assets = exports.flowstone_asset_definitions().call_describe(&mut store).await?;
            Ok((assets, parameters::describe(&mut store, &instance).await?))
        };
        let called = tokio::time::timeout_at(interrupt.deadline().into(), calls).await;
        called.map_err(|_| Ended::Late)?.map_err(Ended::Errored)
    });
    let ended = match called.await {
        Ok(Ok((assets, parameters))) => return bounded(assets, parameters),
        Ok(Err(ended)) => ended,
        Err(panic) => Ended::Panicked(panic),
    };
    let state = store.into_data();
    let circumstances = Circumstances {
        limits: &limits,
        is_cancelled: false,
        // An output written by `describe` goes nowhere, and is no reason to refuse it.
        is_output_too_large: false,
        exhausted: state.limiter.exhausted(),
        is_started,
        masks: &state.masks,
    };
    match judge(ended, &circumstances) {
        (Verdict::HostFault(why), _) => Err(DescribeFailure::Host(why)),
        (verdict, explanation) => Err(DescribeFailure::Ended { verdict, explanation, log: state.log.take() }),
    }
}

/// How many problems are reported: more would be noise.
const PROBLEMS_MAX: usize = 20;

/// Measures a description and makes it ours.
fn bounded(assets: Vec<wit::Asset>, parameters: Vec<AssetParameters>) -> Result<Vec<AssetDefinition>, DescribeFailure> {
    let mut bounds = Bounds::default();
    if !bounds.list("the component", "assets", assets.len(), ASSETS_PER_COMPONENT_MAX) {
        return Err(DescribeFailure::OutOfBounds(bounds.problems));
    }
    for (number, asset) in assets.iter().enumerate() {
        bounds.asset(number, asset);
        if bounds.problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if bounds.list("the component", "lists of parameters", parameters.len(), assets.len()) {
        parameters.iter().for_each(|parameters| bounds.parameters(parameters));
    }
    if !bounds.problems.is_empty() {
        return Err(DescribeFailure::OutOfBounds(bounds.problems));
    }
    let mut definitions: Vec<AssetDefinition> = assets.into_iter().map(asset_definition).collect();
    parameters::assign(parameters, &mut definitions).map_err(DescribeFailure::OutOfBounds)?;
    Ok(definitions)
}

/// Collects what is too long.
#[derive(Default)]
struct Bounds {
    problems: Vec<String>,
}

impl Bounds {
    fn list(&mut self, of: &str, what: &str, length: usize, most: usize) -> bool {
        if length > most {
            self.problems.push(format!("{of} has {length} {what}, more than {most}"));
        }
        length <= most
    }

    fn text(&mut self, of: &str, what: &str, text: &str, most: usize) {
        if text.len() > most {
            self.problems.push(format!("{what} of {of} has {} bytes, more than {most}", text.len()));
        }
    }

    fn asset(&mut self, number: usize, asset: &wit::Asset) {
        let of = &if asset.name.len() <= NAME_BYTES_MAX {
            format!("asset {:?}", asset.name)
        } else {
            format!("asset number {}", number + 1)
        };
        self.text(of, "the name", &asset.name, NAME_BYTES_MAX);
        self.text(of, "the description", &asset.description, DESCRIPTION_BYTES_MAX);
        self.text(of, "the media type", &asset.media_type, MEDIA_TYPE_BYTES_MAX);
        if self.list(of, "inputs", asset.inputs.len(), INPUTS_PER_ASSET_MAX) {
            asset.inputs.iter().for_each(|input| self.input(of, input));
        }
        if self.list(of, "dimensions", asset.dimensions.len(), DIMENSIONS_PER_ASSET_MAX) {
            asset.dimensions.iter().for_each(|dimension| self.dimension(of, dimension));
        }
        if self.list(of, "requirements", asset.requirements.len(), REQUIREMENTS_PER_ASSET_MAX) {
            for requirement in &asset.requirements {
                self.text(of, "a requirement's resource", &requirement.resource_name, NAME_BYTES_MAX);
                self.text(of, "a requirement's reason", &requirement.reason, REASON_BYTES_MAX);
            }
        }
        if self.list(of, "tags", asset.tags.len(), TAGS_PER_ASSET_MAX) {
            let names: BTreeSet<&str> = asset.tags.iter().map(|tag| tag.name.as_str()).collect();
            self.list(of, "tags that repeat", asset.tags.len() - names.len(), 0);
            for tag in &asset.tags {
                self.text(of, "a tag's name", &tag.name, FIELD_NAME_BYTES_MAX);
                self.text(of, "a tag's value", &tag.value, FIELD_VALUE_BYTES_MAX);
            }
        }
        // None is accepted yet; a bound lets the validation say so without a list without end.
        if self.list(of, "checks", asset.checks.len(), TAGS_PER_ASSET_MAX) {
            asset.checks.iter().for_each(|check| self.text(of, "a check's name", check, NAME_BYTES_MAX));
        }
    }

    fn parameters(&mut self, of_asset: &AssetParameters) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let of = "the parameters of an asset";
        self.text(of, "the name", &of_asset.asset, NAME_BYTES_MAX);
        if self.list(of, "entries", of_asset.parameters.len(), PARAMETERS_PER_ASSET_MAX) {
            for parameter in &of_asset.parameters {
                self.text(of, "a name", &parameter.name, NAME_BYTES_MAX);
                self.text(of, "a description", &parameter.description, REASON_BYTES_MAX);
                self.text(of, "a default", parameter.default.as_deref().unwrap_or(""), FIELD_VALUE_BYTES_MAX);
            }
        }
    }

    fn input(&mut self, of: &str, input: &wit::Input) {
        self.text(of, "an input's name", &input.name, NAME_BYTES_MAX);
        self.text(of, "an input's asset", &input.asset, NAME_BYTES_MAX);
        let wit::Mapping::Fixed(partitions) = &input.mapping else { return };
        if !self.list(of, "fixed partitions of an input", partitions.len(), STATIC_KEYS_MAX) {
            return;
        }
        for partition in partitions {
            if self.list(of, "coordinates in a fixed partition", partition.len(), DIMENSIONS_PER_ASSET_MAX) {
                for at in partition {
                    self.text(of, "a fixed partition's dimension", &at.dimension, NAME_BYTES_MAX);
                    self.text(of, "a fixed partition's key", &at.key, PARTITION_KEY_BYTES_MAX);
                }
            }
        }
    }

    fn dimension(&mut self, of: &str, dimension: &wit::Dimension) {
        self.text(of, "a dimension's name", &dimension.name, NAME_BYTES_MAX);
        match &dimension.keys {
            wit::DimensionKeys::Time(keys) => {
                self.text(of, "a dimension's first key", &keys.from, PARTITION_KEY_BYTES_MAX);
                self.text(of, "a dimension's last key", keys.to.as_deref().unwrap_or(""), PARTITION_KEY_BYTES_MAX);
                self.text(of, "a dimension's time zone", &keys.time_zone, NAME_BYTES_MAX);
            }
            wit::DimensionKeys::Static(keys) => {
                if self.list(of, "keys in a dimension", keys.len(), STATIC_KEYS_MAX) {
                    keys.iter().for_each(|key| self.text(of, "a dimension's key", key, PARTITION_KEY_BYTES_MAX));
                }
            }
            wit::DimensionKeys::Dynamic => {}
        }
    }
}

fn asset_definition(asset: wit::Asset) -> AssetDefinition {
    AssetDefinition {
        name: asset.name,
        description: asset.description,
        kind: match asset.kind {
            wit::Kind::Plain => AssetKind::Plain,
            wit::Kind::Scatter => AssetKind::Scatter,
            wit::Kind::Router => AssetKind::Router,
        },
        inputs: asset.inputs.into_iter().map(input).collect(),
        dimensions: asset.dimensions.into_iter().map(dimension).collect(),
        requirements: asset.requirements.into_iter().map(requirement).collect(),
        media_type: asset.media_type,
        checks: asset.checks,
        tags: asset.tags.into_iter().map(|WitField { name, value }| Field { name, value }).collect(),
        // The component says them by an export of its own.
        parameters: vec![],
    }
}

fn input(input: wit::Input) -> Input {
    let mapping = match input.mapping {
        wit::Mapping::Same => Mapping::Same,
        wit::Mapping::All => Mapping::All,
        wit::Mapping::Window(wit::TimeWindow { from, to }) => Mapping::Window { from, to },
        wit::Mapping::Within => Mapping::Within,
        wit::Mapping::Fixed(partitions) => Mapping::Fixed(partitions.into_iter().map(partition).collect()),
    };
    Input { name: input.name, asset: input.asset, optional: input.optional, mapping }
}

fn partition(partition: Vec<WitCoordinate>) -> Partition {
    partition.into_iter().map(|WitCoordinate { dimension, key }| Coordinate { dimension, key }).collect()
}

fn dimension(dimension: wit::Dimension) -> Dimension {
    let keys = match dimension.keys {
        wit::DimensionKeys::Time(keys) => DimensionKeys::Time(TimeKeys {
            unit: match keys.unit {
                wit::TimeUnit::Hour => TimeUnit::Hour,
                wit::TimeUnit::Day => TimeUnit::Day,
                wit::TimeUnit::Week => TimeUnit::Week,
                wit::TimeUnit::Month => TimeUnit::Month,
                wit::TimeUnit::Year => TimeUnit::Year,
            },
            from: keys.from,
            to: keys.to,
            time_zone: keys.time_zone,
        }),
        wit::DimensionKeys::Static(keys) => DimensionKeys::Static(keys),
        wit::DimensionKeys::Dynamic => DimensionKeys::Dynamic,
    };
    Dimension { name: dimension.name, keys }
}

fn requirement(requirement: wit::Requirement) -> Requirement {
    let capability = match requirement.capability {
        wit::Capability::Files => Capability::Files,
        wit::Capability::Http => Capability::Http,
        wit::Capability::KeyValue => Capability::KeyValue,
        wit::Capability::Sql => Capability::Sql,
        wit::Capability::Secret => Capability::Secret,
        wit::Capability::Clock => Capability::Clock,
        wit::Capability::Random => Capability::Random,
    };
    Requirement { resource_name: requirement.resource_name, capability, reason: requirement.reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(name: &str) -> wit::Asset {
        wit::Asset {
            name: name.into(),
            description: "What it is".into(),
            kind: wit::Kind::Plain,
            inputs: vec![wit::Input {
                name: "days".into(),
                asset: "daily".into(),
                optional: true,
                mapping: wit::Mapping::Window(wit::TimeWindow { from: -6, to: 0 }),
            }],
            dimensions: vec![wit::Dimension {
                name: "day".into(),
                keys: wit::DimensionKeys::Time(wit::TimeKeys {
                    unit: wit::TimeUnit::Day,
                    from: "2024-01-01".into(),
                    to: None,
                    time_zone: "UTC".into(),
                }),
            }],
            requirements: vec![wit::Requirement {
                resource_name: "station".into(),
                capability: wit::Capability::Files,
                reason: "To read it".into(),
            }],
            media_type: "text/csv".into(),
            checks: vec![],
            tags: vec![WitField { name: "team".into(), value: "weather".into() }],
        }
    }

    #[test]
    fn a_description_becomes_ours_field_by_field() {
        let ours = bounded(vec![asset("weekly")], vec![]).unwrap().remove(0);
        assert_eq!(
            (ours.name.as_str(), ours.description.as_str(), ours.kind),
            ("weekly", "What it is", AssetKind::Plain)
        );
        let input = &ours.inputs[0];
        assert_eq!((input.name.as_str(), input.asset.as_str(), input.optional), ("days", "daily", true));
        assert_eq!(input.mapping, Mapping::Window { from: -6, to: 0 });
        let DimensionKeys::Time(keys) = &ours.dimensions[0].keys else { panic!() };
        assert_eq!((keys.unit, keys.from.as_str(), &keys.to), (TimeUnit::Day, "2024-01-01", &None));
        assert_eq!(ours.requirements[0].capability, Capability::Files);
        assert_eq!(ours.tags, [Field { name: "team".into(), value: "weather".into() }]);
    }

    #[test]
    fn every_list_and_string_has_a_bound() {
        let check = |change: fn(&mut wit::Asset), expected: &str| {
            let mut asset = asset("a");
            change(&mut asset);
            let Err(DescribeFailure::OutOfBounds(problems)) = bounded(vec![asset], vec![]) else {
                panic!("{expected}")
            };
            assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
        };
        let long = |length: usize| "x".repeat(length + 1);
        check(|a| a.name = "x".repeat(1 << 20), "the name of asset number 1 has 1048576 bytes, more than 64");
        check(|a| a.description = "x".repeat(DESCRIPTION_BYTES_MAX + 1), "the description");
        check(|a| a.media_type = "x".repeat(MEDIA_TYPE_BYTES_MAX + 1), "the media type");
        check(|a| a.inputs = vec![a.inputs[0].clone(); INPUTS_PER_ASSET_MAX + 1], "65 inputs");
        check(|a| a.inputs[0].name = "x".repeat(NAME_BYTES_MAX + 1), "an input's name");
        check(|a| a.inputs[0].asset = "x".repeat(NAME_BYTES_MAX + 1), "an input's asset");
        check(|a| a.inputs[0].mapping = wit::Mapping::Fixed(vec![vec![]; STATIC_KEYS_MAX + 1]), "fixed partitions");
        check(
            |a| {
                let at = WitCoordinate { dimension: "d".into(), key: "x".repeat(PARTITION_KEY_BYTES_MAX + 1) };
                a.inputs[0].mapping = wit::Mapping::Fixed(vec![vec![at]]);
            },
            "a fixed partition's key",
        );
        check(|a| a.dimensions = vec![a.dimensions[0].clone(); DIMENSIONS_PER_ASSET_MAX + 1], "5 dimensions");
        check(|a| a.dimensions[0].name = "x".repeat(NAME_BYTES_MAX + 1), "a dimension's name");
        check(
            |a| a.dimensions[0].keys = wit::DimensionKeys::Static(vec![String::new(); STATIC_KEYS_MAX + 1]),
            "keys in a dimension",
        );
        check(|a| a.requirements = vec![a.requirements[0].clone(); REQUIREMENTS_PER_ASSET_MAX + 1], "33 requirements");
        check(|a| a.requirements[0].reason = "x".repeat(REASON_BYTES_MAX + 1), "a requirement's reason");
        check(|a| a.tags[0].value = "x".repeat(FIELD_VALUE_BYTES_MAX + 1), "a tag's value");
        check(|a| a.tags.push(a.tags[0].clone()), "1 tags that repeat");
        check(|a| a.checks = vec![String::new(); TAGS_PER_ASSET_MAX + 1], "checks");
        assert_eq!(long(1).len(), 2);
    }

    #[test]
    fn ten_thousand_assets_are_refused_at_once() {
        let Err(DescribeFailure::OutOfBounds(problems)) = bounded(vec![asset("a"); 10_000], vec![]) else { panic!() };
        assert_eq!(problems, ["the component has 10000 assets, more than 1024"]);
    }

    #[test]
    fn a_flood_of_problems_is_cut() {
        let mut bad = asset("a");
        bad.description = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
        let Err(DescribeFailure::OutOfBounds(problems)) = bounded(vec![bad; 1_000], vec![]) else { panic!() };
        assert_eq!(problems.len(), PROBLEMS_MAX);
    }
}
