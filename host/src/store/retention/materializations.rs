//! Materializations: of each partition the newest few keep their bytes, and the facts of all stay.
//!
//! A materialization whose bytes may go is *expired*: marked, so that nothing uses it again and it names no blob any more;
//! what nothing names goes as any other blob does. The newest valid one of a partition is never expired, and none that a run
//! which goes on needs. Who is about to need one locks its row, by a foreign key or by itself, and looks for the mark in a
//! statement after that; the collector passes over what is locked, and asks what is needed once it holds the row.

use uuid::Uuid;

use super::{Amount, Collector};
use crate::{
    id::MaterializationId,
    limit::{COLLECT_EXPIRED_MAX, COLLECT_PARTITIONS_MAX},
    store::{Connection, Store, StoreError, column, error::Doing as _},
};

/// A partition of an asset of a tenant, in the order in which they are gone through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPlace {
    tenant: String,
    asset: Uuid,
    partition_key: String,
}

impl PartitionPlace {
    /// Before every partition.
    pub fn start() -> Self {
        Self { tenant: String::new(), asset: Uuid::nil(), partition_key: String::new() }
    }
}

impl Store {
    /// How many materializations would expire if each partition kept so many, and the bytes that they name.
    pub async fn count_expiring(&self, keep: u32) -> Result<Amount, StoreError> {
        let mut transaction = self.look_in_transaction().await?;
        let (mut amount, mut next) = (Amount::default(), Some(PartitionPlace::start()));
        while let Some(after) = next {
            let row = sqlx::query!(
                r#"select count(*) as "count!", coalesce(sum(m.size_bytes), 0)::bigint as "bytes!"
                   from expiring_materialization($1, $2, $3, $4, $5) old
                   cross join lateral (
                       select size_bytes from materialization m
                       where m.tenant_id = old.tenant_id and m.materialization_id = old.materialization_id offset 0) m"#,
                i64::from(keep),
                after.tenant,
                after.asset,
                after.partition_key,
                COLLECT_PARTITIONS_MAX,
            )
            .fetch_one(&mut *transaction)
            .await
            .doing("counting materializations that can expire")?;
            amount += Amount::of(row.count, row.bytes);
            next = find_next_place(&mut transaction, &after).await?;
        }
        Ok(amount)
    }

    /// Expires some of the materializations that are not among the newest of their partitions, so many of each, looking
    /// through the next partitions after a place; and says where to go on, until there is nowhere. What somebody is
    /// working with is left for another time.
    pub async fn expire_materializations(
        &self,
        collector: Collector,
        keep: u32,
        after: PartitionPlace,
    ) -> Result<(Amount, Option<PartitionPlace>), StoreError> {
        const DOING: &str = "expiring materializations";
        let mut transaction = self.collect_in_transaction(collector).await?;
        let old = sqlx::query!(
            r#"select tenant_id as "tenant_id!", materialization_id as "materialization_id!"
               from expiring_materialization($1, $2, $3, $4, $5) limit $6"#,
            i64::from(keep),
            after.tenant,
            after.asset,
            after.partition_key,
            COLLECT_PARTITIONS_MAX,
            COLLECT_EXPIRED_MAX,
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        // An invalidation makes another one the newest: it waits for the row of `latest`, which a commit may still replace.
        let held = sqlx::query!(
            "select m.tenant_id, m.materialization_id
             from unnest($1::text[], $2::uuid[]) as k (tenant_id, materialization_id)
             join materialization m on m.tenant_id = k.tenant_id and m.materialization_id = k.materialization_id
             join latest l on l.tenant_id = m.tenant_id and l.asset_id = m.asset_id and l.partition_key = m.partition_key
             order by 1, 2 for key share of l skip locked for update of m skip locked",
            &column(&old, |row| row.tenant_id.clone()),
            &column(&old, |row| row.materialization_id),
        )
        .fetch_all(&mut *transaction)
        .await
        .doing(DOING)?;
        // Another statement, which sees whatever came to need them until the rows were held.
        let row = sqlx::query!(
            r#"with old as materialized (
                   select m.tenant_id, m.materialization_id, m.size_bytes
                   from (select * from unnest($1::text[], $2::uuid[]) as k (tenant_id, materialization_id)
                         except select tenant_id, materialization_id from needed_materialization) k
                   join materialization m on m.tenant_id = k.tenant_id and m.materialization_id = k.materialization_id
                   where not exists (select from latest l where l.tenant_id = m.tenant_id and l.asset_id = m.asset_id
                         and l.partition_key = m.partition_key and l.materialization_id = m.materialization_id)),
               expired as (
                   insert into invalidation (tenant_id, materialization_id, actor, keeps_bytes)
                   select tenant_id, materialization_id, 'retention', false from old
                   on conflict (tenant_id, materialization_id) do update set keeps_bytes = false),
               told as (
                   insert into audit (tenant_id, actor, action, subject, details)
                   select tenant_id, 'retention', 'materialization.expired', count(*) || ' materializations',
                       jsonb_build_object('kept', $3::bigint) from old group by tenant_id)
               select count(*) as "count!", coalesce(sum(size_bytes), 0)::bigint as "bytes!" from old"#,
            &column(&held, |row| row.tenant_id.clone()),
            &column(&held, |row| row.materialization_id),
            i64::from(keep),
        )
        .fetch_one(&mut *transaction)
        .await
        .doing(DOING)?;
        let expired = Amount::of(row.count, row.bytes);
        // The same partitions once more, if there may be more and this brought something.
        let next = match expired.count {
            1.. if old.len() as i64 == COLLECT_EXPIRED_MAX => Some(after),
            _ => find_next_place(&mut transaction, &after).await?,
        };
        transaction.commit().await.doing(DOING)?;
        Ok((expired, next))
    }
}

