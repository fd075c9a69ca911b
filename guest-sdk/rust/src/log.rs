//! What an asset says while it runs: lines with a level and fields, kept with the attempt.
//!
//! Logging never fails. Past the asset's log limit, lines are counted and dropped.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! let (kept, dropped) = (29, 2);
//! log::info!("kept {kept} rows");
//! log::warn!(dropped = dropped, reason = "no date", "left rows out");
//! ```

use std::fmt;

use crate::host;

pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever mends the asset.
    Debug,
    /// What was done.
    Info,
    /// Something was not as it should be, and the asset went on.
    Warn,
    /// Why the asset stops.
    Error,
}

/// One line, as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.level, self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Writes one line. The macros of this module are the shorter way.
///
/// ```
/// use flowstone_sdk::log::{self, Level};
///
/// log::write(Level::Info, "counted", &[("rows".into(), "12".into())]);
/// ```
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    host::write_log(level, message, fields);
}

/// Fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($name:ident = $value:expr,)* $message:literal $($arguments:tt)*) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($message $($arguments)*),
            &[$((::std::string::String::from(::std::stringify!($name)), ::std::string::ToString::to_string(&$value))),*],
        )
    };
}

/// Writes a line at level trace: fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) }; }

/// Writes a line at level debug: fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) }; }

/// Writes a line at level info: fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($line:tt)+) => { $crate::__log!(Info, $($line)+) }; }

/// Writes a line at level warn: fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) }; }

/// Writes a line at level error: fields as `name = value`, then a message as `format!` takes it.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($line:tt)+) => { $crate::__log!(Error, $($line)+) }; }
