//! In a component: the imports of `flowstone:asset`, called directly, and the two exports.
//!
//! The exports live here and not in the author's crate, so that an author needs neither wit-bindgen nor the WIT. The
//! bindings are private: the rest of the crate sees its own types.

mod sql;

use bindings::exports::flowstone::asset::{definitions, materializer};
use bindings::flowstone::asset::{context, files, http, inputs, log, output, secrets, types};

pub(crate) use self::sql::{Database, Rows};
use super::{EntryRecord, HostResult, Job, RequestRecord, VersionRecord};
use crate::definition::{AssetDefinition, Capability, DimensionKeys, Mapping, TimeUnit, list_assets};
use crate::dispatch;
use crate::error::{CapabilityError, Outcome};
use crate::log::Level;
use crate::partition::Partition;

#[expect(unsafe_code, reason = "generated")]
#[allow(clippy::all, reason = "generated")]
mod bindings {
    // The world with every capability: what a component does not call is not among its imports.
    wit_bindgen::generate!({ path: "../../wit", world: "everything" });
    export!(Component);

    use super::Component;
}

/// What the host calls.
struct Component;

impl definitions::Guest for Component {
    fn describe() -> Vec<definitions::Asset> {
        list_assets().into_iter().map(definitions::Asset::from).collect()
    }
}

impl materializer::Guest for Component {
    fn materialize(asset: String) -> Result<materializer::Outcome, types::Failure> {
        std::panic::set_hook(Box::new(|panic| write_log(Level::Error, &panic.to_string(), &[])));
        match dispatch::materialize(&asset) {
            Outcome::Done => Ok(materializer::Outcome::Done),
            Outcome::Skipped(reason) => Ok(materializer::Outcome::Skipped(reason)),
            Outcome::Retryable { message, after } => {
                let after_ms = after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                Err(types::Failure::Retryable(types::Retry { message, after_ms }))
            }
            Outcome::Permanent(message) => Err(types::Failure::Permanent(message)),
        }
    }
}

pub(crate) fn current_job() -> Job {
    let job = context::current();
    Job {
        run_id: job.run_id,
        asset: job.asset,
        partition: job.partition.into(),
        attempt: job.attempt,
        logical_time_ms: job.logical_time_ms,
        config: job.config,
    }
}

pub(crate) fn list_versions(input: &str) -> HostResult<Vec<VersionRecord>> {
    let versions = inputs::versions(input)?;
    Ok(versions.into_iter().map(VersionRecord::from).collect())
}

/// A place in the bytes of one version.
pub(crate) struct Reader(inputs::Reader);

impl Reader {
    pub(crate) fn open(input: &str, index: u32) -> HostResult<Self> {
        Ok(Self(inputs::open(input, index)?))
    }

    pub(crate) fn read(&mut self, max: u32) -> HostResult<Vec<u8>> {
        Ok(self.0.read(max)?)
    }

    pub(crate) fn seek(&mut self, offset: u64) -> HostResult<()> {
        Ok(self.0.seek(offset)?)
    }
}

pub(crate) fn write_output(bytes: &[u8]) -> HostResult<()> {
    Ok(output::write(bytes)?)
}

pub(crate) fn set_media_type(media_type: &str) -> HostResult<()> {
    Ok(output::set_media_type(media_type)?)
}

pub(crate) fn set_metadata(fields: &[(String, String)]) -> HostResult<()> {
    Ok(output::set_metadata(&fields_of(fields))?)
}

pub(crate) fn write_log(level: Level, message: &str, fields: &[(String, String)]) {
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message, &fields_of(fields));
}

pub(crate) fn reveal_secret(name: &str) -> HostResult<Vec<u8>> {
    Ok(secrets::reveal(name)?)
}

/// A granted directory.
pub(crate) struct Directory(files::Directory);

impl Directory {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        Ok(Self(files::open(resource_name)?))
    }

    pub(crate) fn entries(&self, after: Option<&str>, max: u32) -> HostResult<Vec<EntryRecord>> {
        let entries = self.0.entries(after, max)?;
        Ok(entries.into_iter().map(|entry| EntryRecord { path: entry.path, size: entry.size }).collect())
    }

    pub(crate) fn read(&self, path: &str, offset: u64, max: u32) -> HostResult<Vec<u8>> {
        Ok(self.0.read(path, offset, max)?)
    }

    pub(crate) fn append(&self, path: &str, bytes: &[u8]) -> HostResult<()> {
        Ok(self.0.append(path, bytes)?)
    }

    pub(crate) fn remove(&self, path: &str) -> HostResult<()> {
        Ok(self.0.remove(path)?)
    }
}

/// A granted HTTP origin.
pub(crate) struct Client(http::Client);

impl Client {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        Ok(Self(http::open(resource_name)?))
    }

    pub(crate) fn send(&self, request: &RequestRecord) -> HostResult<Response> {
        Ok(Response(self.0.send(&http::Request {
            method: request.method.clone(),
            path: request.path.clone(),
            query: fields_of(&request.query),
            headers: fields_of(&request.headers),
            body: request.body.clone(),
            idempotency_key: request.idempotency_key.clone(),
        })?))
    }
}

