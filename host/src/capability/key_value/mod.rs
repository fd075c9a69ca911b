//! `flowstone:asset/key-value` and `wasi:keyvalue`: granted buckets. Only by grant.
//!
//! Reads come through a [`BucketReader`], and writes are staged: what an attempt read and what it wants written are
//! values when it is over, for the commit to check and to carry out. No transaction is open meanwhile. What the grant
//! does not name is denied before anybody is asked whether it exists.

mod ungranted;
mod view;
mod wasi;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use wasmtime::component::Resource;

pub use self::wasi::Comparison;
use self::{
    view::{Questions, View},
    wasi::Wasi,
};
use super::{
    Denial, Denials, Interrupt, Masks, Refusal, Use, Used, Uses,
    denial::{remedy, toml_text},
    outside::OutsideRead,
    text::truncate,
};
use crate::{
    bindings::flowstone::asset::{key_value as wit, types},
    limit::DENIED_NAME_BYTES_MAX,
    pipeline::{
        asset::Capability,
        key_value::{BucketGrant, KeyWrite, key_mistake},
        resource::Access,
    },
};

/// A bucket that the attempt may use.
#[derive(Debug)]
pub struct GrantedBucket {
    /// What may be done with it, and under which name.
    pub grant: BucketGrant,
    /// Bytes of a value that it takes.
    pub value_bytes_max: u64,
    /// Where it is.
    pub reader: Arc<dyn BucketReader>,
}

/// What reading is on its way to. An error is the host's own trouble.
pub type Reading<'r, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'r>>;

/// One bucket as it is now. The capability does not know where it is.
pub trait BucketReader: Send + Sync + fmt::Debug {
    /// The value of a key.
    fn get(&self, key: String) -> Reading<'_, Option<StoredValue>>;

    /// At most `max` keys, sorted bytewise, from this one on.
    fn list(&self, from: KeyBound, max: usize) -> Reading<'_, StoredKeys>;
}

/// Where a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyBound {
    /// With this key.
    At(String),
    /// Behind it.
    After(String),
}

/// A value and which one it is: no two writes of a key have the same version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredValue {
    /// The bytes.
    pub value: Vec<u8>,
    /// Positive.
    pub version: i64,
}

/// Keys, and which set of keys they are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKeys {
    /// In order.
    pub keys: Vec<String>,
    /// Of the whole bucket's keys: another one once a key has come or gone.
    pub version: i64,
}

/// What an attempt read in one bucket, and what it wants written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEffects {
    /// The resource.
    pub resource: String,
    /// Each key that was read, with the version that was there; none where nothing was.
    pub reads: Vec<(String, Option<i64>)>,
    /// The set of keys, if it was listed.
    pub listed: Option<i64>,
    /// By key, in order.
    pub writes: Vec<(String, KeyWrite)>,
}

/// The buckets of one attempt.
pub struct KeyValue {
    asset: String,
    open: Vec<View>,
    questions: Questions,
    denials: Denials,
    uses: Uses,
    wasi: Wasi,
}

impl KeyValue {
    /// The buckets that an attempt of this asset may use.
    pub fn new(asset: String, buckets: Vec<GrantedBucket>, interrupt: Interrupt) -> Self {
        let uses = Uses::of("key-value").timed(interrupt.calls());
        Self {
            asset,
            open: buckets.into_iter().map(View::new).collect(),
            questions: Questions::new(interrupt),
            denials: Denials::default(),
            uses,
            wasi: Wasi::default(),
        }
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// What was done with what was granted.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.uses.take()
    }

    /// What was read, for the lineage.
    pub fn reads(&self) -> Vec<OutsideRead> {
        self.open.iter().filter_map(View::outside_read).collect()
    }

    /// What the commit must check, and carry out if the attempt succeeded: its writes are dropped otherwise.
    /// Secrets are masked in what a failure would show.
    pub fn finish(self, has_succeeded: bool, masks: &Masks) -> Vec<BucketEffects> {
        self.open.into_iter().filter_map(|view| view.into_effects(has_succeeded, masks)).collect()
    }

    /// The position of a granted bucket.
    fn find(&mut self, resource: &str) -> Result<u32, Refusal> {
        if let Some(position) = self.open.iter().position(|view| view.resource() == resource) {
            // A bucket has no state of its own, so its position is its handle, however often it is opened.
            return Ok(position as u32);
        }
        let remedy = remedy(&self.asset, resource, Capability::KeyValue.grant_example());
        self.denials.record("key-value", resource, "open", "", remedy);
        Err(types::CapabilityError::Denied.into())
    }

