//! The blob store on a local disk.
//!
//! `<root>/<tenant>/<first two digits>/<digest>`; temporary files live in `<root>/tmp`, on the same file system,
//! because a rename is what makes a blob appear whole or not at all. Calls block: they run on guest threads or
//! through `spawn_blocking`, never on the runtime that serves the database.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{Digest, DigestWriter};
use crate::limit::{COPY_BUFFER_BYTES, INLINE_OUTPUT_BYTES_MAX};

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
        /// The temporary file.
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
}

/// A blob that is on disk, whole and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// Where finished bytes are: small ones travel to the commit, large ones are already on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// At most [`INLINE_OUTPUT_BYTES_MAX`] bytes, not on disk.
    Inline(Vec<u8>),
    /// On disk under the digest.
    Stored,
}

/// One directory of blobs.
#[derive(Clone, Debug)]
pub struct BlobStore {
    root: PathBuf,
}

impl BlobStore {
    /// Opens the store, making the directory if need be, and proves that it can be written.
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

    /// Starts a blob of this tenant.
    pub fn writer(&self, tenant: &str) -> BlobWriter {
        BlobWriter {
            temporary: self.root.join("tmp"),
            folder: self.root.join(tenant),
            digest: DigestWriter::default(),
            size: 0,
            buffer: Vec::new(),
            file: None,
        }
    }

    /// Stores bytes on disk whatever their size, for blobs that no commit carries inline.
    pub fn put(&self, tenant: &str, bytes: &[u8]) -> Result<Stored, BlobError> {
        let mut writer = self.writer(tenant);
        writer.write(bytes)?;
        writer.finish_on_disk()
    }

    /// Opens a blob for reading from its start.
    pub fn read(&self, tenant: &str, digest: Digest) -> Result<BlobReader, BlobError> {
        let path = blob_path(&self.root.join(tenant), digest);
        match fs::File::open(&path) {
            Ok(file) => Ok(BlobReader { file, digest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Missing { digest }),
            Err(source) => Err(BlobError::Read { digest, source }),
        }
    }

    /// All of a blob that is known to be small, proven to have its digest.
    pub fn read_all(&self, tenant: &str, digest: Digest) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        self.read(tenant, digest)?.file.read_to_end(&mut bytes).map_err(|source| BlobError::Read { digest, source })?;
        if Digest::of(&bytes) != digest {
            return Err(BlobError::Corrupt { digest });
        }
        Ok(bytes)
    }

    /// Whether the blob is on disk.
    pub fn contains(&self, tenant: &str, digest: Digest) -> bool {
        blob_path(&self.root.join(tenant), digest).is_file()
    }
}

fn blob_path(folder: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    folder.join(&name[..2]).join(name)
}

/// A blob being written: hashed as it comes, in memory while it is small, then in a temporary file.
/// Dropped before it is finished, it leaves nothing.
pub struct BlobWriter {
    temporary: PathBuf,
    folder: PathBuf,
    digest: DigestWriter,
    size: u64,
    buffer: Vec<u8>,
    file: Option<NamedTempFile>,
}

