//! The commit: the one place where a job ends, and where everything that its attempt produced becomes true together.
//!
//! One transaction writes a batch of finished jobs: leases go (fenced by the claim's token), and with them come
//! attempts, blobs, materializations, lineage, staged files, ends, retries, audit and outbox; jobs that waited for
//! these are released or skipped, and the runs' counters move. A job whose lease is gone writes nothing at all.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError, error::Doing as _, queue::Claim};
use crate::{
    blob::Digest,
    id::{AssetId, AssetVersionId, AttemptId, JobId, MaterializationId, RunId, WorkerId},
};

/// One job of a batch: what happened to it, and what becomes of it.
#[derive(Clone, Debug)]
pub struct FinishedJob {
    /// The lease that entitles to it.
    pub claim: Claim,
    /// The run it belongs to.
    pub run: RunId,
    /// For events and audit: `asset` or `asset[partition]`.
    pub name: String,
    /// The execution, if there was one.
    pub attempt: Option<AttemptRecord>,
    /// What becomes of the job.
    pub ending: Ending,
}

impl FinishedJob {
    /// About how many bytes its record takes on the wire.
    pub fn record_bytes(&self) -> usize {
        let output = match &self.ending {
            Ending::Materialized(new) => new.inline.as_ref().map_or(0, Vec::len) + new.edges.len() * 64,
            _ => 0,
        };
        let log = self.attempt.as_ref().map_or(0, |attempt| attempt.log_bytes);
        RECORD_BYTES + output + log
    }
}

/// About what a record takes without its output, its edges and its log.
const RECORD_BYTES: usize = 1 << 10;

/// What becomes of a job when its attempt is over.
#[derive(Clone, Debug)]
pub enum Ending {
    /// It made something, or an earlier result becomes the latest.
    Materialized(Box<NewMaterialization>),
    /// The latest materialization already is what it would make.
    UpToDate(MaterializationId),
    /// There is nothing to make, and why.
    Skipped(String),
    /// It failed for good, and why.
    Failed(String),
    /// It was cancelled.
    Cancelled(String),
    /// It is tried again later.
    Deferred {
        /// From now, by the database's clock.
        wait_ms: u64,
        /// Why.
        cause: String,
        /// What it counts as.
        counts: Counts,
    },
    /// It goes back to the queue at once, uncharged.
    Released,
}

/// What a return to the queue counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// An attempt of the asset's policy: the guest's fault.
    Charged,
    /// A fault of the host's: the next wait is longer, and no attempt is used up.
    Released,
    /// Nothing: it waits for another job.
    Nothing,
}

/// A new fact.
#[derive(Clone, Debug)]
pub struct NewMaterialization {
    /// Its id.
    pub id: MaterializationId,
    /// Of what.
    pub asset: AssetId,
    /// By which definition.
    pub asset_version: AssetVersionId,
    /// Canonical text.
    pub partition_key: String,
    /// The attempt that made it; for a reused result, an id of its own.
    pub attempt: AttemptId,
    /// Of the bytes.
    pub digest: Digest,
    /// Of the bytes.
    pub size_bytes: u64,
    /// The bytes themselves when they are small.
    pub inline: Option<Vec<u8>>,
    /// Of the bytes.
    pub media_type: String,
    /// A JSON array of fields.
    pub metadata: serde_json::Value,
    /// Of all that a consumer can see of it.
    pub version_digest: Digest,
    /// From what it was made.
    pub recipe: Digest,
    /// Of the directories it could read.
    pub sources_digest: Digest,
    /// One for each input, in the definition's order.
    pub input_digests: Vec<Digest>,
    /// Which engine ran it.
    pub engine_id: String,
    /// The earlier result that was used again, when nothing ran.
    pub reused_from: Option<MaterializationId>,
    /// What was handed to the guest.
    pub edges: Vec<NewEdge>,
    /// What it could read, or read, outside, as it was.
    pub external_reads: Vec<ExternalRead>,
    /// What it wants written; the blobs are in the blob store.
    pub staged_files: Vec<NewStagedFile>,
}

/// A version that was handed to the guest.
#[derive(Clone, Debug)]
pub struct NewEdge {
    /// The input's name.
    pub input: String,
    /// Among the versions of that input.
    pub position: i32,
    /// What was handed over.
    pub upstream: MaterializationId,
    /// How much of it was read.
    pub bytes_read: u64,
}

