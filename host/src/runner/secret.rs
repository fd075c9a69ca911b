//! The values of secrets, by the names that an operator registered them under.

use super::prepare::{KnownAsset, Obstacle};
use crate::capability::secret_value::SecretValue;

/// The value of a secret that a resource of the asset's version names.
///
/// No kind of resource holds one: whoever names a secret names what is not registered.
pub(super) fn find_secret(_asset: &KnownAsset, name: &str) -> Result<SecretValue, Obstacle> {
    Err(Obstacle::Final(format!("its resource names the secret `{name}`, which is not registered")))
}
