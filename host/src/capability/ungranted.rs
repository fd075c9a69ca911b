//! Interfaces of which an asset was granted nothing, although its component imports them.
//!
//! A component may hold several assets, and imports what any of them uses; `describe` runs without grants. So each
//! interface must be there for the component to start, and there is nothing behind it: the first call ends the
//! attempt. What each of them answers is in the folder of its capability.

use super::{Abort, Denial, Denials, Refusal, denial::remedy};
use crate::{bindings::flowstone::asset::types, pipeline::asset::Capability};

/// Nothing, of every kind.
#[derive(Debug, Default)]
pub struct Ungranted {
    asset: String,
    denials: Denials,
}

impl Ungranted {
    /// Of this asset.
    pub fn new(asset: String) -> Self {
        Self { asset, denials: Denials::default() }
    }

    /// What it asked for.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// Records what was asked for; the attempt ends with it.
    pub fn deny(&mut self, capability: Capability, resource: &str, operation: &str) -> Refusal {
        let remedy = remedy(&self.asset, resource, capability.grant_example());
        self.denials.record(capability.name(), resource, operation, "", remedy);
        Abort::Denied.into()
    }
}

impl types::Host for Ungranted {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_ends_the_attempt_and_names_the_grant() {
        let mut ungranted = Ungranted::new("raw".into());
        let refusal = ungranted.deny(Capability::Files, "station", "open");
        assert!(matches!(refusal, Refusal::Abort(Abort::Denied)));
        let denials = ungranted.take_denials();
        assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { station = { access = "read", paths = ["**"] } }"#);
    }
}
