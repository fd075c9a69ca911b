//! Buckets: read by attempts as they are, and written by the commit of whoever read them as they still are.
//!
//! A commit locks its buckets in one order, looks up every key that its jobs read or write, and settles one job after
//! the other in memory: what a job read must still be so, also after what the jobs before it in the batch have written.
//! A job of which this does not hold leaves the batch, and the others commit. What is left is written at the end.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use uuid::Uuid;

use super::{
    Connection, Store, StoreError, column,
    commit::{Counts, Ending, FinishedJob},
    error::Doing as _,
};
use crate::{
    blob::Digest,
    id::{AssetId, JobId},
    limit::{CONFLICT_WAIT_BASE, CONFLICT_WAIT_MAX, CONFLICTS_MAX},
    pipeline::key_value::{BucketBounds, CounterError, KeyWrite, add},
};

/// A bucket of a tenant's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName {
    /// Whose.
    pub tenant: String,
    /// The pipeline whose resource it is; zeros for one that an operator registered.
    pub owner: Uuid,
    /// Among the owner's.
    pub name: String,
}

/// What a job read in a bucket, and what it wants written there.
#[derive(Clone, Debug)]
pub struct BucketEffects {
    /// Which.
    pub bucket: BucketName,
    /// As the asset knows it.
    pub resource: String,
    /// What the bucket may hold.
    pub bounds: BucketBounds,
    /// Each key that was read, with the version that was there; none where nothing was.
    pub reads: Vec<(String, Option<i64>)>,
    /// The set of keys, if it was listed.
    pub listed: Option<i64>,
    /// By key. Carried out only with a new materialization.
    pub writes: Vec<(String, KeyWrite)>,
}

impl BucketEffects {
    /// About how many bytes it takes on the wire.
    pub(super) fn record_bytes(&self) -> usize {
        let reads: usize = self.reads.iter().map(|(key, _)| EFFECT_BYTES + key.len()).sum();
        let writes = self.writes.iter().map(|(key, write)| {
            let value = if let KeyWrite::Set(value) = write { value.len() } else { 0 };
            EFFECT_BYTES + key.len() + value
        });
        reads + writes.sum::<usize>()
    }
}

/// About what a key takes beside its own bytes: its bucket's name goes with it.
const EFFECT_BYTES: usize = 100;

impl Store {
    /// The pipeline that an asset belongs to: the owner of the buckets that its manifest declares.
    pub async fn find_pipeline_of(&self, tenant: &str, asset: AssetId) -> Result<Option<Uuid>, StoreError> {
        sqlx::query_scalar!("select pipeline_id from asset where tenant_id = $1 and asset_id = $2", tenant, asset.0)
            .fetch_optional(&self.pool)
            .await
            .doing("looking for the owner of a bucket")
    }

