//! Preparing: from claims to attempts that need nothing but a thread.
//!
//! Everything that an attempt needs is looked up here, in batches: definitions, code, inputs, directories as they are
//! now. What needs no attempt ends here: cancelled jobs, results that are there already, jobs that join a live one
//! which makes the same, and jobs of a pool that is full.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Event, Shared,
    equip::{equip, fields, load_inline_contents},
    known::{Identity, KnownAsset, KnownJob, Obstacle, Source, end, give_back, lost_input, parse_key, stopped_by},
    limits, publish,
    resources::{Resources, open_directory},
};
use crate::{
    blob::{BlobError, Digest},
    capability::files::{FingerprintCache, fingerprint},
    id::{AssetId, AttemptId, JobId, MaterializationId},
    limit::{
        HOST_FAULT_WAIT_BASE, INPUTS_HELD_MAX, INPUTS_LOADED_MAX, LIVE_KEY_PUT_OFF, LIVE_KEY_TRIES, LIVE_KEY_WAIT,
    },
    pipeline::{
        diagnostic::chain,
        partition::PartitionKey,
        recipe::{self, RecipeParts, SourceFingerprint, input_digest, sources_digest, version_digest},
        resource::{Access, Grant},
        validate::BoundAsset,
    },
    store::{
        StoreError,
        commit::{Counts, Ending, NewMaterialization},
        live_jobs::{Joined, LiveKey},
        materializations::CachedResult,
        queue::{Claim, ClaimedInputs, ClaimedJob, ClaimedVersion},
    },
};

/// Prepares a batch and hands each job on: to the guests' threads, or to the committer.
pub(super) async fn prepare_jobs(shared: &Arc<Shared>, jobs: Vec<ClaimedJob>, unknown: Vec<Claim>) {
    unknown.into_iter().for_each(|claim| shared.finish(give_back(claim)));
    let (cancelled, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.asset.cancel_requested);
    for job in cancelled {
        shared.finish(end(job, Ending::Cancelled("the run was cancelled".to_owned())));
    }
    let (quarantined, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.asset.quarantined.is_some());
    for job in quarantined {
        let cause = job.asset.quarantined.map(quarantine_cause).unwrap_or_default();
        shared.finish(end(job, Ending::Failed(cause)));
    }
    let (paused, mut jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.asset.paused);
    jobs.extend(park(shared, paused).await);
    for part in parts(jobs) {
        prepare_part(shared, part).await;
    }
}

/// Why a job does not run whose component took its workers with it, and what mends it.
fn quarantine_cause(component: Digest) -> String {
    let name = &component.to_string()[..DIGEST_SHOWN];
    format!(
        "its component {name} is quarantined, because workers kept dying while they had jobs of it: see \
         `flowstone quarantine list`; after `flowstone quarantine lift {name}` a retry makes it"
    )
}

/// Characters of a digest that tell it from all others that a person meets.
const DIGEST_SHOWN: usize = 16;

/// Parks jobs whose pipeline or asset is paused; returns those that are not paused any more.
async fn park(shared: &Arc<Shared>, jobs: Vec<ClaimedJob>) -> Vec<ClaimedJob> {
    if jobs.is_empty() {
        return jobs;
    }
    let claims: Vec<Claim> = jobs.iter().map(|job| job.claim.clone()).collect();
    // Its answer may be lost: then the jobs are parked, or this claim's still, and both are dealt with below.
    let Some(parked) = insist(shared, || shared.store.park_jobs(&claims)).await else {
        jobs.into_iter().for_each(|job| shared.finish(end(job, Ending::Released)));
        return Vec::new();
    };
    let parked: HashSet<JobId> = parked.into_iter().collect();
    let (parked, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| parked.contains(&job.claim.job));
    for job in parked {
        shared.let_go(&job.claim);
    }
    others
}

