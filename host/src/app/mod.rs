//! The verbs that the command line and the API share: check, deploy, plan, start a run, cancel, invalidate, schedules,
//! backfills, read.
//!
//! A verb gathers what is needed, lets `pipeline` decide, and lets `store` write. It runs no job: that is the runner's.

mod backfill;
mod deploy;
mod pause;
mod plan;
mod pool;
mod read;
mod resource;
mod run;
mod schedule;
mod secret;

use std::sync::Arc;

pub use backfill::{BackfillRequest, BackfillState, FailedPartitions, Released, StartedBackfill};
pub use deploy::{Checked, Deployed, MANIFEST_NAME, Pipeline, PipelineAsset};
pub use plan::{PlanRequest, Wanted};
pub use run::{IdempotencyKey, Submitted};
pub use schedule::{Fired, ScheduleState};

use crate::{
    blob::{BlobError, BlobStore},
    engine::Engine,
    limit::FIRE_ERROR_BYTES_MAX,
    pipeline::diagnostic::{Diagnostic, chain},
    store::{Store, StoreError},
};

/// What the verbs work with.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub store: Store,
    /// The bytes.
    pub blobs: BlobStore,
    /// For looking at components.
    pub engine: Arc<Engine>,
    /// Whose pipelines these are.
    pub tenant: String,
    /// Whether a manifest may declare resources, or only grant what an operator has registered.
    pub manifest_resources: bool,
}

/// What a verb answers when it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Mistakes in a manifest or a component, all of them.
    #[error("{}", lines(.0))]
    Invalid(Vec<Diagnostic>),
    /// A mistake in what was asked for, with the fix.
    #[error("{0}")]
    Usage(String),
    /// The host's fault.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host's fault: the database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's fault: the blob store.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl AppError {
    /// Whether the user can mend it.
    pub fn is_users(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Usage(_))
    }

    fn host(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Host { doing: doing.into(), source: source.into() }
    }
}

/// An error with its causes, as a row keeps it.
fn bounded_chain(error: &AppError) -> String {
    // The database keeps no NUL.
    let mut text = chain(error).replace('\0', " ");
    text.truncate(text.floor_char_boundary(FIRE_ERROR_BYTES_MAX));
    text
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
