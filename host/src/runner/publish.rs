//! Publishing: a directory shows what commits decided. Done at the start, after each commit that staged files, and before
//! anybody takes a fingerprint; the row goes when the file is there, so a crash in between publishes again, the same bytes.
//!
//! One process at a time publishes, in the order of the commits. What cannot be shown stays, and so does whatever comes
//! after it in the same directory; other directories go on. Where only a name is in the way, a file or a link where a
//! folder should be, only what is at, above or below that path stays: an asset cannot hold up what others write.

use std::{collections::HashSet, ffi::OsStr, io, path::Path, sync::Arc};

use cap_fs_ext::DirExt as _;
use cap_std::{ambient_authority, fs::Dir};
use tokio::runtime::Handle;

use super::{Event, Shared};
use crate::{
    blob::{BlobStore, DigestWriter},
    limit::{COPY_BUFFER_BYTES, HOST_FAULT_WAIT_MAX, PUBLISH_FILES_MAX, STAGING_PREFIX},
    pipeline::resource::{Access, Resource},
    store::{StoreError, staged::StagedFileRecord},
};

/// Publishes until the last commit is through and what it staged is shown.
pub(super) async fn publish_staged(shared: Arc<Shared>) {
    loop {
        let over = shared.committed.is_cancelled();
        publish_now(&shared).await;
        if over {
            return;
        }
        tokio::select! {
            () = shared.publish.notified() => {}
            () = tokio::time::sleep(HOST_FAULT_WAIT_MAX) => {}
        }
    }
}

/// Publishes what is due. What cannot be published now is told, and tried again later.
pub(super) async fn publish_now(shared: &Arc<Shared>) {
    if let Err(error) = publish_all(shared).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "staged files cannot be published for now");
    }
}

async fn publish_all(shared: &Arc<Shared>) -> Result<(), StoreError> {
    if !shared.store.are_files_staged().await? {
        return Ok(());
    }
    let mut publishing = shared.store.begin_publishing().await?;
    let mut blocked = Blocked::default();
    let mut after = None;
    loop {
        let due = publishing.list_staged_files(after.take(), PUBLISH_FILES_MAX).await?;
        let Some(last) = due.last() else { return publishing.finish().await };
        after = Some(last.place());
        let blobs = shared.blobs.clone();
        let shown = tokio::task::spawn_blocking(move || show_all(&blobs, due, blocked)).await;
        let Ok((shown, failed, still_blocked)) = shown else { return publishing.finish().await };
        blocked = still_blocked;
        for (file, error) in &failed {
            let message = format!("`{}` of resource `{}` cannot be published: {error}", file.path, file.resource);
            tracing::warn!(message);
            shared.tell(Event::Trouble(message));
        }
        publishing.remove_staged_files(&shown).await?;
    }
}

type Failed = Vec<(StagedFileRecord, io::Error)>;

/// Where something could not be shown.
#[derive(Default)]
struct Blocked {
    directories: HashSet<String>,
    /// Of other directories, paths.
    paths: Vec<(String, String)>,
}

/// Past this many paths, their directory is blocked as a whole: each further file is compared with each of them.
const PATHS_BLOCKED_MAX: usize = 1_000;

impl Blocked {
    fn holds(&self, directory: &str, path: &str) -> bool {
        let is_below = |path: &str, folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let touches =
            |(of, other): &(String, String)| of == directory && (is_below(path, other) || is_below(other, path));
        self.directories.contains(directory) || self.paths.iter().any(touches)
    }

    fn add(&mut self, directory: String, path: &str, error: &io::Error) {
        let in_the_way = matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory);
        if in_the_way && self.paths.len() < PATHS_BLOCKED_MAX {
            self.paths.push((directory, path.to_owned()));
        } else {
            self.directories.insert(directory);
        }
    }
}

fn show_all(
    blobs: &BlobStore,
    due: Vec<StagedFileRecord>,
    mut blocked: Blocked,
) -> (Vec<StagedFileRecord>, Failed, Blocked) {
    let (mut shown, mut failed) = (Vec::new(), Vec::new());
    for file in due {
        let directory = file.settings.to_string();
        if blocked.holds(&directory, &file.path) {
            continue;
        }
        match show(blobs, &file) {
            Ok(()) => shown.push(file),
            Err(error) => {
                blocked.add(directory, &file.path, &error);
                failed.push((file, error));
            }
        }
    }
    (shown, failed, blocked)
}

/// Writes beside the final name and renames, so that a reader of the directory sees the old file or the new one.
/// Folders are walked one by one and no link is followed: the grant's globs were checked against names, not places.
fn show(blobs: &BlobStore, file: &StagedFileRecord) -> io::Result<()> {
    let resource = serde_json::from_value(file.settings.clone());
    let Ok(Resource::Directory { path: root, access: Access::ReadWrite }) = resource else {
        return Err(io::Error::other("the resource is no directory that may be written any more"));
    };
    let mut folder = Dir::open_ambient_dir(root, ambient_authority())?;
    let path = Path::new(&file.path);
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        folder = match folder.open_dir_nofollow(part.as_os_str()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if file.content.is_none() {
                    return Ok(());
                }
                folder.create_dir(part.as_os_str())?;
                folder.open_dir_nofollow(part.as_os_str())?
            }
            other => other.map_err(|error| not_followed(&folder, part.as_os_str(), error))?,
        };
    }
    match file.content {
        Some(_) => place(blobs, file, &folder, Path::new(name))?,
        None => match folder.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        },
    }
    // The row that decided it goes next: what it decided must survive a power cut.
    folder.open(".")?.sync_all()
}

/// The system says of a link to a folder only that it is none.
fn not_followed(folder: &Dir, name: &OsStr, error: io::Error) -> io::Error {
    match folder.symlink_metadata(name) {
        Ok(found) if found.is_symlink() => {
            let message = format!("`{}` is a link, and links are not followed", name.display());
            io::Error::new(io::ErrorKind::NotADirectory, message)
        }
        _ => error,
    }
}

fn place(blobs: &BlobStore, file: &StagedFileRecord, folder: &Dir, name: &Path) -> io::Result<()> {
    let Some(digest) = file.content else { return Ok(()) };
    let temporary = format!("{STAGING_PREFIX}{}", uuid::Uuid::new_v4());
    let written = copy(blobs, file, &mut folder.create(&temporary)?).and_then(|copied| {
        if copied != digest {
            return Err(io::Error::other(format!("blob {digest} is corrupt")));
        }
        folder.rename(&temporary, folder, name)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _left_behind = folder.remove_file(&temporary);
    }
    written
}

fn copy(blobs: &BlobStore, file: &StagedFileRecord, to: &mut cap_std::fs::File) -> io::Result<crate::blob::Digest> {
    let Some(digest) = file.content else { return Err(io::Error::other("a removal has no content")) };
    let mut from = blobs.read(&file.tenant, digest).map_err(io::Error::other)?;
    let mut copied = DigestWriter::default();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        // On a thread that may block.
        let read = Handle::current().block_on(from.read(&mut buffer)).map_err(io::Error::other)?;
        if read == 0 {
            break;
        }
        copied.update(&buffer[..read]);
        io::Write::write_all(to, &buffer[..read])?;
    }
    to.sync_all()?;
    Ok(copied.finish())
}
