//! Bytes by their digest: outputs too large for a row, and components.
//!
//! A store is a directory or an S3 bucket. In both a blob is written while it is hashed, first where nobody looks, and
//! then appears whole under its digest; so a name that exists holds all of its bytes, and writing the same bytes twice
//! is one blob. Each tenant has a folder of its own: whether another tenant stored the same bytes cannot be found out.
//! Listing and deleting are for the collector alone, which follows what commits name.

mod digest;
mod local;
mod s3;
mod spool;
mod wire;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
pub use digest::{Digest, DigestWriter, ParseDigestError};
use local::Directory;
use s3::S3;
pub use s3::{EndpointMistake, S3Credentials, S3Settings};
use spool::Spool;

use crate::limit::{COMPONENT_BYTES_MAX, COPY_BUFFER_BYTES, INLINE_OUTPUT_BYTES_MAX};

/// What went wrong with a blob, and which one.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The directory is missing, not a directory, or not writable.
    #[error("cannot use {path} as a blob store")]
    Open {
        /// Where the store should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is full or failing.
    #[error("cannot write a blob to {path}")]
    Write {
        /// The file or folder being written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is failing, under a blob that is still being written.
    #[error("cannot read back a blob from {path}")]
    ReadBack {
        /// The temporary file or its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The blob is not there, although something names it.
    #[error("blob {digest} is missing from the blob store")]
    Missing {
        /// What was asked for.
        digest: Digest,
    },
    /// The blob's bytes are not those that were stored.
    #[error("blob {digest} is corrupt: its bytes have another digest")]
    Corrupt {
        /// What was asked for.
        digest: Digest,
    },
    /// The disk is failing.
    #[error("cannot read blob {digest}")]
    Read {
        /// What was asked for.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is failing.
    #[error("cannot list the blobs in {place}")]
    List {
        /// A folder.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is failing, or the folder is not ours.
    #[error("cannot delete the blob {path}")]
    Delete {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object store did not do what it was asked. Its answers may hold what was signed, so they are not kept.
    #[error("cannot {doing} {place}: {why}")]
    ObjectStore {
        /// A verb.
        doing: &'static str,
        /// `s3://bucket/key`.
        place: String,
        /// One sentence, with the fix where there is one.
        why: String,
    },
    /// The process is stopping.
    #[error("the blob store was left before it had answered")]
    Stopped,
}

/// A blob that is stored, whole and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A blob as a listing has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Since it was last written, by the clocks of the store and of this machine.
    pub age: Duration,
}

/// Where a listing goes on.
#[derive(Clone, Debug)]
pub enum ListPlace {
    /// In this one of a tenant's folders.
    Folder(usize),
    /// Where an object store says.
    Token(String),
}

/// Where finished bytes are: small ones travel to the commit, large ones are already in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// At most [`INLINE_OUTPUT_BYTES_MAX`] bytes, not in the store.
    Inline(Vec<u8>),
    /// In the store under the digest.
    Stored,
}

/// Where a process keeps blobs.
#[derive(Clone, Debug)]
pub enum BlobPlace {
    /// On a disk of this machine, or one that others mount as well.
    Directory(PathBuf),
    /// In an object store that speaks S3.
    S3(S3Settings),
}

/// One store of blobs.
///
/// What asks an object store waits for the network, on the runtime on which the store was opened: threads of guests have
/// none. What works on a directory blocks, for as long as a disk takes.
#[derive(Clone, Debug)]
pub struct BlobStore(Place);

#[derive(Clone, Debug)]
enum Place {
    Directory(Directory),
    S3(Arc<S3>),
}

impl BlobStore {
    /// Opens a directory, making it if need be, and proves that it can be written.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        Directory::open(root).map(|directory| Self(Place::Directory(directory)))
    }

    /// Opens the store of a process, and proves that it can be written. What is on its way to an object store is kept
    /// in the folder `spool` meanwhile. Network IO is done on the current runtime.
    pub async fn open_place(place: &BlobPlace, spool: &Path) -> Result<Self, BlobError> {
        match place {
            BlobPlace::Directory(root) => Self::open(root),
            BlobPlace::S3(settings) => Ok(Self(Place::S3(Arc::new(S3::open(settings, spool).await?)))),
        }
    }

    /// Proves that the store can be written now, without a trace among the blobs.
    pub async fn check_writable(&self) -> Result<(), BlobError> {
        match &self.0 {
            Place::Directory(directory) => {
                let directory = directory.clone();
                let checked = tokio::task::spawn_blocking(move || directory.check_writable());
                checked.await.unwrap_or(Err(BlobError::Stopped))
            }
            Place::S3(s3) => s3.check_writable().await,
        }
    }

    /// Starts a blob of this tenant.
    pub fn writer(&self, tenant: &str) -> BlobWriter {
        let spool = match &self.0 {
            Place::Directory(directory) => directory.spool(),
            Place::S3(s3) => s3.spool(),
        };
        BlobWriter { store: self.clone(), tenant: tenant.to_owned(), digest: DigestWriter::default(), spool }
    }

    /// Stores bytes whatever their size, for blobs that no commit carries inline.
    pub async fn put(&self, tenant: &str, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Stored, BlobError> {
        match &self.0 {
            Place::Directory(_) => {
                let mut writer = self.writer(tenant);
                let written = tokio::task::spawn_blocking(move || {
                    writer.write(bytes.as_ref())?;
                    writer.place_file()
                });
                written.await.unwrap_or(Err(BlobError::Stopped))
            }
            Place::S3(s3) => {
                let bytes = Bytes::from_owner(bytes);
                let stored = Stored { digest: Digest::of(&bytes), size: bytes.len() as u64 };
                s3.upload(tenant, stored, s3::Source::Memory(bytes)).await?;
                Ok(stored)
            }
        }
    }

    /// Opens a blob for reading from its start. Of an object store only the first read tells whether it is there.
    pub fn read(&self, tenant: &str, digest: Digest) -> Result<BlobReader, BlobError> {
        match &self.0 {
            Place::Directory(directory) => directory.read(tenant, digest).map(BlobReader::File),
            Place::S3(s3) => Ok(BlobReader::Object(Box::new(s3.read(tenant, digest)))),
        }
    }

    /// All of a blob that is known to be no larger than a component, proven to have its digest.
    pub async fn read_all(&self, tenant: &str, digest: Digest) -> Result<Vec<u8>, BlobError> {
        let mut reader = self.read(tenant, digest)?;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            match reader.read(&mut buffer).await? {
                0 if Digest::of(&bytes) == digest => return Ok(bytes),
                count if count > 0 && bytes.len() + count <= COMPONENT_BYTES_MAX => bytes.extend(&buffer[..count]),
                _ => return Err(BlobError::Corrupt { digest }),
            }
        }
    }

    /// Whether the blob is there. That the store cannot say is an error, and never a no.
    pub async fn contains(&self, tenant: &str, digest: Digest) -> Result<bool, BlobError> {
        match &self.0 {
            Place::Directory(directory) => Ok(directory.contains(tenant, digest)),
            Place::S3(s3) => Ok(s3.find_missing(tenant, vec![digest]).await?.is_empty()),
        }
    }

    /// Some of a tenant's blobs, in no order, and where the listing goes on; nothing when it is through. What is written
    /// meanwhile may be in it or not.
    pub async fn list(
        &self,
        tenant: &str,
        from: Option<ListPlace>,
    ) -> Result<(Vec<Listed>, Option<ListPlace>), BlobError> {
        match &self.0 {
            Place::Directory(directory) => {
                let folder = if let Some(ListPlace::Folder(folder)) = from { folder } else { 0 };
                let (directory, tenant) = (directory.clone(), tenant.to_owned());
                let listed = tokio::task::spawn_blocking(move || directory.list(&tenant, folder)).await;
                let next = (folder + 1 < local::FOLDERS).then_some(ListPlace::Folder(folder + 1));
                Ok((listed.unwrap_or(Err(BlobError::Stopped))?, next))
            }
            Place::S3(s3) => {
                let token = if let Some(ListPlace::Token(token)) = from { Some(token) } else { None };
                let (listed, next) = s3.list(tenant, token).await?;
                Ok((listed, next.map(ListPlace::Token)))
            }
        }
    }

    /// Removes a blob that nothing names. None of it is left, also when it was not there.
    pub async fn delete(&self, tenant: &str, digest: Digest) -> Result<(), BlobError> {
        match &self.0 {
            Place::Directory(directory) => {
                let (directory, tenant) = (directory.clone(), tenant.to_owned());
                let deleted = tokio::task::spawn_blocking(move || directory.delete(&tenant, digest)).await;
                deleted.unwrap_or(Err(BlobError::Stopped))
            }
            Place::S3(s3) => s3.delete(tenant, digest).await,
        }
    }

    /// What writers left that were killed, and for how long nothing was written to it: how many files, of how many bytes.
    /// Unless it is only asked, they are removed. An object store has a rule of its own for it.
    pub async fn sweep_unfinished(&self, older: Duration, remove: bool) -> Result<(u64, u64), BlobError> {
        let Place::Directory(directory) = &self.0 else { return Ok((0, 0)) };
        let directory = directory.clone();
        let swept = tokio::task::spawn_blocking(move || directory.sweep_unfinished(older, remove)).await;
        swept.unwrap_or(Err(BlobError::Stopped))
    }

    /// Those of these blobs that are not there.
    pub async fn find_missing(
        &self,
        tenant: &str,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<HashSet<Digest>, BlobError> {
        let digests: HashSet<Digest> = digests.into_iter().collect();
        match &self.0 {
            Place::Directory(directory) => {
                Ok(digests.into_iter().filter(|digest| !directory.contains(tenant, *digest)).collect())
            }
            Place::S3(s3) => s3.find_missing(tenant, digests.into_iter().collect()).await,
        }
    }
}

/// A blob being written: hashed as it comes, in memory while it is small, then in a temporary file.
/// Dropped before it is finished, it leaves nothing.
pub struct BlobWriter {
    store: BlobStore,
    tenant: String,
    digest: DigestWriter,
    spool: Spool,
}

impl BlobWriter {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.digest.update(bytes);
        self.spool.write(bytes)
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.spool.size()
    }

    /// At most `max` of the bytes written so far, from an offset; empty at their end.
    pub fn read_at(&self, offset: u64, max: usize) -> Result<Vec<u8>, BlobError> {
        self.spool.read_at(offset, max)
    }

    /// Ends the blob: inline when it is small, otherwise in the store under its digest.
    pub async fn finish(mut self) -> Result<(Stored, Content), BlobError> {
        if self.size() <= INLINE_OUTPUT_BYTES_MAX as u64
            && let Some(bytes) = self.spool.take_memory()
        {
            let stored = Stored { digest: self.digest.finish(), size: bytes.len() as u64 };
            return Ok((stored, Content::Inline(bytes)));
        }
        Ok((self.finish_stored().await?, Content::Stored))
    }

    /// Ends the blob in the store, whatever its size.
    pub async fn finish_stored(self) -> Result<Stored, BlobError> {
        let Place::S3(s3) = &self.store.0 else { return self.place_file() };
        let (s3, tenant) = (s3.clone(), self.tenant.clone());
        let stored = Stored { digest: self.digest.finish(), size: self.spool.size() };
        let source = match self.spool.into_content()? {
            spool::Spooled::Memory(bytes) => s3::Source::Memory(Bytes::from(bytes)),
            spool::Spooled::File(file) => s3::Source::File(Arc::new(file.into_parts().0)),
        };
        s3.upload(&tenant, stored, source).await?;
        Ok(stored)
    }

    fn place_file(self) -> Result<Stored, BlobError> {
        let Place::Directory(directory) = &self.store.0 else { unreachable!("only a directory's blobs are files") };
        let stored = Stored { digest: self.digest.finish(), size: self.spool.size() };
        directory.place(&self.tenant, stored.digest, self.spool.into_file()?)?;
        Ok(stored)
    }
}

/// The bytes of one blob.
#[derive(Debug)]
pub enum BlobReader {
    /// Of a directory.
    File(local::FileReader),
    /// Of an object store.
    Object(Box<s3::ObjectReader>),
}

impl BlobReader {
    /// Up to `buffer.len()` bytes from where the last read ended; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        match self {
            Self::File(reader) => reader.read(buffer),
            Self::Object(reader) => reader.read(buffer).await,
        }
    }

    /// Goes to an offset from the start.
    pub fn seek(&mut self, offset: u64) -> Result<(), BlobError> {
        match self {
            Self::File(reader) => reader.seek(offset),
            Self::Object(reader) => {
                reader.seek(offset);
                Ok(())
            }
        }
    }

    /// How much may be fetched ahead of what was asked for, in memory of this process.
    pub fn set_ahead_max(&mut self, bytes: usize) {
        if let Self::Object(reader) = self {
            reader.set_ahead_max(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn store() -> (tempfile::TempDir, BlobStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(&folder.path().join("blobs")).unwrap();
        (folder, store)
    }

    fn files_below(path: &Path) -> usize {
        fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .fold(0, |n, path| n + if path.is_dir() { files_below(&path) } else { 1 })
    }

    #[tokio::test]
    async fn small_blobs_stay_inline_and_large_ones_go_to_disk() {
        let (_folder, store) = store();
        for (size, inline) in [(0, true), (INLINE_OUTPUT_BYTES_MAX, true), (INLINE_OUTPUT_BYTES_MAX + 1, false)] {
            let bytes = vec![7; size];
            let mut writer = store.writer("default");
            bytes.chunks(1_000).for_each(|chunk| writer.write(chunk).unwrap());
            let (stored, content) = writer.finish().await.unwrap();
            assert_eq!(stored, Stored { digest: Digest::of(&bytes), size: size as u64 });
            assert_eq!(matches!(&content, Content::Inline(kept) if *kept == bytes), inline);
            assert_eq!(store.contains("default", stored.digest).await.unwrap(), !inline);
        }
    }

    #[tokio::test]
    async fn whether_it_can_be_written_is_found_out_without_a_trace() {
        let (folder, store) = store();
        store.check_writable().await.unwrap();
        assert_eq!(files_below(folder.path()), 0);
        fs::remove_dir(folder.path().join("blobs/tmp")).unwrap();
        assert!(matches!(store.check_writable().await, Err(BlobError::Write { .. })));
    }

    #[tokio::test]
    async fn an_unfinished_blob_leaves_nothing() {
        let (folder, store) = store();
        let mut writer = store.writer("default");
        writer.write(&vec![1; 2 * COPY_BUFFER_BYTES]).unwrap();
        assert_eq!(files_below(folder.path()), 1);
        drop(writer);
        assert_eq!(files_below(folder.path()), 0);
    }

    #[tokio::test]
    async fn what_is_written_so_far_reads_back_from_any_offset() {
        let (_folder, store) = store();
        let bytes: Vec<u8> = (0..3 * COPY_BUFFER_BYTES + 17).map(|n| (n * 31 % 251) as u8).collect();
        for size in [0, 1, INLINE_OUTPUT_BYTES_MAX, COPY_BUFFER_BYTES + 1, bytes.len()] {
            let mut writer = store.writer("default");
            // In pieces that leave some on disk and some in memory.
            bytes[..size].chunks(COPY_BUFFER_BYTES / 3).for_each(|chunk| writer.write(chunk).unwrap());
            for offset in [0, 1, size / 2, size.saturating_sub(1), size, size + 1] {
                for max in [1, 100, COPY_BUFFER_BYTES, bytes.len()] {
                    let expected = &bytes[offset.min(size)..size.min(offset.saturating_add(max)).max(offset.min(size))];
                    assert!(writer.read_at(offset as u64, max).unwrap() == expected, "{size} {offset} {max}");
                }
            }
            assert!(writer.read_at(u64::MAX, 10).unwrap().is_empty());
            writer.write(b"end").unwrap();
            assert_eq!(writer.read_at(size as u64, 10).unwrap(), b"end", "reading moves nothing");
        }
    }
}
