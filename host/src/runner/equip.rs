//! Equipping: an attempt with its code and its inputs. Small inputs come from the database, a batch at a time; the others
//! from the blob store, when the guest reads them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    known::{KnownJob, Obstacle, Prepared, parse_key},
    telling::Telling,
};
use crate::{
    blob::{BlobError, Content, Digest},
    capability::{
        Reach,
        context::Context,
        inputs::{InputGrant, InputVersion},
        log::Log,
    },
    engine::{Attempt, Component, LoadError},
    limit::INLINE_INPUT_BYTES_MAX,
    pipeline::{asset::Field, diagnostic::chain, keyspace::logical_time_ms, recipe::canonical_json, resource::Grant},
    store::StoreError,
};

/// Loads the code and the inputs.
pub(super) async fn equip(
    shared: &Arc<Shared>,
    job: KnownJob,
    contents: &InlineContents,
) -> Result<Prepared, Obstacle> {
    let component = load_component(shared, &job).await?;
    let inputs = grant_inputs(shared, &job, contents).await?;
    let bound = &job.asset.bound;
    let partition = job.partition_key.partition();
    let attempt = Attempt {
        component,
        tenant: job.claim.tenant.clone(),
        blobs: shared.blobs.clone(),
        context: Context {
            run_id: job.run.to_string(),
            asset: bound.definition.name.clone(),
            attempt: u32::try_from(job.claim.charged).unwrap_or(0) + 1,
            logical_time_ms: logical_time_ms(&bound.definition.dimensions, &partition),
            config: canonical_json(&bound.config),
            partition,
        },
        inputs,
        // Opened when it runs: what is claimed ahead must not hold descriptors.
        reach: Reach::default(),
        limits: bound.limits.clone(),
        media_type: bound.definition.media_type.clone(),
        log: Log::default(),
        seed: seed(&job)?,
    };
    let stop = match shared.lock_running().get_mut(&job.claim.key()) {
        Some(running) => {
            running.telling = Some(Telling::new(&job.claim, job.run, attempt.log.clone()));
            running.stop.clone()
        }
        None => CancellationToken::new(),
    };
    Ok(Prepared { job, attempt, stop })
}

/// The same recipe draws the same numbers, unless real randomness was granted.
fn seed(job: &KnownJob) -> Result<[u8; 32], Obstacle> {
    let granted = job.asset.bound.grants.iter().any(|grant| matches!(grant, Grant::Random(_)));
    let mut seed = job.recipe.0;
    if granted && let Err(error) = getrandom::fill(&mut seed) {
        return Err(Obstacle::Host(format!("the system has no randomness to give: {error}")));
    }
    Ok(seed)
}

async fn load_component(shared: &Arc<Shared>, job: &KnownJob) -> Result<Arc<Component>, Obstacle> {
    let (blobs, tenant, digest) = (shared.blobs.clone(), job.claim.tenant.clone(), job.asset.bound.component);
    let bytes = {
        let tenant = tenant.clone();
        async move || blobs.read_all(&tenant, digest).await
    };
    shared.engine.load(&tenant, digest, bytes).await.map_err(|error| match error {
        LoadError::Refused { .. } => Obstacle::Final(chain(&error)),
        // The bytes are gone or broken: no wait brings them back.
        LoadError::Bytes { source: BlobError::Missing { .. } | BlobError::Corrupt { .. }, .. } => {
            Obstacle::Final(chain(&error))
        }
        _ => Obstacle::Host(chain(&error)),
    })
}

