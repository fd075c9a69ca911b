//! The `grants` of one asset: one function for each kind of resource, which narrows what the resource allows.

use globset::GlobBuilder;

use super::{
    super::{
        diagnostic::{nearest, shown},
        resource::{Access, DirectoryGrant, Grant, PlainGrant, Resource},
    },
    http::read_http_grant,
    key_value::read_bucket_grant,
    reader::{Entry, Reader, bytes},
    resource::Declared,
    sql::{read_database_grant, refuse_second_writer},
};
use crate::limit;

/// The words for access.
pub(super) const ACCESS: [(&str, Access); 2] = [("read", Access::Read), ("read-write", Access::ReadWrite)];

/// Reads an asset's grants, sorted by resource; what is wrong is recorded.
pub(super) fn read_grants<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>, resources: &Declared) -> Vec<Grant> {
    let Some(table) = reader.table(entry) else { return Vec::new() };
    let mut grants = Vec::new();
    for (resource, entry) in &table.entries {
        reader.remember(entry);
        let grant = read_grant(reader, resource, entry, resources);
        refuse_second_writer(reader, entry, grant.as_ref(), &grants);
        grants.extend(grant);
    }
    grants.sort_by(|one: &Grant, other| one.resource().cmp(other.resource()));
    check_mounts(reader, &table.entries, &grants);
    grants
}

fn read_grant<'a>(reader: &mut Reader<'a>, name: &str, entry: &Entry<'a>, resources: &Declared) -> Option<Grant> {
    let resource = match resources.get(name) {
        Some(resource) => resource.as_ref()?,
        None => {
            let fix = reader.suggestion(name, resources.keys().map(|name| &**name)).unwrap_or_else(|| {
                format!(
                    "declare [resources.{}] with its kind, for example kind = \"directory\" and path = \"...\"",
                    shown(name)
                )
            });
            reader.refuse(entry, format!("there is no resource `{}`", shown(name)), fix);
            // What it was meant to be is read all the same: one answer names every mistake, as far as it names any.
            let names = resources.keys().map(|name| &**name).filter(|_| reader.has_room());
            resources.get(nearest(name, names)?)?.as_ref()?
        }
    };
    match resource {
        Resource::Directory { access, .. } => read_directory(reader, name, entry, *access).map(Grant::Files),
        Resource::Clock => read_plain(reader, name, entry).map(Grant::Clock),
        Resource::Random => read_plain(reader, name, entry).map(Grant::Random),
        Resource::Secret { .. } => read_secret(reader, name, entry).map(Grant::Secret),
        Resource::Http(http) => read_http_grant(reader, name, entry, http).map(Grant::Http),
        Resource::Sql(database) => read_database_grant(reader, name, entry, database).map(Grant::Sql),
        Resource::KeyValue(bucket) => read_bucket_grant(reader, name, entry, bucket).map(Grant::KeyValue),
    }
}

fn read_plain<'a>(reader: &mut Reader<'a>, resource: &str, entry: &Entry<'a>) -> Option<PlainGrant> {
    reader.section(entry, &[]).map(|_| PlainGrant { resource: resource.to_owned() })
}

/// The right to read a secret is written out: to use one, an HTTP resource needs no grant of the asset's.
fn read_secret<'a>(reader: &mut Reader<'a>, resource: &str, entry: &Entry<'a>) -> Option<PlainGrant> {
    let section = reader.section(entry, &["reveal"])?;
    let fix = "write reveal = true if the code may read the secret, or remove the grant";
    let reveal = reader.required(&section, "reveal", fix)?;
    if !reader.boolean(reveal)? {
        reader.refuse(reveal, "grants nothing", fix);
    }
    Some(PlainGrant { resource: resource.to_owned() })
}

fn read_directory<'a>(
    reader: &mut Reader<'a>,
    resource: &str,
    entry: &Entry<'a>,
    allowed: Access,
) -> Option<DirectoryGrant> {
    let section = reader.section(entry, &["access", "paths", "write", "entries", "mount"])?;
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    let access = access.unwrap_or(Access::Read);
    if (allowed, access) == (Access::Read, Access::ReadWrite) {
        let fix = format!("grant \"read\", or set resources.{resource}.access = \"read-write\"");
        reader.refuse(section.get("access").unwrap_or(entry), "the resource may only be read", fix);
    }
    let [write, entries] = ["write", "entries"].map(|name| section.get(name));
    for quota in [write, entries].into_iter().flatten().filter(|_| access == Access::Read) {
        reader.refuse(quota, "changes nothing without access = \"read-write\"", "remove it");
    }
    let entries = entries.and_then(|entries| reader.integer(entries, 1, limit::STAGED_FILES_MAX as u32));
    let write_bytes = write.and_then(|write| reader.quantity(write, &bytes(1, limit::OUTPUT_BYTES_MAX)));
    let paths = reader.required(&section, "paths", "list globs, for example paths = [\"*.csv\"]; \"**\" is everything");
    let paths = paths.map(|paths| read_list(reader, paths, "globs", glob_mistake)).unwrap_or_default();
    let write_bytes = write_bytes.unwrap_or(limit::WRITE_BYTES_DEFAULT);
    let entries = entries.unwrap_or(limit::STAGED_FILES_DEFAULT);
    let mount = section.get("mount").and_then(|mount| read_mount(reader, mount, access));
    Some(DirectoryGrant { resource: resource.to_owned(), access, paths, write_bytes, entries, mount })
}

