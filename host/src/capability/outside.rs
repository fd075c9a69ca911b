//! What an attempt read of the world outside that is no input and no granted directory: for its lineage.

use crate::{blob::Digest, pipeline::asset::Capability};

/// Everything that was read through one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideRead {
    /// The resource.
    pub resource: String,
    /// How it was used.
    pub capability: Capability,
    /// Of what was asked and what came back, in order.
    pub digest: Digest,
    /// Answers, keys or rows.
    pub items: u64,
    /// Of those.
    pub bytes: u64,
}
