//! Lanes: in which ready jobs stand, so that those that claim can take turns among tenants and pipelines.

use super::{Store, StoreError, column, error::Doing as _};
use crate::{id::PipelineId, pipeline::policy::Route};

/// Names a lane. Small and dense, unlike other ids: it stands in every row of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub i32);

/// A lane; it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Whose jobs.
    pub tenant: String,
    /// Of which pipeline.
    pub pipeline: PipelineId,
    /// Where they queue.
    pub route: Route,
}

impl Store {
    /// What these lanes are.
    pub async fn find_lanes(&self, lanes: &[LaneId]) -> Result<Vec<(LaneId, Lane)>, StoreError> {
        let rows = sqlx::query!(
            "select lane_id, tenant_id, pipeline_id, queue, priority, tags from lane where lane_id = any($1)",
            &column(lanes, |lane| lane.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading lanes")?;
        let lanes = rows.into_iter().map(|row| {
            let route = Route { queue: row.queue, priority: row.priority, tags: row.tags.into_iter().collect() };
            (LaneId(row.lane_id), Lane { tenant: row.tenant_id, pipeline: PipelineId(row.pipeline_id), route })
        });
        Ok(lanes.collect())
    }
}