    /// The bucket, once the key is well formed and granted, for writing too if asked.
    fn granted(&mut self, bucket: u32, key: &str, operation: &str, access: Access) -> Result<Opened<'_>, Refusal> {
        if let Some(mistake) = key_mistake(key) {
            return Err(Refusal::invalid(mistake));
        }
        let view = self.open.get_mut(bucket as usize).ok_or_else(closed)?;
        if view.may(key, access) {
            return Ok(Opened { view, questions: &mut self.questions });
        }
        let (resource, key_text) = (view.resource(), toml_text(truncate(key, DENIED_NAME_BYTES_MAX)));
        let grant = format!("{{ access = \"{}\", keys = [{key_text}] }}", access.name());
        let remedy = remedy(&self.asset, resource, &grant);
        self.denials.record("key-value", resource, operation, key, remedy);
        Err(types::CapabilityError::Denied.into())
    }

    async fn read(&mut self, bucket: u32, key: &str) -> Result<Option<wit::Versioned>, Refusal> {
        let read = match self.granted(bucket, key, "get", Access::Read) {
            Ok(Opened { view, questions }) => view.get(key, questions).await,
            Err(refusal) => Err(refusal),
        };
        let bytes = read.as_ref().ok().and_then(|read| read.as_ref()).map_or(0, |found| found.value.len());
        self.count(bucket, "get", key, bytes, &read);
        read
    }

    fn write(&mut self, bucket: u32, key: &str, value: Vec<u8>) -> Result<(), Refusal> {
        let bytes = value.len();
        let opened = self.granted(bucket, key, "set", Access::ReadWrite);
        let staged = opened.and_then(|opened| opened.view.set(key, value));
        self.count(bucket, "set", key, bytes, &staged);
        staged
    }

    fn erase(&mut self, bucket: u32, key: &str) -> Result<(), Refusal> {
        let opened = self.granted(bucket, key, "remove", Access::ReadWrite);
        let staged = opened.and_then(|opened| opened.view.remove(key));
        self.count(bucket, "remove", key, 0, &staged);
        staged
    }

    async fn replace(&mut self, bucket: u32, key: &str, expected: Option<u64>, value: Vec<u8>) -> Result<(), Refusal> {
        const OPERATION: &str = "compare-and-set";
        let bytes = value.len();
        let staged = match self.granted(bucket, key, OPERATION, Access::ReadWrite) {
            Ok(Opened { view, questions }) => view.compare_and_set(key, expected, value, questions).await,
            Err(refusal) => Err(refusal),
        };
        self.count(bucket, OPERATION, key, bytes, &staged);
        staged
    }

    fn count_up(&mut self, bucket: u32, key: &str, delta: i64) -> Result<(), Refusal> {
        let opened = self.granted(bucket, key, "increment", Access::ReadWrite);
        let staged = opened.and_then(|opened| opened.view.increment(key, delta));
        self.count(bucket, "increment", key, 0, &staged);
        staged
    }

    async fn list(
        &mut self,
        bucket: u32,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<String>, Refusal> {
        let listed = match self.open.get_mut(bucket as usize) {
            Some(view) => view.keys(prefix, after, max, &mut self.questions).await,
            None => Err(closed()),
        };
        if let (Err(Refusal::Guest(types::CapabilityError::Denied)), Some(view)) =
            (&listed, self.open.get(bucket as usize))
        {
            let pattern = toml_text(&format!("{}**", truncate(prefix, DENIED_NAME_BYTES_MAX)));
            let grant = format!("{{ access = \"read\", keys = [{pattern}] }}");
            let remedy = remedy(&self.asset, view.resource(), &grant);
            self.denials.record("key-value", view.resource(), "keys", prefix, remedy);
        }
        let bytes = listed.as_ref().map_or(0, |keys| keys.iter().map(String::len).sum());
        self.count(bucket, "keys", prefix, bytes, &listed);
        listed
    }

    /// Counts a use, however it ended.
    fn count<T>(
        &mut self,
        bucket: u32,
        operation: &'static str,
        target: &str,
        bytes: usize,
        result: &Result<T, Refusal>,
    ) {
        let Some(view) = self.open.get(bucket as usize) else { return };
        let bytes = if result.is_ok() { bytes as u64 } else { 0 };
        let result = result.as_ref().err().map_or("ok", Refusal::word);
        self.uses.record(Used { resource: view.resource(), operation, target, result, bytes });
    }
}

/// A bucket and what is left of its attempt's questions.
struct Opened<'a> {
    view: &'a mut View,
    questions: &'a mut Questions,
}

fn closed() -> Refusal {
    Refusal::invalid("the bucket is closed")
}

impl wit::Host for KeyValue {
    async fn open(&mut self, resource: String) -> Result<Resource<wit::Bucket>, Refusal> {
        self.find(&resource).map(Resource::new_own)
    }
}

impl wit::HostBucket for KeyValue {
    async fn get(&mut self, bucket: Resource<wit::Bucket>, key: String) -> Result<Option<wit::Versioned>, Refusal> {
        self.read(bucket.rep(), &key).await
    }

    async fn set(&mut self, bucket: Resource<wit::Bucket>, key: String, value: Vec<u8>) -> Result<(), Refusal> {
        self.write(bucket.rep(), &key, value)
    }

    async fn remove(&mut self, bucket: Resource<wit::Bucket>, key: String) -> Result<(), Refusal> {
        self.erase(bucket.rep(), &key)
    }

    async fn compare_and_set(
        &mut self,
        bucket: Resource<wit::Bucket>,
        key: String,
        expected: Option<u64>,
        value: Vec<u8>,
    ) -> Result<(), Refusal> {
        self.replace(bucket.rep(), &key, expected, value).await
    }

    async fn increment(&mut self, bucket: Resource<wit::Bucket>, key: String, delta: i64) -> Result<(), Refusal> {
        self.count_up(bucket.rep(), &key, delta)
    }

    async fn keys(
        &mut self,
        bucket: Resource<wit::Bucket>,
        prefix: String,
        after: Option<String>,
        max: u32,
    ) -> Result<Vec<String>, Refusal> {
        self.list(bucket.rep(), &prefix, after.as_deref(), max as usize).await
    }

    async fn drop(&mut self, _bucket: Resource<wit::Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::Host for KeyValue {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

#[cfg(test)]
mod tests;
