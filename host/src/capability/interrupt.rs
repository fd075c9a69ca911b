//! Whether an attempt must end now.
//!
//! Guest code yields by its fuel. Calls into the host cost no fuel, so the engine asks here at each of them, and
//! host functions that may take long ask while they work.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Abort, Calls};

/// The end of an attempt: a deadline, or a cancellation before it.
#[derive(Clone, Debug)]
pub struct Interrupt {
    deadline: Instant,
    cancel: CancellationToken,
    calls: Option<Calls>,
}

impl Interrupt {
    /// Ends at the deadline, or when the token is cancelled.
    pub fn new(deadline: Instant, cancel: CancellationToken) -> Self {
        Self { deadline, cancel, calls: None }
    }

    /// The same, for an attempt whose calls are timed.
    pub fn timing(self, calls: Option<Calls>) -> Self {
        Self { calls, ..self }
    }

    /// Where its calls are timed, if anywhere.
    pub fn calls(&self) -> Option<Calls> {
        self.calls.clone()
    }

    /// The guest calls the host, if it still may.
    pub fn enter(&self) -> Result<(), Abort> {
        if let Some(calls) = &self.calls {
            calls.begin();
        }
        self.check()
    }

    /// When it ends if nobody cancels.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The same cancellation, and a deadline that may be sooner.
    pub fn sooner(&self, deadline: Instant) -> Self {
        Self { deadline: deadline.min(self.deadline), cancel: self.cancel.clone(), calls: self.calls.clone() }
    }

    /// Resolves once the attempt must end.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.into()) => {}
        }
    }

    /// An error once the attempt must end.
    pub fn check(&self) -> Result<(), Abort> {
        if Instant::now() >= self.deadline || self.cancel.is_cancelled() {
            return Err(Abort::Interrupted);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_attempt_goes_on_until_its_deadline_or_its_cancellation() {
        let cancel = CancellationToken::new();
        let later = Instant::now() + Duration::from_secs(3600);
        let interrupt = Interrupt::new(later, cancel.clone());
        assert_eq!(interrupt.check(), Ok(()));
        cancel.cancel();
        assert_eq!(interrupt.check(), Err(Abort::Interrupted));
        assert_eq!(Interrupt::new(Instant::now(), CancellationToken::new()).check(), Err(Abort::Interrupted));
    }
}
