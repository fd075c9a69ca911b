//! The commit: the one place where a job ends, and where everything that its attempt produced becomes true together.
//!
//! One transaction writes a batch of finished jobs: leases go (fenced by the claim's token), and with them come
//! attempts, blobs, materializations, lineage, staged files, ends, retries, audit and outbox; jobs that had joined
//! these end with them, jobs that waited for any are released or skipped, and the runs' counters move; the permits of
//! pools go with the leases, and who waits for them is next. What waits for a very wide job is left to later
//! transactions (`release.rs`), and a row that this one writes says so. A job whose lease is gone writes nothing at all,
//! and one that read in a bucket what is not so any more (`buckets.rs`), or whose key is gone (`live_jobs.rs`), writes no
//! more than that it runs again.

mod ends;
mod facts;
mod joined;
mod leases;
mod release;
mod values;

pub(super) use ends::{End, end_jobs};
pub use joined::{SweepPosition, Swept};
pub use values::{
    AttemptRecord, Committed, Counts, DeferredJob, EndedJob, Ending, ExternalRead, FinishedJob, NewEdge,
    NewMaterialization, NewStagedFile, RecordedAttempt, job_name,
};

use std::collections::HashSet;

use super::{
    Store, StoreError,
    buckets::settle_buckets,
    column,
    error::Doing as _,
    intents::delete_intents,
    permits::{freed_by, wake_next},
    quarantine::forgive,
    quotas::{Used, count_use},
    running_logs::remove_told_lines,
};
use crate::id::{ClaimToken, JobId};
use ends::{end_followers, end_themselves};
use facts::{
    Made, find_collected_jobs, find_expired_jobs, insert_attempts, insert_blobs, insert_edges, insert_external_reads,
    insert_materializations, insert_staged_files,
};
use leases::{delete_leases, return_to_queue};

impl Store {
    /// Commits a batch, whole or not at all. A job whose lease is gone is left out and named.
    pub async fn commit_finished_jobs(&self, batch: &[FinishedJob]) -> Result<Committed, StoreError> {
        let mut transaction = self.pool.begin().await.doing("opening a commit")?;
        let held = delete_leases(&mut transaction, batch).await?;
        let is_mine =
            |item: &&FinishedJob| held.get(&item.claim.job.0).is_some_and(|lease| lease.token == item.claim.token);
        let (mine, fenced): (Vec<&FinishedJob>, Vec<&FinishedJob>) = batch.iter().partition(is_mine);
        let settled = settle_buckets(&mut transaction, mine).await?;
        let mine: Vec<&FinishedJob> = settled.iter().map(|item| &**item).collect();

        insert_attempts(&mut transaction, &mine).await?;
        let told = mine.iter().filter(|item| item.has_told).map(|item| (&item.claim, item.run));
        remove_told_lines(&mut transaction, &told.collect::<Vec<_>>()).await?;
        if held.values().any(|lease| lease.are_deaths_noted) {
            // Of an attempt that the host stopped nobody knows what it would have done.
            let completed = mine.iter().filter(|item| item.attempt.as_ref().is_some_and(|a| a.verdict != "cancelled"));
            let (tenants, jobs): (Vec<_>, Vec<_>) =
                completed.map(|item| (item.claim.tenant.clone(), item.claim.job)).unzip();
            forgive(&mut transaction, &tenants, &jobs).await?;
        }
        let made: Vec<Made<'_>> = mine
            .iter()
            .filter_map(|item| match &item.ending {
                Ending::Materialized(new) => Some((*item, new.as_ref())),
                _ => None,
            })
            .collect();
        insert_blobs(&mut transaction, &made).await?;
        let mut collected = find_collected_jobs(&mut transaction, &made, &held).await?;
        collected.extend(find_expired_jobs(&mut transaction, &mine).await?);
        if !collected.is_empty() {
            drop(transaction);
            let cause = "what it stored or found was collected as garbage before it was recorded";
            return self.commit_without(batch, &collected, cause).await;
        }
        insert_materializations(&mut transaction, &made).await?;
        insert_edges(&mut transaction, &made).await?;
        insert_external_reads(&mut transaction, &made).await?;
        insert_staged_files(&mut transaction, &made).await?;
        delete_intents(&mut transaction, &made).await?;
        let released = return_to_queue(&mut transaction, &mine).await?;
        let ends: Vec<End> = mine.iter().filter_map(|item| End::of(item)).collect();
        let keyless = end_themselves(&mut transaction, &ends).await?;
        if !keyless.is_empty() {
            drop(transaction);
            let cause = "it was not alone in making this any more, as after a crash of the database's server";
            return self.commit_without(batch, &keyless, cause).await;
        }
        let mut committed = end_followers(&mut transaction, ends).await?;
        committed.released += released;
        if held.values().any(|lease| lease.are_there_quotas) {
            let attempts = mine.iter().filter_map(|item| Some((&item.claim.tenant, item.attempt.as_ref()?)));
            let used = attempts.map(|(tenant, attempt)| Used {
                tenant: tenant.clone(),
                fuel: attempt.fuel_used as i64,
                bytes: attempt.output_bytes as i64,
            });
            count_use(&mut transaction, &used.collect::<Vec<_>>()).await?;
        }
        // Last, because others that free permits or take some wait from here on.
        let freed = freed_by(held.values().map(|lease| &*lease.permits));
        committed.released += wake_next(&mut transaction, &freed).await?;
        transaction.commit().await.doing("committing")?;
        committed.deferred = mine.iter().filter_map(|item| DeferredJob::of(item)).collect();
        committed.attempts = mine.iter().filter_map(|item| RecordedAttempt::of(item)).collect();
        committed.fenced = fenced.iter().map(|item| item.claim.key()).collect();
        committed.to_publish =
            made.iter().filter(|(_, new)| !new.staged_files.is_empty()).map(|(_, new)| new.id).collect();
        Ok(committed)
    }

    /// Commits a batch of which some jobs made something in vain.
    async fn commit_without(
        &self,
        batch: &[FinishedJob],
        in_vain: &HashSet<JobId>,
        cause: &str,
    ) -> Result<Committed, StoreError> {
        let is_in_vain = |item: &FinishedJob| in_vain.contains(&item.claim.job);
        let batch: Vec<FinishedJob> =
            batch.iter().map(|item| if is_in_vain(item) { item.made_in_vain(cause) } else { item.clone() }).collect();
        Box::pin(self.commit_finished_jobs(&batch)).await
    }

    /// Which of these claims have a recorded attempt: for a commit whose answer was lost.
    pub async fn find_recorded_attempts(&self, batch: &[&FinishedJob]) -> Result<Vec<(JobId, ClaimToken)>, StoreError> {
        let found = sqlx::query!(
            "select a.job_id, a.token from unnest($1::text[], $2::uuid[], $3::uuid[]) as t (tenant_id, job_id, token)
             join attempt a on a.tenant_id = t.tenant_id and a.job_id = t.job_id and a.token = t.token
             where a.verdict <> 'lost'",
            &column(batch, |item| item.claim.tenant.clone()),
            &column(batch, |item| item.claim.job.0),
            &column(batch, |item| item.claim.token.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for a commit whose answer was lost")?;
        Ok(found.into_iter().map(|row| (JobId(row.job_id), ClaimToken(row.token))).collect())
    }
}
