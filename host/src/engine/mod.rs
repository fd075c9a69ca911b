//! Everything that runs guest code: inspecting, compiling and describing components, and running attempts.
//!
//! What goes in is a value, what comes out is a value: the engine reads no configuration and no environment, knows no
//! database, and holds no credentials. Errors are ours; how a guest ended is data ([`Verdict`]).

mod cache;
mod compile;
mod component;
mod config;
mod confine;
mod describe;
mod deserialize;
mod inspect;
mod limiter;
mod linker;
mod load;
pub mod meters;
mod parameters;
mod report;
mod sandbox;
mod signature;
mod verdict;

use std::{path::PathBuf, sync::Arc};

pub use self::{
    cache::CacheError,
    compile::{SUBCOMMAND as COMPILE_SUBCOMMAND, compile_child_main},
    component::Component,
    describe::DescribeFailure,
    inspect::{BASELINE, Import, ImportClass, Inspection, Problem},
    load::LoadError,
    report::Report,
    verdict::{Retry, Verdict},
};
pub(crate) use sandbox::caught;

use self::{cache::CompiledCache, config::Allocation, linker::Linkers, load::ReadyComponents};
use crate::{
    blob::{BlobError, BlobStore, Digest},
    capability::{Reach, context::Context, inputs::InputGrant, log::Log},
    limit::COMPILES_AT_ONCE_MAX,
    pipeline::{asset::AssetDefinition, policy::Limits},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What an engine is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The program that compiles when it is started as `<compiler> compile-component`: our own.
    pub compiler: PathBuf,
    /// The directory of compiled code. Made if need be, with mode 0700; must be this user's alone.
    pub cache: PathBuf,
    /// Attempts at once: sizes the pool.
    pub guests: usize,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The compiled cache cannot be used.
    #[error("cannot open the cache of compiled components")]
    Cache(#[from] CacheError),
    /// The cache's place for scratch bytes cannot be used.
    #[error("cannot open the scratch store of the engine")]
    Scratch(#[source] BlobError),
    /// wasmtime refuses its configuration, or the machine what it asks for.
    #[error("cannot start the WebAssembly engine: {0}")]
    Start(String),
}

/// One attempt, complete: nothing else is looked up while it runs.
#[derive(Debug)]
pub struct Attempt {
    /// The code.
    pub component: Arc<Component>,
    /// What the guest may know about its job, its asset's name among it.
    pub context: Context,
    /// What it may read.
    pub inputs: Vec<InputGrant>,
    /// What its grants opened for it.
    pub reach: Reach,
    /// Its bounds.
    pub limits: Limits,
    /// Of its output, as the asset declares it.
    pub media_type: String,
    /// Where what it says goes, and can be read meanwhile.
    pub log: Log,
    /// Of its randomness.
    pub seed: [u8; 32],
    /// Whose blobs it reads and writes.
    pub tenant: String,
    /// Where blobs are.
    pub blobs: BlobStore,
}

/// Compiles, keeps and runs components.
pub struct Engine {
    id: String,
    running: wasmtime::Engine,
    linkers: Linkers,
    compiler: PathBuf,
    compiled: CompiledCache,
    ready: ReadyComponents,
    compiles: Semaphore,
    meters: meters::Meters,
    /// The pool has one place for `describe`.
    describes: Semaphore,
    /// Where `describe` would write if its output limit were not 0: nothing is ever stored here.
    scratch: BlobStore,
}

impl Engine {
    /// Starts an engine: pooled where the address space allows, on demand otherwise; the trace says which.
    pub fn new(settings: EngineSettings) -> Result<Self, EngineError> {
        let id = config::id();
        let compiled = CompiledCache::open(&settings.cache, &id)?;
        let scratch = BlobStore::open(&settings.cache.join("scratch")).map_err(EngineError::Scratch)?;
        let running = start(settings.guests)?;
        Ok(Self {
            id,
            linkers: Linkers::new(running.clone()),
            running,
            compiler: settings.compiler,
            compiled,
            ready: ReadyComponents::default(),
            compiles: Semaphore::new(COMPILES_AT_ONCE_MAX),
            meters: meters::Meters::default(),
            describes: Semaphore::new(1),
            scratch,
        })
    }

    /// wasmtime's release, our configuration and the processor's architecture: what fuel and machine code depend on.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What a component imports and exports, without compiling or running any of it; or everything that is wrong with
    /// it. Takes a second for the largest components: call it where blocking is allowed.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Vec<Problem>> {
        inspect::inspect(bytes)
    }

    /// The component of this digest, ready to run: from memory, from the compiled cache, or compiled from its bytes,
    /// which are only asked for in the last case. Concurrent calls for one digest compile it once. Each tenant has its own:
    /// how long this takes must not tell whether another has the same component.
    pub async fn load<F, Fut>(&self, tenant: &str, digest: Digest, bytes: F) -> Result<Arc<Component>, LoadError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Vec<u8>, BlobError>>,
    {
        let mut is_loaded = false;
        let load = || {
            is_loaded = true;
            load::load(self, tenant, digest, bytes)
        };
        let component = self.ready.get_or_load((tenant.to_owned(), digest), load).await?;
        if !is_loaded {
            self.meters.memory_hits.inc();
        }
        Ok(component)
    }

    /// What it has counted.
    pub fn meters(&self) -> &meters::Meters {
        &self.meters
    }

    /// What its pool holds now; none when guests are made on demand.
    pub fn pool_use(&self) -> Option<meters::PoolUse> {
        self.running.pooling_allocator_metrics().map(|pool| meters::PoolUse::of(&pool))
    }

    /// What the component says about its assets. Its meaning is not judged here, only its size.
    pub async fn describe(&self, component: &Component) -> Result<Vec<AssetDefinition>, DescribeFailure> {
        let turn = self.describes.acquire().await;
        let _turn = turn.map_err(|error| DescribeFailure::Host(error.to_string()))?;
        describe::describe(self, component, self.scratch.clone()).await
    }

    /// Runs one attempt to its end. Never an error: what the guest did is the report's verdict, and so is our own
    /// trouble. Needs a tokio runtime with its timer, and blocks the thread that polls it: while guest code runs, up to
    /// a few milliseconds at a time; while a capability reads or writes a file, as long as that takes.
    pub async fn run(&self, attempt: Attempt, cancel: CancellationToken) -> Report {
        sandbox::run(self, attempt, cancel).await
    }

    fn running(&self) -> &wasmtime::Engine {
        &self.running
    }

    fn linkers(&self) -> &Linkers {
        &self.linkers
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("id", &self.id).finish_non_exhaustive()
    }
}

fn start(guests: usize) -> Result<wasmtime::Engine, EngineError> {
    let engine = |allocation| config::running(allocation).and_then(|config| wasmtime::Engine::new(&config));
    let pooled = Allocation::Pooled { guests };
    let error = match engine(pooled) {
        Ok(engine) => {
            tracing::debug!(allocation = %pooled, "engine started");
            return Ok(engine);
        }
        Err(error) => error,
    };
    // Address space is short: a container's limit, or a machine with fewer bits of it. Slower, and otherwise the same.
    tracing::warn!(reason = format!("{error:#}"), allocation = %Allocation::OnDemand, "cannot set address space aside for guests");
    engine(Allocation::OnDemand).map_err(|error| EngineError::Start(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_pooled_where_there_is_address_space_and_run_anyway_where_there_is_not() {
        assert!(start(64).unwrap().pooling_allocator_metrics().is_some());
        // No machine has as many addresses.
        assert!(start(1 << 24).unwrap().pooling_allocator_metrics().is_none());
    }
}
