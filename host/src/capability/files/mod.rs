//! `flowstone:asset/files`: granted directories. Only by grant.
//!
//! Writes and removals are staged, and published by the commit; reads and listings see the directory as it is, and over
//! it what the attempt itself has staged. What the grant's globs do not match is denied before the file system is asked
//! whether it exists.

mod fingerprint;
mod mounted;
mod staging;
mod tree;
mod ungranted;

use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;
use wasmtime::component::Resource;

pub use self::{
    fingerprint::{Fingerprint, FingerprintCache, FingerprintError, fingerprint},
    mounted::MountedView,
    staging::{Change, StagedFile},
    tree::{Globs, check_path},
};
use self::{
    staging::{Quota, Staged, Staging},
    tree::{ListError, Listed, OpenError, OpenFile},
};
use super::{Denial, Denials, Interrupt, Refusal, Use, Used, Uses, denial::files_remedy};
use crate::{
    bindings::flowstone::asset::{files, types},
    blob::{BlobError, BlobStore},
    limit::{CHUNK_BYTES_MAX, ENTRIES_PER_CALL_MAX},
    pipeline::resource::{Access, DirectoryGrant},
};

/// A directory that the attempt may use.
#[derive(Debug)]
pub struct Directory {
    /// The open directory.
    pub directory: Dir,
    /// What may be done with it, and under which name.
    pub grant: DirectoryGrant,
}

/// The directories of one attempt.
pub struct Files {
    asset: String,
    open: Vec<Granted>,
    staging: Staging,
    interrupt: Interrupt,
    denials: Denials,
    /// Shared with the streams of mounted files, which count as they are read.
    uses: Arc<Mutex<Uses>>,
    /// Each open file of a mounted directory holds one.
    mounted_open: Arc<()>,
}

struct Granted {
    directory: Dir,
    grant: DirectoryGrant,
    globs: Globs,
    /// Taken at the first call, so that pages of one listing fit together.
    listing: Option<Vec<Listed>>,
    /// The file that was read last: reading one in chunks opens it once.
    last: Option<(String, OpenFile)>,
}

