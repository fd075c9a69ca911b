//! Sealed secrets: what an operator gave to the database to keep. It holds no key.

use super::{Store, StoreError, error::Doing as _};

/// A secret as it is kept.
#[derive(Clone, Debug)]
pub struct SealedSecret {
    /// As [`crate::secret::SealKey::seal`] made it.
    pub sealed: Vec<u8>,
    /// The id of the key that opens it.
    pub key_id: String,
}

/// That a secret is there; nothing of it.
#[derive(Clone, Debug)]
pub struct SecretRecord {
    /// Its name.
    pub name: String,
    /// The id of the key that opens it.
    pub key_id: String,
    /// When it was set last, in milliseconds since 1970.
    pub set_at_ms: i64,
}

impl Store {
    /// Keeps a secret, in place of an earlier one of the name.
    pub async fn put_sealed_secret(&self, tenant: &str, name: &str, secret: &SealedSecret) -> Result<(), StoreError> {
        sqlx::query!(
            "with kept as (
                 insert into sealed_secret (tenant_id, name, sealed, key_id) values ($1, $2, $3, $4)
                 on conflict (tenant_id, name) do update
                     set sealed = excluded.sealed, key_id = excluded.key_id, set_at = now()
                 returning name, key_id)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'secret.set', name, jsonb_build_object('key', key_id) from kept",
            tenant,
            name,
            secret.sealed,
            secret.key_id,
        )
        .execute(&self.pool)
        .await
        .doing("keeping a secret")?;
        Ok(())
    }

    /// The secret of a name.
    pub async fn find_sealed_secret(&self, tenant: &str, name: &str) -> Result<Option<SealedSecret>, StoreError> {
        sqlx::query_as!(
            SealedSecret,
            "select sealed, key_id from sealed_secret where tenant_id = $1 and name = $2",
            tenant,
            name,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reading a secret")
    }

    /// Which secrets there are, by name.
    pub async fn list_sealed_secrets(&self, tenant: &str) -> Result<Vec<SecretRecord>, StoreError> {
        sqlx::query_as!(
            SecretRecord,
            r#"select name, key_id, (extract(epoch from set_at) * 1000)::bigint as "set_at_ms!"
               from sealed_secret where tenant_id = $1 order by name"#,
            tenant,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing secrets")
    }

    /// Forgets a secret; false when there was none.
    pub async fn remove_sealed_secret(&self, tenant: &str, name: &str) -> Result<bool, StoreError> {
        let removed = sqlx::query!(
            "with gone as (delete from sealed_secret where tenant_id = $1 and name = $2 returning name)
             insert into audit (tenant_id, actor, action, subject, details)
             select $1, 'user', 'secret.removed', name, '{}' from gone",
            tenant,
            name,
        )
        .execute(&self.pool)
        .await
        .doing("removing a secret")?;
        Ok(removed.rows_affected() > 0)
    }
}
