//! Every setting of a process: from flags, then from the environment, then by default, resolved once.
//!
//! Nothing else in the host reads the environment; what a part needs of it arrives by value. What a pipeline may do
//! is not a setting: that is in its manifest.
//!
//! | variable | flag | meaning | when absent |
//! |---|---|---|---|
//! | `FLOWSTONE_STATE` | `--state` | the state directory | `.flowstone` in the current directory |
//! | `DATABASE_URL` | none: it may hold a password, and command lines are public | a Postgres server; with `pooler=transaction` among its parameters, behind one that gives each transaction whichever session is free | an embedded one in the state directory |
//! | `FLOWSTONE_BLOBS` | `--blobs` | where outputs and components are: a directory, or `s3://bucket/prefix` | `blobs` in the state directory |
//! | `FLOWSTONE_BLOBS_PLAIN_HTTP` | `--blobs-plain-http` | `allow` or `refuse` that an object store elsewhere is asked without TLS | `refuse` |
//! | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | none: they are secrets | who asks an object store | `s3://` cannot be used |
//! | `AWS_SESSION_TOKEN` | none: it is a secret | of temporary credentials | the credentials are lasting ones |
//! | `AWS_REGION` | none | where the bucket is | `us-east-1` with `AWS_ENDPOINT_URL`; otherwise `s3://` cannot be used |
//! | `AWS_CA_BUNDLE` | none | a file of further authorities, in PEM, that an object store's certificate may come from | those that browsers trust |
//! | `AWS_ENDPOINT_URL` | none | of another service than AWS that speaks S3: its address | AWS |
//! | `FLOWSTONE_LOG` | `--log` | what is logged, as `tracing` filters are written | `warn` |
//! | `FLOWSTONE_LOG_FORMAT` | `--log-format` | `text` or `json` | `text` |
//! | `FLOWSTONE_CONCURRENCY` | `--concurrency` | guests that run at a time | one for each processor |
//! | `FLOWSTONE_MANIFEST_RESOURCES` | `--manifest-resources` | `allow` or `refuse` that a manifest declares resources | `allow` with the embedded database, `refuse` with a server |
//! | `FLOWSTONE_SEAL_KEY` | none: it is a secret | the key of sealed secrets, 64 hexadecimal digits | the file `seal.key` in the state directory |
//! | `FLOWSTONE_SECRET_*` | none: they are secrets | what resources of the kind `secret` may name | the resource cannot be used |
//! | `FLOWSTONE_QUEUES` | `--queue` | the queues to take jobs from, with commas between them | all |
//! | `FLOWSTONE_TAGS` | `--tag` | what this worker has that assets may ask for (`worker_tags`), with commas between them | nothing |
//! | `FLOWSTONE_GRACE` | `--grace` | how long guests may go on after a request to stop | `10s` |
//! | `FLOWSTONE_METRICS` | `--metrics` | where metrics and health are served: a loopback address and a port | they are not |
//! | `FLOWSTONE_KEEP_HISTORY` | `--keep-history` | how long runs, jobs, attempts and logs are kept after a run's end: `90d`, or `forever` | `30d` |
//! | `FLOWSTONE_KEEP_AUDIT` | `--keep-audit` | how long the audit is kept | `forever` |
//! | `FLOWSTONE_KEEP_MATERIALIZATIONS` | `--keep-materializations` | of how many materializations of each partition the bytes are kept, the newest ones | `forever` |
//! | `FLOWSTONE_KEEP_UNNAMED` | `--keep-unnamed` | how long blobs are left alone that nothing names | `25h` |
//! | `FLOWSTONE_OTLP` | `--otlp` | the URL of an OpenTelemetry collector, to which traces go | no traces |
//! | `FLOWSTONE_SQL_...` | none, for the same reason | the URL of a database that a manifest names by this variable | such a database cannot be used |
//! | `NO_COLOR` | none | not empty: no colours | colours on a terminal |

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;

use url::Url;
use zeroize::Zeroizing;

use crate::{
    blob::{BlobPlace, EndpointMistake, S3Credentials, S3Settings},
    capability::sql::DatabaseUrls,
    collector::Keep,
    limit::{
        CONCURRENCY_MAX, KEEP_DAYS_MAX, KEEP_HISTORY_DAYS, KEEP_MATERIALIZATIONS_MAX, KEEP_UNNAMED, STOP_GRACE,
        STOP_GRACE_MAX,
    },
    pipeline::{
        definition::name_mistake,
        quantity::{duration_text, parse_duration_ms},
        sql::URL_VARIABLE_PREFIX,
    },
    secret::{SECRET_VARIABLE_PREFIX, SealError, SealKey, SecretSources, SecretValue},
    store::Sessions,
};

