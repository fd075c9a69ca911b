//! Compiled components on disk, of this machine and this engine only.
//!
//! `<cache>/<engine id>/<tenant>/<component digest>/<length>-<sha256>`: the length in the name tells a truncated file
//! without reading it, the digest any other, before a byte of it is run: nothing guards the host from machine code. No
//! tenant finds out by the time of a deploy what another has. Files are written beside their place, synced and renamed,
//! so that any number of processes may write the same one. Nothing in the directory is ever taken from elsewhere: see [`super::deserialize`].

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::blob::Digest;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Somebody else could put machine code into it.
    #[error("{path} must be a directory that belongs to this user and that nobody else can enter (mode 0700)")]
    Exposed {
        /// The cache.
        path: PathBuf,
    },
    /// The disk is full or failing.
    #[error("cannot use {path} for compiled components")]
    Io {
        /// What could not be read or written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The compiled components of one engine id.
#[derive(Debug)]
pub struct CompiledCache {
    folder: PathBuf,
}

impl CompiledCache {
    /// Opens the cache, making its directories, and refuses one that others could write.
    pub fn open(cache: &Path, engine_id: &str) -> Result<Self, CacheError> {
        let folder = cache.join(engine_id);
        for path in [cache, &folder] {
            let failed = |source| CacheError::Io { path: path.to_owned(), source };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            let metadata = fs::symlink_metadata(path).map_err(failed)?;
            let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
            if !metadata.is_dir() || !is_ours || metadata.mode() & 0o077 != 0 {
                return Err(CacheError::Exposed { path: path.to_owned() });
            }
        }
        Ok(Self { folder })
    }

    /// The compiled component, when it is there whole. Removes what is there and is not.
    pub fn find(&self, tenant: &str, component: Digest) -> Result<Option<PathBuf>, CacheError> {
        let folder = self.component_folder(tenant, component);
        let failed = |source| CacheError::Io { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let written = name.to_str().and_then(Written::parse);
            let metadata = entry.path().symlink_metadata();
            if metadata.is_ok_and(|file| file.is_file() && written.is_some_and(|written| written.length == file.len()))
            {
                return Ok(Some(entry.path()));
            }
            self.remove(&entry.path())?;
        }
        Ok(None)
    }

    /// Removes a file that turned out not to be what its name says.
    pub fn remove(&self, path: &Path) -> Result<(), CacheError> {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CacheError::Io { path: path.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// Keeps compiled code: whole, synced, and under its name only then.
    pub fn place(&self, code: &[u8], tenant: &str, component: Digest) -> Result<PathBuf, CacheError> {
        let folder = self.component_folder(tenant, component);
        let failed = |source| CacheError::Io { path: folder.clone(), source };
        let mut file = NamedTempFile::new_in(&self.folder).map_err(failed)?;
        file.write_all(code).and_then(|()| file.as_file().sync_data()).map_err(failed)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let path = folder.join(Written::of(code).to_string());
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(path)
    }

    fn component_folder(&self, tenant: &str, component: Digest) -> PathBuf {
        self.folder.join(tenant).join(component.to_string())
    }
}

/// Whether a file that was found has the bytes that were compiled. It is read whole.
pub(super) fn is_as_written(path: &Path) -> io::Result<bool> {
    let written = path.file_name().and_then(|name| Written::parse(name.to_str()?));
    Ok(written == Some(Written::of(&fs::read(path)?)))
}

/// What the name of a file says of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    length: u64,
    digest: Digest,
}

impl Written {
    fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, digest: Digest::of(bytes) }
    }

    fn parse(name: &str) -> Option<Self> {
        let (length, digest) = name.split_once('-')?;
        Some(Self { length: length.parse().ok()?, digest: digest.parse().ok()? })
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.length, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn cache() -> (tempfile::TempDir, CompiledCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = CompiledCache::open(&folder.path().join("compiled"), "engine-1").unwrap();
        (folder, cache)
    }

    fn write(cache: &CompiledCache, component: Digest, bytes: &[u8]) -> PathBuf {
        cache.place(bytes, "t", component).unwrap()
    }

    #[test]
    fn what_was_placed_is_found_and_nothing_else() {
        let (_folder, cache) = cache();
        let component = Digest::of(b"a");
        assert_eq!(cache.find("t", component).unwrap(), None);
        let path = write(&cache, component, b"code");
        assert_eq!(cache.find("t", component).unwrap(), Some(path.clone()));
        assert_eq!(cache.find("t", Digest::of(b"b")).unwrap(), None);
        assert_eq!(write(&cache, component, b"code"), path, "a second writer replaces the file");
        assert!(is_as_written(&path).unwrap());
    }

    #[test]
    fn a_truncated_file_is_removed_and_not_found() {
        let (_folder, cache) = cache();
        let component = Digest::of(b"a");
        let path = write(&cache, component, b"code");
        fs::File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
        assert_eq!(cache.find("t", component).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_the_same_length_with_other_bytes_is_told_by_its_name() {
        let (_folder, cache) = cache();
        let path = write(&cache, Digest::of(b"a"), b"code");
        fs::write(&path, b"evil").unwrap();
        assert!(!is_as_written(&path).unwrap());
        fs::write(&path, b"code").unwrap();
        assert!(is_as_written(&path).unwrap());
    }

    #[test]
    fn foreign_names_and_links_are_removed_and_not_found() {
        let (folder, cache) = cache();
        let component = Digest::of(b"a");
        let path = write(&cache, component, b"code");
        fs::rename(&path, path.with_file_name("4")).unwrap();
        fs::write(folder.path().join("evil"), b"evil").unwrap();
        std::os::unix::fs::symlink(folder.path().join("evil"), &path).unwrap();
        assert_eq!(cache.find("t", component).unwrap(), None);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        assert!(folder.path().join("evil").exists());
    }

    #[test]
    fn a_cache_that_others_can_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compiled");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = CompiledCache::open(&path, "engine-1");
        assert!(matches!(refused, Err(CacheError::Exposed { .. })), "{refused:?}");

        let link = folder.path().join("link");
        fs::create_dir_all(folder.path().join("real")).unwrap();
        fs::set_permissions(folder.path().join("real"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(folder.path().join("real"), &link).unwrap();
        assert!(matches!(CompiledCache::open(&link, "engine-1"), Err(CacheError::Exposed { .. })));
    }

    #[test]
    fn tenants_do_not_share_what_was_compiled_for_them() {
        let (_folder, cache) = cache();
        write(&cache, Digest::of(b"a"), b"code");
        assert_eq!(cache.find("u", Digest::of(b"a")).unwrap(), None);
    }

    #[test]
    fn engines_do_not_share_what_they_compiled() {
        let (folder, cache) = cache();
        write(&cache, Digest::of(b"a"), b"code");
        let other = CompiledCache::open(&folder.path().join("compiled"), "engine-2").unwrap();
        assert_eq!(other.find("t", Digest::of(b"a")).unwrap(), None);
    }
}