    /// The value of a key, and its version.
    pub async fn find_bucket_value(
        &self,
        bucket: &BucketName,
        key: &str,
    ) -> Result<Option<(Vec<u8>, i64)>, StoreError> {
        let row = sqlx::query!(
            "select value, version from bucket_entry
             where tenant_id = $1 and owner_id = $2 and bucket = $3 and key = $4",
            bucket.tenant,
            bucket.owner,
            bucket.name,
            key,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reading a bucket")?;
        Ok(row.map(|row| (row.value, row.version)))
    }

    /// Keys from this one on, or behind it, in order; and the version of the whole set of keys that they are of.
    pub async fn list_bucket_keys(
        &self,
        bucket: &BucketName,
        from: &str,
        is_included: bool,
        limit: i64,
    ) -> Result<(Vec<String>, i64), StoreError> {
        let row = sqlx::query!(
            r#"select
                 coalesce((select keys_version from bucket
                     where tenant_id = $1 and owner_id = $2 and name = $3), 0) as "version!",
                 array(select key from bucket_entry
                     where tenant_id = $1 and owner_id = $2 and bucket = $3 and key >= $4 and ($5 or key > $4)
                     order by key limit $6) as "keys!""#,
            bucket.tenant,
            bucket.owner,
            bucket.name,
            from,
            is_included,
            limit,
        )
        .fetch_one(&self.pool)
        .await
        .doing("listing a bucket")?;
        Ok((row.keys, row.version))
    }
}

/// The jobs of a batch, some of them with another ending than they came with.
pub(super) type Settled<'b> = Vec<Cow<'b, FinishedJob>>;

/// Checks what these jobs read in buckets, and writes what they want written. Those that cannot be committed as they are
/// come back with another ending.
pub(super) async fn settle_buckets<'b>(
    connection: &mut Connection,
    batch: Vec<&'b FinishedJob>,
) -> Result<Settled<'b>, StoreError> {
    let mut settled: Settled<'b> = batch.into_iter().map(Cow::Borrowed).collect();
    let mut order: Vec<usize> = (0..settled.len()).filter(|place| !settled[*place].buckets.is_empty()).collect();
    if order.is_empty() {
        return Ok(settled);
    }
    // Of several that wait for the same key the first one wins: whoever has lost most often is first.
    order.sort_by_key(|place| Reverse(settled[*place].claim.released));
    let mut now = Buckets::lock(connection, order.iter().map(|place| &*settled[*place])).await?;
    let mut conflicts = Vec::new();
    for place in order {
        match now.settle(&settled[place]) {
            Ok(()) => {}
            Err(Unsettled::Conflict(resource)) => conflicts.push((place, resource)),
            Err(Unsettled::Failed(why)) => fail(settled[place].to_mut(), why),
        }
    }
    now.write(connection).await?;
    if !conflicts.is_empty() {
        let jobs: Vec<&FinishedJob> = conflicts.iter().map(|(place, _)| &*settled[*place]).collect();
        let earlier = count_conflicts(connection, &jobs).await?;
        for (place, resource) in conflicts {
            let job = settled[place].to_mut();
            let earlier = earlier.get(&job.claim.job.0).copied().unwrap_or(0);
            repeat(job, &resource, earlier);
        }
    }
    Ok(settled)
}

/// Why a job cannot be committed as it is.
enum Unsettled {
    /// Something that it read in this resource is not so any more.
    Conflict(String),
    /// It wants what cannot be.
    Failed(String),
}

/// The verdict of an attempt whose reads did not hold until its commit.
const CONFLICTED: &str = "conflicted";

fn repeat(job: &mut FinishedJob, resource: &str, earlier: i64) {
    let cause = format!("keys of bucket `{resource}` changed while the attempt used them");
    job.ending = if earlier >= CONFLICTS_MAX {
        Ending::Failed(format!("{cause}, {} times", earlier + 1))
    } else {
        let wait_ms = conflict_wait_ms(job.claim.job, earlier.unsigned_abs());
        Ending::Deferred { wait_ms, cause: cause.clone(), counts: Counts::Released }
    };
    if let Some(attempt) = &mut job.attempt {
        attempt.verdict = CONFLICTED;
        attempt.charged = false;
        attempt.message = Some(cause);
    }
}

fn fail(job: &mut FinishedJob, why: String) {
    if let Some(attempt) = &mut job.attempt {
        attempt.verdict = "failed";
        attempt.charged = true;
        attempt.message = Some(why.clone());
    }
    job.ending = Ending::Failed(why);
}

/// Jobs that met once wait for different times, drawn from their ids.
fn conflict_wait_ms(job: JobId, earlier: u64) -> u64 {
    let base = CONFLICT_WAIT_BASE.as_millis() as u64;
    let longest = base.saturating_mul(1 << earlier.min(16)).min(CONFLICT_WAIT_MAX.as_millis() as u64);
    let mut seed = job.0.as_bytes().to_vec();
    seed.extend(earlier.to_le_bytes());
    let drawn = u64::from_le_bytes(Digest::of(&seed).0[..8].try_into().expect("a digest has 32 bytes"));
    longest / 2 + drawn % (longest / 2 + 1)
}

