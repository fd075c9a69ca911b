//! Blobs: those that nothing names go, and no commit may name one that has gone.
//!
//! A commit locks the row of each blob that it names, or writes it, before it writes what names it. So whoever holds the
//! row sees, in a statement that begins after that, whether anything does: the row of what nothing names goes, and with it
//! comes one of `garbage`, in one transaction. Only then the bytes are deleted, and when they are gone that is written
//! down too. A commit that comes after the first of these transactions writes the blob's row anew, and then looks into
//! `garbage`: bytes that were stored by an attempt which was claimed before they were all deleted may be among those that
//! were. It is made again, uncharged; and so is one that used a result again whose bytes went with their row. Clocks decide
//! only how young a blob is left alone, and never whether it is safe.

use std::time::Duration;

use super::{Amount, Collector};
use crate::{
    blob::{Digest, Listed},
    limit::{COLLECT_BLOBS_MAX, COLLECT_ROWS_MAX},
    store::{Connection, Store, StoreError, column, digest, error::Doing as _},
};

/// A blob whose bytes are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Whose.
    pub tenant: String,
    /// Its name.
    pub digest: Digest,
    /// Of its bytes.
    pub size: u64,
}

/// What nothing names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unnamed {
    /// In the blob store.
    pub stored: Amount,
    /// In the database.
    pub inline: Amount,
}

impl Store {
    /// Every tenant.
    pub async fn list_tenants(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!("select tenant_id from tenant order by tenant_id")
            .fetch_all(&self.pool)
            .await
            .doing("listing tenants")
    }

