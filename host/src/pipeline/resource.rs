//! Resources, which exist outside the sandbox, and grants, which let one asset use one of them, narrowed.
//!
//! An operator owns resources; the manifest grants them. A grant without its resource, or beyond it, is a mistake of
//! the manifest's, and is answered there. Every default has been filled in when these values exist, and the filled-in
//! values are what is stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    asset::Capability,
    http::{CredentialPlace, HttpGrant, HttpResource},
    key_value::{BucketGrant, BucketResource},
    quantity::bytes_text,
    sql::{SqlGrant, SqlResource, UrlSource},
};
use crate::blob::DigestWriter;

/// Something outside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Resource {
    /// A folder of files.
    Directory {
        /// Relative to the manifest's folder until it is deployed, absolute from then on.
        path: String,
        /// The most that any grant of it may allow.
        access: Access,
    },
    /// The real time.
    Clock,
    /// Real randomness.
    Random,
    /// Bytes that are never shown.
    Secret {
        /// Where they are.
        source: SecretSource,
    },
    /// An HTTP origin.
    Http(HttpResource),
    /// A Postgres database.
    Sql(SqlResource),
    /// Values under keys, in the database.
    KeyValue(BucketResource),
}

/// Where a secret's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SecretSource {
    /// In a variable of the worker's environment, by its name.
    Env(String),
    /// In a file of the worker's machine: relative to the manifest's folder until it is deployed, absolute from then on.
    File(String),
    /// In the database, sealed, under the resource's own name.
    Sealed,
}

/// Where the host puts a secret that it uses.
#[derive(Clone, Copy, Debug)]
pub enum SecretPlace<'r> {
    /// This header of each request.
    Header(&'r str),
    /// This parameter of each request.
    Parameter(&'r str),
    /// Where the resource is.
    Url,
}

impl fmt::Display for SecretPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Parameter(name) => write!(f, "the parameter {name}"),
            Self::Url => f.write_str("the URL"),
        }
    }
}

impl Resource {
    /// The secrets that the host uses for whoever was granted it, without showing them, and where it puts each.
    pub fn secrets_used(&self) -> impl Iterator<Item = (&str, SecretPlace<'_>)> {
        let (credentials, url) = match self {
            Self::Http(http) => (&http.credentials[..], None),
            Self::Sql(SqlResource { url: UrlSource::Secret(url), .. }) => (&[][..], Some(&**url)),
            _ => (&[][..], None),
        };
        let credentials = credentials.iter().map(|credential| {
            let place = match &credential.place {
                CredentialPlace::Header { name, .. } => SecretPlace::Header(name),
                CredentialPlace::Query { name } => SecretPlace::Parameter(name),
            };
            (&*credential.secret, place)
        });
        credentials.chain(url.map(|secret| (secret, SecretPlace::Url)))
    }

    /// How an asset uses a resource of this kind.
    pub fn capability(&self) -> Capability {
        match self {
            Self::Directory { .. } => Capability::Files,
            Self::Clock => Capability::Clock,
            Self::Random => Capability::Random,
            Self::Secret { .. } => Capability::Secret,
            Self::Http(_) => Capability::Http,
            Self::Sql(_) => Capability::Sql,
            Self::KeyValue(_) => Capability::KeyValue,
        }
    }
}

/// An asset's right to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "capability", rename_all = "kebab-case")]
pub enum Grant {
    /// A directory, or some of its files.
    Files(DirectoryGrant),
    /// The real time instead of the job's.
    Clock(PlainGrant),
    /// Real randomness instead of the recipe's.
    Random(PlainGrant),
    /// A secret that the code may read.
    Secret(PlainGrant),
    /// An HTTP origin, or some of its paths.
    Http(HttpGrant),
    /// A database, or some of what its role may do.
    Sql(SqlGrant),
    /// A bucket, or some of its keys.
    KeyValue(BucketGrant),
}

/// A right that cannot be narrowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainGrant {
    /// The resource's name.
    pub resource: String,
}

