//! A secret in memory: not shown by anything that prints values, and wiped when it is dropped.
//!
//! Whoever needs the bytes says so by [`SecretValue::expose`], which is easy to find in the sources.

use zeroize::Zeroizing;

/// The bytes of a secret.
#[derive(Clone)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for whoever sends or compares them. Never for a message.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "SecretValue(..) Some(\n    SecretValue(..),\n)");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
