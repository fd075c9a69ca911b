//! What attempts that write to an operator's database will have made, kept while that database has committed and this
//! one has not. See the migration that makes the table.

use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    commit::{AttemptRecord, FinishedJob, NewMaterialization},
    digest,
    error::Doing as _,
    queue::Claim,
};
use crate::{blob::Digest, id::AttemptId};

/// What an attempt will have made.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Intent {
    /// The fact.
    pub materialization: NewMaterialization,
    /// The execution.
    pub attempt: AttemptRecord,
}

impl Store {
    /// Keeps an intent, unless the claim's lease or its job's key is gone: whether it was kept. From here on the attempt may
    /// be applied.
    pub async fn insert_intent(&self, claim: &Claim, intent: &Intent) -> Result<bool, StoreError> {
        let made = serde_json::to_value(intent).map_err(|error| StoreError::unreadable("an intent", error))?;
        let new = &intent.materialization;
        let kept = sqlx::query!(
            "insert into sql_intent (tenant_id, attempt_id, asset_id, partition_key, recipe, made)
             select tenant_id, $4, $5, $6, $7, $8 from job_lease where tenant_id = $1 and job_id = $2 and token = $3
                 and exists (select from live_job k where k.tenant_id = $1 and k.asset_id = $5 and k.partition_key = $6
                     and k.recipe = $7 and k.job_id = $2)",
            claim.tenant,
            claim.job.0,
            claim.token.0,
            new.attempt.0,
            new.asset.0,
            new.partition_key,
            &new.recipe.0[..],
            made,
        )
        .execute(&self.pool)
        .await
        .doing("keeping what an attempt is about to apply")?;
        Ok(kept.rows_affected() == 1)
    }

    /// The recipe and the intent of an attempt, while no commit has followed it.
    pub async fn find_intent(&self, tenant: &str, attempt: AttemptId) -> Result<Option<(Digest, Intent)>, StoreError> {
        let found = sqlx::query!(
            "select recipe, made from sql_intent where tenant_id = $1 and attempt_id = $2",
            tenant,
            attempt.0
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for what an attempt was about to apply")?;
        let Some(found) = found else { return Ok(None) };
        let intent = serde_json::from_value(found.made).map_err(|error| StoreError::unreadable("an intent", error))?;
        Ok(Some((digest(found.recipe)?, intent)))
    }
}

/// Removes the intents of the partitions that a commit makes: what was applied is recorded now.
pub(super) async fn delete_intents(
    connection: &mut Connection,
    made: &[(&FinishedJob, &NewMaterialization)],
) -> Result<(), StoreError> {
    let applied: Vec<_> = made.iter().filter(|(_, new)| new.applied).collect();
    if applied.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = applied.iter().map(|(item, _)| item.claim.tenant.clone()).collect();
    let assets: Vec<Uuid> = applied.iter().map(|(_, new)| new.asset.0).collect();
    let partitions: Vec<String> = applied.iter().map(|(_, new)| new.partition_key.clone()).collect();
    sqlx::query!(
        "delete from sql_intent i using unnest($1::text[], $2::uuid[], $3::text[]) as a (tenant_id, asset_id, partition_key)
         where i.asset_id = a.asset_id and i.tenant_id = a.tenant_id and i.partition_key = a.partition_key",
        &tenants,
        &assets,
        &partitions,
    )
    .execute(connection)
    .await
    .doing("removing what has been applied and recorded")?;
    Ok(())
}
