//! What of a blob has been written so far: in memory while it is small, then in a temporary file.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::BlobError;
use crate::limit::{COPY_BUFFER_BYTES, INLINE_OUTPUT_BYTES_MAX};

/// Bytes on their way. Dropped, it leaves nothing.
pub struct Spool {
    folder: PathBuf,
    keeps_name: bool,
    size: u64,
    buffer: Vec<u8>,
    file: Option<NamedTempFile>,
}

/// All of a spool's bytes, where they are.
pub enum Spooled {
    /// They never became too many.
    Memory(Vec<u8>),
    /// Whole, not synced.
    File(NamedTempFile),
}

impl Spool {
    /// Empty. Its file, when there will be one, is in this folder, and can be renamed.
    pub fn named(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), keeps_name: true, size: 0, buffer: Vec::new(), file: None }
    }

    /// The same with a file that nobody can open: it goes when the process does, however it ends.
    pub fn nameless(folder: &Path) -> Self {
        Self { keeps_name: false, ..Self::named(folder) }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
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

    /// The bytes, while they are all in memory.
    pub fn take_memory(&mut self) -> Option<Vec<u8>> {
        self.file.is_none().then(|| std::mem::take(&mut self.buffer))
    }

    /// The bytes, where they are.
    pub fn into_content(mut self) -> Result<Spooled, BlobError> {
        match self.take_memory() {
            Some(bytes) => Ok(Spooled::Memory(bytes)),
            None => self.into_file().map(Spooled::File),
        }
    }

    /// The bytes in a file, however few.
    pub fn into_file(mut self) -> Result<NamedTempFile, BlobError> {
        self.spill()?;
        let Some(file) = self.file else { unreachable!("spill opens the file") };
        Ok(file)
    }

    /// Moves what is in memory to the temporary file, opening it the first time.
    fn spill(&mut self) -> Result<(), BlobError> {
        if self.file.is_none() {
            let failed = |source| BlobError::Write { path: self.folder.clone(), source };
            let file = NamedTempFile::new_in(&self.folder).map_err(failed)?;
            if !self.keeps_name {
                fs::remove_file(file.path()).map_err(failed)?;
            }
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
