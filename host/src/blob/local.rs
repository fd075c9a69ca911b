//! Blobs in a directory.
//!
//! `<root>/<tenant>/<first two digits>/<digest>`; temporary files live in `<root>/tmp`, on the same file system,
//! because a rename is what makes a blob appear whole or not at all. Calls block: they run on guest threads or
//! through `spawn_blocking`, never on the runtime that serves the database.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;

use super::{BlobError, Digest, Listed, spool::Spool};

/// One directory of blobs.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens it, making it if need be, and proves that it can be written.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let open = |source| BlobError::Open { path: root.to_owned(), source };
        let temporary = root.join("tmp");
        fs::create_dir_all(&temporary).map_err(open)?;
        drop(NamedTempFile::new_in(&temporary).map_err(open)?);
        Ok(Self { root: root.to_owned() })
    }

    /// Proves that the store can be written now: writes a small file under a name of its own, and removes it. The name is
    /// no blob's, and whoever dies in between leaves what every start of the store would.
    pub fn check_writable(&self) -> Result<(), BlobError> {
        let temporary = self.root.join("tmp");
        let failed = |source| BlobError::Write { path: temporary.clone(), source };
        let mut file = tempfile::Builder::new().prefix("writable-").tempfile_in(&temporary).map_err(failed)?;
        // A full disk gives a name, and no bytes.
        file.write_all(b"writable").and_then(|()| file.as_file().sync_data()).map_err(failed)?;
        file.close().map_err(failed)
    }

    /// Where the bytes of a blob go while it is written.
    pub fn spool(&self) -> Spool {
        Spool::named(&self.root.join("tmp"))
    }

    /// Syncs a file of the spool, gives it its name, and syncs the folder that holds the name. A blob that is there is
    /// replaced: it may be damaged, and then making it again is what mends it.
    pub fn place(&self, tenant: &str, digest: Digest, file: NamedTempFile) -> Result<(), BlobError> {
        let path = self.path(tenant, digest);
        place(file, &path).map_err(|source| BlobError::Write { path, source })
    }

    /// Opens a blob.
    pub fn read(&self, tenant: &str, digest: Digest) -> Result<FileReader, BlobError> {
        match fs::File::open(self.path(tenant, digest)) {
            Ok(file) => Ok(FileReader { file, digest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing { digest }),
            Err(source) => Err(BlobError::Read { digest, source }),
        }
    }

    /// Whether the blob is there.
    pub fn contains(&self, tenant: &str, digest: Digest) -> bool {
        self.path(tenant, digest).is_file()
    }

    /// The blobs in one of a tenant's folders, of which there are [`FOLDERS`]; what is no blob is passed over.
    pub fn list(&self, tenant: &str, folder: usize) -> Result<Vec<Listed>, BlobError> {
        let path = self.root.join(tenant).join(format!("{folder:02x}"));
        let failed = |source| BlobError::List { place: path.display().to_string(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Whoever deletes it meanwhile has done what it is listed for.
            let Ok(about) = entry.metadata() else { continue };
            listed.push(Listed { digest, size: about.len(), age: age(&about) });
        }
        Ok(listed)
    }

    /// Removes a blob, if it is there.
    pub fn delete(&self, tenant: &str, digest: Digest) -> Result<(), BlobError> {
        let path = self.path(tenant, digest);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BlobError::Delete { path, source }),
            _ => Ok(()),
        }
    }

    /// Files of writers that have ended without a word: nothing was written to them for so long. How many, and how many
    /// bytes they have; unless it is only asked, they are removed.
    pub fn sweep_unfinished(&self, older: Duration, remove: bool) -> Result<(u64, u64), BlobError> {
        let folder = self.root.join("tmp");
        let failed = |source| BlobError::List { place: folder.display().to_string(), source };
        let mut swept = (0, 0);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(about) = entry.metadata() else { continue };
            if !about.is_file() || age(&about) < older || (remove && fs::remove_file(entry.path()).is_err()) {
                continue;
            }
            swept = (swept.0 + 1, swept.1 + about.len());
        }
        Ok(swept)
    }

    fn path(&self, tenant: &str, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(tenant).join(&name[..2]).join(name)
    }
}

/// The first two digits of a digest.
pub const FOLDERS: usize = 256;

/// By this machine's clock. What is from the future is new.
fn age(about: &fs::Metadata) -> Duration {
    about.modified().ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default()
}

fn place(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { unreachable!("a blob's path has a folder") };
    fs::create_dir_all(folder)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// An open blob.
#[derive(Debug)]
pub struct FileReader {
    file: fs::File,
    digest: Digest,
}

impl FileReader {
    /// Up to `buffer.len()` bytes from where the last read ended; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        self.file.read(buffer).map_err(|source| BlobError::Read { digest: self.digest, source })
    }

    /// Goes to an offset from the start.
    pub fn seek(&mut self, offset: u64) -> Result<(), BlobError> {
        let gone = self.file.seek(io::SeekFrom::Start(offset));
        gone.map(drop).map_err(|source| BlobError::Read { digest: self.digest, source })
    }
}