/// Flags of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct GlobalFlags {
    /// Where FlowStone keeps what it knows, unless a server does.
    #[arg(long, global = true, env = "FLOWSTONE_STATE", value_name = "DIR", default_value = ".flowstone")]
    pub state: PathBuf,
    /// Where outputs and components are kept: a directory, or s3://bucket/prefix
    /// [default: `blobs` in the state directory].
    #[arg(long, global = true, env = "FLOWSTONE_BLOBS", value_name = "PLACE")]
    pub blobs: Option<PathBuf>,
    /// Whether an object store that is not on this machine may be asked without TLS [default: refuse].
    #[arg(long, global = true, env = "FLOWSTONE_BLOBS_PLAIN_HTTP", value_name = "ANSWER", value_enum)]
    pub blobs_plain_http: Option<Answer>,
    /// Whether a manifest may declare resources, or only grant what an operator registered
    /// [default: allow with the embedded database, refuse with a server].
    #[arg(long, global = true, env = "FLOWSTONE_MANIFEST_RESOURCES", value_name = "ANSWER", value_enum)]
    pub manifest_resources: Option<Answer>,
    /// What is logged to stderr, for example `info` or `warn,flowstone::runner=debug`.
    #[arg(long, global = true, env = "FLOWSTONE_LOG", value_name = "FILTER", default_value = "warn")]
    pub log: String,
    /// How it is written.
    #[arg(long, global = true, env = "FLOWSTONE_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Flags of the commands that run guests.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerFlags {
    /// Guests that run at a time [default: one for each processor].
    #[arg(long, short = 'j', env = "FLOWSTONE_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,
    /// Take jobs only from these queues [default: from all].
    #[arg(long = "queue", env = "FLOWSTONE_QUEUES", value_name = "QUEUE", value_delimiter = ',', value_parser = queue)]
    pub queues: Vec<String>,
    /// Take also jobs that ask for workers with these tags.
    #[arg(long = "tag", env = "FLOWSTONE_TAGS", value_name = "TAG", value_delimiter = ',', value_parser = tag)]
    pub tags: Vec<String>,
    /// How long guests may go on after a request to stop, such as 500ms or 2m [default: 10s].
    #[arg(long, env = "FLOWSTONE_GRACE", value_name = "DURATION", value_parser = grace)]
    pub grace: Option<Duration>,
    /// Serve metrics and health here, for example 127.0.0.1:9464; port 0 takes a free one [default: nowhere].
    #[arg(long, env = "FLOWSTONE_METRICS", value_name = "ADDRESS", value_parser = loopback)]
    pub metrics: Option<SocketAddr>,
    /// Send traces to this OpenTelemetry collector, for example http://127.0.0.1:4318 [default: nowhere].
    #[arg(long, env = "FLOWSTONE_OTLP", value_name = "URL", value_parser = collector)]
    pub otlp: Option<Collector>,
}

/// Flags of the commands that collect what is old.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepFlags {
    /// Keep runs, jobs, attempts and logs so long after a run's end: whole days, such as 90d, or forever [default: 30d].
    #[arg(long, env = "FLOWSTONE_KEEP_HISTORY", value_name = "DAYS", value_parser = keep_days)]
    pub keep_history: Option<KeepDays>,
    /// Keep the audit so long [default: forever].
    #[arg(long, env = "FLOWSTONE_KEEP_AUDIT", value_name = "DAYS", value_parser = keep_days)]
    pub keep_audit: Option<KeepDays>,
    /// Keep the bytes of so many materializations of each partition, the newest ones, such as 5, or forever
    /// [default: forever].
    #[arg(long, env = "FLOWSTONE_KEEP_MATERIALIZATIONS", value_name = "COUNT", value_parser = keep_materializations)]
    pub keep_materializations: Option<KeepNewest>,
    /// Leave blobs alone that nothing names for so long, such as 25h [default: 25h].
    #[arg(long, env = "FLOWSTONE_KEEP_UNNAMED", value_name = "DURATION", value_parser = keep_unnamed)]
    pub keep_unnamed: Option<Duration>,
}

impl KeepFlags {
    /// How long what is kept.
    pub fn keep(&self) -> Keep {
        Keep {
            history_days: self.keep_history.map_or(Some(KEEP_HISTORY_DAYS), |days| days.0),
            audit_days: self.keep_audit.and_then(|days| days.0),
            materializations: self.keep_materializations.and_then(|newest| newest.0),
            unnamed: self.keep_unnamed.unwrap_or(KEEP_UNNAMED),
        }
    }
}

/// So many of each; none is all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepNewest(Option<u32>);

fn keep_materializations(text: &str) -> Result<KeepNewest, String> {
    if text == "forever" {
        return Ok(KeepNewest(None));
    }
    let newest = text.parse().ok().filter(|newest| (1..=KEEP_MATERIALIZATIONS_MAX).contains(newest));
    newest
        .map(|newest| KeepNewest(Some(newest)))
        .ok_or_else(|| format!("not a number from 1 up to {KEEP_MATERIALIZATIONS_MAX}, and not forever"))
}

/// Whole days; none is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepDays(Option<u32>);