/// The buckets of a batch as they are while its commit holds their locks.
struct Buckets {
    buckets: BTreeMap<BucketName, Bucket>,
    entries: HashMap<(BucketName, String), Entry>,
}

/// One of them.
#[derive(Clone, Copy)]
struct Bucket {
    keys: i64,
    bytes: i64,
    /// None once a job of the batch has changed the set of keys: nobody has read that one.
    keys_version: Option<i64>,
    is_written: bool,
}

/// A key that a job of the batch read or writes. Others are not looked up.
#[derive(Clone, Default)]
struct Entry {
    content: Option<Content>,
    is_written: bool,
}

#[derive(Clone)]
struct Content {
    /// None once a job of the batch has written it: nobody has read that one.
    version: Option<i64>,
    size: i64,
    /// Kept where it is counted up, or to be written.
    value: Option<Vec<u8>>,
}

/// The buckets of these names, locked in one order. A statement is a literal, and so is the strength of its lock.
macro_rules! lock_buckets {
    ($connection:expr, $names:expr, $strength:literal) => {{
        let names: &[&BucketName] = $names;
        let rows = sqlx::query_as!(
            BucketRow,
            "select b.tenant_id, b.owner_id, b.name, b.keys_version, b.keys, b.bytes
         from unnest($1::text[], $2::uuid[], $3::text[]) as w (tenant_id, owner_id, name)
         join bucket b on b.tenant_id = w.tenant_id and b.owner_id = w.owner_id and b.name = w.name
         order by b.tenant_id, b.owner_id, b.name "
                + $strength,
            &column(names, |name| name.tenant.clone()),
            &column(names, |name| name.owner),
            &column(names, |name| name.name.clone()),
        )
        .fetch_all($connection)
        .await
        .doing("locking buckets")?;
        rows.into_iter().map(BucketRow::into_bucket)
    }};
}

