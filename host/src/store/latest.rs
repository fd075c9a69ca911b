//! The newest valid materialization of each partition, as a plan compares it.
//!
//! The commit writes these rows with the facts that they copy, the invalidation takes them back, and nobody reads
//! history to find them: what a plan costs follows from its partitions, not from how often they were made.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Connection, Store, StoreError, column, digest, error::Doing as _};
use crate::{
    blob::Digest,
    id::{AssetId, AssetVersionId, MaterializationId},
};

/// The latest materialization of one partition.
#[derive(Clone, Debug)]
pub struct LatestRecord {
    /// Its id.
    pub id: MaterializationId,
    /// Of what.
    pub asset: AssetId,
    /// By which definition.
    pub asset_version: AssetVersionId,
    /// Canonical text.
    pub partition_key: String,
    /// Of all that a consumer can see.
    pub version_digest: Digest,
    /// Of the bytes, when they are in the blob store and not in the database.
    pub stored: Option<Digest>,
    /// Of the directories that it could read.
    pub sources_digest: Digest,
    /// One for each input, in the definition's order.
    pub input_digests: Vec<Digest>,
    /// When it was really made, in milliseconds since 1970.
    pub made_at_ms: i64,
}

/// What the recipes of all partitions of an asset's version have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionParts {
    /// Whose code it is.
    pub component: Digest,
    /// Of the resolved configuration.
    pub config_digest: Digest,
    /// Of what the grants let it reach.
    pub grants_digest: Digest,
}

/// A row of `latest` as the database gives it.
struct LatestRow {
    materialization_id: Uuid,
    asset_id: Uuid,
    asset_version_id: Uuid,
    partition_key: String,
    version_digest: [u8; 32],
    stored_digest: Option<[u8; 32]>,
    sources_digest: [u8; 32],
    input_digests: Vec<u8>,
    made_at_ms: i64,
}

impl From<LatestRow> for LatestRecord {
    fn from(row: LatestRow) -> Self {
        Self {
            id: MaterializationId(row.materialization_id),
            asset: AssetId(row.asset_id),
            asset_version: AssetVersionId(row.asset_version_id),
            partition_key: row.partition_key,
            version_digest: Digest(row.version_digest),
            stored: row.stored_digest.map(Digest),
            sources_digest: Digest(row.sources_digest),
            input_digests: row.input_digests.as_chunks().0.iter().map(|bytes| Digest(*bytes)).collect(),
            made_at_ms: row.made_at_ms,
        }
    }
}

impl Store {
    /// The latest valid materialization of each partition of these assets.
    pub async fn list_latest(&self, tenant: &str, assets: &[AssetId]) -> Result<Vec<LatestRecord>, StoreError> {
        sqlx::query_as!(
            LatestRow,
            r#"select materialization_id, asset_id, asset_version_id, partition_key,
                      version_digest as "version_digest: [u8; 32]", stored_digest as "stored_digest: [u8; 32]",
                      sources_digest as "sources_digest: [u8; 32]", input_digests,
                      (extract(epoch from made_at) * 1000)::bigint as "made_at_ms!"
               from latest where tenant_id = $1 and asset_id = any($2)"#,
            tenant,
            &column(assets, |asset| asset.0),
        )
        .map(LatestRecord::from)
        .fetch_all(&self.pool)
        .await
        .doing("reading the latest materializations")
    }

    /// The latest valid materialization of those of these partitions that have one, each named with its asset.
    pub async fn list_latest_of(
        &self,
        tenant: &str,
        assets: &[AssetId],
        partition_keys: &[String],
    ) -> Result<Vec<LatestRecord>, StoreError> {
        sqlx::query_as!(
            LatestRow,
            r#"select l.materialization_id, l.asset_id, l.asset_version_id, l.partition_key,
                      l.version_digest as "version_digest: [u8; 32]", l.stored_digest as "stored_digest: [u8; 32]",
                      l.sources_digest as "sources_digest: [u8; 32]", l.input_digests,
                      (extract(epoch from l.made_at) * 1000)::bigint as "made_at_ms!"
               from unnest($2::uuid[], $3::text[]) as k (asset_id, partition_key)
               cross join lateral (
                   select * from latest
                   where tenant_id = $1 and asset_id = k.asset_id and partition_key = k.partition_key offset 0) l"#,
            tenant,
            &column(assets, |asset| asset.0),
            partition_keys,
        )
        .map(LatestRecord::from)
        .fetch_all(&self.pool)
        .await
        .doing("reading the latest materializations")
    }

