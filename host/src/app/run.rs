//! Starting and ending runs.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::{Map, Value, json};

use super::{
    App, AppError, Pipeline, PlanRequest,
    plan::{Wanted, parse_partition},
};
use crate::{
    blob::Digest,
    id::{JobId, RunId, WorkerId},
    limit::IDEMPOTENCY_KEY_BYTES_MAX,
    pipeline::{
        grant::reaches_out,
        partition::PartitionKey,
        plan::{Force, InputSource, Plan, Reason},
        recipe::canonical_json,
    },
    store::{
        runs::RunRecord,
        submissions::{InputOrigin, NewJob, NewJobInput, NewRun, Submission},
    },
};

/// What a client calls a submission, so that it can repeat it without knowing whether it went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl FromStr for IdempotencyKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(format!("a key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, and this has {}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("a key has no control characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A run that was submitted under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Now.
    Now(RunId),
    /// Before, by the same request.
    Before(RunId),
}

impl App {
    /// Submits a plan: from here on every worker can take its jobs. A run with an owner ends when that process does;
    /// one without goes on until its jobs have ended.
    pub async fn start_run(
        &self,
        pipeline: &Pipeline,
        request: &PlanRequest,
        plan: &Plan,
        owner: Option<WorkerId>,
    ) -> Result<RunId, AppError> {
        let run = self.new_run(pipeline, request, plan, owner);
        self.store.submit_run(&run).await?;
        Ok(run.id)
    }

    /// The run that this request has made under this key, if it has.
    pub async fn find_submitted(
        &self,
        pipeline: &str,
        request: &PlanRequest,
        key: &IdempotencyKey,
    ) -> Result<Option<RunId>, AppError> {
        match self.store.find_submission(&self.tenant, &key.0).await? {
            None => Ok(None),
            Some(Submission { run, request: asked }) if asked == request_digest(pipeline, request) => Ok(Some(run)),
            Some(Submission { run, .. }) => Err(AppError::Usage(format!(
                "--idempotency-key: `{}` is the key of another request, which made run {run}: repeat that request as it \
                 was (`flowstone status {run} --json` has it), or give this one a key of its own",
                key.0
            ))),
        }
    }

    /// Submits a plan under a key, or finds what the key has submitted. Such a run has no owner: whoever submitted it may
    /// die, and will come back for it with the key.
    pub async fn start_run_once(
        &self,
        pipeline: &Pipeline,
        request: &PlanRequest,
        plan: &Plan,
        key: &IdempotencyKey,
    ) -> Result<Submitted, AppError> {
        let run = self.new_run(pipeline, request, plan, None);
        if self.store.submit_run_once(&run, &key.0, request_digest(&pipeline.name, request)).await? {
            return Ok(Submitted::Now(run.id));
        }
        match self.find_submitted(&pipeline.name, request, key).await? {
            Some(run) => Ok(Submitted::Before(run)),
            None => Err(AppError::Usage(format!(
                "--idempotency-key: the run of `{}` was removed at this moment, and the key with it: try again",
                key.0
            ))),
        }
    }

    /// A plan as the rows that it becomes.
    pub(super) fn new_run(
        &self,
        pipeline: &Pipeline,
        request: &PlanRequest,
        plan: &Plan,
        owner: Option<WorkerId>,
    ) -> NewRun {
        let run = RunId::new();
        // Ids sort in the order of the plan, and so does whatever lists them.
        let ids: Vec<JobId> = plan.jobs.iter().map(|_| JobId::new()).collect();
        let jobs = plan.jobs.iter().zip(&ids).map(|(job, id)| {
            let asset = &pipeline.assets[job.asset];
            let inputs = job.inputs.iter().map(|input| NewJobInput {
                input: input.name.to_string(),
                position: input.position as i32,
                optional: input.optional,
                origin: match input.from {
                    InputSource::Upstream(job) => InputOrigin::Job(ids[job]),
                    InputSource::Pinned(id) => InputOrigin::Materialization(id),
                    InputSource::Absent => InputOrigin::Absent,
                },
            });
            NewJob {
                id: *id,
                asset_version: asset.version,
                partition_key: job.partition.as_str().to_owned(),
                route: asset.bound.route.clone(),
                reason: job.reason.to_string(),
                // Effects are wanted again, and an old result is not; only what may have come out the same is looked up.
                forced: matches!(job.reason, Reason::Forced | Reason::Effectful | Reason::NoLongerFresh),
                inputs: inputs.collect(),
            }
        });
        NewRun {
            id: run,
            tenant: self.tenant.clone(),
            pipeline: pipeline.pipeline,
            pipeline_version: pipeline.id,
            owner,
            backfill: None,
            request: request_json(request),
            reaches_out: plan.jobs.iter().any(|job| reaches_out(&pipeline.assets[job.asset].bound.grants)),
            jobs: jobs.collect(),
        }
    }

