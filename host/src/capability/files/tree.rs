//! A directory as a guest may see it: paths, globs, listing, opening. The only code here that touches a file system.
//!
//! Every step is taken relative to the directory's handle (`cap-std`), so that no path and no link leads out of it.
//! Links to files within it are followed; links to folders are not, so that a listing names all that can be read.

use std::{io, os::unix::fs::FileExt as _, path::Path};

use cap_fs_ext::{DirExt as _, OpenOptionsSyncExt as _};
use cap_std::fs::{Dir, OpenOptions};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::io::Errno;

use crate::limit::{
    CHUNK_BYTES_MAX, DIRECTORY_DEPTH_MAX, DIRECTORY_ENTRIES_MAX, FILE_NAME_BYTES_MAX, PATH_BYTES_MAX, STAGING_PREFIX,
};

/// Which paths of a directory are granted. `*` and `?` stay within a name, `**` crosses folders.
#[derive(Clone, Debug)]
pub struct Globs(GlobSet);

impl Globs {
    /// Compiles globs as a manifest writes them.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
        }
        Ok(Self(set.build()?))
    }

    /// Whether one of them matches the path.
    pub fn is_match(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// Why a path makes no sense, when it does not.
pub fn check_path(path: &str) -> Result<(), String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("the path has {} bytes, more than {PATH_BYTES_MAX}", path.len()));
    }
    if path.contains('\0') {
        return Err("the path holds a NUL".into());
    }
    if path.split('/').count() > DIRECTORY_DEPTH_MAX {
        return Err(format!("the path is more than {DIRECTORY_DEPTH_MAX} folders deep"));
    }
    if path.split('/').any(|name| name.starts_with(STAGING_PREFIX)) {
        return Err(format!("names that begin with `{STAGING_PREFIX}` are the host's own"));
    }
    if let Some(name) = path.split('/').find(|name| name.len() > FILE_NAME_BYTES_MAX) {
        return Err(format!("a name in it has {} bytes, more than {FILE_NAME_BYTES_MAX}", name.len()));
    }
    match path.split('/').find(|name| matches!(*name, "" | "." | "..")) {
        None => Ok(()),
        Some("") => {
            Err("the path is empty, or holds an empty name: it is relative, without a leading or final `/`".into())
        }
        Some(name) => Err(format!("`{name}` is not a name within a directory")),
    }
}

/// Why no file may be written under a path, when none may: others read what is published, line by line and on terminals.
pub fn check_new_path(path: &str) -> Result<(), String> {
    match path.chars().any(char::is_control) {
        true => Err("the path holds a control character".into()),
        false => Ok(()),
    }
}

/// Why a path cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Nothing of that name.
    NotFound,
    /// It leads out of the directory, through a link to a folder, or to something that is not a regular file.
    Forbidden,
    /// The file system failed, or does not let this process in.
    Io(io::Error),
}

/// An open regular file.
#[derive(Debug)]
pub struct OpenFile(pub std::fs::File);

