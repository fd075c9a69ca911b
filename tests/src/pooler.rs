//! PgBouncer in front of a server: each transaction gets whichever connection is free.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
    time::Instant,
};

use sqlx::{Connection as _, PgConnection};

use crate::{Postgres, account::Account, deadline::DEADLINE};

/// A pooler with a few connections to a server. Dropped, it ends.
#[derive(Debug)]
pub struct Pooler {
    folder: tempfile::TempDir,
    process: Child,
}

/// Connections to the server: fewer than clients have, so that each is used by all of them.
const CONNECTIONS: usize = 5;

impl Pooler {
    /// In transaction mode, as its packages configure it otherwise.
    pub async fn to(server: &Postgres) -> Self {
        let folder = tempfile::Builder::new().prefix("flowstone-pooler-").tempdir().expect("/tmp is writable");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let account = Account::of_servers();
        account.own(folder.path());
        let path = folder.path().display();
        let settings = format!(
            "[databases]\nflowstone = host={} port=5432 user=flowstone dbname=flowstone\n[pgbouncer]\n\
             pool_mode = transaction\nlisten_port = 5432\nlisten_addr =\nunix_socket_dir = {path}\n\
             auth_type = trust\nauth_file = {path}/users\ndefault_pool_size = {CONNECTIONS}\nmax_client_conn = 500\n\
             logfile = {path}/log\npidfile = {path}/pid\n",
            server.folder().display(),
        );
        fs::write(folder.path().join("users"), "\"flowstone\" \"\"\n").expect("the folder is ours");
        fs::write(folder.path().join("pgbouncer.ini"), settings).expect("the folder is ours");
        let mut process = account
            .run("pgbouncer".as_ref())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("-q")
            .arg(folder.path().join("pgbouncer.ini"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv can be run");
        let started = Instant::now();
        let options = server.options().socket(folder.path()).extra_float_digits(None).statement_cache_capacity(0);
        while PgConnection::connect_with(&options).await.map(|connection| drop(connection.close())).is_err() {
            let runs = matches!(process.try_wait(), Ok(None)) && started.elapsed() < DEADLINE;
            assert!(runs, "pgbouncer does not start: run scripts/setup, or see {path}/log");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Self { folder, process }
    }

    /// For a `flowstone` command that is not told of it.
    pub fn plain_url(&self) -> String {
        format!("postgres:///flowstone?host={}&user=flowstone", self.folder.path().display())
    }

    /// For a `flowstone` command.
    pub fn url(&self) -> String {
        format!("{}&pooler=transaction", self.plain_url())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
