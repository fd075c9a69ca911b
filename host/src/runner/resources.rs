//! Opening what an asset was granted: from the resource's settings to something that an attempt can use.
//!
//! What belongs to the pipeline is of its version; what an operator registered is looked up for each attempt, so that
//! a right that was taken away is gone with the next one.

use std::{
    collections::HashMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use cap_std::{ambient_authority, fs::Dir};

use super::{Shared, prepare::Obstacle};
use crate::{
    capability::{Reach, files::Directory, secrets::GrantedSecret},
    limit::SECRET_BYTES_MAX,
    pipeline::resource::{Grant, Resource, SecretSource},
    secret::SecretValue,
};

/// The resources that an asset's grants name, as they are for one attempt.
pub(super) type Resources = HashMap<String, Resource>;

/// Everything that these grants open.
pub(super) async fn open_reach(
    shared: &Shared,
    tenant: &str,
    grants: &[Grant],
    resources: &Resources,
) -> Result<Reach, Obstacle> {
    let mut reach = Reach::default();
    for grant in grants {
        let resource = find(resources, grant.resource())?;
        if let Some(excess) = grant.excess(resource) {
            return Err(Obstacle::Final(format!(
                "its grant of `{}` is more than the resource allows: {excess}",
                grant.resource()
            )));
        }
        match grant {
            Grant::Files(grant) => {
                let directory = open_directory(resources, &grant.resource)?;
                reach.directories.push(Directory { directory, grant: grant.clone() });
            }
            Grant::Clock(grant) => reach.clock = Some(grant.resource.clone()),
            Grant::Random(grant) => reach.random = Some(grant.resource.clone()),
            Grant::Secret(grant) => {
                let value = open_secret(shared, tenant, resources, &grant.resource).await?;
                reach.secrets.push(GrantedSecret { name: grant.resource.clone(), value });
            }
        }
    }
    Ok(reach)
}

fn find<'r>(resources: &'r Resources, name: &str) -> Result<&'r Resource, Obstacle> {
    let missing = || Obstacle::Final(format!("its grant names resource `{name}`, which is not registered"));
    resources.get(name).ok_or_else(missing)
}

/// The directory behind a resource, open. Blocks.
pub(super) fn open_directory(resources: &Resources, name: &str) -> Result<Dir, Obstacle> {
    let Resource::Directory { path, .. } = find(resources, name)? else {
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
pub(super) async fn open_secret(
    shared: &Shared,
    tenant: &str,
    resources: &Resources,
    name: &str,
) -> Result<SecretValue, Obstacle> {
    let Resource::Secret { source } = find(resources, name)? else {
        return Err(Obstacle::Final(format!("resource `{name}` is no secret")));
    };
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
