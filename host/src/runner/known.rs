//! What a claimed job is made of, as far as it is known, and how one ends of which no more can be known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Event, Shared,
    resources::{Resources, parse_resources},
    retry::host_fault_wait_ms,
};
use crate::{
    blob::Digest,
    capability::files::Fingerprint,
    engine::Attempt,
    id::{AssetId, AssetVersionId, RunId},
    limit::ASSETS_CACHED_MAX,
    pipeline::{
        asset::Capability, diagnostic::chain, partition::PartitionKey, recipe::RecipeParts, resource::Resource,
        validate::BoundAsset,
    },
    store::{
        StoreError,
        commit::{Counts, Ending, ExternalRead, FinishedJob, NewEdge, job_name},
        live_jobs::LiveKey,
        pools::PoolId,
        queue::{Claim, ClaimedInput, ClaimedJob, ClaimedVersion},
    },
};

/// A job that needs nothing but a thread.
pub(super) struct Prepared {
    pub(super) job: KnownJob,
    pub(super) attempt: Attempt,
    pub(super) stop: CancellationToken,
}

/// A claimed job with what it is made of.
pub(super) struct KnownJob {
    pub(super) claim: Claim,
    pub(super) run: RunId,
    pub(super) asset: Arc<KnownAsset>,
    pub(super) partition_key: PartitionKey,
    pub(super) parts: RecipeParts,
    pub(super) recipe: Digest,
    pub(super) sources: Vec<Source>,
    pub(super) resources: Arc<Resources>,
    pub(super) inputs: Vec<ClaimedInput>,
    /// Whether its tenant has used up a quota.
    pub(super) over_quota: bool,
    /// Of which it needs a permit.
    pub(super) pools: Vec<PoolId>,
    pub(super) forced: bool,
    pub(super) dependents: i32,
}

/// What a commit has to know of a job, however it ends.
pub(super) struct Identity {
    pub(super) claim: Claim,
    run: RunId,
    name: String,
    dependents: i32,
}

impl Identity {
    pub(super) fn of(job: &ClaimedJob) -> Self {
        let name = job_name(&job.asset.name, &job.partition_key);
        Self { claim: job.claim.clone(), run: job.run, name, dependents: job.dependents }
    }

    pub(super) fn finished(self, ending: Ending) -> FinishedJob {
        let Self { claim, run, name, dependents } = self;
        FinishedJob {
            claim,
            run,
            name,
            dependents,
            attempt: None,
            ending,
            buckets: Vec::new(),
            is_keyed: false,
            has_told: false,
        }
    }
}

/// A granted directory as it was before the attempt.
pub(super) struct Source {
    pub(super) resource: String,
    /// None for a directory that the asset may write: what it holds is not an input.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// An asset of a version, with what does not change from job to job.
pub(super) struct KnownAsset {
    pub(super) id: AssetId,
    pub(super) version: AssetVersionId,
    /// That it belongs to.
    pub(super) pipeline: Uuid,
    /// As commands call it.
    pub(super) pipeline_name: String,
    pub(super) bound: BoundAsset,
    pub(super) config_digest: Digest,
    pub(super) grants_digest: Digest,
    /// The pipeline's own, its secrets among them.
    pub(super) own: HashMap<String, Resource>,
}

impl KnownAsset {
    /// Whether its attempts reach nothing but their inputs: nothing has to be opened for them.
    pub(super) fn reaches_nothing(&self) -> bool {
        self.bound.grants.is_empty()
    }

    pub(super) fn reads_directories(&self) -> bool {
        self.bound.grants.iter().any(|grant| grant.directory().is_some())
    }
}

impl KnownJob {
    pub(super) fn name(&self) -> String {
        job_name(&self.asset.bound.definition.name, self.partition_key.as_str())
    }

    /// What it reads, by input name, then position.
    pub(super) fn versions(&self) -> impl Iterator<Item = &ClaimedVersion> {
        self.inputs.iter().map(|input| &*input.version)
    }

    /// What it reads whose bytes the database holds.
    pub(super) fn inline_versions(&self) -> impl Iterator<Item = &ClaimedVersion> {
        self.versions().filter(|version| version.inline)
    }

    /// What it reads whose bytes the blob store holds.
    pub(super) fn stored_versions(&self) -> impl Iterator<Item = &ClaimedVersion> {
        self.versions().filter(|version| !version.inline)
    }

