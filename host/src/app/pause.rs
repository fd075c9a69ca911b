//! Pausing a pipeline, one of its assets or a queue, and resuming it.

use super::{App, AppError, Pipeline};
use crate::store::pauses::PauseRecord;

impl App {
    /// Lets what becomes ready wait. What runs goes on.
    pub async fn pause(&self, pipeline: &Pipeline, asset: Option<&str>) -> Result<(), AppError> {
        let id = asset.map(|asset| pipeline.find(asset)).transpose()?.map(|asset| asset.id);
        let subject = subject(pipeline, asset);
        if self.store.pause(&self.tenant, pipeline.pipeline, id, &subject).await? {
            return Ok(());
        }
        Err(AppError::Usage(format!("`{subject}` is paused already; `flowstone pauses` lists what is")))
    }

    /// Ends a pause; returns how many jobs can be claimed again.
    pub async fn resume(&self, pipeline: &Pipeline, asset: Option<&str>) -> Result<u64, AppError> {
        let subject = subject(pipeline, asset);
        let moved = self.store.resume(&self.tenant, pipeline.pipeline, asset, &subject).await?;
        moved.ok_or_else(|| AppError::Usage(format!("`{subject}` is not paused; `flowstone pauses` lists what is")))
    }

    /// Lets what is ready in a queue wait, whatever pipeline it is of. What runs goes on.
    pub async fn pause_queue(&self, queue: &str) -> Result<(), AppError> {
        if self.store.pause_queue(&self.tenant, queue).await? {
            return Ok(());
        }
        Err(AppError::Usage(format!("the queue `{queue}` is paused already; `flowstone pauses` lists what is")))
    }

    /// Ends a queue's pause.
    pub async fn resume_queue(&self, queue: &str) -> Result<(), AppError> {
        if self.store.resume_queue(&self.tenant, queue).await? {
            return Ok(());
        }
        Err(AppError::Usage(format!("the queue `{queue}` is not paused; `flowstone pauses` lists what is")))
    }

    /// The pauses that are on and stop something of a pipeline.
    pub async fn list_pauses_of(&self, pipeline: &Pipeline) -> Result<Vec<PauseRecord>, AppError> {
        let queues = |queue: &String| pipeline.assets.iter().any(|asset| asset.bound.route.queue == *queue);
        let pauses = self.store.list_pauses(&self.tenant).await?;
        Ok(pauses
            .into_iter()
            .filter(|pause| pause.pipeline.as_ref() == Some(&pipeline.name) || pause.queue.as_ref().is_some_and(queues))
            .collect())
    }
}

/// `pipeline`, or `pipeline asset`: as it is typed.
fn subject(pipeline: &Pipeline, asset: Option<&str>) -> String {
    asset.map_or_else(|| pipeline.name.clone(), |asset| format!("{} {asset}", pipeline.name))
}
