//! The fingerprint of what a grant lets an asset read: a directory is an input like any other, and changes under it
//! must be seen by the planner and by the attempt.
//!
//! A file's digest is remembered by its identity and times, so that an unchanged directory costs a `stat` for each
//! file. A file that changed a moment ago is not remembered: it could change again without its times moving.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    time::SystemTime,
};

use cap_std::fs::Dir;

use super::tree::{self, Globs, ListError, OpenError, OpenFile};
use crate::{
    blob::{Digest, DigestWriter},
    limit::{COPY_BUFFER_BYTES, FINGERPRINT_SETTLE, FINGERPRINTS_KEPT_MAX},
};

/// What a directory's granted files were at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Over paths, sizes and contents.
    pub digest: Digest,
    /// How many there are.
    pub files: u64,
    /// Of all of them.
    pub bytes: u64,
}

/// Why a directory has no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    /// A grant that validation should not have let through.
    #[error("cannot read the grant's globs")]
    Globs(#[source] globset::Error),
    /// The directory cannot be listed.
    #[error("cannot list the directory")]
    List(#[source] Box<ListError<std::convert::Infallible>>),
    /// A listed file cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Relative to the directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file changed while it was read; asking again may succeed.
    #[error("{path:?} changed while it was read: try again when nothing writes to it")]
    Changing {
        /// Relative to the directory.
        path: String,
    },
}

/// Digests of files by what would change with them. One for a process; never shared between machines.
#[derive(Debug, Default)]
pub struct FingerprintCache(HashMap<FileIdentity, Digest>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The fingerprint of the files that the globs match. Blocks; reads what the cache does not know.
pub fn fingerprint(
    directory: &Dir,
    globs: &[String],
    cache: &mut FingerprintCache,
) -> Result<Fingerprint, FingerprintError> {
    let globs = Globs::new(globs).map_err(FingerprintError::Globs)?;
    let files = tree::list(directory, &globs, || Ok(())).map_err(|error| FingerprintError::List(Box::new(error)))?;
    let mut digest = DigestWriter::default();
    let mut bytes = 0;
    for file in &files {
        let (content, size) = cache.digest_of(directory, &file.path)?;
        digest.field(file.path.as_bytes());
        digest.field(&size.to_le_bytes());
        digest.field(&content.0);
        bytes += size;
    }
    Ok(Fingerprint { digest: digest.finish(), files: files.len() as u64, bytes })
}

impl FingerprintCache {
    fn digest_of(&mut self, directory: &Dir, path: &str) -> Result<(Digest, u64), FingerprintError> {
        let failed = |source| FingerprintError::Read { path: path.to_owned(), source };
        let changing = || FingerprintError::Changing { path: path.to_owned() };
        let file = match tree::open(directory, path) {
            Ok(OpenFile(file)) => file,
            // It was listed as a regular file a moment ago.
            Err(OpenError::NotFound | OpenError::Forbidden) => return Err(changing()),
            Err(OpenError::Io(source)) => return Err(failed(source)),
        };
        let identity = FileIdentity::of(&file).map_err(failed)?;
        if let Some(digest) = self.0.get(&identity) {
            return Ok((*digest, identity.size));
        }
        let digest = digest_file(&file).map_err(failed)?;
        if FileIdentity::of(&file).map_err(failed)? != identity {
            return Err(changing());
        }
        if identity.has_settled() {
            if self.0.len() >= FINGERPRINTS_KEPT_MAX {
                self.0.clear();
            }
            self.0.insert(identity, digest);
        }
        Ok((digest, identity.size))
    }
}

impl FileIdentity {
    fn of(file: &std::fs::File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether a further change would show in the times.
    fn has_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let newest = self.modified.0.max(self.changed.0);
        newest.saturating_add(FINGERPRINT_SETTLE.as_secs() as i64) < now.as_secs() as i64
    }
}

fn digest_file(mut file: &std::fs::File) -> io::Result<Digest> {
    let mut digest = DigestWriter::default();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finish()),
            Ok(count) => digest.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use cap_std::ambient_authority;

    use super::*;

    fn take(folder: &Path, globs: &[&str], cache: &mut FingerprintCache) -> Fingerprint {
        let directory = Dir::open_ambient_dir(folder, ambient_authority()).unwrap();
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        fingerprint(&directory, &globs, cache).unwrap()
    }

    fn digest(folder: &Path, globs: &[&str]) -> Digest {
        take(folder, globs, &mut FingerprintCache::default()).digest
    }

    fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn the_same_files_have_the_same_fingerprint_wherever_they_are() {
        let files = [("b.csv", "2"), ("a.csv", "1"), ("below/c.csv", "3")];
        let one = folder_of(&files);
        let reversed: Vec<_> = files.iter().rev().copied().collect();
        let other = folder_of(&reversed);
        let globs = ["**/*.csv"];
        let found = take(one.path(), &globs, &mut FingerprintCache::default());
        assert_eq!((found.files, found.bytes), (3, 3));
        assert_eq!(found.digest, digest(other.path(), &globs));
    }

    #[test]
    fn each_change_of_a_granted_file_changes_it_and_no_other_does() {
        let base = digest(folder_of(&[("a.csv", "1"), ("b.csv", "2")]).path(), &["*.csv"]);
        let check = |files: &[(&str, &str)], same: bool| {
            assert_eq!(digest(folder_of(files).path(), &["*.csv"]) == base, same, "{files:?}");
        };
        check(&[("a.csv", "1"), ("b.csv", "2"), ("c.txt", "3"), ("below/d.csv", "4")], true);
        check(&[("a.csv", "1"), ("b.csv", "3")], false);
        check(&[("a.csv", "2"), ("b.csv", "1")], false);
        check(&[("a.csv", "1"), ("c.csv", "2")], false);
        check(&[("a.csv", "1")], false);
        check(&[("a.csv", "1"), ("b.csv", "2"), ("c.csv", "")], false);
    }

    #[test]
    fn a_settled_file_is_hashed_once_and_hashed_again_when_it_changes() {
        let folder = folder_of(&[("a.csv", "old")]);
        let mut cache = FingerprintCache::default();
        let before = take(folder.path(), &["*"], &mut cache);
        assert!(cache.0.is_empty(), "a file that changed a moment ago is not remembered");

        // The times of a change cannot be set back, so the memory of a settled file is made by hand.
        let identity = FileIdentity::of(&fs::File::open(folder.path().join("a.csv")).unwrap()).unwrap();
        cache.0.insert(identity, Digest::of(b"remembered"));
        let remembered = take(folder.path(), &["*"], &mut cache);
        assert_ne!(remembered.digest, before.digest, "the remembered digest is used, the file is not read");

        fs::write(folder.path().join("a.csv"), "new").unwrap();
        let after = take(folder.path(), &["*"], &mut cache);
        assert_eq!(after.digest, digest(folder_of(&[("a.csv", "new")]).path(), &["*"]));
    }

    #[test]
    fn a_file_settles_with_time() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = |ago: Duration| {
            let seconds = (now - ago).as_secs() as i64;
            FileIdentity { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (seconds, 0) }
        };
        assert!(!at(Duration::ZERO).has_settled());
        assert!(!at(FINGERPRINT_SETTLE).has_settled());
        assert!(at(2 * FINGERPRINT_SETTLE).has_settled());
    }
}