/// Parts that read about [`INPUTS_LOADED_MAX`] versions each.
fn parts(jobs: Vec<ClaimedJob>) -> Vec<Vec<ClaimedJob>> {
    let mut parts: Vec<Vec<ClaimedJob>> = Vec::new();
    let mut room = 0;
    for job in jobs {
        let inputs = job.inputs;
        match parts.last_mut().filter(|_| inputs <= room) {
            Some(part) => part.push(job),
            None => {
                parts.push(vec![job]);
                room = INPUTS_LOADED_MAX;
            }
        }
        room = room.saturating_sub(inputs);
    }
    parts
}

async fn prepare_part(shared: &Arc<Shared>, jobs: Vec<ClaimedJob>) {
    let reading: Vec<&Claim> = jobs.iter().filter(|job| job.inputs > 0).map(|job| &job.claim).collect();
    let loaded = match take_room(shared, &jobs).await {
        true => insist(shared, || shared.store.load_inputs(&reading)).await,
        false => None,
    };
    let Some(mut inputs) = loaded else {
        return jobs.into_iter().for_each(|job| shared.finish(end(job, Ending::Released)));
    };
    if read_directories(shared, &jobs).await {
        // What earlier jobs decided to write must be there before anybody takes a fingerprint.
        publish::publish_now(shared).await;
    }
    let mut known = Vec::with_capacity(jobs.len());
    for job in jobs {
        if shared.stopping.is_cancelled() {
            shared.finish(end(job, Ending::Released));
            continue;
        }
        let identity = Identity::of(&job);
        let inputs = inputs.remove(&job.claim.job).unwrap_or_default();
        match recognize(shared, job, inputs).await {
            Ok(job) => known.push(job),
            Err(obstacle) => shared.finish(stopped_by(shared, identity, obstacle)),
        }
    }
    // The keys first: whoever had one before has committed, and its result is there to be found.
    let first = keep_first_of_each_recipe(shared, known).await;
    let wanted = match end_with_earlier_results(shared, first).await {
        Ok(wanted) => wanted,
        Err(jobs) => return jobs.into_iter().for_each(|job| shared.finish(job.finished(Ending::Released))),
    };
    let whole = end_without_inputs(shared, wanted).await;
    let within = limits::keep_within_quotas(shared, whole).await;
    let whole = limits::admit(shared, within).await;
    let contents = match load_inline_contents(shared, &whole).await {
        Ok(contents) => contents,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "inputs cannot be loaded for now");
            return whole.into_iter().for_each(|job| shared.finish(job.finished(Ending::Released)));
        }
    };
    for job in whole {
        let identity = job.identity();
        match equip(shared, job, &contents).await {
            Ok(prepared) => {
                if shared.prepared.send(prepared).is_err() {
                    tracing::error!("a prepared job came after the executor had ended; its lease will expire");
                }
            }
            Err(obstacle) => shared.finish(stopped_by(shared, identity, obstacle)),
        }
    }
}

/// Whether a directory is granted to any of these jobs, as far as is known.
async fn read_directories(shared: &Shared, jobs: &[ClaimedJob]) -> bool {
    for job in jobs {
        let asset = shared.assets.find(shared, &job.claim.tenant, job.asset.version).await;
        if asset.map_or(true, |asset| asset.reads_directories()) {
            return true;
        }
    }
    false
}

/// Waits until the process has room for what these jobs read, and gives each its share. False when the runner stops
/// first.
async fn take_room(shared: &Shared, jobs: &[ClaimedJob]) -> bool {
    let share = |job: &ClaimedJob| job.inputs.min(INPUTS_HELD_MAX);
    let wanted: usize = jobs.iter().map(share).sum();
    let room = shared.input_room.clone().acquire_many_owned(wanted as u32);
    let mut room = tokio::select! {
        room = room => room.expect("nobody closes the semaphore"),
        () = shared.stopping.cancelled() => return false,
    };
    let mut running = shared.lock_running();
    for job in jobs {
        if let Some(held) = running.get_mut(&job.claim.key()) {
            held.room = room.split(share(job));
        }
    }
    true
}

/// Asks until the database answers; none when the runner stops first.
pub(super) async fn insist<T, A>(shared: &Shared, mut ask: impl FnMut() -> A) -> Option<T>
where
    A: Future<Output = Result<T, StoreError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "claimed jobs cannot be loaded for now");
                shared.tell(Event::Trouble(error.to_string()));
            }
        }
        if shared.stopping.is_cancelled() {
            return None;
        }
        shared.pause(HOST_FAULT_WAIT_BASE).await;
    }
}

