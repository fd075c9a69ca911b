//! From a manifest to an immutable version: read, inspect, compile, describe, validate, write.
//!
//! Whatever is wrong is answered at once: with the manifest, with any of its components, and with how they fit. No code
//! of a component runs before it was inspected, and `describe` runs without grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::Path,
    sync::Arc,
};

use super::{
    App, AppError,
    resource::{folder_of, record, settled},
};
use crate::{
    blob::{DigestWriter, Stored},
    engine::{DescribeFailure, Import, ImportClass, Inspection},
    id::{AssetId, AssetVersionId, PipelineId, PipelineVersionId},
    limit::{COMPONENT_BYTES_MAX, MANIFEST_BYTES_MAX},
    pipeline::{
        asset::{AssetDefinition, Capability},
        diagnostic::{Diagnostic, did_you_mean},
        manifest::{Manifest, parse_manifest},
        validate::{Bound, BoundAsset, DescribedComponent, validate},
    },
    store::{
        StoreError,
        pipelines::{NewAssetVersion, NewPipelineVersion},
        pools::NewPool,
        schedules::NewSchedule,
    },
};

/// The manifest's name when a folder is given.
pub const MANIFEST_NAME: &str = "flowstone.toml";

/// A pipeline that could be deployed.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As it was written.
    pub manifest: Manifest,
    /// Its assets with everything that the manifest decides.
    pub bound: Bound,
    text: String,
    components: Vec<Arc<[u8]>>,
}

/// What a deploy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The pipeline.
    pub name: String,
    /// Its version.
    pub number: i32,
    /// Whether anything has changed since the last one.
    pub new: bool,
}

/// A deployed version, ready to plan.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The version's number.
    pub number: i32,
    /// This version.
    pub id: PipelineVersionId,
    /// Whatever the version.
    pub pipeline: PipelineId,
    /// In topological order.
    pub assets: Vec<PipelineAsset>,
}

/// An asset of a deployed version.
#[derive(Clone, Debug)]
pub struct PipelineAsset {
    /// Whatever the version.
    pub id: AssetId,
    /// Of this version.
    pub version: AssetVersionId,
    /// Its definition and what the manifest decides.
    pub bound: BoundAsset,
}

impl App {
    /// Reads a manifest and its components and proves that they fit; writes nothing but compiled code.
    pub async fn check(&self, manifest: &Path) -> Result<Checked, AppError> {
        let path = if manifest.is_dir() { manifest.join(MANIFEST_NAME) } else { manifest.to_owned() };
        let file = path.display().to_string();
        let text = read_text(&path)?;
        let registered = self.list_registered_resources().await?;
        let mut parsed = parse_manifest(&file, &text, &registered).map_err(AppError::Invalid)?;
        let folder = folder_of(&path)?;

        let mut mistakes = self.settle_resources(&mut parsed, &folder);
        mistakes.extend(self.unknown_pools(&parsed).await?);
        let mut components = Vec::new();
        let mut described = Vec::new();
        for source in &parsed.components {
            match self.describe_file(&folder, &source.path).await {
                Ok((component, described_component)) => {
                    components.push(component);
                    described.push(described_component);
                }
                Err(Trouble::User(messages)) => mistakes.extend(messages.into_iter().map(|message| Diagnostic {
                    file: source.path.clone(),
                    place: None,
                    key: String::new(),
                    message,
                    fix: None,
                })),
                Err(Trouble::Host(error)) => return Err(error),
            }
        }
        if !mistakes.is_empty() {
            return Err(AppError::Invalid(mistakes));
        }
        let bound = validate(&described, &parsed).map_err(AppError::Invalid)?;
        Ok(Checked { manifest: parsed, bound, text, components })
    }

    /// Writes a checked pipeline as a new version, unless the newest one is the same.
    pub async fn deploy(&self, checked: &Checked) -> Result<Deployed, AppError> {
        // Bytes that were left unnamed long ago may be collected at this moment: then they are stored again.
        match self.store_version(checked).await {
            Err(AppError::Store(StoreError::Collected)) => self.store_version(checked).await,
            other => other,
        }
    }

    async fn store_version(&self, checked: &Checked) -> Result<Deployed, AppError> {
        let stored_since_us = self.store.find_instant_us().await?;
        let mut components = Vec::new();
        for component in &checked.components {
            components.push(self.blobs.put(&self.tenant, component.clone()).await?);
        }
        let schedules = self.new_schedules(&checked.manifest).await?;
        let version = checked.version(&self.tenant, components, stored_since_us, schedules)?;
        let (number, new) = self.store.deploy(&version).await?;
        Ok(Deployed { name: version.name, number, new })
    }

