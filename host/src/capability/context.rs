//! `flowstone:asset/context`: where the call stands. Always there; the same in every call of an attempt.

use crate::{
    bindings::flowstone::asset::{context, types},
    pipeline::partition::{Coordinate, Partition},
};

/// What the guest may know about its job.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The run's id, as text.
    pub run_id: String,
    /// The asset to make.
    pub asset: String,
    /// Of it, this partition.
    pub partition: Partition,
    /// 1 for the first; a host fault does not count.
    pub attempt: u32,
    /// The instant that the job is about, in ms since 1970 UTC.
    pub logical_time_ms: u64,
    /// The asset's resolved configuration: a JSON object.
    pub config: String,
}

impl context::Host for Context {
    fn current(&mut self) -> wasmtime::Result<context::Job> {
        Ok(context::Job {
            run_id: self.run_id.clone(),
            asset: self.asset.clone(),
            partition: partition_to_wit(&self.partition),
            attempt: self.attempt,
            logical_time_ms: self.logical_time_ms,
            config: self.config.clone(),
        })
    }
}

/// A partition as the guest sees it.
pub fn partition_to_wit(partition: &Partition) -> Vec<types::Coordinate> {
    let coordinate = |at: &Coordinate| types::Coordinate { dimension: at.dimension.clone(), key: at.key.clone() };
    partition.iter().map(coordinate).collect()
}

#[cfg(test)]
mod tests {
    use context::Host as _;

    use super::*;

    #[test]
    fn a_guest_learns_its_job() {
        let partition = vec![Coordinate { dimension: "month".into(), key: "2024-01".into() }];
        let mut context = Context {
            run_id: "r".into(),
            asset: "monthly".into(),
            partition,
            attempt: 2,
            logical_time_ms: 1_704_067_200_000,
            config: r#"{"city":"Seattle"}"#.into(),
        };
        let job = context.current().unwrap();
        assert_eq!((job.run_id.as_str(), job.asset.as_str(), job.attempt), ("r", "monthly", 2));
        assert_eq!((job.partition[0].dimension.as_str(), job.partition[0].key.as_str()), ("month", "2024-01"));
        assert_eq!((job.logical_time_ms, job.config.as_str()), (1_704_067_200_000, r#"{"city":"Seattle"}"#));
    }
}
