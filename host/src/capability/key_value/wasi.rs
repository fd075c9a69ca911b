//! `wasi:keyvalue`, for code that expects a standard: both drafts that toolchains emit, over the same buckets.
//!
//! A draft matches only exactly, so each is linked under its own version; they differ in cursors, in the type of a
//! counter, and in that the second has comparisons. `increment` returns the sum here, so it reads: jobs that count at
//! the same time wait for each other, as they do not with our own interface.

use std::collections::{BTreeMap, HashMap};

use wasmtime::component::Resource;

use super::KeyValue;
use crate::{
    bindings::flowstone::asset::types::CapabilityError,
    capability::Refusal,
    limit::{CHUNK_BYTES_MAX, COMPARISONS_OPEN_MAX, KEYS_PER_CALL_MAX},
    pipeline::key_value::add,
};

/// `wasi:keyvalue@0.2.0-draft`.
pub(super) mod draft {
    pub use crate::bindings::wasi_keyvalue::wasi::keyvalue0_2_0_draft::{atomics, batch, store};

    use super::{CapabilityError, Refusal};

    pub fn error(refusal: Refusal) -> wasmtime::Result<store::Error> {
        Ok(match refusal.into_guest()? {
            CapabilityError::Denied => store::Error::AccessDenied,
            other => store::Error::Other(super::words(other)),
        })
    }
}

/// `wasi:keyvalue@0.2.0-draft2`.
pub(super) mod draft2 {
    pub use crate::bindings::wasi_keyvalue::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};

    use super::{CapabilityError, Refusal};

    pub fn error(refusal: Refusal) -> wasmtime::Result<store::Error> {
        Ok(match refusal.into_guest()? {
            CapabilityError::Denied => store::Error::AccessDenied,
            other => store::Error::Other(super::words(other)),
        })
    }
}

fn words(error: CapabilityError) -> String {
    match error {
        CapabilityError::Denied => "denied".to_owned(),
        CapabilityError::NotFound => "not found".to_owned(),
        CapabilityError::Conflict => "conflict".to_owned(),
        CapabilityError::LimitReached(which) => format!("limit reached: {which}"),
        CapabilityError::Invalid(why) => format!("invalid: {why}"),
        CapabilityError::Unavailable(why) => format!("unavailable: {why}"),
    }
}

/// A key and the version that it had when it was looked at: `cas` of the second draft.
#[derive(Debug)]
pub struct Comparison {
    bucket: u32,
    key: String,
    value: Option<Vec<u8>>,
    version: Option<u64>,
}

/// What `wasi:keyvalue` needs beside the buckets.
#[derive(Default)]
pub(super) struct Wasi {
    /// By handle.
    comparisons: BTreeMap<u32, Comparison>,
    /// The next handle: handles are not used again.
    next: u32,
    /// The last key of each page that had a next one: the first draft's cursors are numbers.
    cursors: Vec<String>,
    cursor_of: HashMap<String, u64>,
}

impl Wasi {
    fn comparison(&self, handle: u32) -> Result<&Comparison, Refusal> {
        self.comparisons.get(&handle).ok_or_else(|| Refusal::invalid("the comparison is closed"))
    }

    /// The number that stands for a key. A page took a question out of a bounded number, so these are too.
    fn cursor(&mut self, key: String) -> u64 {
        let cursors = &mut self.cursors;
        *self.cursor_of.entry(key).or_insert_with_key(|key| {
            cursors.push(key.clone());
            cursors.len() as u64 - 1
        })
    }
}

impl KeyValue {
    /// A page, and the last key of it if there may be more.
    async fn page(&mut self, bucket: u32, after: Option<&str>) -> Result<(Vec<String>, Option<String>), Refusal> {
        let keys = self.list(bucket, "", after, KEYS_PER_CALL_MAX).await?;
        let last = (keys.len() == KEYS_PER_CALL_MAX).then(|| keys.last().cloned()).flatten();
        Ok((keys, last))
    }

    async fn values(&mut self, bucket: u32, keys: Vec<String>) -> Result<Vec<(String, Option<Vec<u8>>)>, Refusal> {
        check_batch(keys.len())?;
        let (mut found, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let value = self.read(bucket, &key).await?.map(|found| found.value);
            bytes += value.as_ref().map_or(0, Vec::len);
            if bytes > CHUNK_BYTES_MAX {
                return Err(Refusal::limit_reached(format!("at most {CHUNK_BYTES_MAX} bytes in one call")));
            }
            found.push((key, value));
        }
        Ok(found)
    }

