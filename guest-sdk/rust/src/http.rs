//! HTTP origins that an operator granted.
//!
//! An asset that names this module's functions imports `flowstone:asset/http`, and is deployed only where every origin
//! it requires is granted. The host adds credentials, waits and tries again where that may help, and follows redirects
//! within the grant; the asset sees the last answer.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Rate {
//!     currency: String,
//!     value: f64,
//! }
//!
//! /// What a euro costs.
//! #[asset(requires(bank = http("reads the day's rates")))]
//! fn rate(ctx: &Context) -> Result<Json<Rate>> {
//!     let answer = ctx.http("bank")?.get("rates/latest").query("base", "EUR").send()?.ok()?;
//!     Ok(Json(answer.json()?))
//! }
//!
//! use flowstone_sdk::testing::{Answer, Job};
//!
//! let rates = [("GET rates/latest?base=EUR", Answer::new(200, r#"{ "currency": "USD", "value": 1.1 }"#))];
//! let finished = Job::new("rate").http("bank", rates).run();
//! assert_eq!(finished.json::<Rate>().value, 1.1);
//! ```

use std::io::Read;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::host::{self, HostResult, RequestRecord};
use crate::stream::{Source, Stream, reads_its_stream};

/// A granted origin. Paths are below the URL that the operator registered.
#[derive(Clone)]
pub struct Http {
    name: String,
    granted: Rc<host::Client>,
}

impl Http {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let granted = host::Client::open(name)
            .map_err(|error| Error::from(error).context(format!("opening the HTTP origin `{name}`")))?;
        Ok(Self { name: name.into(), granted: Rc::new(granted) })
    }

    /// A request to read.
    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request("GET", path)
    }

    /// A request that sends something. It is not tried again by the host unless it is [`Request::idempotent`].
    pub fn post(&self, path: impl Into<String>) -> Request {
        self.request("POST", path)
    }

    /// A request that puts something in its place.
    pub fn put(&self, path: impl Into<String>) -> Request {
        self.request("PUT", path)
    }

    /// A request that removes something.
    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request("DELETE", path)
    }

    /// A request with this method, in upper case.
    pub fn request(&self, method: impl Into<String>, path: impl Into<String>) -> Request {
        let (method, path) = (method.into(), path.into());
        let record = RequestRecord { method, path, ..RequestRecord::default() };
        Request { origin: self.clone(), record }
    }
}

/// A request that is being put together.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    origin: Http,
    record: RequestRecord,
}

impl Request {
    /// Adds a parameter. The host escapes name and value.
    pub fn query(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.record.query.push((name.into(), value.to_string()));
        self
    }

    /// Adds a header, which must be granted by its name.
    pub fn header(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.record.headers.push((name.into(), value.to_string()));
        self
    }

    /// The body.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.record.body = bytes.into();
        self
    }

    /// The body as JSON, and the header that says so, which must be granted.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        let body = serde_json::to_vec(value)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sends an idempotency key, made of the job and this name, so that the other side can tell a repetition from a
    /// second request, and the host may try it again. An empty name stands for the number of the call.
    pub fn idempotent(mut self, name: impl Into<String>) -> Self {
        self.record.idempotency_key = Some(name.into());
        self
    }

    /// Sends it and waits for the head of the answer, whatever its status.
    pub fn send(self) -> Result<Response> {
        let shown = format!("{} {} of `{}`", self.record.method, self.record.path, self.origin.name);
        let granted = self.origin.granted.send(&self.record);
        match granted {
            Ok(granted) => Ok(Response { shown, granted }),
            Err(error) => Err(Error::from(error).context(shown)),
        }
    }
}

/// An answer. It counts as in flight until it is dropped.
pub struct Response {
    shown: String,
    granted: host::Response,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.granted.status()
    }

    /// All headers, with their names in lower case.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.granted.headers()
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The answer, if its status says that all is well; otherwise an error, which is retryable where the cause may pass
    /// (429 and 5xx).
    pub fn ok(self) -> Result<Self> {
        let status = self.status();
        match status {
            200..=299 => Ok(self),
            429 | 500..=599 => Err(Error::retryable(format!("{} was answered with {status}", self.shown))),
            _ => Err(Error::permanent(format!("{} was answered with {status}", self.shown))),
        }
    }

    /// All bytes of the body.
    pub fn bytes(self) -> Result<Vec<u8>> {
        let shown = self.shown.clone();
        let mut bytes = Vec::new();
        match self.reader().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Error::from(error).context(format!("reading the answer to {shown}"))),
        }
    }

    /// The body as UTF-8 text.
    pub fn text(self) -> Result<String> {
        let shown = self.shown.clone();
        String::from_utf8(self.bytes()?).map_err(|error| Error::from(error).context(format!("the answer to {shown}")))
    }

    /// The body as one JSON value.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let shown = self.shown.clone();
        serde_json::from_slice(&self.bytes()?)
            .map_err(|error| Error::from(error).context(format!("the answer to {shown}")))
    }

    /// The body as a stream. It reads a mebibyte ahead at most.
    pub fn reader(self) -> BodyReader {
        BodyReader(Stream::new(Body(self.granted)))
    }
}

/// A body, as a stream.
pub struct BodyReader(Stream<Body>);

/// Read in order only: the stream never asks for another place.
struct Body(host::Response);

impl Source for Body {
    fn read_at(&mut self, _offset: u64, max: u32) -> HostResult<Vec<u8>> {
        self.0.read(max)
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

reads_its_stream!(BodyReader);