fn keep_days(text: &str) -> Result<KeepDays, String> {
    if text == "forever" {
        return Ok(KeepDays(None));
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    let days = days.filter(|days| (1..=KEEP_DAYS_MAX).contains(days));
    days.map(|days| KeepDays(Some(days)))
        .ok_or_else(|| format!("not whole days such as 90d, from 1d up to {KEEP_DAYS_MAX}d, and not forever"))
}

fn keep_unnamed(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration_ms(text).map(Duration::from_millis);
    let longest = Duration::from_secs(u64::from(KEEP_DAYS_MAX) * 24 * 3600);
    parsed.filter(|kept| *kept <= longest).ok_or_else(|| "not a duration such as 0s, 30m or 25h".to_owned())
}

/// Where an OpenTelemetry collector takes spans, over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(Url);

impl Collector {
    /// A name or an address.
    pub fn host(&self) -> &str {
        // An address of IPv6 is in brackets there.
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// 80 unless the URL says otherwise.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// As in the header `host`.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Of spans.
    pub fn path(&self) -> String {
        format!("{}/v1/traces", self.0.path().trim_end_matches('/'))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path())
    }
}

/// The base, as OpenTelemetry's variables have it: signals have paths of their own below it.
fn collector(text: &str) -> Result<Collector, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL such as http://127.0.0.1:4318: {error}"))?;
    if url.scheme() != "http" {
        return Err("traces are sent over plain http: name a collector on this machine or network, such as \
             http://127.0.0.1:4318, and let it send them on with TLS"
            .to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "only a host, a port and a path, such as http://127.0.0.1:4318: the collector keeps credentials".to_owned()
        );
    }
    Ok(Collector(url))
}

impl WorkerFlags {
    /// At least 1, at most [`CONCURRENCY_MAX`].
    pub fn concurrency(&self) -> usize {
        let processors = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.concurrency.unwrap_or_else(processors).get().min(CONCURRENCY_MAX)
    }

    /// At most [`STOP_GRACE_MAX`].
    pub fn grace(&self) -> Duration {
        self.grace.unwrap_or(STOP_GRACE)
    }
}

fn queue(text: &str) -> Result<String, String> {
    named("a queue", text)
}

fn tag(text: &str) -> Result<String, String> {
    named("a tag", text)
}

fn named(what: &str, text: &str) -> Result<String, String> {
    name_mistake(what, text).map_or_else(|| Ok(text.to_owned()), Err)
}

fn grace(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration_ms(text).map(Duration::from_millis).filter(|grace| *grace <= STOP_GRACE_MAX);
    parsed.ok_or_else(|| format!("not a duration such as 500ms, 10s or 2m, up to {}", duration_text(STOP_GRACE_MAX)))
}

/// Nothing listens where other machines can reach it: who may, and over what, is for a proxy that was made for that.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err("not an address and a port of this machine, such as 127.0.0.1:9464 or [::1]:9464".to_owned());
    };
    if !address.ip().to_canonical().is_loopback() {
        let port = address.port();
        return Err(format!(
            "other machines could reach it: take 127.0.0.1:{port} or [::1]:{port}, and let a proxy with access rules of \
             its own, or an agent on this machine, pass it on"
        ));
    }
    Ok(address)
}

/// To something that may be done or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Answer {
    /// It may.
    Allow,
    /// It may not.
    Refuse,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Where runs, results and lineage are recorded.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Database {
    /// In a private cluster in the state directory.
    Embedded,
    /// On the server of `DATABASE_URL`, directly or through a pooler.
    Server(PgConnectOptions, Sessions),
}

/// Never shows a password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("Embedded"),
            Self::Server(server, _) => write!(f, "Server({}:{})", server.get_host(), server.get_port()),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// As `tracing` filters are written.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// Where this process finds secrets, and the key that opens sealed ones.
#[derive(Clone, Debug)]
pub struct SecretSettings {
    variables: BTreeMap<String, SecretValue>,
    seal_key: Option<SealKey>,
    seal_key_file: PathBuf,
}

impl SecretSettings {
    /// What there is of it now: the key's file is read when it is needed, because another command may have made it.
    pub fn sources(&self) -> Result<SecretSources, SettingError> {
        let seal_key = match &self.seal_key {
            Some(key) => Some(key.clone()),
            None => read_seal_key(&self.seal_key_file)?,
        };
        Ok(SecretSources { variables: self.variables.clone(), seal_key })
    }

    /// The key to seal with; a new one, in the state directory and for its owner alone, if there is none yet.
    pub fn seal_key(&self) -> Result<SealKey, SettingError> {
        if let Some(key) = self.sources()?.seal_key {
            return Ok(key);
        }
        let refused = |source: io::Error| SettingError::SealKeyFile { path: self.seal_key_file.clone(), source };
        let key = SealKey::random().map_err(|error| refused(io::Error::other(error)))?;
        let folder = self.seal_key_file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(refused)?;
        // Whole or not at all, and never in place of one that another process made meanwhile: that one seals already.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(refused)?;
        io::Write::write_all(&mut file, key.to_hex().as_bytes()).map_err(refused)?;
        file.as_file().sync_all().map_err(refused)?;
        match file.persist_noclobber(&self.seal_key_file) {
            Ok(_) => Ok(key),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let made = read_seal_key(&self.seal_key_file)?;
                made.ok_or_else(|| refused(io::ErrorKind::NotFound.into()))
            }
            Err(error) => Err(refused(error.error)),
        }
    }
}

