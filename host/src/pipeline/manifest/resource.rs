//! The `[resources]` of a manifest: one function for each kind.

use std::collections::BTreeMap;

use super::{
    super::{
        definition::name_mistake,
        resource::{Access, Resource},
    },
    grant::ACCESS,
    http::read_http,
    read_path,
    reader::{Entry, Reader, Section},
};
use crate::limit::RESOURCES_PER_PIPELINE_MAX;

/// The resources by name. One that is half understood is none, and still counts as declared: its grants are not
/// mistakes on top.
pub(super) type Declared = BTreeMap<String, Option<Resource>>;

/// Reads what a kind's section says beside its kind.
type ReadKind = for<'a> fn(&mut Reader<'a>, &Entry<'a>) -> Option<Resource>;

const KINDS: [(&str, ReadKind); 4] =
    [("directory", read_directory), ("clock", read_clock), ("random", read_random), ("http", read_http)];

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
    let read = reader.word(kind, &KINDS)?;
    read(reader, entry)
}

fn read_directory<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &["kind", "path", "access"])?;
    let path = reader.required(&section, "path", "add path = \"...\"");
    let path = path.and_then(|path| read_path(reader, path));
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    Some(Resource::Directory { path: path?, access: access? })
}

fn read_clock<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    reader.section(entry, &["kind"]).map(|_| Resource::Clock)
}

fn read_random<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    reader.section(entry, &["kind"]).map(|_| Resource::Random)
}
