//! Publishing: a directory shows what commits decided. Looked for at the start and after each commit that staged files;
//! the row goes when the file is there, so a crash in between publishes again, the same bytes.

use std::{io, path::Path, sync::Arc};

use cap_std::{ambient_authority, fs::Dir};

use super::{Event, Shared, prepare::directory_path};
use crate::{
    blob::BlobStore,
    limit::{COPY_BUFFER_BYTES, HOST_FAULT_WAIT_MAX, PUBLISH_FILES_MAX},
    store::staged::StagedFileRecord,
};

/// Publishes until the runner has stopped and nothing is due.
pub(super) async fn publish_staged(shared: Arc<Shared>) {
    loop {
        while publish_some(&shared).await {}
        tokio::select! {
            () = shared.publish.notified() => {}
            () = tokio::time::sleep(HOST_FAULT_WAIT_MAX) => {}
            () = shared.drained_after_stop() => {
                while publish_some(&shared).await {}
                return;
            }
        }
    }
}

/// Publishes a page; whether there may be more that can be published now.
async fn publish_some(shared: &Arc<Shared>) -> bool {
    let due = match shared.store.list_staged_files(PUBLISH_FILES_MAX).await {
        Ok(due) if due.is_empty() => return false,
        Ok(due) => due,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "staged files cannot be read for now");
            return false;
        }
    };
    let blobs = shared.blobs.clone();
    let Ok((shown, failed)) = tokio::task::spawn_blocking(move || show_all(&blobs, due)).await else { return false };
    for (file, error) in &failed {
        let message = format!("`{}` of resource `{}` cannot be published: {error}", file.path, file.resource);
        tracing::warn!(message);
        shared.tell(Event::Trouble(message));
    }
    !shown.is_empty() && shared.store.remove_staged_files(&shown).await.is_ok() && failed.is_empty()
}

type Failed = Vec<(StagedFileRecord, io::Error)>;

fn show_all(blobs: &BlobStore, due: Vec<StagedFileRecord>) -> (Vec<StagedFileRecord>, Failed) {
    let mut shown = Vec::new();
    let mut failed = Vec::new();
    for file in due {
        match show(blobs, &file) {
            Ok(()) => shown.push(file),
            Err(error) => failed.push((file, error)),
        }
    }
    (shown, failed)
}

/// Writes beside the final name and renames, so that a reader of the directory sees the old file or the new one.
fn show(blobs: &BlobStore, file: &StagedFileRecord) -> io::Result<()> {
    let root = directory_path(&file.settings).ok_or_else(|| io::Error::other("the resource has no path"))?;
    let dir = Dir::open_ambient_dir(root, ambient_authority())?;
    let path = Path::new(&file.path);
    let Some(digest) = file.content else {
        return match dir.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        dir.create_dir_all(folder)?;
    }
    let temporary = path.with_file_name(format!(".{}.flowstone", file.materialization));
    let mut to = dir.create(&temporary)?;
    let mut from = blobs.read(&file.tenant, digest).map_err(io::Error::other)?;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).map_err(io::Error::other)?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut to, &buffer[..read])?;
    }
    to.sync_all()?;
    dir.rename(&temporary, &dir, path)
}
