//! Reading facts: a result by its id, any earlier one by its recipe, and the bytes; and what must not be used again.

use uuid::Uuid;

use super::{
    Store, StoreError, digest,
    error::Doing as _,
    latest::{remove_invalidated, restore_latest},
};
use crate::{
    blob::Digest,
    id::{AssetId, AttemptId, JobId, MaterializationId, RunId},
};

/// A materialization for people.
#[derive(Clone, Debug)]
pub struct MaterializationRecord {
    /// Its id.
    pub id: MaterializationId,
    /// The asset's name.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// The run, job and attempt that made it.
    pub run: RunId,
    /// The run, job and attempt that made it.
    pub job: JobId,
    /// The run, job and attempt that made it.
    pub attempt: AttemptId,
    /// Of the bytes.
    pub digest: Digest,
    /// Of the bytes.
    pub size_bytes: i64,
    /// Of the bytes.
    pub media_type: String,
    /// A JSON array of fields.
    pub metadata: serde_json::Value,
    /// From what it was made.
    pub recipe: Digest,
    /// Whose code made it.
    pub component: Digest,
    /// Which engine ran it.
    pub engine_id: String,
    /// The earlier result that was used again, when nothing ran.
    pub reused_from: Option<MaterializationId>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// The bytes when they are in the database.
    pub inline: Option<Vec<u8>>,
}

/// An earlier result with the wanted recipe.
#[derive(Clone, Debug)]
pub struct CachedResult {
    /// Whose recipe it is.
    pub asset: AssetId,
    /// The recipe.
    pub recipe: Digest,
    /// Its id.
    pub id: MaterializationId,
    /// The one that was really made: itself, or the one that it used again.
    pub origin: MaterializationId,
    /// Whether it is the latest of its partition.
    pub latest: bool,
    /// Since it was really made, in milliseconds by the database's clock.
    pub age_ms: i64,
    /// Of the bytes.
    pub digest: Digest,
    /// Of the bytes.
    pub size_bytes: u64,
    /// Of the bytes.
    pub media_type: String,
    /// A JSON array of fields.
    pub metadata: serde_json::Value,
    /// Whether the database holds the bytes.
    pub inline: bool,
    /// Which engine ran it.
    pub engine_id: String,
}

