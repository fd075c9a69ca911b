//! `flowstone:asset/files`: granted directories. Only by grant.
//!
//! Reads see the directory as it is; writes and removals are staged, and published by the commit. What the grant's
//! globs do not match is denied before the file system is asked whether it exists.

mod fingerprint;
mod staging;
mod tree;
mod ungranted;

use cap_std::fs::Dir;
use wasmtime::component::Resource;

pub use self::{
    fingerprint::{Fingerprint, FingerprintCache, FingerprintError, fingerprint},
    staging::{Change, StagedFile},
    tree::{Globs, check_path},
};
use self::{
    staging::Staging,
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
    uses: Uses,
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
        let open = directories.into_iter().map(granted).collect::<Result<_, _>>()?;
        Ok(Self { asset, open, staging, interrupt, denials: Denials::default(), uses: Uses::of("files") })
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// What was done with what was granted.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.uses.take()
    }

    /// Ends the staged files on disk.
    pub fn finish(self) -> Result<Vec<StagedFile>, BlobError> {
        let resources: Vec<String> = self.open.into_iter().map(|granted| granted.grant.resource).collect();
        self.staging.finish(&resources)
    }

    fn granted(&mut self, directory: &Resource<files::Directory>) -> Result<&mut Granted, Refusal> {
        let position = directory.rep() as usize;
        self.open.get_mut(position).ok_or_else(|| Refusal::invalid("the directory is closed"))
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
            return Refusal::invalid("the directory is closed");
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

    /// Whether a regular file is at the path.
    fn exists(&mut self, directory: &Resource<files::Directory>, path: &str, operation: &str) -> Result<bool, Refusal> {
        match tree::open(&self.granted(directory)?.directory, path) {
            Ok(_) => Ok(true),
            Err(OpenError::NotFound) => Ok(false),
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
        let interrupt = self.interrupt.clone();
        let granted = self.granted(directory)?;
        if granted.listing.is_none() {
            granted.listing = Some(list(granted, &interrupt)?);
        }
        let listing = granted.listing.as_deref().unwrap_or_default();
        let from = after.map_or(0, |after| listing.partition_point(|entry| entry.path <= after));
        let page = listing[from..].iter().take((max as usize).min(ENTRIES_PER_CALL_MAX));
        Ok(page.map(|entry| files::Entry { path: entry.path.clone(), size: entry.size }).collect())
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
        let granted = self.granted(directory)?;
        if granted.last.as_ref().is_none_or(|(last, _)| last != path) {
            granted.last = None;
            match tree::open(&granted.directory, path) {
                Ok(file) => granted.last = Some((path.to_owned(), file)),
                Err(OpenError::NotFound) => return Err(types::CapabilityError::NotFound.into()),
                Err(OpenError::Forbidden) => return Err(self.forbid(directory, path, "read")),
                Err(OpenError::Io(error)) => return Err(unavailable(&error)),
            }
        }
        let Some((_, file)) = &granted.last else { unreachable!("it was just opened") };
        file.read_at(offset, max as usize).map_err(|error| unavailable(&error))
    }

    fn stage(&mut self, directory: &Resource<files::Directory>, path: &str, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(Refusal::invalid(format!("{} bytes in one call, more than {CHUNK_BYTES_MAX}", bytes.len())));
        }
        self.check(directory, path, "append", Access::ReadWrite)?;
        self.exists(directory, path, "append")?;
        let bytes_max = self.granted(directory)?.grant.write_bytes;
        self.staging.append((directory.rep() as usize, path.to_owned()), bytes, bytes_max)
    }

    fn stage_removal(&mut self, directory: &Resource<files::Directory>, path: &str) -> Result<(), Refusal> {
        self.check(directory, path, "remove", Access::ReadWrite)?;
        let exists = self.exists(directory, path, "remove")?;
        if !self.staging.remove((directory.rep() as usize, path.to_owned()), exists)? {
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
        self.uses.record(Used { resource, operation, target, result, bytes: bytes as u64 });
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

fn list(granted: &Granted, interrupt: &Interrupt) -> Result<Vec<Listed>, Refusal> {
    tree::list(&granted.directory, &granted.globs, || interrupt.check()).map_err(|error| match error {
        ListError::Stopped(abort) => abort.into(),
        ListError::TooMany | ListError::TooDeep => Refusal::limit_reached(error.to_string()),
        ListError::Io { source, .. } => unavailable(&source),
    })
}

/// The guest learns the kind of trouble, not the path it was met at.
fn unavailable(error: &std::io::Error) -> Refusal {
    types::CapabilityError::Unavailable(error.kind().to_string()).into()
}

#[cfg(test)]
mod tests;
