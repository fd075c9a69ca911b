//! Claiming: from the table of ready jobs to leases, what was claimed, and what it reads.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{Store, StoreError, column, digest, error::Doing as _, lanes::LaneId, pools::PoolId};
use crate::{
    blob::Digest,
    id::{AssetVersionId, ClaimToken, JobId, MaterializationId, RunId, WorkerId},
    pipeline::{concurrency::TENANT_POOL, policy::Route},
};

/// A job that is this worker's until it commits, releases it, or its session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose job it is.
    pub tenant: String,
    /// Which job.
    pub job: JobId,
    /// Where it came from, and goes back to.
    pub lane: LaneId,
    /// What a commit has to show.
    pub token: ClaimToken,
    /// Attempts that counted, so far.
    pub charged: i16,
    /// Times that the job came back without a charge.
    pub released: i16,
}

impl Claim {
    /// What tells it from every other claim of any job.
    pub fn key(&self) -> (JobId, ClaimToken) {
        (self.job, self.token)
    }
}

/// How far a lane has been claimed: the next claim starts after it, past the dead entries of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPosition {
    ready_at_us: i64,
    job: JobId,
}

impl ClaimPosition {
    /// Before every job.
    pub const START: Self = Self { ready_at_us: 0, job: JobId(Uuid::nil()) };

    /// After a job, at the beginning of time.
    #[cfg(test)]
    pub(crate) fn after_job(job: JobId) -> Self {
        Self { ready_at_us: 0, job }
    }
}

/// What a worker takes jobs from.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Only from these queues; none for all.
    pub queues: Option<Vec<String>>,
    /// It takes what asks for some of these, or for none.
    pub tags: Vec<String>,
}

impl Served {
    /// Whether this worker takes jobs of such a route.
    pub fn takes(&self, route: &Route) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.contains(&route.queue))
            && route.tags.iter().all(|tag| self.tags.contains(tag))
    }
}

/// What is to be taken of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneShare {
    /// Which.
    pub lane: LaneId,
    /// At least one job, at most so many.
    pub most: i64,
    /// Only after it.
    pub after: ClaimPosition,
}

/// Where to look for lanes that were not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneSearch {
    /// Between two lanes, without these.
    pub gaps: Vec<(i32, i32)>,
    /// At most so many jobs of each lane that is found.
    pub each_found: i64,
}

/// What a claim took, and from where.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The oldest first.
    pub jobs: Vec<ClaimedJob>,
    /// Claims of jobs of which nothing but their place in the queue is there: of a database that was restored in part.
    pub unknown: Vec<Claim>,
    /// Each lane that was asked for or found, also when nothing was taken from it.
    pub reached: HashMap<LaneId, Reached>,
}

/// How far a claim went in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// That were taken.
    pub jobs: i64,
    /// Of the last one.
    pub position: ClaimPosition,
}

impl Default for Reached {
    fn default() -> Self {
        Self { jobs: 0, position: ClaimPosition::START }
    }
}

/// A claimed job with all that the queue knows of it.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    /// The lease.
    pub claim: Claim,
    /// The run that asked for it.
    pub run: RunId,
    /// What it makes a partition of.
    pub asset: Arc<ClaimedAsset>,
    /// Canonical text.
    pub partition_key: String,
    /// Whether an earlier result may not be used again.
    pub forced: bool,
    /// How many versions it reads, present or absent.
    pub inputs: usize,
    /// How many inputs of other jobs wait for it.
    pub dependents: i32,
}

/// An asset as a run has it, which is the same for all jobs of the two.
#[derive(Debug)]
pub struct ClaimedAsset {
    /// As the run's pipeline version binds it.
    pub version: AssetVersionId,
    /// Its name.
    pub name: String,
    /// Whether the run is being cancelled.
    pub cancel_requested: bool,
    /// Whether its pipeline or itself is paused.
    pub paused: bool,
    /// The pools of which each job needs a permit, in the order of their ids.
    pub pools: Vec<PoolId>,
    /// Whether its tenant has used up a quota.
    pub over_quota: bool,
    /// Its component, if that is quarantined.
    pub quarantined: Option<Digest>,
}