    /// The newest version of a deployed pipeline.
    pub async fn load_pipeline(&self, name: &str) -> Result<Pipeline, AppError> {
        let Some(record) = self.store.find_pipeline(&self.tenant, name).await? else {
            return Err(self.no_such_pipeline(name).await?);
        };
        let assets = record
            .assets
            .into_iter()
            .map(|asset| {
                let bound: BoundAsset = serde_json::from_value(asset.settings).map_err(|error| {
                    AppError::host(
                        format!("read asset `{}`, which another version of flowstone wrote", asset.name),
                        error,
                    )
                })?;
                Ok(PipelineAsset { id: asset.asset, version: asset.id, bound })
            })
            .collect::<Result<_, AppError>>()?;
        Ok(Pipeline { name: record.name, number: record.number, id: record.id, pipeline: record.pipeline, assets })
    }

    /// PIPELINE of the command line: a manifest or its folder is deployed, a name is looked up.
    pub async fn resolve_pipeline(&self, pipeline: &str) -> Result<(Pipeline, Option<Deployed>), AppError> {
        if !is_path(pipeline) {
            return Ok((self.load_pipeline(pipeline).await?, None));
        }
        let checked = self.check(Path::new(pipeline)).await?;
        let deployed = self.deploy(&checked).await?;
        Ok((self.load_pipeline(&deployed.name).await?, Some(deployed)))
    }

    /// What a component describes, after it has passed inspection.
    pub async fn describe(&self, bytes: Vec<u8>) -> Result<Vec<AssetDefinition>, AppError> {
        match self.describe_bytes(&bytes.into()).await {
            Ok((_, definitions)) => Ok(definitions),
            Err(Trouble::User(messages)) => Err(AppError::Usage(messages.join("\n"))),
            Err(Trouble::Host(error)) => Err(error),
        }
    }

    async fn describe_file(&self, folder: &Path, path: &str) -> Result<(Arc<[u8]>, DescribedComponent), Trouble> {
        let bytes: Arc<[u8]> = read_component(&folder.join(path))?.into();
        let (inspection, assets) = self.describe_bytes(&bytes).await?;
        let idle = idle_imports(&inspection, &assets);
        if !idle.is_empty() {
            return Err(Trouble::User(idle));
        }
        let described = DescribedComponent { path: path.to_owned(), digest: inspection.digest, assets };
        Ok((bytes, described))
    }

    async fn describe_bytes(&self, bytes: &Arc<[u8]>) -> Result<(Inspection, Vec<AssetDefinition>), Trouble> {
        let (engine, source) = (self.engine.clone(), bytes.clone());
        let inspection = tokio::task::spawn_blocking(move || engine.inspect(&source))
            .await
            .map_err(|error| Trouble::Host(AppError::host("inspect a component", error)))?
            .map_err(|problems| Trouble::User(problems.iter().map(ToString::to_string).collect()))?;
        let source = bytes.clone();
        let component =
            self.engine.load(&self.tenant, inspection.digest, async move || Ok(source.to_vec())).await.map_err(
                |error| {
                    if error.is_refused() {
                        Trouble::User(vec![error.to_string()])
                    } else {
                        Trouble::Host(AppError::host("compile a component", error))
                    }
                },
            )?;
        let assets = self.engine.describe(&component).await.map_err(|failure| match failure {
            DescribeFailure::Host(_) => Trouble::Host(AppError::host("describe a component", failure)),
            failure => Trouble::User(vec![failure.to_string()]),
        })?;
        Ok((inspection, assets))
    }

    /// Makes the manifest's resources independent of where it is, or says what is wrong with them: what is not there, and,
    /// where resources are an operator's alone, every one of them.
    fn settle_resources(&self, manifest: &mut Manifest, folder: &Path) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        for (name, resource) in &mut manifest.resources {
            let mistake = match self.manifest_resources {
                true => match settled(name, resource, folder) {
                    Ok(settled) => {
                        *resource = settled;
                        continue;
                    }
                    Err(mistake) => mistake,
                },
                false => Diagnostic {
                    file: String::new(),
                    place: None,
                    key: format!("resources.{name}"),
                    message: "here a resource is registered by an operator, not declared by a pipeline".to_owned(),
                    fix: Some(format!(
                        "register it with `flowstone resource add {} {name}` and remove the section; \
                         or allow such sections with FLOWSTONE_MANIFEST_RESOURCES=allow",
                        manifest.file
                    )),
                },
            };
            mistakes.push((format!("resources.{name}"), mistake));
        }
        let place = |(key, mistake): (String, Diagnostic)| Diagnostic {
            file: manifest.file.clone(),
            place: manifest.place(&key),
            ..mistake
        };
        mistakes.into_iter().map(place).collect()
    }

    async fn no_such_pipeline(&self, name: &str) -> Result<AppError, AppError> {
        let known = self.store.list_pipelines(&self.tenant).await?;
        let hint = did_you_mean(name, known.iter().map(|pipeline| pipeline.name.as_str()));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        Ok(AppError::Usage(format!(
            "no pipeline `{name}` is deployed{hint}; `flowstone deploy MANIFEST` deploys one, and a manifest is given by its path"
        )))
    }
}

