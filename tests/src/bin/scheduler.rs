//! A process that works and fires schedules, for tests to kill: the parts of the host that `flowstone up` puts together.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use flowstone::{
    app::App,
    blob::BlobStore,
    engine::{Engine, EngineSettings},
    runner::{Runner, RunnerSettings},
    scheduler::fire_due_schedules,
    secret::SecretSources,
    store::Store,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: scheduler DATABASE_URL STATE_DIR COMPILER");
    let (database, state_dir, compiler) = (next()?, PathBuf::from(next()?), PathBuf::from(next()?));
    let store = Store::connect(database.parse()?).await?;
    let blobs = BlobStore::open(&state_dir.join("blobs"))?;
    let settings = EngineSettings { compiler, cache: state_dir.join("compiled"), guests: 1 };
    let engine = Arc::new(Engine::new(settings)?);
    let settings = RunnerSettings {
        slots: 1,
        host: "here".into(),
        alone: false,
        secrets: SecretSources { variables: [].into(), seal_key: None },
        database_urls: [].into_iter().collect(),
    };
    let runner = Runner::start(store.clone(), engine.clone(), blobs.clone(), settings).await?;
    let app = App { store, blobs, engine, tenant: "default".into(), manifest_resources: true };
    println!("ready");
    // Until it is killed.
    fire_due_schedules(app, runner.worker(), runner.waker(), CancellationToken::new()).await;
    Ok(())
}
