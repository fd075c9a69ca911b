//! What a component says about its assets: `flowstone:asset/definitions` as values of ours.
//!
//! Stored as JSON with each pipeline version, so every type here round-trips through serde. Nothing here checks:
//! [`super::validate`] does, once, at deploy.

use serde::{Deserialize, Serialize};

use super::partition::Partition;

/// One asset as its component describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetDefinition {
    /// Unique within the pipeline.
    pub name: String,
    /// For people.
    pub description: String,
    /// How it is made.
    pub kind: AssetKind,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// How it is partitioned; empty when it is not.
    pub dimensions: Vec<Dimension>,
    /// What it needs from an operator.
    pub requirements: Vec<Requirement>,
    /// Of the output, unless the guest says otherwise when it makes it.
    pub media_type: String,
    /// Names of data checks. None is accepted yet.
    pub checks: Vec<String>,
    /// For people and filters.
    pub tags: Vec<Field>,
}

/// A named text value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// What it is.
    pub name: String,
    /// Its value; JSON text where it has structure.
    pub value: String,
}

/// How an asset is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssetKind {
    /// One call makes one output.
    Plain,
    /// Reserved.
    Scatter,
    /// Reserved.
    Router,
}

/// An edge of the asset graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The name under which the code opens it.
    pub name: String,
    /// The asset that produces it.
    pub asset: String,
    /// Whether the consumer can be made without it.
    pub optional: bool,
    /// Which of its partitions are read.
    pub mapping: Mapping,
}

/// Which partitions of an input one partition of the consumer reads. See `definitions.wit` for each rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// The partition with the same keys.
    Same,
    /// Every partition.
    All,
    /// A range of time relative to the consumer's interval, both ends included.
    Window {
        /// Intervals of the producer before (negative) or after the consumer's.
        from: i32,
        /// Not before `from`.
        to: i32,
    },
    /// Every interval within the consumer's.
    Within,
    /// These, always.
    Fixed(Vec<Partition>),
}

/// One direction of partitioning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Unique within the asset.
    pub name: String,
    /// The keys along it.
    pub keys: DimensionKeys,
}

/// The keys along one dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DimensionKeys {
    /// Intervals of time.
    Time(TimeKeys),
    /// A fixed list.
    Static(Vec<String>),
    /// Reserved.
    Dynamic,
}

/// Intervals of time, from a first key to a last one or to the present.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeKeys {
    /// How long each is.
    pub unit: TimeUnit,
    /// The first key.
    pub from: String,
    /// The last key; absent when the keys grow with the calendar.
    pub to: Option<String>,
    /// IANA name.
    pub time_zone: String,
}

/// How long an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeUnit {
    /// Of UTC.
    Hour,
    /// A calendar day.
    Day,
    /// ISO 8601, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

/// Something that an asset needs an operator to grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The resource, by the name under which the operator registers it.
    pub resource_name: String,
    /// How the asset uses it.
    pub capability: Capability,
    /// For the person who decides.
    pub reason: String,
}

/// The ways out of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// A directory.
    Files,
    /// An HTTP origin.
    Http,
    /// A bucket. Reserved.
    KeyValue,
    /// A database.
    Sql,
    /// A secret that the code may read.
    Secret,
    /// The real clock.
    Clock,
    /// Real randomness.
    Random,
}

impl Capability {
    /// The interface of the contract that it is used through, where it has one of its own.
    pub fn interface(self) -> Option<&'static str> {
        match self {
            Self::Files => Some("flowstone:asset/files"),
            Self::Http => Some("flowstone:asset/http"),
            Self::KeyValue => Some("flowstone:asset/key-value"),
            Self::Sql => Some("flowstone:asset/sql"),
            Self::Secret => Some("flowstone:asset/secrets"),
            Self::Clock | Self::Random => None,
        }
    }

    /// Its name in the contract and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Http => "http",
            Self::KeyValue => "key-value",
            Self::Sql => "sql",
            Self::Secret => "secret",
            Self::Clock => "clock",
            Self::Random => "random",
        }
    }
}
