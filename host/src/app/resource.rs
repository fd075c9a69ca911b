//! Resources: what an operator registers, what a manifest declares, and what a pipeline's grants find of both.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{App, AppError, Pipeline, deploy::read_text};
use crate::{
    pipeline::{
        diagnostic::Diagnostic,
        manifest::parse_resources,
        resource::{Resource, SecretSource},
    },
    store::{StoreError, pipelines::ResourceRecord},
};

impl App {
    /// Registers the resources of a file: all that its `[resources]` hold, or those of these names. Returns their names.
    pub async fn register_resources(&self, file: &Path, names: &[String]) -> Result<Vec<String>, AppError> {
        let text = read_text(file)?;
        let shown = file.display().to_string();
        let declared = parse_resources(&shown, &text).map_err(AppError::Invalid)?;
        for name in names {
            if !declared.contains_key(name) {
                return Err(AppError::Usage(format!("{shown} declares no resource `{name}`")));
            }
        }
        let folder = folder_of(file)?;
        let wanted = declared.into_iter().filter(|(name, _)| names.is_empty() || names.contains(name));
        let mut records = Vec::new();
        for (name, resource) in wanted {
            let resource = placed(&resource, &folder);
            if let Some(mistake) = missing(&name, &resource) {
                return Err(AppError::Invalid(vec![Diagnostic { file: shown, ..mistake }]));
            }
            records.push(record(name, &resource)?);
        }
        if records.is_empty() {
            return Err(AppError::Usage(format!(
                "{shown} declares no resources: write [resources.NAME] with its kind"
            )));
        }
        self.store.register_resources(&self.tenant, &records).await?;
        Ok(records.into_iter().map(|record| record.name).collect())
    }

    /// What operators have registered, by name.
    pub async fn list_registered_resources(&self) -> Result<BTreeMap<String, Resource>, AppError> {
        parse_records(self.store.list_registered_resources(&self.tenant).await?)
    }

    /// What the grants of a version find: its own resources, and what is registered.
    pub async fn list_resources_of(&self, pipeline: &Pipeline) -> Result<BTreeMap<String, Resource>, AppError> {
        let mut resources = self.list_registered_resources().await?;
        resources.extend(parse_records(self.store.list_resources(&self.tenant, pipeline.id).await?)?);
        Ok(resources)
    }
}

/// As it is stored.
pub(super) fn record(name: String, resource: &Resource) -> Result<ResourceRecord, AppError> {
    let settings =
        serde_json::to_value(resource).map_err(|error| AppError::host(format!("store resource `{name}`"), error))?;
    Ok(ResourceRecord { name, kind: resource.capability().resource_kind().to_owned(), settings })
}

fn parse_records(records: Vec<ResourceRecord>) -> Result<BTreeMap<String, Resource>, AppError> {
    let parse = |record: ResourceRecord| {
        let resource = serde_json::from_value(record.settings).map_err(|source| {
            AppError::Store(StoreError::Unreadable {
                what: format!("resource `{}`", record.name),
                source: Box::new(source),
            })
        })?;
        Ok((record.name, resource))
    };
    records.into_iter().map(parse).collect()
}

/// The folder that a manifest's paths are relative to.
pub(super) fn folder_of(file: &Path) -> Result<PathBuf, AppError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(folder).map_err(|error| AppError::host("find the manifest's folder", error))
}

/// A resource whose paths no longer depend on where its manifest is.
pub(super) fn placed(resource: &Resource, folder: &Path) -> Resource {
    let place = |path: &String| folder.join(path).display().to_string();
    match resource {
        Resource::Directory { path, access } => Resource::Directory { path: place(path), access: *access },
        Resource::Secret { source: SecretSource::File(path) } => {
            Resource::Secret { source: SecretSource::File(place(path)) }
        }
        other => other.clone(),
    }
}

/// A directory that is not there is the operator's mistake, and better known now than when a job runs.
pub(super) fn missing(name: &str, placed: &Resource) -> Option<Diagnostic> {
    let Resource::Directory { path, .. } = placed else { return None };
    (!Path::new(path).is_dir()).then(|| Diagnostic {
        file: String::new(),
        place: None,
        key: format!("resources.{name}.path"),
        message: format!("there is no directory at {path}"),
        fix: Some("make it, or mend `path`, which is relative to the manifest".to_owned()),
    })
}
