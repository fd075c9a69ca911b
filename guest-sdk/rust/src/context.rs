//! What an asset is given: where it stands, what it reads, where it writes.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::Directory;
use crate::host::{self, Job};
use crate::http::Http;
use crate::input::Input;
use crate::output::OutputStream;
use crate::partition::Partition;
use crate::secrets::Secret;
use crate::sql::Database;

/// What an asset is given. An asset that needs nothing of it need not take it.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// /// A year from its months, each of which says how much it rained.
/// #[asset(inputs(months = within("rain")), partitions(year = yearly("2012", "2015")))]
/// fn yearly_rain(ctx: &Context) -> Result<Json<f64>> {
///     let year = ctx.partition().key("year")?;
///     let mut sum = 0.0;
///     for month in ctx.inputs("months")? {
///         sum += month.json::<f64>()?;
///     }
///     log::info!("it rained {sum} mm in {year}");
///     Ok(Json(sum))
/// }
///
/// use flowstone_sdk::testing::{Job, Version};
///
/// let months = [("2012-01", "12.5"), ("2012-02", "7.5")];
/// let job = Job::new("yearly_rain").partition("year", "2012");
/// let job = months.iter().fold(job, |job, (month, rain)| job.input("months", Version::new(*rain).at("month", *month)));
/// assert_eq!(job.run().text(), "20.0");
/// ```
pub struct Context {
    /// Asked for when it is first needed, so that an asset that never does neither pays for it nor imports it.
    job: OnceCell<Job>,
    pending: RefCell<Vec<u8>>,
    metadata: RefCell<Vec<(String, String)>>,
}

impl Context {
    pub(crate) fn new() -> Self {
        Self { job: OnceCell::new(), pending: RefCell::default(), metadata: RefCell::default() }
    }

    fn job(&self) -> &Job {
        self.job.get_or_init(host::current_job)
    }

    /// The run that this job belongs to. Another run of the same partition has another, so an output that holds it is
    /// not the same every time.
    pub fn run_id(&self) -> &str {
        &self.job().run_id
    }

    /// The asset's own name.
    pub fn asset(&self) -> &str {
        &self.job().asset
    }

    /// The partition to make; empty for an asset without partitions.
    pub fn partition(&self) -> &Partition {
        &self.job().partition
    }

    /// 1 for the first attempt. A fault of the host does not count.
    pub fn attempt(&self) -> u32 {
        self.job().attempt
    }

    /// The instant that the job is about: the start of the partition's interval, or 1970 where it has none. The same in
    /// every attempt and every run; it is not the time of day.
    pub fn logical_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.job().logical_time_ms)
    }

    /// The asset's configuration as the manifest gives it. What does not fit the type is a permanent error that says
    /// where; `#[serde(deny_unknown_fields)]` on the type also refuses misspelt keys.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.job().config)
            .map_err(|error| Error::from(error).context("reading the configuration"))
    }

    /// The one version of this input. It is a permanent error if there are several, or none, or if the asset declares
    /// no such input.
    pub fn input(&self, name: &str) -> Result<Input> {
        self.optional_input(name)?
            .ok_or_else(|| Error::permanent(format!("input `{name}` is absent: use `optional_input` if it may be")))
    }

    /// The one version of this input, if there is one.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// /// A report, with remarks if somebody made any.
    /// #[asset(inputs(remarks = optional("remarks")))]
    /// fn annotated(ctx: &Context) -> Result<String> {
    ///     Ok(match ctx.optional_input("remarks")? {
    ///         Some(remarks) => remarks.text()?,
    ///         None => "no remarks".into(),
    ///     })
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// assert_eq!(Job::new("annotated").run().text(), "no remarks");
    /// ```
    pub fn optional_input(&self, name: &str) -> Result<Option<Input>> {
        let mut versions = self.inputs(name)?;
        match versions.len() {
            0 | 1 => Ok(versions.pop()),
            count => {
                Err(Error::permanent(format!("input `{name}` has {count} versions: use `inputs` to read them all")))
            }
        }
    }

    /// All versions of this input, in the order of their partitions.
    pub fn inputs(&self, name: &str) -> Result<Vec<Input>> {
        Input::list(name)
    }

    /// A directory that an operator granted under this name. Declare it with
    /// `requires(station = files("reads the station's CSV files"))`.
    pub fn directory(&self, resource_name: &str) -> Result<Directory> {
        Directory::open(resource_name)
    }

    /// A secret that an operator lets the asset read. Declare it with `requires(token = secret("signs the report"))`.
    pub fn secret(&self, resource_name: &str) -> Result<Secret> {
        Secret::reveal(resource_name)
    }

    /// An HTTP origin that an operator granted under this name. Declare it with
    /// `requires(api = http("reads the day's rates"))`.
    pub fn http(&self, resource_name: &str) -> Result<Http> {
        Http::open(resource_name)
    }

    /// A database that an operator granted under this name. Declare it with `requires(shop = sql("reads orders"))`.
    pub fn database(&self, resource_name: &str) -> Result<Database> {
        Database::open(resource_name)
    }

    /// The output, as a stream. A value that the asset returns comes after what was written here.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    /// use std::io::Write;
    ///
    /// /// Counts.
    /// #[asset(media_type = "text/plain")]
    /// fn count(ctx: &Context) -> Result<()> {
    ///     for number in 1..=3 {
    ///         writeln!(ctx.output(), "{number}")?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// assert_eq!(Job::new("count").run().text(), "1\n2\n3\n");
    /// ```
    pub fn output(&self) -> OutputStream<'_> {
        OutputStream { pending: &self.pending }
    }

    /// Says what the output is, instead of the media type that the asset declares.
    pub fn set_media_type(&self, media_type: &str) -> Result<()> {
        host::set_media_type(media_type).map_err(|error| Error::from(error).context("setting the media type"))
    }

    /// Attaches a named value to the output: consumers and people see it without reading the bytes. At most 64.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// /// Three rows.
    /// #[asset]
    /// fn rows(ctx: &Context) -> Result<String> {
    ///     ctx.add_metadata("rows", 3)?;
    ///     Ok("a\nb\nc\n".into())
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// assert_eq!(Job::new("rows").run().metadata, [("rows".into(), "3".into())]);
    /// ```
    pub fn add_metadata(&self, name: &str, value: impl fmt::Display) -> Result<()> {
        let mut metadata = self.metadata.borrow_mut();
        metadata.push((name.into(), value.to_string()));
        host::set_metadata(&metadata).map_err(|error| Error::from(error).context(format!("adding metadata `{name}`")))
    }

    /// Hands over what the stream still gathers.
    pub(crate) fn finish_output(&self) -> Result<()> {
        self.output().flush().map_err(|error| Error::from(error).context("writing the output"))
    }
}
