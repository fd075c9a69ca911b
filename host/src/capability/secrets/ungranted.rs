//! `secrets` for an asset that was granted none: the first call ends the attempt.

use crate::{
    bindings::flowstone::asset::secrets,
    capability::{Refusal, Ungranted},
    pipeline::asset::Capability,
};

impl secrets::Host for Ungranted {
    fn reveal(&mut self, resource: String) -> Result<Vec<u8>, Refusal> {
        Err(self.deny(Capability::Secret, &resource, "reveal"))
    }
}