fn read_seal_key(path: &Path) -> Result<Option<SealKey>, SettingError> {
    let refused = |source: io::Error| SettingError::SealKeyFile { path: path.to_owned(), source };
    let text = match std::fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let key = SealKey::from_hex(&Zeroizing::new(String::from_utf8_lossy(&text).into_owned()));
    key.map(Some).map_err(|error| refused(io::Error::other(error)))
}

/// What a process goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Absolute. It need not exist.
    pub state_dir: PathBuf,
    /// Where rows go.
    pub database: Database,
    /// Where the databases are that manifests name by variables.
    pub database_urls: DatabaseUrls,
    /// Where bytes go.
    pub blobs: BlobPlace,
    /// Whether a manifest may declare resources.
    pub manifest_resources: bool,
    /// Where secrets are.
    pub secrets: SecretSettings,
    /// What is logged.
    pub log: LogSettings,
    /// Whether colours may be used where a terminal shows them.
    pub colors: bool,
    /// What is odd in the environment, as sentences, to be logged when there is a log.
    pub warnings: Vec<String>,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// `DATABASE_URL`, whose value is not shown.
    #[error("DATABASE_URL is not the URL of a Postgres database (postgres://user:password@host/database)")]
    DatabaseUrl {
        /// What is wrong with it.
        source: sqlx::Error,
    },
    /// A parameter of `DATABASE_URL` with another value than there is.
    #[error("`pooler` in DATABASE_URL is `pooler=transaction`, or it is left out")]
    Pooler,
    /// `FLOWSTONE_SEAL_KEY`, whose value is not shown.
    #[error("FLOWSTONE_SEAL_KEY is no key")]
    SealKey {
        /// What is wrong with it.
        source: SealError,
    },
    /// The file of the seal key.
    #[error("the seal key at {path:?} cannot be used")]
    SealKeyFile {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A place for blobs that is none.
    #[error("blobs are kept in a directory or in s3://bucket/prefix; {value} is neither")]
    Blobs {
        /// What was given.
        value: String,
    },
    /// An object store without somebody to ask it, or something that it needs to be found.
    #[error("{variable} is not set, and blobs in s3:// need it")]
    ObjectStoreNeeds {
        /// What is missing.
        variable: &'static str,
    },
    /// The file of `AWS_CA_BUNDLE`.
    #[error("AWS_CA_BUNDLE is {path:?}, which cannot be read")]
    Authorities {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `AWS_ENDPOINT_URL`, whose value is not shown: it may hold a password.
    #[error("AWS_ENDPOINT_URL cannot be used")]
    Endpoint {
        /// What is wrong with it.
        source: EndpointMistake,
    },
    /// The current directory is gone, or a path is empty.
    #[error("{path:?} cannot be made an absolute path")]
    Path {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A log filter with a mistake.
    #[error("{filter:?} is not a log filter (examples: info; warn,flowstone::runner=debug)")]
    LogFilter {
        /// What was given.
        filter: String,
        /// Where it is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
}

impl Settings {
    /// From the flags and this process' environment.
    pub fn resolve(flags: &GlobalFlags) -> Result<Self, SettingError> {
        Self::resolve_in(flags, &std::env::vars_os().collect::<Vec<_>>())
    }

    fn resolve_in(flags: &GlobalFlags, environment: &[(OsString, OsString)]) -> Result<Self, SettingError> {
        let state_dir = absolute(&flags.state)?;
        let blobs = match &flags.blobs {
            Some(blobs) => blob_place(blobs, flags.blobs_plain_http == Some(Answer::Allow), environment)?,
            None => BlobPlace::Directory(state_dir.join("blobs")),
        };
        let log = LogSettings { filter: flags.log.clone(), format: flags.log_format };
        let database = database(find(environment, "DATABASE_URL"))?;
        let manifest_resources = match flags.manifest_resources {
            Some(answer) => answer == Answer::Allow,
            None => matches!(database, Database::Embedded),
        };
        Ok(Self {
            manifest_resources,
            secrets: secrets(environment, &state_dir)?,
            state_dir,
            database,
            database_urls: database_urls(environment),
            blobs,
            log,
            colors: find(environment, "NO_COLOR").is_none(),
            warnings: unknown_variables(environment),
        })
    }
}

/// A variable; an empty one counts as absent, as `X= command` is how one is left out.
fn find<'e>(environment: &'e [(OsString, OsString)], name: &str) -> Option<&'e OsStr> {
    environment.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value.as_os_str())
}

fn secrets(environment: &[(OsString, OsString)], state_dir: &Path) -> Result<SecretSettings, SettingError> {
    let key = find(environment, "FLOWSTONE_SEAL_KEY").map(|key| SealKey::from_hex(&key.to_string_lossy()));
    let variables = environment.iter().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with(SECRET_VARIABLE_PREFIX))?;
        Some((name.to_owned(), SecretValue::new(value.as_encoded_bytes().to_vec())))
    });
    Ok(SecretSettings {
        variables: variables.collect(),
        seal_key: key.transpose().map_err(|source| SettingError::SealKey { source })?,
        seal_key_file: state_dir.join("seal.key"),
    })
}

