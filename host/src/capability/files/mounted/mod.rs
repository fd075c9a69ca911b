//! `wasi:filesystem`: granted directories for code that expects a file system, mounted where the manifest says, to read.
//!
//! It is the same policy, the same record and the same files as `flowstone:asset/files`. A folder is there when a granted
//! file is below it; a link to a file within is that file; there are no times, because they are no part of what the
//! recipe says of a directory. Whatever would change something is `read-only`. Without a mount there is no descriptor to
//! call any of this on.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynInputStream, DynOutputStream, FsError, FsResult, InputStream, Pollable, StreamError, StreamResult,
        bindings::filesystem::{
            preopens,
            types::{
                self as wasi, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
                DirectoryEntryStream, ErrorCode, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
            },
        },
    },
};

use super::{Files, OpenFile, files, list};
use crate::{
    bindings::flowstone::asset::types::CapabilityError,
    blob::Digest,
    capability::{Refusal, Used, Uses},
    limit::{CHUNK_BYTES_MAX, DIRECTORY_DEPTH_MAX, MOUNTED_FILES_OPEN_MAX, PATH_BYTES_MAX},
    pipeline::resource::Access,
};

/// What a guest sees of the file system: the attempt's directories that are mounted.
pub struct MountedView<'a> {
    /// All of the attempt's directories.
    pub files: &'a mut Files,
    /// Of the store.
    pub table: &'a mut ResourceTable,
}

/// What stands behind a descriptor.
#[derive(Clone)]
struct Node {
    /// The directory, by position.
    directory: usize,
    /// From its root, without a slash at either end; empty for the root itself.
    path: String,
    /// None for a folder.
    file: Option<Arc<OpenedFile>>,
}

struct OpenedFile {
    file: OpenFile,
    /// Counted: each open file holds a descriptor of the host's.
    _slot: Arc<()>,
}

/// Where a listing goes on, in the directory's own listing.
struct Listing {
    directory: usize,
    folder: String,
    next: usize,
}

/// The library's types are only names of handles here: what the table holds for them is ours.
fn node_handle(descriptor: &Resource<Descriptor>) -> Resource<Node> {
    Resource::new_borrow(descriptor.rep())
}

impl MountedView<'_> {
    fn node(&self, descriptor: &Resource<Descriptor>) -> FsResult<Node> {
        Ok(self.table.get(&node_handle(descriptor)).map_err(FsError::trap)?.clone())
    }

    fn push(&mut self, node: Node) -> wasmtime::Result<Resource<Descriptor>> {
        let pushed = self.table.push(node)?;
        Ok(Resource::new_own(pushed.rep()))
    }

    /// The path below a folder's descriptor, from the directory's root.
    fn resolve(&self, descriptor: &Resource<Descriptor>, path: &str) -> FsResult<Node> {
        let node = self.node(descriptor)?;
        if node.file.is_some() {
            return Err(ErrorCode::NotDirectory.into());
        }
        let path = join(&node.path, path)?;
        Ok(Node { path, ..node })
    }

    /// Looks a path up, and counts that under the operation's name.
    fn find(&mut self, node: Node, operation: &'static str) -> FsResult<Node> {
        let (directory, path) = (node.directory, node.path.clone());
        let found = self.files.look_up(node, operation);
        self.files.count_at(directory, operation, &path, found.as_ref());
        found.map_err(error_of)
    }

    /// What would change something: told, and counted.
    fn refuse(&mut self, descriptor: &Resource<Descriptor>, operation: &'static str, path: &str) -> FsError {
        match self.node(descriptor) {
            Ok(node) => {
                let path = join(&node.path, path).unwrap_or_else(|_| path.to_owned());
                self.files.count_word(node.directory, operation, &path, "read-only");
                ErrorCode::ReadOnly.into()
            }
            Err(trap) => trap,
        }
    }

    fn stat_of(&self, node: &Node) -> FsResult<DescriptorStat> {
        let (type_, size) = match &node.file {
            None => (DescriptorType::Directory, 0),
            Some(opened) => (DescriptorType::RegularFile, opened.file.size()?),
        };
        Ok(DescriptorStat {
            type_,
            link_count: 1,
            size,
            data_access_timestamp: None,
            data_modification_timestamp: None,
            status_change_timestamp: None,
        })
    }

    /// The same for the same file in every attempt.
    fn hash_of(&self, node: &Node) -> MetadataHashValue {
        let digest = Digest::of(format!("{}\0{}", self.files.resource_at(node.directory), node.path).as_bytes());
        let half = |at: usize| u64::from_le_bytes(digest.0[at..at + 8].try_into().expect("a digest has 32 bytes"));
        MetadataHashValue { lower: half(0), upper: half(8) }
    }
}

