//! Staged files: decided by a commit, shown by the directory soon after, whatever crashes in between.

use uuid::Uuid;

use super::{Store, StoreError, digest, error::Doing as _};
use crate::{blob::Digest, id::MaterializationId};

/// A write or removal that is due.
#[derive(Clone, Debug)]
pub struct StagedFileRecord {
    /// Whose.
    pub tenant: String,
    /// The materialization that decided it.
    pub materialization: MaterializationId,
    /// The resource.
    pub resource: String,
    /// As it was registered with the version that ran.
    pub settings: serde_json::Value,
    /// Within it.
    pub path: String,
    /// The new contents; none removes the file.
    pub content: Option<Digest>,
}

impl Store {
    /// What is due, in the order of the commits, so that the last one wins.
    pub async fn list_staged_files(&self, limit: i64) -> Result<Vec<StagedFileRecord>, StoreError> {
        let rows = sqlx::query!(
            "select s.tenant_id, s.materialization_id, s.resource, r.settings, s.path, s.digest
             from staged_file s
             join materialization m on m.tenant_id = s.tenant_id and m.materialization_id = s.materialization_id
             join asset_version v on v.tenant_id = m.tenant_id and v.asset_version_id = m.asset_version_id
             join resource r on r.tenant_id = v.tenant_id and r.pipeline_version_id = v.pipeline_version_id
                 and r.name = s.resource
             order by m.sequence, s.resource, s.path limit $1",
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .doing("reading staged files")?;
        rows.into_iter()
            .map(|row| {
                Ok(StagedFileRecord {
                    tenant: row.tenant_id,
                    materialization: MaterializationId(row.materialization_id),
                    resource: row.resource,
                    settings: row.settings,
                    path: row.path,
                    content: row.digest.map(digest).transpose()?,
                })
            })
            .collect()
    }

    /// The directory shows them now.
    pub async fn remove_staged_files(&self, shown: &[StagedFileRecord]) -> Result<(), StoreError> {
        let tenants: Vec<String> = shown.iter().map(|file| file.tenant.clone()).collect();
        let ids: Vec<Uuid> = shown.iter().map(|file| file.materialization.0).collect();
        let resources: Vec<String> = shown.iter().map(|file| file.resource.clone()).collect();
        let paths: Vec<String> = shown.iter().map(|file| file.path.clone()).collect();
        sqlx::query!(
            "delete from staged_file s
             using unnest($1::text[], $2::uuid[], $3::text[], $4::text[]) as t (tenant_id, id, resource, path)
             where s.tenant_id = t.tenant_id and s.materialization_id = t.id and s.resource = t.resource
               and s.path = t.path",
            &tenants,
            &ids,
            &resources,
            &paths,
        )
        .execute(&self.pool)
        .await
        .doing("forgetting published files")?;
        Ok(())
    }
}
