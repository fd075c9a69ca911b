//! The pipeline manifest, `flowstone.toml`: what an operator binds, grants and allows.
//!
//! Read as a whole: one answer names every mistake with its place and its fix, and every default is filled in here
//! and nowhere else. Whether it fits what the components describe is [`super::validate`]'s business; no file is
//! opened here.

mod asset;
mod grant;
mod http;
mod key_value;
mod reader;
mod resource;
mod schedule;
mod sql;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::Document;

use self::{
    reader::{Entry, Reader, Section},
    resource::{Declared, read_resources},
    schedule::read_schedules,
};
use super::{
    concurrency::Concurrency,
    definition::name_mistake,
    diagnostic::{Diagnostic, Place, bounded, shown},
    policy::{Limits, RetryPolicy, Route},
    resource::{Grant, Resource},
    schedule::Schedule,
};
use crate::limit::{ASSETS_PER_PIPELINE_MAX, COMPONENTS_PER_PIPELINE_MAX, MANIFEST_BYTES_MAX, POOL_SIZE_MAX};

/// A manifest that makes sense on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// As the user named it, for messages.
    pub file: String,
    /// The pipeline's name.
    pub name: String,
    /// How many of its jobs run at once.
    pub max_concurrent: Option<u32>,
    /// At least one, in the order in which they stand.
    pub components: Vec<ComponentSource>,
    /// By name.
    pub resources: BTreeMap<String, Resource>,
    /// By the asset's name. An asset without a section gets [`AssetSettings::default`].
    pub assets: BTreeMap<String, AssetSettings>,
    /// By name.
    pub schedules: BTreeMap<String, Schedule>,
    /// Where each component, resource, asset, grant and schedule stands.
    places: BTreeMap<String, Place>,
}

/// A component that the pipeline binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentSource {
    /// Relative to the manifest's folder.
    pub path: String,
}

/// What the manifest decides about one asset, resolved.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AssetSettings {
    /// Sorted by resource.
    pub grants: Vec<Grant>,
    /// A JSON object.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Bounds of an attempt.
    pub limits: Limits,
    /// When a job is tried again.
    pub retry: RetryPolicy,
    /// Where its jobs queue.
    pub route: Route,
    /// With what else it shares how many of its jobs run at once.
    pub concurrency: Concurrency,
    /// How long an effectful asset's result is as good as a new one, in milliseconds.
    pub fresh_for_ms: Option<u64>,
}

impl Manifest {
    /// Where a key stands, for example `assets.raw.grants.station`.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).copied()
    }
}

/// Reads a manifest. `file` is its name in messages; `registered` are the resources that it can grant without declaring
/// them.
pub fn parse_manifest(
    file: &str,
    text: &str,
    registered: &BTreeMap<String, Resource>,
) -> Result<Manifest, Vec<Diagnostic>> {
    parse(file, text, |reader, document| read(reader, document, registered)).map(|(manifest, places)| Manifest {
        file: file.to_owned(),
        places,
        ..manifest
    })
}

/// Reads the `[resources]` of a file, which may be a manifest and need hold nothing else.
pub fn parse_resources(file: &str, text: &str) -> Result<BTreeMap<String, Resource>, Vec<Diagnostic>> {
    fn read<'a>(reader: &mut Reader<'a>, document: &'a Document<&'a str>) -> BTreeMap<String, Resource> {
        let root = reader.root(document.as_item(), &KEYS).expect("a document is a table");
        understood(read_resources(reader, &root))
    }
    parse(file, text, read).map(|(resources, _)| resources)
}

/// Reads the name of a manifest's pipeline, whatever else is in it.
pub fn parse_name(file: &str, text: &str) -> Result<String, Vec<Diagnostic>> {
    fn read<'a>(reader: &mut Reader<'a>, document: &'a Document<&'a str>) -> String {
        let root = reader.root(document.as_item(), &KEYS).expect("a document is a table");
        read_pipeline(reader, &root).0
    }
    parse(file, text, read).map(|(name, _)| name)
}

/// The sections of a manifest.
const KEYS: [&str; 5] = ["pipeline", "components", "resources", "assets", "schedules"];

/// Parses the text and lets `read` make something of it; or says everything that is wrong.
fn parse<T>(
    file: &str,
    text: &str,
    read: impl for<'a> FnOnce(&mut Reader<'a>, &'a Document<&'a str>) -> T,
) -> Result<(T, BTreeMap<String, Place>), Vec<Diagnostic>> {
    let mut reader = Reader::new(file, text);
    if text.len() > MANIFEST_BYTES_MAX {
        let message = format!("{} bytes are more than the {MANIFEST_BYTES_MAX} that a manifest may have", text.len());
        reader.refuse_at(None, "", message, None);
        return Err(reader.diagnostics);
    }
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            // The parser's span of a key that repeats is the key; other spans hold whatever could not be read.
            let quoted = error.span().and_then(|span| text.get(span)).filter(|_| message == "duplicate key");
            let at = error.span().map(|span| span.start);
            reader.refuse_at(at, &shown(quoted.unwrap_or("")), shown_message(&message), None);
            return Err(reader.diagnostics);
        }
    };
    let value = read(&mut reader, &document);
    let Reader { mut diagnostics, places, .. } = reader;
    if diagnostics.is_empty() {
        return Ok((value, places));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.place);
    Err(bounded(diagnostics))
}