impl Files {
    /// The directories that an attempt of this asset may use. Fails when a glob is not one.
    pub fn new(
        asset: String,
        directories: Vec<Directory>,
        blobs: BlobStore,
        tenant: String,
        interrupt: Interrupt,
    ) -> Result<Self, globset::Error> {
        let staging = Staging::new(blobs, tenant, directories.len());
        let granted = |Directory { directory, grant }| {
            Ok(Granted { globs: Globs::new(&grant.paths)?, directory, grant, listing: None, last: None })
        };
        let calls = interrupt.calls();
        let open = directories.into_iter().map(granted).collect::<Result<_, _>>()?;
        Ok(Self {
            asset,
            open,
            staging,
            interrupt,
            denials: Denials::default(),
            uses: Arc::new(Mutex::new(Uses::of("files").timed(calls))),
            mounted_open: Arc::default(),
        })
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// What was done with what was granted.
    pub fn take_uses(&mut self) -> Vec<Use> {
        mounted::lock(&self.uses).take()
    }

    /// Ends the staged files in the blob store.
    pub async fn finish(self) -> Result<Vec<StagedFile>, BlobError> {
        let resources: Vec<String> = self.open.into_iter().map(|granted| granted.grant.resource).collect();
        self.staging.finish(&resources).await
    }

    fn granted(&mut self, directory: &Resource<files::Directory>) -> Result<&mut Granted, Refusal> {
        self.open.get_mut(directory.rep() as usize).ok_or_else(closed)
    }

    /// The path is well formed and granted, for writing too if asked.
    fn check(
        &mut self,
        directory: &Resource<files::Directory>,
        path: &str,
        operation: &str,
        access: Access,
    ) -> Result<(), Refusal> {
        tree::check_path(path).map_err(Refusal::invalid)?;
        let granted = self.granted(directory)?;
        let may_write = access == Access::Read || granted.grant.access == Access::ReadWrite;
        if may_write && granted.globs.is_match(path) {
            return Ok(());
        }
        Err(self.deny(directory, path, operation, access))
    }

    fn deny(&mut self, directory: &Resource<files::Directory>, path: &str, operation: &str, access: Access) -> Refusal {
        let Some(granted) = self.open.get(directory.rep() as usize) else {
            return closed();
        };
        let resource = &granted.grant.resource;
        let remedy = files_remedy(&self.asset, resource, access.name(), path);
        self.denials.record("files", resource, operation, path, remedy);
        types::CapabilityError::Denied.into()
    }

    /// Something is at a granted path that is never given out, whatever the grant.
    fn forbid(&mut self, directory: &Resource<files::Directory>, path: &str, operation: &str) -> Refusal {
        if let Some(granted) = self.open.get(directory.rep() as usize) {
            let remedy = "none: it is not a regular file, or a link leads to it from outside or through a folder";
            self.denials.record("files", &granted.grant.resource, operation, path, remedy.to_owned());
        }
        types::CapabilityError::Denied.into()
    }

    /// The regular file at the path, as it is in the directory.
    fn find(
        &mut self,
        directory: &Resource<files::Directory>,
        path: &str,
        operation: &str,
    ) -> Result<Option<OpenFile>, Refusal> {
        match tree::open(&self.granted(directory)?.directory, path) {
            Ok(file) => Ok(Some(file)),
            Err(OpenError::NotFound) => Ok(None),
            Err(OpenError::Forbidden) => Err(self.forbid(directory, path, operation)),
            Err(OpenError::Io(error)) => Err(unavailable(&error)),
        }
    }

    fn list_page(
        &mut self,
        directory: &Resource<files::Directory>,
        after: Option<String>,
        max: u32,
    ) -> Result<Vec<files::Entry>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("a page of no entries would look like the end"));
        }
        let position = directory.rep() as usize;
        let granted = self.open.get_mut(position).ok_or_else(closed)?;
        if granted.listing.is_none() {
            granted.listing = Some(list(granted, &self.interrupt)?);
        }
        let listing = granted.listing.as_deref().unwrap_or_default();
        let after = after.as_deref();
        let from = after.map_or(0, |after| listing.partition_point(|entry| *entry.path <= *after));
        let present = listing[from..].iter().map(|entry| (entry.path.as_str(), entry.size));
        let staged = self.staging.list(position, after);
        let page = overlaid(present, staged).take((max as usize).min(ENTRIES_PER_CALL_MAX));
        Ok(page.map(|(path, size)| files::Entry { path: path.to_owned(), size }).collect())
    }

    fn stat_file(&mut self, directory: &Resource<files::Directory>, path: &str) -> Result<files::Entry, Refusal> {
        self.check(directory, path, "stat", Access::Read)?;
        let size = match self.staging.find(directory.rep() as usize, path) {
            Some(Staged::Removed) => None,
            Some(Staged::Written(writer)) => Some(writer.size()),
            None => match self.find(directory, path, "stat")? {
                Some(file) => Some(file.size().map_err(|error| unavailable(&error))?),
                None => None,
            },
        };
        let size = size.ok_or(types::CapabilityError::NotFound)?;
        Ok(files::Entry { path: path.to_owned(), size })
    }

    fn read_chunk(
        &mut self,
        directory: &Resource<files::Directory>,
        path: &str,
        offset: u64,
        max: u32,
    ) -> Result<Vec<u8>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("a read of no bytes would look like the end"));
        }
        self.check(directory, path, "read", Access::Read)?;
        match self.staging.find(directory.rep() as usize, path) {
            Some(Staged::Removed) => return Err(types::CapabilityError::NotFound.into()),
            Some(Staged::Written(writer)) => {
                let chunk = writer.read_at(offset, (max as usize).min(CHUNK_BYTES_MAX));
                return chunk.map_err(|error| Refusal::host_fault(&error));
            }
            None => {}
        }
        let granted = self.granted(directory)?;
        if granted.last.as_ref().is_none_or(|(last, _)| last != path) {
            granted.last = None;
            let file = self.find(directory, path, "read")?.ok_or(types::CapabilityError::NotFound)?;
            self.granted(directory)?.last = Some((path.to_owned(), file));
        }
        let Some((_, file)) = &self.granted(directory)?.last else { unreachable!("it was just opened") };
        file.read_at(offset, max as usize).map_err(|error| unavailable(&error))
    }

    fn stage(&mut self, directory: &Resource<files::Directory>, path: &str, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(Refusal::invalid(format!("{} bytes in one call, more than {CHUNK_BYTES_MAX}", bytes.len())));
        }
        self.check(directory, path, "append", Access::ReadWrite)?;
        tree::check_new_path(path).map_err(Refusal::invalid)?;
        let position = directory.rep() as usize;
        if !matches!(self.staging.find(position, path), Some(Staged::Written(_))) {
            // What is there may be something that is never replaced.
            self.find(directory, path, "append")?;
        }
        let quota = self.granted(directory)?.quota();
        self.staging.append((position, path.to_owned()), bytes, quota)
    }

    fn stage_removal(&mut self, directory: &Resource<files::Directory>, path: &str) -> Result<(), Refusal> {
        self.check(directory, path, "remove", Access::ReadWrite)?;
        let exists = self.find(directory, path, "remove")?.is_some();
        let quota = self.granted(directory)?.quota();
        if !self.staging.remove((directory.rep() as usize, path.to_owned()), exists, quota)? {
            return Err(types::CapabilityError::NotFound.into());
        }
        Ok(())
    }

    /// Counts a use, however it ended.
    fn count<T>(
        &mut self,
        directory: &Resource<files::Directory>,
        operation: &'static str,
        target: &str,
        bytes: usize,
        result: &Result<T, Refusal>,
    ) {
        let Some(granted) = self.open.get(directory.rep() as usize) else { return };
        let (resource, result) = (&granted.grant.resource, result.as_ref().err().map_or("ok", Refusal::word));
        mounted::lock(&self.uses).record(Used { resource, operation, target, result, bytes: bytes as u64 });
    }
}