impl Files {
    /// Where each directory is mounted that is.
    fn mounts(&self) -> impl Iterator<Item = (usize, &str)> {
        let mounted = self.open.iter().enumerate();
        mounted.filter_map(|(position, granted)| Some((position, granted.grant.mount.as_deref()?)))
    }

    fn resource_at(&self, directory: usize) -> &str {
        self.open.get(directory).map_or("", |granted| &granted.grant.resource)
    }

    /// A granted file, open, or a folder that holds one.
    fn look_up(&mut self, node: Node, operation: &'static str) -> Result<Node, Refusal> {
        let file = match self.is_folder(node.directory, &node.path)? {
            true => None,
            false => Some(Arc::new(self.open_mounted(node.directory, &node.path, operation)?)),
        };
        Ok(Node { file, ..node })
    }

    fn open_mounted(&mut self, at: usize, path: &str, operation: &'static str) -> Result<OpenedFile, Refusal> {
        let directory = Resource::<files::Directory>::new_borrow(at as u32);
        self.check(&directory, path, operation, Access::Read)?;
        if Arc::strong_count(&self.mounted_open) > MOUNTED_FILES_OPEN_MAX {
            return Err(Refusal::limit_reached(format!("at most {MOUNTED_FILES_OPEN_MAX} mounted files are open")));
        }
        let file = self.find(&directory, path, operation)?.ok_or(CapabilityError::NotFound)?;
        Ok(OpenedFile { file, _slot: self.mounted_open.clone() })
    }

    /// Whether a granted file is below this path.
    fn is_folder(&mut self, at: usize, path: &str) -> Result<bool, Refusal> {
        if path.is_empty() {
            return Ok(true);
        }
        let below = format!("{path}/");
        let listing = self.listing(at)?;
        let first = listing.partition_point(|entry| entry.path < below);
        Ok(listing.get(first).is_some_and(|entry| entry.path.starts_with(&below)))
    }

    /// What a directory holds, as it was when it was first asked for.
    fn listing(&mut self, at: usize) -> Result<&[super::Listed], Refusal> {
        let granted = self.open.get_mut(at).ok_or_else(super::closed)?;
        if granted.listing.is_none() {
            granted.listing = Some(list(granted, &self.interrupt)?);
        }
        Ok(granted.listing.as_deref().unwrap_or_default())
    }

    /// The next name in a folder, each once.
    fn next_entry(&mut self, at: &mut Listing) -> Result<Option<DirectoryEntry>, Refusal> {
        let prefix = if at.folder.is_empty() { String::new() } else { format!("{}/", at.folder) };
        let (directory, from) = (at.directory, at.next);
        let listing = self.listing(directory)?;
        let from = from.max(listing.partition_point(|entry| entry.path < prefix));
        let Some(rest) = listing.get(from).and_then(|entry| entry.path.strip_prefix(&prefix)) else { return Ok(None) };
        let Some((folder, _)) = rest.split_once('/') else {
            at.next = from + 1;
            return Ok(Some(DirectoryEntry { type_: DescriptorType::RegularFile, name: rest.to_owned() }));
        };
        let within = format!("{prefix}{folder}/");
        at.next = from + listing[from..].partition_point(|entry| entry.path.starts_with(&within));
        Ok(Some(DirectoryEntry { type_: DescriptorType::Directory, name: folder.to_owned() }))
    }

    fn count_at<T>(&mut self, at: usize, operation: &'static str, path: &str, result: Result<T, &Refusal>) {
        self.count_word(at, operation, path, result.err().map_or("ok", Refusal::word));
    }

    fn count_word(&mut self, at: usize, operation: &'static str, target: &str, result: &'static str) {
        let Some(granted) = self.open.get(at) else { return };
        let used = Used { resource: &granted.grant.resource, operation, target, result, bytes: 0 };
        lock(&self.uses).record(used);
    }
}

/// Nothing that holds this lock can panic; if something did, the counts are as right as they were.
pub(super) fn lock(uses: &Mutex<Uses>) -> std::sync::MutexGuard<'_, Uses> {
    uses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path below a folder, without its dots. What leads above the folder is not permitted, as the interface says.
