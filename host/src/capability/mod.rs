//! What a guest can call: one file for each interface, in the same order: purpose, configuration, per-attempt view,
//! host functions, tests.
//!
//! A capability knows what it was granted and nothing else: no configuration, no credentials, no database. It records
//! what happened (reads, denials, staged changes) and the runner's commit acts on it. Which of them a guest gets is
//! decided in [`crate::engine`].

pub mod clock;
pub mod config;
pub mod context;
pub mod field;
pub mod files;
pub mod http;
pub mod inputs;
pub mod key_value;
pub mod log;
pub mod output;
pub mod outside;
pub mod process;
pub mod random;
pub mod secrets;
pub mod sql;
pub mod text;

mod calls;
mod denial;
mod interrupt;
mod mask;
mod reach;
mod refusal;
mod ungranted;
mod usage;

pub use calls::{Call, Calls};
pub use denial::{Denial, Denials};
pub use interrupt::Interrupt;
pub use mask::Masks;
pub use reach::Reach;
pub use refusal::{Abort, Refusal};
pub use ungranted::Ungranted;
pub use usage::{Use, Used, Uses};
