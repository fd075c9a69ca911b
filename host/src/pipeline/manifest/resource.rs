//! The `[resources]` of a manifest: one function for each kind.

use std::collections::BTreeMap;

use super::{
    super::{
        definition::name_mistake,
        diagnostic::nearest,
        resource::{Access, Resource, SecretSource},
    },
    grant::ACCESS,
    http::read_http,
    read_path,
    reader::{Entry, Reader, Section},
    sql::read_database,
};
use crate::{limit::RESOURCES_PER_PIPELINE_MAX, secret::SECRET_VARIABLE_PREFIX};

/// The resources by name. One that is half understood is none, and still counts as declared: its grants are not
/// mistakes on top.
pub(super) type Declared = BTreeMap<String, Option<Resource>>;

/// Reads what a kind's section says beside its kind.
type ReadKind = for<'a> fn(&mut Reader<'a>, &Entry<'a>) -> Option<Resource>;

const KINDS: [(&str, ReadKind); 6] = [
    ("directory", read_directory),
    ("clock", read_clock),
    ("random", read_random),
    ("secret", read_secret),
    ("http", read_http),
    ("sql", read_database),
];

pub(super) fn read_resources<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Declared {
    let mut resources = BTreeMap::new();
    let Some(table) = root.get("resources").and_then(|entry| reader.table(entry)) else { return resources };
    if table.entries.len() > RESOURCES_PER_PIPELINE_MAX {
        let count = table.entries.len();
        let message = format!("{count} resources are more than the {RESOURCES_PER_PIPELINE_MAX} of a pipeline");
        reader.refuse(&table.this, message, "");
    }
    for (name, entry) in table.entries.iter().take(RESOURCES_PER_PIPELINE_MAX) {
        reader.remember(entry);
        if let Some(mistake) = name_mistake("a resource", name) {
            reader.refuse(entry, mistake, "");
        }
        resources.insert(name.clone(), read_resource(reader, entry));
    }
    resources
}

fn read_resource<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let table = reader.table(entry)?;
    let kind = reader.required(&table, "kind", "add kind = \"directory\", or another kind")?;
    // A misspelt kind is told, and what it was meant to be is read all the same: one answer names every mistake.
    let meant = reader.word(kind, &KINDS).or_else(|| {
        let meant = nearest(kind.text()?, KINDS.iter().map(|(name, _)| *name))?;
        KINDS.iter().find(|(name, _)| *name == meant).map(|(_, read)| *read)
    });
    meant?(reader, entry)
}

fn read_directory<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &["kind", "path", "access"])?;
    let path = reader.required(&section, "path", "add path = \"...\"");
    let path = path.and_then(|path| read_path(reader, path));
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    // Half understood, it still counts as declared.
    Some(Resource::Directory { path: path.unwrap_or_default(), access: access.unwrap_or(Access::ReadWrite) })
}

fn read_clock<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    reader.section(entry, &["kind"]).map(|_| Resource::Clock)
}

fn read_random<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    reader.section(entry, &["kind"]).map(|_| Resource::Random)
}

fn read_secret<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &["kind", "env", "file", "sealed"])?;
    let [env, file, sealed] = ["env", "file", "sealed"].map(|name| section.get(name));
    let fix = "write one of env = \"FLOWSTONE_SECRET_...\", file = \"...\" and sealed = true";
    match (env, file, sealed) {
        (Some(env), None, None) => {
            let name = reader.string(env)?;
            let rest = name.strip_prefix(SECRET_VARIABLE_PREFIX).unwrap_or_default();
            if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                let message = format!("only variables that begin with {SECRET_VARIABLE_PREFIX} can be secrets");
                reader.refuse(env, message, "name the variable so, of letters, digits and _");
                return None;
            }
            Some(Resource::Secret { source: SecretSource::Env(name.to_owned()) })
        }
        (None, Some(file), None) => {
            let path = read_path(reader, file)?;
            Some(Resource::Secret { source: SecretSource::File(path) })
        }
        (None, None, Some(sealed)) => {
            if !reader.boolean(sealed)? {
                reader.refuse(sealed, "says where it is not", fix);
            }
            Some(Resource::Secret { source: SecretSource::Sealed })
        }
        _ => {
            reader.refuse(entry, "a secret is in one place", fix);
            None
        }
    }
}
