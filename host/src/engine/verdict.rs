//! How an attempt ended, as data. Errors of wasmtime stop here.

use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::limiter::Exhausted;
use crate::{
    bindings::{
        exports::flowstone::asset::materializer::Outcome,
        flowstone::asset::types::{CapabilityError, Failure},
    },
    capability::{Abort, Masks, text::message},
    limit::{INSTANTIATE_FUEL, INSTANTIATE_TIMEOUT, MESSAGE_BYTES_MAX, TABLE_ELEMENTS_MAX},
    pipeline::policy::Limits,
};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The output is what was written.
    Succeeded,
    /// The guest had nothing to make, and why.
    Skipped(String),
    /// The guest says that it failed.
    Failed {
        /// In its own words.
        message: String,
        /// Whether it asks for another attempt.
        retry: Retry,
    },
    /// The guest did what WebAssembly does not allow, and what.
    Trapped(String),
    /// It used all its fuel.
    OutOfFuel,
    /// It was refused memory, and failed.
    OutOfMemory,
    /// Its deadline passed.
    TimedOut,
    /// It wrote more than its output limit.
    OutputTooLarge,
    /// It called an interface of which its asset was granted nothing.
    Denied,
    /// Somebody cancelled it.
    Cancelled,
    /// Not the guest's fault: the job is not charged for it.
    HostFault(String),
}

/// What a guest that failed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The cause may pass: by the asset's policy, or after the given time.
    Retryable {
        /// Milliseconds to wait, if the guest named them.
        after_ms: Option<u64>,
    },
    /// Another attempt would end the same way.
    Permanent,
}

impl Verdict {
    /// The word of the design, as the database and the command line have it. A host fault has none of its own there:
    /// the job is released as if the attempt had not been.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped(_) => "skipped",
            Self::Failed { .. } => "failed",
            Self::Trapped(_) => "trapped",
            Self::OutOfFuel => "out-of-fuel",
            Self::OutOfMemory => "out-of-memory",
            Self::TimedOut => "timed-out",
            Self::OutputTooLarge => "output-too-large",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::HostFault(_) => "host-fault",
        }
    }
}

/// How the guest came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// `materialize` returned.
    Returned(Result<Outcome, Failure>),
    /// It could not be linked, instantiated or called to its end.
    Errored(wasmtime::Error),
    /// It was stopped at its deadline.
    Late,
    /// It was stopped by whoever runs it.
    Cancelled,
    /// Our own code panicked.
    Panicked(String),
}

/// What else the verdict depends on.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    pub limits: &'a Limits,
    pub is_cancelled: bool,
    pub is_output_too_large: bool,
    pub exhausted: Option<Exhausted>,
    /// Whether `materialize` had been called.
    pub is_started: bool,
    /// Of the secrets that the guest could know.
    pub masks: &'a Masks,
}

/// The verdict, and one sentence that explains it; empty where there is nothing to say.
pub(super) fn judge(ended: Ended, at: &Circumstances<'_>) -> (Verdict, String) {
    let phase = if at.is_started { "" } else { " while it was instantiated, before it was called" };
    let ended = match ended {
        Ended::Panicked(why) => return host_fault(format!("the host panicked: {why}")),
        Ended::Errored(error) => match host_trouble(&error) {
            Some(why) => return host_fault(why),
            None => Ended::Errored(error),
        },
        ended => ended,
    };
    if matches!(ended, Ended::Cancelled) || (is_interrupted(&ended) && at.is_cancelled) {
        return (Verdict::Cancelled, format!("it was cancelled{phase}"));
    }
    if at.is_output_too_large {
        let why = format!("it wrote more than its output limit of {} bytes", at.limits.output_bytes);
        return (Verdict::OutputTooLarge, why);
    }
    if matches!(ended, Ended::Late) || is_interrupted(&ended) {
        let allowed_ms = if at.is_started { u64::MAX } else { INSTANTIATE_TIMEOUT.as_millis() as u64 };
        let deadline_ms = at.limits.timeout_ms.min(allowed_ms);
        return (Verdict::TimedOut, format!("it was stopped{phase} at its deadline of {deadline_ms} ms"));
    }
    match ended {
        Ended::Returned(Ok(outcome)) => returned(outcome, at.masks),
        Ended::Returned(Err(failure)) => match at.exhausted {
            Some(exhausted) => out_of_memory(exhausted, at.limits, phase),
            None => failed(failure, at.masks),
        },
        Ended::Errored(error) => errored(&error, at, phase),
        Ended::Late | Ended::Cancelled | Ended::Panicked(_) => unreachable!("judged above"),
    }
}

fn returned(outcome: Outcome, masks: &Masks) -> (Verdict, String) {
    match outcome {
        Outcome::Done => (Verdict::Succeeded, String::new()),
        Outcome::Skipped(reason) => {
            let reason = message(&masks.apply(&reason), MESSAGE_BYTES_MAX);
            (Verdict::Skipped(reason.clone()), reason)
        }
        Outcome::Waiting(_) => permanently("gates are not supported by this host yet".into()),
    }
}

