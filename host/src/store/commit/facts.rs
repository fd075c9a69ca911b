//! Facts: what the attempts of a batch were and what they produced, each kind of row in one statement.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    leases::EndedLease,
    values::{AttemptRecord, Ending, FinishedJob, NewMaterialization},
};
use crate::{
    blob::Digest,
    id::JobId,
    store::{
        Connection, StoreError, column,
        error::Doing as _,
        retention::{find_collected, hold_unexpired},
    },
};

pub(super) async fn insert_attempts(connection: &mut Connection, batch: &[&FinishedJob]) -> Result<(), StoreError> {
    let rows: Vec<(&FinishedJob, &AttemptRecord)> =
        batch.iter().filter_map(|item| Some((*item, item.attempt.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into attempt (tenant_id, attempt_id, job_id, number, token, worker_id, verdict, message, charged,
             engine_id, fuel_used, memory_bytes_peak, output_bytes, duration_us, log, log_dropped, denials, uses,
             started_at)
         select tenant_id, attempt_id, job_id, number, token, worker_id, verdict, message, charged,
             engine_id, fuel_used, memory_bytes_peak, output_bytes, duration_us, log, log_dropped, denials, uses,
             clock_timestamp() - duration_us * interval '1 microsecond'
         from unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
             $9::bool[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::jsonb[],
             $16::bigint[], $17::jsonb[], $18::jsonb[]) as t (tenant_id, attempt_id, job_id, number, token, worker_id, verdict,
             message, charged, engine_id, fuel_used, memory_bytes_peak, output_bytes, duration_us, log, log_dropped,
             denials, uses)",
        &column(&rows, |(item, _)| &*item.claim.tenant) as &[&str],
        &column(&rows, |(_, a)| a.id.0),
        &column(&rows, |(item, _)| item.claim.job.0),
        &column(&rows, |(item, _)| i32::from(item.claim.charged) + 1),
        &column(&rows, |(item, _)| item.claim.token.0),
        &column(&rows, |(_, a)| a.worker.0),
        &column(&rows, |(_, a)| a.verdict) as &[&str],
        &column(&rows, |(_, a)| a.message.as_deref()) as &[Option<&str>],
        &column(&rows, |(_, a)| a.charged),
        &column(&rows, |(_, a)| &*a.engine_id) as &[&str],
        &column(&rows, |(_, a)| a.fuel_used as i64),
        &column(&rows, |(_, a)| a.memory_bytes_peak as i64),
        &column(&rows, |(_, a)| a.output_bytes as i64),
        &column(&rows, |(_, a)| a.duration_us as i64),
        &column(&rows, |(_, a)| a.log.as_ref()) as &[Option<&serde_json::Value>],
        &column(&rows, |(_, a)| a.log_dropped as i64),
        &column(&rows, |(_, a)| a.denials.as_ref()) as &[Option<&serde_json::Value>],
        &column(&rows, |(_, a)| a.uses.as_ref()) as &[Option<&serde_json::Value>],
    )
    .execute(connection)
    .await
    .doing("recording attempts")?;
    Ok(())
}

/// A finished job and what it made.
pub(super) type Made<'a> = (&'a FinishedJob, &'a NewMaterialization);

/// What each materialization has several of, with the tenant and the materialization of each.
fn rows_of<'a, T>(
    made: &[Made<'a>],
    several: impl Fn(&'a NewMaterialization) -> &'a [T],
) -> Vec<(&'a str, Uuid, &'a T)> {
    let rows = |&(item, new): &Made<'a>| several(new).iter().map(move |one| (&*item.claim.tenant, new.id.0, one));
    made.iter().flat_map(rows).collect()
}

/// Outputs and staged contents; what is there already is the same bytes. What is there is locked until the end, so that it
/// is not collected before this commit has named it.
pub(super) async fn insert_blobs(connection: &mut Connection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let mut rows: Vec<(&str, Digest, u64, Option<&[u8]>)> = Vec::new();
    for (item, new) in made {
        let tenant = item.claim.tenant.as_str();
        rows.push((tenant, new.digest, new.size_bytes, new.inline.as_deref()));
        rows.extend(new.staged_files.iter().filter_map(|file| {
            let (digest, size) = file.content?;
            Some((tenant, digest, size, None))
        }));
    }
    if rows.is_empty() {
        return Ok(());
    }
    // In one order in every process, so that two commits with the same bytes wait for each other, not for ever.
    rows.sort_by_key(|(tenant, digest, _, bytes)| (*tenant, *digest, bytes.is_none()));
    rows.dedup_by_key(|(tenant, digest, _, _)| (*tenant, *digest));
    sqlx::query!(
        "with wanted as materialized (
             select * from unnest((select $1::text[]), $2::bytea[], $3::bigint[], $4::bytea[])
                 as w (tenant_id, digest, size_bytes, bytes)),
         held as materialized (
             select b.tenant_id, b.digest from wanted w cross join lateral (
                 select tenant_id, digest from blob where tenant_id = w.tenant_id and digest = w.digest for key share) b)
         insert into blob (tenant_id, digest, size_bytes, bytes)
         select * from wanted w
         where not exists (select from held h where h.tenant_id = w.tenant_id and h.digest = w.digest)
         on conflict (tenant_id, digest) do nothing",
        &column(&rows, |row| row.0) as &[&str],
        &column(&rows, |row| &row.1.0[..]) as &[&[u8]],
        &column(&rows, |row| row.2 as i64),
        &column(&rows, |row| row.3) as &[Option<&[u8]>],
    )
    .execute(connection)
    .await
    .doing("writing blobs")?;
    Ok(())
}

/// Those of these jobs whose stored bytes may have been collected as garbage since they were claimed. Asked after their
/// blobs' rows are held; of outputs that the commit carries nothing is asked.
pub(super) async fn find_collected_jobs(
    connection: &mut Connection,
    made: &[Made<'_>],
    held: &HashMap<Uuid, EndedLease>,
) -> Result<HashSet<JobId>, StoreError> {
    let mut jobs = Vec::new();
    let mut stored = Vec::new();
    for (item, new) in made {
        let output = new.inline.is_none().then_some(new.digest);
        let contents = new.staged_files.iter().filter_map(|file| file.content.map(|(digest, _)| digest));
        for digest in output.into_iter().chain(contents) {
            jobs.push(item.claim.job);
            stored.push((item.claim.tenant.clone(), digest, held[&item.claim.job.0].claimed_us));
        }
    }
    if stored.is_empty() {
        return Ok(HashSet::new());
    }
    let places = find_collected(connection, &stored).await?;
    Ok(places.into_iter().map(|place| jobs[place]).collect())
}

/// Those of these jobs that end with a result which has expired since it was looked up. Of most batches nothing is asked:
/// a plan leaves out what is up to date.
pub(super) async fn find_expired_jobs(
    connection: &mut Connection,
    batch: &[&FinishedJob],
) -> Result<HashSet<JobId>, StoreError> {
    let used = batch.iter().filter_map(|item| match &item.ending {
        Ending::UpToDate(id) => Some((item.claim.job, (item.claim.tenant.clone(), *id))),
        _ => None,
    });
    let (jobs, results): (Vec<JobId>, Vec<_>) = used.unzip();
    if jobs.is_empty() {
        return Ok(HashSet::new());
    }
    let places = hold_unexpired(connection, &results).await?;
    Ok(places.into_iter().map(|place| jobs[place]).collect())
}

/// The facts, and with them the newest of each partition: of two commits the one that waits sees what the other wrote,
/// and the greater sequence stays. Rows are locked in one order.
pub(super) async fn insert_materializations(connection: &mut Connection, made: &[Made<'_>]) -> Result<(), StoreError> {
    if made.is_empty() {
        return Ok(());
    }
    // Postgres has no ragged arrays: the digests of one row's inputs travel as one string of bytes.
    sqlx::query!(
        "with made as (
             insert into materialization (tenant_id, materialization_id, asset_id, asset_version_id, partition_key,
                 run_id, job_id, attempt_id, output_digest, size_bytes, media_type, metadata, version_digest, recipe,
                 sources_digest, input_digests, engine_id, reused_from)
             select * from unnest((select $1::text[]), $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::uuid[],
                 $8::uuid[], $9::bytea[], $10::bigint[], $11::text[], $12::jsonb[], $13::bytea[], $14::bytea[],
                 $15::bytea[], $16::bytea[], $17::text[], $18::uuid[])
             returning tenant_id, materialization_id, asset_id, partition_key, sequence, asset_version_id, output_digest,
                 version_digest, sources_digest, input_digests, reused_from, created_at),
         newest as (
             select distinct on (tenant_id, asset_id, partition_key) * from made
             order by tenant_id, asset_id, partition_key, sequence desc)
         insert into latest as l (tenant_id, asset_id, partition_key, materialization_id, sequence, asset_version_id,
             version_digest, sources_digest, input_digests, stored_digest, made_at)
         select tenant_id, asset_id, partition_key, materialization_id, sequence, asset_version_id,
             version_digest, sources_digest, input_digests,
             (select b.digest from blob b
                 where b.tenant_id = n.tenant_id and b.digest = n.output_digest and b.bytes is null),
             coalesce((select o.created_at from materialization o
                 where o.tenant_id = n.tenant_id and o.materialization_id = n.reused_from), created_at)
         from newest n order by tenant_id, asset_id, partition_key
         on conflict (tenant_id, asset_id, partition_key) do update set
             materialization_id = excluded.materialization_id, sequence = excluded.sequence,
             asset_version_id = excluded.asset_version_id, version_digest = excluded.version_digest,
             sources_digest = excluded.sources_digest, input_digests = excluded.input_digests,
             stored_digest = excluded.stored_digest, made_at = excluded.made_at
         where l.sequence < excluded.sequence",
        &column(made, |(item, _)| &*item.claim.tenant) as &[&str],
        &column(made, |(_, new)| new.id.0),
        &column(made, |(_, new)| new.asset.0),
        &column(made, |(_, new)| new.asset_version.0),
        &column(made, |(_, new)| &*new.partition_key) as &[&str],
        &column(made, |(item, _)| item.run.0),
        &column(made, |(item, _)| item.claim.job.0),
        &column(made, |(_, new)| new.attempt.0),
        &column(made, |(_, new)| &new.digest.0[..]) as &[&[u8]],
        &column(made, |(_, new)| new.size_bytes as i64),
        &column(made, |(_, new)| &*new.media_type) as &[&str],
        &column(made, |(_, new)| &new.metadata) as &[&serde_json::Value],
        &column(made, |(_, new)| &new.version_digest.0[..]) as &[&[u8]],
        &column(made, |(_, new)| &new.recipe.0[..]) as &[&[u8]],
        &column(made, |(_, new)| &new.sources_digest.0[..]) as &[&[u8]],
        &column(made, |(_, new)| new.input_digests.iter().flat_map(|digest| digest.0).collect::<Vec<u8>>()),
        &column(made, |(_, new)| &*new.engine_id) as &[&str],
        &column(made, |(_, new)| new.reused_from.map(|id| id.0)) as &[Option<Uuid>],
    )
    .execute(connection)
    .await
    .doing("recording materializations")?;
    Ok(())
}

pub(super) async fn insert_edges(connection: &mut Connection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows = rows_of(made, |new| &new.edges);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into lineage_edge
             (tenant_id, materialization_id, input, position, upstream_materialization_id, bytes_read)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::int[], $5::uuid[], $6::bigint[])",
        &column(&rows, |row| row.0) as &[&str],
        &column(&rows, |row| row.1),
        &column(&rows, |row| &*row.2.input) as &[&str],
        &column(&rows, |row| row.2.position),
        &column(&rows, |row| row.2.upstream.0),
        &column(&rows, |row| row.2.bytes_read as i64),
    )
    .execute(connection)
    .await
    .doing("recording lineage")?;
    Ok(())
}

pub(super) async fn insert_external_reads(connection: &mut Connection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows = rows_of(made, |new| &new.external_reads);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into external_read (tenant_id, materialization_id, resource, kind, digest, items, size_bytes)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])",
        &column(&rows, |row| row.0) as &[&str],
        &column(&rows, |row| row.1),
        &column(&rows, |row| &*row.2.resource) as &[&str],
        &column(&rows, |row| row.2.kind) as &[&str],
        &column(&rows, |row| &row.2.digest.0[..]) as &[&[u8]],
        &column(&rows, |row| row.2.items as i64),
        &column(&rows, |row| row.2.size_bytes as i64),
    )
    .execute(connection)
    .await
    .doing("recording external reads")?;
    Ok(())
}

pub(super) async fn insert_staged_files(connection: &mut Connection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows = rows_of(made, |new| &new.staged_files);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into staged_file (tenant_id, materialization_id, resource, path, digest)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[])",
        &column(&rows, |row| row.0) as &[&str],
        &column(&rows, |row| row.1),
        &column(&rows, |row| &*row.2.resource) as &[&str],
        &column(&rows, |row| &*row.2.path) as &[&str],
        &column(&rows, |row| row.2.content.as_ref().map(|(digest, _)| &digest.0[..])) as &[Option<&[u8]>],
    )
    .execute(connection)
    .await
    .doing("staging files")?;
    Ok(())
}
