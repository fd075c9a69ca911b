//! Starting and ending runs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    App, AppError, Pipeline, PlanRequest,
    plan::{Wanted, parse_partition},
};
use crate::{
    id::{JobId, RunId, WorkerId},
    pipeline::{
        partition::PartitionKey,
        plan::{Force, InputSource, Plan, Reason},
    },
    store::runs::{InputOrigin, NewJob, NewJobInput, NewRun, RunRecord},
};

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
            request: request_json(request),
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
    }
}
