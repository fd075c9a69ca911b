//! Buckets that an operator granted: values under keys, which stay from job to job.
//!
//! An asset that names this module's functions imports `flowstone:asset/key-value`, and is deployed only where every
//! bucket it requires is granted. It sees its own writes at once; everybody else sees them when its materialization is
//! committed, or never. If what it read has changed until then, nothing is written, and it runs again.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! /// The orders that no run before has seen.
//! #[asset(inputs(orders = "orders"), requires(seen = key_value("remembers which orders it has seen")))]
//! fn new_orders(ctx: &Context) -> Result<Json<Vec<String>>> {
//!     let seen = ctx.bucket("seen")?;
//!     let mut new = Vec::new();
//!     for order in ctx.input("orders")?.text()?.lines() {
//!         if seen.get(order)?.is_none() {
//!             seen.set(order, "")?;
//!             new.push(order.to_owned());
//!         }
//!     }
//!     seen.increment("total", new.len() as i64)?;
//!     Ok(Json(new))
//! }
//!
//! use flowstone_sdk::testing::Job;
//!
//! let job = Job::new("new_orders").input("orders", "a\nb\nc\n").bucket("seen", [("b", ""), ("total", "1")]);
//! let finished = job.run();
//! assert_eq!(finished.text(), r#"["a","c"]"#);
//! assert_eq!(finished.buckets["seen"]["total"], b"3");
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::host;

/// As many keys as one call lists.
const KEYS_PER_CALL: u32 = 1_000;

/// A granted bucket. Keys are text of 1 to 1,024 bytes; what the grant does not name is denied, whether it exists or
/// not.
#[derive(Clone)]
pub struct Bucket {
    name: String,
    granted: Rc<host::Bucket>,
}

/// A value, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// For [`Bucket::compare_and_set`], within this attempt.
    pub version: Version,
}

/// Which value of a key it is. It says nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64);

impl Bucket {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let granted =
            host::Bucket::open(name).map_err(|error| Error::from(error).context(format!("opening bucket `{name}`")))?;
        Ok(Self { name: name.into(), granted: Rc::new(granted) })
    }

    /// The value of a key, if there is one.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get_versioned(key)?.map(|found| found.value))
    }

    /// The value of a key as UTF-8, if there is one.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        let text = self.get(key)?.map(String::from_utf8).transpose();
        text.map_err(|error| self.explain("reading", key, error))
    }

    /// The value of a key as one JSON value, if there is one.
    pub fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let value = self.get(key)?.map(|value| serde_json::from_slice(&value)).transpose();
        value.map_err(|error| self.explain("reading", key, error))
    }

    /// The number of a counter: 0 where there is none. A job that reads it meets all others that count at the same
    /// time; [`Bucket::increment`] alone meets none.
    pub fn count(&self, key: &str) -> Result<i64> {
        let number = self.text(key)?.map(|text| text.parse()).transpose();
        Ok(number.map_err(|error| self.explain("reading", key, error))?.unwrap_or(0))
    }

    /// The value of a key, if there is one, and which one it is.
    pub fn get_versioned(&self, key: &str) -> Result<Option<Versioned>> {
        let found = self.granted.get(key).map_err(|error| self.explain("reading", key, error))?;
        Ok(found.map(|found| Versioned { value: found.value, version: Version(found.version) }))
    }

    /// Gives a key this value, whatever is there.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.granted.set(key, value.as_ref()).map_err(|error| self.explain("writing", key, error))
    }

    /// Gives a key this value, as JSON.
    pub fn set_json(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.set(key, serde_json::to_vec(value).map_err(|error| self.explain("writing", key, error))?)
    }

    /// Gives a key this value if what is there has this version, or nothing is there and none is expected. Whether it
    /// did: if not, read again.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// /// Takes the lead unless somebody has it.
    /// #[asset(requires(state = key_value("knows who leads")))]
    /// fn lead(ctx: &Context) -> Result<Json<bool>> {
    ///     Ok(Json(ctx.bucket("state")?.compare_and_set("leader", None, "me")?))
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// assert_eq!(Job::new("lead").bucket("state", [("leader", "her")]).run().text(), "false");
    /// ```
    pub fn compare_and_set(&self, key: &str, expected: Option<Version>, value: impl AsRef<[u8]>) -> Result<bool> {
        match self.granted.compare_and_set(key, expected.map(|version| version.0), value.as_ref()) {
            Ok(()) => Ok(true),
            Err(crate::CapabilityError::Conflict) => Ok(false),
            Err(error) => Err(self.explain("writing", key, error)),
        }
    }

    /// Adds to a counter without reading it: the commit adds to whatever is there then.
    pub fn increment(&self, key: &str, delta: i64) -> Result<()> {
        self.granted.increment(key, delta).map_err(|error| self.explain("counting in", key, error))
    }

    /// Takes a key away. One that is not there stays so.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.granted.remove(key).map_err(|error| self.explain("removing", key, error))
    }

    /// Every key that begins with this and that the grant names, sorted bytewise; what the asset has written is among
    /// them.
    pub fn keys(&self, prefix: &str) -> impl Iterator<Item = Result<String>> {
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        let mut page = VecDeque::new();
        let mut last: Option<String> = None;
        let mut ended = false;
        std::iter::from_fn(move || {
            if page.is_empty() && !ended {
                match bucket.granted.keys(&prefix, last.as_deref(), KEYS_PER_CALL) {
                    Ok(keys) => page.extend(keys),
                    Err(error) => {
                        ended = true;
                        return Some(Err(Error::from(error).context(format!("listing bucket `{}`", bucket.name))));
                    }
                }
                ended = page.is_empty();
            }
            let key = page.pop_front()?;
            last = Some(key.clone());
            Some(Ok(key))
        })
    }

    fn explain(&self, doing: &str, key: &str, error: impl Into<Error>) -> Error {
        error.into().context(format!("{doing} `{key}` of bucket `{}`", self.name))
    }
}