    /// What the recipes of these versions hold of them.
    pub async fn list_version_parts(
        &self,
        tenant: &str,
        versions: &[AssetVersionId],
    ) -> Result<HashMap<AssetVersionId, VersionParts>, StoreError> {
        let rows = sqlx::query!(
            "select asset_version_id, component_digest, config_digest, grants_digest from asset_version
             where tenant_id = $1 and asset_version_id = any($2)",
            tenant,
            &column(versions, |version| version.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("loading versions of assets")?;
        rows.into_iter()
            .map(|row| {
                let parts = VersionParts {
                    component: digest(row.component_digest)?,
                    config_digest: digest(row.config_digest)?,
                    grants_digest: digest(row.grants_digest)?,
                };
                Ok((AssetVersionId(row.asset_version_id), parts))
            })
            .collect()
    }
}

/// Takes back the rows of an asset that tell of what is invalid now; returns their partitions. Whoever commits one of
/// these partitions waits, or has gone before and is seen; rows are locked in the order of the commit.
pub(super) async fn remove_invalidated(
    connection: &mut Connection,
    tenant: &str,
    pipeline: &str,
    asset: &str,
) -> Result<Vec<(Uuid, String)>, StoreError> {
    let rows = sqlx::query!(
        "with invalid as (
             select l.tenant_id, l.asset_id, l.partition_key from latest l
             join asset a on a.tenant_id = l.tenant_id and a.asset_id = l.asset_id
             join pipeline p on p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
             where l.tenant_id = $1 and p.name = $2 and a.name = $3
               and exists (select from invalidation i
                   where i.tenant_id = l.tenant_id and i.materialization_id = l.materialization_id)
             order by l.tenant_id, l.asset_id, l.partition_key for update of l)
         delete from latest l using invalid
         where l.tenant_id = invalid.tenant_id and l.asset_id = invalid.asset_id
           and l.partition_key = invalid.partition_key
         returning l.asset_id, l.partition_key",
        tenant,
        pipeline,
        asset,
    )
    .fetch_all(connection)
    .await
    .doing("taking back the latest materializations")?;
    Ok(rows.into_iter().map(|row| (row.asset_id, row.partition_key)).collect())
}

/// Writes the newest valid materialization of these partitions, where there is one: of an older sequence than what was
/// taken back, and committed too late to be invalidated with it.
pub(super) async fn restore_latest(
    connection: &mut Connection,
    tenant: &str,
    partitions: &[(Uuid, String)],
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into latest (tenant_id, asset_id, partition_key, materialization_id, sequence, asset_version_id,
             version_digest, sources_digest, input_digests, stored_digest, made_at)
         select m.tenant_id, m.asset_id, m.partition_key, m.materialization_id, m.sequence, m.asset_version_id,
             m.version_digest, m.sources_digest, m.input_digests,
             (select b.digest from blob b
                 where b.tenant_id = m.tenant_id and b.digest = m.output_digest and b.bytes is null),
             coalesce((select o.created_at from materialization o
                 where o.tenant_id = m.tenant_id and o.materialization_id = m.reused_from), m.created_at)
         from unnest((select $2::uuid[]), $3::text[]) as k (asset_id, partition_key)
         cross join lateral (
             select * from materialization m
             where m.asset_id = k.asset_id and m.partition_key = k.partition_key and m.tenant_id is not distinct from $1
               and not exists (select from invalidation i
                   where i.tenant_id = m.tenant_id and i.materialization_id = m.materialization_id offset 0)
             order by m.sequence desc limit 1) m
         order by m.tenant_id, m.asset_id, m.partition_key",
        tenant,
        &column(partitions, |(asset, _)| *asset),
        &column(partitions, |(_, partition)| partition.clone()),
    )
    .execute(connection)
    .await
    .doing("restoring the latest materializations")?;
    Ok(())
}
