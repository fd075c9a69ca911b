//! How a call of a guest into the host ends when it does not succeed: refused, or the attempt is over.
//!
//! A refusal goes back to the guest as a word of the WIT package. An [`Abort`] does not: it ends the attempt,
//! because the guest could do nothing about it or must not go on.

use crate::bindings::flowstone::asset::types::CapabilityError;

/// Why a call did not succeed.
#[derive(Debug)]
pub enum Refusal {
    /// The guest is told.
    Guest(CapabilityError),
    /// The attempt ends here.
    Abort(Abort),
}

/// Why the attempt ends although the guest did not fail by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abort {
    /// The deadline has passed, or somebody cancelled.
    #[error("interrupted")]
    Interrupted,
    /// The asset called an interface of which it was granted nothing.
    #[error("not granted")]
    Denied,
    /// The guest ended its process: an asset has none to end.
    #[error("exited with status {0}")]
    Exited(u8),
    /// Our own trouble, as a chain of causes.
    #[error("{0}")]
    HostFault(String),
}

impl Refusal {
    /// The word that is recorded for it: what the guest is told, or how the attempt ends.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Guest(CapabilityError::Denied) | Self::Abort(Abort::Denied) => "denied",
            Self::Guest(CapabilityError::NotFound) => "not-found",
            Self::Guest(CapabilityError::Conflict) => "conflict",
            Self::Guest(CapabilityError::LimitReached(_)) => "limit-reached",
            Self::Guest(CapabilityError::Invalid(_)) => "invalid",
            Self::Guest(CapabilityError::Unavailable(_)) => "unavailable",
            Self::Abort(Abort::Interrupted) => "interrupted",
            Self::Abort(Abort::Exited(_) | Abort::HostFault(_)) => "aborted",
        }
    }

    /// The call makes no sense as it stands.
    pub fn invalid(why: impl Into<String>) -> Self {
        CapabilityError::Invalid(why.into()).into()
    }

    /// A bound is reached.
    pub fn limit_reached(which: impl Into<String>) -> Self {
        CapabilityError::LimitReached(which.into()).into()
    }

    /// Our own trouble: the attempt ends, and is not charged to the job.
    pub fn host_fault(error: &dyn std::error::Error) -> Self {
        Self::Abort(Abort::host_fault(error))
    }

    /// What the guest is told, or the trap that ends it.
    pub fn into_guest(self) -> wasmtime::Result<CapabilityError> {
        match self {
            Self::Guest(error) => Ok(error),
            Self::Abort(abort) => Err(abort.into()),
        }
    }
}

impl Abort {
    /// The error and its causes as one sentence.
    pub fn host_fault(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        Self::HostFault(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
    }
}

impl From<CapabilityError> for Refusal {
    fn from(error: CapabilityError) -> Self {
        Self::Guest(error)
    }
}

impl From<Abort> for Refusal {
    fn from(abort: Abort) -> Self {
        Self::Abort(abort)
    }
}
