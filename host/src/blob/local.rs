//! Blobs in a directory.
//!
//! `<root>/<tenant>/<first two digits>/<digest>`; temporary files live in `<root>/tmp`, on the same file system,
//! because a rename is what makes a blob appear whole or not at all. Calls block: they run on guest threads or
//! through `spawn_blocking`, never on the runtime that serves the database.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{BlobError, Digest, spool::Spool};

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

    fn path(&self, tenant: &str, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(tenant).join(&name[..2]).join(name)
    }
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
