//! Run an asset in an ordinary `cargo test`, with everything it could see given in memory.
//!
//! The function, its dispatch, its reading and writing are the same as in a component; only the calls into the host end
//! in this process. There are no limits, no sandbox and no planner: the test chooses the partition and the inputs.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! /// The lines of `raw` that are not empty.
//! #[asset(inputs(raw = "raw"), partitions(month = monthly("2012-01")))]
//! fn lines(ctx: &Context) -> Result<Json<Vec<String>>> {
//!     let text = ctx.input("raw")?.text()?;
//!     let lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(Into::into).collect();
//!     if lines.is_empty() {
//!         return skip("nothing was measured");
//!     }
//!     Ok(Json(lines))
//! }
//!
//! use flowstone_sdk::testing::{Job, Outcome};
//!
//! let finished = Job::new("lines").partition("month", "2012-02").input("raw", "a\n\nb\n").run();
//! assert_eq!(finished.outcome, Outcome::Done);
//! assert_eq!(finished.json::<Vec<String>>(), ["a", "b"]);
//!
//! let finished = Job::new("lines").partition("month", "2012-02").input("raw", "\n").run();
//! assert_eq!(finished.outcome, Outcome::Skipped("nothing was measured".into()));
//! ```

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::definition::{AssetDefinition, Capability, list_assets};
use crate::dispatch;
use crate::host::memory::{
    self, Files, Memory, StoredVersion,
    sql::{Answered, one_line},
};
use crate::host::memory_http::Answers;
use crate::host::{self, VersionRecord};
use crate::log::Line;
use crate::partition::Partition;
use crate::sql::Value;

pub use crate::error::Outcome;

/// Everything that is declared in this crate and what it links, by name.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// /// Noon.
/// #[asset]
/// fn noon() -> Result<String> {
///     Ok("12:00".into())
/// }
///
/// let noon = flowstone_sdk::testing::definitions().into_iter().find(|asset| asset.name == "noon").unwrap();
/// assert_eq!(noon.description, "Noon.");
/// ```
pub fn definitions() -> Vec<&'static AssetDefinition> {
    list_assets()
}

/// One attempt to make an asset, to be set up and run. Setting up what the asset's declaration does not allow panics,
/// and so fails the test.
pub struct Job {
    asset: &'static AssetDefinition,
    job: host::Job,
    coordinates: Vec<(String, String)>,
    inputs: BTreeMap<String, Vec<Version>>,
    directories: BTreeMap<String, Files>,
    secrets: BTreeMap<String, Vec<u8>>,
    origins: BTreeMap<String, Answers>,
    databases: BTreeMap<String, Answered>,
}

impl Job {
    /// An attempt to make the asset of this name.
    pub fn new(asset: &str) -> Self {
        let found: Vec<_> = list_assets().into_iter().filter(|known| known.name == asset).collect();
        let asset = match found[..] {
            [asset] => asset,
            [] => panic!("no asset is called `{asset}`; there are {:?}", names(list_assets().iter().map(|a| a.name))),
            _ => panic!("{} assets are called `{asset}`", found.len()),
        };
        let job = host::Job {
            run_id: "01980000-0000-7000-8000-000000000000".into(),
            asset: asset.name.into(),
            partition: Partition::default(),
            attempt: 1,
            logical_time_ms: 0,
            config: "{}".into(),
        };
        Self {
            asset,
            job,
            coordinates: Vec::new(),
            inputs: BTreeMap::new(),
            directories: BTreeMap::new(),
            secrets: BTreeMap::new(),
            origins: BTreeMap::new(),
            databases: BTreeMap::new(),
        }
    }

    /// The key on one dimension. Every dimension needs one, in the order of the declaration.
    pub fn partition(mut self, dimension: &str, key: &str) -> Self {
        self.coordinates.push((dimension.into(), key.into()));
        self
    }

    /// The configuration, as the manifest would give it.
    pub fn config(mut self, config: impl Serialize) -> Self {
        self.job.config = serde_json::to_string(&config).expect("the test's configuration is JSON");
        self
    }