/// The versions behind each declared input, with their bytes when they are small.
async fn grant_inputs(
    shared: &Arc<Shared>,
    job: &KnownJob,
    contents: &InlineContents,
) -> Result<Vec<InputGrant>, Obstacle> {
    let contents = match is_small(job) {
        true => contents.of(job),
        false => {
            move_inline_contents(shared, job).await?;
            HashMap::new()
        }
    };
    let grants = job.asset.bound.definition.inputs.iter().map(|declared| {
        let versions = job.inputs.iter().filter(|input| input.input == declared.name).map(|input| &input.version);
        let versions = versions.map(|version| {
            let content = match contents.get(&version.digest) {
                Some(bytes) => Content::Inline(bytes.clone()),
                None => Content::Stored,
            };
            let partition = parse_key(&version.partition_key)?.partition();
            Ok(InputVersion {
                asset: version.asset.clone(),
                partition,
                materialization: version.materialization.to_string(),
                digest: version.digest,
                size: version.size_bytes,
                media_type: version.media_type.clone(),
                metadata: fields(&version.metadata),
                content,
            })
        });
        Ok(InputGrant { name: declared.name.clone(), versions: versions.collect::<Result<_, Obstacle>>()? })
    });
    grants.collect()
}

/// Small inputs that the database holds, of a batch of jobs.
pub(super) struct InlineContents(HashMap<(String, Digest), Vec<u8>>);

impl InlineContents {
    /// What one job reads of them, by digest.
    fn of(&self, job: &KnownJob) -> HashMap<Digest, Vec<u8>> {
        let content = |digest| Some((digest, self.0.get(&(job.claim.tenant.clone(), digest))?.clone()));
        job.inline_versions().filter_map(|version| content(version.digest)).collect()
    }
}

/// Whether what the database holds of a job's inputs fits in memory; otherwise it goes through the blob store.
fn is_small(job: &KnownJob) -> bool {
    job.inline_versions().map(|version| version.size_bytes).sum::<u64>() <= INLINE_INPUT_BYTES_MAX
}

/// Reads the small inputs of a batch at once: a statement for each job would be most of what the jobs cost.
pub(super) async fn load_inline_contents(shared: &Shared, jobs: &[KnownJob]) -> Result<InlineContents, StoreError> {
    let mut by_tenant: HashMap<&String, HashSet<Digest>> = HashMap::new();
    for job in jobs.iter().filter(|job| is_small(job)) {
        let inline = job.inline_versions().map(|version| version.digest);
        by_tenant.entry(&job.claim.tenant).or_default().extend(inline);
    }
    let mut contents = HashMap::new();
    for (tenant, digests) in by_tenant.into_iter().filter(|(_, digests)| !digests.is_empty()) {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let loaded = shared.store.list_inline_blobs(tenant, &digests).await?;
        contents.extend(loaded.into_iter().map(|(digest, bytes)| ((tenant.clone(), digest), bytes)));
    }
    Ok(InlineContents(contents))
}

/// Copies what the database holds of a job's inputs to the blob store.
async fn move_inline_contents(shared: &Arc<Shared>, job: &KnownJob) -> Result<(), Obstacle> {
    let inline: HashSet<Digest> = job.inline_versions().map(|version| version.digest).collect();
    let tenant = &job.claim.tenant;
    let host = |error: BlobError| Obstacle::Host(chain(&error));
    let missing: Vec<Digest> = shared.blobs.find_missing(tenant, inline).await.map_err(host)?.into_iter().collect();
    for digests in missing.chunks(INLINE_CHUNK) {
        let mut putting = JoinSet::new();
        for (_, bytes) in shared.store.list_inline_blobs(tenant, digests).await? {
            let (store, tenant) = (shared.blobs.clone(), tenant.clone());
            putting.spawn(async move { store.put(&tenant, bytes).await });
        }
        while let Some(put) = putting.join_next().await {
            put.unwrap_or(Err(BlobError::Stopped)).map_err(host)?;
        }
    }
    Ok(())
}

/// Blobs that move from the database to the blob store at a time: at most some megabytes.
const INLINE_CHUNK: usize = 256;

pub(super) fn fields(metadata: &serde_json::Value) -> Vec<Field> {
    serde_json::from_value(metadata.clone()).unwrap_or_default()
}