/// An asset's right to one directory resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// The resource's name.
    pub resource: String,
    /// What may be done.
    pub access: Access,
    /// Globs over relative paths, at least one; what none matches is denied.
    pub paths: Vec<String>,
    /// Bytes that one attempt may stage in writes.
    pub write_bytes: u64,
    /// Files that one attempt may write or remove.
    pub entries: u32,
    /// The absolute path at which code that expects a file system finds it, if it does. Only to read.
    pub mount: Option<String>,
}

/// What may be done with a directory or a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// List and read; query.
    Read,
    /// Stage writes and removals as well; change rows.
    ReadWrite,
}

impl Access {
    /// Its name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadWrite => "read-write",
        }
    }
}

impl Grant {
    /// The resource's name.
    pub fn resource(&self) -> &str {
        match self {
            Self::Files(grant) => &grant.resource,
            Self::Clock(grant) | Self::Random(grant) | Self::Secret(grant) => &grant.resource,
            Self::Http(grant) => &grant.resource,
            Self::Sql(grant) => &grant.resource,
            Self::KeyValue(grant) => &grant.resource,
        }
    }

    /// How the asset may use it.
    pub fn capability(&self) -> Capability {
        match self {
            Self::Files(_) => Capability::Files,
            Self::Clock(_) => Capability::Clock,
            Self::Random(_) => Capability::Random,
            Self::Secret(_) => Capability::Secret,
            Self::Http(_) => Capability::Http,
            Self::Sql(_) => Capability::Sql,
            Self::KeyValue(_) => Capability::KeyValue,
        }
    }

    /// The grant of a directory, if it is one.
    pub fn directory(&self) -> Option<&DirectoryGrant> {
        match self {
            Self::Files(grant) => Some(grant),
            _ => None,
        }
    }

    /// What it allows, in words.
    pub fn rights(&self) -> String {
        match self {
            Self::Files(grant) => {
                let writes = match grant.access {
                    Access::Read => String::new(),
                    Access::ReadWrite => {
                        format!(", writes up to {} in {} files", bytes_text(grant.write_bytes), grant.entries)
                    }
                };
                let mount = grant.mount.as_ref().map(|mount| format!(", mounted at {mount}")).unwrap_or_default();
                format!("{} {}{writes}{mount}", grant.access.name(), grant.paths.join(" "))
            }
            Self::Clock(_) => "the real time".to_owned(),
            Self::Random(_) => "real randomness".to_owned(),
            Self::Secret(_) => "reveal".to_owned(),
            Self::Sql(grant) => grant.rights(),
            Self::Http(grant) => format!("{} {} of {}", grant.methods.join(" "), grant.paths.join(" "), grant.url),
            Self::KeyValue(grant) => {
                let writes = match grant.access {
                    Access::Read => String::new(),
                    Access::ReadWrite => {
                        format!(", writes up to {} keys of {}", grant.writes, bytes_text(grant.write_bytes))
                    }
                };
                format!("{} {}{writes}", grant.access.name(), grant.keys.join(" "))
            }
        }
    }

    /// What it allows beyond its resource; nothing when it stays within. A manifest is held to it when it is deployed, and
    /// each attempt again: an operator may have narrowed the resource since.
    pub fn excess(&self, resource: &Resource) -> Option<String> {
        match (self, resource) {
            (Self::Files(grant), Resource::Directory { access: Access::Read, .. }) if grant.access != Access::Read => {
                Some("the resource may only be read".to_owned())
            }
            (Self::KeyValue(grant), Resource::KeyValue(bucket))
                if (bucket.access, grant.access) == (Access::Read, Access::ReadWrite) =>
            {
                Some("the resource may only be read".to_owned())
            }
            (Self::Http(grant), Resource::Http(http)) if grant.url != http.url => {
                Some(format!("the resource is at {} now; deploy the pipeline again", http.url))
            }
            (Self::Http(grant), Resource::Http(http)) => {
                let beyond = grant.methods.iter().find(|method| !http.methods.contains(method));
                beyond.map(|method| format!("the resource does not allow {method}"))
            }
            (Self::Sql(grant), Resource::Sql(database)) => grant.excess(database),
            _ if self.capability() != resource.capability() => {
                let (is, needs) = (resource.capability().resource_kind(), self.capability().resource_kind());
                Some(format!("the resource is a {is}, not a {needs}"))
            }
            _ => None,
        }
    }

