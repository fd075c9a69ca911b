//! Another Postgres than FlowStone's own, as an operator would have one: with logins, passwords and certificates.
//!
//! One server for all tests of a process, reached over a socket and over TLS on the loopback address; it ends with the
//! process. Each test has a database in it, with a login and roles of its own.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::OnceLock,
};

use flowstone::pipeline::{
    resource::Access,
    sql::{SqlGrant, SqlResource, UrlSource},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::runtime::Handle;

use crate::{
    account::{Account, program},
    deadline::DEADLINE,
    server::start_shared,
};

/// One test's database. Dropped, it is removed with its roles.
///
/// There are two schemas: `shop`, in which the role may read and write, and `private`, in which nobody may but the
/// owner. The login may become the role and nothing else.
#[derive(Debug)]
pub struct Warehouse {
    /// Of the database, the roles and the login, which begin with it.
    name: String,
}

/// The password of every login.
const PASSWORD: &str = "hunter2";

impl Warehouse {
    /// With these statements of its owner's in it; `{role}` and `{login}` in them are the names.
    pub async fn new(statements: &str) -> Self {
        let name = format!("wh_{}", uuid::Uuid::new_v4().simple());
        let warehouse = Self { name };
        let (name, role, login) = (&warehouse.name, warehouse.role(), warehouse.login());
        let server = server();
        execute(&server.options(), format!("create database {name}")).await;
        let setting = format!(
            "create role {role} nologin;
             create role {login} login noinherit password '{PASSWORD}';
             grant {role} to {login};
             create schema shop;
             create schema private;
             grant usage on schema shop to {role};
             alter default privileges in schema shop grant select, insert, update, delete on tables to {role};
             alter default privileges in schema shop grant usage on sequences to {role};
             create table public.flowstone_applied (
                 asset_id uuid not null, partition_key text not null, attempt_id uuid not null,
                 applied_at timestamptz not null default now(), primary key (asset_id, partition_key));
             grant select, insert, update on public.flowstone_applied to {login};
             create table private.secret (word text);
             insert into private.secret values ('hidden');"
        );
        let statements = statements.replace("{role}", &role).replace("{login}", &login);
        execute(&warehouse.options(), setting + &statements).await;
        warehouse
    }

    /// The role of statements.
    pub fn role(&self) -> String {
        format!("{}_role", self.name)
    }

    /// Who connects.
    pub fn login(&self) -> String {
        format!("{}_login", self.name)
    }

    /// How its owner, a superuser, connects.
    pub fn options(&self) -> PgConnectOptions {
        server().options().database(&self.name)
    }

    /// Its owner's connections.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect_with(self.options()).await.expect("the server runs and the database exists")
    }

    /// Runs statements of its owner's.
    pub async fn execute(&self, statements: impl Into<String>) {
        execute(&self.options(), statements.into()).await;
    }

    /// The text in each row of an answer's only column.
    pub async fn ask(&self, question: &'static str) -> Vec<String> {
        let mut connection = PgConnection::connect_with(&self.options()).await.expect("the database exists");
        sqlx::query_scalar(question).fetch_all(&mut connection).await.expect("the question is sound")
    }

    /// The URL over the socket, which asks for no password.
    pub fn url(&self) -> String {
        self.url_in(&server().folder, &self.login())
    }

    /// The same for another login, or through another folder.
    pub fn url_in(&self, folder: &Path, login: &str) -> String {
        format!("postgres:///{}?host={}&port={}&user={login}", self.name, folder.display(), server().port)
    }

    /// The folder of the server's socket.
    pub fn socket_folder(&self) -> &'static Path {
        &server().folder
    }

    /// The URL over TLS, with a password.
    pub fn network_url(&self) -> String {
        format!("postgres://{}:{PASSWORD}@localhost:{}/{}", self.login(), server().port, self.name)
    }

    /// The certificate of the authority that vouches for the server.
    pub fn authority(&self) -> &'static str {
        &server().authority
    }

    /// The database as an operator registers it, reached by this URL.
    pub fn resource(&self, access: Access, url: String) -> SqlResource {
        SqlResource {
            url: UrlSource::Plain(url),
            role: Some(self.role()),
            search_path: vec!["shop".into()],
            access,
            ca: None,
            statement_timeout_ms: 10_000,
            connections: 4,
        }
    }
}