    /// Which attempt it is; 1 if not said.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.job.attempt = attempt;
        self
    }

    /// The instant that the job is about; 1970 if not said, whatever the partition.
    pub fn logical_time(mut self, time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).expect("logical times are after 1970");
        self.job.logical_time_ms = since_epoch.as_millis() as u64;
        self
    }

    /// One version of an input: bytes or text, or a [`Version`] that says more. Call it again for the next version.
    pub fn input(mut self, name: &str, version: impl Into<Version>) -> Self {
        let declared = self.asset.inputs;
        assert!(
            declared.iter().any(|input| input.name == name),
            "asset `{}` declares no input `{name}`; it has {:?}",
            self.asset.name,
            names(declared.iter().map(|input| input.name))
        );
        self.inputs.entry(name.into()).or_default().push(version.into());
        self
    }

    /// A granted directory with these files.
    pub fn directory<P: Into<String>, B: AsRef<[u8]>>(
        mut self,
        resource_name: &str,
        files: impl IntoIterator<Item = (P, B)>,
    ) -> Self {
        self.check_is_required(resource_name);
        let present = files.into_iter().map(|(path, bytes)| (path.into(), bytes.as_ref().to_vec())).collect();
        self.directories.insert(resource_name.into(), Files { present, staged: BTreeMap::new() });
        self
    }

    /// A granted secret.
    pub fn secret(mut self, resource_name: &str, value: impl AsRef<[u8]>) -> Self {
        self.check_is_required(resource_name);
        self.secrets.insert(resource_name.into(), value.as_ref().to_vec());
        self
    }

    /// A granted HTTP origin with its answers, each to a request that is written `METHOD path?name=value`, unescaped.
    /// A request that is listed again gets the next answer; one that is not listed is denied.
    pub fn http<L: Into<String>, A: Into<Answer>>(
        mut self,
        resource_name: &str,
        answers: impl IntoIterator<Item = (L, A)>,
    ) -> Self {
        self.check_is_required(resource_name);
        let mut listed = Answers::new();
        for (line, answer) in answers {
            listed.entry(line.into()).or_default().push_back(answer.into());
        }
        self.origins.insert(resource_name.into(), listed);
        self
    }

    /// A granted database that gives these answers.
    pub fn database(mut self, resource_name: &str, tables: Tables) -> Self {
        self.check_is_required(resource_name);
        self.databases.insert(resource_name.into(), tables.0);
        self
    }

    fn check_is_required(&self, resource_name: &str) {
        let required = self.asset.requirements;
        assert!(
            required.iter().any(|requirement| requirement.resource_name == resource_name),
            "asset `{}` does not require `{resource_name}`; it requires {:?}",
            self.asset.name,
            names(required.iter().map(|requirement| requirement.resource_name))
        );
    }

    /// Runs it.
    pub fn run(self) -> Finished {
        self.check_is_complete();
        let name = self.asset.name;
        let (outcome, memory) = memory::with_memory(self.into_memory(), || dispatch::materialize(name));
        let published = |(name, files): (String, Files)| (name, files.published());
        Finished {
            outcome,
            output: memory.output,
            media_type: memory.media_type,
            metadata: memory.metadata,
            log: memory.log,
            directories: memory.directories.into_iter().map(published).collect(),
            requests: memory.requests,
            asked: memory.databases.into_iter().map(|(name, database)| (name, database.asked)).collect(),
        }
    }

    /// A host would not start the job otherwise.
    fn check_is_complete(&self) {
        let declared = names(self.asset.dimensions.iter().map(|dimension| dimension.name));
        let given = names(self.coordinates.iter().map(|(dimension, _)| dimension.as_str()));
        assert_eq!(given, declared, "asset `{}` has other dimensions than its partition gives", self.asset.name);
        for requirement in self.asset.requirements {
            let name = requirement.resource_name;
            let is_given = match requirement.capability {
                Capability::Files => self.directories.contains_key(name),
                Capability::Secret => self.secrets.contains_key(name),
                Capability::Http => self.origins.contains_key(name),
                Capability::Sql => self.databases.contains_key(name),
                // A native build has the machine's own.
                Capability::Clock | Capability::Random => true,
            };
            assert!(is_given, "asset `{}` requires `{name}`", self.asset.name);
        }
        for input in self.asset.inputs {
            let present = self.inputs.contains_key(input.name);
            // Of partitions that a mapping may leave out, none need be there.
            let may_be_empty = input.optional || input.mapping != crate::definition::Mapping::Same;
            assert!(present || may_be_empty, "asset `{}` needs a version of `{}`", self.asset.name, input.name);
        }
    }

    fn into_memory(mut self) -> Memory {
        self.job.partition = Partition::new(self.coordinates);
        let partition = &self.job.partition;
        let mut inputs = BTreeMap::new();
        for declared in self.asset.inputs {
            let versions = self.inputs.remove(declared.name).unwrap_or_default();
            let records = versions
                .into_iter()
                .zip(1..)
                .map(|(version, number)| version.into_record(declared.asset, number, partition));
            inputs.insert(declared.name.into(), records.collect());
        }
        Memory {
            inputs,
            directories: self.directories,
            secrets: self.secrets,
            origins: self.origins,
            requests: Vec::new(),
            databases: self.databases,
            output: Vec::new(),
            media_type: self.asset.media_type.into(),
            metadata: Vec::new(),
            log: Vec::new(),
            job: self.job,
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.collect()
}

/// One version of an input, for [`Job::input`].
///
/// ```
/// use flowstone_sdk::testing::Version;
///
/// let january = Version::new("12.5").at("month", "2012-01").media_type("application/json").metadata("rows", "31");
/// ```
#[derive(Clone, Debug)]
pub struct Version {
    bytes: Vec<u8>,
    coordinates: Vec<(String, String)>,
    media_type: String,
    metadata: Vec<(String, String)>,
    digest: String,
}

impl Version {
    /// With these bytes, and the partition of the job that reads it.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: bytes.as_ref().to_vec(),
            coordinates: Vec::new(),
            media_type: "application/octet-stream".into(),
            metadata: Vec::new(),
            digest: "0".repeat(64),
        }
    }

    /// The key on one dimension of its own partition.
    pub fn at(mut self, dimension: &str, key: &str) -> Self {
        self.coordinates.push((dimension.into(), key.into()));
        self
    }

    /// Its media type.
    pub fn media_type(mut self, media_type: &str) -> Self {
        self.media_type = media_type.into();
        self
    }

    /// A named value that its producer attached.
    pub fn metadata(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Its digest, for assets that look at it; zeros if not said.
    pub fn digest(mut self, digest: &str) -> Self {
        self.digest = digest.into();
        self
    }

    fn into_record(self, asset: &str, number: usize, consumer: &Partition) -> StoredVersion {
        let partition = match self.coordinates.is_empty() {
            true => consumer.clone(),
            false => Partition::new(self.coordinates),
        };
        let record = VersionRecord {
            asset: asset.into(),
            partition,
            materialization: format!("01980000-0000-7000-8000-{number:012}"),
            digest: self.digest,
            size: self.bytes.len() as u64,
            media_type: self.media_type,
            metadata: self.metadata,
        };
        (record, self.bytes.into())
    }
}

