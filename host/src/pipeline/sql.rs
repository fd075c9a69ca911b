//! Databases as resources: what an operator registers, what a grant leaves of it, and the URL that leads there.
//!
//! A URL with a password is never a value of the manifest's, so that no password is stored in clear: such a URL stays in
//! the environment of the processes that connect, or is a secret, under a name that the resource gives.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    quantity::{bytes_text, duration_text},
    resource::Access,
};

/// A Postgres database, and the most that any grant of it may allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlResource {
    /// Where its URL comes from.
    pub url: UrlSource,
    /// The role of every statement; the login's own when absent. Always there where grants may write.
    pub role: Option<String>,
    /// The schemas in which names without one are looked for, after `pg_catalog`.
    pub search_path: Vec<String>,
    /// The most that any grant may allow.
    pub access: Access,
    /// Certificates of the authorities to trust instead of the usual ones: a path relative to the manifest until it is deployed,
    /// PEM text from then on.
    pub ca: Option<String>,
    /// How long one statement may take.
    pub statement_timeout_ms: u64,
    /// Connections that one process has at a time.
    pub connections: u32,
}

/// Where the URL of a database comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UrlSource {
    /// It has no password and is in the manifest.
    Plain(String),
    /// This variable of each process that connects; its name begins with [`URL_VARIABLE_PREFIX`].
    Environment(String),
    /// This resource of the kind `secret`.
    Secret(String),
}

/// Variables that hold URLs of databases begin like this: a manifest cannot name any other.
pub const URL_VARIABLE_PREFIX: &str = "FLOWSTONE_SQL_";

/// An asset's right to one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlGrant {
    /// The resource's name.
    pub resource: String,
    /// What may be done.
    pub access: Access,
    /// Statements of one attempt.
    pub statements: u64,
    /// Rows that one attempt may read.
    pub rows: u64,
    /// Bytes of values that one attempt may move, in both directions.
    pub bytes: u64,
    /// How long one statement may take.
    pub statement_timeout_ms: u64,
}

impl SqlGrant {
    /// What it allows, in words.
    pub fn rights(&self) -> String {
        let (rows, bytes) = (self.rows, bytes_text(self.bytes));
        format!("{}, up to {} statements, {rows} rows, {bytes}", self.access.name(), self.statements)
    }

    /// What it allows beyond its resource.
    pub fn excess(&self, database: &SqlResource) -> Option<String> {
        if (database.access, self.access) == (Access::Read, Access::ReadWrite) {
            return Some("the resource may only be read".to_owned());
        }
        let longer = self.statement_timeout_ms > database.statement_timeout_ms;
        longer.then(|| {
            let allowed = duration_text(Duration::from_millis(database.statement_timeout_ms));
            format!("a statement may take longer than the resource's {allowed}")
        })
    }
}

/// A URL of a database, taken apart. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// The server.
    pub host: Host,
    /// Of the server, also where it is a socket.
    pub port: u16,
    /// The login.
    pub user: String,
    /// Of the login.
    pub password: Option<String>,
    /// The database.
    pub database: String,
    /// Whether the connection is encrypted and the server's certificate checked. Always so over a network, unless the
    /// URL says `sslmode=disable`.
    pub tls: bool,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Network(String),
    /// The folder of a unix socket.
    Socket(PathBuf),
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({:?}:{}/{})", self.host, self.port, self.database)
    }
}

/// The port of Postgres.
const PORT: u16 = 5432;

impl DatabaseUrl {
    /// Takes a URL apart: `postgres://user:password@host:port/database?sslmode=disable`, or with `?host=/folder&port=5433` for
    /// a socket. The mistake is one phrase, and quotes nothing of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not a URL")?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("does not begin with postgres://");
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 where it is decoded")?;
            // A string of the protocol ends at a NUL.
            if text.contains('\0') { Err("holds a NUL") } else { Ok(text.into_owned()) }
        };
        let mut host = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
        let mut user = decoded(url.username())?;
        let mut password = url.password().map(decoded).transpose()?;
        let (mut port, mut tls) = (url.port(), None);
        for (key, value) in url.query_pairs() {
            if value.contains('\0') {
                return Err("holds a NUL");
            }
            match (&*key, &*value) {
                ("host", _) => host = Some(value.into_owned()),
                ("port", number) => port = Some(number.parse().map_err(|_| "has a port that is none")?),
                ("user", _) => user = value.into_owned(),
                ("password", _) => password = Some(value.into_owned()),
                ("sslmode", "disable") => tls = Some(false),
                ("sslmode", "require" | "verify-ca" | "verify-full") => tls = Some(true),
                ("sslmode", _) => return Err("has an sslmode other than disable, require, verify-ca and verify-full"),
                _ => return Err("has a parameter other than host, port, user, password and sslmode"),
            }
        }
        let host = match host.ok_or("names no host")? {
            folder if folder.starts_with('/') => Host::Socket(folder.into()),
            name => Host::Network(name.trim_matches(['[', ']']).to_owned()),
        };
        let database = decoded(url.path().trim_start_matches('/'))?;
        if user.is_empty() {
            return Err("names no user");
        }
        if database.is_empty() {
            return Err("names no database");
        }
        let tls = tls.unwrap_or(matches!(host, Host::Network(_)));
        if tls && matches!(host, Host::Socket(_)) {
            return Err("asks for TLS over a socket");
        }
        Ok(Self { host, port: port.unwrap_or(PORT), user, password, database, tls })
    }
}

/// Why a name cannot be that of a role or a schema; `pg_catalog` and `pg_temp` have their fixed places in a path.
pub(super) fn identifier_mistake(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 63 || name.chars().any(|c| c.is_control()) {
        return Some("is not a name of Postgres: 1 to 63 bytes without control characters");
    }
    if name.starts_with("pg_") || name.starts_with('$') || name == "none" {
        return Some("is a name that Postgres keeps for itself");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = DatabaseUrl::parse("postgres://me:hunter%402@db.example:6432/shop").unwrap();
        assert_eq!((url.host, url.port), (Host::Network("db.example".into()), 6432));
        assert_eq!(
            (&*url.user, url.password.as_deref(), &*url.database, url.tls),
            ("me", Some("hunter@2"), "shop", true)
        );
        let url = DatabaseUrl::parse("postgresql:///shop?host=/run/pg&user=me&port=5433").unwrap();
        assert_eq!((url.host, url.port, url.tls), (Host::Socket("/run/pg".into()), 5433, false));
        let url = DatabaseUrl::parse("postgres://me@[::1]/shop?sslmode=disable").unwrap();
        assert_eq!((url.host, url.tls), (Host::Network("::1".into()), false));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_quoting_it() {
        let check = |text: &str, expected: &str| {
            let mistake = DatabaseUrl::parse(text).unwrap_err();
            assert_eq!(mistake, expected, "{text}");
        };
        check("db", "is not a URL");
        check("mysql://me@db/shop", "does not begin with postgres://");
        check("postgres://db/shop", "names no user");
        check("postgres://me@db", "names no database");
        check("postgres:///shop?user=me", "names no host");
        check(
            "postgres://me@db/shop?options=-crole%3Dadmin",
            "has a parameter other than host, port, user, password and sslmode",
        );
        check(
            "postgres://me@db/shop?sslmode=prefer",
            "has an sslmode other than disable, require, verify-ca and verify-full",
        );
        check("postgres://me%00@db/shop", "holds a NUL");
        check("postgres:///shop?host=/run&user=me&sslmode=require", "asks for TLS over a socket");
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = DatabaseUrl::parse("postgres://me:hunter2@db/shop").unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(Network(\"db\"):5432/shop)");
    }
}