/// Loads what the job is, and works out its recipe.
async fn recognize(shared: &Arc<Shared>, job: ClaimedJob, inputs: ClaimedInputs) -> Result<KnownJob, Obstacle> {
    let asset = shared.assets.find(shared, &job.claim.tenant, job.asset.version).await?;
    let partition_key = parse_key(&job.partition_key)?;
    let found = Resources::find(shared, &job.claim.tenant, &asset.bound.grants, &asset.own).await?;
    let resources = Arc::new(found);
    let sources = if asset.reads_directories() {
        let (asset, resources) = (asset.clone(), resources.clone());
        let prints = shared.fingerprints.clone();
        let opened = tokio::task::spawn_blocking(move || take_fingerprints(&asset, &resources, &prints)).await;
        opened.map_err(|_| Obstacle::Host("opening directories failed".to_owned()))??
    } else {
        Vec::new()
    };
    let parts = RecipeParts {
        component: asset.bound.component,
        config: asset.config_digest,
        grants: asset.grants_digest,
        sources: sources_digest(&fingerprints(&sources)),
        inputs: input_digests(&asset.bound, &inputs)?,
    };
    let recipe = parts.recipe(&asset.bound.definition.name, &partition_key);
    Ok(KnownJob {
        claim: job.claim,
        run: job.run,
        asset,
        partition_key,
        parts,
        recipe,
        sources,
        resources,
        inputs: inputs.present,
        over_quota: job.asset.over_quota,
        pools: job.asset.pools.clone(),
        forced: job.forced,
        dependents: job.dependents,
    })
}

/// One digest for each declared input, as the planner would work it out.
fn input_digests(bound: &BoundAsset, read: &ClaimedInputs) -> Result<Vec<Digest>, Obstacle> {
    let digest_of = |declared: &crate::pipeline::asset::Input| {
        let inputs = read.present.iter().filter(|input| input.input == declared.name);
        let read_versions: Vec<&ClaimedVersion> = inputs.map(|input| &*input.version).collect();
        let keys: Vec<PartitionKey> =
            read_versions.iter().map(|version| parse_key(&version.partition_key)).collect::<Result<_, _>>()?;
        let versions = read_versions.iter().zip(&keys).map(|(version, partition)| recipe::InputVersion {
            asset: &version.asset,
            partition,
            seen: version.version_digest,
        });
        let absent = read.absent.get(&declared.name).copied().unwrap_or_default();
        Ok(input_digest(&declared.name, versions, absent))
    };
    bound.definition.inputs.iter().map(digest_of).collect()
}

fn fingerprints(sources: &[Source]) -> Vec<SourceFingerprint> {
    let of = |source: &Source| {
        let fingerprint = source.fingerprint?.digest;
        Some(SourceFingerprint { resource: source.resource.clone(), fingerprint })
    };
    sources.iter().filter_map(of).collect()
}

/// The granted directories as they are now. Blocks.
pub(super) fn take_fingerprints(
    asset: &KnownAsset,
    resources: &Resources,
    prints: &Mutex<FingerprintCache>,
) -> Result<Vec<Source>, Obstacle> {
    let mut sources = Vec::new();
    for grant in asset.bound.grants.iter().filter_map(Grant::directory) {
        let directory = open_directory(resources, &grant.resource)?;
        let fingerprint = match grant.access {
            Access::Read => {
                let mut prints = prints.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = fingerprint(&directory, &grant.paths, &mut prints);
                Some(
                    taken
                        .map_err(|error| Obstacle::Host(format!("resource `{}`: {}", grant.resource, chain(&error))))?,
                )
            }
            Access::ReadWrite => None,
        };
        sources.push(Source { resource: grant.resource.clone(), fingerprint });
    }
    Ok(sources)
}

