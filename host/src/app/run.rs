//! Starting and ending runs.

use std::collections::HashMap;

use serde_json::json;

use super::{App, AppError, Pipeline, PlanRequest};
use crate::{
    id::{JobId, RunId, WorkerId},
    pipeline::plan::{Origin, Plan},
    store::runs::{InputOrigin, NewJob, NewJobInput, NewRun},
};

impl App {
    /// Submits a plan: from here on every worker can take its jobs.
    ///
    /// Runs of the same pipeline that nobody waits for any more are ended first; this plan holds what they left.
    pub async fn start_run(
        &self,
        pipeline: &Pipeline,
        request: &PlanRequest,
        plan: &Plan,
        owner: WorkerId,
    ) -> Result<RunId, AppError> {
        let run = RunId::new();
        for abandoned in self.store.list_abandoned_runs(&self.tenant, pipeline.pipeline).await? {
            let cause = format!("its process is gone; run {run} plans anew what it left");
            self.store.cancel_run(&self.tenant, abandoned, &cause).await?;
        }
        // Ids sort in the order of the plan, and so does whatever lists them.
        let ids: Vec<JobId> = plan.jobs.iter().map(|_| JobId::new()).collect();
        let jobs = plan.jobs.iter().zip(&ids).map(|(job, id)| {
            let asset = &pipeline.assets[job.asset];
            let mut positions: HashMap<usize, i32> = HashMap::new();
            let inputs = job.inputs.iter().map(|input| {
                let declared = &asset.bound.definition.inputs[input.input];
                let position = positions.entry(input.input).or_default();
                *position += 1;
                NewJobInput {
                    input: declared.name.clone(),
                    position: *position - 1,
                    optional: declared.optional,
                    origin: match input.from {
                        Origin::Job(job) => InputOrigin::Job(ids[job]),
                        Origin::Materialization(id) => InputOrigin::Materialization(id),
                        Origin::Absent => InputOrigin::Absent,
                    },
                }
            });
            NewJob {
                id: *id,
                asset_version: asset.version,
                partition_key: job.partition.as_str().to_owned(),
                reason: job.reason.to_string(),
                forced: job.reason.is_forced(),
                inputs: inputs.collect(),
            }
        });
        let run = NewRun {
            id: run,
            tenant: self.tenant.clone(),
            pipeline_version: pipeline.id,
            owner,
            request: json!({
                "assets": request.assets,
                "partitions": request.partitions,
                "with_inputs": request.with_inputs,
                "force": request.force.as_str(),
            }),
            jobs: jobs.collect(),
        };
        self.store.submit_run(&run).await?;
        Ok(run.id)
    }

    /// Asks for a run's end.
    pub async fn cancel(&self, run: RunId) -> Result<(), AppError> {
        if self.store.cancel_run(&self.tenant, run, "cancelled by hand").await?.is_some() {
            return Ok(());
        }
        Err(AppError::Usage(match self.store.find_run(&self.tenant, run).await? {
            Some(record) => format!("run {run} is over: it {}", record.state),
            None => format!("there is no run {run}; `flowstone runs` lists them"),
        }))
    }
}
