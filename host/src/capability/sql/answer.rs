//! What the guest is told of a failure in a database, and what the operator is.
//!
//! A database's own words are repeated, neutral and cut: they are about the guest's statement. Words about the
//! connection are not: those are about the operator's settings, and go to the log.

use super::{
    pool::ConnectError,
    transaction::Failure,
    wire::{ServerError, WireError},
};
use crate::bindings::flowstone::asset::types::CapabilityError;

/// A failure, as it is told.
#[derive(Debug)]
pub struct Told {
    /// The guest.
    pub guest: CapabilityError,
    /// The operator, where something was refused that might have been granted.
    pub denial: Option<Remedy>,
}

/// What would permit what was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A grant that may write.
    ReadWrite,
    /// These words.
    Words(String),
}

/// Tells a failure.
pub fn tell(failure: &Failure, statement_timeout_ms: u64) -> Told {
    let guest = |guest| Told { guest, denial: None };
    let unavailable = |why: &str| guest(CapabilityError::Unavailable(why.to_owned()));
    let limit = |which: String| guest(CapabilityError::LimitReached(which));
    let denied = |why: String| Told { guest: CapabilityError::Denied, denial: Some(Remedy::Words(why)) };
    match failure {
        Failure::Connect(ConnectError::Unfit(why)) => denied(why.clone()),
        Failure::Connect(error @ (ConnectError::Exhausted | ConnectError::Slow)) => unavailable(&error.to_string()),
        Failure::Connect(ConnectError::Wire(error)) => {
            tracing::warn!(error = error as &dyn std::error::Error, "a database cannot be reached");
            unavailable("the database cannot be reached")
        }
        Failure::Wire(WireError::Server(error)) => tell_refusal(error, statement_timeout_ms),
        Failure::Wire(error @ (WireError::TooLarge | WireError::Flood)) => limit(error.to_string()),
        Failure::Wire(error @ (WireError::Io(_) | WireError::Protocol(_))) => {
            tracing::warn!(error = error as &dyn std::error::Error, "a connection to a database was lost");
            unavailable("the connection to the database was lost")
        }
        Failure::Unpinned(_) | Failure::Ended => denied(format!("none: {failure}")),
        Failure::Unread => limit(failure.to_string()),
    }
}

/// What a statement may take.
pub fn too_slow(statement_timeout_ms: u64) -> CapabilityError {
    CapabilityError::LimitReached(format!("a statement may take {statement_timeout_ms} ms"))
}

/// By the class of its code: the first two letters.
fn tell_refusal(error: &ServerError, statement_timeout_ms: u64) -> Told {
    let guest = |guest| Told { guest, denial: None };
    match (error.code.get(..2).unwrap_or_default(), &*error.code) {
        (_, "42501") => {
            let why = format!("none here: in the database, grant it to the role ({})", error.message);
            Told { guest: CapabilityError::Denied, denial: Some(Remedy::Words(why)) }
        }
        (_, "25006") => Told { guest: CapabilityError::Denied, denial: Some(Remedy::ReadWrite) },
        (_, "57014") => guest(too_slow(statement_timeout_ms)),
        ("40", _) => guest(CapabilityError::Conflict),
        // Locks that others hold, the server going or out of something, and its own defects.
        (_, "55P03") | ("08" | "53" | "57" | "58" | "XX", _) => guest(CapabilityError::Unavailable(error.to_string())),
        ("54", _) => guest(CapabilityError::LimitReached(error.to_string())),
        _ => guest(CapabilityError::Invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expected: &str) {
        let error = ServerError { code: code.into(), message: "why".into() };
        let told = tell(&Failure::Wire(WireError::Server(error)), 7);
        assert_eq!(format!("{:?}", told.guest), format!("CapabilityError::{expected}"), "{code}");
    }

    #[test]
    fn each_class_of_errors_has_its_word() {
        check("42P01", r#"Invalid("42P01: why")"#);
        check("22012", r#"Invalid("22012: why")"#);
        check("23505", r#"Invalid("23505: why")"#);
        check("42501", "Denied");
        check("25006", "Denied");
        check("40001", "Conflict");
        check("40P01", "Conflict");
        check("55P03", r#"Unavailable("55P03: why")"#);
        check("57P01", r#"Unavailable("57P01: why")"#);
        check("53300", r#"Unavailable("53300: why")"#);
        check("57014", r#"LimitReached("a statement may take 7 ms")"#);
        check("54001", r#"LimitReached("54001: why")"#);
        check("", r#"Invalid(": why")"#);
    }

    #[test]
    fn the_guest_learns_nothing_of_the_connection() {
        let refused = ServerError { code: "28P01".into(), message: "no password for hunter2@db".into() };
        for failure in [
            Failure::Connect(ConnectError::Wire(WireError::Server(refused))),
            Failure::Connect(ConnectError::Wire(std::io::Error::other("10.0.0.7").into())),
            Failure::Wire(std::io::Error::other("10.0.0.7").into()),
            Failure::Connect(ConnectError::Unfit("login me".into())),
        ] {
            let told = format!("{:?}", tell(&failure, 7).guest);
            assert!(!["hunter2", "10.0", "login"].iter().any(|word| told.contains(word)), "{told}");
        }
    }
}