impl BlobWriter {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        let inline = self.file.is_none() && self.size <= INLINE_OUTPUT_BYTES_MAX as u64;
        if !inline && self.buffer.len() + bytes.len() > COPY_BUFFER_BYTES {
            self.spill()?;
            if bytes.len() >= COPY_BUFFER_BYTES {
                return self.write_through(bytes);
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// At most `max` of the bytes written so far, from an offset; empty at their end.
    pub fn read_at(&self, offset: u64, max: usize) -> Result<Vec<u8>, BlobError> {
        let on_disk = self.size - self.buffer.len() as u64;
        let length = self.size.saturating_sub(offset).min(max as u64) as usize;
        let mut bytes = vec![0; length];
        let (from_disk, from_buffer) = bytes.split_at_mut(on_disk.saturating_sub(offset).min(length as u64) as usize);
        if let (Some(file), false) = (&self.file, from_disk.is_empty()) {
            let failed = |source| BlobError::ReadBack { path: file.path().to_owned(), source };
            file.as_file().read_exact_at(from_disk, offset).map_err(failed)?;
        }
        if !from_buffer.is_empty() {
            let start = offset.saturating_sub(on_disk) as usize;
            from_buffer.copy_from_slice(&self.buffer[start..start + from_buffer.len()]);
        }
        Ok(bytes)
    }

    /// Ends the blob: inline when it is small, otherwise synced to disk under its digest.
    pub fn finish(self) -> Result<(Stored, Content), BlobError> {
        if self.file.is_none() && self.size <= INLINE_OUTPUT_BYTES_MAX as u64 {
            let stored = Stored { digest: self.digest.finish(), size: self.size };
            return Ok((stored, Content::Inline(self.buffer)));
        }
        Ok((self.finish_on_disk()?, Content::Stored))
    }

    /// Ends the blob on disk, whatever its size.
    pub fn finish_on_disk(mut self) -> Result<Stored, BlobError> {
        self.spill()?;
        let stored = Stored { digest: self.digest.finish(), size: self.size };
        let path = blob_path(&self.folder, stored.digest);
        let Some(file) = self.file else { unreachable!("spill opens the file") };
        if path.is_file() {
            return Ok(stored);
        }
        place(file, &path).map_err(|source| BlobError::Write { path, source })?;
        Ok(stored)
    }

    /// Moves what is in memory to the temporary file, opening it the first time.
    fn spill(&mut self) -> Result<(), BlobError> {
        if self.file.is_none() {
            let file = NamedTempFile::new_in(&self.temporary)
                .map_err(|source| BlobError::Write { path: self.temporary.clone(), source })?;
            self.file = Some(file);
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.write_through(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let Some(file) = &mut self.file else { unreachable!("only called after spill opened the file") };
        file.write_all(bytes).map_err(|source| BlobError::Write { path: file.path().to_owned(), source })
    }
}

/// Syncs the file, gives it its name, and syncs the folder that holds the name.
fn place(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { unreachable!("a blob's path has a folder") };
    fs::create_dir_all(folder)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

/// The bytes of one blob.
#[derive(Debug)]
pub struct BlobReader {
    file: fs::File,
    digest: Digest,
}

impl BlobReader {
    /// Up to `buffer.len()` bytes from where the last read ended; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        self.file.read(buffer).map_err(|source| BlobError::Read { digest: self.digest, source })
    }

    /// Goes to an offset from the start.
    pub fn seek(&mut self, offset: u64) -> Result<(), BlobError> {
        self.file
            .seek(io::SeekFrom::Start(offset))
            .map(drop)
            .map_err(|source| BlobError::Read { digest: self.digest, source })
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn small_blobs_stay_inline_and_large_ones_go_to_disk() {
        let (_folder, store) = store();
        for (size, inline) in [(0, true), (INLINE_OUTPUT_BYTES_MAX, true), (INLINE_OUTPUT_BYTES_MAX + 1, false)] {
            let bytes = vec![7; size];
            let mut writer = store.writer("default");
            bytes.chunks(1_000).for_each(|chunk| writer.write(chunk).unwrap());
            let (stored, content) = writer.finish().unwrap();
            assert_eq!(stored, Stored { digest: Digest::of(&bytes), size: size as u64 });
            assert_eq!(matches!(&content, Content::Inline(kept) if *kept == bytes), inline);
            assert_eq!(store.contains("default", stored.digest), !inline);
        }
    }

    #[test]
    fn a_large_blob_reads_back_in_pieces_of_any_size() {
        let (_folder, store) = store();
        let bytes: Vec<u8> = (0..3 * COPY_BUFFER_BYTES + 17).map(|n| (n * 31 % 251) as u8).collect();
        let mut writer = store.writer("default");
        for piece in [1, COPY_BUFFER_BYTES * 2, 100] {
            let from = writer.size() as usize;
            writer.write(&bytes[from..from + piece]).unwrap();
        }
        let from = writer.size() as usize;
        writer.write(&bytes[from..]).unwrap();
        let (stored, _) = writer.finish().unwrap();
        assert_eq!(store.read_all("default", stored.digest).unwrap(), bytes);

        let mut reader = store.read("default", stored.digest).unwrap();
        reader.seek(bytes.len() as u64 - 3).unwrap();
        let mut tail = [0; 8];
        assert_eq!(reader.read(&mut tail).unwrap(), 3);
        assert_eq!(tail[..3], bytes[bytes.len() - 3..]);
    }

    #[test]
    fn the_same_bytes_are_one_file_and_tenants_do_not_share() {
        let (folder, store) = store();
        let stored = store.put("a", b"same").unwrap();
        store.put("a", b"same").unwrap();
        assert_eq!(files_below(folder.path()), 1);
        assert!(!store.contains("b", stored.digest));
        assert!(matches!(store.read("b", stored.digest), Err(BlobError::Missing { .. })));
    }

    #[test]
    fn an_unfinished_blob_leaves_nothing() {
        let (folder, store) = store();
        let mut writer = store.writer("default");
        writer.write(&vec![1; 2 * COPY_BUFFER_BYTES]).unwrap();
        assert_eq!(files_below(folder.path()), 1);
        drop(writer);
        assert_eq!(files_below(folder.path()), 0);
    }

    #[test]
    fn what_is_written_so_far_reads_back_from_any_offset() {
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

    #[test]
    fn whether_it_can_be_written_is_found_out_without_a_trace() {
        let (folder, store) = store();
        store.check_writable().unwrap();
        assert_eq!(files_below(folder.path()), 0);
        fs::remove_dir(store.root.join("tmp")).unwrap();
        assert!(matches!(store.check_writable(), Err(BlobError::Write { .. })));
    }

    #[test]
    fn a_corrupt_blob_is_not_returned() {
        let (_folder, store) = store();
        let stored = store.put("default", b"right").unwrap();
        fs::write(blob_path(&store.root.join("default"), stored.digest), b"wrong").unwrap();
        assert!(matches!(store.read_all("default", stored.digest), Err(BlobError::Corrupt { .. })));
    }
}
