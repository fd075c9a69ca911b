//! `flowstone:asset/secrets`: secrets that an operator lets the code read. Only by grant.
//!
//! The other right, to use a secret without seeing it, needs nothing here: the host puts it at the edge of an HTTP
//! resource.

mod ungranted;

use super::{Denial, Denials, Refusal, Use, Used, Uses, denial::remedy};
use crate::{
    bindings::flowstone::asset::{secrets, types},
    pipeline::asset::Capability,
    secret::SecretValue,
};

/// A secret that may be revealed.
#[derive(Clone, Debug)]
pub struct GrantedSecret {
    /// The resource's name.
    pub name: String,
    /// What it holds.
    pub value: SecretValue,
}

impl GrantedSecret {
    /// For [`super::Masks::of`].
    pub fn named(&self) -> (&str, &SecretValue) {
        (&self.name, &self.value)
    }
}

/// The secrets of one attempt.
#[derive(Debug)]
pub struct Secrets {
    asset: String,
    granted: Vec<GrantedSecret>,
    denials: Denials,
    uses: Uses,
}

impl Secrets {
    /// Those that an attempt of this asset may reveal.
    pub fn new(asset: String, granted: Vec<GrantedSecret>) -> Self {
        Self { asset, granted, denials: Denials::default(), uses: Uses::of("secret") }
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// Which were revealed, and how often.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.uses.take()
    }
}

impl secrets::Host for Secrets {
    fn reveal(&mut self, resource: String) -> Result<Vec<u8>, Refusal> {
        let Some(secret) = self.granted.iter().find(|secret| secret.name == resource) else {
            let remedy = remedy(&self.asset, &resource, Capability::Secret.grant_example());
            self.denials.record("secret", &resource, "reveal", "", remedy);
            return Err(types::CapabilityError::Denied.into());
        };
        let used = Used { resource: &secret.name, operation: "reveal", target: "", result: "ok", bytes: 0 };
        self.uses.record(used);
        Ok(secret.value.expose().to_vec())
    }
}

impl types::Host for Secrets {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

#[cfg(test)]
mod tests {
    use secrets::Host as _;

    use super::*;

    fn secrets() -> Secrets {
        let value = SecretValue::new(b"hunter2!".into());
        Secrets::new("report".into(), vec![GrantedSecret { name: "token".into(), value }])
    }

    #[test]
    fn a_granted_secret_is_revealed_and_each_time_is_recorded_without_it() {
        let mut secrets = secrets();
        assert_eq!(secrets.reveal("token".into()).unwrap(), b"hunter2!");
        assert_eq!(secrets.reveal("token".into()).unwrap(), b"hunter2!");
        let uses = secrets.take_uses();
        assert_eq!((uses.len(), uses[0].calls, uses[0].bytes), (1, 2, 0));
        assert!(!serde_json::to_string(&uses).unwrap().contains("hunter2"));
    }

    #[test]
    fn another_secret_is_denied_and_the_operator_learns_how_to_grant_it() {
        let mut secrets = secrets();
        let denied = secrets.reveal("other".into());
        assert!(matches!(denied, Err(Refusal::Guest(types::CapabilityError::Denied))));
        assert_eq!(secrets.take_denials()[0].remedy, "[assets.report] grants = { other = { reveal = true } }");
    }

    #[test]
    fn a_flood_of_names_costs_a_bounded_amount() {
        let mut secrets = secrets();
        for n in 0..10_000 {
            secrets.reveal(format!("{n}{}", "x".repeat(1_000))).unwrap_err();
        }
        assert!(serde_json::to_string(&secrets.take_denials()).unwrap().len() < 100_000);
    }
}
