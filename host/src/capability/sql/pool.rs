//! Connections that outlive attempts: one pool in a process for each database as an operator registered it.
//!
//! A connection is checked when it is made: whether its login could do more than any grant says, by becoming another
//! role, by leaving the transaction, or by writing the record of what was applied. No look at a statement can prevent
//! that, so such a login is refused. It returns to its pool only as new: rolled back, and everything discarded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::wire::{Address, Connection, Status, WireError};
use crate::{
    blob::{Digest, DigestWriter},
    limit::{SQL_CONNECT_TIMEOUT, SQL_IDLE_MAX, SQL_POOLS_MAX, SQL_RESET_TIMEOUT},
    pipeline::{
        resource::Access,
        sql::{DatabaseUrl, SqlResource, UrlSource},
    },
    secret::SecretValue,
};

/// URLs of databases by the name of their variable. Shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatabaseUrls(HashMap<String, String>);

impl FromIterator<(String, String)> for DatabaseUrls {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(urls: T) -> Self {
        Self(urls.into_iter().collect())
    }
}

impl fmt::Debug for DatabaseUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// All pools of a process.
#[derive(Clone)]
pub struct Databases {
    urls: Arc<DatabaseUrls>,
    runtime: Handle,
    pools: Arc<Mutex<HashMap<Digest, Arc<Pool>>>>,
}

impl fmt::Debug for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Databases({:?})", self.urls)
    }
}

impl Databases {
    /// None is connected yet. Connections do their IO on this runtime.
    pub fn new(urls: DatabaseUrls, runtime: Handle) -> Self {
        Self { urls: Arc::new(urls), runtime, pools: Arc::default() }
    }

    /// The pool of one tenant's database; with the secret, where that is its URL. The mistake is a sentence for the operator.
    pub fn pool(
        &self,
        tenant: &str,
        resource: &SqlResource,
        secret: Option<&SecretValue>,
    ) -> Result<Arc<Pool>, String> {
        let (text, place) = match &resource.url {
            UrlSource::Plain(text) => (text.as_str(), "its URL".to_owned()),
            UrlSource::Environment(variable) => match self.urls.0.get(variable) {
                Some(text) => (text.as_str(), format!("the URL in {variable}")),
                None => return Err(format!("this process has no variable {variable}, which holds its URL")),
            },
            UrlSource::Secret(name) => match secret.map(|secret| std::str::from_utf8(secret.expose())) {
                Some(Ok(text)) => (text, format!("the secret `{name}`")),
                Some(Err(_)) => return Err(format!("the secret `{name}`, which is its URL, is not text")),
                None => return Err(format!("there is no secret `{name}`, which is its URL")),
            },
        };
        let settings = serde_json::to_string(resource).map_err(|error| error.to_string())?;
        // A digest, so that no password is kept in one place more.
        let mut key = DigestWriter::default();
        [tenant, &settings, text].iter().for_each(|part| key.field(part.as_bytes()));
        let key = key.finish();
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let url = DatabaseUrl::parse(text).map_err(|mistake| format!("{place} {mistake}"))?;
        let address = Address::new(url, resource.ca.as_deref()).map_err(str::to_owned)?;
        if pools.len() >= SQL_POOLS_MAX {
            // Those in use live on with whoever uses them.
            pools.clear();
        }
        let pool = Arc::new(Pool {
            address: Arc::new(address),
            resource: resource.clone(),
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(resource.connections as usize)),
            runtime: self.runtime.clone(),
        });
        pools.insert(key, pool.clone());
        Ok(pool)
    }
}

/// The connections to one database.
pub struct Pool {
    address: Arc<Address>,
    resource: SqlResource,
    idle: Mutex<Vec<(Connection, Instant)>>,
    permits: Arc<Semaphore>,
    runtime: Handle,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.address)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// All of the resource's connections are in use, and stayed so.
    #[error("all of its connections were in use for {} s", SQL_CONNECT_TIMEOUT.as_secs())]
    Exhausted,
    /// The server did not answer in time.
    #[error("the server did not answer within {} s", SQL_CONNECT_TIMEOUT.as_secs())]
    Slow,
    /// The server cannot be reached, or refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The login or the database is not what a resource may be; for the operator.
    #[error("{0}")]
    Unfit(String),
}