impl Buckets {
    /// Locks what these jobs use, and looks it up.
    async fn lock<'j>(
        connection: &mut Connection,
        jobs: impl Iterator<Item = &'j FinishedJob>,
    ) -> Result<Self, StoreError> {
        let mut modes: BTreeMap<BucketName, bool> = BTreeMap::new();
        let mut wanted: BTreeMap<(BucketName, String), bool> = BTreeMap::new();
        for job in jobs {
            let writes = may_write(job);
            for effects in &job.buckets {
                *modes.entry(effects.bucket.clone()).or_default() |= writes && !effects.writes.is_empty();
                for (key, _) in &effects.reads {
                    wanted.entry((effects.bucket.clone(), key.clone())).or_default();
                }
                for (key, write) in effects.writes.iter().filter(|_| writes) {
                    let is_counted = matches!(write, KeyWrite::Add { .. });
                    *wanted.entry((effects.bucket.clone(), key.clone())).or_default() |= is_counted;
                }
            }
        }
        let names: Vec<&BucketName> = modes.keys().collect();
        ensure_buckets(connection, &names).await?;
        let mut buckets = BTreeMap::new();
        // In one order in every process, whatever the mode, so that two commits wait for each other and not for ever.
        for run in modes.iter().collect::<Vec<_>>().chunk_by(|one, other| one.1 == other.1) {
            let names: Vec<&BucketName> = run.iter().map(|(name, _)| *name).collect();
            match *run[0].1 {
                true => buckets.extend(lock_buckets!(&mut *connection, &names, "for update of b")),
                // Those that only read do not wait for each other.
                false => buckets.extend(lock_buckets!(&mut *connection, &names, "for share of b")),
            }
        }
        if buckets.len() < modes.len() {
            // Somebody removed one by hand since it was made above: the next try makes it again.
            return Err(StoreError::Unavailable { doing: "locking buckets", source: sqlx::Error::RowNotFound });
        }
        let entries = load_entries(connection, &wanted).await?;
        Ok(Self { buckets, entries })
    }

    /// Takes a job's writes over, if what it read still is so and nothing stands against them.
    fn settle(&mut self, job: &FinishedJob) -> Result<(), Unsettled> {
        for effects in &job.buckets {
            self.check_reads(effects)?;
        }
        if !may_write(job) {
            return Ok(());
        }
        // Nothing of a job is taken over before all of it can be.
        let mut buckets: HashMap<&BucketName, Bucket> = HashMap::new();
        let mut entries: HashMap<(&BucketName, &str), Entry> = HashMap::new();
        for effects in &job.buckets {
            let bucket = buckets.entry(&effects.bucket).or_insert_with(|| self.buckets[&effects.bucket]);
            let before = *bucket;
            for (key, write) in &effects.writes {
                let entry = entries
                    .entry((&effects.bucket, key))
                    .or_insert_with(|| self.entries[&(effects.bucket.clone(), key.clone())].clone());
                entry.apply(write, key, bucket).map_err(|(shown, error)| {
                    Unsettled::Failed(format!("key `{shown}` of bucket `{}`: {error}", effects.resource))
                })?;
            }
            check_bounds(effects, &before, bucket)?;
        }
        for (name, bucket) in buckets {
            self.buckets.insert(name.clone(), bucket);
        }
        for ((name, key), entry) in entries {
            self.entries.insert((name.clone(), key.to_owned()), entry);
        }
        Ok(())
    }

    fn check_reads(&self, effects: &BucketEffects) -> Result<(), Unsettled> {
        let conflict = || Unsettled::Conflict(effects.resource.clone());
        if let Some(listed) = effects.listed
            && self.buckets[&effects.bucket].keys_version != Some(listed)
        {
            return Err(conflict());
        }
        for (key, read) in &effects.reads {
            let content = &self.entries[&(effects.bucket.clone(), key.clone())].content;
            let still = match (content, read) {
                (None, None) => true,
                (Some(content), Some(read)) => content.version == Some(*read),
                _ => false,
            };
            if !still {
                return Err(conflict());
            }
        }
        Ok(())
    }

    /// Writes what the jobs that were settled have changed.
    async fn write(self, connection: &mut Connection) -> Result<(), StoreError> {
        let mut written: Vec<(&(BucketName, String), &Entry)> =
            self.entries.iter().filter(|(_, entry)| entry.is_written).collect();
        written.sort_unstable_by_key(|(place, _)| *place);
        let buckets: Vec<(&BucketName, &Bucket)> =
            self.buckets.iter().filter(|(_, bucket)| bucket.is_written).collect();
        let gone: Vec<&(BucketName, String)> =
            written.iter().filter(|(_, entry)| entry.content.is_none()).map(|(place, _)| *place).collect();
        let set: Vec<(&(BucketName, String), &[u8])> = written
            .iter()
            .filter_map(|(place, entry)| Some((*place, entry.content.as_ref()?.value.as_deref()?)))
            .collect();
        update_buckets(connection, &buckets).await?;
        delete_entries(connection, &gone).await?;
        upsert_entries(connection, &set).await
    }
}

/// Only with a new materialization; what was reused was written when it was made.
fn may_write(job: &FinishedJob) -> bool {
    matches!(&job.ending, Ending::Materialized(new) if new.reused_from.is_none())
}

impl Entry {
    /// Or says which counter cannot be added to, and why.
    fn apply<'w>(
        &mut self,
        write: &'w KeyWrite,
        key: &str,
        bucket: &mut Bucket,
    ) -> Result<(), (&'w str, CounterError)> {
        let value = match write {
            KeyWrite::Set(value) => Some(value.clone()),
            KeyWrite::Remove => None,
            KeyWrite::Add { delta, shown } => {
                let number = self.content.as_ref().and_then(|content| content.value.as_deref());
                Some(add(number, *delta).map_err(|error| (&**shown, error))?.to_string().into_bytes())
            }
        };
        let cost = |content: &Option<Content>| content.as_ref().map_or(0, |content| key.len() as i64 + content.size);
        let (was_there, before) = (self.content.is_some(), cost(&self.content));
        if !was_there && value.is_none() {
            return Ok(());
        }
        self.content = value.map(|value| Content { version: None, size: value.len() as i64, value: Some(value) });
        self.is_written = true;
        bucket.is_written = true;
        bucket.bytes += cost(&self.content) - before;
        let is_there = self.content.is_some();
        if is_there != was_there {
            bucket.keys += i64::from(is_there) - i64::from(was_there);
            bucket.keys_version = None;
        }
        Ok(())
    }
}

