//! What `#[asset]` writes down about a function, as constants: the Rust side of `flowstone:asset/definitions`.
//!
//! Nothing here checks: the attribute refuses what it can see to be wrong, and the host validates the rest at deploy.

use crate::context::Context;
use crate::error::Result;

/// One asset, as the host hears of it.
#[derive(Debug)]
pub struct AssetDefinition {
    /// Unique within the pipeline.
    pub name: &'static str,
    /// For people: the function's doc comment, unless the attribute says otherwise.
    pub description: &'static str,
    /// What it reads.
    pub inputs: &'static [InputDefinition],
    /// How it is partitioned; empty when it is not.
    pub dimensions: &'static [Dimension],
    /// What it needs from an operator.
    pub requirements: &'static [Requirement],
    /// Of the output, unless the function says otherwise when it makes it.
    pub media_type: &'static str,
    /// Names and values, for people and filters.
    pub tags: &'static [(&'static str, &'static str)],
    /// Makes it.
    #[doc(hidden)]
    pub materialize: fn(&Context) -> Result<()>,
}

inventory::collect!(AssetDefinition);

/// Every asset that is linked into this component, by name.
pub(crate) fn list_assets() -> Vec<&'static AssetDefinition> {
    let mut assets: Vec<_> = inventory::iter::<AssetDefinition>().collect();
    // The linker decides in which order they arrive; the component's description must not depend on it.
    assets.sort_by_key(|asset| asset.name);
    assets
}

/// The asset of this name, if it is in this component.
pub(crate) fn find_asset(name: &str) -> Option<&'static AssetDefinition> {
    inventory::iter::<AssetDefinition>().find(|asset| asset.name == name)
}

/// An edge of the asset graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputDefinition {
    /// The name under which the code opens it.
    pub name: &'static str,
    /// The asset that produces it.
    pub asset: &'static str,
    /// Whether the asset can be made without it.
    pub optional: bool,
    /// Which of its partitions are read.
    pub mapping: Mapping,
}

/// Which partitions of an input one partition of the asset reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The partition with the same keys, or the one of a longer unit that holds the asset's interval.
    Same,
    /// Every partition.
    All,
    /// A range of time relative to the asset's interval, both ends included, in the input's unit.
    Window {
        /// 0 is the interval in which the asset's begins; negative ones are before it.
        from: i32,
        /// Not before `from`.
        to: i32,
    },
    /// Every interval within the asset's.
    Within,
    /// These, always: each a list of dimensions and keys.
    Fixed(&'static [&'static [(&'static str, &'static str)]]),
}

/// One direction of partitioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Unique within the asset.
    pub name: &'static str,
    /// The keys along it.
    pub keys: DimensionKeys,
}

/// The keys along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionKeys {
    /// Intervals of time.
    Time {
        /// How long each is.
        unit: TimeUnit,
        /// The first key.
        from: &'static str,
        /// The last key; absent when the keys grow with the calendar.
        to: Option<&'static str>,
        /// IANA name.
        time_zone: &'static str,
    },
    /// A fixed list, in the order in which they are shown.
    Static(&'static [&'static str]),
}

/// How long an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Of UTC: `2024-01-31T13`.
    Hour,
    /// `2024-01-31`.
    Day,
    /// ISO 8601, from Monday: `2024-W05`.
    Week,
    /// `2024-01`.
    Month,
    /// `2024`.
    Year,
}

/// Something that the asset needs an operator to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The resource, by the name under which the operator registers it.
    pub resource_name: &'static str,
    /// How the asset uses it.
    pub capability: Capability,
    /// One sentence for the person who decides.
    pub reason: &'static str,
}

/// The ways out of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// A directory: see [`crate::files`].
    Files,
    /// The real time: `std::time` then tells it, instead of the job's.
    Clock,
    /// A secret that the code reads: see [`crate::secrets`].
    Secret,
    /// Real randomness: `wasi:random` then gives it, instead of numbers that follow from the recipe.
    Random,
    /// An HTTP origin: see [`crate::http`].
    Http,
    /// A database: see [`crate::sql`].
    Sql,
}
