//! Servers that an owner left behind when it was killed.
//!
//! They end by themselves in a moment (see [`super::server`]); here they are waited for, and told again. They are
//! known by what they are, not by what a file says: a process of Postgres whose working directory is this data
//! directory. A process id in a file may long be somebody else's, in a container above all.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{EmbeddedError, writing};
use crate::limit::{SERVER_POLL_INTERVAL, SERVER_STOP_WAIT_MAX};

/// Ends every process of a server in this data directory. The caller holds the state directory's lock.
pub(super) async fn end(data: &Path) -> Result<(), EmbeddedError> {
    let started = Instant::now();
    let mut told = false;
    while let Some(pid) = processes(data).first().copied() {
        let postmaster = postmaster(data);
        if let (Some(postmaster), false) = (postmaster, told) {
            told = true;
            tracing::warn!(pid = postmaster.as_raw_pid(), "stopping a Postgres that an earlier owner left behind");
            tell(postmaster, Signal::INT);
        }
        if started.elapsed() > SERVER_STOP_WAIT_MAX {
            let pid = postmaster.unwrap_or(pid).as_raw_pid().unsigned_abs();
            return Err(EmbeddedError::NotStopped { data: data.to_owned(), pid });
        }
        tokio::time::sleep(SERVER_POLL_INTERVAL).await;
    }
    // What is left of a killed server. Postgres would refuse to start if its process id had become another process'.
    let file = data.join("postmaster.pid");
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(&file)(error)),
        _ => Ok(()),
    }
}

/// The server that runs in this data directory: the process that its own file names, if it is one.
pub(super) fn postmaster(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    is_server_in(pid, data).then_some(pid)
}

fn processes(data: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| is_server_in(*pid, data))
        .collect()
}

/// By the folder itself rather than its path, which may differ from one mount to another.
fn is_server_in(pid: Pid, data: &Path) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_pid().to_string());
    let same_folder = match (fs::metadata(process.join("cwd")), fs::metadata(data)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    };
    // After an upgrade of Postgres the name ends in " (deleted)".
    let is_postgres = |program: &Path| {
        program.file_name().is_some_and(|name| name == "postgres" || name.as_bytes().starts_with(b"postgres "))
    };
    same_folder && fs::read_link(process.join("exe")).is_ok_and(|program| is_postgres(&program))
}

/// A process that has ended meanwhile needs no telling.
pub(super) fn tell(pid: Pid, signal: Signal) {
    if let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = pid.as_raw_pid(), %error, "cannot signal Postgres");
    }
}
