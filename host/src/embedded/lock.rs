//! The lock that makes one process the owner of a state directory.
//!
//! It is the kernel's lock on an open file: it ends with its process, however that ends, and no stale file is ever
//! taken for an owner. The process id in the file is for the message only.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Instant,
};

use super::error::{EmbeddedError, writing};
use crate::limit::{SERVER_POLL_INTERVAL, STATE_LOCK_WAIT_MAX};

/// Held while the value lives.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock, waiting a little for an owner that is about to end.
    pub async fn take(state_dir: &Path) -> Result<Self, EmbeddedError> {
        let path = state_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(writing(&path))?;
        let deadline = Instant::now() + STATE_LOCK_WAIT_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(writing(&path)(source)),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    let pid = written_pid(&mut file);
                    return Err(EmbeddedError::InUse { state_dir: state_dir.to_owned(), pid });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(SERVER_POLL_INTERVAL).await,
            }
        }
        let text = format!("{}\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(writing(&path))?;
        Ok(Self { _file: file })
    }
}

fn written_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