/// An answer, read in order.
pub(crate) struct Response(http::Response);

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.0.status()
    }

    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        self.0.headers().into_iter().map(|field| (field.name, field.value)).collect()
    }

    pub(crate) fn read(&self, max: u32) -> HostResult<Vec<u8>> {
        Ok(self.0.read(max)?)
    }
}

fn fields_of(pairs: &[(String, String)]) -> Vec<types::Field> {
    pairs.iter().map(|(name, value)| field(name, value)).collect()
}

fn field(name: &str, value: &str) -> types::Field {
    types::Field { name: name.into(), value: value.into() }
}

impl From<types::CapabilityError> for CapabilityError {
    fn from(error: types::CapabilityError) -> Self {
        match error {
            types::CapabilityError::Denied => Self::Denied,
            types::CapabilityError::NotFound => Self::NotFound,
            types::CapabilityError::Conflict => Self::Conflict,
            types::CapabilityError::LimitReached(which) => Self::LimitReached(which),
            types::CapabilityError::Invalid(why) => Self::Invalid(why),
            types::CapabilityError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<types::Partition> for Partition {
    fn from(coordinates: types::Partition) -> Self {
        Self::new(coordinates.into_iter().map(|coordinate| (coordinate.dimension, coordinate.key)))
    }
}

impl From<inputs::Version> for VersionRecord {
    fn from(version: inputs::Version) -> Self {
        Self {
            asset: version.asset,
            partition: version.partition.into(),
            materialization: version.materialization,
            digest: version.digest,
            size: version.size,
            media_type: version.media_type,
            metadata: version.metadata.into_iter().map(|field| (field.name, field.value)).collect(),
        }
    }
}

impl From<&AssetDefinition> for definitions::Asset {
    fn from(asset: &AssetDefinition) -> Self {
        Self {
            name: asset.name.into(),
            description: asset.description.into(),
            kind: definitions::Kind::Plain,
            inputs: asset.inputs.iter().map(definitions::Input::from).collect(),
            dimensions: asset.dimensions.iter().map(definitions::Dimension::from).collect(),
            requirements: asset.requirements.iter().map(definitions::Requirement::from).collect(),
            media_type: asset.media_type.into(),
            checks: Vec::new(),
            tags: asset.tags.iter().map(|(name, value)| field(name, value)).collect(),
        }
    }
}

impl From<&crate::definition::InputDefinition> for definitions::Input {
    fn from(input: &crate::definition::InputDefinition) -> Self {
        let mapping = match input.mapping {
            Mapping::Same => definitions::Mapping::Same,
            Mapping::All => definitions::Mapping::All,
            Mapping::Window { from, to } => definitions::Mapping::Window(definitions::TimeWindow { from, to }),
            Mapping::Within => definitions::Mapping::Within,
            Mapping::Fixed(partitions) => {
                definitions::Mapping::Fixed(partitions.iter().map(|partition| coordinates_of(partition)).collect())
            }
        };
        Self { name: input.name.into(), asset: input.asset.into(), optional: input.optional, mapping }
    }
}

fn coordinates_of(partition: &[(&str, &str)]) -> types::Partition {
    let coordinate =
        |(dimension, key): &(&str, &str)| types::Coordinate { dimension: (*dimension).into(), key: (*key).into() };
    partition.iter().map(coordinate).collect()
}

impl From<&crate::definition::Dimension> for definitions::Dimension {
    fn from(dimension: &crate::definition::Dimension) -> Self {
        let keys = match dimension.keys {
            DimensionKeys::Time { unit, from, to, time_zone } => {
                definitions::DimensionKeys::Time(definitions::TimeKeys {
                    unit: unit.into(),
                    from: from.into(),
                    to: to.map(Into::into),
                    time_zone: time_zone.into(),
                })
            }
            DimensionKeys::Static(keys) => {
                definitions::DimensionKeys::Static(keys.iter().copied().map(Into::into).collect())
            }
        };
        Self { name: dimension.name.into(), keys }
    }
}

impl From<TimeUnit> for definitions::TimeUnit {
    fn from(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Hour => Self::Hour,
            TimeUnit::Day => Self::Day,
            TimeUnit::Week => Self::Week,
            TimeUnit::Month => Self::Month,
            TimeUnit::Year => Self::Year,
        }
    }
}

impl From<&crate::definition::Requirement> for definitions::Requirement {
    fn from(requirement: &crate::definition::Requirement) -> Self {
        let capability = match requirement.capability {
            Capability::Files => definitions::Capability::Files,
            Capability::Clock => definitions::Capability::Clock,
            Capability::Random => definitions::Capability::Random,
            Capability::Secret => definitions::Capability::Secret,
            Capability::Http => definitions::Capability::Http,
            Capability::Sql => definitions::Capability::Sql,
        };
        Self { resource_name: requirement.resource_name.into(), capability, reason: requirement.reason.into() }
    }
}
