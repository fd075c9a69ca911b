//! What can be wrong with the embedded cluster, each with what to do about it.

use std::{io, path::Path, path::PathBuf};

/// Why there is no embedded cluster.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No programs, or only of a version that is too old.
    #[error(
        "there is no Postgres {} or newer on this machine: install it (apt-get install postgresql), \
         or set DATABASE_URL to a server",
        crate::limit::POSTGRES_MAJOR_MIN
    )]
    NoPostgres,
    /// The cluster was made by a major version that is not installed.
    #[error(
        "the cluster in {home} was made by Postgres {major}, which is not on this machine: \
         install it (apt-get install postgresql-{major}), or set DATABASE_URL to a server"
    )]
    OtherVersion {
        /// The cluster's home.
        home: PathBuf,
        /// What its data directory says.
        major: u32,
    },
    /// We are root, and there is no account to drop to.
    #[error("Postgres does not run as root, and this machine has neither an account `postgres` nor `nobody`")]
    NoServerAccount,
    /// Postgres refuses to run under an account without a name.
    #[error(
        "the account with the id {uid} has no name, and Postgres needs one: add it to /etc/passwd, or set DATABASE_URL"
    )]
    NamelessAccount {
        /// The effective user id.
        uid: u32,
    },
    /// Another process owns the cluster.
    #[error("the state directory {state_dir} is in use by {}: wait until that has ended, stop it, or choose another directory with --state", owner(*.pid))]
    InUse {
        /// The state directory.
        state_dir: PathBuf,
        /// Whose it is, if that could be read.
        pid: Option<u32>,
    },
    /// A folder or file of the state directory cannot be made or written.
    #[error("cannot write {path}: the state directory must be writable (choose another with --state)")]
    NotWritable {
        /// What was written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder or file of the state directory cannot be read.
    #[error("cannot read {path}")]
    NotReadable {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing more can be written.
    #[error("the disk that holds {path} is full: make room, or choose another state directory with --state")]
    DiskFull {
        /// Something on that disk.
        path: PathBuf,
    },
    /// The server's account can enter neither the state directory nor the place for such cases.
    #[error("the account that runs Postgres can enter neither {near} nor {far}")]
    NowhereToLive {
        /// In the state directory.
        near: PathBuf,
        /// Outside of it.
        far: PathBuf,
    },
    /// The cluster lived outside the state directory, and is gone.
    #[error(
        "the cluster that {link} points to is gone: bring {target} back, or remove {link} to start with an empty database"
    )]
    Gone {
        /// In the state directory.
        link: PathBuf,
        /// Where it pointed.
        target: PathBuf,
    },
    /// The state directory was copied, and what it points to is another one's cluster.
    #[error(
        "{state_dir} is a copy of {origin}, whose cluster it points to: remove {link} to start with an empty database, or {origin} if that is not used any more"
    )]
    Copied {
        /// The copy.
        state_dir: PathBuf,
        /// The one whose cluster it is.
        origin: PathBuf,
        /// In the copy.
        link: PathBuf,
    },
    /// A program could not be started at all.
    #[error("cannot run {program}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that prepares the cluster failed.
    #[error("{program} failed: {reason}")]
    Failed {
        /// Its path.
        program: PathBuf,
        /// The last thing it said.
        reason: String,
    },
    /// The server ended instead of answering.
    #[error("Postgres did not start: {reason} (its log is {log})")]
    NotStarted {
        /// What its log says.
        reason: String,
        /// The whole log.
        log: PathBuf,
    },
    /// The server runs and does not let us in.
    #[error("Postgres in {home} does not answer")]
    NoAnswer {
        /// The cluster's home.
        home: PathBuf,
        /// What became of the last attempt to connect.
        source: sqlx::Error,
    },
    /// A server does not end.
    #[error("Postgres (process {pid}) in {data} does not stop")]
    NotStopped {
        /// Its data directory.
        data: PathBuf,
        /// The server, or one of its processes.
        pid: u32,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Whether a program's message says that the disk is full: it is the C library's text, in the C locale.
pub(super) fn tells_of_full_disk(text: &str) -> bool {
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

/// For `map_err` where something of ours is written.
pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EmbeddedError::DiskFull { path },
        _ => EmbeddedError::NotWritable { path, source },
    }
}

/// For `map_err` where something of ours is read.
pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    |source| EmbeddedError::NotReadable { path, source }
}