impl<B: AsRef<[u8]>> From<B> for Version {
    fn from(bytes: B) -> Self {
        Self::new(bytes)
    }
}

/// What a database answers, for [`Job::database`]: to statements that are these word for word, whatever their parameters.
#[derive(Clone, Debug, Default)]
pub struct Tables(Answered);

impl Tables {
    /// None yet: every statement is invalid.
    pub fn new() -> Self {
        Self::default()
    }

    /// A query, and its columns and rows.
    pub fn rows<C: Into<String>, R: IntoIterator<Item = Value>>(
        mut self,
        statement: &str,
        columns: impl IntoIterator<Item = C>,
        rows: impl IntoIterator<Item = R>,
    ) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
        assert!(rows.iter().all(|row| row.len() == columns.len()), "a row of `{statement}` has other columns");
        self.0.rows.insert(one_line(statement), (columns, rows));
        self
    }

    /// A statement without rows, and how many it changes.
    pub fn changes(mut self, statement: &str, changed: u64) -> Self {
        self.0.changes.insert(one_line(statement), changed);
        self
    }
}

/// What an HTTP origin answers, for [`Job::http`]. Bytes or text alone are an answer with the status 200.
///
/// ```
/// use flowstone_sdk::testing::Answer;
///
/// let missing = Answer::new(404, "no such item").header("content-type", "text/plain");
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// With this status and body.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self { status, headers: Vec::new(), body: body.as_ref().to_vec() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }
}

impl<B: AsRef<[u8]>> From<B> for Answer {
    fn from(body: B) -> Self {
        Self::new(200, body)
    }
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What was written, also when it did not end well: the host would drop it then.
    pub output: Vec<u8>,
    /// Of the output.
    pub media_type: String,
    /// Attached to the output.
    pub metadata: Vec<(String, String)>,
    /// What the asset said.
    pub log: Vec<Line>,
    /// The directories, as they are after the commit.
    pub directories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// What was asked of HTTP origins: the origin, the request as [`Job::http`] writes it, its body.
    pub requests: Vec<(String, String, Vec<u8>)>,
    /// The statements that each database was asked, in one line each, with their parameters.
    pub asked: BTreeMap<String, Vec<(String, Vec<Value>)>>,
}

impl Finished {
    /// The output as text. Panics unless the job is done and the output is UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!(self.outcome, Outcome::Done);
        str::from_utf8(&self.output).expect("the output is UTF-8")
    }

    /// The output as one JSON value. Panics unless the job is done and the output is of this type.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.outcome, Outcome::Done);
        serde_json::from_slice(&self.output).expect("the output is JSON of this type")
    }
}