/// What a bucket holds may grow up to its bounds. One that held more before they were lowered may shrink.
fn check_bounds(effects: &BucketEffects, before: &Bucket, after: &Bucket) -> Result<(), Unsettled> {
    let BucketBounds { keys, bytes, .. } = effects.bounds;
    let too_many = |what: &str, before: i64, after: i64, most: u64| {
        let is_over = after > before && after.unsigned_abs() > most;
        is_over.then(|| {
            let resource = &effects.resource;
            Unsettled::Failed(format!("bucket `{resource}` would hold {after} {what}, more than its bound of {most}"))
        })
    };
    let over = too_many("keys", before.keys, after.keys, keys);
    over.or_else(|| too_many("bytes", before.bytes, after.bytes, bytes)).map_or(Ok(()), Err)
}

/// Makes those that nobody has written to yet: an absence is read too, and needs something to lock.
async fn ensure_buckets(connection: &mut Connection, names: &[&BucketName]) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into bucket (tenant_id, owner_id, name, keys_version, keys, bytes)
         select tenant_id, owner_id, name, 0, 0, 0
         from unnest($1::text[], $2::uuid[], $3::text[]) as b (tenant_id, owner_id, name)
         on conflict (tenant_id, owner_id, name) do nothing",
        &column(names, |name| name.tenant.clone()),
        &column(names, |name| name.owner),
        &column(names, |name| name.name.clone()),
    )
    .execute(connection)
    .await
    .doing("making buckets")?;
    Ok(())
}

struct BucketRow {
    tenant_id: String,
    owner_id: Uuid,
    name: String,
    keys_version: i64,
    keys: i64,
    bytes: i64,
}

impl BucketRow {
    fn into_bucket(self) -> (BucketName, Bucket) {
        let name = BucketName { tenant: self.tenant_id, owner: self.owner_id, name: self.name };
        let (keys, bytes, keys_version) = (self.keys, self.bytes, Some(self.keys_version));
        (name, Bucket { keys, bytes, keys_version, is_written: false })
    }
}

/// Every wanted key as it is, there or not; with its value where that is wanted too.
async fn load_entries(
    connection: &mut Connection,
    wanted: &BTreeMap<(BucketName, String), bool>,
) -> Result<HashMap<(BucketName, String), Entry>, StoreError> {
    let keys: Vec<(&(BucketName, String), bool)> = wanted.iter().map(|(key, value)| (key, *value)).collect();
    let rows = sqlx::query!(
        r#"select w.place as "place!", e.version, octet_length(e.value) as "size!",
               case when w.with_value then e.value end as value
           from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bool[]) with ordinality
               as w (tenant_id, owner_id, bucket, key, with_value, place)
           cross join lateral (
               select * from bucket_entry where tenant_id = w.tenant_id and owner_id = w.owner_id
                   and bucket = w.bucket and key = w.key offset 0) e"#,
        &column(&keys, |((bucket, _), _)| bucket.tenant.clone()),
        &column(&keys, |((bucket, _), _)| bucket.owner),
        &column(&keys, |((bucket, _), _)| bucket.name.clone()),
        &column(&keys, |((_, key), _)| key.clone()),
        &column(&keys, |(_, with_value)| *with_value),
    )
    .fetch_all(connection)
    .await
    .doing("checking what was read in buckets")?;
    let mut entries: HashMap<(BucketName, String), Entry> =
        keys.iter().map(|(key, _)| ((*key).clone(), Entry::default())).collect();
    for row in rows {
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        let Some(entry) = keys.get(place).and_then(|(key, _)| entries.get_mut(*key)) else { continue };
        let (version, size) = (Some(row.version), i64::from(row.size));
        entry.content = Some(Content { version, size, value: row.value });
    }
    Ok(entries)
}