/// What the guest could read, or read, of something outside, as it was.
#[derive(Clone, Debug)]
pub struct ExternalRead {
    /// The resource.
    pub resource: String,
    /// Its kind.
    pub kind: &'static str,
    /// Of everything that was there to read, or was read.
    pub digest: Digest,
    /// Files that the grant matched, for a directory; answers, keys or rows of other kinds.
    pub items: u64,
    /// Of those.
    pub size_bytes: u64,
}

/// A write or removal that is due after the commit.
#[derive(Clone, Debug)]
pub struct NewStagedFile {
    /// The resource.
    pub resource: String,
    /// Within it.
    pub path: String,
    /// The new contents, and their size; none removes the file.
    pub content: Option<(Digest, u64)>,
}

/// One execution.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// Who executed it.
    pub worker: WorkerId,
    /// As DESIGN names them.
    pub verdict: &'static str,
    /// In words, when there is something to say.
    pub message: Option<String>,
    /// Whether it counts.
    pub charged: bool,
    /// Which engine ran it.
    pub engine_id: String,
    /// Units.
    pub fuel_used: u64,
    /// Summed over all memories.
    pub memory_bytes_peak: u64,
    /// Written, kept or not.
    pub output_bytes: u64,
    /// From claim to verdict.
    pub duration_us: u64,
    /// A JSON array of lines.
    pub log: Option<serde_json::Value>,
    /// About how many bytes that is.
    pub log_bytes: usize,
    /// Lines past the limit.
    pub log_dropped: u64,
    /// A JSON array of denials.
    pub denials: Option<serde_json::Value>,
    /// A JSON array of uses.
    pub uses: Option<serde_json::Value>,
}

/// A job that a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    /// Which.
    pub job: JobId,
    /// Of which run.
    pub run: RunId,
    /// `succeeded`, `skipped`, `failed` or `cancelled`.
    pub state: &'static str,
    /// Why, unless it succeeded.
    pub cause: Option<String>,
    /// Whether it succeeded without running.
    pub reused: bool,
    /// What it made or found, when it succeeded.
    pub materialization: Option<MaterializationId>,
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Jobs that ended, those that could not run any more among them.
    pub ended: Vec<EndedJob>,
    /// Jobs that became ready.
    pub released: usize,
    /// Jobs that were not this worker's any more: nothing of theirs was written.
    pub fenced: Vec<JobId>,
    /// Materializations whose staged files are due.
    pub to_publish: Vec<MaterializationId>,
}

impl Store {
    /// Commits a batch, whole or not at all. A job whose lease is gone is left out and named.
    pub async fn commit_finished_jobs(&self, batch: &[FinishedJob]) -> Result<Committed, StoreError> {
        let mut transaction = self.pool.begin().await.doing("opening a commit")?;
        let held = delete_leases(&mut transaction, batch).await?;
        let (mine, fenced): (Vec<&FinishedJob>, Vec<&FinishedJob>) =
            batch.iter().partition(|item| held.contains(&item.claim.job.0));

        insert_attempts(&mut transaction, &mine).await?;
        let made: Vec<(&FinishedJob, &NewMaterialization)> = mine
            .iter()
            .filter_map(|item| match &item.ending {
                Ending::Materialized(new) => Some((*item, new.as_ref())),
                _ => None,
            })
            .collect();
        insert_blobs(&mut transaction, &made).await?;
        insert_materializations(&mut transaction, &made).await?;
        insert_edges(&mut transaction, &made).await?;
        insert_external_reads(&mut transaction, &made).await?;
        insert_staged_files(&mut transaction, &made).await?;
        let released = return_to_queue(&mut transaction, &mine).await?;
        let ends: Vec<End> = mine.iter().filter_map(|item| End::of(item)).collect();
        let mut committed = end_jobs(&mut transaction, ends).await?;
        committed.released += released;
        transaction.commit().await.doing("committing")?;
        committed.fenced = fenced.iter().map(|item| item.claim.job).collect();
        committed.to_publish =
            made.iter().filter(|(_, new)| !new.staged_files.is_empty()).map(|(_, new)| new.id).collect();
        Ok(committed)
    }