    /// The grant of an HTTP origin, if it is one.
    pub fn http(&self) -> Option<&HttpGrant> {
        match self {
            Self::Http(grant) => Some(grant),
            _ => None,
        }
    }

    /// Whether what it reaches is an input like any other: then the same recipe gives the same bytes.
    pub fn is_deterministic(&self) -> bool {
        match self {
            Self::Files(grant) => grant.access == Access::Read,
            // What a secret holds is no part of a recipe: another one would not make anything stale.
            // What a bucket holds changes with other jobs, and is in no recipe.
            Self::Clock(_) | Self::Random(_) | Self::Secret(_) | Self::Http(_) | Self::Sql(_) | Self::KeyValue(_) => {
                false
            }
        }
    }

    /// What it lets an asset reach: resource and rights. Its limits and the order of its lists decide nothing about an
    /// output, and where a resource is differs from machine to machine.
    pub(super) fn digest_reach(&self, writer: &mut DigestWriter) {
        match self {
            Self::Files(grant) => {
                let mut paths: Vec<&str> = grant.paths.iter().map(|path| &**path).collect();
                paths.sort_unstable();
                paths.dedup();
                writer.field(b"directory");
                writer.field(grant.resource.as_bytes());
                writer.field(grant.access.name().as_bytes());
                writer.field(&(paths.len() as u64).to_le_bytes());
                paths.iter().for_each(|path| writer.field(path.as_bytes()));
                // Absent, it adds nothing: what was made before there were mounts is not stale.
                grant.mount.iter().for_each(|mount| writer.field(mount.as_bytes()));
            }
            Self::Clock(grant) | Self::Random(grant) | Self::Secret(grant) => {
                writer.field(self.capability().name().as_bytes());
                writer.field(grant.resource.as_bytes());
            }
            Self::KeyValue(grant) => {
                let mut keys: Vec<&str> = grant.keys.iter().map(|key| &**key).collect();
                keys.sort_unstable();
                keys.dedup();
                writer.field(b"key-value");
                writer.field(grant.resource.as_bytes());
                writer.field(grant.access.name().as_bytes());
                writer.field(&(keys.len() as u64).to_le_bytes());
                keys.iter().for_each(|key| writer.field(key.as_bytes()));
            }
            Self::Http(grant) => {
                writer.field(b"http");
                writer.field(grant.resource.as_bytes());
                writer.field(grant.url.as_bytes());
                for list in [&grant.methods, &grant.paths, &grant.headers] {
                    let mut list: Vec<&str> = list.iter().map(|text| &**text).collect();
                    list.sort_unstable();
                    list.dedup();
                    writer.field(&(list.len() as u64).to_le_bytes());
                    list.iter().for_each(|text| writer.field(text.as_bytes()));
                }
            }
            Self::Sql(grant) => {
                writer.field(self.capability().name().as_bytes());
                writer.field(grant.resource.as_bytes());
                writer.field(grant.access.name().as_bytes());
            }
        }
    }
}

impl Capability {
    /// The kind of resource that it uses, as the manifest names it.
    pub fn resource_kind(self) -> &'static str {
        match self {
            Self::Files => "directory",
            other => other.name(),
        }
    }

    /// The lines, after its kind, that a manifest needs to declare a resource for it.
    pub fn resource_example(self) -> &'static [&'static str] {
        match self {
            Self::Files => &["path = \"...\""],
            Self::Secret => &["sealed = true"],
            Self::Http => &["url = \"https://...\""],
            Self::Sql => &["url_env = \"FLOWSTONE_SQL_...\""],
            _ => &[],
        }
    }

    /// What a manifest writes to grant it, in the widest form that reads.
    pub fn grant_example(self) -> &'static str {
        match self {
            Self::Files => "{ access = \"read\", paths = [\"**\"] }",
            Self::Secret => "{ reveal = true }",
            Self::Http => "{ methods = [\"GET\"], paths = [\"**\"] }",
            Self::Sql => "{ access = \"read\" }",
            Self::KeyValue => "{ access = \"read\", keys = [\"**\"] }",
            _ => "{}",
        }
    }
}
