//! Submissions that their clients can repeat: the same key again is the run that it made.

use super::{
    Store, StoreError, digest,
    error::Doing as _,
    runs::{Durable, NewRun, insert_run},
};
use crate::{blob::Digest, id::RunId};

/// What was submitted under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The run that it made.
    pub run: RunId,
    /// Of what was asked for.
    pub request: Digest,
}

impl Store {
    /// What a tenant's client has submitted under a key.
    pub async fn find_submission(&self, tenant: &str, key: &str) -> Result<Option<Submission>, StoreError> {
        let row = sqlx::query!(
            "select run_id, request_digest from submission where tenant_id = $1 and idempotency_key = $2",
            tenant,
            key,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("looking for an earlier submission")?;
        row.map(|row| Ok(Submission { run: RunId(row.run_id), request: digest(row.request_digest)? })).transpose()
    }

    /// Writes a run under a key, as [`Self::submit_run`] does, unless the key has one. False: it has, and nothing is
    /// written. Of two at the same time one waits here until the other's transaction has ended.
    pub async fn submit_run_once(&self, run: &NewRun, key: &str, request: Digest) -> Result<bool, StoreError> {
        const DOING: &str = "submitting a run once";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        let taken = sqlx::query!(
            "insert into submission (tenant_id, idempotency_key, request_digest, run_id) values ($1, $2, $3, $4)
             on conflict do nothing",
            run.tenant,
            key,
            &request.0[..],
            run.id.0,
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        insert_run(&mut transaction, run, "user", Durable::ByCommit).await?;
        transaction.commit().await.doing(DOING)?;
        Ok(true)
    }
}