fn join(folder: &str, path: &str) -> FsResult<String> {
    if path.len() > PATH_BYTES_MAX {
        return Err(ErrorCode::NameTooLong.into());
    }
    if path.is_empty() {
        return Err(ErrorCode::NoEntry.into());
    }
    if path.contains('\0') {
        return Err(ErrorCode::Invalid.into());
    }
    if path.starts_with('/') {
        return Err(ErrorCode::NotPermitted.into());
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            // No folder is a link, so that the folder above is the one before.
            ".." => names.pop().map(drop).ok_or(ErrorCode::NotPermitted)?,
            name => names.push(name),
        }
    }
    let above = folder.split('/').filter(|name| !name.is_empty());
    let all: Vec<&str> = above.chain(names).collect();
    let joined = all.join("/");
    match all.len() > DIRECTORY_DEPTH_MAX || joined.len() > PATH_BYTES_MAX {
        true => Err(ErrorCode::NameTooLong.into()),
        false => Ok(joined),
    }
}

/// What code that expects a file system is told.
fn error_of(refusal: Refusal) -> FsError {
    let code = match refusal {
        Refusal::Guest(CapabilityError::Denied) => ErrorCode::Access,
        Refusal::Guest(CapabilityError::NotFound) => ErrorCode::NoEntry,
        Refusal::Guest(CapabilityError::Conflict) => ErrorCode::Busy,
        Refusal::Guest(CapabilityError::LimitReached(_)) => ErrorCode::Quota,
        Refusal::Guest(CapabilityError::Invalid(_)) => ErrorCode::Invalid,
        Refusal::Guest(CapabilityError::Unavailable(_)) => ErrorCode::Io,
        Refusal::Abort(abort) => return FsError::trap(abort),
    };
    code.into()
}

impl preopens::Host for MountedView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mounts: Vec<(usize, String)> =
            self.files.mounts().map(|(directory, mount)| (directory, mount.to_owned())).collect();
        let open = |(directory, mount): (usize, String)| {
            let node = Node { directory, path: String::new(), file: None };
            Ok((self.push(node)?, mount))
        };
        mounts.into_iter().map(open).collect()
    }
}

impl wasi::Host for MountedView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<std::io::Error>().map(ErrorCode::from))
    }
}