/// Capabilities that the component imports and none of its assets asks for: nothing could ever grant them.
fn idle_imports(inspection: &Inspection, assets: &[AssetDefinition]) -> Vec<String> {
    let required: BTreeSet<Capability> =
        assets.iter().flat_map(|asset| asset.requirements.iter().map(|requirement| requirement.capability)).collect();
    let idle = inspection.capabilities.iter().filter(|capability| !required.contains(capability));
    idle.map(|capability| {
        let name = capability.name();
        let of_it = |import: &&Import| import.class == ImportClass::Capability(*capability);
        let imports: Vec<String> =
            inspection.imports.iter().filter(of_it).map(|import| format!("`{}`", unversioned(&import.name))).collect();
        let imports = imports.join(" and ");
        format!("it imports {imports}, and no asset of it requires {name}; declare the requirement, or build without the import")
    })
    .collect()
}

fn unversioned(import: &str) -> &str {
    import.split('@').next().unwrap_or(import)
}

/// Whose fault it is that a component cannot be described.
enum Trouble {
    User(Vec<String>),
    Host(AppError),
}

impl Checked {
    fn version(
        &self,
        tenant: &str,
        components: Vec<Stored>,
        stored_since_us: i64,
        schedules: Vec<NewSchedule>,
    ) -> Result<NewPipelineVersion, AppError> {
        let mut digest = DigestWriter::default();
        let mut resources = Vec::new();
        for (name, resource) in &self.manifest.resources {
            let record = record(name.clone(), resource)?;
            digest.field(name.as_bytes());
            digest.field(record.settings.to_string().as_bytes());
            resources.push(record);
        }
        let (mut assets, mut pools) = (Vec::new(), BTreeMap::new());
        for asset in &self.bound.assets {
            let settings = serde_json::to_value(asset)
                .map_err(|error| AppError::host(format!("store asset `{}`", asset.definition.name), error))?;
            digest.field(settings.to_string().as_bytes());
            let (pipeline, name) = (&self.manifest.name, &asset.definition.name);
            pools.extend(asset.concurrency.declared(pipeline, name));
            assets.push(NewAssetVersion {
                pools: asset.concurrency.pool_names(pipeline, name, &asset.grants).into_iter().collect(),
                name: asset.definition.name.clone(),
                component: asset.component,
                config_digest: asset.config_digest,
                grants_digest: asset.grants_digest,
                settings,
            });
        }
        // Another schedule is another version: which one is declared must be seen in what was deployed.
        for schedule in &schedules {
            digest.field(schedule.name.as_bytes());
            digest.field(schedule.settings.to_string().as_bytes());
        }
        Ok(NewPipelineVersion {
            tenant: tenant.to_owned(),
            name: self.manifest.name.clone(),
            digest: digest.finish(),
            manifest: self.text.clone(),
            components,
            stored_since_us,
            resources,
            assets,
            schedules,
            pools: pools.into_iter().map(|(name, size)| NewPool { name, size: size as i32 }).collect(),
        })
    }
}

/// A name cannot hold a slash or a dot, so neither can be mistaken for the other.
fn is_path(pipeline: &str) -> bool {
    pipeline.contains(['/', '.'])
}

pub(super) fn read_text(path: &Path) -> Result<String, AppError> {
    let shown = path.display();
    let mistake = |message: String| AppError::Usage(message);
    let file = fs::File::open(path).map_err(|error| mistake(format!("cannot read the manifest {shown}: {error}")))?;
    let mut bytes = Vec::new();
    // One more than allowed, so that the parser sees that it is too much.
    file.take(MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| mistake(format!("cannot read the manifest {shown}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| mistake(format!("the manifest {shown} is not UTF-8 text")))
}

fn read_component(path: &Path) -> Result<Vec<u8>, Trouble> {
    let refused =
        |error: std::io::Error| Trouble::User(vec![format!("cannot be read: {error}; build it, or mend `path`")]);
    let file = fs::File::open(path).map_err(refused)?;
    let mut bytes = Vec::new();
    file.take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
    Ok(bytes)
}
