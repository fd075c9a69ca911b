//! What a job's grants of buckets open for it: each a reader of the database, and their effects as what the commit
//! checks.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{
    Shared,
    prepare::{KnownJob, chain},
    resources::Resources,
};
use crate::{
    capability::key_value::{
        BucketEffects as Effects, BucketReader, GrantedBucket, KeyBound, KeyWrite as Staged, Reading, StoredKeys,
        StoredValue,
    },
    pipeline::{
        key_value::{BucketGrant, BucketResource},
        resource::{Grant, Resource},
    },
    store::{
        Store, StoreError,
        buckets::{BucketEffects, BucketName, KeyWrite},
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
        bucket: bucket_name(job, &grant.resource, resource),
        runtime: shared.connector.runtime.clone(),
        turns: shared.bucket_reads.clone(),
    };
    GrantedBucket { grant: grant.clone(), value_bytes_max: resource.bounds.value_bytes, reader: Arc::new(reader) }
}

/// A pipeline's own buckets are its own, whatever others call theirs; those of an operator are of all pipelines.
fn bucket_name(job: &KnownJob, resource: &str, settings: &BucketResource) -> BucketName {
    let owner = if job.resources.is_registered(resource) { Uuid::nil() } else { job.asset.pipeline };
    BucketName { tenant: job.claim.tenant.clone(), owner, name: settings.bucket.clone() }
}

/// What the commit has to check and to write.
pub(super) fn bucket_effects(job: &KnownJob, effects: &[Effects]) -> Vec<BucketEffects> {
    let find = |name: &str| -> Option<&BucketResource> {
        let granted =
            job.asset.bound.grants.iter().any(|grant| matches!(grant, Grant::KeyValue(g) if g.resource == name));
        match job.resources.find_granted(name) {
            Some(Resource::KeyValue(settings)) if granted => Some(settings),
            _ => None,
        }
    };
    effects
        .iter()
        .filter_map(|effects| {
            let settings = find(&effects.resource)?;
            Some(BucketEffects {
                bucket: bucket_name(job, &effects.resource, settings),
                resource: effects.resource.clone(),
                bounds: settings.bounds,
                reads: effects.reads.clone(),
                listed: effects.listed,
                writes: effects.writes.iter().map(|(key, staged)| (key.clone(), write(staged))).collect(),
            })
        })
        .collect()
}

fn write(staged: &Staged) -> KeyWrite {
    match staged {
        Staged::Set(value) => KeyWrite::Set(value.clone()),
        Staged::Remove => KeyWrite::Remove,
        Staged::Add(delta) => KeyWrite::Add(*delta),
    }
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
