//! Walking lineage: from materialization to materialization, each visited once.

use uuid::Uuid;

use super::{Store, StoreError, digest, error::Doing as _};
use crate::{blob::Digest, id::MaterializationId, limit::LINEAGE_NODES_MAX};

/// Which way to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To what it was made from.
    Up,
    /// To what was made from it.
    Down,
}

/// A materialization on the walk.
#[derive(Clone, Debug)]
pub struct LineageNode {
    /// Its id.
    pub id: MaterializationId,
    /// The asset's name.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// Of the bytes.
    pub digest: Digest,
    /// Steps from the start, by the shortest way.
    pub depth: i32,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Whether retention has let its bytes go.
    pub expired: bool,
}

/// An edge between two nodes of the walk.
#[derive(Clone, Debug)]
pub struct LineageEdge {
    /// What was made.
    pub consumer: MaterializationId,
    /// The input's name.
    pub input: String,
    /// What it was made from.
    pub upstream: MaterializationId,
    /// How much of it was read.
    pub bytes_read: i64,
}

/// Something outside that a node was made from.
#[derive(Clone, Debug)]
pub struct ExternalSource {
    /// What was made.
    pub consumer: MaterializationId,
    /// The resource.
    pub resource: String,
    /// Its kind.
    pub kind: String,
    /// Of what was there to read, or was read.
    pub digest: Digest,
    /// Files of a directory; answers, keys or rows of other kinds.
    pub items: i64,
    /// Of those.
    pub size_bytes: i64,
}

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    /// The start first, then by depth.
    pub nodes: Vec<LineageNode>,
    /// Among those nodes.
    pub edges: Vec<LineageEdge>,
    /// Of those nodes.
    pub sources: Vec<ExternalSource>,
    /// Whether there is more than was returned.
    pub truncated: bool,
}

impl Store {
    /// Everything within `depth` steps of a materialization, itself included, at most [`LINEAGE_NODES_MAX`] nodes.
    pub async fn walk_lineage(
        &self,
        tenant: &str,
        start: MaterializationId,
        direction: Direction,
        depth: i32,
    ) -> Result<Lineage, StoreError> {
        let mut depth_of: std::collections::HashMap<Uuid, i32> = [(start.0, 0)].into();
        let mut frontier = vec![start.0];
        let mut truncated = false;
        for step in 1..=depth {
            let next = match direction {
                Direction::Up => self.list_upstream(tenant, &frontier).await?,
                Direction::Down => self.list_downstream(tenant, &frontier).await?,
            };
            frontier = next.into_iter().filter(|id| !depth_of.contains_key(id)).collect();
            if depth_of.len() + frontier.len() > LINEAGE_NODES_MAX {
                frontier.truncate(LINEAGE_NODES_MAX.saturating_sub(depth_of.len()));
                truncated = true;
            }
            depth_of.extend(frontier.iter().map(|id| (*id, step)));
            if frontier.is_empty() || truncated {
                break;
            }
        }
        let ids: Vec<Uuid> = depth_of.keys().copied().collect();
        Ok(Lineage {
            nodes: self.list_nodes(tenant, &ids, &depth_of).await?,
            edges: self.list_edges(tenant, &ids).await?,
            sources: self.list_sources(tenant, &ids).await?,
            truncated,
        })
    }

    async fn list_upstream(&self, tenant: &str, of: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar!(
            "select distinct upstream_materialization_id from lineage_edge
             where tenant_id = $1 and materialization_id = any($2) order by 1",
            tenant,
            of,
        )
        .fetch_all(&self.pool)
        .await
        .doing("walking lineage up")
    }

    async fn list_downstream(&self, tenant: &str, of: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar!(
            "select distinct materialization_id from lineage_edge
             where tenant_id = $1 and upstream_materialization_id = any($2) order by 1",
            tenant,
            of,
        )
        .fetch_all(&self.pool)
        .await
        .doing("walking lineage down")
    }

    async fn list_nodes(
        &self,
        tenant: &str,
        ids: &[Uuid],
        depth_of: &std::collections::HashMap<Uuid, i32>,
    ) -> Result<Vec<LineageNode>, StoreError> {
        let rows = sqlx::query!(
            r#"select m.materialization_id, a.name, m.partition_key, m.output_digest,
                      (extract(epoch from m.created_at) * 1000)::bigint as "created_at_ms!",
                      exists (select from invalidation i where i.tenant_id = m.tenant_id
                          and i.materialization_id = m.materialization_id and not i.keeps_bytes) as "expired!"
               from materialization m join asset a on a.tenant_id = m.tenant_id and a.asset_id = m.asset_id
               where m.tenant_id = $1 and m.materialization_id = any($2)"#,
            tenant,
            ids,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading lineage")?;
        let mut nodes = rows
            .into_iter()
            .map(|row| {
                Ok(LineageNode {
                    id: MaterializationId(row.materialization_id),
                    asset: row.name,
                    partition_key: row.partition_key,
                    digest: digest(row.output_digest)?,
                    depth: depth_of.get(&row.materialization_id).copied().unwrap_or_default(),
                    created_at_ms: row.created_at_ms,
                    expired: row.expired,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        nodes.sort_by(|a, b| {
            (a.depth, &a.asset, &a.partition_key, a.id).cmp(&(b.depth, &b.asset, &b.partition_key, b.id))
        });
        Ok(nodes)
    }

    async fn list_edges(&self, tenant: &str, among: &[Uuid]) -> Result<Vec<LineageEdge>, StoreError> {
        let rows = sqlx::query!(
            "select materialization_id, input, upstream_materialization_id, bytes_read from lineage_edge
             where tenant_id = $1 and materialization_id = any($2) and upstream_materialization_id = any($2)
             order by materialization_id, input, position",
            tenant,
            among,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading lineage")?;
        Ok(rows
            .into_iter()
            .map(|row| LineageEdge {
                consumer: MaterializationId(row.materialization_id),
                input: row.input,
                upstream: MaterializationId(row.upstream_materialization_id),
                bytes_read: row.bytes_read,
            })
            .collect())
    }

    async fn list_sources(&self, tenant: &str, of: &[Uuid]) -> Result<Vec<ExternalSource>, StoreError> {
        let rows = sqlx::query!(
            // A result that is used again was made of what its origin read; its directories are its own.
            r#"select materialization_id as "materialization_id!", resource as "resource!", kind as "kind!",
                      digest as "digest!", items as "items!", size_bytes as "size_bytes!"
               from external_read where tenant_id = $1 and materialization_id = any($2)
               union all
               select m.materialization_id, e.resource, e.kind, e.digest, e.items, e.size_bytes
               from materialization m
               join external_read e on e.tenant_id = m.tenant_id and e.materialization_id = m.reused_from
               where m.tenant_id = $1 and m.materialization_id = any($2) and e.kind <> 'directory'
               order by 1, 2"#,
            tenant,
            of,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading lineage")?;
        rows.into_iter()
            .map(|row| {
                Ok(ExternalSource {
                    consumer: MaterializationId(row.materialization_id),
                    resource: row.resource,
                    digest: digest(row.digest)?,
                    kind: row.kind,
                    items: row.items,
                    size_bytes: row.size_bytes,
                })
            })
            .collect()
    }
}
