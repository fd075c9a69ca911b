//! Secrets that an operator lets the code read.
//!
//! To use a secret without seeing it, nothing is needed here: the host adds it to the requests of an HTTP resource.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! /// How long the key is.
//! #[asset(requires(signing_key = secret("signs the report")))]
//! fn key_length(ctx: &Context) -> Result<Json<usize>> {
//!     Ok(Json(ctx.secret("signing_key")?.bytes().len()))
//! }
//!
//! use flowstone_sdk::testing::Job;
//!
//! assert_eq!(Job::new("key_length").secret("signing_key", "hunter2").run().text(), "7");
//! ```

use std::fmt;

use crate::error::{Error, Result};
use crate::host;

/// A revealed secret. Its `Debug` shows nothing of it.
pub struct Secret {
    name: String,
    bytes: Vec<u8>,
}

impl Secret {
    pub(crate) fn reveal(name: &str) -> Result<Self> {
        let bytes = host::reveal_secret(name)
            .map_err(|error| Error::from(error).context(format!("revealing secret `{name}`")))?;
        Ok(Self { name: name.into(), bytes })
    }

    /// Its bytes, at most 16 KiB.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As text; a permanent error where it is none.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes)
            .map_err(|_| Error::permanent(format!("secret `{}` is not UTF-8 text", self.name)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}