    pub(super) fn key(&self) -> LiveKey {
        LiveKey {
            claim: self.claim.clone(),
            asset: self.asset.id,
            partition_key: self.partition_key.as_str().to_owned(),
            recipe: self.recipe,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { claim: self.claim.clone(), run: self.run, name: self.name(), dependents: self.dependents }
    }

    pub(super) fn finished(self, ending: Ending) -> FinishedJob {
        let (name, dependents) = (self.name(), self.dependents);
        let finished = Identity { claim: self.claim, run: self.run, name, dependents }.finished(ending);
        FinishedJob { is_keyed: true, ..finished }
    }

    /// To everything that was handed over; `bytes_read` is asked by input name and index among its versions.
    pub(super) fn edges(&self, bytes_read: impl Fn(&str, u32) -> u64) -> Vec<NewEdge> {
        let mut next: HashMap<&str, u32> = HashMap::new();
        let edge = |input: &ClaimedInput, index: u32| NewEdge {
            input: input.input.clone(),
            position: input.position,
            upstream: input.version.materialization,
            bytes_read: bytes_read(&input.input, index),
        };
        self.inputs
            .iter()
            .map(|input| {
                let index = next.entry(&input.input).or_default();
                *index += 1;
                edge(input, *index - 1)
            })
            .collect()
    }

    pub(super) fn external_reads(&self) -> Vec<ExternalRead> {
        self.sources
            .iter()
            .filter_map(|source| {
                let print = source.fingerprint?;
                Some(ExternalRead {
                    resource: source.resource.clone(),
                    kind: Capability::Files.resource_kind(),
                    digest: print.digest,
                    items: print.files,
                    size_bytes: print.bytes,
                })
            })
            .collect()
    }
}

/// Definitions by id: they never change, so what was loaded once is right for ever.
#[derive(Default)]
pub(super) struct AssetCache(Mutex<HashMap<(String, AssetVersionId), Arc<KnownAsset>>>);

/// Why a job cannot be prepared.
pub(super) enum Obstacle {
    /// The host's trouble: the job waits.
    Host(String),
    /// It can never run as it is: the job fails.
    Final(String),
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        Self::Host(chain(&error))
    }
}

impl AssetCache {
    pub(super) async fn find(
        &self,
        shared: &Shared,
        tenant: &str,
        version: AssetVersionId,
    ) -> Result<Arc<KnownAsset>, Obstacle> {
        let key = (tenant.to_owned(), version);
        if let Some(asset) = self.lock().get(&key) {
            return Ok(asset.clone());
        }
        let Some((pipeline_version, record)) = shared.store.find_asset_version(tenant, version).await? else {
            return Err(Obstacle::Final("its definition is not in the database".to_owned()));
        };
        // A worker of that version can run it.
        let bound: BoundAsset = serde_json::from_value(record.settings).map_err(|error| {
            Obstacle::Host(format!("its definition was written by another version of flowstone: {error}"))
        })?;
        let own = parse_resources(shared.store.list_resources(tenant, pipeline_version).await?)?;
        let Some(pipeline) = shared.store.find_pipeline_of(tenant, record.asset).await? else {
            return Err(Obstacle::Final("its pipeline is not in the database".to_owned()));
        };
        let pipeline_name = shared.store.find_pipeline_name(tenant, pipeline).await?.unwrap_or_default();
        let asset = Arc::new(KnownAsset {
            id: record.asset,
            version,
            pipeline,
            pipeline_name,
            config_digest: record.config_digest,
            grants_digest: record.grants_digest,
            bound,
            own,
        });
        let mut cached = self.lock();
        if cached.len() >= ASSETS_CACHED_MAX {
            cached.clear();
        }
        cached.insert(key, asset.clone());
        Ok(asset)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, AssetVersionId), Arc<KnownAsset>>> {
        self.0.lock().expect("nothing that holds this lock can panic")
    }
}

pub(super) fn parse_key(text: &str) -> Result<PartitionKey, Obstacle> {
    text.parse().map_err(|_| Obstacle::Final(format!("partition key `{text}` cannot be read")))
}

/// A job of which nothing is known but that it was claimed goes back.
pub(super) fn give_back(claim: Claim) -> FinishedJob {
    // It does not end with this, so that nobody who waits for it is dealt with either.
    Identity { claim, run: RunId(Uuid::nil()), name: String::new(), dependents: 0 }.finished(Ending::Released)
}

pub(super) fn end(job: ClaimedJob, ending: Ending) -> FinishedJob {
    Identity::of(&job).finished(ending)
}

pub(super) fn stopped_by(shared: &Shared, job: Identity, obstacle: Obstacle) -> FinishedJob {
    let ending = match obstacle {
        Obstacle::Final(cause) => Ending::Failed(cause),
        Obstacle::Host(cause) => {
            shared.tell(Event::Trouble(cause.clone()));
            tracing::warn!(job.id = %job.claim.job, cause, "a job waits for the host");
            Ending::Deferred {
                wait_ms: host_fault_wait_ms(u32::try_from(job.claim.released).unwrap_or(0)),
                cause,
                counts: Counts::Released,
            }
        }
    };
    job.finished(ending)
}

/// Why a job cannot run whose input is gone or damaged, and what mends it.
pub(super) fn lost_input(job: &KnownJob, digest: Digest, why: &str) -> String {
    let Some(version) = job.versions().find(|version| version.digest == digest) else { return why.to_owned() };
    let pipeline = &job.asset.pipeline_name;
    let ClaimedVersion { materialization, asset, partition_key, .. } = version;
    let label = partition_key.parse().map_or_else(|_| partition_key.clone(), |key: PartitionKey| key.label());
    let partition = if label.is_empty() { String::new() } else { format!(" --partition {label}") };
    format!(
        "its input {} cannot be read: {why}; it is the output of materialization {materialization}, and \
         `flowstone run {pipeline} {asset}{partition} --force` makes it again",
        job_name(asset, partition_key),
    )
}