/// Ends the jobs whose result is there already; returns the others. On a host fault, all of them.
async fn end_with_earlier_results(shared: &Shared, jobs: Vec<KnownJob>) -> Result<Vec<KnownJob>, Vec<KnownJob>> {
    let mut by_tenant: HashMap<String, Vec<(AssetId, String, Digest)>> = HashMap::new();
    for job in jobs.iter().filter(|job| may_reuse(job)) {
        by_tenant.entry(job.claim.tenant.clone()).or_default().push((
            job.asset.id,
            job.partition_key.as_str().to_owned(),
            job.recipe,
        ));
    }
    let mut found: HashMap<(AssetId, Digest), CachedResult> = HashMap::new();
    for (tenant, wanted) in by_tenant {
        match shared.store.find_by_recipe(&tenant, &wanted).await {
            Ok(results) => found.extend(results.into_iter().map(|result| ((result.asset, result.recipe), result))),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "earlier results cannot be looked up for now");
                return Err(jobs);
            }
        }
    }
    let earlier = |job: &KnownJob| {
        let result = may_reuse(job).then(|| found.get(&(job.asset.id, job.recipe))).flatten();
        result.filter(|result| is_fresh(job, result))
    };
    let stored = |job| earlier(job).filter(|result| !result.inline).map(|result| (&job.claim.tenant, result.digest));
    let gone = match find_gone(shared, jobs.iter().filter_map(stored).collect()).await {
        Ok(gone) => gone,
        Err(error) => {
            put_off(shared, jobs, &error);
            return Ok(Vec::new());
        }
    };
    let mut wanted = Vec::new();
    for job in jobs {
        let is_there = |digest| !gone.contains(&(job.claim.tenant.clone(), digest));
        match earlier(&job).filter(|result| result.inline || is_there(result.digest)) {
            Some(result) => {
                let ending = reused(&job, result);
                shared.finish(job.finished(ending));
            }
            None => wanted.push(job),
        }
    }
    Ok(wanted)
}

fn may_reuse(job: &KnownJob) -> bool {
    !job.forced && (job.asset.bound.pure || job.asset.bound.fresh_for_ms.is_some())
}

/// Whether an earlier result is still fresh where it has to be.
fn is_fresh(job: &KnownJob, result: &CachedResult) -> bool {
    job.asset.bound.pure
        || job.asset.bound.fresh_for_ms.is_some_and(|fresh_for_ms| result.age_ms.unsigned_abs() < fresh_for_ms)
}

/// Ends the jobs with inputs whose bytes are gone, which no wait brings back, and making them again does; returns the
/// others.
async fn end_without_inputs(shared: &Shared, jobs: Vec<KnownJob>) -> Vec<KnownJob> {
    let stored = jobs.iter().flat_map(|job| job.stored_versions().map(|version| (&job.claim.tenant, version.digest)));
    let gone = match find_gone(shared, stored.collect()).await {
        Ok(gone) => gone,
        Err(error) => {
            put_off(shared, jobs, &error);
            return Vec::new();
        }
    };
    let mut whole = Vec::new();
    for job in jobs {
        let is_gone = |digest| gone.contains(&(job.claim.tenant.clone(), digest));
        let Some(digest) = job.stored_versions().map(|version| version.digest).find(|digest| is_gone(*digest)) else {
            whole.push(job);
            continue;
        };
        let cause = lost_input(&job, digest, &BlobError::Missing { digest }.to_string());
        shared.finish(stopped_by(shared, job.identity(), Obstacle::Final(cause)));
    }
    whole
}

/// Of these blobs of tenants, those that the blob store does not have. Asked for a batch of jobs at once: an object
/// store takes its time for each answer.
async fn find_gone(shared: &Shared, wanted: Vec<(&String, Digest)>) -> Result<HashSet<(String, Digest)>, BlobError> {
    let mut by_tenant: HashMap<&String, Vec<Digest>> = HashMap::new();
    for (tenant, digest) in wanted {
        by_tenant.entry(tenant).or_default().push(digest);
    }
    let mut gone = HashSet::new();
    for (tenant, digests) in by_tenant {
        let missing = shared.blobs.find_missing(tenant, digests).await?;
        gone.extend(missing.into_iter().map(|digest| (tenant.clone(), digest)));
    }
    Ok(gone)
}

