//! Planning: gathers what the planner compares, and asks it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};
use jiff::Timestamp;

use super::{App, AppError, Pipeline};
use crate::{
    capability::files::{FingerprintCache, fingerprint},
    id::{AssetId, BackfillId, RunId},
    limit::LATEST_LOOKED_UP_MAX,
    pipeline::{
        diagnostic::chain,
        keyspace::KeySpace,
        partition::PartitionKey,
        plan::{Force, Known, Latest, Plan, Request, find_compared, key_spaces, plan},
        recipe::{RecipeParts, SourceFingerprint},
        resource::{Access, Grant, Resource},
        selection::{SelectedAsset, SelectedPartitions, resolve_selection, select_keys},
        validate::BoundAsset,
    },
    store::{StoreError, latest::LatestRecord},
};

/// What somebody wants materialized.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Which assets and partitions.
    pub wanted: Wanted,
    /// Whether what the selection needs is made too, where it is missing or stale.
    pub with_inputs: bool,
    /// What runs although nothing has changed.
    pub force: Force,
}

/// Which assets and partitions somebody wants.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// As a person names them.
    Named {
        /// By name; none means all.
        assets: Vec<String>,
        /// As typed; none means all.
        partitions: Vec<String>,
    },
    /// What an earlier run left unmade.
    LeftBy {
        /// Which run.
        run: RunId,
        /// By asset, the partitions.
        partitions: BTreeMap<String, Vec<PartitionKey>>,
    },
    /// The next partitions of a backfill.
    OfBackfill {
        /// Which backfill.
        backfill: BackfillId,
        /// By asset, the partitions.
        partitions: BTreeMap<String, Vec<PartitionKey>>,
    },
}

