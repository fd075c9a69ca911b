//! Opening what an asset was granted: from the resource's settings to something that an attempt can use.
//!
//! What belongs to the pipeline is of its version; what an operator registered is looked up for each attempt, so that
//! a right that was taken away is gone with the next one.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};

use super::{
    Shared,
    http::open_http,
    key_value::open_bucket,
    known::{KnownJob, Obstacle},
};
use crate::{
    capability::{
        Reach,
        files::Directory,
        http::{Credential, GrantedOrigin},
        secrets::GrantedSecret,
        sql::{Database, Pool},
    },
    limit::SECRET_BYTES_MAX,
    pipeline::{
        resource::{Access, Grant, Resource, SecretPlace, SecretSource},
        sql::UrlSource,
    },
    secret::SecretValue,
    store::pipelines::ResourceRecord,
};

/// The resources that an asset's grants name, as they are for one attempt.
#[derive(Debug, Default)]
pub(super) struct Resources {
    granted: HashMap<String, Resource>,
    /// By the resource that uses it, then by its name: a secret is of the party whose resource it is. A pipeline's own
    /// resource that could use an operator's secret could send it anywhere.
    secrets: HashMap<String, HashMap<String, SecretSource>>,
    /// Those that an operator registered.
    registered: HashSet<String>,
}

impl Resources {
    /// Those that these grants name: the pipeline's own, and what an operator has registered by now.
    pub async fn find(
        shared: &Shared,
        tenant: &str,
        grants: &[Grant],
        own: &HashMap<String, Resource>,
    ) -> Result<Self, Obstacle> {
        let mut found = Self::default();
        let names = grants.iter().map(|grant| grant.resource().to_owned());
        let (of_pipeline, of_operator): (Vec<String>, Vec<String>) = names.partition(|name| own.contains_key(name));
        for name in of_pipeline {
            found.add(name, own);
        }
        if of_operator.is_empty() {
            return Ok(found);
        }
        let registered = find_registered(shared, tenant, &of_operator).await?;
        let used = registered.values().flat_map(Resource::secrets_used);
        let mut secrets: Vec<String> = used.map(|(secret, _)| secret.to_owned()).collect();
        secrets.retain(|name| !registered.contains_key(name));
        let mut all = registered.clone();
        if !secrets.is_empty() {
            all.extend(find_registered(shared, tenant, &secrets).await?);
        }
        for name in registered.into_keys() {
            found.registered.insert(name.clone());
            found.add(name, &all);
        }
        Ok(found)
    }

    fn add(&mut self, name: String, party: &HashMap<String, Resource>) {
        let Some(resource) = party.get(&name) else { return };
        let secret = |(secret, _): (&str, SecretPlace<'_>)| match party.get(secret) {
            Some(Resource::Secret { source }) => Some((secret.to_owned(), source.clone())),
            _ => None,
        };
        self.secrets.insert(name.clone(), resource.secrets_used().filter_map(secret).collect());
        self.granted.insert(name, resource.clone());
    }

    /// Whether it is an operator's.
    pub fn is_registered(&self, name: &str) -> bool {
        self.registered.contains(name)
    }

    /// One that was granted, as it is.
    pub fn find_granted(&self, name: &str) -> Option<&Resource> {
        self.granted.get(name)
    }

    fn get(&self, name: &str) -> Result<&Resource, Obstacle> {
        let missing = || Obstacle::Final(format!("its grant names resource `{name}`, which is not registered"));
        self.granted.get(name).ok_or_else(missing)
    }

    /// The resource of a grant, as long as it still allows what was granted.
    fn get_within(&self, grant: &Grant) -> Result<&Resource, Obstacle> {
        let resource = self.get(grant.resource())?;
        match grant.excess(resource) {
            None => Ok(resource),
            Some(excess) => {
                let name = grant.resource();
                Err(Obstacle::Final(format!("its grant of `{name}` is more than the resource allows: {excess}")))
            }
        }
    }

    /// Where a secret is that a resource uses.
    fn secret_of(&self, name: &str, secret: &str) -> Result<&SecretSource, Obstacle> {
        let source = self.secrets.get(name).and_then(|known| known.get(secret));
        source.ok_or_else(|| Obstacle::Final(format!("resource `{name}` names `{secret}`, which is no secret")))
    }
}

