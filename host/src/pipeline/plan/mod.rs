//! What runs, and why: a pure function of the pipeline, the request, and the newest materializations.
//!
//! First, from the selection back to its inputs, which partitions are concerned; then, inputs first, whether each is
//! still what its recipe says. An input that will run makes its consumers jobs too; that it may come out the same,
//! and then nothing more has to be done, is found at run time, and so is an earlier result of the same recipe. Assets
//! and partitions are numbers here, because a hundred thousand of them must be planned while a person waits.

mod planner;
#[cfg(test)]
pub(super) mod tests;

use std::{collections::HashMap, fmt, sync::Arc};

use jiff::Timestamp;

use self::planner::Planner;
use super::{
    asset::Dimension,
    graph::{Graph, GraphError},
    keyspace::{KeySpace, KeySpaceError},
    mapping::MappingError,
    partition::PartitionKey,
    ranges::IndexRanges,
    recipe::{RecipeParts, SourceFingerprint},
    selection::SelectedAsset,
    validate::BoundAsset,
};
use crate::{blob::Digest, id::MaterializationId, limit::NAMES_SHOWN_MAX};

/// What to plan.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Of one pipeline version, in any order. An asset's place in this list is its number everywhere here.
    pub assets: &'a [BoundAsset],
    /// Each asset's partitions at `now`: what [`key_spaces`] returns.
    pub spaces: &'a [Arc<KeySpace>],
    /// What is wanted; from [`super::selection::resolve_selection`].
    pub selection: &'a [SelectedAsset],
    /// Whether what the selection needs is made too, where it is missing or stale.
    pub with_inputs: bool,
    /// What runs although nothing has changed.
    pub force: Force,
    /// The time by which freshness is judged.
    pub now: Timestamp,
    /// The newest materializations.
    pub latest: &'a Latest,
    /// By asset: what its read-only grants reach at this moment.
    pub sources: &'a [Vec<SourceFingerprint>],
}

/// What runs although nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing.
    No,
    /// What was selected.
    Selected,
    /// What was selected, and all that it needs.
    All,
}

/// A materialization, as far as a plan must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub materialization: MaterializationId,
    /// Of all that a consumer can see of it: [`super::recipe::version_digest`].
    pub digest: Digest,
    /// What decided it.
    pub parts: RecipeParts,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: i64,
}

/// The newest materialization of each asset and partition.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    by_asset: Vec<HashMap<PartitionKey, Known>>,
}

impl Latest {
    /// Nothing yet, for this many assets.
    pub fn new(assets: usize) -> Self {
        Self { by_asset: vec![HashMap::new(); assets] }
    }

    /// Adds the newest materialization of an asset's partition.
    pub fn insert(&mut self, asset: usize, partition: PartitionKey, known: Known) {
        self.by_asset[asset].insert(partition, known);
    }

    /// The newest materialization of an asset's partition.
    pub fn get(&self, asset: usize, partition: &PartitionKey) -> Option<&Known> {
        self.by_asset.get(asset)?.get(partition)
    }
}

/// What runs, in an order in which every job comes after the jobs that it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The jobs.
    pub jobs: Vec<PlannedJob>,
    /// By asset: how many of the partitions concerned need not run.
    pub up_to_date: Vec<u32>,
    /// By asset: how many were left out, because an interval that they need has not ended.
    pub not_yet: Vec<u32>,
}

/// One asset and partition that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedJob {
    /// The asset's number.
    pub asset: usize,
    /// Its partition.
    pub partition: PartitionKey,
    /// Why it runs.
    pub reason: Reason,
    /// What it reads: in the order of the asset's inputs, and of the partitions within each.
    pub inputs: Vec<PlannedInput>,
}

/// One version that a job reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedInput {
    /// The input's name.
    pub name: Arc<str>,
    /// Its place among the input's versions, from 0.
    pub position: u32,
    /// Whether the job runs without it, if it fails.
    pub optional: bool,
    /// Where it comes from.
    pub from: InputSource,
}

/// Where an input's version comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// The job at this place in the plan.
    Upstream(usize),
    /// What exists.
    Pinned(MaterializationId),
    /// Nowhere: the input is optional.
    Absent,
}

/// Why a job runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Somebody said so.
    Forced,
    /// There is no result.
    NeverMaterialized,
    /// The component is another one.
    CodeChanged,
    /// The configuration is another one.
    ConfigChanged,
    /// The grants reach something else.
    GrantChanged,
    /// The files behind a read-only grant have changed.
    SourceChanged,
    /// An input holds something else.
    InputChanged {
        /// Its name.
        input: Arc<str>,
    },
    /// An input will be made anew, and may come out different.
    InputWillRun {
        /// Its name.
        input: Arc<str>,
    },
    /// The asset has effects, and nothing says how long a result is good.
    Effectful,
    /// The asset has effects, and its result is older than the manifest calls fresh.
    NoLongerFresh,
}