    /// Which of these jobs have a recorded attempt with the claim's token: for a commit whose answer was lost.
    pub async fn find_recorded_attempts(&self, batch: &[&FinishedJob]) -> Result<Vec<JobId>, StoreError> {
        let tenants: Vec<String> = batch.iter().map(|item| item.claim.tenant.clone()).collect();
        let jobs: Vec<Uuid> = batch.iter().map(|item| item.claim.job.0).collect();
        let tokens: Vec<Uuid> = batch.iter().map(|item| item.claim.token.0).collect();
        let found = sqlx::query_scalar!(
            "select a.job_id from unnest($1::text[], $2::uuid[], $3::uuid[]) as t (tenant_id, job_id, token)
             join attempt a on a.tenant_id = t.tenant_id and a.job_id = t.job_id and a.token = t.token
             where a.verdict <> 'lost'",
            &tenants,
            &jobs,
            &tokens,
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for a commit whose answer was lost")?;
        Ok(found.into_iter().map(JobId).collect())
    }
}

/// A job's end on its way to `job_end`.
pub(super) struct End {
    pub(super) tenant: String,
    pub(super) job: JobId,
    pub(super) run: RunId,
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) cause: Option<String>,
    /// Why those that need it are skipped: the first job that was not made, by name.
    pub(super) first_cause: Option<String>,
    pub(super) materialization: Option<MaterializationId>,
    pub(super) reused: bool,
}

impl End {
    fn of(item: &FinishedJob) -> Option<Self> {
        let (state, cause, materialization, reused) = match &item.ending {
            Ending::Materialized(new) => ("succeeded", None, Some(new.id), new.reused_from.is_some()),
            Ending::UpToDate(id) => ("succeeded", None, Some(*id), true),
            Ending::Skipped(cause) => ("skipped", Some(cause.clone()), None, false),
            Ending::Failed(cause) => ("failed", Some(cause.clone()), None, false),
            Ending::Cancelled(cause) => ("cancelled", Some(cause.clone()), None, false),
            Ending::Deferred { .. } | Ending::Released => return None,
        };
        Some(Self {
            tenant: item.claim.tenant.clone(),
            job: item.claim.job,
            run: item.run,
            name: item.name.clone(),
            state,
            cause,
            first_cause: None,
            materialization,
            reused,
        })
    }
}

/// The fence: only rows that still carry the claim's token go, and only their jobs are written.
async fn delete_leases(
    connection: &mut PgConnection,
    batch: &[FinishedJob],
) -> Result<std::collections::HashSet<Uuid>, StoreError> {
    let tenants: Vec<String> = batch.iter().map(|item| item.claim.tenant.clone()).collect();
    let jobs: Vec<Uuid> = batch.iter().map(|item| item.claim.job.0).collect();
    let tokens: Vec<Uuid> = batch.iter().map(|item| item.claim.token.0).collect();
    let held = sqlx::query_scalar!(
        "with held as materialized (
             select l.ctid as place from unnest($1::text[], $2::uuid[], $3::uuid[]) as b (tenant_id, job_id, token)
             join job_lease l on l.tenant_id = b.tenant_id and l.job_id = b.job_id and l.token = b.token
             order by l.tenant_id, l.job_id for update of l)
         delete from job_lease where ctid = any(array(select place from held)) returning job_id",
        &tenants,
        &jobs,
        &tokens,
    )
    .fetch_all(connection)
    .await
    .doing("ending leases")?;
    Ok(held.into_iter().collect())
}