/// What every session begins with, and returns to when everything is discarded: with it, text means the same always.
const SESSION: [(&str, &str); 10] = [
    ("application_name", "flowstone asset"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "iso_8601"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    // Functions say what they like; nobody would read it.
    ("client_min_messages", "error"),
    ("idle_in_transaction_session_timeout", "0"),
    // A statement that catches its cancellation ends all the same when its connection is gone.
    ("client_connection_check_interval", "1s"),
];

/// What a login could do beside what its grants say. Names are qualified and none is an operator of a schema that
/// anybody else can write to: the session looks into `pg_catalog` first.
const UNFIT: &str = "select
    (select pg_catalog.string_agg(r.rolname, ', ') from pg_catalog.pg_roles r
     where pg_catalog.pg_has_role(session_user, r.oid, 'member')
       and (r.rolsuper or r.rolcreaterole or r.rolreplication or r.rolbypassrls
            or r.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                             'pg_signal_backend', 'pg_create_subscription'))),
    (select pg_catalog.string_agg(r.rolname, ', ') from pg_catalog.pg_roles r
     where $1::pg_catalog.text is not null and r.rolname <> session_user
       and pg_catalog.pg_has_role(session_user, r.oid, 'member')
       and not pg_catalog.pg_has_role($1::pg_catalog.name, r.oid, 'member')),
    (select 'yes' where exists (
        select from pg_catalog.pg_class a join pg_catalog.pg_class b on b.relnamespace = a.relnamespace
        where a.relname = 'job_lease' and b.relname = 'asset_version')),
    (select pg_catalog.string_agg(distinct e.extname, ', ') from pg_catalog.pg_extension e
     join pg_catalog.pg_depend d on d.refobjid = e.oid and d.deptype = 'e'
       and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
       and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
     where e.extname in ('adminpack', 'dblink', 'http', 'pg_background', 'pg_cron', 'pg_net')
       and pg_catalog.has_function_privilege(session_user, d.objid, 'execute'))";

/// Whether the record of what was applied can be written by the login, and by nobody whom an asset can be.
const RECORD: &str = "select
    (select case when pg_catalog.to_regclass('public.flowstone_applied') is null then 'absent'
        when not pg_catalog.has_table_privilege(session_user, 'public.flowstone_applied', 'select')
            or not pg_catalog.has_table_privilege(session_user, 'public.flowstone_applied', 'insert')
            or not pg_catalog.has_table_privilege(session_user, 'public.flowstone_applied', 'update') then 'closed'
        when pg_catalog.has_table_privilege($1::pg_catalog.name, 'public.flowstone_applied',
            'insert, update, delete, truncate, trigger') then 'open'
        when pg_catalog.current_setting('track_counts') <> 'on' then 'uncounted' end)";

/// What `discard all` leaves: where the session's random numbers go on.
const RESEED: &str = "select pg_catalog.setseed($1::pg_catalog.float8)";

/// A seed that no asset knows: a number from -1 to 1.
fn seed() -> Result<String, getrandom::Error> {
    let drawn = getrandom::u32()?;
    Ok((f64::from(drawn) / f64::from(u32::MAX) * 2.0 - 1.0).to_string())
}

impl Pool {
    /// What an operator registered.
    pub fn resource(&self) -> &SqlResource {
        &self.resource
    }

    /// A connection for one attempt: one that is idle, or a new one.
    pub async fn take(self: &Arc<Self>) -> Result<Taken, ConnectError> {
        let waiting = tokio::time::timeout(SQL_CONNECT_TIMEOUT, self.permits.clone().acquire_owned());
        let Ok(Ok(permit)) = waiting.await else { return Err(ConnectError::Exhausted) };
        loop {
            let idle = self.lock_idle().pop();
            let Some((connection, since)) = idle else { break };
            if since.elapsed() < SQL_IDLE_MAX {
                return Ok(Taken {
                    connection: Some(connection),
                    fresh: false,
                    pool: self.clone(),
                    permit: Some(permit),
                });
            }
        }
        // On the runtime that does IO: whoever asks may run on one that does not.
        let pool = self.clone();
        let opened = self.runtime.spawn(async move {
            tokio::time::timeout(SQL_CONNECT_TIMEOUT, pool.open()).await.unwrap_or(Err(ConnectError::Slow))
        });
        let connection = opened.await.map_err(|_| ConnectError::Slow)??;
        Ok(Taken { connection: Some(connection), fresh: true, pool: self.clone(), permit: Some(permit) })
    }

