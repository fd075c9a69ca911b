//! Deployed pipelines: immutable versions, written in one transaction.

use uuid::Uuid;

use super::{
    Store, StoreError, digest,
    error::Doing as _,
    pools::{NewPool, declare_pools},
    retention::find_collected,
    schedules::{NewSchedule, declare_schedules},
};
use crate::{
    blob::{Digest, Stored},
    id::{AssetId, AssetVersionId, PipelineId, PipelineVersionId},
};

/// A version to be written.
#[derive(Clone, Debug)]
pub struct NewPipelineVersion {
    /// Whose it is.
    pub tenant: String,
    /// The pipeline.
    pub name: String,
    /// Of all that it binds.
    pub digest: Digest,
    /// The manifest's text, as it was.
    pub manifest: String,
    /// Their bytes are in the blob store.
    pub components: Vec<Stored>,
    /// When they began to be stored, as [`Store::find_instant_us`] says.
    pub stored_since_us: i64,
    /// The pipeline's own, by name.
    pub resources: Vec<ResourceRecord>,
    /// In topological order.
    pub assets: Vec<NewAssetVersion>,
    /// By name.
    pub schedules: Vec<NewSchedule>,
    /// Those that the manifest declares.
    pub pools: Vec<NewPool>,
}

/// An asset of a version to be written.
#[derive(Clone, Debug)]
pub struct NewAssetVersion {
    /// Its name.
    pub name: String,
    /// Whose code it is.
    pub component: Digest,
    /// Of the resolved configuration.
    pub config_digest: Digest,
    /// Of what the grants let it reach.
    pub grants_digest: Digest,
    /// Definition and bindings, resolved.
    pub settings: serde_json::Value,
    /// The pools of which its jobs need permits, by name.
    pub pools: Vec<String>,
}

/// A deployed version.
#[derive(Clone, Debug)]
pub struct PipelineVersionRecord {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The pipeline's name.
    pub name: String,
    /// This version.
    pub id: PipelineVersionId,
    /// 1 for the first.
    pub number: i32,
    /// In topological order.
    pub assets: Vec<AssetVersionRecord>,
}

/// A deployed asset.
#[derive(Clone, Debug)]
pub struct AssetVersionRecord {
    /// Whatever the version.
    pub asset: AssetId,
    /// Of this version.
    pub id: AssetVersionId,
    /// Its name.
    pub name: String,
    /// Whose code it is.
    pub component: Digest,
    /// Of the resolved configuration.
    pub config_digest: Digest,
    /// Of what the grants let it reach.
    pub grants_digest: Digest,
    /// Definition and bindings, resolved.
    pub settings: serde_json::Value,
}

/// A resource, of a pipeline's version or registered by an operator.
#[derive(Clone, Debug)]
pub struct ResourceRecord {
    /// Its name.
    pub name: String,
    /// `directory`, `http`.
    pub kind: String,
    /// A [`crate::pipeline::resource::Resource`] as JSON.
    pub settings: serde_json::Value,
}

/// A pipeline in a list.
#[derive(Clone, Debug)]
pub struct PipelineRecord {
    /// Its name.
    pub name: String,
    /// Of the newest version.
    pub number: i32,
}