impl files::Host for Files {
    fn open(&mut self, resource: String) -> Result<Resource<files::Directory>, Refusal> {
        if let Some(position) = self.open.iter().position(|granted| granted.grant.resource == resource) {
            // A directory has no state of its own, so its position is its handle, however often it is opened.
            return Ok(Resource::new_own(position as u32));
        }
        let remedy = files_remedy(&self.asset, &resource, "read", "**");
        self.denials.record("files", &resource, "open", "", remedy);
        Err(types::CapabilityError::Denied.into())
    }
}

impl files::HostDirectory for Files {
    fn entries(
        &mut self,
        directory: Resource<files::Directory>,
        after: Option<String>,
        max: u32,
    ) -> Result<Vec<files::Entry>, Refusal> {
        let page = self.list_page(&directory, after, max);
        self.count(&directory, "entries", "", 0, &page);
        page
    }

    fn stat(&mut self, directory: Resource<files::Directory>, path: String) -> Result<files::Entry, Refusal> {
        let entry = self.stat_file(&directory, &path);
        self.count(&directory, "stat", &path, 0, &entry);
        entry
    }

    fn read(
        &mut self,
        directory: Resource<files::Directory>,
        path: String,
        offset: u64,
        max: u32,
    ) -> Result<Vec<u8>, Refusal> {
        let chunk = self.read_chunk(&directory, &path, offset, max);
        self.count(&directory, "read", &path, chunk.as_ref().map_or(0, Vec::len), &chunk);
        chunk
    }

    fn append(&mut self, directory: Resource<files::Directory>, path: String, bytes: Vec<u8>) -> Result<(), Refusal> {
        let staged = self.stage(&directory, &path, &bytes);
        self.count(&directory, "append", &path, if staged.is_ok() { bytes.len() } else { 0 }, &staged);
        staged
    }

    fn remove(&mut self, directory: Resource<files::Directory>, path: String) -> Result<(), Refusal> {
        let staged = self.stage_removal(&directory, &path);
        self.count(&directory, "remove", &path, 0, &staged);
        staged
    }

    fn drop(&mut self, _directory: Resource<files::Directory>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::Host for Files {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

impl Granted {
    fn quota(&self) -> Quota {
        Quota { bytes: self.grant.write_bytes, entries: self.grant.entries }
    }
}

/// What is in a directory with what is staged laid over it; both in the order of their paths.
fn overlaid<'a>(
    present: impl Iterator<Item = (&'a str, u64)>,
    staged: impl Iterator<Item = (&'a str, Staged<'a>)>,
) -> impl Iterator<Item = (&'a str, u64)> {
    let (mut present, mut staged) = (present.peekable(), staged.peekable());
    std::iter::from_fn(move || {
        loop {
            let Some((path, _)) = staged.peek() else { return present.next() };
            if let Some(untouched) = present.next_if(|(other, _)| other < path) {
                return Some(untouched);
            }
            present.next_if(|(other, _)| other == path);
            if let Some((path, Staged::Written(writer))) = staged.next() {
                return Some((path, writer.size()));
            }
        }
    })
}

fn list(granted: &Granted, interrupt: &Interrupt) -> Result<Vec<Listed>, Refusal> {
    tree::list(&granted.directory, &granted.globs, || interrupt.check()).map_err(|error| match error {
        ListError::Stopped(abort) => abort.into(),
        ListError::TooMany | ListError::TooDeep => Refusal::limit_reached(error.to_string()),
        ListError::Io { source, .. } => unavailable(&source),
    })
}

fn closed() -> Refusal {
    Refusal::invalid("the directory is closed")
}

/// The guest learns the kind of trouble, not the path it was met at.
fn unavailable(error: &std::io::Error) -> Refusal {
    types::CapabilityError::Unavailable(error.kind().to_string()).into()
}

#[cfg(test)]
mod tests;