    /// What nothing names and was recorded that long ago.
    pub async fn count_unnamed(&self, older: Duration) -> Result<Unnamed, StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let row = sqlx::query!(
            r#"select count(*) filter (where bytes is null) as "stored!",
                      coalesce(sum(size_bytes) filter (where bytes is null), 0)::bigint as "stored_bytes!",
                      count(*) filter (where bytes is not null) as "inline!",
                      coalesce(sum(size_bytes) filter (where bytes is not null), 0)::bigint as "inline_bytes!"
               from blob b where created_at <= now() - make_interval(secs => $1)
                 and not exists (select from named_blob n where n.tenant_id = b.tenant_id and n.digest = b.digest)"#,
            older.as_secs_f64(),
        )
        .fetch_one(&mut *transaction)
        .await
        .doing("counting blobs that nothing names")?;
        let (stored, inline) = (Amount::of(row.stored, row.stored_bytes), Amount::of(row.inline, row.inline_bytes));
        Ok(Unnamed { stored, inline })
    }

    /// Removes the rows of some blobs that nothing names, and condemns the bytes that are in the blob store. Nothing more to
    /// do when there were none.
    pub async fn condemn_unnamed(&self, collector: Collector, older: Duration) -> Result<Unnamed, StoreError> {
        const DOING: &str = "condemning blobs that nothing names";
        let mut transaction = self.collect_in_transaction(collector).await?;
        // What was in the database went with its row, in a transaction that is over.
        sqlx::query!("update garbage set deleted_at = clock_timestamp() where deleted_at is null and not stored")
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
        // Who has locked one is about to name it.
        let held = sqlx::query!(
            "select tenant_id, digest from blob where ctid = any(array(
                 select b.ctid from blob b where created_at <= now() - make_interval(secs => $1)
                   and not exists (select from named_blob n where n.tenant_id = b.tenant_id and n.digest = b.digest)
                 limit $2))
             order by tenant_id, digest for update skip locked",
            older.as_secs_f64(),
            COLLECT_BLOBS_MAX,
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        // Another statement, which sees what has been named until the rows were held.
        let row = sqlx::query!(
            r#"with unnamed as materialized (
                   select * from unnest($1::text[], $2::bytea[]) as k (tenant_id, digest)
                   except select tenant_id, digest from named_blob),
               gone as (
                   delete from blob b using unnamed k where b.tenant_id = k.tenant_id and b.digest = k.digest
                   returning b.tenant_id, b.digest, b.size_bytes, b.bytes is null as stored),
               condemned as (
                   insert into garbage (tenant_id, digest, size_bytes, stored)
                   select tenant_id, digest, size_bytes, stored from gone
                   on conflict (tenant_id, digest) do update set condemned_at = now(), deleted_at = null,
                       size_bytes = excluded.size_bytes, stored = excluded.stored)
               select count(*) filter (where stored) as "stored!",
                      coalesce(sum(size_bytes) filter (where stored), 0)::bigint as "stored_bytes!",
                      count(*) filter (where not stored) as "inline!",
                      coalesce(sum(size_bytes) filter (where not stored), 0)::bigint as "inline_bytes!"
               from gone"#,
            &column(&held, |row| row.tenant_id.clone()),
            &column(&held, |row| row.digest.clone()),
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        let (stored, inline) = (Amount::of(row.stored, row.stored_bytes), Amount::of(row.inline, row.inline_bytes));
        Ok(Unnamed { stored, inline })
    }

    /// Of these blobs in the blob store, those that the database does not know. What is intended is little, and read whole;
    /// `offset 0` keeps each other question to its key.
    pub async fn find_unknown(&self, tenant: &str, listed: &[Listed]) -> Result<Vec<Listed>, StoreError> {
        let known = sqlx::query_scalar!(
            r#"select k.digest as "digest!" from unnest($2::bytea[]) as k (digest)
               where exists (select from blob b where b.tenant_id = $1 and b.digest = k.digest offset 0)
                  or exists (select from garbage g
                      where g.tenant_id = $1 and g.digest = k.digest and g.deleted_at is null offset 0)
                  or exists (select from intended_blob i where i.tenant_id = $1 and i.digest = k.digest)"#,
            tenant,
            &column(listed, |blob| blob.digest.0.to_vec()),
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for blobs that nothing knows")?;
        let known: std::collections::HashSet<Vec<u8>> = known.into_iter().collect();
        Ok(listed.iter().filter(|blob| !known.contains(&blob.digest.0[..])).copied().collect())
    }

    /// Condemns blobs of the blob store that the database does not know. How many: somebody may have written their rows.
    pub async fn condemn_unknown(
        &self,
        collector: Collector,
        tenant: &str,
        blobs: &[Listed],
    ) -> Result<Amount, StoreError> {
        const DOING: &str = "condemning blobs that nothing knows";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let mut blobs = blobs.to_vec();
        blobs.sort_by_key(|blob| blob.digest);
        // Whoever writes the row of one of these waits from here on; whoever has written it is waited for.
        let held = sqlx::query_scalar!(
            "insert into blob (tenant_id, digest, size_bytes)
             select $1, * from unnest($2::bytea[], $3::bigint[]) on conflict (tenant_id, digest) do nothing
             returning digest",
            tenant,
            &column(&blobs, |blob| blob.digest.0.to_vec()),
            &column(&blobs, |blob| blob.size as i64),
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        let row = sqlx::query!(
            r#"with gone as (
                   delete from blob b using unnest($2::bytea[]) as k (digest)
                   where b.tenant_id = $1 and b.digest = k.digest returning b.tenant_id, b.digest, b.size_bytes),
               condemned as (
                   insert into garbage (tenant_id, digest, size_bytes)
                   select tenant_id, digest, size_bytes from gone
                   where not exists (select from intended_blob i
                       where i.tenant_id = gone.tenant_id and i.digest = gone.digest)
                   on conflict (tenant_id, digest) do update set condemned_at = now(), deleted_at = null,
                       size_bytes = excluded.size_bytes, stored = true
                   returning size_bytes)
               select count(*) as "count!", coalesce(sum(size_bytes), 0)::bigint as "bytes!" from condemned"#,
            tenant,
            &held,
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        Ok(Amount::of(row.count, row.bytes))
    }

    /// Some of the blobs whose bytes are still to be deleted, those of collections that died among them.
    pub async fn list_condemned(&self) -> Result<Vec<Condemned>, StoreError> {
        let rows = sqlx::query!(
            "select tenant_id, digest, size_bytes from garbage where deleted_at is null and stored
             order by condemned_at, tenant_id, digest limit $1",
            COLLECT_ROWS_MAX,
        )
        .fetch_all(&self.pool)
        .await
        .doing("listing condemned blobs")?;
        rows.into_iter()
            .map(|row| {
                let size = row.size_bytes.max(0) as u64;
                Ok(Condemned { tenant: row.tenant_id, digest: digest(row.digest)?, size })
            })
            .collect()
    }

    /// The bytes of these are deleted.
    pub async fn record_deleted(&self, collector: Collector, blobs: &[Condemned]) -> Result<(), StoreError> {
        const DOING: &str = "recording what was deleted";
        let mut transaction = self.collect_in_transaction(collector).await?;
        sqlx::query!(
            "update garbage g set deleted_at = clock_timestamp()
             from unnest($1::text[], $2::bytea[]) as k (tenant_id, digest)
             where g.tenant_id = k.tenant_id and g.digest = k.digest and g.deleted_at is null",
            &column(blobs, |blob| blob.tenant.clone()),
            &column(blobs, |blob| blob.digest.0.to_vec()),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }

    /// The instant from which on whoever stores blobs without a lease does so, in microseconds since 1970 by the database's
    /// clock.
    pub async fn find_instant_us(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar!(r#"select (extract(epoch from clock_timestamp()) * 1000000)::bigint as "now!""#)
            .fetch_one(&self.pool)
            .await
            .doing("asking for the time")
    }

    /// Forgets what was deleted before every attempt that goes on was claimed, and before any deploy that goes on began.
    pub async fn forget_deleted(&self, collector: Collector) -> Result<(), StoreError> {
        const DOING: &str = "forgetting what was deleted";
        let mut transaction = self.collect_in_transaction(collector).await?;
        sqlx::query!(
            "delete from garbage where deleted_at < now() - interval '1 day'
               and deleted_at < coalesce((select min(claimed_at) from job_lease), 'infinity')"
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        transaction.commit().await.doing(DOING)
    }
}

/// Of these stored blobs, whose rows this transaction holds, the places of those whose bytes may have been deleted since
/// the instant (microseconds since 1970, by the database's clock) from which on they can have been stored.
pub(in crate::store) async fn find_collected(
    connection: &mut Connection,
    stored: &[(String, Digest, i64)],
) -> Result<Vec<usize>, StoreError> {
    let places = sqlx::query_scalar!(
        r#"select k.place as "place!"
           from unnest($1::text[], $2::bytea[], $3::bigint[]) with ordinality as k (tenant_id, digest, since_us, place)
           cross join lateral (
               select deleted_at from garbage where tenant_id = k.tenant_id and digest = k.digest offset 0) g
           where g.deleted_at is null or (extract(epoch from g.deleted_at) * 1000000)::bigint >= k.since_us"#,
        &column(stored, |(tenant, ..)| tenant.clone()),
        &column(stored, |(_, digest, _)| digest.0.to_vec()),
        &column(stored, |(.., since_us)| *since_us),
    )
    .fetch_all(connection)
    .await
    .doing("looking whether blobs were collected")?;
    Ok(places.into_iter().map(|place| place as usize - 1).collect())
}
