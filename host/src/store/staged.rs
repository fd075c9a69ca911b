//! Staged files: decided by a commit, shown by the directory soon after, whatever crashes in between.

use uuid::Uuid;

use super::{Store, StoreError, Transaction, digest, error::Doing as _};
use crate::{blob::Digest, id::MaterializationId};

/// A write or removal that is due.
#[derive(Clone, Debug)]
pub struct StagedFileRecord {
    /// Whose.
    pub tenant: String,
    /// The materialization that decided it.
    pub materialization: MaterializationId,
    /// The order of the commits.
    pub sequence: i64,
    /// The resource.
    pub resource: String,
    /// Of the version that ran, or as an operator has registered it by now; null when it is gone.
    pub settings: serde_json::Value,
    /// Within it.
    pub path: String,
    /// The new contents; none removes the file.
    pub content: Option<Digest>,
}

/// Where a listing goes on.
#[derive(Clone, Debug)]
pub struct StagedPlace {
    sequence: i64,
    resource: String,
    path: String,
}

impl StagedFileRecord {
    /// Where a listing goes on after this one.
    pub fn place(&self) -> StagedPlace {
        StagedPlace { sequence: self.sequence, resource: self.resource.clone(), path: self.path.clone() }
    }
}

/// The right to publish, which one process has at a time. Dropped unfinished, nothing counts as shown.
#[derive(Debug)]
pub struct Publishing(Transaction);

impl Store {
    /// Whether anything is due.
    pub async fn are_files_staged(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select exists (select 1 from staged_file) as "staged!""#)
            .fetch_one(&self.pool)
            .await
            .doing("looking for staged files")
    }

    /// Waits until nobody else publishes.
    pub async fn begin_publishing(&self) -> Result<Publishing, StoreError> {
        let mut transaction = self.pool.begin().await.doing("beginning to publish")?;
        sqlx::query!("select pg_advisory_xact_lock(hashtext('flowstone.publish'))")
            .fetch_one(&mut *transaction)
            .await
            .doing("beginning to publish")?;
        Ok(Publishing(transaction))
    }
}

impl Publishing {
    /// What is due, in the order of the commits, so that the last one wins.
    pub async fn list_staged_files(
        &mut self,
        after: Option<StagedPlace>,
        limit: i64,
    ) -> Result<Vec<StagedFileRecord>, StoreError> {
        let after = after.unwrap_or(StagedPlace { sequence: 0, resource: String::new(), path: String::new() });
        let rows = sqlx::query!(
            r#"select s.tenant_id, s.materialization_id, m.sequence, s.resource,
                    coalesce(r.settings, g.settings, 'null') as "settings!", s.path, s.digest
             from staged_file s
             join materialization m on m.tenant_id = s.tenant_id and m.materialization_id = s.materialization_id
             join asset_version v on v.tenant_id = m.tenant_id and v.asset_version_id = m.asset_version_id
             left join resource r on r.tenant_id = v.tenant_id and r.pipeline_version_id = v.pipeline_version_id
                 and r.name = s.resource
             left join registered_resource g on g.tenant_id = s.tenant_id and g.name = s.resource
             where (m.sequence, s.resource, s.path) > ($1, $2, $3)
             order by m.sequence, s.resource, s.path limit $4"#,
            after.sequence,
            after.resource,
            after.path,
            limit,
        )
        .fetch_all(&mut *self.0)
        .await
        .doing("reading staged files")?;
        rows.into_iter()
            .map(|row| {
                Ok(StagedFileRecord {
                    tenant: row.tenant_id,
                    materialization: MaterializationId(row.materialization_id),
                    sequence: row.sequence,
                    resource: row.resource,
                    settings: row.settings,
                    path: row.path,
                    content: row.digest.map(digest).transpose()?,
                })
            })
            .collect()
    }

    /// The directory shows them now.
    pub async fn remove_staged_files(&mut self, shown: &[StagedFileRecord]) -> Result<(), StoreError> {
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
        .execute(&mut *self.0)
        .await
        .doing("forgetting published files")?;
        Ok(())
    }

    /// Lets the next one publish.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.0.commit().await.doing("publishing")
    }
}