    /// Connects, and looks whether the login may be used.
    async fn open(&self) -> Result<Connection, ConnectError> {
        let mut connection = Connection::open(self.address.clone(), &SESSION).await?;
        let role = self.resource.role.as_deref();
        let (row, _) = connection.run(UNFIT, &[role]).await?;
        let mut found = row.into_iter().flatten();
        if let Some(roles) = found.next().flatten() {
            return Err(ConnectError::Unfit(format!(
                "its login has rights that no grant can hold, by {roles}: give it a login that is no superuser and \
                 may not make roles, replicate, pass row security, or use the server's files and programs"
            )));
        }
        if let Some(roles) = found.next().flatten() {
            return Err(ConnectError::Unfit(format!(
                "its login can also become {roles}, so that its role would hold nobody: let it be a member of its role only"
            )));
        }
        if found.next().flatten().is_some() {
            return Err(ConnectError::Unfit("it is the database of a FlowStone, which no asset may reach".to_owned()));
        }
        if let Some(extensions) = found.next().flatten() {
            return Err(ConnectError::Unfit(format!(
                "its login may call functions of {extensions}, which lead out of the transaction: revoke that from it \
                 and from public"
            )));
        }
        if self.resource.access == Access::ReadWrite {
            let (row, _) = connection.run(RECORD, &[role]).await?;
            let state = row.into_iter().flatten().next().flatten();
            let needs = match state.as_deref() {
                None => return Ok(connection),
                Some("absent") => "it has no table public.flowstone_applied",
                Some("closed") => "its login may not select, insert and update in public.flowstone_applied",
                Some("uncounted") => {
                    "its track_counts is off, by which it is seen that no asset writes to public.flowstone_applied"
                }
                _ => "its role may write to public.flowstone_applied, and with it any asset",
            };
            return Err(ConnectError::Unfit(format!("{needs}: see docs/capabilities.md")));
        }
        Ok(connection)
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a connection as new and keeps it; or closes it.
    async fn keep(self: Arc<Self>, mut connection: Connection, permit: Option<OwnedSemaphorePermit>) {
        let reset = async {
            if connection.status() != Status::Idle {
                connection.run("rollback", &[]).await?;
            }
            connection.run("discard all", &[]).await?;
            let Ok(seed) = seed() else { return Ok(false) };
            connection.run(RESEED, &[Some(&seed)]).await?;
            Ok::<_, WireError>(connection.status() == Status::Idle)
        };
        let is_new = tokio::time::timeout(SQL_RESET_TIMEOUT, reset).await;
        if !matches!(is_new, Ok(Ok(true))) {
            tracing::debug!(database = ?self.address, "a connection cannot be used again");
            return;
        }
        self.lock_idle().push((connection, Instant::now()));
        drop(permit);
        tokio::time::sleep(SQL_IDLE_MAX + Duration::from_millis(1)).await;
        self.lock_idle().retain(|(_, since)| since.elapsed() < SQL_IDLE_MAX);
    }
}

/// A connection that is one attempt's until it is dropped: then it goes back, or is closed when an answer of it is
/// still under way.
pub struct Taken {
    connection: Option<Connection>,
    fresh: bool,
    pool: Arc<Pool>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Taken {
    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is there until it is dropped")
    }

    /// Whether it was made for this attempt: one that was idle may be closed by now.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Closes it, and has the server cancel what it does.
    pub fn close(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_busy()) {
            self.pool.runtime.spawn(self.pool.clone().keep(connection, self.permit.take()));
        }
    }
}
