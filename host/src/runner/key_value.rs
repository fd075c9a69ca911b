//! What a job's grants of buckets open for it: each a reader of the database, and their effects as what the commit
//! checks.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{Shared, known::KnownJob};
use crate::{
    capability::key_value::{
        BucketEffects as Effects, BucketReader, GrantedBucket, KeyBound, Reading, StoredKeys, StoredValue,
    },
    pipeline::{
        diagnostic::chain,
        key_value::{BucketGrant, BucketResource},
        resource::Resource,
    },
    store::{
        Store, StoreError,
        buckets::{BucketEffects, BucketName},
    },
};

/// A bucket that was granted, for one attempt.
pub(super) fn open_bucket(
    shared: &Shared,
    job: &KnownJob,
    resource: &BucketResource,
    grant: &BucketGrant,
) -> GrantedBucket {
    let reader = StoredBucket {
        store: shared.store.clone(),
        bucket: bucket_name(job, &grant.resource),
        runtime: shared.connector.runtime.clone(),
        turns: shared.bucket_reads.clone(),
    };
    GrantedBucket { grant: grant.clone(), value_bytes_max: resource.bounds.value_bytes, reader: Arc::new(reader) }
}

/// A pipeline's own buckets are its own, whatever others call theirs; those of an operator are of all pipelines.
fn bucket_name(job: &KnownJob, resource: &str) -> BucketName {
    let owner = if job.resources.is_registered(resource) { Uuid::nil() } else { job.asset.pipeline };
    BucketName { tenant: job.claim.tenant.clone(), owner, name: resource.to_owned() }
}

/// What the commit has to check and to write.
pub(super) fn bucket_effects(job: &KnownJob, effects: Vec<Effects>) -> Vec<BucketEffects> {
    let with_bucket = |Effects { resource, reads, listed, writes }: Effects| {
        // There is no view of another kind, or without a grant.
        let Some(Resource::KeyValue(settings)) = job.resources.find_granted(&resource) else { return None };
        let (bucket, bounds) = (bucket_name(job, &resource), settings.bounds);
        Some(BucketEffects { bucket, resource, bounds, reads, listed, writes })
    };
    effects.into_iter().filter_map(with_bucket).collect()
}

/// A bucket in the database.
#[derive(Debug)]
struct StoredBucket {
    store: Store,
    bucket: BucketName,
    /// Of the process: guests' threads have no network.
    runtime: tokio::runtime::Handle,
    /// Guests take turns, so that the commit is never without a connection.
    turns: Arc<Semaphore>,
}

impl StoredBucket {
    async fn ask<T, Q>(&self, question: impl FnOnce(Store, BucketName) -> Q) -> Result<T, String>
    where
        T: Send + 'static,
        Q: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let asking = question(self.store.clone(), self.bucket.clone());
        let asked = AbortOnDropHandle::new(self.runtime.spawn(asking)).await;
        asked.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
    }
}

impl BucketReader for StoredBucket {
    fn get(&self, key: String) -> Reading<'_, Option<StoredValue>> {
        Box::pin(async move {
            let found = self.ask(|store, bucket| async move { store.find_bucket_value(&bucket, &key).await }).await?;
            Ok(found.map(|(value, version)| StoredValue { value, version }))
        })
    }

    fn list(&self, from: KeyBound, max: usize) -> Reading<'_, StoredKeys> {
        Box::pin(async move {
            let (from, is_included) = match from {
                KeyBound::At(key) => (key, true),
                KeyBound::After(key) => (key, false),
            };
            let limit = i64::try_from(max).unwrap_or(i64::MAX);
            let (keys, version) = self
                .ask(|store, bucket| async move { store.list_bucket_keys(&bucket, &from, is_included, limit).await })
                .await?;
            Ok(StoredKeys { keys, version })
        })
    }
}