impl Store {
    /// Writes a version unless the newest one binds the same; returns its number, and whether it is new.
    pub async fn deploy(&self, version: &NewPipelineVersion) -> Result<(i32, bool), StoreError> {
        const DOING: &str = "deploying";
        let tenant = &version.tenant;
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        sqlx::query!(
            "insert into pipeline (tenant_id, pipeline_id, name) values ($1, $2, $3)
             on conflict on constraint pipeline_name_is_unique do nothing",
            tenant,
            PipelineId::new().0,
            version.name,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        // Deploys of one pipeline come one after the other.
        let pipeline = sqlx::query_scalar!(
            "select pipeline_id from pipeline where tenant_id = $1 and name = $2 for update",
            tenant,
            version.name,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        let newest = sqlx::query!(
            "select number, digest from pipeline_version where tenant_id = $1 and pipeline_id = $2
             order by number desc limit 1",
            tenant,
            pipeline,
        )
        .fetch_optional(&mut *transaction)
        .await
        .doing(DOING)?;
        declare_schedules(&mut transaction, tenant, pipeline, &version.schedules).await?;
        if let Some(newest) = &newest
            && digest(newest.digest.clone())? == version.digest
        {
            transaction.commit().await.doing(DOING)?;
            return Ok((newest.number, false));
        }
        let number = newest.map_or(1, |newest| newest.number + 1);
        let version_id = PipelineVersionId::new();
        sqlx::query!(
            "insert into pipeline_version (tenant_id, pipeline_version_id, pipeline_id, number, digest, manifest)
             values ($1, $2, $3, $4, $5, $6)",
            tenant,
            version_id.0,
            pipeline,
            number,
            &version.digest.0[..],
            version.manifest,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        for component in &version.components {
            sqlx::query!(
                "with stored as (
                     insert into blob (tenant_id, digest, size_bytes) values ($1, $2, $3) on conflict do nothing)
                 insert into component (tenant_id, digest) values ($1, $2) on conflict do nothing",
                tenant,
                &component.digest.0[..],
                component.size as i64,
            )
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        }
        let stored: Vec<_> = version
            .components
            .iter()
            .map(|component| (tenant.clone(), component.digest, version.stored_since_us))
            .collect();
        if !find_collected(&mut transaction, &stored).await?.is_empty() {
            return Err(StoreError::Collected);
        }
        for resource in &version.resources {
            sqlx::query!(
                "insert into resource (tenant_id, pipeline_version_id, name, kind, settings)
                 values ($1, $2, $3, $4, $5)",
                tenant,
                version_id.0,
                resource.name,
                resource.kind,
                resource.settings,
            )
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        }
        insert_assets(&mut transaction, version, pipeline, version_id).await?;
        declare_pools(&mut transaction, tenant, pipeline, &version.pools).await?;
        sqlx::query!(
            "insert into audit (tenant_id, actor, action, subject, details)
             values ($1, 'user', 'pipeline.deployed', $2, jsonb_build_object('version', $3::int))",
            tenant,
            version.name,
            number,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok((number, true))
    }

    /// How a pipeline is called.
    pub async fn find_pipeline_name(&self, tenant: &str, pipeline: Uuid) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!("select name from pipeline where tenant_id = $1 and pipeline_id = $2", tenant, pipeline)
            .fetch_optional(&self.pool)
            .await
            .doing("looking for the name of a pipeline")
    }

    /// The newest version of a pipeline, whole.
    pub async fn find_pipeline(&self, tenant: &str, name: &str) -> Result<Option<PipelineVersionRecord>, StoreError> {
        let version = sqlx::query!(
            "select p.pipeline_id, v.pipeline_version_id, v.number from pipeline p
             join pipeline_version v on v.tenant_id = p.tenant_id and v.pipeline_id = p.pipeline_id
             where p.tenant_id = $1 and p.name = $2 order by v.number desc limit 1",
            tenant,
            name,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for a pipeline")?;
        let Some(version) = version else { return Ok(None) };
        let rows = sqlx::query!(
            "select v.asset_id, v.asset_version_id, a.name, v.component_digest, v.config_digest, v.grants_digest, v.settings
             from asset_version v join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
             where v.tenant_id = $1 and v.pipeline_version_id = $2 order by v.ordinal",
            tenant,
            version.pipeline_version_id,
        )
        .fetch_all(&self.pool)
        .await
        .doing("loading the assets of a pipeline")?;
        let assets = rows
            .into_iter()
            .map(|row| {
                Ok(AssetVersionRecord {
                    asset: AssetId(row.asset_id),
                    id: AssetVersionId(row.asset_version_id),
                    name: row.name,
                    component: digest(row.component_digest)?,
                    config_digest: digest(row.config_digest)?,
                    grants_digest: digest(row.grants_digest)?,
                    settings: row.settings,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Some(PipelineVersionRecord {
            pipeline: PipelineId(version.pipeline_id),
            name: name.to_owned(),
            id: PipelineVersionId(version.pipeline_version_id),
            number: version.number,
            assets,
        }))
    }

    /// All pipelines by name.
    pub async fn list_pipelines(&self, tenant: &str) -> Result<Vec<PipelineRecord>, StoreError> {
        sqlx::query_as!(
            PipelineRecord,
            r#"select p.name, max(v.number) as "number!" from pipeline p
               join pipeline_version v on v.tenant_id = p.tenant_id and v.pipeline_id = p.pipeline_id
               where p.tenant_id = $1 group by p.name order by p.name"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing pipelines")
    }

    /// One asset of one version, and the version it is of.
    pub async fn find_asset_version(
        &self,
        tenant: &str,
        asset_version: AssetVersionId,
    ) -> Result<Option<(PipelineVersionId, AssetVersionRecord)>, StoreError> {
        let row = sqlx::query!(
            "select v.pipeline_version_id, v.asset_id, a.name, v.component_digest, v.config_digest, v.grants_digest,
                    v.settings
             from asset_version v join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id
             where v.tenant_id = $1 and v.asset_version_id = $2",
            tenant,
            asset_version.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("loading an asset")?;
        row.map(|row| {
            let record = AssetVersionRecord {
                asset: AssetId(row.asset_id),
                id: asset_version,
                name: row.name,
                component: digest(row.component_digest)?,
                config_digest: digest(row.config_digest)?,
                grants_digest: digest(row.grants_digest)?,
                settings: row.settings,
            };
            Ok((PipelineVersionId(row.pipeline_version_id), record))
        })
        .transpose()
    }

    /// The resources of one version, by name.
    pub async fn list_resources(
        &self,
        tenant: &str,
        version: PipelineVersionId,
    ) -> Result<Vec<ResourceRecord>, StoreError> {
        sqlx::query_as!(
            ResourceRecord,
            "select name, kind, settings from resource where tenant_id = $1 and pipeline_version_id = $2 order by name",
            tenant,
            version.0,
        )
        .fetch_all(&self.pool)
        .await
        .doing("loading the resources of a pipeline")
    }
}

async fn insert_assets(
    connection: &mut super::Connection,
    version: &NewPipelineVersion,
    pipeline: Uuid,
    version_id: PipelineVersionId,
) -> Result<(), StoreError> {
    let names: Vec<String> = version.assets.iter().map(|asset| asset.name.clone()).collect();
    let ids: Vec<Uuid> = names.iter().map(|_| AssetId::new().0).collect();
    sqlx::query!(
        "insert into asset (tenant_id, pipeline_id, asset_id, name)
         select $1, $2, * from unnest($3::uuid[], $4::text[])
         on conflict on constraint asset_name_is_unique do nothing",
        version.tenant,
        pipeline,
        &ids,
        &names,
    )
    .execute(&mut *connection)
    .await
    .doing("deploying assets")?;
    let version_ids: Vec<Uuid> = names.iter().map(|_| AssetVersionId::new().0).collect();
    let ordinals: Vec<i32> = (0..names.len() as i32).collect();
    let components: Vec<Vec<u8>> = version.assets.iter().map(|asset| asset.component.0.to_vec()).collect();
    let configs: Vec<Vec<u8>> = version.assets.iter().map(|asset| asset.config_digest.0.to_vec()).collect();
    let grants: Vec<Vec<u8>> = version.assets.iter().map(|asset| asset.grants_digest.0.to_vec()).collect();
    let settings: Vec<serde_json::Value> = version.assets.iter().map(|asset| asset.settings.clone()).collect();
    // Postgres has no ragged arrays.
    let pools: Vec<serde_json::Value> =
        version.assets.iter().map(|asset| asset.pools.iter().cloned().collect()).collect();
    sqlx::query!(
        "insert into asset_version (tenant_id, pipeline_version_id, asset_version_id, asset_id, ordinal,
             component_digest, config_digest, grants_digest, settings, pools)
         select $1, $2, n.asset_version_id, a.asset_id, n.ordinal, n.component, n.config, n.grants, n.settings,
                array(select jsonb_array_elements_text(n.pools))
         from unnest($4::text[], $5::uuid[], $6::int[], $7::bytea[], $8::bytea[], $9::bytea[], $10::jsonb[],
                 $11::jsonb[])
             as n (name, asset_version_id, ordinal, component, config, grants, settings, pools)
         join asset a on a.tenant_id = $1 and a.pipeline_id = $3 and a.name = n.name",
        version.tenant,
        version_id.0,
        pipeline,
        &names,
        &version_ids,
        &ordinals,
        &components,
        &configs,
        &grants,
        &settings,
        &pools,
    )
    .execute(connection)
    .await
    .doing("deploying assets")?;
    Ok(())
}
