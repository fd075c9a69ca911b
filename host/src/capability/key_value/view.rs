//! One bucket as one attempt sees it: what was read of it, and what the attempt has staged over that.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{BucketEffects, BucketReader, GrantedBucket, KeyBound, StoredValue};
use crate::{
    bindings::flowstone::asset::{key_value::Versioned, types::CapabilityError},
    blob::{Digest, DigestWriter},
    capability::{
        Abort, Interrupt, Masks, Refusal,
        outside::OutsideRead,
        text::{neutralise, truncate},
    },
    limit::{
        BUCKET_QUESTIONS_MAX, DENIED_NAME_BYTES_MAX, KEY_BYTES_MAX, KEYS_PER_CALL_MAX, KEYS_READ_MAX,
        STAGED_KEY_OVERHEAD_BYTES, VALUES_CACHED_BYTES_MAX,
    },
    pipeline::{
        asset::Capability,
        key_value::{BucketGrant, CounterError, KeyPatterns, KeyRange, KeyWrite, add},
        resource::Access,
    },
};

/// What an attempt may still ask for, over all its buckets.
pub(super) struct Questions {
    left: u64,
    keys_left: usize,
    cached_bytes: usize,
    interrupt: Interrupt,
}

impl Questions {
    pub fn new(interrupt: Interrupt) -> Self {
        Self { left: BUCKET_QUESTIONS_MAX, keys_left: KEYS_READ_MAX, cached_bytes: 0, interrupt }
    }

    /// Asks, unless the attempt has asked enough, or ends first.
    async fn ask<T>(&mut self, question: impl Future<Output = Result<T, String>>) -> Result<T, Refusal> {
        self.interrupt.check()?;
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            Refusal::limit_reached(format!("at most {BUCKET_QUESTIONS_MAX} reads of buckets in one attempt"))
        })?;
        tokio::select! {
            biased;
            () = self.interrupt.ended() => Err(Abort::Interrupted.into()),
            answer = question => answer.map_err(|why| Abort::HostFault(why).into()),
        }
    }
}

/// One bucket as one attempt sees it.
pub(super) struct View {
    grant: BucketGrant,
    patterns: KeyPatterns,
    value_bytes_max: u64,
    reader: Arc<dyn BucketReader>,
    reads: BTreeMap<String, Read>,
    listed: Option<Listed>,
    staged: BTreeMap<String, Staged>,
    staged_bytes: u64,
    /// Of the attempt's own writes so far: each has a version of its own.
    own_versions: u64,
}

/// A key that was read, as it was the first time.
struct Read {
    version: Option<i64>,
    digest: Digest,
    size: u64,
    /// None when it was absent, or is not kept any more.
    cached: Option<Vec<u8>>,
}

/// What was listed.
struct Listed {
    /// The set of keys, as it was the first time.
    version: i64,
    digest: DigestWriter,
    keys: u64,
    bytes: u64,
}

enum Staged {
    Set { value: Vec<u8>, version: u64 },
    Remove,
    Add(i64),
}

/// Versions of the database end below this: these are never among them. And they stay below 2^53, as the contract says: in
/// JavaScript a number is a double, and two versions that round to one would be taken for each other.
const OWN_VERSION: u64 = 1 << 52;

impl View {
    pub fn new(granted: GrantedBucket) -> Self {
        let GrantedBucket { grant, value_bytes_max, reader } = granted;
        Self {
            patterns: KeyPatterns::new(&grant.keys),
            grant,
            value_bytes_max,
            reader,
            reads: BTreeMap::new(),
            listed: None,
            staged: BTreeMap::new(),
            staged_bytes: 0,
            own_versions: 0,
        }
    }

    pub fn resource(&self) -> &str {
        &self.grant.resource
    }

    /// Whether the grant allows this.
    pub fn may(&self, key: &str, access: Access) -> bool {
        let may_write = access == Access::Read || self.grant.access == Access::ReadWrite;
        may_write && self.patterns.has(key)
    }

    pub async fn get(&mut self, key: &str, questions: &mut Questions) -> Result<Option<Versioned>, Refusal> {
        match self.staged.get(key) {
            Some(Staged::Set { value, version }) => {
                return Ok(Some(Versioned { value: value.clone(), version: *version }));
            }
            Some(Staged::Remove) => return Ok(None),
            Some(Staged::Add(delta)) => {
                // Looked at, it is no longer blind: what was there is read, and the sum is the value.
                let delta = *delta;
                let base = self.base(key, questions).await?;
                let sum = add(base.as_ref().map(|found| &found.value[..]), delta).map_err(not_countable)?;
                let version = self.stage_value(key, sum.to_string().into_bytes())?;
                return Ok(Some(Versioned { value: sum.to_string().into_bytes(), version }));
            }
            None => {}
        }
        let base = self.base(key, questions).await?;
        Ok(base.map(|found| Versioned { value: found.value, version: found.version.unsigned_abs() }))
    }