/// The last of the partitions that one step looks through after a place; none when these are the last of all.
async fn find_next_place(
    connection: &mut Connection,
    after: &PartitionPlace,
) -> Result<Option<PartitionPlace>, StoreError> {
    let row = sqlx::query!(
        "select tenant_id, asset_id, partition_key from latest
         where (tenant_id, asset_id, partition_key) > ($1, $2, $3)
         order by tenant_id, asset_id, partition_key offset $4::bigint - 1 limit 1",
        after.tenant,
        after.asset,
        after.partition_key,
        COLLECT_PARTITIONS_MAX,
    )
    .fetch_optional(connection)
    .await
    .doing("looking for the next partitions")?;
    Ok(row.map(|row| PartitionPlace { tenant: row.tenant_id, asset: row.asset_id, partition_key: row.partition_key }))
}

/// Whether any of these materializations, whose rows this transaction has locked, is expired.
pub(in crate::store) async fn is_any_expired(
    connection: &mut Connection,
    tenant: &str,
    materializations: &[Uuid],
) -> Result<bool, StoreError> {
    sqlx::query_scalar!(
        r#"select exists (
               select from unnest($2::uuid[]) as k (materialization_id)
               cross join lateral (
                   select from invalidation i where i.tenant_id = $1 and i.materialization_id = k.materialization_id
                     and not i.keeps_bytes offset 0) i) as "is_any!""#,
        tenant,
        materializations,
    )
    .fetch_one(connection)
    .await
    .doing("looking whether inputs have expired")
}

/// Of these results, with their tenants, the places of those that are expired. The others cannot be before this transaction
/// ends.
pub(in crate::store) async fn hold_unexpired(
    connection: &mut Connection,
    results: &[(String, MaterializationId)],
) -> Result<Vec<usize>, StoreError> {
    const DOING: &str = "looking whether results have expired";
    let tenants = column(results, |(tenant, _)| tenant.clone());
    let ids = column(results, |(_, id)| id.0);
    sqlx::query!(
        r#"select m.materialization_id as "materialization_id!"
           from unnest($1::text[], $2::uuid[]) as k (tenant_id, materialization_id)
           cross join lateral (
               select m.materialization_id from materialization m
               where m.tenant_id = k.tenant_id and m.materialization_id = k.materialization_id for key share) m"#,
        &tenants,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await
    .doing(DOING)?;
    let places = sqlx::query_scalar!(
        r#"select k.place as "place!"
           from unnest($1::text[], $2::uuid[]) with ordinality as k (tenant_id, materialization_id, place)
           cross join lateral (
               select from invalidation i where i.tenant_id = k.tenant_id
                 and i.materialization_id = k.materialization_id and not i.keeps_bytes offset 0) i"#,
        &tenants,
        &ids,
    )
    .fetch_all(connection)
    .await
    .doing(DOING)?;
    Ok(places.into_iter().map(|place| place as usize - 1).collect())
}
