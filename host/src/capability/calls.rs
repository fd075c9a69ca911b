//! When a guest called what it was granted: for traces, and only when somebody collects them.
//!
//! A guest calls one host function at a time, so the call that a use belongs to is the one that it is in: the engine
//! notes when a call begins, and the capability's own record of the use ends it. Of one attempt only the first are kept;
//! how many there were in all, the uses tell.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::Used;
use crate::limit::CALL_SPANS_MAX;

/// One call of a granted function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The interface: `files`, `http`.
    pub capability: &'static str,
    /// The function: `read`, `send`.
    pub operation: &'static str,
    /// The resource, as the operator named it. What was asked of it may be a tenant's secret, and is not here.
    pub resource: String,
    /// `ok`, or the word that the guest was told.
    pub result: &'static str,
    /// Bytes that went in or out.
    pub bytes: u64,
    /// When the guest called.
    pub started: Instant,
    /// When it was over.
    pub ended: Instant,
}

/// The calls of one attempt. Clones are the same.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Mutex<Seen>>);

#[derive(Debug)]
struct Seen {
    begun: Instant,
    calls: Vec<Call>,
}

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Seen { begun: Instant::now(), calls: Vec::new() })))
    }
}

impl Calls {
    /// The guest calls the host.
    pub fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begun = Instant::now();
    }

    /// The call was a use of this.
    pub(super) fn end(&self, capability: &'static str, used: &Used<'_>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.calls.len() < CALL_SPANS_MAX {
            let call = Call {
                capability,
                operation: used.operation,
                resource: used.resource.to_owned(),
                result: used.result,
                bytes: used.bytes,
                started: seen.begun,
                ended: Instant::now(),
            };
            seen.calls.push(call);
        }
    }

    /// All that were kept, in the order in which they ended.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Uses;

    #[test]
    fn a_flood_of_calls_leaves_the_first_ones_and_all_are_counted() {
        let calls = Calls::default();
        let mut uses = Uses::of("files").timed(Some(calls.clone()));
        for n in 0..2 * CALL_SPANS_MAX as u64 {
            calls.begin();
            uses.record(Used { resource: "shelf", operation: "read", target: "a", result: "ok", bytes: n });
        }
        let kept = calls.take();
        assert_eq!(
            kept.iter().map(|call| call.bytes).collect::<Vec<_>>(),
            (0..CALL_SPANS_MAX as u64).collect::<Vec<_>>()
        );
        assert!(kept.iter().all(|call| (call.capability, &*call.resource) == ("files", "shelf")));
        assert!(kept.windows(2).all(|two| two[0].started <= two[0].ended && two[0].ended <= two[1].started));
        assert_eq!(uses.take()[0].calls, 2 * CALL_SPANS_MAX as u64);
        assert_eq!(calls.take(), []);
    }
}