impl Store {
    /// For each wanted (asset, partition, recipe), the newest valid result that was made from it, if there is one.
    ///
    /// It is planned once, perhaps while the tables are small. Of what is looked for only the index of recipes has more than
    /// the asset, of which the planner is told that it may be everything (migration 0029), and `offset 0` keeps each row of
    /// the other tables to its key. A plan that read an asset's history for each of a batch took 12 s where this takes 4 ms.
    pub async fn find_by_recipe(
        &self,
        tenant: &str,
        wanted: &[(AssetId, String, Digest)],
    ) -> Result<Vec<CachedResult>, StoreError> {
        let assets: Vec<Uuid> = wanted.iter().map(|(asset, _, _)| asset.0).collect();
        let partitions: Vec<String> = wanted.iter().map(|(_, partition, _)| partition.clone()).collect();
        let recipes: Vec<Vec<u8>> = wanted.iter().map(|(_, _, recipe)| recipe.0.to_vec()).collect();
        let rows = sqlx::query!(
            r#"select w.asset_id as "asset_id!", w.recipe as "recipe!", m.materialization_id,
                      m.output_digest, m.size_bytes, m.media_type, m.metadata, m.engine_id,
                      (b.bytes is not null) as "inline!",
                      (extract(epoch from now() - coalesce(o.created_at, m.created_at)) * 1000)::bigint as "age_ms!",
                      coalesce(m.reused_from, m.materialization_id) as "origin!",
                      (m.sequence = (select max(n.sequence) from materialization n
                           where n.tenant_id = m.tenant_id and n.asset_id = m.asset_id
                             and n.partition_key = m.partition_key)) as "latest!"
               from unnest((select $2::uuid[]), $3::text[], $4::bytea[]) as w (asset_id, partition_key, recipe)
               cross join lateral (
                   select * from materialization m
                   where m.asset_id = w.asset_id and m.recipe = w.recipe
                     and m.tenant_id is not distinct from $1 and m.partition_key is not distinct from w.partition_key
                     and not exists (select from invalidation i
                         where i.tenant_id = m.tenant_id and i.materialization_id = m.materialization_id offset 0)
                   order by m.sequence desc limit 1) m
               left join lateral (
                   select created_at from materialization
                   where tenant_id = m.tenant_id and materialization_id = m.reused_from offset 0) o on true
               cross join lateral (
                   select bytes from blob where tenant_id = m.tenant_id and digest = m.output_digest offset 0) b"#,
            tenant,
            &assets,
            &partitions,
            &recipes,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for earlier results")?;
        rows.into_iter()
            .map(|row| {
                Ok(CachedResult {
                    asset: AssetId(row.asset_id),
                    recipe: digest(row.recipe)?,
                    id: MaterializationId(row.materialization_id),
                    latest: row.latest,
                    age_ms: row.age_ms,
                    origin: MaterializationId(row.origin),
                    digest: digest(row.output_digest)?,
                    size_bytes: row.size_bytes as u64,
                    media_type: row.media_type,
                    metadata: row.metadata,
                    inline: row.inline,
                    engine_id: row.engine_id,
                })
            })
            .collect()
    }

    /// The bytes of these blobs, of those that are in the database.
    pub async fn list_inline_blobs(
        &self,
        tenant: &str,
        digests: &[Digest],
    ) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let wanted: Vec<Vec<u8>> = digests.iter().map(|digest| digest.0.to_vec()).collect();
        let rows = sqlx::query!(
            r#"select digest, bytes as "bytes!" from blob
               where tenant_id = $1 and digest = any($2) and bytes is not null"#,
            tenant,
            &wanted,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading blobs")?;
        rows.into_iter().map(|row| Ok((digest(row.digest)?, row.bytes))).collect()
    }

    /// The latest valid materialization of an asset's partition.
    pub async fn find_latest(
        &self,
        tenant: &str,
        pipeline: &str,
        asset: &str,
        partition_key: &str,
    ) -> Result<Option<MaterializationRecord>, StoreError> {
        let id = sqlx::query_scalar!(
            "select l.materialization_id from latest l
             join asset a on a.tenant_id = l.tenant_id and a.asset_id = l.asset_id
             join pipeline p on p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
             where l.tenant_id = $1 and p.name = $2 and a.name = $3 and l.partition_key = $4",
            tenant,
            pipeline,
            asset,
            partition_key,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for a materialization")?;
        match id {
            Some(id) => self.find_materialization(tenant, MaterializationId(id)).await,
            None => Ok(None),
        }
    }

    /// One materialization, with its bytes when they are in the database.
    pub async fn find_materialization(
        &self,
        tenant: &str,
        id: MaterializationId,
    ) -> Result<Option<MaterializationRecord>, StoreError> {
        let row = sqlx::query!(
            r#"select m.materialization_id, a.name, m.partition_key, m.run_id, m.job_id, m.attempt_id, m.output_digest,
                      m.size_bytes, m.media_type, m.metadata, m.recipe, v.component_digest, m.engine_id, m.reused_from,
                      (extract(epoch from m.created_at) * 1000)::bigint as "created_at_ms!", b.bytes
               from materialization m
               join asset a on a.tenant_id = m.tenant_id and a.asset_id = m.asset_id
               join asset_version v on v.tenant_id = m.tenant_id and v.asset_version_id = m.asset_version_id
               join blob b on b.tenant_id = m.tenant_id and b.digest = m.output_digest
               where m.tenant_id = $1 and m.materialization_id = $2"#,
            tenant,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reading a materialization")?;
        row.map(|row| {
            Ok(MaterializationRecord {
                id: MaterializationId(row.materialization_id),
                asset: row.name,
                partition_key: row.partition_key,
                run: RunId(row.run_id),
                job: JobId(row.job_id),
                attempt: AttemptId(row.attempt_id),
                digest: digest(row.output_digest)?,
                size_bytes: row.size_bytes,
                media_type: row.media_type,
                metadata: row.metadata,
                recipe: digest(row.recipe)?,
                component: digest(row.component_digest)?,
                engine_id: row.engine_id,
                reused_from: row.reused_from.map(MaterializationId),
                created_at_ms: row.created_at_ms,
                inline: row.bytes,
            })
        })
        .transpose()
    }

    /// Marks what is valid of an asset, in one partition or in all, as not to be used again; returns how many.
    pub async fn invalidate(
        &self,
        tenant: &str,
        pipeline: &str,
        asset: &str,
        partition_key: Option<&str>,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.pool.begin().await.doing("invalidating")?;
        let invalidated = sqlx::query!(
            "with gone as (
                 insert into invalidation (tenant_id, materialization_id, actor)
                 select m.tenant_id, m.materialization_id, 'user' from materialization m
                 join asset a on a.tenant_id = m.tenant_id and a.asset_id = m.asset_id
                 join pipeline p on p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
                 where m.tenant_id = $1 and p.name = $2 and a.name = $3 and ($4::text is null or m.partition_key = $4)
                 on conflict do nothing returning materialization_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'materialization.invalidated', materialization_id::text, '{}' from gone",
            tenant,
            pipeline,
            asset,
            partition_key as Option<&str>,
        )
        .execute(&mut *transaction)
        .await
        .doing("invalidating")?;
        let keys = remove_invalidated(&mut transaction, tenant, pipeline, asset).await?;
        restore_latest(&mut transaction, tenant, &keys).await?;
        transaction.commit().await.doing("invalidating")?;
        Ok(invalidated.rows_affected())
    }
}