    /// Adds, and says what there is then.
    async fn sum(&mut self, bucket: u32, key: &str, delta: i64) -> Result<i64, Refusal> {
        let current = self.read(bucket, key).await?;
        let sum = add(current.as_ref().map(|found| &found.value[..]), delta);
        let sum = sum.map_err(|error| Refusal::invalid(error.to_string()))?;
        self.count_up(bucket, key, delta)?;
        Ok(sum)
    }

    async fn compare(&mut self, bucket: u32, key: String) -> Result<Resource<Comparison>, Refusal> {
        if self.wasi.comparisons.len() >= COMPARISONS_OPEN_MAX {
            return Err(Refusal::limit_reached(format!("at most {COMPARISONS_OPEN_MAX} comparisons are open at once")));
        }
        let (value, version) = self.read(bucket, &key).await?.map(|found| (found.value, found.version)).unzip();
        let handle = self.wasi.next;
        self.wasi.next = handle.checked_add(1).ok_or_else(|| Refusal::limit_reached("comparisons"))?;
        self.wasi.comparisons.insert(handle, Comparison { bucket, key, value, version });
        Ok(Resource::new_own(handle))
    }
}

fn check_batch(keys: usize) -> Result<(), Refusal> {
    if keys > KEYS_PER_CALL_MAX {
        return Err(Refusal::invalid(format!("{keys} keys in one call, more than {KEYS_PER_CALL_MAX}")));
    }
    Ok(())
}

/// What both drafts have in common.
macro_rules! buckets {
    ($draft:ident) => {
        impl $draft::store::Host for KeyValue {
            async fn open(&mut self, identifier: String) -> Result<Resource<$draft::store::Bucket>, Refusal> {
                self.find(&identifier).map(Resource::new_own)
            }

            fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<$draft::store::Error> {
                $draft::error(refusal)
            }
        }
    };
}

/// See [`buckets`]: the methods of a bucket, but for its listing.
macro_rules! bucket_methods {
    ($draft:ident) => {
        async fn get(
            &mut self,
            bucket: Resource<$draft::store::Bucket>,
            key: String,
        ) -> Result<Option<Vec<u8>>, Refusal> {
            Ok(self.read(bucket.rep(), &key).await?.map(|found| found.value))
        }

        async fn set(
            &mut self,
            bucket: Resource<$draft::store::Bucket>,
            key: String,
            value: Vec<u8>,
        ) -> Result<(), Refusal> {
            self.write(bucket.rep(), &key, value)
        }

        async fn delete(&mut self, bucket: Resource<$draft::store::Bucket>, key: String) -> Result<(), Refusal> {
            self.erase(bucket.rep(), &key)
        }

        async fn exists(&mut self, bucket: Resource<$draft::store::Bucket>, key: String) -> Result<bool, Refusal> {
            Ok(self.read(bucket.rep(), &key).await?.is_some())
        }

        async fn drop(&mut self, _bucket: Resource<$draft::store::Bucket>) -> wasmtime::Result<()> {
            Ok(())
        }
    };
}

/// See [`buckets`]: what writes many.
macro_rules! batch_methods {
    ($draft:ident) => {
        async fn set_many(
            &mut self,
            bucket: Resource<$draft::store::Bucket>,
            values: Vec<(String, Vec<u8>)>,
        ) -> Result<(), Refusal> {
            check_batch(values.len())?;
            values.into_iter().try_for_each(|(key, value)| self.write(bucket.rep(), &key, value))
        }

        async fn delete_many(
            &mut self,
            bucket: Resource<$draft::store::Bucket>,
            keys: Vec<String>,
        ) -> Result<(), Refusal> {
            check_batch(keys.len())?;
            keys.iter().try_for_each(|key| self.erase(bucket.rep(), key))
        }
    };
}

buckets!(draft);
buckets!(draft2);

impl draft::store::HostBucket for KeyValue {
    bucket_methods!(draft);