async fn find_registered(
    shared: &Shared,
    tenant: &str,
    names: &[String],
) -> Result<HashMap<String, Resource>, Obstacle> {
    parse_resources(shared.store.find_registered_resources(tenant, names).await?)
}

/// What is stored of resources, as values.
pub(super) fn parse_resources(records: Vec<ResourceRecord>) -> Result<HashMap<String, Resource>, Obstacle> {
    let parse = |record: ResourceRecord| {
        let resource = serde_json::from_value(record.settings).map_err(|error| {
            Obstacle::Host(format!("resource `{}` was written by another version of flowstone: {error}", record.name))
        })?;
        Ok((record.name, resource))
    };
    records.into_iter().map(parse).collect()
}

/// Everything that a job's grants open for it.
pub(super) async fn open_reach(shared: &Shared, job: &KnownJob) -> Result<Reach, Obstacle> {
    let (tenant, resources) = (&job.claim.tenant, &*job.resources);
    let (mut reach, mut origins) = (Reach::default(), Vec::new());
    for grant in &job.asset.bound.grants {
        match (grant, resources.get_within(grant)?) {
            (Grant::Files(grant), _) => {
                let (resources, name) = (job.resources.clone(), grant.resource.clone());
                let opened = tokio::task::spawn_blocking(move || open_directory(&resources, &name)).await;
                let directory = opened.map_err(|_| Obstacle::Host("opening a directory failed".to_owned()))??;
                reach.directories.push(Directory { directory, grant: grant.clone() });
            }
            (Grant::Clock(grant), _) => reach.clock = Some(grant.resource.clone()),
            (Grant::Random(grant), _) => reach.random = Some(grant.resource.clone()),
            (Grant::Secret(grant), Resource::Secret { source }) => {
                let name = grant.resource.clone();
                let value = open_secret(shared, tenant, &name, source).await?;
                reach.secrets.push(GrantedSecret { name, value });
            }
            (Grant::Http(grant), Resource::Http(resource)) => {
                let mut credentials = Vec::with_capacity(resource.credentials.len());
                for wanted in &resource.credentials {
                    let source = resources.secret_of(&grant.resource, &wanted.secret)?;
                    let value = open_secret(shared, tenant, &wanted.secret, source).await?;
                    credentials.push(Credential { place: wanted.place.clone(), value });
                }
                origins.push(GrantedOrigin { resource: resource.clone(), grant: grant.clone(), credentials });
            }
            (Grant::Sql(grant), Resource::Sql(_)) => {
                let pool = open_pool(shared, tenant, resources, &grant.resource).await?;
                reach.databases.push(Database { pool, grant: grant.clone() });
            }
            (Grant::KeyValue(grant), Resource::KeyValue(resource)) => {
                reach.buckets.push(open_bucket(shared, job, resource, grant));
            }
            (Grant::Secret(_) | Grant::Http(_) | Grant::Sql(_) | Grant::KeyValue(_), _) => {
                unreachable!("a grant of another kind than its resource exceeds it")
            }
        }
    }
    reach.http = open_http(shared, job, origins);
    Ok(reach)
}

/// The connections to a database. None is made yet.
pub(super) async fn open_pool(
    shared: &Shared,
    tenant: &str,
    resources: &Resources,
    name: &str,
) -> Result<Arc<Pool>, Obstacle> {
    let Resource::Sql(database) = resources.get(name)? else {
        return Err(Obstacle::Final(format!("its grant names resource `{name}`, which is no database any more")));
    };
    let secret = match &database.url {
        UrlSource::Secret(secret) => {
            Some(open_secret(shared, tenant, secret, resources.secret_of(name, secret)?).await?)
        }
        UrlSource::Plain(_) | UrlSource::Environment(_) => None,
    };
    let pool = shared.databases.pool(tenant, database, secret.as_ref());
    // Somebody has to do something about it; waiting does not.
    pool.map_err(|mistake| Obstacle::Final(format!("resource `{name}` cannot be used: {mistake}")))
}

