//! Changes of granted directories that a guest asked for. They are blobs and names here: nothing is published before
//! the commit, and dropping them leaves nothing.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

use crate::{
    blob::{BlobError, BlobStore, BlobWriter, Stored},
    capability::Refusal,
    limit::STAGED_FILES_MAX,
};

/// A change of a granted directory that the commit will carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The resource's name.
    pub resource: String,
    /// Relative to its directory.
    pub path: String,
    /// What becomes of the path.
    pub change: Change,
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file is replaced by this blob, which is stored.
    Write(Stored),
    /// The file is removed.
    Remove,
}

/// The changes of one attempt.
pub struct Staging {
    blobs: BlobStore,
    tenant: String,
    changes: BTreeMap<Place, Pending>,
    /// For each directory, what was written so far. Removing a staged file gives nothing back.
    bytes_written: Vec<u64>,
}

/// A directory by position, and a path in it.
type Place = (usize, String);

/// What one attempt may change in one directory.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Bytes of writes.
    pub bytes: u64,
    /// Files that are written or removed.
    pub entries: u32,
}

/// What an attempt sees at a path that it has changed.
#[derive(Clone, Copy)]
pub enum Staged<'a> {
    /// The bytes that it has written.
    Written(&'a BlobWriter),
    /// Nothing.
    Removed,
}

impl<'a> Staged<'a> {
    fn of(pending: &'a Pending) -> Self {
        match pending {
            Pending::Write(writer) => Self::Written(writer),
            Pending::Remove => Self::Removed,
        }
    }
}

enum Pending {
    Write(Box<BlobWriter>),
    Remove,
}

impl Staging {
    /// No changes yet, of this many directories.
    pub fn new(blobs: BlobStore, tenant: String, directories: usize) -> Self {
        Self { blobs, tenant, changes: BTreeMap::new(), bytes_written: vec![0; directories] }
    }

    /// What is staged at a path, if anything is.
    pub fn find(&self, directory: usize, path: &str) -> Option<Staged<'_>> {
        // A key of borrowed text would need a type of its own; a path is short.
        self.changes.get(&(directory, path.to_owned())).map(Staged::of)
    }

    /// What is staged in a directory after a path, in order.
    pub fn list(&self, directory: usize, after: Option<&str>) -> impl Iterator<Item = (&str, Staged<'_>)> {
        let start = match after {
            Some(after) => Bound::Excluded((directory, after.to_owned())),
            None => Bound::Included((directory, String::new())),
        };
        let here = self.changes.range((start, Bound::Unbounded)).take_while(move |((of, _), _)| *of == directory);
        here.map(|((_, path), pending)| (path.as_str(), Staged::of(pending)))
    }

    /// Appends to a staged file, within the directory's quota.
    pub fn append(&mut self, place: Place, bytes: &[u8], quota: Quota) -> Result<(), Refusal> {
        let directory = place.0;
        if bytes.len() as u64 > quota.bytes.saturating_sub(self.bytes_written[directory]) {
            return Err(Refusal::limit_reached(format!("the grant's limit of {} bytes of writes", quota.bytes)));
        }
        self.make_room(&place, quota)?;
        self.check_is_no_folder(&place)?;
        let pending = self.changes.entry(place).or_insert(Pending::Remove);
        if let Pending::Remove = pending {
            *pending = Pending::Write(Box::new(self.blobs.writer(&self.tenant)));
        }
        let Pending::Write(writer) = pending else { unreachable!("it was just made a write") };
        writer.write(bytes).map_err(|error| Refusal::host_fault(&error))?;
        self.bytes_written[directory] += bytes.len() as u64;
        Ok(())
    }

    /// Stages a removal; says whether there was anything to remove. `exists` is whether the file is there now.
    pub fn remove(&mut self, place: Place, exists: bool, quota: Quota) -> Result<bool, Refusal> {
        if exists {
            self.make_room(&place, quota)?;
        }
        match self.changes.entry(place) {
            Entry::Occupied(entry) if matches!(entry.get(), Pending::Remove) => Ok(false),
            Entry::Occupied(mut entry) if exists => {
                entry.insert(Pending::Remove);
                Ok(true)
            }
            Entry::Occupied(entry) => {
                entry.remove();
                Ok(true)
            }
            Entry::Vacant(entry) if exists => {
                entry.insert(Pending::Remove);
                Ok(true)
            }
            Entry::Vacant(_) => Ok(false),
        }
    }

    /// Ends every staged file in the blob store. `resources` are the directories' names, by position.
    pub async fn finish(self, resources: &[String]) -> Result<Vec<StagedFile>, BlobError> {
        let mut staged = Vec::with_capacity(self.changes.len());
        for ((directory, path), pending) in self.changes {
            let change = match pending {
                Pending::Write(writer) => Change::Write(writer.finish_stored().await?),
                Pending::Remove => Change::Remove,
            };
            staged.push(StagedFile { resource: resources[directory].clone(), path, change });
        }
        Ok(staged)
    }

    fn make_room(&self, place: &Place, quota: Quota) -> Result<(), Refusal> {
        if self.changes.contains_key(place) {
            return Ok(());
        }
        if self.changes.len() >= STAGED_FILES_MAX {
            return Err(Refusal::limit_reached(format!("at most {STAGED_FILES_MAX} files are staged by one attempt")));
        }
        if self.list(place.0, None).count() >= quota.entries as usize {
            let entries = quota.entries;
            return Err(Refusal::limit_reached(format!("the grant's limit of {entries} files written or removed")));
        }
        Ok(())
    }

    /// A name cannot be a file and a folder: such files could never be published, and would hold up all that is
    /// published after them.
    fn check_is_no_folder(&self, (directory, path): &Place) -> Result<(), Refusal> {
        let is_written = |path: &str| matches!(self.find(*directory, path), Some(Staged::Written(_)));
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(file) = folders.find(|folder| is_written(folder)) {
            return Err(Refusal::invalid(format!("`{file}` is a file that this attempt writes, not a folder")));
        }
        let below = format!("{path}/");
        let mut after = self.list(*directory, Some(&below)).take_while(|(other, _)| other.starts_with(&below));
        match after.any(|(_, staged)| matches!(staged, Staged::Written(_))) {
            true => Err(Refusal::invalid("it is a folder of files that this attempt writes")),
            false => Ok(()),
        }
    }
}