    async fn list_keys(
        &mut self,
        bucket: Resource<draft::store::Bucket>,
        cursor: Option<u64>,
    ) -> Result<draft::store::KeyResponse, Refusal> {
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let known = usize::try_from(cursor).ok().and_then(|cursor| self.wasi.cursors.get(cursor));
                Some(known.cloned().ok_or_else(|| Refusal::invalid("no page ended with this cursor"))?)
            }
        };
        let (keys, last) = self.page(bucket.rep(), after.as_deref()).await?;
        Ok(draft::store::KeyResponse { keys, cursor: last.map(|last| self.wasi.cursor(last)) })
    }
}

impl draft2::store::HostBucket for KeyValue {
    bucket_methods!(draft2);

    async fn list_keys(
        &mut self,
        bucket: Resource<draft2::store::Bucket>,
        cursor: Option<String>,
    ) -> Result<draft2::store::KeyResponse, Refusal> {
        let (keys, cursor) = self.page(bucket.rep(), cursor.as_deref()).await?;
        Ok(draft2::store::KeyResponse { keys, cursor })
    }
}

impl draft::batch::Host for KeyValue {
    batch_methods!(draft);

    async fn get_many(
        &mut self,
        bucket: Resource<draft::store::Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Refusal> {
        let found = self.values(bucket.rep(), keys).await?;
        Ok(found.into_iter().map(|(key, value)| Some((key, value?))).collect())
    }
}

impl draft2::batch::Host for KeyValue {
    batch_methods!(draft2);

    async fn get_many(
        &mut self,
        bucket: Resource<draft2::store::Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, Refusal> {
        self.values(bucket.rep(), keys).await
    }
}

impl draft::atomics::Host for KeyValue {
    async fn increment(
        &mut self,
        bucket: Resource<draft::store::Bucket>,
        key: String,
        delta: u64,
    ) -> Result<u64, Refusal> {
        let out_of_range = || Refusal::invalid("a counter is a signed number of 64 bits, and here never negative");
        let delta = i64::try_from(delta).map_err(|_| out_of_range())?;
        let current = self.read(bucket.rep(), &key).await?;
        let before = add(current.as_ref().map(|found| &found.value[..]), 0);
        if before.is_ok_and(|number| number < 0) {
            return Err(out_of_range());
        }
        let sum = self.sum(bucket.rep(), &key, delta).await?;
        u64::try_from(sum).map_err(|_| out_of_range())
    }
}

impl draft2::atomics::Host for KeyValue {
    async fn increment(
        &mut self,
        bucket: Resource<draft2::store::Bucket>,
        key: String,
        delta: i64,
    ) -> Result<i64, Refusal> {
        self.sum(bucket.rep(), &key, delta).await
    }

    async fn swap(
        &mut self,
        cas: Resource<Comparison>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), draft2::atomics::CasError>> {
        let Some(compared) = self.wasi.comparisons.remove(&cas.rep()) else {
            let error = draft2::error(Refusal::invalid("the comparison is closed"))?;
            return Ok(Err(draft2::atomics::CasError::StoreError(error)));
        };
        let Comparison { bucket, key, version, .. } = compared;
        let refusal = match self.replace(bucket, &key, version, value).await {
            Ok(()) => return Ok(Ok(())),
            Err(refusal) => refusal,
        };
        // Looked at anew, for the guest to try again.
        let refusal = match refusal {
            Refusal::Guest(CapabilityError::Conflict) => match self.compare(bucket, key).await {
                Ok(again) => return Ok(Err(draft2::atomics::CasError::CasFailed(again))),
                Err(refusal) => refusal,
            },
            refusal => refusal,
        };
        Ok(Err(draft2::atomics::CasError::StoreError(draft2::error(refusal)?)))
    }
}

impl draft2::atomics::HostCas for KeyValue {
    async fn new(
        &mut self,
        bucket: Resource<draft2::store::Bucket>,
        key: String,
    ) -> Result<Resource<Comparison>, Refusal> {
        self.compare(bucket.rep(), key).await
    }

    async fn current(&mut self, cas: Resource<Comparison>) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(self.wasi.comparison(cas.rep())?.value.clone())
    }

    async fn drop(&mut self, cas: Resource<Comparison>) -> wasmtime::Result<()> {
        self.wasi.comparisons.remove(&cas.rep());
        Ok(())
    }
}