/// Where code that expects a file system finds the directory. Such code is not told that what it writes is staged, so
/// it may only read.
fn read_mount<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>, access: Access) -> Option<String> {
    let mount = reader.string(entry)?;
    let sound = |name: &str| {
        !matches!(name, "" | "." | "..")
            && name.len() <= limit::FILE_NAME_BYTES_MAX
            && !name.chars().any(char::is_control)
    };
    let names =
        mount.strip_prefix('/').filter(|names| mount.len() <= limit::PATH_BYTES_MAX && names.split('/').all(sound));
    if names.is_none() {
        let message = format!("\"{}\" is no place to mount a directory", shown(mount));
        reader.refuse(entry, message, "write an absolute path, for example \"/data\"");
        return None;
    }
    if access != Access::Read {
        reader.refuse(entry, "a mounted directory is only read", "grant \"read\", or remove mount");
    }
    Some(mount.to_owned())
}

/// Directories that are mounted within each other would hide each other's files.
fn check_mounts<'a>(reader: &mut Reader<'a>, entries: &[(String, Entry<'a>)], grants: &[Grant]) {
    let mounts: Vec<(&str, &str)> = grants
        .iter()
        .filter_map(Grant::directory)
        .filter_map(|grant| Some((&*grant.resource, grant.mount.as_deref()?)))
        .collect();
    for (at, (resource, mount)) in mounts.iter().enumerate() {
        let holds = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some((other, _)) = mounts[..at].iter().find(|(_, other)| holds(other, mount) || holds(mount, other)) else {
            continue;
        };
        let Some((_, entry)) = entries.iter().find(|(name, _)| name == resource) else { continue };
        reader.refuse(entry, format!("is mounted in the same place as `{other}`"), "mount it elsewhere");
    }
}

/// A grant's list of globs or keys, none of which has been looked at.
pub(super) fn list_bounded<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>, what: &str) -> Vec<&'a str> {
    let Some(list) = reader.strings(entry) else { return Vec::new() };
    if list.is_empty() {
        reader.refuse(entry, "an empty list grants nothing", format!("list {what}, or remove the grant"));
    }
    if list.len() > limit::GRANT_PATHS_MAX {
        reader.refuse(entry, format!("{} {what} are more than {}", list.len(), limit::GRANT_PATHS_MAX), "");
        return Vec::new();
    }
    list
}

/// The same list, once each of it has been looked at: why one is a mistake, and the fix.
pub(super) fn read_list<'a>(
    reader: &mut Reader<'a>,
    entry: &Entry<'a>,
    what: &str,
    mistake: fn(&str) -> Option<(String, &'static str)>,
) -> Vec<String> {
    let list = list_bounded(reader, entry, what);
    for one in &list {
        if let Some((mistake, fix)) = mistake(one) {
            reader.refuse(entry, format!("\"{}\" {mistake}", shown(one)), fix);
        }
    }
    list.into_iter().map(ToOwned::to_owned).collect()
}

/// Why a glob could never match, and the fix.
pub(super) fn glob_mistake(glob: &str) -> Option<(String, &'static str)> {
    let parts = || glob.split('/');
    if glob.is_empty() || glob.len() > limit::GRANT_PATH_BYTES_MAX {
        return Some((format!("is not a glob of 1 to {} bytes", limit::GRANT_PATH_BYTES_MAX), ""));
    }
    if glob.starts_with('/') || glob.contains('\0') || parts().any(|part| matches!(part, "" | "." | "..")) {
        return Some(("can match nothing".to_owned(), "paths are relative to the directory, without `.` and `..`"));
    }
    match GlobBuilder::new(glob).literal_separator(true).build() {
        Ok(_) => None,
        Err(error) => Some((format!("is not a glob: {}", error.kind()), "write one such as \"*.csv\" or \"**\"")),
    }
}
