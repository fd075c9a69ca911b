//! Bytes that are never shown: secrets in memory, and how they are sealed at rest.
//!
//! A secret is wiped when its last holder drops it, and has no way into a log: its `Debug` shows nothing, and it has no
//! `Display`. At rest it is sealed with XChaCha20-Poly1305 under a key of the operator's; the tenant and the name are
//! authenticated with it, so that a row cannot stand in for another.

use std::{collections::BTreeMap, fmt, sync::Arc};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::limit::SECRET_BYTES_MAX;

/// A secret's bytes.
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// From bytes that nobody else should keep.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes themselves: for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What is wrong with it as a secret.
    pub fn mistake(&self) -> Option<&'static str> {
        match self.0.len() {
            0 => Some("it is empty"),
            1..=SECRET_BYTES_MAX => None,
            _ => Some("it is longer than 16 KiB"),
        }
    }
}

/// Never its bytes, not even how many.
impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// Where this process finds the secrets that resources name.
#[derive(Clone, Debug, Default)]
pub struct SecretSources {
    /// Of the environment, by the variable's name: those that begin with [`SECRET_VARIABLE_PREFIX`].
    pub variables: BTreeMap<String, SecretValue>,
    /// What opens sealed secrets, where there is a key.
    pub seal_key: Option<SealKey>,
}

/// Only variables of this beginning can be secrets: a resource cannot reach another part of the environment.
pub const SECRET_VARIABLE_PREFIX: &str = "FLOWSTONE_SECRET_";

/// An operator's key, of 32 bytes.
#[derive(Clone)]
pub struct SealKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text is no key.
    #[error("a seal key is 64 hexadecimal digits")]
    NotAKey,
    /// The system has no randomness to give.
    #[error("the system has no randomness to give: {0}")]
    Random(String),
    /// It was sealed under another key, for another name, or is damaged.
    #[error("it was sealed under another key (`{sealed_by}`, not `{key}`), or is damaged")]
    Opening {
        /// The id of the key that it names.
        sealed_by: String,
        /// The id of the key that is there.
        key: String,
    },
}

impl SealKey {
    /// A new one.
    pub fn random() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(|error| SealError::Random(error.to_string()))?;
        Ok(Self(Arc::new(key)))
    }

    /// From 64 hexadecimal digits; white space around them does not count.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let digits = text.trim().as_bytes();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if digits.len() != 2 * KEY_BYTES {
            return Err(SealError::NotAKey);
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: u8| (c as char).to_digit(16).ok_or(SealError::NotAKey);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Ok(Self(Arc::new(key)))
    }

    /// As 64 hexadecimal digits: for the file that keeps it.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Tells keys apart without telling anything about them.
    pub fn id(&self) -> String {
        let digest = Sha256::new().chain_update(b"flowstone seal key\0").chain_update(**self.0).finalize();
        digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals a secret of a tenant's: a random nonce, then what is sealed.
    pub fn seal(&self, tenant: &str, name: &str, value: &SecretValue) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| SealError::Random(error.to_string()))?;
        let payload = Payload { msg: value.expose(), aad: &context(tenant, name) };
        let sealed = self.cipher().encrypt(&nonce.into(), payload).expect("no message of some kilobytes is too long");
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`Self::seal`] sealed for the same tenant and name; `sealed_by` is the id of the key it was sealed under.
    pub fn open(&self, tenant: &str, name: &str, sealed: &[u8], sealed_by: &str) -> Result<SecretValue, SealError> {
        let damaged = || SealError::Opening { sealed_by: sealed_by.to_owned(), key: self.id() };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| damaged())?;
        let payload = Payload { msg: sealed, aad: &context(tenant, name) };
        self.cipher().decrypt(&nonce.into(), payload).map(SecretValue::new).map_err(|_| damaged())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(**self.0).into())
    }
}

/// Never the key.
impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id())
    }
}

/// What is authenticated beside the secret. A tenant's name cannot hold the NUL that ends it.
fn context(tenant: &str, name: &str) -> Vec<u8> {
    [b"flowstone secret 1\0", tenant.as_bytes(), b"\0", name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.into())
    }

    #[test]
    fn what_is_sealed_is_opened_under_the_same_key_tenant_and_name_only() {
        let (key, other) = (SealKey::random().unwrap(), SealKey::random().unwrap());
        let sealed = key.seal("default", "token", &value("hunter2")).unwrap();
        let open = |key: &SealKey, tenant, name, sealed: &[u8]| {
            key.open(tenant, name, sealed, "0badc0de").map(|value| value.expose().to_vec()).ok()
        };
        assert_eq!(open(&key, "default", "token", &sealed).as_deref(), Some(&b"hunter2"[..]));
        assert_eq!(open(&other, "default", "token", &sealed), None);
        assert_eq!(open(&key, "acme", "token", &sealed), None);
        assert_eq!(open(&key, "default", "tokens", &sealed), None);
        for damaged in 0..sealed.len() {
            let mut sealed = sealed.clone();
            sealed[damaged] ^= 1;
            assert_eq!(open(&key, "default", "token", &sealed), None, "byte {damaged}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&key, "default", "token", &sealed[..length]), None);
        }
    }

    #[test]
    fn the_same_secret_is_sealed_otherwise_each_time() {
        let key = SealKey::random().unwrap();
        let seal = || key.seal("default", "token", &value("hunter2")).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn keys_are_written_and_read_as_hexadecimal_digits() {
        let key = SealKey::random().unwrap();
        let read = SealKey::from_hex(&format!(" {}\n", *key.to_hex())).unwrap();
        assert_eq!(read.id(), key.id());
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66), &"é".repeat(32)] {
            assert!(SealKey::from_hex(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_that_is_printed_for_debugging_shows_a_secret() {
        let key = SealKey::from_hex(&"ab".repeat(32)).unwrap();
        let variables = BTreeMap::from([("FLOWSTONE_SECRET_TOKEN".to_owned(), value("hunter2"))]);
        let shown = format!("{:?}", SecretSources { variables, seal_key: Some(key) });
        assert!(!shown.contains("hunter2") && !shown.contains("abab") && !shown.contains("7"), "{shown}");
    }
}
