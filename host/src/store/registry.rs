//! Resources that an operator registered: of a tenant, not of a pipeline, and as they are now.

use super::{Store, StoreError, error::Doing as _, pipelines::ResourceRecord};

impl Store {
    /// Registers resources, in place of earlier ones of their names.
    pub async fn register_resources(&self, tenant: &str, resources: &[ResourceRecord]) -> Result<(), StoreError> {
        let names: Vec<String> = resources.iter().map(|resource| resource.name.clone()).collect();
        let kinds: Vec<String> = resources.iter().map(|resource| resource.kind.clone()).collect();
        let settings: Vec<serde_json::Value> = resources.iter().map(|resource| resource.settings.clone()).collect();
        sqlx::query!(
            "with registered as (
                 insert into registered_resource (tenant_id, name, kind, settings)
                 select $1, * from unnest($2::text[], $3::text[], $4::jsonb[])
                 on conflict (tenant_id, name) do update
                     set kind = excluded.kind, settings = excluded.settings, registered_at = now()
                 returning name, settings)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'resource.registered', name, settings from registered",
            tenant,
            &names,
            &kinds,
            &settings,
        )
        .execute(&self.pool)
        .await
        .doing("registering resources")?;
        Ok(())
    }

    /// Those of these names that are registered.
    pub async fn find_registered_resources(
        &self,
        tenant: &str,
        names: &[String],
    ) -> Result<Vec<ResourceRecord>, StoreError> {
        sqlx::query_as!(
            ResourceRecord,
            "select name, kind, settings from registered_resource
             where tenant_id = $1 and name = any($2) order by name",
            tenant,
            names,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for registered resources")
    }

    /// All that are registered, by name.
    pub async fn list_registered_resources(&self, tenant: &str) -> Result<Vec<ResourceRecord>, StoreError> {
        sqlx::query_as!(
            ResourceRecord,
            "select name, kind, settings from registered_resource where tenant_id = $1 order by name",
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing registered resources")
    }

    /// Forgets a resource; false when none of the name was registered. Attempts that begin later cannot use it.
    pub async fn remove_registered_resource(&self, tenant: &str, name: &str) -> Result<bool, StoreError> {
        let removed = sqlx::query!(
            "with gone as (delete from registered_resource where tenant_id = $1 and name = $2 returning name)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'resource.removed', name, '{}' from gone",
            tenant,
            name,
        )
        .execute(&self.pool)
        .await
        .doing("removing a registered resource")?;
        Ok(removed.rows_affected() > 0)
    }
}