/// Of these jobs nothing can be said while the blob store does not answer.
fn put_off(shared: &Shared, jobs: Vec<KnownJob>, error: &BlobError) {
    for job in jobs {
        shared.finish(stopped_by(shared, job.identity(), Obstacle::Host(chain(error))));
    }
}

fn reused(job: &KnownJob, result: &CachedResult) -> Ending {
    if result.latest {
        return Ending::UpToDate(result.id);
    }
    Ending::Materialized(Box::new(NewMaterialization {
        id: MaterializationId::new(),
        asset: job.asset.id,
        asset_version: job.asset.version,
        partition_key: job.partition_key.as_str().to_owned(),
        attempt: AttemptId::new(),
        digest: result.digest,
        size_bytes: result.size_bytes,
        inline: None,
        media_type: result.media_type.clone(),
        metadata: result.metadata.clone(),
        recipe: job.recipe,
        version_digest: version_digest(result.digest, &result.media_type, &fields(&result.metadata)),
        sources_digest: job.parts.sources,
        input_digests: job.parts.inputs.clone(),
        engine_id: result.engine_id.clone(),
        reused_from: Some(result.origin),
        edges: job.edges(|_, _| 0),
        external_reads: job.external_reads(),
        staged_files: Vec::new(),
        applied: false,
    }))
}

/// Of several live jobs that would make the same, one goes on; the others join it, and are not this worker's any more.
async fn keep_first_of_each_recipe(shared: &Shared, mut jobs: Vec<KnownJob>) -> Vec<KnownJob> {
    let mut first = Vec::with_capacity(jobs.len());
    for _ in 0..LIVE_KEY_TRIES {
        if jobs.is_empty() {
            break;
        }
        match take_or_join(shared, &jobs).await {
            Ok((taken, joined)) => {
                for job in std::mem::take(&mut jobs) {
                    let id = job.claim.job;
                    match joined.get(&id) {
                        Some(Joined::Run(run)) => {
                            shared.let_go(&job.claim);
                            shared.tell(Event::Joined { run: job.run, job: id, joined: *run });
                        }
                        Some(Joined::Itself) => first.push(job),
                        None if taken.contains(&id) => first.push(job),
                        None => jobs.push(job),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "keys of recipes cannot be taken for now");
            }
        }
        if !jobs.is_empty() {
            shared.pause(LIVE_KEY_WAIT).await;
        }
    }
    for job in jobs {
        shared.finish(job.finished(Ending::Deferred {
            wait_ms: LIVE_KEY_PUT_OFF.as_millis() as u64,
            cause: "another job that makes the same is ending".to_owned(),
            counts: Counts::Nothing,
        }));
    }
    give_up_old_keys(shared, &first).await;
    first
}

/// Which of these jobs have their keys now, and which have joined another.
async fn take_or_join(
    shared: &Shared,
    jobs: &[KnownJob],
) -> Result<(HashSet<JobId>, HashMap<JobId, Joined>), StoreError> {
    let mut keys: Vec<LiveKey> = jobs.iter().map(KnownJob::key).collect();
    let taken: HashSet<JobId> = shared.store.take_live_keys(&keys).await?.into_iter().collect();
    keys.retain(|key| !taken.contains(&key.claim.job));
    let joined = if keys.is_empty() { HashMap::new() } else { shared.store.join_live_jobs(&keys).await? };
    Ok((taken, joined))
}

/// A job that was tried before may have had another recipe then, because a directory has changed since.
async fn give_up_old_keys(shared: &Shared, jobs: &[KnownJob]) {
    let tried = jobs.iter().filter(|job| job.claim.charged > 0 || job.claim.released > 0);
    let keys: Vec<LiveKey> = tried.map(KnownJob::key).collect();
    if keys.is_empty() {
        return;
    }
    match shared.store.give_up_old_keys(&keys).await {
        Ok(0) => {}
        Ok(_) => shared.wake.notify_one(),
        // They go with the jobs' ends at the latest.
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "keys of earlier recipes are kept for now");
        }
    }
}
