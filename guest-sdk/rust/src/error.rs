//! Why an asset stops without an output: a failure that may pass, one that will not, or nothing to make.
//!
//! It deliberately is not a [`std::error::Error`]: that is what lets `?` turn every error that is one into it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What an asset and most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an asset stops without an output.
///
/// `?` turns any [`std::error::Error`] into one, with the texts of its sources in the message. It is then permanent,
/// because the same code over the same inputs would fail in the same way, unless a [`CapabilityError`] that may pass
/// is among its sources.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// fn parse(text: &str) -> Result<u32> {
///     Ok(text.parse()?)
/// }
///
/// let error = parse("twelve").unwrap_err();
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    capability: Option<CapabilityError>,
}

/// What the host is to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Permanent,
    Retryable(Option<Duration>),
    Skip,
}

impl Error {
    /// A failure that trying again would repeat: the job fails at once, whatever its retry policy.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { kind: Kind::Permanent, message: message.into(), capability: None }
    }

    /// A failure whose cause may pass: the asset's retry policy decides when it is tried again.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Retryable(None), ..Self::permanent(message) }
    }

    /// Makes it retryable, after this long. The manifest's `cap` holds for it too.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    /// use std::time::Duration;
    ///
    /// let busy = Error::retryable("the station is writing").retry_after(Duration::from_secs(30));
    /// assert!(busy.is_retryable());
    /// ```
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { kind: Kind::Retryable(Some(wait)), ..self }
    }

    /// Puts what was being done in front of the message.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// let error = Error::permanent("no columns").context("reading `station.csv`");
    /// assert_eq!(error.to_string(), "reading `station.csv`: no columns");
    /// ```
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    /// Whether the host will try again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable(_))
    }

    /// What the host answered, where a call into it is the cause.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// let error = Error::from(CapabilityError::NotFound);
    /// assert_eq!(error.capability_error(), Some(&CapabilityError::NotFound));
    /// ```
    pub fn capability_error(&self) -> Option<&CapabilityError> {
        self.capability.as_ref()
    }

    /// As the host is to hear it.
    pub(crate) fn into_outcome(self) -> Outcome {
        match self.kind {
            Kind::Permanent => Outcome::Permanent(self.message),
            Kind::Retryable(after) => Outcome::Retryable { message: self.message, after },
            Kind::Skip => Outcome::Skipped(self.message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: StdError + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut capability = None;
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their source in their own text.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            capability = capability.or_else(|| find_capability_error(error));
            cause = error.source();
        }
        let kind = match capability {
            Some(CapabilityError::Unavailable(_) | CapabilityError::Conflict) => Kind::Retryable(None),
            _ => Kind::Permanent,
        };
        Self { kind, message, capability }
    }
}

/// An `io::Error` does not name what it wraps as its source, so it is looked into.
fn find_capability_error(error: &(dyn StdError + 'static)) -> Option<CapabilityError> {
    match error.downcast_ref::<std::io::Error>() {
        Some(wrapper) => wrapper.get_ref().and_then(|inner| inner.downcast_ref()).cloned(),
        None => error.downcast_ref().cloned(),
    }
}

/// Ends the asset without an output, because there is nothing to make; the reason is kept with the job, and whoever
/// needs this asset sees a skipped input. What was written is dropped.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// fn mean(values: &[f64]) -> Result<Json<f64>> {
///     if values.is_empty() {
///         return skip("no measurements");
///     }
///     Ok(Json(values.iter().sum::<f64>() / values.len() as f64))
/// }
///
/// assert_eq!(mean(&[]).unwrap_err().to_string(), "no measurements");
/// ```
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error { kind: Kind::Skip, ..Error::permanent(reason) })
}

/// How a call into the host ends when it does not succeed. The words are the same for every capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapabilityError {
    /// Not granted, or granted but not this. The asset is told no more; the operator is.
    Denied,
    /// Granted, and there is nothing under that name.
    NotFound,
    /// Something changed between reading and writing.
    Conflict,
    /// A bound of the grant or of the asset is reached; the text names it.
    LimitReached(String),
    /// The call makes no sense as it stands; the text says why.
    Invalid(String),
    /// The outside failed or did not answer in time.
    Unavailable(String),
}

impl fmt::Display for CapabilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied"),
            Self::NotFound => f.write_str("not found"),
            Self::Conflict => f.write_str("conflict"),
            Self::LimitReached(which) => write!(f, "limit reached: {which}"),
            Self::Invalid(why) => write!(f, "invalid: {why}"),
            Self::Unavailable(why) => write!(f, "unavailable: {why}"),
        }
    }
}

impl StdError for CapabilityError {}

impl From<CapabilityError> for std::io::Error {
    fn from(error: CapabilityError) -> Self {
        use std::io::ErrorKind;
        let kind = match error {
            CapabilityError::Denied => ErrorKind::PermissionDenied,
            CapabilityError::NotFound => ErrorKind::NotFound,
            CapabilityError::Conflict => ErrorKind::ResourceBusy,
            CapabilityError::LimitReached(_) => ErrorKind::QuotaExceeded,
            CapabilityError::Invalid(_) => ErrorKind::InvalidInput,
            CapabilityError::Unavailable(_) => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// How one call of an asset ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The output is what was written.
    Done,
    /// There was nothing to make, and why.
    Skipped(String),
    /// The cause may pass.
    Retryable {
        /// What went wrong.
        message: String,
        /// How long the asset asks to wait; its retry policy decides when absent.
        after: Option<Duration>,
    },
    /// Trying again would end the same way.
    Permanent(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("reading the archive")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn sources_are_part_of_the_message_once() {
        let error = Error::from(Outer(std::io::Error::other("broken pipe")));
        assert_eq!(error.to_string(), "reading the archive: broken pipe");
    }

    #[test]
    fn what_may_pass_is_retryable_however_deep_it_is() {
        let unavailable = CapabilityError::Unavailable("the disk".into());
        assert!(Error::from(unavailable.clone()).is_retryable());
        let wrapped = Error::from(Outer(unavailable.clone().into()));
        assert!(wrapped.is_retryable());
        assert_eq!(wrapped.capability_error(), Some(&unavailable));
        assert!(!Error::from(Outer(CapabilityError::Denied.into())).is_retryable());
    }

    #[test]
    fn context_keeps_the_kind() {
        let error = Error::retryable("busy").retry_after(Duration::from_secs(2)).context("opening");
        let after = Some(Duration::from_secs(2));
        assert_eq!(error.into_outcome(), Outcome::Retryable { message: "opening: busy".into(), after });
    }

    #[test]
    fn a_skip_is_no_failure() {
        assert_eq!(skip::<()>("empty").unwrap_err().into_outcome(), Outcome::Skipped("empty".into()));
    }
}
