//! A migrated database of its own for each test, on one server for all tests of a process.
//!
//! The server is FlowStone's own embedded one, in a state directory that the next test process uses again: making a
//! cluster takes longer than most tests. It stops when this process has ended. The migrations run once, into a
//! template that each test's database is a copy of.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flowstone::embedded::{Cluster, EmbeddedError};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, migrate::Migrator, postgres::PgConnectOptions};
use tokio::runtime::Handle;

use crate::server::start_shared;

/// One test's database. Dropped, it is removed.
#[derive(Debug)]
pub struct Database {
    name: String,
    options: PgConnectOptions,
}

impl Database {
    /// With the migrations, and nothing in it.
    pub async fn new() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// The same, for tests that only run commands.
    pub fn new_blocking() -> Self {
        Self::blocking(Self::new())
    }

    /// Without even the migrations, for tests that only run commands.
    pub fn empty_blocking() -> Self {
        Self::blocking(Self::empty())
    }

    /// Runs statements that return nothing, for tests that only run commands.
    pub fn execute(&self, statements: &'static str) {
        let options = self.options();
        Self::blocking(async move {
            let mut connection = PgConnection::connect_with(&options).await.expect("the database exists");
            connection.execute(sqlx::raw_sql(statements)).await.expect("the statements are sound");
        });
    }

    /// The text in each row of an answer's only column, for tests that only run commands.
    pub fn ask(&self, question: &'static str) -> Vec<String> {
        let options = self.options();
        Self::blocking(async move {
            let mut connection = PgConnection::connect_with(&options).await.expect("the database exists");
            sqlx::query_scalar(question).fetch_all(&mut connection).await.expect("the question is sound")
        })
    }

    /// On the server's runtime: this thread may be one of another.
    fn blocking<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::channel();
        server().runtime.spawn(async move {
            let task = tokio::spawn(future);
            sender.send(task.await)
        });
        match receiver.recv().expect("the server's runtime lives as long as the process") {
            Ok(value) => value,
            // Here, where the test that asked shows it.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Without even the migrations.
    pub async fn empty() -> Self {
        Self::copy_of("template1").await
    }

    async fn copy_of(template: &str) -> Self {
        let server = server();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let made = execute(&server.options, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        made.unwrap_or_else(|error| panic!("no database for a test: {error}"));
        // Not the name of the command's connections: some tests look for those.
        Self { options: server.options.clone().database(&name).application_name("test"), name }
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Connections to it.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect_with(self.options()).await.expect("the server runs and the database exists")
    }

    /// For a `flowstone` command that is to use it.
    pub fn url(&self) -> String {
        let socket = self.options.get_socket().expect("the embedded server has a socket");
        format!("postgres:///{}?host={}&user=flowstone", self.name, socket.display())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server = server();
        let (options, name) = (server.options.clone(), std::mem::take(&mut self.name));
        // Not waited for: what is left when the process ends, the next one removes.
        server.runtime.spawn(async move { execute(&options, format!("DROP DATABASE {name} WITH (FORCE)")).await });
    }
}

const TEMPLATE: &str = "test_template";

struct Server {
    options: PgConnectOptions,
    runtime: Handle,
    _cluster: Cluster,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        start_shared(async |runtime| {
            let cluster = own_free_cluster().await;
            let options = cluster.options();
            prepare(&options).await.expect("the migrations apply to an empty database");
            Server { options, runtime, _cluster: cluster }
        })
    })
}

/// Of several test processes at a time, each has a cluster of its own.
async fn own_free_cluster() -> Cluster {
    for n in 0.. {
        match Cluster::own(&target_folder().join(format!("test-postgres-{n}"))).await {
            Ok(cluster) => return cluster,
            Err(EmbeddedError::InUse { .. }) => {}
            Err(error) => panic!("no server for the tests: {:#}", anyhow::Error::from(error)),
        }
    }
    unreachable!("there are fewer processes than numbers")
}

/// Removes what earlier processes left, and makes the template.
async fn prepare(options: &PgConnectOptions) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(options).await?;
    let left: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'test\\_%'")
        .fetch_all(&mut connection)
        .await?;
    for name in left {
        connection.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    }
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"))).await?;
    connection.close().await?;
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    if migrations.is_dir() {
        let mut template = PgConnection::connect_with(&options.clone().database(TEMPLATE)).await?;
        Migrator::new(migrations).await?.run_direct(None, &mut template, false).await?;
        template.close().await?;
    }
    Ok(())
}

async fn execute(options: &PgConnectOptions, statement: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect_with(options).await?;
    connection.execute(sqlx::AssertSqlSafe(statement)).await?;
    connection.close().await
}

/// Where cargo put this program: `<target>/<profile>/deps/<program>`.
pub(crate) fn target_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let deps = program.parent().expect("a program is in a folder");
    deps.parent().expect("cargo puts tests into `deps`").to_owned()
}
