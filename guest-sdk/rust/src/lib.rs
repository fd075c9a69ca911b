//! Write FlowStone assets in Rust.
//!
//! An asset is one function with the attribute [`asset`]; a component is a crate (`crate-type = ["cdylib"]`, built for
//! `wasm32-wasip2`) with any number of them. There is nothing to register: a function that carries the attribute is in
//! the component.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! /// Greets whom the pipeline's configuration names.
//! #[asset]
//! fn salutation(ctx: &Context) -> Result<String> {
//!     #[derive(serde::Deserialize)]
//!     struct Config {
//!         name: String,
//!     }
//!     let Config { name } = ctx.config()?;
//!     log::info!(name = name, "greeting");
//!     Ok(format!("Hello, {name}!"))
//! }
//!
//! // Outside a component, a test runs it:
//! use flowstone_sdk::testing::Job;
//!
//! let finished = Job::new("salutation").config(serde_json::json!({ "name": "Ada" })).run();
//! assert_eq!(finished.text(), "Hello, Ada!");
//! ```
//!
//! | to | use |
//! |---|---|
//! | declare inputs, partitions and requirements | [`asset`] |
//! | read inputs, the partition, the configuration; stream the output | [`Context`] |
//! | return a value as the output | [`Output`]: text, bytes, [`Json`], [`Csv`] |
//! | fail, ask for another attempt, or have nothing to make | [`Error`], [`skip`] |
//! | read and write granted directories | [`files`] |
//! | read granted secrets | [`secrets`] |
//! | ask granted HTTP origins | [`http`] |
//! | ask granted databases | [`sql`] |
//! | say something | [`log`] |
//! | test natively | [`testing`] |
//!
//! A component imports only what its assets call: without [`files`] in the code, `flowstone:asset/files` is not among
//! the imports, and no operator has to wonder why.

mod context;
pub mod definition;
mod dispatch;
mod error;
pub mod files;
mod host;
pub mod http;
mod input;
pub mod log;
mod output;
mod partition;
pub mod secrets;
pub mod sql;
mod stream;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use context::Context;
pub use error::{CapabilityError, Error, Outcome, Result, skip};
pub use flowstone_sdk_macros::asset;
pub use input::{Input, InputReader};
pub use output::{Csv, Json, Output, OutputStream};
pub use partition::Partition;

/// What nearly every asset needs.
///
/// ```
/// use flowstone_sdk::prelude::*;
/// ```
pub mod prelude {
    pub use crate::files::Directory;
    pub use crate::http::Http;
    pub use crate::sql::Database;
    pub use crate::{CapabilityError, Context, Csv, Error, Input, Json, Output, Partition, Result, asset, log, skip};
}

/// What the expansion of [`asset`] names. Not for anyone else.
#[doc(hidden)]
pub mod expansion {
    pub use crate::dispatch::{Answer, media_type, media_type_with_context};
    pub use inventory::submit;
}