fn failed(failure: Failure, masks: &Masks) -> (Verdict, String) {
    match failure {
        Failure::Permanent(why) => permanently(message(&masks.apply(&why), MESSAGE_BYTES_MAX)),
        Failure::Retryable(retry) => {
            let why = message(&masks.apply(&retry.message), MESSAGE_BYTES_MAX);
            let retry = Retry::Retryable { after_ms: retry.after_ms };
            (Verdict::Failed { message: why.clone(), retry }, why)
        }
    }
}

/// Of a guest that goes on although a statement that was to write failed: nothing of it can be committed.
pub(super) fn spoiled(why: &CapabilityError) -> (Verdict, String) {
    let (cause, retry) = match why {
        CapabilityError::Conflict => ("a conflict".to_owned(), Retry::Retryable { after_ms: None }),
        CapabilityError::Unavailable(why) => (why.clone(), Retry::Retryable { after_ms: None }),
        CapabilityError::Denied => ("denied".to_owned(), Retry::Permanent),
        CapabilityError::NotFound => ("not found".to_owned(), Retry::Permanent),
        CapabilityError::LimitReached(why) | CapabilityError::Invalid(why) => (why.clone(), Retry::Permanent),
    };
    let message = format!("it succeeded although its transaction had failed: {cause}");
    (Verdict::Failed { message: message.clone(), retry }, message)
}

fn permanently(message: String) -> (Verdict, String) {
    (Verdict::Failed { message: message.clone(), retry: Retry::Permanent }, message)
}

fn errored(error: &wasmtime::Error, at: &Circumstances<'_>, phase: &str) -> (Verdict, String) {
    let trap = error.downcast_ref::<Trap>();
    if trap == Some(&Trap::OutOfFuel) {
        let fuel = if at.is_started { at.limits.fuel } else { INSTANTIATE_FUEL };
        return (Verdict::OutOfFuel, format!("it used all of its {fuel} units of fuel{phase}"));
    }
    if let Some(exhausted) = at.exhausted {
        return out_of_memory(exhausted, at.limits, phase);
    }
    match error.downcast_ref::<Abort>() {
        Some(Abort::Denied) => {
            (Verdict::Denied, "it called an interface of which it was granted nothing; see the denials".into())
        }
        Some(Abort::Exited(status)) => permanently(format!("it exited with status {status} instead of returning")),
        _ => {
            // Its outer layers are places in the guest's code; the innermost says what was wrong.
            let why = trap.map_or_else(|| error.root_cause().to_string(), Trap::to_string);
            let why = format!("{}{phase}", message(&at.masks.apply(&why), MESSAGE_BYTES_MAX));
            (Verdict::Trapped(why.clone()), why)
        }
    }
}

fn out_of_memory(exhausted: Exhausted, limits: &Limits, phase: &str) -> (Verdict, String) {
    let why = match exhausted {
        Exhausted::Memory => format!("it asked for more than its {} bytes of memory{phase}", limits.memory_bytes),
        Exhausted::Table => {
            format!("it asked for a table of more than {} elements{phase}", TABLE_ELEMENTS_MAX)
        }
    };
    (Verdict::OutOfMemory, why)
}

fn host_fault(why: String) -> (Verdict, String) {
    (Verdict::HostFault(why.clone()), why)
}

fn is_interrupted(ended: &Ended) -> bool {
    match ended {
        Ended::Errored(error) => error.downcast_ref() == Some(&Abort::Interrupted),
        _ => false,
    }
}

/// Why an error is ours, when it is: a capability said so, the pool ran out, or the system refused memory.
fn host_trouble(error: &wasmtime::Error) -> Option<String> {
    if let Some(Abort::HostFault(why)) = error.downcast_ref() {
        return Some(why.clone());
    }
    let is_ours = error.is::<PoolConcurrencyLimitError>() || error.is::<std::io::Error>();
    is_ours.then(|| format!("{error:#}"))
}

