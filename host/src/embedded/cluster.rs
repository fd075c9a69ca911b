//! Owning the cluster, and attaching to one that somebody else owns.

use std::path::Path;

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    account::Account,
    error::EmbeddedError,
    home::{Home, open_state_dir},
    leftover,
    lock::StateLock,
    postgres::{Programs, version_of_data},
    server::{Launch, Server, connect_options, may_answer_later, restart_pause},
    settings, socket,
};
use crate::limit::{SERVER_POLL_INTERVAL, SERVER_START_WAIT_MAX, STATE_LOCK_WAIT_MAX};

/// A cluster that this process owns.
///
/// A server that ends by itself is started again, so that a run can wait for it like for any database. Dropped
/// without [`Cluster::stop`], the cluster stops in the background, or when the process has ended.
#[derive(Debug)]
pub struct Cluster {
    options: PgConnectOptions,
    supervisor: JoinHandle<Result<(), EmbeddedError>>,
    stopping: DropGuard,
}

impl Cluster {
    /// Becomes the owner of the state directory, makes the cluster if there is none, and starts it. Must be called
    /// on a tokio runtime that outlives the cluster.
    pub async fn own(state_dir: &Path) -> Result<Self, EmbeddedError> {
        let account = Account::of_this_process()?;
        let state_dir = open_state_dir(state_dir, &account)?;
        let lock = StateLock::take(&state_dir).await?;
        let (home, programs) = open_home(&state_dir, &account).await?;
        settings::write_access_rules(&home, &account)?;
        leftover::end(&home.data()).await?;
        let socket_folder = socket::prepare(&home, &account)?;
        let launch = Launch { account, programs, home, socket_folder, log: state_dir.join("postgres.log") };
        let server = launch.start().await?;

        let stopping = CancellationToken::new();
        let options = launch.options();
        let supervisor = tokio::spawn(supervise(lock, launch, server, stopping.clone()));
        Ok(Self { options, supervisor, stopping: stopping.drop_guard() })
    }

    /// How to connect: role `flowstone`, which is no superuser, to the database `flowstone`, which it owns.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Ends all sessions, writes everything, stops the server, and gives up the state directory.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        drop(self.stopping);
        match self.supervisor.await {
            Ok(stopped) => stopped,
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}

/// A way to the cluster of a state directory, whoever owns it.
#[derive(Debug)]
pub enum Reached {
    /// Nobody did, so that this process does now.
    Owned(Cluster),
    /// Another process does.
    Attached(PgConnectOptions),
}

impl Reached {
    /// How to connect.
    pub fn options(&self) -> PgConnectOptions {
        match self {
            Self::Owned(cluster) => cluster.options(),
            Self::Attached(options) => options.clone(),
        }
    }

    /// Stops the cluster if this process owns it.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        match self {
            Self::Owned(cluster) => cluster.stop().await,
            Self::Attached(_) => Ok(()),
        }
    }
}

/// For commands that look or ask, beside a process that works: attaches where there is an owner, and owns otherwise.
pub async fn reach(state_dir: &Path) -> Result<Reached, EmbeddedError> {
    let deadline = Instant::now() + SERVER_START_WAIT_MAX;
    loop {
        if let Some(options) = attach(state_dir).await? {
            return Ok(Reached::Attached(options));
        }
        match Cluster::own(state_dir).await {
            Ok(cluster) => return Ok(Reached::Owned(cluster)),
            // The owner is making its cluster or starting it; there will soon be something to attach to.
            Err(EmbeddedError::InUse { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}

/// Connects to the running cluster of a live owner, without becoming one. `None` when no server runs there. One that
/// is starting is waited for; one that is stopping counts as gone after a moment.
pub async fn attach(state_dir: &Path) -> Result<Option<PgConnectOptions>, EmbeddedError> {
    let Ok(state_dir) = state_dir.canonicalize() else { return Ok(None) };
    let Some(home) = Home::find(&state_dir)? else { return Ok(None) };
    let account = Account::of_this_process()?;
    let deadline = Instant::now() + STATE_LOCK_WAIT_MAX;
    while leftover::postmaster(&home.data()).is_some()
        && let Some(folder) = socket::find(&home, &account)?
    {
        let options = connect_options(&folder);
        match PgConnection::connect_with(&options).await {
            Ok(connection) => {
                drop(connection.close().await);
                return Ok(Some(options));
            }
            Err(error) if may_answer_later(&error) && Instant::now() < deadline => {
                tokio::time::sleep(SERVER_POLL_INTERVAL).await;
            }
            Err(error) if may_answer_later(&error) => return Ok(None),
            Err(source) => return Err(EmbeddedError::NoAnswer { home: home.0, source }),
        }
    }
    Ok(None)
}

/// The home, with a data directory in it, and the programs that fit it.
async fn open_home(state_dir: &Path, account: &Account) -> Result<(Home, Programs), EmbeddedError> {
    if let Some(home) = Home::find(state_dir)?
        && let Some(major) = version_of_data(&home.data())?
    {
        let programs = Programs::find(account, Some(major)).await;
        return match programs {
            Some(programs) => Ok((home, programs)),
            None => Err(EmbeddedError::OtherVersion { home: home.0, major }),
        };
    }
    let programs = Programs::find(account, None).await.ok_or(EmbeddedError::NoPostgres)?;
    let home = Home::make(state_dir, account, &programs).await?;
    tracing::info!(home = %home.0.display(), postgres = programs.major, "making a Postgres cluster");
    home.fill(account, &programs).await?;
    Ok((home, programs))
}

/// Keeps the server running until it is to stop. Holds the lock, so that the state directory is free only when the
/// server is gone.
async fn supervise(
    lock: StateLock,
    launch: Launch,
    mut server: Server,
    stopping: CancellationToken,
) -> Result<(), EmbeddedError> {
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            ended = server.ended() => tracing::error!(?ended, "Postgres ended by itself"),
        }
        match bring_back(&launch, &stopping).await {
            Some(again) => server = again,
            None => return Ok(()),
        }
    }
    server.stop().await?;
    socket::tidy(&launch.home, &launch.socket_folder);
    drop(lock);
    Ok(())
}

/// A server in place of one that ended; `None` when it is no longer wanted. A start is not cut short: it would leave
/// a server half started.
async fn bring_back(launch: &Launch, stopping: &CancellationToken) -> Option<Server> {
    for attempt in 0.. {
        match launch.start().await {
            Ok(server) => return Some(server),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot bring Postgres back"),
        }
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(restart_pause(attempt)) => {}
        }
    }
    None
}