impl wasi::HostDescriptor for MountedView<'_> {
    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let node = self.node(&fd)?;
        let Some(opened) = node.file else { return Err(ErrorCode::IsDirectory.into()) };
        let reading = Reading {
            opened,
            offset,
            resource: self.files.resource_at(node.directory).to_owned(),
            path: node.path,
            uses: self.files.uses.clone(),
        };
        self.table.push(Box::new(reading) as DynInputStream).map_err(FsError::trap)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, _: u64) -> FsResult<Resource<DynOutputStream>> {
        Err(self.refuse(&fd, "write", "."))
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        Err(self.refuse(&fd, "write", "."))
    }

    async fn advise(&mut self, fd: Resource<Descriptor>, _: u64, _: u64, _: Advice) -> FsResult<()> {
        self.node(&fd).map(drop)
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.node(&fd).map(drop)
    }

    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.node(&fd).map(drop)
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.node(&fd).map(|_| DescriptorFlags::READ)
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        let node = self.node(&fd)?;
        Ok(self.stat_of(&node)?.type_)
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, _: u64) -> FsResult<()> {
        Err(self.refuse(&fd, "write", "."))
    }

    async fn set_times(&mut self, fd: Resource<Descriptor>, _: NewTimestamp, _: NewTimestamp) -> FsResult<()> {
        Err(self.refuse(&fd, "write", "."))
    }

    async fn read(&mut self, fd: Resource<Descriptor>, length: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let node = self.node(&fd)?;
        let Some(opened) = &node.file else { return Err(ErrorCode::IsDirectory.into()) };
        let max = usize::try_from(length).unwrap_or(usize::MAX).min(CHUNK_BYTES_MAX);
        let bytes = opened.file.read_at(offset, max)?;
        let resource = self.files.resource_at(node.directory);
        count_read(&self.files.uses, resource, &node.path, bytes.len());
        let ended = bytes.is_empty() && max > 0;
        Ok((bytes, ended))
    }

    async fn write(&mut self, fd: Resource<Descriptor>, _: Vec<u8>, _: u64) -> FsResult<u64> {
        Err(self.refuse(&fd, "write", "."))
    }

    async fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        let node = self.node(&fd)?;
        if node.file.is_some() {
            return Err(ErrorCode::NotDirectory.into());
        }
        let listed = self.files.listing(node.directory).map(drop);
        self.files.count_at(node.directory, "entries", &node.path, listed.as_ref());
        listed.map_err(error_of)?;
        let listing = Listing { directory: node.directory, folder: node.path, next: 0 };
        let pushed = self.table.push(listing).map_err(FsError::trap)?;
        Ok(Resource::new_own(pushed.rep()))
    }

    async fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        Err(self.refuse(&fd, "write", &path))
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        let node = self.node(&fd)?;
        self.stat_of(&node)
    }

    async fn stat_at(&mut self, fd: Resource<Descriptor>, _: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let node = self.resolve(&fd, &path)?;
        let node = self.find(node, "stat")?;
        must_be_folder(&path, &node)?;
        self.stat_of(&node)
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        _: NewTimestamp,
        _: NewTimestamp,
    ) -> FsResult<()> {
        Err(self.refuse(&fd, "write", &path))
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        Err(self.refuse(&fd, "write", &path))
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let changes = OpenFlags::CREATE | OpenFlags::EXCLUSIVE | OpenFlags::TRUNCATE;
        // A folder may be opened to be changed, as some libraries always do: what changes it is refused then.
        if how.intersects(changes) || flags.contains(DescriptorFlags::WRITE) {
            return Err(self.refuse(&fd, "write", &path));
        }
        let node = self.resolve(&fd, &path)?;
        let node = self.find(node, "open")?;
        if how.contains(OpenFlags::DIRECTORY) && node.file.is_some() {
            return Err(ErrorCode::NotDirectory.into());
        }
        must_be_folder(&path, &node)?;
        self.push(node).map_err(FsError::trap)
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        let node = self.resolve(&fd, &path)?;
        self.find(node, "stat")?;
        // It is shown as what it leads to.
        Err(ErrorCode::Invalid.into())
    }

    async fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        Err(self.refuse(&fd, "remove", &path))
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        Err(self.refuse(&fd, "write", &path))
    }

    async fn symlink_at(&mut self, fd: Resource<Descriptor>, _: String, path: String) -> FsResult<()> {
        Err(self.refuse(&fd, "write", &path))
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        Err(self.refuse(&fd, "remove", &path))
    }

    async fn is_same_object(&mut self, a: Resource<Descriptor>, b: Resource<Descriptor>) -> wasmtime::Result<bool> {
        let (a, b) = (self.table.get(&node_handle(&a))?, self.table.get(&node_handle(&b))?);
        Ok((a.directory, &a.path) == (b.directory, &b.path))
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        let node = self.node(&fd)?;
        Ok(self.hash_of(&node))
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let node = self.resolve(&fd, &path)?;
        let node = self.find(node, "stat")?;
        must_be_folder(&path, &node)?;
        Ok(self.hash_of(&node))
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Node>::new_own(fd.rep()))?;
        Ok(())
    }
}

/// A path that ends in a slash names a folder.
fn must_be_folder(path: &str, node: &Node) -> FsResult<()> {
    match path.ends_with('/') && node.file.is_some() {
        true => Err(ErrorCode::NotDirectory.into()),
        false => Ok(()),
    }
}

impl wasi::HostDirectoryEntryStream for MountedView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing = self.table.get_mut(&Resource::<Listing>::new_borrow(stream.rep())).map_err(FsError::trap)?;
        self.files.next_entry(listing).map_err(error_of)
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// A file on its way into the guest. Reading does not wait: it is this machine's own file.
struct Reading {
    opened: Arc<OpenedFile>,
    offset: u64,
    resource: String,
    path: String,
    uses: Arc<Mutex<Uses>>,
}

fn count_read(uses: &Mutex<Uses>, resource: &str, target: &str, bytes: usize) {
    lock(uses).record(Used { resource, operation: "read", target, result: "ok", bytes: bytes as u64 });
}

impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let read = self.opened.file.read_at(self.offset, size.min(CHUNK_BYTES_MAX));
        let bytes = read.map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        count_read(&self.uses, &self.resource, &self.path, bytes.len());
        if bytes.is_empty() {
            return Err(StreamError::Closed);
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.into())
    }
}

#[async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests;
