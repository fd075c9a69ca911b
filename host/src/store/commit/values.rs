//! What a commit is given and what it answers: values, which know nothing of tables.

use crate::{
    blob::Digest,
    id::{AssetId, AssetVersionId, AttemptId, ClaimToken, JobId, MaterializationId, RunId, WorkerId},
    limit::HOST_FAULT_WAIT_BASE,
    store::{buckets::BucketEffects, queue::Claim},
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
    /// How many inputs of other jobs wait for it: as the job was submitted, which never changes.
    pub dependents: i32,
    /// The execution, if there was one.
    pub attempt: Option<AttemptRecord>,
    /// What becomes of the job.
    pub ending: Ending,
    /// What its attempt read in buckets, which must still be so, and what it wants written there.
    pub buckets: Vec<BucketEffects>,
    /// Whether its recipe was worked out: then it makes something only while it has the key of it.
    pub is_keyed: bool,
    /// Whether what its attempt said may have been told while it ran: that goes now.
    pub has_told: bool,
}

impl FinishedJob {
    /// The same job when what it made cannot be recorded any more: it is made again, uncharged.
    pub(super) fn made_in_vain(&self, cause: &str) -> Self {
        // Another id: an intent of the attempt is recorded under its own once it is settled.
        let attempt = self.attempt.clone().map(|attempt| AttemptRecord {
            id: AttemptId::new(),
            verdict: "lost",
            message: Some(cause.to_owned()),
            charged: false,
            ..attempt
        });
        let wait = HOST_FAULT_WAIT_BASE * (1 << self.claim.released.clamp(0, IN_VAIN_DOUBLINGS_MAX));
        let ending =
            Ending::Deferred { wait_ms: wait.as_millis() as u64, cause: cause.to_owned(), counts: Counts::Released };
        Self { attempt, ending, buckets: Vec::new(), ..self.clone() }
    }

    /// About how many bytes its record takes on the wire.
    pub fn record_bytes(&self) -> usize {
        let output = match &self.ending {
            Ending::Materialized(new) => new.inline.as_ref().map_or(0, Vec::len) + new.edges.len() * 64,
            _ => 0,
        };
        let log = self.attempt.as_ref().map_or(0, |attempt| attempt.log_bytes);
        RECORD_BYTES + output + log + self.buckets.iter().map(BucketEffects::record_bytes).sum::<usize>()
    }
}

/// The wait grows to some seconds: until a collection that condemned its bytes has deleted them.
const IN_VAIN_DOUBLINGS_MAX: i16 = 5;

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
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
    /// Whether an operator's database has committed it: its intent goes with the commit.
    pub applied: bool,
}

/// A version that was handed to the guest.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ExternalRead {
    /// The resource.
    pub resource: String,
    /// Its kind.
    #[serde(deserialize_with = "resource_kind")]
    pub kind: Word,
    /// Of everything that was there to read, or was read.
    pub digest: Digest,
    /// Files that the grant matched, for a directory; answers, keys or rows of other kinds.
    pub items: u64,
    /// Of those.
    pub size_bytes: u64,
}

/// A write or removal that is due after the commit.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NewStagedFile {
    /// The resource.
    pub resource: String,
    /// Within it.
    pub path: String,
    /// The new contents, and their size; none removes the file.
    pub content: Option<(Digest, u64)>,
}

/// One execution.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// Who executed it.
    pub worker: WorkerId,
    /// As DESIGN names them.
    #[serde(deserialize_with = "succeeded")]
    pub verdict: Word,
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

/// What is counted of an attempt that is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedAttempt {
    /// What it was judged to be; the commit may have changed it.
    pub verdict: Word,
    /// Whether it counts.
    pub charged: bool,
    /// Units.
    pub fuel_used: u64,
    /// Summed over all memories.
    pub memory_bytes_peak: u64,
    /// From claim to verdict.
    pub duration_us: u64,
}

impl RecordedAttempt {
    /// Of a job, if it had one.
    pub fn of(item: &FinishedJob) -> Option<Self> {
        item.attempt.as_ref().map(|attempt| Self {
            verdict: attempt.verdict,
            charged: attempt.charged,
            fuel_used: attempt.fuel_used,
            memory_bytes_peak: attempt.memory_bytes_peak,
            duration_us: attempt.duration_us,
        })
    }
}

/// A word of this program's. By this name, because serde would otherwise want to borrow it from what is read.
pub type Word = &'static str;

/// The kinds of resources are words of this program.
fn resource_kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    use crate::pipeline::asset::Capability::{Clock, Files, Http, KeyValue, Random, Secret, Sql};
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    let kinds = [Files, Http, KeyValue, Sql, Secret, Clock, Random].map(|capability| capability.resource_kind());
    kinds.into_iter().find(|kind| *kind == text).ok_or_else(|| serde::de::Error::custom("an unknown kind of resource"))
}

/// Only attempts that succeeded are kept to be recorded later.
fn succeeded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<&'static str, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    if text == "succeeded" { Ok("succeeded") } else { Err(serde::de::Error::custom("another verdict")) }
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

/// A job that will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeferredJob {
    /// Which.
    pub job: JobId,
    /// Of which run.
    pub run: RunId,
    /// Why.
    pub cause: String,
    /// From now.
    pub wait_ms: u64,
}

impl DeferredJob {
    /// If it will be.
    pub fn of(item: &FinishedJob) -> Option<Self> {
        let Ending::Deferred { wait_ms, cause, .. } = &item.ending else { return None };
        Some(Self { job: item.claim.job, run: item.run, cause: cause.clone(), wait_ms: *wait_ms })
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Jobs that ended, those that could not run any more among them.
    pub ended: Vec<EndedJob>,
    /// Jobs that will be tried again.
    pub deferred: Vec<DeferredJob>,
    /// Runs whose last job ended, and their states.
    pub finished_runs: Vec<(RunId, String)>,
    /// Attempts that were recorded, as they were.
    pub attempts: Vec<RecordedAttempt>,
    /// Jobs that became ready.
    pub released: usize,
    /// Jobs with followers that are still to be dealt with: [`Store::release_next_dependents`],
    /// [`Store::sweep_joined_jobs`].
    ///
    /// [`Store::release_next_dependents`]: crate::store::Store::release_next_dependents
    /// [`Store::sweep_joined_jobs`]: crate::store::Store::sweep_joined_jobs
    pub put_off: usize,
    /// Claims that were not this worker's any more: nothing of them was written.
    pub fenced: Vec<(JobId, ClaimToken)>,
    /// Materializations whose staged files are due.
    pub to_publish: Vec<MaterializationId>,
}

/// How a job is called in messages: `asset`, or `asset[partition]`.
pub fn job_name(asset: &str, partition_key: &str) -> String {
    if partition_key == "none" { asset.to_owned() } else { format!("{asset}[{partition_key}]") }
}