fn database(url: Option<&OsStr>) -> Result<Database, SettingError> {
    let Some(url) = url else { return Ok(Database::Embedded) };
    let url = url.to_string_lossy();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let source = sqlx::Error::Configuration("it does not begin with postgres://".into());
        return Err(SettingError::DatabaseUrl { source });
    }
    let (url, sessions) = sessions(&url)?;
    let options: PgConnectOptions = url.parse().map_err(|source| SettingError::DatabaseUrl { source })?;
    Ok(Database::Server(options.application_name("flowstone"), sessions))
}

/// The parameter that is ours, and the URL without it.
fn sessions(url: &str) -> Result<(String, Sessions), SettingError> {
    const POOLER: &str = "pooler=";
    let Some((place, parameters)) = url.split_once('?') else { return Ok((url.to_owned(), Sessions::Own)) };
    let (ours, others): (Vec<&str>, Vec<&str>) =
        parameters.split('&').partition(|parameter| parameter.starts_with(POOLER));
    let sessions = match ours[..] {
        [] => Sessions::Own,
        ["pooler=transaction"] => Sessions::Shared,
        _ => return Err(SettingError::Pooler),
    };
    Ok((format!("{place}?{}", others.join("&")), sessions))
}

/// URLs that only their resource says what to do with; one that is no text is none.
fn database_urls(environment: &[(OsString, OsString)]) -> DatabaseUrls {
    let named = |(name, value): &(OsString, OsString)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()));
    let urls = environment.iter().filter_map(named);
    urls.filter(|(name, value)| name.starts_with(URL_VARIABLE_PREFIX) && !value.is_empty()).collect()
}

/// Object stores are written like URLs; a directory of such a name would be a surprise.
fn blob_place(path: &Path, plain_http: bool, environment: &[(OsString, OsString)]) -> Result<BlobPlace, SettingError> {
    let value = path.to_string_lossy();
    if !value.contains("://") {
        return absolute(path).map(BlobPlace::Directory);
    }
    let place = value.strip_prefix("s3://").and_then(S3Settings::parse_place);
    let (bucket, prefix) = place.ok_or_else(|| SettingError::Blobs { value: value.clone().into_owned() })?;
    let secret = |name| find(environment, name).map(|value| SecretValue::new(value.as_encoded_bytes().to_vec()));
    let needed = |variable| secret(variable).ok_or(SettingError::ObjectStoreNeeds { variable });
    let endpoint = find(environment, "AWS_ENDPOINT_URL")
        .map(|url| S3Settings::parse_endpoint(&url.to_string_lossy(), plain_http))
        .transpose()
        .map_err(|source| SettingError::Endpoint { source })?;
    let region = match (find(environment, "AWS_REGION"), &endpoint) {
        (Some(region), _) => region.to_string_lossy().into_owned(),
        // Other services than AWS have no regions, and take this one for granted.
        (None, Some(_)) => "us-east-1".to_owned(),
        (None, None) => return Err(SettingError::ObjectStoreNeeds { variable: "AWS_REGION" }),
    };
    let authorities = match find(environment, "AWS_CA_BUNDLE").map(PathBuf::from) {
        Some(path) => std::fs::read_to_string(&path).map_err(|source| SettingError::Authorities { path, source })?,
        None => String::new(),
    };
    let credentials = S3Credentials {
        access_key_id: needed("AWS_ACCESS_KEY_ID")?,
        secret_access_key: needed("AWS_SECRET_ACCESS_KEY")?,
        session_token: secret("AWS_SESSION_TOKEN"),
    };
    Ok(BlobPlace::S3(S3Settings { bucket, prefix, endpoint, authorities, region, credentials }))
}

fn absolute(path: &Path) -> Result<PathBuf, SettingError> {
    std::path::absolute(path).map_err(|source| SettingError::Path { path: path.to_owned(), source })
}

/// Those of flags, in the order of the flags.
const VARIABLES: [&str; 16] = [
    "FLOWSTONE_STATE",
    "FLOWSTONE_BLOBS",
    "FLOWSTONE_BLOBS_PLAIN_HTTP",
    "FLOWSTONE_MANIFEST_RESOURCES",
    "FLOWSTONE_LOG",
    "FLOWSTONE_LOG_FORMAT",
    "FLOWSTONE_CONCURRENCY",
    "FLOWSTONE_QUEUES",
    "FLOWSTONE_TAGS",
    "FLOWSTONE_GRACE",
    "FLOWSTONE_METRICS",
    "FLOWSTONE_OTLP",
    "FLOWSTONE_KEEP_HISTORY",
    "FLOWSTONE_KEEP_AUDIT",
    "FLOWSTONE_KEEP_MATERIALIZATIONS",
    "FLOWSTONE_KEEP_UNNAMED",
];

/// Without a flag, because they are secrets.
const SECRET_VARIABLES: [&str; 1] = ["FLOWSTONE_SEAL_KEY"];

