//! What a job's grants of HTTP origins open for it: resources, secrets, connections, and rates held in the database.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{Shared, known::KnownJob};
use crate::{
    blob::DigestWriter,
    capability::http::{GrantedOrigin, HttpReach, Permits, Reserving},
    id::AssetId,
    pipeline::{diagnostic::chain, http::Rate},
    store::Store,
};

/// Everything that the job needs to use its granted origins; nothing when it has none.
pub(super) fn open_http(shared: &Shared, job: &KnownJob, origins: Vec<GrantedOrigin>) -> Option<HttpReach> {
    if origins.is_empty() {
        return None;
    }
    let registered = origins.iter().map(|origin| &origin.grant.resource);
    let permits = StoredPermits {
        store: shared.store.clone(),
        tenant: job.claim.tenant.clone(),
        asset: job.asset.id,
        registered: registered.filter(|name| job.resources.is_registered(name)).cloned().collect(),
    };
    // Of the job and nothing else: what a guest gets when it is tried again must say that it is the same request.
    let mut idempotency = DigestWriter::default();
    idempotency.field(b"job");
    idempotency.field(job.claim.tenant.as_bytes());
    idempotency.field(job.claim.job.0.as_bytes());
    Some(HttpReach {
        origins,
        connector: shared.connector.clone(),
        permits: Arc::new(permits),
        idempotency: idempotency.finish().0,
    })
}

/// The rates of one asset's resources.
#[derive(Debug)]
struct StoredPermits {
    store: Store,
    tenant: String,
    asset: AssetId,
    /// Those of an operator: all pipelines share their rates.
    registered: HashSet<String>,
}

impl Permits for StoredPermits {
    fn reserve(&self, resource: String, rate: Rate, within: Duration) -> Reserving<'_> {
        Box::pin(async move {
            let registered = self.registered.contains(&resource);
            let reserved =
                self.store.reserve_permit(&self.tenant, self.asset, &resource, registered, rate, within).await;
            reserved.map_err(|error| chain(&error))
        })
    }
}
