//! Lanes: in which ready jobs stand, so that those that claim can take turns among tenants and pipelines.

use std::collections::{BTreeSet, HashMap};

use super::{Connection, Store, StoreError, column, error::Doing as _};
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

/// Makes the lanes of a pipeline's routes that are not among those that were found, in one order in every process.
pub(super) async fn make_missing_lanes(
    connection: &mut Connection,
    tenant: &str,
    pipeline: PipelineId,
    routes: BTreeSet<&Route>,
    lanes: &mut HashMap<Route, LaneId>,
) -> Result<(), StoreError> {
    let missing: Vec<&Route> = routes.into_iter().filter(|route| !lanes.contains_key(route)).collect();
    for route in missing {
        let tags: Vec<String> = route.tags.iter().cloned().collect();
        insert_lane(connection, tenant, pipeline, route, &tags).await?;
        lanes.insert(route.clone(), find_lane(connection, tenant, pipeline, route, &tags).await?);
    }
    Ok(())
}

async fn find_lane(
    connection: &mut Connection,
    tenant: &str,
    pipeline: PipelineId,
    route: &Route,
    tags: &[String],
) -> Result<LaneId, StoreError> {
    let lane = sqlx::query_scalar!(
        "select lane_id from lane
         where tenant_id = $1 and pipeline_id = $2 and queue = $3 and priority = $4 and tags = $5",
        tenant,
        pipeline.0,
        route.queue,
        route.priority,
        tags,
    )
    .fetch_one(connection)
    .await
    .doing("looking for a lane")?;
    Ok(LaneId(lane))
}

/// Waits for another transaction that makes the same.
async fn insert_lane(
    connection: &mut Connection,
    tenant: &str,
    pipeline: PipelineId,
    route: &Route,
    tags: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into lane (tenant_id, pipeline_id, queue, priority, tags) values ($1, $2, $3, $4, $5)
         on conflict on constraint lane_is_one do nothing",
        tenant,
        pipeline.0,
        route.queue,
        route.priority,
        tags,
    )
    .execute(connection)
    .await
    .doing("making a lane")?;
    Ok(())
}