    pub fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), Refusal> {
        self.stage_value(key, value).map(drop)
    }

    pub fn remove(&mut self, key: &str) -> Result<(), Refusal> {
        self.stage(key, Staged::Remove)
    }

    pub async fn compare_and_set(
        &mut self,
        key: &str,
        expected: Option<u64>,
        value: Vec<u8>,
        questions: &mut Questions,
    ) -> Result<(), Refusal> {
        self.check_value(&value)?;
        let current = self.get(key, questions).await?;
        if current.map(|found| found.version) != expected {
            return Err(CapabilityError::Conflict.into());
        }
        self.set(key, value)
    }

    pub fn increment(&mut self, key: &str, delta: i64) -> Result<(), Refusal> {
        let sum = match self.staged.get(key) {
            Some(Staged::Set { value, .. }) => add(Some(value), delta).map_err(not_countable)?,
            Some(Staged::Remove) => delta,
            Some(Staged::Add(so_far)) => {
                let delta = so_far.checked_add(delta).ok_or_else(|| not_countable(CounterError::OutOfRange))?;
                return self.stage(key, Staged::Add(delta));
            }
            // What has been read says now what the commit would say.
            None => match self.reads.get(key) {
                Some(Read { version: None, .. }) => delta,
                Some(Read { cached: Some(value), .. }) => add(Some(value), delta).map_err(not_countable)?,
                _ => return self.stage(key, Staged::Add(delta)),
            },
        };
        self.set(key, sum.to_string().into_bytes())
    }

    pub async fn keys(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
        questions: &mut Questions,
    ) -> Result<Vec<String>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("a page of no keys would look like the end"));
        }
        if [Some(prefix), after].into_iter().flatten().any(|text| text.len() > KEY_BYTES_MAX || text.contains('\0')) {
            return Err(Refusal::invalid(format!("no key has more than {KEY_BYTES_MAX} bytes, or a NUL")));
        }
        let ranges = self.patterns.within(prefix);
        if ranges.is_empty() {
            return Err(CapabilityError::Denied.into());
        }
        let max = max.min(KEYS_PER_CALL_MAX);
        let mut found = Vec::new();
        for range in ranges.iter().filter(|range| after.is_none_or(|after| range.goes_beyond(after))) {
            self.list_range(range, after, max, &mut found, questions).await?;
            if found.len() >= max {
                break;
            }
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.staged.range::<str, _>((start, Bound::Unbounded));
        let own =
            own.filter(|(key, staged)| !matches!(staged, Staged::Remove) && ranges.iter().any(|range| range.has(key)));
        found.extend(own.take(max).map(|(key, _)| key.clone()));
        found.sort_unstable();
        found.dedup();
        found.truncate(max);
        Ok(found)
    }

    /// Adds what the bucket has of a range to what was found, until that is as much as was asked for.
    async fn list_range(
        &mut self,
        range: &KeyRange,
        after: Option<&str>,
        max: usize,
        found: &mut Vec<String>,
        questions: &mut Questions,
    ) -> Result<(), Refusal> {
        let mut from = match after {
            Some(after) if after >= range.first() => KeyBound::After(after.to_owned()),
            _ => KeyBound::At(range.first().to_owned()),
        };
        while found.len() < max {
            let wanted = if matches!(range, KeyRange::Key(_)) { 1 } else { max - found.len() };
            let page = questions.ask(self.reader.list(from, wanted)).await?;
            let is_last = page.keys.len() < wanted;
            let listed = self.listed.get_or_insert_with(|| Listed {
                version: page.version,
                digest: DigestWriter::default(),
                keys: 0,
                bytes: 0,
            });
            let mut last = None;
            for key in page.keys {
                // The range has ended: what comes now is none of the guest's business.
                if !range.has(&key) {
                    return Ok(());
                }
                listed.digest.field(key.as_bytes());
                listed.keys += 1;
                listed.bytes += key.len() as u64;
                if !matches!(self.staged.get(&key), Some(Staged::Remove)) {
                    found.push(key.clone());
                }
                last = Some(key);
            }
            match last {
                Some(last) if !is_last && matches!(range, KeyRange::Prefix(_)) => from = KeyBound::After(last),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// What was there before the attempt wrote anything.
    async fn base(&mut self, key: &str, questions: &mut Questions) -> Result<Option<StoredValue>, Refusal> {
        match self.reads.get(key) {
            Some(Read { version: None, .. }) => return Ok(None),
            Some(Read { version: Some(version), cached: Some(value), .. }) => {
                return Ok(Some(StoredValue { value: value.clone(), version: *version }));
            }
            Some(_) => {}
            None if questions.keys_left == 0 => {
                let why = format!("at most {KEYS_READ_MAX} keys are read by one attempt");
                return Err(Refusal::limit_reached(why));
            }
            None => questions.keys_left -= 1,
        }
        let found = questions.ask(self.reader.get(key.to_owned())).await?;
        let value = found.as_ref().map(|found| &found.value[..]);
        let read = self.reads.entry(key.to_owned()).or_insert_with(|| Read {
            version: found.as_ref().map(|found| found.version),
            digest: value.map_or(Digest([0; 32]), Digest::of),
            size: value.map_or(0, |value| value.len() as u64),
            cached: None,
        });
        if let (Some(value), true) = (value, read.version == found.as_ref().map(|found| found.version)) {
            let has_room = questions.cached_bytes + value.len() <= VALUES_CACHED_BYTES_MAX;
            if has_room {
                questions.cached_bytes += value.len();
                read.cached = Some(value.to_vec());
            }
        }
        Ok(found)
    }

    fn check_value(&self, value: &[u8]) -> Result<(), Refusal> {
        if value.len() as u64 > self.value_bytes_max {
            return Err(Refusal::limit_reached(format!(
                "the bucket's limit of {} bytes a value",
                self.value_bytes_max
            )));
        }
        Ok(())
    }

    fn stage_value(&mut self, key: &str, value: Vec<u8>) -> Result<u64, Refusal> {
        self.check_value(&value)?;
        let version = OWN_VERSION | (self.own_versions + 1);
        self.stage(key, Staged::Set { value, version })?;
        self.own_versions += 1;
        Ok(version)
    }

    /// Replaces what was staged for a key, within the grant's bounds.
    fn stage(&mut self, key: &str, staged: Staged) -> Result<(), Refusal> {
        let earlier = self.staged.get(key).map(|earlier| earlier.cost(key));
        if earlier.is_none() && self.staged.len() as u64 >= self.grant.writes {
            return Err(Refusal::limit_reached(format!("the grant's limit of {} keys written", self.grant.writes)));
        }
        let bytes = self.staged_bytes - earlier.unwrap_or(0) + staged.cost(key);
        if bytes > self.grant.write_bytes {
            let why = format!("the grant's limit of {} bytes of writes", self.grant.write_bytes);
            return Err(Refusal::limit_reached(why));
        }
        self.staged_bytes = bytes;
        match self.staged.get_mut(key) {
            Some(place) => *place = staged,
            None => drop(self.staged.insert(key.to_owned(), staged)),
        }
        Ok(())
    }

    /// What was read, if anything was.
    pub fn outside_read(&self) -> Option<OutsideRead> {
        if self.reads.is_empty() && self.listed.is_none() {
            return None;
        }
        let mut digest = DigestWriter::default();
        let (mut items, mut bytes) = (0, 0);
        for (key, read) in &self.reads {
            digest.field(key.as_bytes());
            digest.field(if read.version.is_some() { &read.digest.0 } else { b"" });
            items += 1;
            bytes += read.size;
        }
        if let Some(listed) = &self.listed {
            digest.field(b"");
            digest.field(&listed.digest.clone().finish().0);
            items += listed.keys;
            bytes += listed.bytes;
        }
        let resource = self.grant.resource.clone();
        Some(OutsideRead { resource, capability: Capability::KeyValue, digest: digest.finish(), items, bytes })
    }

    /// What the commit has to do with; none when it has nothing.
    pub fn into_effects(self, has_succeeded: bool, masks: &Masks) -> Option<BucketEffects> {
        let writes = self.staged.into_iter().filter(|_| has_succeeded).map(|(key, staged)| {
            let write = match staged {
                Staged::Set { value, .. } => KeyWrite::Set(value),
                Staged::Remove => KeyWrite::Remove,
                Staged::Add(delta) => {
                    // Masked before it is cut.
                    let shown = neutralise(truncate(&masks.apply(&key), DENIED_NAME_BYTES_MAX));
                    KeyWrite::Add { delta, shown }
                }
            };
            (key, write)
        });
        let effects = BucketEffects {
            resource: self.grant.resource,
            reads: self.reads.into_iter().map(|(key, read)| (key, read.version)).collect(),
            listed: self.listed.map(|listed| listed.version),
            writes: writes.collect(),
        };
        let is_empty = effects.reads.is_empty() && effects.listed.is_none() && effects.writes.is_empty();
        (!is_empty).then_some(effects)
    }
}

impl Staged {
    fn cost(&self, key: &str) -> u64 {
        let value = match self {
            Self::Set { value, .. } => value.len(),
            Self::Remove | Self::Add(_) => 0,
        };
        STAGED_KEY_OVERHEAD_BYTES + key.len() as u64 + value as u64
    }
}

fn not_countable(error: CounterError) -> Refusal {
    Refusal::invalid(error.to_string())
}