/// The database that an asset may write to, if there is one: the last look before it is opened.
pub(super) async fn open_written_pool(shared: &Shared, job: &KnownJob) -> Result<Option<Arc<Pool>>, Obstacle> {
    let writes = |grant: &&Grant| matches!(grant, Grant::Sql(grant) if grant.access == Access::ReadWrite);
    let Some(grant) = job.asset.bound.grants.iter().find(writes) else { return Ok(None) };
    job.resources.get_within(grant)?;
    open_pool(shared, &job.claim.tenant, &job.resources, grant.resource()).await.map(Some)
}

/// The directory behind a resource, open. Blocks.
pub(super) fn open_directory(resources: &Resources, name: &str) -> Result<Dir, Obstacle> {
    let Resource::Directory { path, .. } = resources.get(name)? else {
        return Err(Obstacle::Final(format!("its grant names resource `{name}`, which is no directory any more")));
    };
    Dir::open_ambient_dir(path, ambient_authority()).map_err(|error| {
        let cause = format!("resource `{name}` cannot be opened at {path}: {error}");
        if needs_somebody(&error) { Obstacle::Final(cause) } else { Obstacle::Host(cause) }
    })
}

/// Somebody has to do something about it; waiting does not.
fn needs_somebody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied)
}

/// What a secret holds. No error says any of it.
async fn open_secret(
    shared: &Shared,
    tenant: &str,
    name: &str,
    source: &SecretSource,
) -> Result<SecretValue, Obstacle> {
    let trouble = |why: &str| Obstacle::Final(format!("the secret `{name}` cannot be used: {why}"));
    let value = match source {
        SecretSource::Env(variable) => {
            let found = shared.settings.secrets.variables.get(variable);
            found.cloned().ok_or_else(|| trouble(&format!("the worker has no variable {variable}")))?
        }
        SecretSource::File(path) => {
            let path = PathBuf::from(path);
            let read = tokio::task::spawn_blocking(move || read_secret(&path)).await;
            let read = read.map_err(|_| Obstacle::Host("reading a secret failed".to_owned()))?;
            read.map_err(|error| match needs_somebody(&error) {
                true => trouble(&error.to_string()),
                false => Obstacle::Host(format!("the secret `{name}` cannot be read for now: {error}")),
            })?
        }
        SecretSource::Sealed => {
            let Some(key) = &shared.settings.secrets.seal_key else {
                return Err(trouble("the worker has no seal key; set FLOWSTONE_SEAL_KEY"));
            };
            let Some(kept) = shared.store.find_sealed_secret(tenant, name).await? else {
                return Err(trouble(&format!("it was never set; `flowstone secret set {name}` sets it")));
            };
            let opened = key.open(tenant, name, &kept.sealed, &kept.key_id);
            opened.map_err(|error| trouble(&error.to_string()))?
        }
    };
    match value.mistake() {
        Some(mistake) => Err(trouble(mistake)),
        None => Ok(value),
    }
}

/// A file's contents without the line feed that editors end it with.
fn read_secret(path: &Path) -> io::Result<SecretValue> {
    let mut bytes = Vec::with_capacity(SECRET_BYTES_MAX + 2);
    // More than a secret may have, so that it is seen to be too long; never more than the buffer, which is wiped.
    fs::File::open(path)?.take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let kept = text.strip_suffix(b"\r").unwrap_or(text).len();
    bytes.truncate(kept);
    Ok(SecretValue::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_a_file_is_its_text_without_the_last_line_feed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_secret(&path).unwrap()
        };
        assert_eq!(read(b"hunter2\n").expose(), b"hunter2");
        assert_eq!(read(b"hunter2\r\n").expose(), b"hunter2");
        assert_eq!(read(b"two\nlines\n\n").expose(), b"two\nlines\n");
        assert_eq!(read(b"").mistake(), Some("it is empty"));
        assert_eq!(read(&[b'x'; SECRET_BYTES_MAX]).mistake(), None);
        assert!(read(&[b'x'; SECRET_BYTES_MAX + 1]).mistake().is_some());
        assert!(read(&[b'x'; 1 << 20]).mistake().is_some());
        assert_eq!(read_secret(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