/// The parser's words quote the file, which may hold anything.
fn shown_message(message: &str) -> String {
    message.chars().take(200).flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

fn read<'a>(
    reader: &mut Reader<'a>,
    document: &'a Document<&'a str>,
    registered: &BTreeMap<String, Resource>,
) -> Manifest {
    let root = reader.root(document.as_item(), &KEYS).expect("a document is a table");
    let declared = read_resources(reader, &root);
    // Only with secrets of its own: with an operator's, a pipeline could send it wherever it likes.
    http::check_credentials(reader, &root, &declared);
    sql::check_secrets(reader, &root, &declared);
    let mut known = declared.clone();
    for (name, resource) in registered {
        if declared.contains_key(name) {
            let at = root.get("resources").and_then(|entry| reader.table(entry)?.get(name).cloned());
            let at = at.expect("it was read from there");
            reader.refuse(
                &at,
                "an operator has registered a resource of this name",
                "remove the section, or rename it",
            );
        }
        known.insert(name.clone(), Some(resource.clone()));
    }
    let assets = read_assets(reader, &root, &known);
    let (name, max_concurrent) = read_pipeline(reader, &root);
    Manifest {
        file: String::new(),
        name,
        max_concurrent,
        components: read_components(reader, &root),
        resources: understood(declared),
        assets,
        schedules: read_schedules(reader, &root),
        places: BTreeMap::new(),
    }
}

fn understood(declared: Declared) -> BTreeMap<String, Resource> {
    declared.into_iter().filter_map(|(name, resource)| Some((name, resource?))).collect()
}

/// The pipeline's name, and how many of its jobs run at once.
fn read_pipeline<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> (String, Option<u32>) {
    let pipeline = reader.required(root, "pipeline", "add [pipeline] with name = \"...\"").cloned();
    let section = pipeline.and_then(|entry| reader.section(&entry, &["name", "max_concurrent"]));
    let Some(section) = section else { return (String::new(), None) };
    let max_concurrent = section.get("max_concurrent").and_then(|entry| reader.integer(entry, 1, POOL_SIZE_MAX));
    let entry = reader.required(&section, "name", "add name = \"...\"");
    let Some((entry, name)) = entry.and_then(|entry| Some((entry, reader.string(entry)?))) else {
        return (String::new(), max_concurrent);
    };
    if let Some(mistake) = name_mistake("a pipeline", name) {
        reader.refuse(entry, mistake, "");
    }
    (name.to_owned(), max_concurrent)
}

fn read_components<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Vec<ComponentSource> {
    let fix = "add [[components]] with path = \"...\" for each component";
    let Some(entry) = reader.required(root, "components", fix).cloned() else { return Vec::new() };
    let sections = reader.sections(&entry, &["path"]);
    if sections.len() > COMPONENTS_PER_PIPELINE_MAX {
        let message =
            format!("{} components are more than the {COMPONENTS_PER_PIPELINE_MAX} of a pipeline", sections.len());
        reader.refuse(&entry, message, "");
        return Vec::new();
    }
    if sections.is_empty() && entry_is_list(&entry, reader) {
        reader.refuse(&entry, "a pipeline needs at least one component", fix);
    }
    let (mut components, mut seen) = (Vec::new(), BTreeSet::new());
    for section in &sections {
        reader.remember(&section.this);
        let Some(entry) = reader.required(section, "path", "add path = \"...\"") else { continue };
        let Some(path) = read_path(reader, entry) else { continue };
        if !seen.insert(path.clone()) {
            reader.refuse(entry, format!("\"{}\" is listed twice", shown(&path)), "remove one of the two");
        }
        components.push(ComponentSource { path });
    }
    components
}

/// Whether the mistake of an entry is its emptiness and not its type, which has been named.
fn entry_is_list(entry: &Entry<'_>, reader: &Reader<'_>) -> bool {
    !reader.diagnostics.iter().any(|diagnostic| diagnostic.key.starts_with(&entry.key))
}

fn read_path<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let path = reader.string(entry)?;
    if path.is_empty() || path.contains('\0') {
        reader.refuse(entry, format!("\"{}\" is not a path", shown(path)), "write the path, relative to the manifest");
        return None;
    }
    Some(path.to_owned())
}

fn read_assets<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    resources: &Declared,
) -> BTreeMap<String, AssetSettings> {
    let mut assets = BTreeMap::new();
    let Some(table) = root.get("assets").and_then(|entry| reader.table(entry)) else { return assets };
    if table.entries.len() > ASSETS_PER_PIPELINE_MAX {
        let message =
            format!("{} assets are more than the {ASSETS_PER_PIPELINE_MAX} of a pipeline", table.entries.len());
        reader.refuse(&table.this, message, "");
        return assets;
    }
    for (name, entry) in &table.entries {
        reader.remember(entry);
        if let Some(mistake) = name_mistake("an asset", name) {
            reader.refuse(entry, mistake, "");
        }
        if let Some(settings) = asset::read_asset(reader, entry, resources) {
            assets.insert(name.clone(), settings);
        }
    }
    assets
}
