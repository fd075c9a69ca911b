//! Changes of granted directories that a guest asked for. They are blobs and names here: nothing is published before
//! the commit, and dropping them leaves nothing.

use std::collections::{BTreeMap, btree_map::Entry};

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
    /// The file is replaced by this blob, which is on disk.
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

enum Pending {
    Write(Box<BlobWriter>),
    Remove,
}

impl Staging {
    /// No changes yet, of this many directories.
    pub fn new(blobs: BlobStore, tenant: String, directories: usize) -> Self {
        Self { blobs, tenant, changes: BTreeMap::new(), bytes_written: vec![0; directories] }
    }

    /// Appends to a staged file, within the directory's quota.
    pub fn append(&mut self, place: Place, bytes: &[u8], bytes_max: u64) -> Result<(), Refusal> {
        let directory = place.0;
        if bytes.len() as u64 > bytes_max.saturating_sub(self.bytes_written[directory]) {
            return Err(Refusal::limit_reached(format!("the grant's limit of {bytes_max} bytes of writes")));
        }
        self.make_room(&place)?;
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
    pub fn remove(&mut self, place: Place, exists: bool) -> Result<bool, Refusal> {
        if exists {
            self.make_room(&place)?;
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

    /// Ends every staged file on disk. `resources` are the directories' names, by position.
    pub fn finish(self, resources: &[String]) -> Result<Vec<StagedFile>, BlobError> {
        let finish = |((directory, path), pending): (Place, Pending)| {
            let change = match pending {
                Pending::Write(writer) => Change::Write(writer.finish_on_disk()?),
                Pending::Remove => Change::Remove,
            };
            Ok(StagedFile { resource: resources[directory].clone(), path, change })
        };
        self.changes.into_iter().map(finish).collect()
    }

    fn make_room(&self, place: &Place) -> Result<(), Refusal> {
        if self.changes.len() >= STAGED_FILES_MAX && !self.changes.contains_key(place) {
            return Err(Refusal::limit_reached(format!("at most {STAGED_FILES_MAX} files are staged by one attempt")));
        }
        Ok(())
    }
}
