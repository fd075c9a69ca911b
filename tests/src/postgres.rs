//! A Postgres of a test's own, which the test may stop, kill, and let stand still.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Instant,
};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgConnectOptions};

use crate::{
    Mount,
    account::{Account, program},
    deadline::{DEADLINE, wait_until, wait_until_database_says},
    signal,
};

/// A server, with the database `flowstone` in it. Dropped, it is killed and removed.
#[derive(Debug)]
pub struct Postgres {
    /// Before the folder that it is in: it has to go first.
    small: Option<Mount>,
    folder: tempfile::TempDir,
    account: Account,
    process: Option<Child>,
}

/// What of a server lies on a small disk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Small {
    /// Tables and indexes.
    Tables,
    /// The write-ahead log.
    Log,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ends its sessions, writes everything, and stops.
    Fast,
    /// It stops at once, and recovers at its next start.
    Immediate,
    /// `kill -9`: its backends notice by themselves.
    Kill,
}

impl Stop {
    fn signal(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

impl Postgres {
    /// A new one.
    pub async fn new() -> Self {
        Self::made(Self::empty()).await
    }

    /// A new one of which one part is on a disk of this many megabytes; `None` where mounting is not permitted.
    pub async fn on_small_disk(part: Small, megabytes: u32) -> Option<Self> {
        let mut server = Self::empty();
        let folder = match part {
            Small::Tables => server.data(),
            Small::Log => server.log(),
        };
        fs::create_dir(&folder).expect("the folder is ours");
        server.small = Some(Mount::new(&folder, megabytes)?);
        server.account.own(&folder);
        Some(Self::made(server).await)
    }

    async fn made(server: Self) -> Self {
        let made = server
            .account
            .run(&program("initdb"))
            .args(["--username=flowstone", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync"])
            // Small files where there is little room: the log needs new ones all the time.
            .args(server.small.iter().map(|_| "--wal-segsize=1"))
            .arg("--waldir")
            .arg(server.log())
            .arg("-D")
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .expect("initdb can be run");
        assert!(made.success(), "a cluster can be made");
        let mut server = server;
        server.start().await;
        let mut connection =
            PgConnection::connect_with(&server.options().database("postgres")).await.expect("the server runs");
        connection.execute("create database flowstone").await.expect("it is new");
        connection.close().await.expect("the server runs");
        server
    }

    /// A folder for one.
    fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("flowstone-postgres-").tempdir().expect("/tmp is writable");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let account = Account::of_servers();
        account.own(folder.path());
        Self { small: None, folder, account, process: None }
    }

    /// A standby that follows this server; it answers questions, and takes no writes until it is promoted.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::empty();
        let copied = standby
            .account
            .run(&program("pg_basebackup"))
            .args(["--username=flowstone", "--port=5432", "--checkpoint=fast", "--write-recovery-conf", "--no-sync"])
            .arg("--host")
            .arg(self.folder())
            .arg("--pgdata")
            .arg(standby.data())
            .status()
            .expect("pg_basebackup can be run");
        assert!(copied.success(), "a running server can be copied");
        standby.start().await;
        standby
    }

    /// From now on a commit is acknowledged when a standby has it too. Returns when one does.
    pub async fn wait_for_standbys(&self) {
        let pool = self.pool().await;
        sqlx::query("alter system set synchronous_standby_names = '*'").execute(&pool).await.expect("it may");
        sqlx::query("select pg_reload_conf()").execute(&pool).await.expect("it may");
        wait_until_database_says(&pool, "select exists (select from pg_stat_replication where sync_state = 'sync')")
            .await;
        pool.close().await;
    }

    /// Makes a standby a server like any other.
    pub async fn promote(&self) {
        let pool = self.pool().await;
        let promoted: bool = sqlx::query_scalar("select pg_promote()").fetch_one(&pool).await.expect("it is a standby");
        assert!(promoted, "it takes writes");
        pool.close().await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("wal")
    }

    /// Where its small disk is.
    pub fn small_disk(&self) -> &Path {
        self.small.as_ref().expect("the test made it with one").path()
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().expect("it is our child").is_some())
    }

    /// What it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How to connect.
    pub fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().socket(self.folder.path()).port(5432);
        options.username("flowstone").database("flowstone").application_name("test")
    }

    /// The same for a `flowstone` command.
    pub fn url(&self) -> String {
        format!("postgres:///flowstone?host={}&user=flowstone", self.folder.path().display())
    }

    /// Connections to it.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect_with(self.options()).await.expect("the server runs")
    }

    /// Starts it, and returns when it answers. One that ended by itself, too.
    pub async fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("the folder is ours");
        let started = Instant::now();
        loop {
            let data = self.data();
            let process = self
                .account
                .run(&program("postgres"))
                .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
                // Processes die here, and no machine: what they wrote is there.
                .args(["-c", "fsync=off", "-c", "max_locks_per_transaction=256", "-c", "timezone=UTC", "-k"])
                .arg(self.folder.path())
                // What is old goes, so that new files are needed all the time.
                .args(self.small.iter().flat_map(|_| ["-c", "wal_recycle=off"]))
                .arg("-D")
                .arg(data)
                .stdout(Stdio::null())
                .stderr(log.try_clone().expect("a file can be opened twice"))
                .spawn();
            self.process = Some(process.expect("postgres can be run"));
            loop {
                assert!(started.elapsed() < DEADLINE, "the server starts: see {}/log", self.folder.path().display());
                if let Ok(connection) = PgConnection::connect_with(&self.options().database("postgres")).await {
                    drop(connection.close().await);
                    return;
                }
                let process = self.process.as_mut().expect("it was just started");
                if process.try_wait().expect("it is our child").is_some() {
                    // Backends of one that was killed still hold its memory.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }

    /// Stops it, and returns when its process has ended.
    pub fn stop(&mut self, how: Stop) {
        let mut process = self.process.take().expect("it runs");
        signal(process.id(), how.signal());
        process.wait().expect("it is our child");
    }

    /// Lets all of its processes stand still: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        stand_still(self.pid());
        // It can start no more of them from here on.
        self.backends().into_iter().for_each(stand_still);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.backends().into_iter().for_each(|pid| signal_if_there(pid, "CONT"));
        signal(self.pid(), "CONT");
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    fn backends(&self) -> Vec<u32> {
        children(self.pid())
    }
}

/// Of a process that may have ended.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Returns when a process has stopped, or is gone.
fn stand_still(pid: u32) {
    signal_if_there(pid, "STOP");
    wait_until("a process stands still", || {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After its name, which is in brackets: T when it is stopped, Z when it has ended.
        status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z']))
    });
}

/// A backend may end by itself.
fn signal_if_there(pid: u32, name: &str) {
    let mut kill = std::process::Command::new("kill");
    drop(kill.args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status());
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let all = [vec![process.id()], children(process.id())].concat();
            signal_if_there(process.id(), "QUIT");
            // It may stand still.
            all.into_iter().for_each(|pid| signal_if_there(pid, "CONT"));
            drop(process.wait());
        }
    }
}