/// A misspelt variable would silently change nothing.
fn unknown_variables(environment: &[(OsString, OsString)]) -> Vec<String> {
    let unknown = environment
        .iter()
        .map(|(name, _)| name.to_string_lossy())
        .filter(|name| name.starts_with("FLOWSTONE_") && !name.starts_with(SECRET_VARIABLE_PREFIX))
        .filter(|name| !name.starts_with(URL_VARIABLE_PREFIX))
        .filter(|name| !VARIABLES.contains(&name.as_ref()) && !SECRET_VARIABLES.contains(&name.as_ref()));
    let mut warnings: Vec<String> = unknown
        .map(|name| {
            match VARIABLES.iter().chain(&SECRET_VARIABLES).min_by_key(|known| strsim::levenshtein(known, &name)) {
                Some(known) if strsim::levenshtein(known, &name) <= 3 => {
                    format!("the variable {name} means nothing to FlowStone: did you mean {known}?")
                }
                _ => format!("the variable {name} means nothing to FlowStone"),
            }
        })
        .collect();
    warnings.sort();
    warnings
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        global: GlobalFlags,
        #[command(flatten)]
        worker: WorkerFlags,
        #[command(flatten)]
        keep: KeepFlags,
    }

    fn parse(arguments: &[&str]) -> Command {
        Command::try_parse_from([&["flowstone"], arguments].concat()).unwrap()
    }

    fn resolve(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Settings::resolve_in(&parse(arguments).global, &environment)
    }

    #[test]
    fn without_settings_everything_is_in_the_state_directory_of_the_current_one() {
        let settings = resolve(&[], &[]).unwrap();
        assert_eq!(settings.state_dir, std::env::current_dir().unwrap().join(".flowstone"));
        let BlobPlace::Directory(blobs) = &settings.blobs else { panic!("{settings:?}") };
        assert_eq!(*blobs, settings.state_dir.join("blobs"));
        assert!(matches!(settings.database, Database::Embedded));
        assert_eq!(settings.log, LogSettings { filter: "warn".to_owned(), format: LogFormat::Text });
        assert!(settings.colors);
    }

    #[test]
    fn each_flag_reaches_its_setting() {
        let settings =
            resolve(&["--state", "/s", "--blobs", "/b", "--log", "info", "--log-format", "json"], &[]).unwrap();
        assert_eq!(settings.state_dir, Path::new("/s"));
        assert!(matches!(&settings.blobs, BlobPlace::Directory(blobs) if blobs == Path::new("/b")));
        assert_eq!(settings.log, LogSettings { filter: "info".to_owned(), format: LogFormat::Json });
        assert_eq!(parse(&["-j", "3"]).worker.concurrency(), 3);
        assert_eq!(parse(&["--concurrency", "1000000"]).worker.concurrency(), CONCURRENCY_MAX);
        assert!(parse(&[]).worker.concurrency() >= 1);
        assert!(Command::try_parse_from(["flowstone", "-j", "0"]).is_err());
    }

    #[test]
    fn the_grace_is_a_duration_of_at_most_a_day() {
        assert_eq!(parse(&[]).worker.grace(), STOP_GRACE);
        for (text, expected) in [("0s", 0), ("250ms", 250), ("1m30s", 90_000), ("1d", 86_400_000)] {
            assert_eq!(parse(&["--grace", text]).worker.grace(), Duration::from_millis(expected));
        }
        for text in ["", "10", "-1s", "1d1ms", "soon"] {
            let error = Command::try_parse_from(["flowstone", &format!("--grace={text}")]).err().unwrap();
            assert!(text.is_empty() || error.to_string().contains("such as 500ms, 10s or 2m, up to 1d"), "{error}");
        }
    }

    #[test]
    fn what_is_kept_is_said_in_days_and_by_default_history_goes_and_audit_stays() {
        let keep = |arguments: &[&str]| parse(arguments).keep.keep();
        let usual = Keep {
            history_days: Some(30),
            audit_days: None,
            materializations: None,
            unnamed: Duration::from_secs(25 * 3600),
        };
        assert_eq!(keep(&[]), usual);
        assert_eq!(keep(&["--keep-history", "forever"]), Keep { history_days: None, ..usual });
        assert_eq!(keep(&["--keep-history=90d", "--keep-audit=400d"]).audit_days, Some(400));
        assert_eq!(keep(&["--keep-unnamed", "0s"]).unnamed, Duration::ZERO);
        for text in ["0d", "30", "12h", "1d12h", "never", "-1d", "36501d", ""] {
            let error = Command::try_parse_from(["flowstone", &format!("--keep-history={text}")]).err().unwrap();
            assert!(text.is_empty() || error.to_string().contains("such as 90d"), "{error}");
        }
        assert!(Command::try_parse_from(["flowstone", "--keep-unnamed=soon"]).is_err());
    }

    #[test]
    fn metrics_are_served_where_no_other_machine_can_reach_them() {
        assert_eq!(parse(&[]).worker.metrics, None);
        for address in ["127.0.0.1:9464", "127.3.2.1:0", "[::1]:9464"] {
            assert_eq!(parse(&["--metrics", address]).worker.metrics.unwrap().to_string(), address);
        }
        let refused = |address: &str| {
            let command = Command::try_parse_from(["flowstone", &format!("--metrics={address}")]);
            command.err().unwrap().to_string()
        };
        for address in ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[::ffff:10.0.0.1]:9464", "192.0.2.1:9464"] {
            let error = refused(address);
            assert!(error.contains("take 127.0.0.1:9464 or [::1]:9464"), "{error}");
        }
        for address in ["9464", "localhost:9464", "127.0.0.1", "127.0.0.1:65536", ":9464"] {
            assert!(refused(address).contains("such as 127.0.0.1:9464"), "{address}");
        }
    }

    #[test]
    fn a_collector_is_a_base_over_plain_http() {
        let given = |url: &str| Command::try_parse_from(["flowstone", &format!("--otlp={url}")]);
        for (url, host, port, whole) in [
            ("http://127.0.0.1:4318", "127.0.0.1", 4318, "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "::1", 4318, "http://[::1]:4318/v1/traces"),
            ("http://collector/base/", "collector", 80, "http://collector/base/v1/traces"),
        ] {
            let collector = given(url).unwrap().worker.otlp.unwrap();
            assert_eq!((collector.host(), collector.port(), &*collector.to_string()), (host, port, whole));
        }
        for (url, why) in [
            ("https://127.0.0.1:4318", "over plain http"),
            ("grpc://127.0.0.1:4317", "over plain http"),
            ("127.0.0.1:4318", "not a URL"),
            ("http://me:hunter2@127.0.0.1:4318", "the collector keeps credentials"),
            ("http://127.0.0.1:4318?key=1", "the collector keeps credentials"),
        ] {
            let error = given(url).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn each_flag_has_its_variable() {
        let command = <Command as clap::CommandFactory>::command();
        let variables: Vec<_> = command.get_arguments().filter_map(|flag| flag.get_env()?.to_str()).collect();
        assert_eq!(variables, VARIABLES);
    }

    #[test]
    fn a_server_is_used_when_its_url_is_given_and_its_password_is_not_shown() {
        let settings = resolve(&[], &[("DATABASE_URL", "postgres://me:hunter2@db:6432/flow")]).unwrap();
        let Database::Server(server, Sessions::Own) = &settings.database else { panic!("{settings:?}") };
        assert_eq!((server.get_host(), server.get_port(), server.get_database()), ("db", 6432, Some("flow")));
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(matches!(resolve(&[], &[("DATABASE_URL", "")]).unwrap().database, Database::Embedded));
        for url in ["mysql://db/flow", "db", "postgres://db:port/flow"] {
            let error = resolve(&[], &[("DATABASE_URL", url)]).unwrap_err();
            assert!(error.to_string().contains("DATABASE_URL"), "{error}");
        }
    }

    #[test]
    fn a_pooler_is_said_in_the_url_and_nothing_else_of_the_url_is_lost() {
        let of = |url: &str| resolve(&[], &[("DATABASE_URL", url)]).map(|settings| settings.database);
        for url in ["postgres://db/flow?pooler=transaction", "postgres://db/flow?pooler=transaction&user=me"] {
            assert!(matches!(of(url), Ok(Database::Server(_, Sessions::Shared))), "{url}");
        }
        let Ok(Database::Server(server, Sessions::Shared)) =
            of("postgres:///flow?host=/run&pooler=transaction&user=me")
        else {
            panic!("it is a URL")
        };
        assert_eq!(server.get_socket().map(|path| path.as_path()), Some(Path::new("/run")));
        assert_eq!((server.get_username(), server.get_database()), ("me", Some("flow")));
        for url in ["postgres://db/flow?pooler=session", "postgres://db/flow?pooler=transaction&pooler=transaction"] {
            assert!(of(url).unwrap_err().to_string().contains("pooler=transaction"), "{url}");
        }
    }

    #[test]
    fn urls_of_databases_are_kept_by_their_variable_and_never_shown() {
        let environment = [("FLOWSTONE_SQL_SHOP", "postgres://me:hunter2@db/shop"), ("FLOWSTONE_SQL_NONE", "")];
        let settings = resolve(&[], &environment).unwrap();
        let url = ("FLOWSTONE_SQL_SHOP".to_owned(), "postgres://me:hunter2@db/shop".to_owned());
        assert_eq!(settings.database_urls, [url].into_iter().collect());
        assert_eq!(format!("{:?}", settings.database_urls), r#"{"FLOWSTONE_SQL_SHOP"}"#);
        assert!(settings.warnings.is_empty() && !format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn an_unknown_object_store_is_refused_rather_than_made_a_directory() {
        for place in ["gs://bucket", "s3://", "s3://bucket/../other", "S3://bucket"] {
            let error = resolve(&["--blobs", place], &[]).unwrap_err().to_string();
            assert_eq!(error, format!("blobs are kept in a directory or in s3://bucket/prefix; {place} is neither"));
        }
    }

    #[test]
    fn an_object_store_takes_who_asks_from_the_environment_and_shows_nothing_of_it() {
        let full = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AWS_SESSION_TOKEN", "t0k3n"),
            ("AWS_REGION", "eu-central-1"),
        ];
        let arguments = ["--blobs", "s3://bucket/flow/stone"];
        let settings = resolve(&arguments, &full).unwrap();
        let BlobPlace::S3(s3) = &settings.blobs else { panic!("{settings:?}") };
        assert_eq!(
            (s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()),
            ("bucket", "flow/stone", "eu-central-1")
        );
        assert_eq!(s3.endpoint, None);
        let S3Credentials { access_key_id, secret_access_key, session_token } = &s3.credentials;
        assert_eq!((access_key_id.expose(), secret_access_key.expose()), (&b"AKIDEXAMPLE"[..], &b"hunter2"[..]));
        assert_eq!(session_token.as_ref().unwrap().expose(), b"t0k3n");
        let shown = format!("{settings:?}");
        assert!(!["AKIDEXAMPLE", "hunter2", "t0k3n"].iter().any(|secret| shown.contains(secret)), "{shown}");

        for needed in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
            let without = full.iter().map(|(name, value)| (*name, if *name == needed { "" } else { value }));
            let error = resolve(&arguments, &without.collect::<Vec<_>>()).unwrap_err().to_string();
            assert_eq!(error, format!("{needed} is not set, and blobs in s3:// need it"));
        }
        assert!(resolve(&[], &[]).is_ok(), "a directory needs none of it");
    }

    #[test]
    fn an_object_store_elsewhere_is_asked_without_tls_only_when_it_is_allowed() {
        let environment = |url| [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", url)];
        let asked = |more: &[&str], url| resolve(&[&["--blobs", "s3://bucket"], more].concat(), &environment(url));
        let settings = asked(&[], "http://127.0.0.1:9000").unwrap();
        assert!(matches!(&settings.blobs, BlobPlace::S3(s3) if s3.region == "us-east-1"));
        let error = asked(&[], "http://me:hunter2@store:9000").unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        let error = asked(&[], "http://store:9000").unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("--blobs-plain-http allow"));
        assert!(asked(&["--blobs-plain-http", "refuse"], "http://store:9000").is_err());
        assert!(asked(&["--blobs-plain-http", "allow"], "http://store:9000").is_ok());
    }

    #[test]
    fn colours_can_be_refused() {
        assert!(!resolve(&[], &[("NO_COLOR", "1")]).unwrap().colors);
        assert!(resolve(&[], &[("NO_COLOR", "")]).unwrap().colors);
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_one_that_was_meant() {
        let environment =
            [("FLOWSTONE_BLOB", "x"), ("FLOWSTONE_STATE", "x"), ("FLOWSTONE_ANYTHING_ELSE", "x"), ("HOME", "x")];
        assert_eq!(
            resolve(&[], &environment).unwrap().warnings,
            [
                "the variable FLOWSTONE_ANYTHING_ELSE means nothing to FlowStone",
                "the variable FLOWSTONE_BLOB means nothing to FlowStone: did you mean FLOWSTONE_BLOBS?",
            ]
        );
    }

    #[test]
    fn on_a_server_resources_are_the_operators_unless_it_is_said_otherwise() {
        let server = [("DATABASE_URL", "postgres://db/flow")];
        assert!(resolve(&[], &[]).unwrap().manifest_resources);
        assert!(!resolve(&[], &server).unwrap().manifest_resources);
        assert!(resolve(&["--manifest-resources", "allow"], &server).unwrap().manifest_resources);
        assert!(!resolve(&["--manifest-resources", "refuse"], &[]).unwrap().manifest_resources);
    }

    #[test]
    fn secrets_are_the_variables_of_their_prefix_and_are_not_shown() {
        let environment = [("FLOWSTONE_SECRET_TOKEN", "hunter2"), ("HOME", "/root"), ("DATABASE_URL", "")];
        let settings = resolve(&[], &environment).unwrap();
        assert_eq!(settings.warnings, [] as [&str; 0]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let variables = settings.secrets.sources().unwrap().variables;
        assert_eq!(variables.keys().collect::<Vec<_>>(), ["FLOWSTONE_SECRET_TOKEN"]);
        assert_eq!(variables["FLOWSTONE_SECRET_TOKEN"].expose(), b"hunter2");
    }

    #[test]
    fn the_seal_key_is_made_once_for_its_owner_alone_and_a_given_one_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let arguments = ["--state", state.to_str().unwrap()];
        let secrets = resolve(&arguments, &[]).unwrap().secrets;
        assert!(secrets.sources().unwrap().seal_key.is_none());
        let made = secrets.seal_key().unwrap();
        assert_eq!(secrets.seal_key().unwrap().id(), made.id());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(state.join("seal.key")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let given = SealKey::random().unwrap();
        let environment = [("FLOWSTONE_SEAL_KEY", given.to_hex().to_string())];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(resolve(&arguments, &environment).unwrap().secrets.seal_key().unwrap().id(), given.id());
        let error = resolve(&arguments, &[("FLOWSTONE_SEAL_KEY", "hunter2")]).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
        std::fs::write(state.join("seal.key"), "cut").unwrap();
        assert!(secrets.sources().is_err() && secrets.seal_key().is_err());
    }
}