impl OpenFile {
    /// In bytes, as it is now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// At most `max` bytes and at most a chunk from `offset`; empty at the end.
    pub fn read_at(&self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let left = self.0.metadata()?.len().saturating_sub(offset);
        let length = left.min(max.min(CHUNK_BYTES_MAX) as u64) as usize;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Opens a checked path for reading. Never blocks: a pipe or a device is refused, not waited for.
pub fn open(directory: &Dir, path: &str) -> Result<OpenFile, OpenError> {
    if let Some((folders, _)) = path.rsplit_once('/') {
        let mut folder = directory.try_clone().map_err(OpenError::Io)?;
        for name in folders.split('/') {
            folder = folder.open_dir_nofollow(name).map_err(open_error)?;
        }
    }
    // What is not a regular file is found out before it is opened: opening a device can already do something.
    if !directory.metadata(path).map_err(open_error)?.is_file() {
        return Err(OpenError::Forbidden);
    }
    let mut options = OpenOptions::new();
    options.read(true).nonblock(true);
    let file = directory.open_with(path, &options).map_err(open_error)?.into_std();
    if !file.metadata().map_err(OpenError::Io)?.is_file() {
        return Err(OpenError::Forbidden);
    }
    Ok(OpenFile(file))
}

fn open_error(error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound,
        // cap-std says so of a path that leads out; the system's own refusal carries a number.
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => OpenError::Forbidden,
        _ if is_not_a_folder(&error) || error.kind() == io::ErrorKind::IsADirectory => OpenError::Forbidden,
        _ => OpenError::Io(error),
    }
}

/// A file where a folder should be, or a link that was not to be followed.
fn is_not_a_folder(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// A file that is granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Relative, `/`-separated.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// Why a directory cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError<E> {
    /// More than we look at.
    #[error("the directory holds more than {DIRECTORY_ENTRIES_MAX} entries")]
    TooMany,
    /// Deeper than we look.
    #[error("the directory holds more than {DIRECTORY_DEPTH_MAX} folders within each other")]
    TooDeep,
    /// The file system failed.
    #[error("cannot list folder {folder:?}")]
    Io {
        /// Relative; empty for the directory itself.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `check` said to stop.
    #[error(transparent)]
    Stopped(E),
}

/// The regular files that the globs match, sorted by path. `check` is asked at every entry whether to go on.
pub fn list<E>(
    directory: &Dir,
    globs: &Globs,
    check: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Listed>, ListError<E>> {
    let mut walk = Walk { root: directory, globs, check, seen: 0, files: vec![] };
    let root = directory.try_clone().map_err(|source| ListError::Io { folder: String::new(), source })?;
    walk.folder(&root, "", 0)?;
    walk.files.sort_unstable();
    Ok(walk.files)
}

struct Walk<'a, C> {
    root: &'a Dir,
    globs: &'a Globs,
    check: C,
    seen: usize,
    files: Vec<Listed>,
}

impl<E, C: FnMut() -> Result<(), E>> Walk<'_, C> {
    fn folder(&mut self, folder: &Dir, prefix: &str, depth: usize) -> Result<(), ListError<E>> {
        let failed = |source| ListError::Io { folder: prefix.to_owned(), source };
        if depth > DIRECTORY_DEPTH_MAX {
            return Err(ListError::TooDeep);
        }
        for entry in folder.entries().map_err(failed)? {
            (self.check)().map_err(ListError::Stopped)?;
            let entry = entry.map_err(failed)?;
            self.seen += 1;
            if self.seen > DIRECTORY_ENTRIES_MAX {
                return Err(ListError::TooMany);
            }
            // A name that is not UTF-8 cannot be said in WIT; so nobody can open it either.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // A file on its way: the host is writing it.
            if name.starts_with(STAGING_PREFIX) {
                continue;
            }
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => match folder.open_dir_nofollow(&name) {
                    Ok(below) => self.folder(&below, &path, depth + 1)?,
                    Err(error) if has_vanished(&error) => {}
                    Err(source) => return Err(ListError::Io { folder: path, source }),
                },
                Ok(kind) if kind.is_file() || kind.is_symlink() => self.file(path),
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String) {
        if path.len() > PATH_BYTES_MAX || !self.globs.is_match(&path) {
            return;
        }
        // Asked of the root, because a link may lead to another folder of the same directory.
        let metadata = self.root.metadata(Path::new(&path));
        if let Some(metadata) = metadata.ok().filter(|metadata| metadata.is_file()) {
            self.files.push(Listed { path, size: metadata.len() });
        }
    }
}

/// A folder that was removed, or replaced by something else, between being seen and being opened.
fn has_vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is_not_a_folder(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_name() {
        let check = |glob: &str, path: &str, expected: bool| {
            assert_eq!(Globs::new(&[glob.into()]).unwrap().is_match(path), expected, "{glob} {path}");
        };
        check("*.csv", "a.csv", true);
        check("*.csv", "below/a.csv", false);
        check("**/*.csv", "a.csv", true);
        check("**/*.csv", "x/y/a.csv", true);
        check("**", "x/y/a.csv", true);
        check("2024/*", "2024/a", true);
        check("2024/*", "2024/b/a", false);
        check("a?c", "a/c", false);
        check("{a,b}.txt", "b.txt", true);
        check("A.csv", "a.csv", false);
        assert!(!Globs::new(&[]).unwrap().is_match("a"), "nothing granted, nothing matched");
        assert!(Globs::new(&["a{".into()]).is_err());
    }

    #[test]
    fn paths_that_make_no_sense_are_told_apart() {
        for good in ["a", "a/b.csv", "...", "a b/ü", "..a"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        let long = ["x/y/".repeat(PATH_BYTES_MAX / 4), "x".repeat(FILE_NAME_BYTES_MAX + 1), "x".repeat(64 << 10)];
        assert_eq!(check_path(&"x".repeat(FILE_NAME_BYTES_MAX)), Ok(()));
        for bad in long.iter().map(|long| &**long).chain([
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/.",
            "a\0b",
        ]) {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
