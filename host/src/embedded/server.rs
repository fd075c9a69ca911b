//! One running server: started, waited for, stopped.
//!
//! The server ends with its owner, also when that is killed. A parent-death signal would be tied to the thread that
//! started the server, and needs unsafe code in std's terms; so a second small process, the guardian, reads from a
//! pipe that only the owner holds. When the pipe closes, whatever closed it, the guardian asks the server to stop.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    process::Child,
    time::{Instant, timeout},
};

use super::{
    account::Account,
    error::{EmbeddedError, tells_of_full_disk, writing},
    home::Home,
    leftover,
    postgres::Programs,
    settings, socket,
};
use crate::limit::{
    SERVER_LOG_BYTES_MAX, SERVER_LOG_TAIL_BYTES, SERVER_POLL_INTERVAL, SERVER_START_WAIT_MAX, SERVER_STOP_WAIT_MAX,
};

/// What a server is started with, and started again with.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub account: Account,
    pub programs: Programs,
    pub home: Home,
    pub socket_folder: PathBuf,
    pub log: PathBuf,
}

/// A server that answers.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    guardian: Child,
    data: PathBuf,
}

impl Launch {
    /// How to connect.
    pub fn options(&self) -> PgConnectOptions {
        connect_options(&self.socket_folder)
    }

    /// Ends what is left of an earlier server, starts one, and returns when it answers.
    pub async fn start(&self) -> Result<Server, EmbeddedError> {
        leftover::end(&self.home.data()).await?;
        let program = self.programs.postgres();
        let run = |source| EmbeddedError::Run { program: program.clone(), source };
        let (log, log_from) = self.open_log()?;
        let mut command = self.account.command(&program);
        command.args(settings::arguments(&self.home, &self.socket_folder)).stderr(Stdio::from(log));
        let mut child = command.spawn().map_err(run)?;
        let guardian = match guard(&self.account, &child) {
            Ok(guardian) => guardian,
            Err(source) => {
                child.kill().await.map_err(run)?;
                return Err(EmbeddedError::Run { program: SHELL.into(), source });
            }
        };
        let mut server = Server { child, guardian, data: self.home.data() };
        match self.wait_for_answer(&mut server.child, log_from).await {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop().await?;
                Err(error)
            }
        }
    }

    async fn wait_for_answer(&self, child: &mut Child, log_from: u64) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + SERVER_START_WAIT_MAX;
        let options = self.options();
        loop {
            if !matches!(child.try_wait(), Ok(None)) {
                return Err(self.reason_for_end(log_from));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let source = match timeout(left, PgConnection::connect_with(&options)).await {
                Ok(Ok(connection)) => {
                    // It answered; how the farewell goes is of no interest.
                    drop(connection.close().await);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => sqlx::Error::Io(io::ErrorKind::TimedOut.into()),
            };
            if Instant::now() >= deadline || !may_answer_later(&source) {
                return Err(EmbeddedError::NoAnswer { home: self.home.0.clone(), source });
            }
            tokio::time::sleep(SERVER_POLL_INTERVAL).await;
        }
    }

    /// The log, and where in it this start begins.
    fn open_log(&self) -> Result<(File, u64), EmbeddedError> {
        let write = || writing(&self.log);
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > SERVER_LOG_BYTES_MAX) {
            fs::rename(&self.log, self.log.with_extension("log.old")).map_err(write())?;
        }
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log).map_err(write())?;
        let length = log.metadata().map_err(write())?.len();
        Ok((log, length))
    }

    fn reason_for_end(&self, log_from: u64) -> EmbeddedError {
        let said = tail(&self.log, log_from).unwrap_or_default();
        if tells_of_full_disk(&said) {
            return EmbeddedError::DiskFull { path: self.home.0.clone() };
        }
        let fatal = |line: &'_ str| ["FATAL:  ", "PANIC:  "].iter().any(|level| line.contains(level));
        let line = said.lines().find(|line| fatal(line)).or_else(|| said.lines().rfind(|line| !line.trim().is_empty()));
        let reason = line.unwrap_or("it ended without a word").trim().to_owned();
        EmbeddedError::NotStarted { reason, log: self.log.clone() }
    }
}

impl Server {
    /// Returns when the server has ended by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        let ended = self.child.wait().await;
        self.dismiss_guardian().await;
        ended
    }

    /// Asks the server to end its sessions, write everything and stop; when it does not, tells it to stop at once,
    /// which costs the next start a recovery.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.dismiss_guardian().await;
        for signal in [Signal::INT, Signal::QUIT] {
            let Some(pid) = pid_of(&self.child) else { return Ok(()) };
            leftover::tell(pid, signal);
            if timeout(SERVER_STOP_WAIT_MAX, self.child.wait()).await.is_ok() {
                return Ok(());
            }
            tracing::error!(pid = pid.as_raw_pid(), "Postgres does not stop");
        }
        Err(EmbeddedError::NotStopped { pid: self.child.id().unwrap_or_default(), data: self.data })
    }

    /// Before the server's process id is given back: the guardian would signal whoever has it next.
    async fn dismiss_guardian(&mut self) {
        // Fails when the guardian has ended, which is as good.
        drop(self.guardian.start_kill());
        drop(self.guardian.wait().await);
    }
}

const SHELL: &str = "/bin/sh";

/// Starts the guardian. Its standard input is the pipe; ours is the only other end, and no child inherits it.
fn guard(account: &Account, server: &Child) -> io::Result<Child> {
    let pid = server.id().map(|pid| pid.to_string()).unwrap_or_default();
    let mut command = account.command(Path::new(SHELL));
    command.args(["-c", "read -r line; kill -INT \"$1\"", "flowstone-guardian", &pid]);
    command.stdin(Stdio::piped()).spawn()
}

/// Nothing once the child was waited for.
fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// As the client of a server whose socket is in this folder. Nothing is taken from `PG*` variables that matters.
pub(super) fn connect_options(socket_folder: &Path) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_folder)
        .port(socket::PORT)
        .username("flowstone")
        .database("flowstone")
        .ssl_mode(PgSslMode::Disable)
        .application_name("flowstone")
}

/// A server that is not there yet, or that says that it is starting.
pub(super) fn may_answer_later(error: &sqlx::Error) -> bool {
    const CANNOT_CONNECT_NOW: &str = "57P03";
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().as_deref() == Some(CANNOT_CONNECT_NOW),
        _ => false,
    }
}

/// The last part of what was logged since `from`.
fn tail(log: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let from = from.max(file.metadata()?.len().saturating_sub(SERVER_LOG_TAIL_BYTES));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(SERVER_LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Pauses between attempts to bring back a server that ended by itself.
pub(super) fn restart_pause(attempt: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << attempt.min(10)).min(crate::limit::SERVER_RESTART_WAIT_MAX)
}
