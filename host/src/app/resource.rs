//! Resources: what an operator registers, what a manifest declares, and what a pipeline's grants find of both.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{App, AppError, Pipeline, deploy::read_text};
use crate::{
    capability::http::authority_mistake,
    limit::HTTP_CA_BYTES_MAX,
    pipeline::{
        diagnostic::Diagnostic,
        http::HttpResource,
        manifest::parse_resources,
        resource::{Resource, SecretSource},
        sql::SqlResource,
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
        let (mut records, mut mistakes) = (Vec::new(), Vec::new());
        for (name, resource) in wanted {
            match settled(&name, &resource, &folder) {
                Ok(settled) => records.push(record(name, &settled)?),
                Err(mistake) => mistakes.push(Diagnostic { file: shown.clone(), ..mistake }),
            }
        }
        if !mistakes.is_empty() {
            return Err(AppError::Invalid(mistakes));
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
        resources.extend(self.list_own_resources(pipeline).await?);
        Ok(resources)
    }

    /// Those that a version's manifest declares.
    pub async fn list_own_resources(&self, pipeline: &Pipeline) -> Result<BTreeMap<String, Resource>, AppError> {
        parse_records(self.store.list_resources(&self.tenant, pipeline.id).await?)
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

/// A resource that no longer depends on where its manifest is: paths are absolute, and what another machine would not have
/// is part of it. Or what is wrong with it, which is the operator's to mend, and better known now than when a job runs.
pub(super) fn settled(name: &str, resource: &Resource, folder: &Path) -> Result<Resource, Diagnostic> {
    let place = |path: &str| folder.join(path).display().to_string();
    let mistake = |key: &str, message: String, fix: &str| Diagnostic {
        file: String::new(),
        place: None,
        key: format!("resources.{name}.{key}"),
        message,
        fix: Some(fix.to_owned()),
    };
    match resource {
        Resource::Directory { path, access } => {
            let path = place(path);
            if !Path::new(&path).is_dir() {
                let fix = "make it, or mend `path`, which is relative to the manifest";
                return Err(mistake("path", format!("there is no directory at {path}"), fix));
            }
            Ok(Resource::Directory { path, access: *access })
        }
        Resource::Secret { source: SecretSource::File(path) } => {
            Ok(Resource::Secret { source: SecretSource::File(place(path)) })
        }
        Resource::Http(http @ HttpResource { ca: Some(path), .. }) => {
            let fix = "name a PEM file of certificates, relative to the manifest";
            let pem = read_authority(&folder.join(path)).map_err(|message| mistake("ca", message, fix))?;
            Ok(Resource::Http(HttpResource { ca: Some(pem), ..http.clone() }))
        }
        Resource::Sql(database @ SqlResource { ca: Some(path), .. }) => {
            let fix = "name a PEM file of certificates, relative to the manifest";
            let pem = read_authority(&folder.join(path)).map_err(|message| mistake("ca", message, fix))?;
            Ok(Resource::Sql(SqlResource { ca: Some(pem), ..database.clone() }))
        }
        other => Ok(other.clone()),
    }
}

/// Certificate authorities become part of the resource: the worker that trusts them may be another machine.
fn read_authority(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = fs::File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut pem = String::new();
    let read = file.take(HTTP_CA_BYTES_MAX as u64 + 1).read_to_string(&mut pem);
    read.map_err(|error| format!("cannot read {shown}: {error}"))?;
    if pem.len() > HTTP_CA_BYTES_MAX {
        return Err(format!("{shown} has more than {HTTP_CA_BYTES_MAX} bytes"));
    }
    match authority_mistake(&pem) {
        Some(mistake) => Err(format!("{shown} cannot be used: {mistake}")),
        None => Ok(pem),
    }
}