async fn insert_attempts(connection: &mut PgConnection, batch: &[&FinishedJob]) -> Result<(), StoreError> {
    let rows: Vec<(&FinishedJob, &AttemptRecord)> =
        batch.iter().filter_map(|item| Some((*item, item.attempt.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = rows.iter().map(|(item, _)| item.claim.tenant.clone()).collect();
    let ids: Vec<Uuid> = rows.iter().map(|(_, a)| a.id.0).collect();
    let jobs: Vec<Uuid> = rows.iter().map(|(item, _)| item.claim.job.0).collect();
    let numbers: Vec<i32> = rows.iter().map(|(item, _)| i32::from(item.claim.charged) + 1).collect();
    let tokens: Vec<Uuid> = rows.iter().map(|(item, _)| item.claim.token.0).collect();
    let workers: Vec<Uuid> = rows.iter().map(|(_, a)| a.worker.0).collect();
    let verdicts: Vec<String> = rows.iter().map(|(_, a)| a.verdict.to_owned()).collect();
    let messages: Vec<Option<String>> = rows.iter().map(|(_, a)| a.message.clone()).collect();
    let charged: Vec<bool> = rows.iter().map(|(_, a)| a.charged).collect();
    let engines: Vec<String> = rows.iter().map(|(_, a)| a.engine_id.clone()).collect();
    let fuel: Vec<i64> = rows.iter().map(|(_, a)| a.fuel_used as i64).collect();
    let memory: Vec<i64> = rows.iter().map(|(_, a)| a.memory_bytes_peak as i64).collect();
    let output: Vec<i64> = rows.iter().map(|(_, a)| a.output_bytes as i64).collect();
    let durations: Vec<i64> = rows.iter().map(|(_, a)| a.duration_us as i64).collect();
    let logs: Vec<Option<serde_json::Value>> = rows.iter().map(|(_, a)| a.log.clone()).collect();
    let dropped: Vec<i64> = rows.iter().map(|(_, a)| a.log_dropped as i64).collect();
    let denials: Vec<Option<serde_json::Value>> = rows.iter().map(|(_, a)| a.denials.clone()).collect();
    let uses: Vec<Option<serde_json::Value>> = rows.iter().map(|(_, a)| a.uses.clone()).collect();
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
        &tenants,
        &ids,
        &jobs,
        &numbers,
        &tokens,
        &workers,
        &verdicts,
        &messages as &[Option<String>],
        &charged,
        &engines,
        &fuel,
        &memory,
        &output,
        &durations,
        &logs as &[Option<serde_json::Value>],
        &dropped,
        &denials as &[Option<serde_json::Value>],
        &uses as &[Option<serde_json::Value>],
    )
    .execute(connection)
    .await
    .doing("recording attempts")?;
    Ok(())
}

type Made<'a> = (&'a FinishedJob, &'a NewMaterialization);

/// Outputs and staged contents; what is there already is the same bytes.
async fn insert_blobs(connection: &mut PgConnection, made: &[Made<'_>]) -> Result<(), StoreError> {
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
    let tenants: Vec<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    let digests: Vec<Vec<u8>> = rows.iter().map(|row| row.1.0.to_vec()).collect();
    let sizes: Vec<i64> = rows.iter().map(|row| row.2 as i64).collect();
    let bytes: Vec<Option<Vec<u8>>> = rows.iter().map(|row| row.3.map(<[u8]>::to_vec)).collect();
    sqlx::query!(
        "insert into blob (tenant_id, digest, size_bytes, bytes)
         select * from unnest($1::text[], $2::bytea[], $3::bigint[], $4::bytea[])
         on conflict (tenant_id, digest) do nothing",
        &tenants,
        &digests,
        &sizes,
        &bytes as &[Option<Vec<u8>>],
    )
    .execute(connection)
    .await
    .doing("writing blobs")?;
    Ok(())
}

async fn insert_materializations(connection: &mut PgConnection, made: &[Made<'_>]) -> Result<(), StoreError> {
    if made.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = made.iter().map(|(item, _)| item.claim.tenant.clone()).collect();
    let ids: Vec<Uuid> = made.iter().map(|(_, new)| new.id.0).collect();
    let assets: Vec<Uuid> = made.iter().map(|(_, new)| new.asset.0).collect();
    let versions: Vec<Uuid> = made.iter().map(|(_, new)| new.asset_version.0).collect();
    let partitions: Vec<String> = made.iter().map(|(_, new)| new.partition_key.clone()).collect();
    let runs: Vec<Uuid> = made.iter().map(|(item, _)| item.run.0).collect();
    let jobs: Vec<Uuid> = made.iter().map(|(item, _)| item.claim.job.0).collect();
    let attempts: Vec<Uuid> = made.iter().map(|(_, new)| new.attempt.0).collect();
    let digests: Vec<Vec<u8>> = made.iter().map(|(_, new)| new.digest.0.to_vec()).collect();
    let sizes: Vec<i64> = made.iter().map(|(_, new)| new.size_bytes as i64).collect();
    let media_types: Vec<String> = made.iter().map(|(_, new)| new.media_type.clone()).collect();
    let metadata: Vec<serde_json::Value> = made.iter().map(|(_, new)| new.metadata.clone()).collect();
    let seen: Vec<Vec<u8>> = made.iter().map(|(_, new)| new.version_digest.0.to_vec()).collect();
    let recipes: Vec<Vec<u8>> = made.iter().map(|(_, new)| new.recipe.0.to_vec()).collect();
    let sources: Vec<Vec<u8>> = made.iter().map(|(_, new)| new.sources_digest.0.to_vec()).collect();
    // Postgres has no ragged arrays: the digests of one row's inputs travel as one string of bytes.
    let inputs: Vec<Vec<u8>> =
        made.iter().map(|(_, new)| new.input_digests.iter().flat_map(|digest| digest.0).collect()).collect();
    let engines: Vec<String> = made.iter().map(|(_, new)| new.engine_id.clone()).collect();
    let reused: Vec<Option<Uuid>> = made.iter().map(|(_, new)| new.reused_from.map(|id| id.0)).collect();
    sqlx::query!(
        "insert into materialization (tenant_id, materialization_id, asset_id, asset_version_id, partition_key, run_id,
             job_id, attempt_id, output_digest, size_bytes, media_type, metadata, version_digest, recipe,
             sources_digest, input_digests, engine_id, reused_from)
         select * from unnest($1::text[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[], $7::uuid[],
             $8::uuid[], $9::bytea[], $10::bigint[], $11::text[], $12::jsonb[], $13::bytea[], $14::bytea[],
             $15::bytea[], $16::bytea[], $17::text[], $18::uuid[])",
        &tenants,
        &ids,
        &assets,
        &versions,
        &partitions,
        &runs,
        &jobs,
        &attempts,
        &digests,
        &sizes,
        &media_types,
        &metadata,
        &seen,
        &recipes,
        &sources,
        &inputs,
        &engines,
        &reused as &[Option<Uuid>],
    )
    .execute(connection)
    .await
    .doing("recording materializations")?;
    Ok(())
}

async fn insert_edges(connection: &mut PgConnection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows: Vec<(&str, Uuid, &NewEdge)> = made
        .iter()
        .flat_map(|(item, new)| new.edges.iter().map(|edge| (item.claim.tenant.as_str(), new.id.0, edge)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.1).collect();
    let inputs: Vec<String> = rows.iter().map(|row| row.2.input.clone()).collect();
    let positions: Vec<i32> = rows.iter().map(|row| row.2.position).collect();
    let upstream: Vec<Uuid> = rows.iter().map(|row| row.2.upstream.0).collect();
    let bytes: Vec<i64> = rows.iter().map(|row| row.2.bytes_read as i64).collect();
    sqlx::query!(
        "insert into lineage_edge
             (tenant_id, materialization_id, input, position, upstream_materialization_id, bytes_read)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::int[], $5::uuid[], $6::bigint[])",
        &tenants,
        &ids,
        &inputs,
        &positions,
        &upstream,
        &bytes,
    )
    .execute(connection)
    .await
    .doing("recording lineage")?;
    Ok(())
}

async fn insert_external_reads(connection: &mut PgConnection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows: Vec<(&str, Uuid, &ExternalRead)> = made
        .iter()
        .flat_map(|(item, new)| new.external_reads.iter().map(|read| (item.claim.tenant.as_str(), new.id.0, read)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.1).collect();
    let resources: Vec<String> = rows.iter().map(|row| row.2.resource.clone()).collect();
    let digests: Vec<Vec<u8>> = rows.iter().map(|row| row.2.digest.0.to_vec()).collect();
    let kinds: Vec<String> = rows.iter().map(|row| row.2.kind.to_owned()).collect();
    let items: Vec<i64> = rows.iter().map(|row| row.2.items as i64).collect();
    let sizes: Vec<i64> = rows.iter().map(|row| row.2.size_bytes as i64).collect();
    sqlx::query!(
        "insert into external_read (tenant_id, materialization_id, resource, kind, digest, items, size_bytes)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[])",
        &tenants,
        &ids,
        &resources,
        &kinds,
        &digests,
        &items,
        &sizes,
    )
    .execute(connection)
    .await
    .doing("recording external reads")?;
    Ok(())
}

async fn insert_staged_files(connection: &mut PgConnection, made: &[Made<'_>]) -> Result<(), StoreError> {
    let rows: Vec<(&str, Uuid, &NewStagedFile)> = made
        .iter()
        .flat_map(|(item, new)| new.staged_files.iter().map(|file| (item.claim.tenant.as_str(), new.id.0, file)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let tenants: Vec<String> = rows.iter().map(|row| row.0.to_owned()).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.1).collect();
    let resources: Vec<String> = rows.iter().map(|row| row.2.resource.clone()).collect();
    let paths: Vec<String> = rows.iter().map(|row| row.2.path.clone()).collect();
    let digests: Vec<Option<Vec<u8>>> =
        rows.iter().map(|row| row.2.content.map(|(digest, _)| digest.0.to_vec())).collect();
    sqlx::query!(
        "insert into staged_file (tenant_id, materialization_id, resource, path, digest)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[])",
        &tenants,
        &ids,
        &resources,
        &paths,
        &digests as &[Option<Vec<u8>>],
    )
    .execute(connection)
    .await
    .doing("staging files")?;
    Ok(())
}

/// Retries go to the deferred table, released jobs to the ready one; returns how many are ready.
async fn return_to_queue(connection: &mut PgConnection, batch: &[&FinishedJob]) -> Result<usize, StoreError> {
    let mut released = 0;
    for item in batch {
        let Claim { tenant, job, charged, released: returns, .. } = &item.claim;
        match &item.ending {
            Ending::Deferred { wait_ms, cause, counts } => {
                sqlx::query!(
                    "insert into job_deferred (tenant_id, job_id, due_at, cause, charged, released)
                     values ($1, $2, now() + $3 * interval '1 millisecond', $4, $5, $6)",
                    tenant,
                    job.0,
                    *wait_ms as f64,
                    cause,
                    charged.saturating_add(i16::from(*counts == Counts::Charged)),
                    returns.saturating_add(i16::from(*counts == Counts::Released)),
                )
                .execute(&mut *connection)
                .await
                .doing("deferring a job")?;
            }
            Ending::Released => {
                sqlx::query!(
                    "insert into job_ready (tenant_id, job_id, charged, released) values ($1, $2, $3, $4)",
                    tenant,
                    job.0,
                    charged,
                    returns.saturating_add(1),
                )
                .execute(&mut *connection)
                .await
                .doing("releasing a job")?;
                released += 1;
            }
            _ => {}
        }
    }
    Ok(released)
}

/// Ends jobs, skips what cannot run without them, releases what waited for them, and counts for their runs.
pub(super) async fn end_jobs(connection: &mut PgConnection, ends: Vec<End>) -> Result<Committed, StoreError> {
    if ends.is_empty() {
        return Ok(Committed::default());
    }
    insert_ends(connection, &ends).await?;
    let mut all = ends;
    let mut first = 0;
    // Wave by wave: the dependents of what did not succeed, then theirs, each with the name of the first cause.
    while first < all.len() {
        let wave: Vec<&End> = all[first..].iter().filter(|end| end.materialization.is_none()).collect();
        let next = if wave.is_empty() { Vec::new() } else { skip_dependents(connection, &wave).await? };
        first = all.len();
        all.extend(next);
    }
    let released = release_dependents(connection, &all).await?;
    record_ends(connection, &all).await?;
    count_for_runs(connection, &all).await?;
    let ended = all
        .into_iter()
        .map(|end| EndedJob {
            job: end.job,
            run: end.run,
            state: end.state,
            cause: end.cause,
            reused: end.reused,
            materialization: end.materialization,
        })
        .collect();
    Ok(Committed { ended, released, ..Committed::default() })
}

async fn insert_ends(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    let tenants: Vec<String> = ends.iter().map(|end| end.tenant.clone()).collect();
    let jobs: Vec<Uuid> = ends.iter().map(|end| end.job.0).collect();
    let states: Vec<String> = ends.iter().map(|end| end.state.to_owned()).collect();
    let causes: Vec<Option<String>> = ends.iter().map(|end| end.cause.clone()).collect();
    let made: Vec<Option<Uuid>> = ends.iter().map(|end| end.materialization.map(|id| id.0)).collect();
    let reused: Vec<bool> = ends.iter().map(|end| end.reused).collect();
    sqlx::query!(
        "insert into job_end (tenant_id, job_id, state, cause, materialization_id, reused)
         select * from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bool[])",
        &tenants,
        &jobs,
        &states,
        &causes as &[Option<String>],
        &made as &[Option<Uuid>],
        &reused,
    )
    .execute(connection)
    .await
    .doing("ending jobs")?;
    Ok(())
}

async fn skip_dependents(connection: &mut PgConnection, wave: &[&End]) -> Result<Vec<End>, StoreError> {
    let tenants: Vec<String> = wave.iter().map(|end| end.tenant.clone()).collect();
    let jobs: Vec<Uuid> = wave.iter().map(|end| end.job.0).collect();
    let causes: Vec<String> = wave
        .iter()
        .map(|end| match &end.first_cause {
            Some(cause) => cause.clone(),
            None => format!("input {} was not made: it {}", end.name, end.state),
        })
        .collect();
    let rows = sqlx::query!(
        r#"with hit as (
               select distinct on (i.tenant_id, i.job_id) i.tenant_id, i.job_id, w.cause
               from unnest($1::text[], $2::uuid[], $3::text[]) as w (tenant_id, job_id, cause)
               cross join lateral (
                   select * from job_input where tenant_id = w.tenant_id and upstream_job_id = w.job_id offset 0) i
               where not i.optional order by i.tenant_id, i.job_id),
           waiting as (
               select w.tenant_id, w.job_id, hit.cause from hit cross join lateral (
                   select b.tenant_id, b.job_id from job_blocked b
                   where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
           gone as (
               delete from job_blocked b using waiting
               where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               returning b.tenant_id, b.job_id, waiting.cause),
           ended as (
               insert into job_end (tenant_id, job_id, state, cause, reused)
               select tenant_id, job_id, 'skipped', cause, false from gone)
           select gone.tenant_id, gone.job_id, gone.cause as "cause!", j.run_id, a.name, j.partition_key
           from gone join job j on j.tenant_id = gone.tenant_id and j.job_id = gone.job_id
           join asset_version v on v.tenant_id = j.tenant_id and v.asset_version_id = j.asset_version_id
           join asset a on a.tenant_id = v.tenant_id and a.asset_id = v.asset_id"#,
        &tenants,
        &jobs,
        &causes,
    )
    .fetch_all(connection)
    .await
    .doing("skipping what cannot run")?;
    Ok(rows
        .into_iter()
        .map(|row| End {
            tenant: row.tenant_id,
            job: JobId(row.job_id),
            run: RunId(row.run_id),
            name: job_name(&row.name, &row.partition_key),
            state: "skipped",
            first_cause: Some(row.cause.clone()),
            cause: Some(row.cause),
            materialization: None,
            reused: false,
        })
        .collect())
}

/// How a job is called in messages: `asset`, or `asset[partition]`.
pub fn job_name(asset: &str, partition_key: &str) -> String {
    if partition_key == "none" { asset.to_owned() } else { format!("{asset}[{partition_key}]") }
}

/// Counts arrivals down, and moves to the ready table whoever waits for nothing more. Rows are locked in one order.
async fn release_dependents(connection: &mut PgConnection, ends: &[End]) -> Result<usize, StoreError> {
    let tenants: Vec<String> = ends.iter().map(|end| end.tenant.clone()).collect();
    let jobs: Vec<Uuid> = ends.iter().map(|end| end.job.0).collect();
    let released = sqlx::query!(
        "with hit as (
             select i.tenant_id, i.job_id, count(*)::int as arrived
             from unnest($1::text[], $2::uuid[]) as e (tenant_id, job_id)
             cross join lateral (
                 select * from job_input where tenant_id = e.tenant_id and upstream_job_id = e.job_id offset 0) i
             group by i.tenant_id, i.job_id order by i.tenant_id, i.job_id),
         waiting as (
             select w.tenant_id, w.job_id, w.remaining, hit.arrived from hit cross join lateral (
                 select b.tenant_id, b.job_id, b.remaining from job_blocked b
                 where b.tenant_id = hit.tenant_id and b.job_id = hit.job_id for update) w),
         counted as (
             update job_blocked b set remaining = waiting.remaining - waiting.arrived from waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining > waiting.arrived),
         freed as (
             delete from job_blocked b using waiting
             where b.tenant_id = waiting.tenant_id and b.job_id = waiting.job_id
               and waiting.remaining <= waiting.arrived
             returning b.tenant_id, b.job_id)
         insert into job_ready (tenant_id, job_id) select tenant_id, job_id from freed",
        &tenants,
        &jobs,
    )
    .execute(connection)
    .await
    .doing("releasing dependents")?;
    Ok(released.rows_affected() as usize)
}

/// One line of audit and one of the outbox for each end.
async fn record_ends(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    let tenants: Vec<String> = ends.iter().map(|end| end.tenant.clone()).collect();
    let runs: Vec<Uuid> = ends.iter().map(|end| end.run.0).collect();
    let jobs: Vec<Uuid> = ends.iter().map(|end| end.job.0).collect();
    let names: Vec<String> = ends.iter().map(|end| end.name.clone()).collect();
    let states: Vec<String> = ends.iter().map(|end| end.state.to_owned()).collect();
    let causes: Vec<Option<String>> = ends.iter().map(|end| end.cause.clone()).collect();
    let made: Vec<Option<Uuid>> = ends.iter().map(|end| end.materialization.map(|id| id.0)).collect();
    sqlx::query!(
        "with ended as (
             select tenant_id, run_id, job_id, name, state, jsonb_strip_nulls(jsonb_build_object(
                 'run', run_id, 'job', job_id, 'cause', cause, 'materialization', materialization_id)) as details
             from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::uuid[])
                 as e (tenant_id, run_id, job_id, name, state, cause, materialization_id)),
         audited as (
             insert into audit (tenant_id, actor, action, subject, details)
             select tenant_id, 'worker', 'job.' || state, name, details from ended)
         insert into outbox (tenant_id, topic, payload)
         select tenant_id, 'job.' || state, details || jsonb_build_object('name', name) from ended",
        &tenants,
        &runs,
        &jobs,
        &names,
        &states,
        &causes as &[Option<String>],
        &made as &[Option<Uuid>],
    )
    .execute(connection)
    .await
    .doing("writing audit and outbox")?;
    Ok(())
}

/// Moves the runs' counters; the last job ends its run.
async fn count_for_runs(connection: &mut PgConnection, ends: &[End]) -> Result<(), StoreError> {
    let tenants: Vec<String> = ends.iter().map(|end| end.tenant.clone()).collect();
    let runs: Vec<Uuid> = ends.iter().map(|end| end.run.0).collect();
    let states: Vec<String> = ends.iter().map(|end| end.state.to_owned()).collect();
    let reused: Vec<bool> = ends.iter().map(|end| end.reused).collect();
    sqlx::query!(
        "with c as (
             select tenant_id, run_id,
                 count(*) filter (where state = 'succeeded')::int as succeeded,
                 count(*) filter (where reused)::int as reused,
                 count(*) filter (where state = 'skipped')::int as skipped,
                 count(*) filter (where state = 'failed')::int as failed,
                 count(*) filter (where state = 'cancelled')::int as cancelled,
                 count(*)::int as ended
             from unnest($1::text[], $2::uuid[], $3::text[], $4::bool[]) as e (tenant_id, run_id, state, reused)
             group by tenant_id, run_id),
         locked as (
             select r.tenant_id, r.run_id from run r join c using (tenant_id, run_id)
             order by r.tenant_id, r.run_id for update of r),
         counted as (
             update run r set
                 succeeded = r.succeeded + c.succeeded, reused = r.reused + c.reused, skipped = r.skipped + c.skipped,
                 failed = r.failed + c.failed, cancelled = r.cancelled + c.cancelled,
                 state = case
                     when r.succeeded + r.skipped + r.failed + r.cancelled + c.ended < r.jobs then r.state
                     when r.failed + c.failed > 0 then 'failed'
                     when r.cancelled + c.cancelled > 0 then 'cancelled'
                     else 'succeeded' end,
                 finished_at = case
                     when r.succeeded + r.skipped + r.failed + r.cancelled + c.ended < r.jobs then null
                     else clock_timestamp() end
             from c join locked using (tenant_id, run_id)
             where r.tenant_id = c.tenant_id and r.run_id = c.run_id
             returning r.tenant_id, r.run_id, r.state)
         insert into outbox (tenant_id, topic, payload)
         select tenant_id, 'run.' || state, jsonb_build_object('run', run_id) from counted where state <> 'running'",
        &tenants,
        &runs,
        &states,
        &reused,
    )
    .execute(connection)
    .await
    .doing("counting for runs")?;
    Ok(())
}