    /// What a run that is over left unmade, to be planned anew with the newest version of its pipeline. What was forced
    /// then is forced again.
    pub async fn request_of_rest(&self, run: &RunRecord) -> Result<PlanRequest, AppError> {
        let id = run.id;
        match &*run.state {
            "running" => {
                let advice = format!("wait for its end (`flowstone watch {id}`) or cancel it");
                return Err(AppError::Usage(format!("run {id} is not over: {advice}")));
            }
            "succeeded" => return Err(AppError::Usage(format!("run {id} succeeded: it left nothing to try again"))),
            _ => {}
        }
        let mut partitions: BTreeMap<String, Vec<PartitionKey>> = BTreeMap::new();
        for (asset, key) in self.store.list_unmade(&self.tenant, id).await? {
            partitions.entry(asset).or_default().push(parse_partition(&key)?);
        }
        let asked = &run.request;
        Ok(PlanRequest {
            wanted: Wanted::LeftBy { run: id, partitions },
            with_inputs: asked["with_inputs"] != Value::Bool(false),
            force: if asked["force"] == "no" { Force::No } else { Force::Selected },
        })
    }

    /// Asks for a run's end.
    pub async fn cancel(&self, run: RunId) -> Result<(), AppError> {
        if self.store.cancel_run(&self.tenant, run, "cancelled by hand").await? {
            return Ok(());
        }
        Err(AppError::Usage(match self.store.find_run(&self.tenant, run).await? {
            Some(record) => format!("run {run} is over: it {}", record.state),
            None => format!("there is no run {run}; `flowstone runs` lists them"),
        }))
    }
}

/// Of what a submission asks for, whatever order it names it in. The pipeline's version is no part of it: a submission
/// that is repeated after a deploy is the same one.
fn request_digest(pipeline: &str, request: &PlanRequest) -> Digest {
    let mut request = request_json(request);
    for list in ["assets", "partitions"] {
        if let Some(Value::Array(names)) = request.get_mut(list) {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
            names.dedup();
        }
    }
    let asked = Map::from_iter([("pipeline".to_owned(), json!(pipeline)), ("request".to_owned(), request)]);
    Digest::of(canonical_json(&asked).as_bytes())
}

/// What was asked for, for people and for whoever tries it again.
fn request_json(request: &PlanRequest) -> Value {
    let force = match request.force {
        Force::No => "no",
        Force::Selected => "selected",
        Force::All => "all",
    };
    match &request.wanted {
        Wanted::Named { assets, partitions } => {
            json!({ "assets": assets, "partitions": partitions, "with_inputs": request.with_inputs, "force": force })
        }
        Wanted::LeftBy { run, .. } => json!({ "retry_of": run, "with_inputs": request.with_inputs, "force": force }),
        Wanted::OfBackfill { backfill, partitions } => {
            let assets: Vec<&String> = partitions.keys().collect();
            json!({ "backfill": backfill, "assets": assets, "with_inputs": request.with_inputs, "force": force })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(assets: &[&str], force: Force) -> PlanRequest {
        let assets = assets.iter().map(|asset| (*asset).to_owned()).collect();
        PlanRequest { wanted: Wanted::Named { assets, partitions: vec![] }, with_inputs: true, force }
    }

    #[test]
    fn a_request_is_the_same_in_any_order_and_another_when_it_asks_for_something_else() {
        let digest = request_digest("p", &asked(&["a", "b"], Force::No));
        assert_eq!(digest, request_digest("p", &asked(&["b", "a", "b"], Force::No)));
        for (pipeline, other) in [
            ("p", asked(&["a"], Force::No)),
            ("p", asked(&["a", "b"], Force::Selected)),
            ("q", asked(&["a", "b"], Force::No)),
            ("p", PlanRequest { with_inputs: false, ..asked(&["a", "b"], Force::No) }),
        ] {
            assert_ne!(digest, request_digest(pipeline, &other));
        }
    }

    #[test]
    fn a_key_is_short_and_printable() {
        assert!("x".repeat(255).parse::<IdempotencyKey>().is_ok());
        for wrong in ["", &"x".repeat(256), "a\nb"] {
            assert!(wrong.parse::<IdempotencyKey>().is_err());
        }
    }
}
