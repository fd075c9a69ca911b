//! What a job's grants of HTTP origins open for it: resources, secrets, connections, and rates held in the database.

use std::{sync::Arc, time::Duration};

use super::{
    Shared,
    prepare::{KnownJob, Obstacle, chain},
    secret::find_secret,
};
use crate::{
    blob::DigestWriter,
    capability::http::{Credential, GrantedOrigin, HttpReach, Permits, Reserving},
    id::AssetId,
    pipeline::{
        http::{CredentialUse, HttpGrant, Rate},
        resource::Grant,
    },
    store::Store,
};

/// Everything that the job needs to use its granted origins; nothing when it has none.
pub(super) fn open_http(shared: &Shared, job: &KnownJob) -> Result<Option<HttpReach>, Obstacle> {
    let grants = job.asset.bound.grants.iter().filter_map(Grant::http);
    let origins = grants.map(|grant| open_origin(job, grant)).collect::<Result<Vec<_>, _>>()?;
    if origins.is_empty() {
        return Ok(None);
    }
    let permits = StoredPermits { store: shared.store.clone(), tenant: job.claim.tenant.clone(), asset: job.asset.id };
    // Of the job and nothing else: what a guest gets when it is tried again must say that it is the same request.
    let mut idempotency = DigestWriter::default();
    idempotency.field(b"job");
    idempotency.field(job.claim.tenant.as_bytes());
    idempotency.field(job.claim.job.0.as_bytes());
    Ok(Some(HttpReach {
        origins,
        connector: shared.connector.clone(),
        permits: Arc::new(permits),
        idempotency: idempotency.finish().0,
    }))
}

fn open_origin(job: &KnownJob, grant: &HttpGrant) -> Result<GrantedOrigin, Obstacle> {
    let name = &grant.resource;
    let Some(resource) = job.asset.origins.get(name) else {
        return Err(Obstacle::Final(format!("its grant names resource `{name}`, which is not registered")));
    };
    let credential = |wanted: &CredentialUse| {
        let value = find_secret(&job.asset, &wanted.secret)?;
        Ok(Credential { place: wanted.place.clone(), value })
    };
    let credentials = resource.credentials.iter().map(credential).collect::<Result<_, Obstacle>>()?;
    Ok(GrantedOrigin { resource: resource.clone(), grant: grant.clone(), credentials })
}

/// The rates of one asset's resources.
#[derive(Debug)]
struct StoredPermits {
    store: Store,
    tenant: String,
    asset: AssetId,
}

impl Permits for StoredPermits {
    fn reserve(&self, resource: String, rate: Rate, within: Duration) -> Reserving<'_> {
        Box::pin(async move {
            let reserved = self.store.reserve_permit(&self.tenant, self.asset, &resource, rate, within).await;
            reserved.map_err(|error| chain(&error))
        })
    }
}
