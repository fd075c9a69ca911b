//! One version of an input, and the ways to read it.

use std::io::{self, Read, Seek, SeekFrom};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::host::{self, HostResult, VersionRecord};
use crate::partition::Partition;
use crate::stream::{Source, Stream, reads_its_stream};

/// One materialization that the host chose for this job. It does not change while the job runs.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// /// The sum of a list of numbers.
/// #[asset(inputs(numbers = "numbers"))]
/// fn sum(ctx: &Context) -> Result<Json<i64>> {
///     let numbers: Vec<i64> = ctx.input("numbers")?.json()?;
///     Ok(Json(numbers.iter().sum()))
/// }
///
/// # use flowstone_sdk::testing::Job;
/// assert_eq!(Job::new("sum").input("numbers", "[1, 2, 3]").run().text(), "6");
/// ```
#[derive(Clone, Debug)]
pub struct Input {
    /// Under which the asset declares it.
    name: String,
    /// Among the versions of that input.
    index: u32,
    record: VersionRecord,
}

impl Input {
    pub(crate) fn list(name: &str) -> Result<Vec<Self>> {
        let records = host::list_versions(name).map_err(|error| Error::from(error).context(describe(name)))?;
        let indexed = records.into_iter().zip(0..);
        Ok(indexed.map(|(record, index)| Self { name: name.into(), index, record }).collect())
    }

    /// The asset that produced it.
    pub fn asset(&self) -> &str {
        &self.record.asset
    }

    /// Its partition of that asset.
    pub fn partition(&self) -> &Partition {
        &self.record.partition
    }

    /// The id of the materialization.
    pub fn materialization(&self) -> &str {
        &self.record.materialization
    }

    /// Lower-case hex of the sha256 of the bytes.
    pub fn digest(&self) -> &str {
        &self.record.digest
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// Of the bytes.
    pub fn media_type(&self) -> &str {
        &self.record.media_type
    }

    /// The value that the producer attached under this name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        let found = self.record.metadata.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All bytes at once.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader()?.read_to_end(&mut bytes).map_err(|error| self.explain(error))?;
        Ok(bytes)
    }

    /// All bytes at once, as UTF-8.
    pub fn text(&self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|error| self.explain(error))
    }

    /// All bytes at once, as one JSON value.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes()?).map_err(|error| self.explain(error))
    }

    /// Row by row, as CSV whose first line holds the names of the columns. Only a chunk of it is in memory at a time.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Day {
    ///     rain: f64,
    /// }
    ///
    /// /// Days with rain.
    /// #[asset(inputs(days = "days"))]
    /// fn wet_days(ctx: &Context) -> Result<Json<usize>> {
    ///     let mut wet = 0;
    ///     for day in ctx.input("days")?.csv::<Day>()? {
    ///         wet += usize::from(day?.rain > 0.0);
    ///     }
    ///     Ok(Json(wet))
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// assert_eq!(Job::new("wet_days").input("days", "rain\n0\n1.5\n").run().text(), "1");
    /// ```
    pub fn csv<T: DeserializeOwned>(&self) -> Result<impl Iterator<Item = Result<T>>> {
        let rows = csv::Reader::from_reader(self.reader()?).into_deserialize();
        let input = self.clone();
        Ok(rows.map(move |row| row.map_err(|error| input.explain(error))))
    }

    /// As a stream, which also goes to any place in it. At most 256 are open at once.
    pub fn reader(&self) -> Result<InputReader> {
        let reader = host::Reader::open(&self.name, self.index).map_err(|error| self.explain(error))?;
        Ok(InputReader(Stream::new(Version { reader, offset: 0, size: self.size() })))
    }

    fn explain(&self, error: impl Into<Error>) -> Error {
        let place = if self.partition().is_empty() { String::new() } else { format!(" at {}", self.partition()) };
        error.into().context(format!("{}{place}", describe(&self.name)))
    }
}

fn describe(name: &str) -> String {
    format!("reading input `{name}`")
}

/// The bytes of one version, as a stream.
///
/// It reads a mebibyte ahead: [`std::io::BufRead::fill_buf`] is the cheapest way to take what is there.
pub struct InputReader(Stream<Version>);

/// The host's reader, with what it needs to be told.
struct Version {
    reader: host::Reader,
    /// Where the host's reader stands.
    offset: u64,
    size: u64,
}

impl Source for Version {
    fn read_at(&mut self, offset: u64, max: u32) -> HostResult<Vec<u8>> {
        // A seek past the end is legal in Rust and means that nothing is there; the host would refuse it.
        if offset > self.size {
            return Ok(Vec::new());
        }
        if offset != self.offset {
            self.reader.seek(offset)?;
        }
        let chunk = self.reader.read(max)?;
        self.offset = offset + chunk.len() as u64;
        Ok(chunk)
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }
}

reads_its_stream!(InputReader);

impl Seek for InputReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