/// What a claimed job reads.
#[derive(Clone, Debug, Default)]
pub struct ClaimedInputs {
    /// What is there, by input name, then position.
    pub present: Vec<ClaimedInput>,
    /// How many versions of an optional input are not there, by input name.
    pub absent: HashMap<String, usize>,
}

/// One version that a job reads.
#[derive(Clone, Debug)]
pub struct ClaimedInput {
    /// The input's name.
    pub input: String,
    /// Its place among the versions of that input.
    pub position: i32,
    /// What is read, which other jobs of the batch may read too.
    pub version: Arc<ClaimedVersion>,
}

/// What some claimed jobs read.
#[derive(Debug)]
pub struct ClaimedVersion {
    /// The materialization.
    pub materialization: MaterializationId,
    /// The asset that made it.
    pub asset: String,
    /// Canonical text.
    pub partition_key: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Of all that can be seen of it.
    pub version_digest: Digest,
    /// Of its bytes.
    pub size_bytes: u64,
    /// Of its bytes.
    pub media_type: String,
    /// As the guest set it: a JSON array of fields.
    pub metadata: serde_json::Value,
    /// Whether the database holds the bytes.
    pub inline: bool,
}

impl Store {
    /// Takes ready jobs: of each lane that is asked for its share, the oldest first; and of lanes that nobody has asked
    /// for, one between each two known ones, at most `each_found` jobs. So whoever knows no lane finds one, who knows
    /// some finds others without reading theirs, and both in one statement.
    ///
    /// The token is new and random for each call, so that a call whose answer was lost can be undone:
    /// [`Self::return_unanswered_claims`].
    ///
    /// It is not waited for until it is on disk. A server that crashes may forget it; then the jobs are ready again, and
    /// what is made of them meanwhile is fenced off. A commit comes after its claim in the log, and is waited for.
    ///
    /// The delete finds its rows by `ctid = any(array(...))`: under a generic plan the join that one would write
    /// instead scans the whole table, and is tens of times slower. What the jobs are is looked up from each one on
    /// (`lateral ... offset 0` is a fence): a plan that starts from the run instead reads all its jobs for each batch.
    /// A test holds the plan. While there is no pool at all, none is looked for; so with quarantines and quotas.
    ///
    /// The answer has a row for each lane that was looked at and each of its jobs, and one for each asset of a run among
    /// them.
    pub async fn claim_ready_jobs(
        &self,
        worker: WorkerId,
        token: ClaimToken,
        served: &Served,
        shares: &[LaneShare],
        search: &LaneSearch,
    ) -> Result<Claimed, StoreError> {
        let rows = sqlx::query!(
            r#"with hasty as materialized (select set_config('synchronous_commit', 'off', true)),
               asked as materialized (
                   select lane_id, most, timestamptz 'epoch' + after_us * interval '1 microsecond' as after_at, after_job
                   from unnest((select $3::int[]), $4::bigint[], $5::float8[], $6::uuid[])
                       as s (lane_id, most, after_us, after_job)
                   union all
                   select f.lane_id, $9, timestamptz 'epoch', '00000000-0000-0000-0000-000000000000'
                   from unnest((select $7::int[]), $8::int[]) as gap (low, high)
                   cross join lateral (
                       select lane_id from job_ready where lane_id > gap.low and lane_id < gap.high
                       order by lane_id limit 1) f),
               served as materialized (
                   select a.* from asked a join lane l on l.lane_id = a.lane_id
                   where ($10::text[] is null or l.queue = any($10)) and l.tags <@ $11::text[]
                     and not exists (select from queue_pause p where p.tenant_id = l.tenant_id and p.queue = l.queue)),
               picked as materialized (
                   select p.place from served s cross join lateral (
                       select ctid as place from job_ready r
                       where r.lane_id = s.lane_id and (r.ready_at, r.job_id) > (s.after_at, s.after_job)
                       order by r.ready_at, r.job_id limit s.most for update skip locked) p),
               taken as (
                   delete from job_ready where ctid = any(array(select place from picked))
                   returning tenant_id, job_id, lane_id, ready_at, charged, released),
               leased as (
                   insert into job_lease (tenant_id, job_id, token, worker_id, lane_id, charged, released)
                   select tenant_id, job_id, $2, $1, lane_id, charged, released from taken),
               known as materialized (
                   select t.*, j.run_id, j.asset_version_id, j.partition_key, j.forced, j.inputs, j.dependents
                   from taken t left join lateral (
                       select * from job where tenant_id = t.tenant_id and job_id = t.job_id offset 0) j on true)
               select a.lane_id as "lane_id?", k.tenant_id as "tenant_id?", k.job_id as "job_id?",
                      k.charged as "charged?", k.released as "released?",
                      (extract(epoch from k.ready_at) * 1000000)::bigint as "ready_at_us?",
                      k.run_id as "run_id?", k.asset_version_id as "asset_version_id?",
                      k.partition_key as "partition_key?", k.forced as "forced?", k.inputs as "inputs?",
                      k.dependents as "dependents?",
                      null as "asset?", null::bool as "cancel_requested?", null::bool as "paused?",
                      null::int[] as "pools?", null::bytea as "quarantined?", null::bool as "over_quota?"
               from hasty cross join asked a left join known k on k.lane_id = a.lane_id
               union all
               select null, d.tenant_id, null, null, null, null, d.run_id, d.asset_version_id, null, null, null, null,
                      a.name, r.cancel_requested_at is not null,
                      exists (select from pause p where p.tenant_id = a.tenant_id and p.pipeline_id = a.pipeline_id
                          and p.asset_id in ('00000000-0000-0000-0000-000000000000', a.asset_id)),
                      case when (select exists (select from pool)) then
                          (select array_agg(p.pool_id order by p.pool_id) from pool p
                           where p.tenant_id = v.tenant_id and p.name = any(array_append(v.pools, $12::text))) end,
                      case when (select exists (select from quarantine)) then
                          (select q.component_digest from quarantine q
                           where q.tenant_id = v.tenant_id and q.component_digest = v.component_digest) end,
                      case when (select exists (select from quota)) then
                          exists (select from quota q where q.tenant_id = v.tenant_id and q.used >= q.amount
                              and q.period_start = date_trunc(q.period, now(), 'UTC')) else false end
               from (select distinct tenant_id, run_id, asset_version_id from known) d
               cross join lateral (
                   select cancel_requested_at from run
                   where tenant_id = d.tenant_id and run_id = d.run_id offset 0) r
               cross join lateral (
                   select * from asset_version
                   where tenant_id = d.tenant_id and asset_version_id = d.asset_version_id offset 0) v
               cross join lateral (
                   select * from asset where tenant_id = v.tenant_id and asset_id = v.asset_id offset 0) a
               order by 6, 3"#,
            worker.0,
            token.0,
            &column(shares, |share| share.lane.0),
            &column(shares, |share| share.most),
            &column(shares, |share| share.after.ready_at_us as f64),
            &column(shares, |share| share.after.job.0),
            &column(&search.gaps, |gap| gap.0),
            &column(&search.gaps, |gap| gap.1),
            search.each_found,
            served.queues.as_deref() as Option<&[String]>,
            &served.tags,
            TENANT_POOL,
        )
        .fetch_all(&self.pool)
        .await
        .doing("claiming jobs")?;
        let (jobs, assets): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.lane_id.is_some());
        let mut known = HashMap::with_capacity(assets.len());
        for row in &assets {
            let (Some(tenant), Some(run), Some(version), Some(name)) =
                (&row.tenant_id, row.run_id, row.asset_version_id, &row.asset)
            else {
                continue;
            };
            let asset = ClaimedAsset {
                version: AssetVersionId(version),
                name: name.clone(),
                cancel_requested: row.cancel_requested.unwrap_or_default(),
                paused: row.paused.unwrap_or_default(),
                pools: row.pools.iter().flatten().map(|pool| PoolId(*pool)).collect(),
                over_quota: row.over_quota.unwrap_or_default(),
                quarantined: row.quarantined.clone().map(digest).transpose()?,
            };
            known.insert((&**tenant, run, version), Arc::new(asset));
        }
        let mut claimed = Claimed::default();
        for row in jobs {
            let Some(lane) = row.lane_id.map(LaneId) else { continue };
            let reached = claimed.reached.entry(lane).or_default();
            let (Some(tenant), Some(job), Some(charged), Some(released), Some(ready_at_us)) =
                (row.tenant_id, row.job_id, row.charged, row.released, row.ready_at_us)
            else {
                continue;
            };
            reached.jobs += 1;
            reached.position = ClaimPosition { ready_at_us, job: JobId(job) };
            let of_run = row.run_id.zip(row.asset_version_id).map(|(run, version)| (&*tenant, run, version));
            let asset = of_run.and_then(|of_run| known.get(&of_run)).cloned();
            let claim = Claim { tenant, job: JobId(job), lane, token, charged, released };
            let (Some(asset), Some(run), Some(partition_key)) = (asset, row.run_id, row.partition_key) else {
                claimed.unknown.push(claim);
                continue;
            };
            claimed.jobs.push(ClaimedJob {
                claim,
                run: RunId(run),
                asset,
                partition_key,
                forced: row.forced.unwrap_or_default(),
                inputs: row.inputs.unwrap_or_default() as usize,
                dependents: row.dependents.unwrap_or_default(),
            });
        }
        Ok(claimed)
    }

    /// Makes the jobs of these claims ready again: this worker never learned that it has them.
    pub async fn return_unanswered_claims(&self, worker: WorkerId, tokens: &[ClaimToken]) -> Result<u64, StoreError> {
        let tokens: Vec<Uuid> = tokens.iter().map(|token| token.0).collect();
        let returned = sqlx::query!(
            "with gone as (
                 delete from job_lease where worker_id = $1 and token = any($2)
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_ready (tenant_id, job_id, lane_id, charged, released)
             select tenant_id, job_id, lane_id, charged, released from gone",
            worker.0,
            &tokens,
        )
        .execute(&self.pool)
        .await
        .doing("returning claims without an answer")?;
        Ok(returned.rows_affected())
    }

    /// What claimed jobs read. A required input of a job that could be claimed is always there.
    ///
    /// The answer has a row for each version that a job reads, then one for each materialization among them: jobs of a
    /// batch mostly read the same.
    pub async fn load_inputs(&self, claims: &[&Claim]) -> Result<HashMap<JobId, ClaimedInputs>, StoreError> {
        let mut by_job: HashMap<JobId, ClaimedInputs> = HashMap::new();
        if claims.is_empty() {
            return Ok(by_job);
        }
        let rows = sqlx::query!(
            r#"with read as materialized (
                   select i.tenant_id, i.job_id, i.input, i.position,
                          coalesce(i.materialization_id, e.materialization_id) as materialization_id
                   from unnest((select $1::text[]), $2::uuid[]) as c (tenant_id, job_id)
                   cross join lateral (
                       select * from job_input where tenant_id = c.tenant_id and job_id = c.job_id offset 0) i
                   left join lateral (
                       select materialization_id from job_end
                       where tenant_id = i.tenant_id and job_id = i.upstream_job_id offset 0) e on true)
               select tenant_id as "tenant_id!", materialization_id as "materialization_id?", job_id as "job_id?",
                      input as "input?", position as "position?", null as "asset?", null as "partition_key?",
                      null::bytea as "output_digest?", null::bytea as "version_digest?", null::bigint as "size_bytes?",
                      null as "media_type?", null::jsonb as "metadata?", null::bool as "inline?"
               from read
               union all
               select m.tenant_id, m.materialization_id, null, null, null, a.name, m.partition_key, m.output_digest,
                      m.version_digest, m.size_bytes, m.media_type, m.metadata, coalesce(b.inline, false)
               from (select distinct tenant_id, materialization_id from read) d
               cross join lateral (
                   select * from materialization
                   where tenant_id = d.tenant_id and materialization_id = d.materialization_id offset 0) m
               cross join lateral (
                   select name from asset where tenant_id = m.tenant_id and asset_id = m.asset_id offset 0) a
               left join lateral (
                   select bytes is not null as inline from blob
                   where tenant_id = m.tenant_id and digest = m.output_digest offset 0) b on true"#,
            &column(claims, |claim| &*claim.tenant) as &[&str],
            &column(claims, |claim| claim.job.0),
        )
        .fetch_all(&self.pool)
        .await
        .doing("loading the inputs of claimed jobs")?;
        let mut versions: HashMap<(String, Uuid), Arc<ClaimedVersion>> = HashMap::new();
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let key = row.materialization_id.map(|id| (row.tenant_id, id));
            if let (Some(job), Some(input), Some(position)) = (row.job_id, row.input, row.position) {
                read.push((JobId(job), input, position, key));
                continue;
            }
            let (
                Some(key),
                Some(asset),
                Some(partition_key),
                Some(output_digest),
                Some(version_digest),
                Some(media_type),
            ) = (key, row.asset, row.partition_key, row.output_digest, row.version_digest, row.media_type)
            else {
                continue;
            };
            let version = ClaimedVersion {
                materialization: MaterializationId(key.1),
                asset,
                partition_key,
                digest: digest(output_digest)?,
                version_digest: digest(version_digest)?,
                size_bytes: row.size_bytes.unwrap_or_default() as u64,
                media_type,
                metadata: row.metadata.unwrap_or_default(),
                inline: row.inline.unwrap_or_default(),
            };
            versions.insert(key, Arc::new(version));
        }
        for (job, input, position, key) in read {
            let inputs = by_job.entry(job).or_default();
            match key.and_then(|key| versions.get(&key)) {
                Some(version) => inputs.present.push(ClaimedInput { input, position, version: version.clone() }),
                None => *inputs.absent.entry(input).or_default() += 1,
            }
        }
        for inputs in by_job.values_mut() {
            inputs.present.sort_unstable_by(|a, b| (&a.input, a.position).cmp(&(&b.input, b.position)));
        }
        Ok(by_job)
    }

    /// How many attempts at a job ended by themselves and were dropped, because a directory changed while they read. The
    /// times that a job was released are more: those of the host's faults are among them.
    pub async fn count_dropped_attempts(&self, claim: &Claim) -> Result<i64, StoreError> {
        sqlx::query_scalar!(
            r#"select count(*) as "count!" from attempt
               where tenant_id = $1 and job_id = $2 and not charged
                 and verdict not in ('lost', 'cancelled', 'conflicted')"#,
            claim.tenant,
            claim.job.0,
        )
        .fetch_one(&self.pool)
        .await
        .doing("counting dropped attempts")
    }

    /// Moves up to `limit` deferred jobs whose time has come to the ready table; returns how many.
    pub async fn promote_due_jobs(&self, limit: i64) -> Result<u64, StoreError> {
        let moved = sqlx::query!(
            "with due as materialized (
                 select ctid as place from job_deferred where due_at <= now()
                 order by due_at, job_id limit $1 for update skip locked),
             moved as (
                 delete from job_deferred where ctid = any(array(select place from due))
                 returning tenant_id, job_id, lane_id, charged, released)
             insert into job_ready (tenant_id, job_id, lane_id, charged, released)
             select tenant_id, job_id, lane_id, charged, released from moved",
            limit,
        )
        .execute(&self.pool)
        .await
        .doing("promoting deferred jobs")?;
        Ok(moved.rows_affected())
    }

    /// The tokens of a worker's leased jobs whose run is being cancelled. It starts from these runs, of which there are
    /// mostly none: a worker's leases leave many dead rows behind.
    pub async fn list_claims_to_cancel(&self, worker: WorkerId) -> Result<Vec<(JobId, ClaimToken)>, StoreError> {
        let leases = sqlx::query!(
            "select l.job_id, l.token from run r
             cross join lateral (
                 select j.tenant_id, j.job_id, l.token from job j
                 join job_lease l on l.tenant_id = j.tenant_id and l.job_id = j.job_id
                 where j.run_id = r.run_id and j.tenant_id = r.tenant_id and l.worker_id = $1 offset 0) l
             where r.state = 'running' and r.cancel_requested_at is not null",
            worker.0
        )
        .fetch_all(&self.pool)
        .await
        .doing("looking for cancelled jobs")?;
        Ok(leases.into_iter().map(|lease| (JobId(lease.job_id), ClaimToken(lease.token))).collect())
    }
}
