//! What the manifest decides about one asset's attempts, resolved: limits, retries, and where its jobs queue.
//!
//! Every default has been filled in when these values exist, and the filled-in values are what is stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limit;

/// Bounds of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Units of fuel for the call, counted from after instantiation.
    pub fuel: u64,
    /// Bytes of linear memory, summed over all memories.
    pub memory_bytes: u64,
    /// Wall clock, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Bytes of log kept.
    pub log_bytes: u64,
}

impl Default for Limits {
    /// What holds when the manifest is silent.
    fn default() -> Self {
        Self {
            fuel: limit::FUEL_DEFAULT,
            memory_bytes: limit::MEMORY_BYTES_DEFAULT,
            timeout_ms: limit::TIMEOUT_DEFAULT.as_millis() as u64,
            output_bytes: limit::OUTPUT_BYTES_DEFAULT,
            log_bytes: limit::LOG_BYTES_DEFAULT,
        }
    }
}

/// Where an asset's jobs queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which workers serve it, and what an operator pauses.
    pub queue: String,
    /// Greater goes first, among the jobs of one tenant.
    pub priority: i16,
    /// What a worker must have.
    pub tags: BTreeSet<String>,
}

impl Default for Route {
    /// What holds when the manifest is silent.
    fn default() -> Self {
        Self { queue: limit::QUEUE_DEFAULT.to_owned(), priority: 0, tags: BTreeSet::new() }
    }
}

impl Route {
    /// Such a route is not written down, so that a version without one stays what it was.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a job that failed is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Charged attempts in all; 1 never tries again.
    pub max_attempts: u32,
    /// How the wait grows.
    pub backoff: Backoff,
    /// The first wait, in milliseconds.
    pub base_ms: u64,
    /// No wait is longer, in milliseconds; what a guest asks for is capped too.
    pub cap_ms: u64,
    /// Whether a wait is drawn from the upper half of its length, so that jobs that failed together do not return together.
    pub jitter: bool,
}

/// How the wait between attempts grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backoff {
    /// The base each time.
    Constant,
    /// The base times the attempt's number.
    Linear,
    /// Twice as long each time.
    Exponential,
}

impl Default for RetryPolicy {
    /// What holds when the manifest is silent.
    fn default() -> Self {
        Self {
            max_attempts: limit::ATTEMPTS_DEFAULT,
            backoff: Backoff::Exponential,
            base_ms: 1_000,
            cap_ms: 300_000,
            jitter: true,
        }
    }
}
