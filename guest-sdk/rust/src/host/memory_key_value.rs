//! In a native build: buckets in memory. The attempt sees what it staged; the test sees it when the asset is done.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::memory::with;
use super::{CALL_BYTES_MAX, HostResult, ValueRecord};
use crate::error::CapabilityError;

/// Bytes of a key, as the contract has it.
const KEY_BYTES_MAX: usize = 1_024;
/// Keys that one call lists, as the contract has it.
const KEYS_PER_CALL_MAX: usize = 1_000;

/// A bucket: what is there, and how it is after the attempt.
#[derive(Default)]
pub(crate) struct Entries {
    present: BTreeMap<String, Vec<u8>>,
    /// As the attempt sees it: each value with its version.
    seen: BTreeMap<String, (Vec<u8>, u64)>,
    versions: u64,
}

impl Entries {
    pub(crate) fn new<K: Into<String>, V: AsRef<[u8]>>(values: impl IntoIterator<Item = (K, V)>) -> Self {
        let present: BTreeMap<_, _> =
            values.into_iter().map(|(key, value)| (key.into(), value.as_ref().to_vec())).collect();
        let seen = present.iter().zip(1..).map(|((key, value), version)| (key.clone(), (value.clone(), version)));
        Self { seen: seen.collect(), versions: present.len() as u64, present }
    }

    /// As the bucket is when the attempt has ended: what it wrote is dropped unless it is done.
    pub(crate) fn ended(self, is_done: bool) -> BTreeMap<String, Vec<u8>> {
        match is_done {
            true => self.seen.into_iter().map(|(key, (value, _))| (key, value)).collect(),
            false => self.present,
        }
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.versions += 1;
        self.seen.insert(key.into(), (value, self.versions));
    }
}

/// A granted bucket, by its name.
pub(crate) struct Bucket(String);

impl Bucket {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        let granted = with(|memory| memory.buckets.contains_key(resource_name));
        granted.then(|| Self(resource_name.into())).ok_or(CapabilityError::Denied)
    }

    pub(crate) fn get(&self, key: &str) -> HostResult<Option<ValueRecord>> {
        check_key(key)?;
        self.with_entries(|entries| {
            Ok(entries.seen.get(key).map(|(value, version)| ValueRecord { value: value.clone(), version: *version }))
        })
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> HostResult<()> {
        check_key(key)?;
        check_value(value)?;
        self.with_entries(|entries| entries.set(key, value.to_vec()));
        Ok(())
    }

    pub(crate) fn remove(&self, key: &str) -> HostResult<()> {
        check_key(key)?;
        self.with_entries(|entries| entries.seen.remove(key));
        Ok(())
    }

    pub(crate) fn compare_and_set(&self, key: &str, expected: Option<u64>, value: &[u8]) -> HostResult<()> {
        check_key(key)?;
        check_value(value)?;
        self.with_entries(|entries| {
            if entries.seen.get(key).map(|(_, version)| *version) != expected {
                return Err(CapabilityError::Conflict);
            }
            entries.set(key, value.to_vec());
            Ok(())
        })
    }

    pub(crate) fn increment(&self, key: &str, delta: i64) -> HostResult<()> {
        check_key(key)?;
        self.with_entries(|entries| {
            let sum = match entries.seen.get(key) {
                None => Some(delta),
                Some((text, _)) => number_of(text)?.checked_add(delta),
            };
            let sum = sum.ok_or_else(|| CapabilityError::Invalid("the sum is out of range".into()))?;
            entries.set(key, sum.to_string().into_bytes());
            Ok(())
        })
    }

    pub(crate) fn keys(&self, prefix: &str, after: Option<&str>, max: u32) -> HostResult<Vec<String>> {
        let start = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let max = (max as usize).min(KEYS_PER_CALL_MAX);
        Ok(self.with_entries(|entries| {
            let keys = entries.seen.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key.clone());
            keys.take_while(|key| key.starts_with(prefix)).take(max).collect()
        }))
    }

    fn with_entries<T>(&self, call: impl FnOnce(&mut Entries) -> T) -> T {
        with(|memory| call(memory.buckets.get_mut(&self.0).expect("it was there when the bucket was opened")))
    }
}

fn number_of(text: &[u8]) -> HostResult<i64> {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| CapabilityError::Invalid("the value is not a whole number".into()))
}

fn check_key(key: &str) -> HostResult<()> {
    match key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
        true => Err(CapabilityError::Invalid(format!("`{}` is not a key", key.escape_debug()))),
        false => Ok(()),
    }
}

fn check_value(value: &[u8]) -> HostResult<()> {
    match value.len() > CALL_BYTES_MAX {
        true => Err(CapabilityError::LimitReached("1 MiB a value".into())),
        false => Ok(()),
    }
}