impl Reason {
    /// Its name in JSON and in the database.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::NeverMaterialized => "never-materialized",
            Self::CodeChanged => "code-changed",
            Self::ConfigChanged => "config-changed",
            Self::GrantChanged => "grant-changed",
            Self::SourceChanged => "source-changed",
            Self::InputChanged { .. } => "input-changed",
            Self::InputWillRun { .. } => "input-will-run",
            Self::Effectful => "effectful",
            Self::NoLongerFresh => "no-longer-fresh",
        }
    }

    /// The input that it is about.
    pub fn input(&self) -> Option<&str> {
        match self {
            Self::InputChanged { input } | Self::InputWillRun { input } => Some(input),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced => f.write_str("forced"),
            Self::NeverMaterialized => f.write_str("never materialized"),
            Self::CodeChanged => f.write_str("code changed"),
            Self::ConfigChanged => f.write_str("config changed"),
            Self::GrantChanged => f.write_str("grant changed"),
            Self::SourceChanged => f.write_str("source files changed"),
            Self::InputChanged { input } => write!(f, "input `{input}` changed"),
            Self::InputWillRun { input } => write!(f, "input `{input}` will run"),
            Self::Effectful => f.write_str("has effects"),
            Self::NoLongerFresh => f.write_str("no longer fresh"),
        }
    }
}

/// Why there is no plan. All of them are the user's to mend; nothing has been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Required inputs that do not exist, in a request not to make them.
    #[error("{}", listed_missing(.missing, *.total, "run without inputs, but"))]
    DependencyNotReady {
        /// The first of them.
        missing: Vec<MissingInput>,
        /// How many there are.
        total: usize,
    },
    /// Partitions that were asked for by name need intervals that have not ended.
    #[error("{}", listed_missing(.missing, *.total, "it is too early:"))]
    NotYet {
        /// The first of them.
        missing: Vec<MissingInput>,
        /// How many there are.
        total: usize,
    },
    /// More than one plan holds.
    #[error("the plan would hold more than {max} {what}; select fewer partitions")]
    TooLarge {
        /// Partitions or inputs.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// An asset's keys have grown beyond what an asset may have.
    #[error("asset `{asset}`")]
    Keys {
        /// The asset.
        asset: String,
        #[source]
        /// What is wrong with its keys.
        source: KeySpaceError,
    },
    /// A mapping that should not have passed the deploy.
    #[error("the input `{input}` of asset `{asset}`")]
    Mapping {
        /// The asset.
        asset: String,
        /// Its input.
        input: String,
        #[source]
        /// What is wrong with its mapping.
        source: MappingError,
    },
    /// Assets that do not form a graph, which should not have passed the deploy.
    #[error("the assets do not form a graph: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Graph(Vec<GraphError>),
}

/// One required input that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingInput {
    /// The consumer.
    pub asset: String,
    /// Its partition.
    pub partition: PartitionKey,
    /// The producer.
    pub producer: String,
    /// The producer's partition; absent where the producer has none that fits.
    pub producer_partition: Option<PartitionKey>,
}

impl fmt::Display for MissingInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs ", named(&self.asset, &self.partition))?;
        match &self.producer_partition {
            Some(partition) => write!(f, "{}, which has not been materialized", named(&self.producer, partition)),
            None => write!(f, "a partition of `{}` that does not exist yet", self.producer),
        }
    }
}

fn named(asset: &str, partition: &PartitionKey) -> String {
    match partition.label() {
        label if label.is_empty() => format!("`{asset}`"),
        label => format!("`{asset}` {label}"),
    }
}

fn listed_missing(missing: &[MissingInput], total: usize, why: &str) -> String {
    let shown: Vec<String> = missing.iter().take(NAMES_SHOWN_MAX).map(ToString::to_string).collect();
    let more = total - shown.len();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{why} {}{more}", shown.join("; "))
}

/// Each asset's partitions at this moment. Assets with the same dimensions share them.
pub fn key_spaces(assets: &[BoundAsset], now: Timestamp) -> Result<Vec<Arc<KeySpace>>, PlanError> {
    let mut known: HashMap<&[Dimension], Arc<KeySpace>> = HashMap::new();
    let mut spaces = Vec::with_capacity(assets.len());
    for asset in assets {
        let dimensions = &*asset.definition.dimensions;
        if let Some(space) = known.get(dimensions) {
            spaces.push(Arc::clone(space));
            continue;
        }
        let name = || asset.definition.name.clone();
        let space = KeySpace::new(dimensions, now).map_err(|source| PlanError::Keys { asset: name(), source })?;
        let space = Arc::new(space);
        known.insert(dimensions, Arc::clone(&space));
        spaces.push(space);
    }
    Ok(spaces)
}

/// By asset: the partitions whose newest materialization [`plan`] compares. Neither those nor the sources of the request
/// are looked at.
pub fn find_compared(request: &Request<'_>) -> Result<Vec<IndexRanges>, PlanError> {
    let graph = Graph::new(request.assets.iter().map(|asset| &asset.definition)).map_err(PlanError::Graph)?;
    let mut planner = Planner::new(request, &graph)?;
    planner.find_wanted(&graph)?;
    Ok(planner.find_compared())
}

/// Decides what runs.
pub fn plan(request: &Request<'_>) -> Result<Plan, PlanError> {
    let graph = Graph::new(request.assets.iter().map(|asset| &asset.definition)).map_err(PlanError::Graph)?;
    let mut planner = Planner::new(request, &graph)?;
    planner.find_wanted(&graph)?;
    for &asset in graph.topological_order() {
        planner.plan_asset(asset)?;
    }
    planner.finish()
}
