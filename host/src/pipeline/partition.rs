//! Partitions: typed coordinates, their canonical text, the keys of each dimension, and mappings between them.

use serde::{Deserialize, Serialize};

/// One coordinate: a dimension and the key on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinate {
    /// The dimension's name.
    pub dimension: String,
    /// The key on it.
    pub key: String,
}

/// Coordinates in the order in which the asset declares its dimensions; empty for an unpartitioned asset.
pub type Partition = Vec<Coordinate>;
