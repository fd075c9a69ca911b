//! The component of `tests/guests/bench`: in an engine of this process, or as a deployed pipeline.

use std::{fs, path::Path, process::Command, sync::Arc};

use flowstone::{
    blob::{BlobStore, Digest},
    capability::{Reach, context::Context, log::Log},
    engine::{Attempt, Component, Engine, EngineSettings, Report, Verdict},
    pipeline::policy::Limits,
};
use flowstone_tests::{Database, Flowstone, pipeline};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Runs attempts one after the other, as a guest's thread does.
pub struct Guests {
    runtime: Runtime,
    engine: Engine,
    component: Arc<Component>,
    blobs: BlobStore,
    _folder: tempfile::TempDir,
}

impl Guests {
    /// With the component compiled and loaded.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("/tmp is writable");
        let compiler = Flowstone::embedded().command([""; 0]).get_program().into();
        let settings = EngineSettings { compiler, cache: folder.path().join("compiled"), guests: 1 };
        let engine = Engine::new(settings).expect("the engine starts");
        let runtime = single_thread();
        let bytes = fs::read(pipeline::guest("bench")).expect("the component can be read");
        let component = runtime.block_on(engine.load("default", Digest::of(&bytes), async || Ok(bytes)));
        Self {
            component: component.expect("the component compiles"),
            runtime,
            engine,
            blobs: BlobStore::open(&folder.path().join("blobs")).expect("the folder is ours"),
            _folder: folder,
        }
    }

    /// Everything that an attempt of an asset needs.
    pub fn attempt(&self, asset: &str, limits: Limits) -> Attempt {
        Attempt {
            component: self.component.clone(),
            context: Context { asset: asset.to_owned(), attempt: 1, config: "{}".to_owned(), ..Context::default() },
            inputs: Vec::new(),
            reach: Reach::default(),
            limits,
            media_type: "application/octet-stream".to_owned(),
            log: Log::default(),
            seed: [7; 32],
            tenant: "default".to_owned(),
            blobs: self.blobs.clone(),
        }
    }

    /// Runs an attempt, which must succeed.
    pub fn run(&self, attempt: Attempt) -> Report {
        let report = self.runtime.block_on(self.engine.run(attempt, CancellationToken::new()));
        assert_eq!(report.verdict, Verdict::Succeeded, "{}", report.explanation);
        report
    }
}

/// A runtime that works when it is waited for.
pub fn single_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

/// A pipeline of `tests/guests` in a database of its own, which is up.
pub struct Deployed {
    /// Runs the commands.
    pub flowstone: Flowstone,
    /// Holds what they record.
    pub database: Database,
    name: &'static str,
}

impl Deployed {
    /// Deploys `tests/guests/<name>`.
    pub fn new(name: &'static str) -> Self {
        let database = single_thread().block_on(Database::new());
        let flowstone = Flowstone::on(&database);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(name);
        let manifest = folder.to_str().expect("the checkout has a plain name");
        flowstone.run(["deploy", manifest]).expect_status(0);
        Self { flowstone, database, name }
    }

    /// `flowstone VERB <name> ARGUMENTS...`, which talks only of errors.
    pub fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        self.flowstone.command([&["--quiet", verb, self.name], arguments].concat())
    }
}