impl App {
    /// What would run now, and why. Changes nothing.
    pub async fn plan(&self, pipeline: &Pipeline, request: &PlanRequest) -> Result<Plan, AppError> {
        let assets: Vec<BoundAsset> = pipeline.assets.iter().map(|asset| asset.bound.clone()).collect();
        let now = Timestamp::now();
        let spaces = key_spaces(&assets, now).map_err(usage)?;
        let selection = match &request.wanted {
            Wanted::Named { assets: names, partitions } => resolve_selection(&assets, &spaces, names, partitions),
            Wanted::LeftBy { partitions, .. } | Wanted::OfBackfill { partitions, .. } => {
                select_keys(&assets, &spaces, partitions)
            }
        };
        let selection = selection
            .map_err(|errors| AppError::Usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        self.plan_selected(pipeline, &assets, &spaces, &selection, request, now).await
    }

    /// What would run of a resolved selection.
    pub(super) async fn plan_selected(
        &self,
        pipeline: &Pipeline,
        assets: &[BoundAsset],
        spaces: &[Arc<KeySpace>],
        selection: &[SelectedAsset],
        request: &PlanRequest,
        now: Timestamp,
    ) -> Result<Plan, AppError> {
        let unknown = Latest::new(assets.len());
        let request = Request {
            assets,
            spaces,
            selection,
            with_inputs: request.with_inputs,
            force: request.force,
            now,
            latest: &unknown,
            sources: &[],
        };
        let records = self.list_compared(pipeline, &request).await?;
        let latest = self.read_latest(pipeline, records).await?;
        let sources = self.take_fingerprints(pipeline).await?;
        plan(&Request { latest: &latest, sources: &sources, ..request }).map_err(usage)
    }

    /// The newest materializations that a plan compares: of few partitions just those, however many there are.
    async fn list_compared(&self, pipeline: &Pipeline, request: &Request<'_>) -> Result<Vec<LatestRecord>, AppError> {
        let ids: Vec<AssetId> = pipeline.assets.iter().map(|asset| asset.id).collect();
        let selected = |selected: &SelectedAsset| match &selected.partitions {
            SelectedPartitions::All => request.spaces[selected.asset].len(),
            SelectedPartitions::Only(ranges) | SelectedPartitions::Possible(ranges) => ranges.len(),
        };
        let few = |count: u64| count <= LATEST_LOOKED_UP_MAX;
        if few(request.selection.iter().map(|one| u64::from(selected(one))).sum()) {
            let compared = find_compared(request).map_err(usage)?;
            if few(compared.iter().map(|indexes| u64::from(indexes.len())).sum()) {
                let (mut assets, mut keys) = (Vec::new(), Vec::new());
                for (asset, indexes) in compared.iter().enumerate() {
                    for index in indexes.iter() {
                        assets.push(ids[asset]);
                        keys.push(request.spaces[asset].key(index).as_str().to_owned());
                    }
                }
                return Ok(self.store.list_latest_of(&self.tenant, &assets, &keys).await?);
            }
        }
        Ok(self.store.list_latest(&self.tenant, &ids).await?)
    }

    async fn read_latest(&self, pipeline: &Pipeline, records: Vec<LatestRecord>) -> Result<Latest, AppError> {
        let number: HashMap<_, usize> =
            pipeline.assets.iter().enumerate().map(|(number, asset)| (asset.id, number)).collect();
        let versions: HashSet<_> = records.iter().map(|record| record.asset_version).collect();
        let versions: Vec<_> = versions.into_iter().collect();
        let versions = self.store.list_version_parts(&self.tenant, &versions).await?;
        let gone = self.blobs.find_missing(&self.tenant, records.iter().filter_map(|record| record.stored)).await?;
        let mut latest = Latest::new(pipeline.assets.len());
        // Assets share their partitions: each text is read once, and kept once.
        let mut partitions: HashMap<String, PartitionKey> = HashMap::new();
        for record in records {
            let partition = match partitions.get(&record.partition_key) {
                Some(partition) => partition.clone(),
                None => {
                    let partition = parse_partition(&record.partition_key)?;
                    partitions.insert(record.partition_key, partition.clone());
                    partition
                }
            };
            // What a plan counts on must be there: an output whose bytes are gone is made again.
            if record.stored.is_some_and(|digest| gone.contains(&digest)) {
                tracing::warn!(materialization.id = %record.id, "its bytes are missing from the blob store");
                continue;
            }
            let version = versions[&record.asset_version];
            let known = Known {
                materialization: record.id,
                digest: record.version_digest,
                parts: RecipeParts {
                    component: version.component,
                    config: version.config_digest,
                    grants: version.grants_digest,
                    sources: record.sources_digest,
                    inputs: record.input_digests,
                },
                made_at_ms: record.made_at_ms,
            };
            latest.insert(number[&record.asset], partition, known);
        }
        Ok(latest)
    }

    /// By asset, what its read-only grants reach at this moment.
    async fn take_fingerprints(&self, pipeline: &Pipeline) -> Result<Vec<Vec<SourceFingerprint>>, AppError> {
        let paths: HashMap<String, PathBuf> = self
            .list_resources_of(pipeline)
            .await?
            .into_iter()
            .filter_map(|(name, resource)| match resource {
                Resource::Directory { path, .. } => Some((name, PathBuf::from(path))),
                _ => None,
            })
            .collect();
        let grants: Vec<Vec<Grant>> = pipeline.assets.iter().map(|asset| asset.bound.grants.clone()).collect();
        let taken = tokio::task::spawn_blocking(move || {
            let mut cache = FingerprintCache::default();
            grants.iter().map(|grants| fingerprints_of(grants, &paths, &mut cache)).collect()
        });
        taken.await.map_err(|error| AppError::host("look at the granted directories", error))?
    }
}

pub(super) fn parse_partition(text: &str) -> Result<PartitionKey, StoreError> {
    text.parse()
        .map_err(|error| StoreError::Unreadable { what: format!("partition key `{text}`"), source: Box::new(error) })
}

fn fingerprints_of(
    grants: &[Grant],
    paths: &HashMap<String, PathBuf>,
    cache: &mut FingerprintCache,
) -> Result<Vec<SourceFingerprint>, AppError> {
    let directories = grants.iter().filter_map(Grant::directory);
    let read_only = directories.filter(|grant| grant.access == Access::Read);
    read_only
        .map(|grant| {
            let resource = &grant.resource;
            let Some(path) = paths.get(resource) else {
                return Err(AppError::Usage(format!(
                    "resource `{resource}` is not registered; deploy the pipeline again"
                )));
            };
            let cannot = |error: &dyn std::error::Error| {
                AppError::Usage(format!("resource `{resource}`: cannot read {}: {error}", path.display()))
            };
            let directory = Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| cannot(&error))?;
            let taken = fingerprint(&directory, &grant.paths, cache).map_err(|error| cannot(&error))?;
            Ok(SourceFingerprint { resource: resource.clone(), fingerprint: taken.digest })
        })
        .collect()
}

pub(super) fn usage(error: impl std::error::Error) -> AppError {
    AppError::Usage(chain(&error))
}