async fn update_buckets(connection: &mut Connection, buckets: &[(&BucketName, &Bucket)]) -> Result<(), StoreError> {
    if buckets.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update bucket b set keys = w.keys, bytes = w.bytes,
             keys_version = case when w.is_another_set then nextval('bucket_version') else b.keys_version end
         from unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bool[])
             as w (tenant_id, owner_id, name, keys, bytes, is_another_set)
         where b.tenant_id = w.tenant_id and b.owner_id = w.owner_id and b.name = w.name",
        &column(buckets, |(name, _)| name.tenant.clone()),
        &column(buckets, |(name, _)| name.owner),
        &column(buckets, |(name, _)| name.name.clone()),
        &column(buckets, |(_, bucket)| bucket.keys),
        &column(buckets, |(_, bucket)| bucket.bytes),
        &column(buckets, |(_, bucket)| bucket.keys_version.is_none()),
    )
    .execute(connection)
    .await
    .doing("counting what buckets hold")?;
    Ok(())
}

async fn delete_entries(connection: &mut Connection, gone: &[&(BucketName, String)]) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "delete from bucket_entry e using unnest($1::text[], $2::uuid[], $3::text[], $4::text[])
             as g (tenant_id, owner_id, bucket, key)
         where e.tenant_id = g.tenant_id and e.owner_id = g.owner_id and e.bucket = g.bucket and e.key = g.key",
        &column(gone, |(bucket, _)| bucket.tenant.clone()),
        &column(gone, |(bucket, _)| bucket.owner),
        &column(gone, |(bucket, _)| bucket.name.clone()),
        &column(gone, |(_, key)| key.clone()),
    )
    .execute(connection)
    .await
    .doing("removing keys")?;
    Ok(())
}

async fn upsert_entries(connection: &mut Connection, set: &[(&(BucketName, String), &[u8])]) -> Result<(), StoreError> {
    if set.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into bucket_entry (tenant_id, owner_id, bucket, key, value)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[])
         on conflict (tenant_id, owner_id, bucket, key) do update
         set value = excluded.value, version = excluded.version",
        &column(set, |((bucket, _), _)| bucket.tenant.clone()),
        &column(set, |((bucket, _), _)| bucket.owner),
        &column(set, |((bucket, _), _)| bucket.name.clone()),
        &column(set, |((_, key), _)| key.clone()),
        &column(set, |(_, value)| value.to_vec()),
    )
    .execute(connection)
    .await
    .doing("writing keys")?;
    Ok(())
}

/// How often these jobs ran in vain before.
async fn count_conflicts(connection: &mut Connection, jobs: &[&FinishedJob]) -> Result<HashMap<Uuid, i64>, StoreError> {
    let rows = sqlx::query!(
        r#"select w.job_id as "job_id!", c.conflicts as "conflicts!"
           from unnest($1::text[], $2::uuid[]) as w (tenant_id, job_id)
           cross join lateral (
               select count(*) as conflicts from attempt a
               where a.tenant_id = w.tenant_id and a.job_id = w.job_id and a.verdict = 'conflicted') c"#,
        &column(jobs, |job| job.claim.tenant.clone()),
        &column(jobs, |job| job.claim.job.0),
    )
    .fetch_all(connection)
    .await
    .doing("counting conflicts")?;
    Ok(rows.into_iter().map(|row| (row.job_id, row.conflicts)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_after_conflicts_grow_differ_and_end() {
        let (one, other) = (JobId::new(), JobId::new());
        let waits = |job: JobId| (0..40).map(|earlier| conflict_wait_ms(job, earlier)).collect::<Vec<_>>();
        assert_ne!(waits(one), waits(other));
        let base = CONFLICT_WAIT_BASE.as_millis() as u64;
        assert!((base / 2..=base).contains(&waits(one)[0]));
        let most = CONFLICT_WAIT_MAX.as_millis() as u64;
        assert!(waits(one)[10..].iter().all(|wait| (most / 2..=most).contains(wait)), "{:?}", waits(one));
    }
}