/// A grant of the resource `shop` with wide bounds.
pub fn grant(access: Access) -> SqlGrant {
    SqlGrant {
        resource: "shop".into(),
        access,
        statements: 100_000,
        rows: 10_000_000,
        bytes: 1 << 30,
        statement_timeout_ms: 10_000,
    }
}

impl Drop for Warehouse {
    fn drop(&mut self) {
        let (options, name) = (server().options(), std::mem::take(&mut self.name));
        // Not waited for: what is left goes with the server.
        server().runtime.spawn(async move {
            execute(&options, format!("drop database {name} with (force)")).await;
            execute(&options, format!("drop role {name}_login; drop role {name}_role")).await;
        });
    }
}

async fn execute(options: &PgConnectOptions, statements: String) {
    let mut connection = PgConnection::connect_with(options).await.expect("the server runs");
    // One by one where there is one: databases are not made within a transaction.
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.expect("the statements are sound");
    connection.close().await.expect("the server is there");
}

struct Server {
    folder: PathBuf,
    port: u16,
    authority: String,
    runtime: Handle,
    postgres: Child,
}

impl Server {
    fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.folder).port(self.port).username("postgres");
        options.database("postgres").application_name("test")
    }
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start_shared(start))
}

/// Folders of servers, each with the id of the process that it belongs to.
const FOLDERS: &str = "/tmp/flowstone-warehouse-";

async fn start(runtime: Handle) -> Server {
    remove_what_is_left();
    let folder = PathBuf::from(format!("{FOLDERS}{}", std::process::id()));
    fs::create_dir(&folder).expect("no other process has this id");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let account = Account::of_servers();
    account.own(&folder);
    let data = folder.join("data");
    let made = account
        .run(&program("initdb"))
        .args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth-local=trust"])
        .args(["--auth-host=scram-sha-256", "--no-sync", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .expect("initdb can be run");
    assert!(made.success(), "a cluster can be made");
    let authority = certify(&folder, &account);
    // Free now, and for as long as it takes to start.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free").port();
    let log = fs::File::create(folder.join("log")).expect("the folder is ours");
    let setting = |name: &str, value: String| format!("--{name}={value}");
    let path = |file: &str| folder.join(file).display().to_string();
    let postgres = account
        .run(&program("postgres"))
        .args([
            "-D".into(),
            path("data"),
            setting("listen_addresses", "localhost".into()),
            setting("port", port.to_string()),
            setting("unix_socket_directories", folder.display().to_string()),
            setting("ssl", "on".into()),
            setting("ssl_cert_file", path("server.crt")),
            setting("ssl_key_file", path("server.key")),
            setting("fsync", "off".into()),
            setting("max_connections", "300".into()),
            // So that a statement may use what is forbidden to it as much as it likes.
            setting("jit", "off".into()),
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("postgres can be run");
    let mut server = Server { folder, port, authority, runtime, postgres };
    let started = std::time::Instant::now();
    while PgConnection::connect_with(&server.options()).await.is_err() {
        let runs = matches!(server.postgres.try_wait(), Ok(None)) && started.elapsed() < DEADLINE;
        assert!(runs, "the server starts: see {}/log", server.folder.display());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server
}

/// Of processes that have ended.
fn remove_what_is_left() {
    for entry in fs::read_dir("/tmp").expect("/tmp can be read").flatten() {
        let path = entry.path();
        let pid = path.to_str().and_then(|path| path.strip_prefix(FOLDERS)).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !crate::state::is_alive(pid)) {
            // Another process may remove it at the same time.
            drop(fs::remove_dir_all(path));
        }
    }
}

/// A certificate for `localhost`, and the authority behind it as PEM.
fn certify(folder: &Path, account: &Account) -> String {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(vec![]).expect("no names are fine");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("there is randomness");
    let authority_certificate = authority.self_signed(&authority_key).expect("the key fits");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("there is randomness");
    let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("it is a name");
    let certificate = names.signed_by(&key, &issuer).expect("the authority signs");
    fs::write(folder.join("server.crt"), certificate.pem()).expect("the folder is ours");
    let key_file = folder.join("server.key");
    fs::write(&key_file, key.serialize_pem()).expect("the folder is ours");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    account.own(&key_file);
    authority_certificate.pem()
}