/// Why a component that compiled cannot be linked.
pub(super) fn link_problem(error: &wasmtime::Error) -> String {
    format!("it does not fit `flowstone:asset`: {error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::{exports::flowstone::asset::materializer, flowstone::asset::types};

    struct Case {
        cancelled: bool,
        too_large: bool,
        exhausted: Option<Exhausted>,
    }

    const PLAIN: Case = Case { cancelled: false, too_large: false, exhausted: None };

    #[track_caller]
    fn check(ended: Ended, case: Case, word: &str, explanation: &str) {
        let limits = Limits { fuel: 5, memory_bytes: 6, timeout_ms: 7, output_bytes: 8, log_bytes: 9 };
        let at = Circumstances {
            limits: &limits,
            is_cancelled: case.cancelled,
            is_output_too_large: case.too_large,
            exhausted: case.exhausted,
            is_started: true,
            masks: &Masks::default(),
        };
        let (verdict, why) = judge(ended, &at);
        assert_eq!(verdict.as_str(), word, "{why}");
        assert!(why.contains(explanation), "{why}");
    }

    fn trap(trap: Trap) -> Ended {
        Ended::Errored(trap.into())
    }

    fn abort(abort: Abort) -> Ended {
        Ended::Errored(abort.into())
    }

    #[test]
    fn what_the_guest_returns_is_its_verdict() {
        check(Ended::Returned(Ok(Outcome::Done)), PLAIN, "succeeded", "");
        check(Ended::Returned(Ok(Outcome::Skipped("a holiday".into()))), PLAIN, "skipped", "a holiday");
        let retry = types::Retry { message: "not yet\x1b".into(), after_ms: Some(5) };
        check(Ended::Returned(Err(Failure::Retryable(retry))), PLAIN, "failed", "not yet␛");
        check(Ended::Returned(Err(Failure::Permanent("no".into()))), PLAIN, "failed", "no");
        let gate = materializer::Gate {
            kind: materializer::GateKind::Approval,
            name: "g".into(),
            message: String::new(),
            timeout_ms: None,
            payload: String::new(),
        };
        check(Ended::Returned(Ok(Outcome::Waiting(gate))), PLAIN, "failed", "gates are not supported");
    }

    #[test]
    fn each_limit_has_its_verdict() {
        check(trap(Trap::OutOfFuel), PLAIN, "out-of-fuel", "5 units of fuel");
        check(Ended::Late, PLAIN, "timed-out", "7 ms");
        check(abort(Abort::Interrupted), PLAIN, "timed-out", "7 ms");
        check(trap(Trap::StackOverflow), PLAIN, "trapped", "call stack exhausted");
        check(trap(Trap::UnreachableCodeReached), PLAIN, "trapped", "unreachable");
        check(abort(Abort::Denied), PLAIN, "denied", "granted nothing");
        check(abort(Abort::Exited(0)), PLAIN, "failed", "exited with status 0");
        check(Ended::Cancelled, PLAIN, "cancelled", "cancelled");
        check(abort(Abort::Interrupted), Case { cancelled: true, ..PLAIN }, "cancelled", "cancelled");
    }

    #[test]
    fn a_guest_that_fails_for_want_of_memory_is_out_of_memory() {
        let want = |exhausted| Case { exhausted: Some(exhausted), ..PLAIN };
        check(trap(Trap::UnreachableCodeReached), want(Exhausted::Memory), "out-of-memory", "6 bytes of memory");
        check(trap(Trap::UnreachableCodeReached), want(Exhausted::Table), "out-of-memory", "table");
        let failed = Ended::Returned(Err(Failure::Permanent("malloc".into())));
        check(failed, want(Exhausted::Memory), "out-of-memory", "6 bytes");
        check(Ended::Returned(Ok(Outcome::Done)), want(Exhausted::Memory), "succeeded", "");
        check(trap(Trap::OutOfFuel), want(Exhausted::Memory), "out-of-fuel", "fuel");
    }

    #[test]
    fn too_much_output_is_the_verdict_whatever_the_guest_does_next() {
        let too_large = || Case { too_large: true, ..PLAIN };
        check(Ended::Returned(Ok(Outcome::Done)), too_large(), "output-too-large", "8 bytes");
        check(Ended::Returned(Ok(Outcome::Skipped(String::new()))), too_large(), "output-too-large", "");
        check(trap(Trap::OutOfFuel), too_large(), "output-too-large", "");
        check(Ended::Late, too_large(), "output-too-large", "");
        check(Ended::Cancelled, too_large(), "cancelled", "");
    }

    #[test]
    fn our_own_trouble_is_never_the_guests() {
        let everything = || Case { cancelled: true, too_large: true, exhausted: Some(Exhausted::Memory) };
        check(abort(Abort::HostFault("disk full".into())), everything(), "host-fault", "disk full");
        check(Ended::Panicked("oops".into()), everything(), "host-fault", "oops");
        check(Ended::Errored(std::io::Error::other("mmap").into()), PLAIN, "host-fault", "mmap");
    }

    #[test]
    fn long_messages_are_cut() {
        let limits = Limits::default();
        let at = Circumstances {
            limits: &limits,
            is_cancelled: false,
            is_output_too_large: false,
            exhausted: None,
            is_started: true,
            masks: &Masks::default(),
        };
        let failure = Failure::Permanent("x".repeat(10 * MESSAGE_BYTES_MAX));
        let (_, why) = judge(Ended::Returned(Err(failure)), &at);
        assert_eq!(why.len(), MESSAGE_BYTES_MAX);
    }
}
