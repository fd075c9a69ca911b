//! Deleting the bytes of condemned blobs: some at a time, recorded when they are gone, and only by whoever was confirmed as
//! the collector a moment ago. One that was stopped and wakes up must not delete what others have stored anew meanwhile.

use std::time::Instant;

use tokio::task::JoinSet;

use super::CollectError;
use crate::{
    blob::{BlobError, BlobStore},
    limit::{COLLECT_DELETES_AT_ONCE, COLLECTOR_FENCE},
    store::{
        Store,
        retention::{Amount, Collector, Condemned},
    },
};

/// Deletes everything that is condemned. What cannot be deleted stays condemned.
pub(super) async fn delete_condemned(
    collector: Collector,
    store: &Store,
    blobs: &BlobStore,
) -> Result<Amount, CollectError> {
    let mut all = Amount::default();
    loop {
        let asked_at = Instant::now();
        store.renew_collecting(collector).await?;
        // Listed after the right was confirmed: another collector deletes nothing of it from then on.
        let condemned = store.list_condemned().await?;
        if condemned.is_empty() {
            return Ok(all);
        }
        let (deleted, trouble) = delete_in_time(blobs, condemned, asked_at).await;
        store.record_deleted(collector, &deleted).await?;
        deleted.iter().for_each(|blob| all += Amount { count: 1, bytes: blob.size });
        if let Some(trouble) = trouble {
            return Err(trouble.into());
        }
    }
}

/// What was deleted before the confirmation grew old, and what went wrong.
async fn delete_in_time(
    blobs: &BlobStore,
    condemned: Vec<Condemned>,
    confirmed_at: Instant,
) -> (Vec<Condemned>, Option<BlobError>) {
    let (mut deleted, mut trouble) = (Vec::new(), None);
    let (mut left, mut deleting) = (condemned.into_iter(), JoinSet::new());
    loop {
        while trouble.is_none()
            && deleting.len() < COLLECT_DELETES_AT_ONCE
            && confirmed_at.elapsed() < COLLECTOR_FENCE
            && let Some(blob) = left.next()
        {
            let blobs = blobs.clone();
            deleting.spawn(async move { blobs.delete(&blob.tenant, blob.digest).await.map(|()| blob) });
        }
        match deleting.join_next().await {
            None => return (deleted, trouble),
            Some(Ok(Ok(blob))) => deleted.push(blob),
            Some(Ok(Err(error))) => trouble = Some(error),
            Some(Err(_)) => trouble = Some(BlobError::Stopped),
        }
    }
}
