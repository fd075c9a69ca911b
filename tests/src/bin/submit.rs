//! Submits runs when it is told, as a service would that stays connected: what the latency of a queue is measured with.
//!
//! A line of stdin is a request, a line of stdout its answer. `{"deploy": MANIFEST}` deploys for the tenant, which is made
//! if it is not there. Everything else names a pipeline, assets and partitions, and whether they are made anew; it is
//! answered with the run, its jobs, and when it was asked for, planned and submitted, in nanoseconds since 1970.

use std::{
    collections::HashMap,
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use flowstone::{
    app::{App, Pipeline, PlanRequest, Wanted},
    blob::BlobStore,
    engine::{Engine, EngineSettings},
    pipeline::plan::Force,
    store::Store,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tenant, compiler, state] = &arguments[..] else { bail!("usage: submit TENANT FLOWSTONE STATE_DIR") };
    let options: PgConnectOptions = std::env::var("DATABASE_URL").context("DATABASE_URL says where")?.parse()?;
    let store = Store::connect(options.clone()).await?;
    let mut connection = PgConnection::connect_with(&options).await?;
    let insert = sqlx::query("insert into tenant (tenant_id) values ($1) on conflict do nothing").bind(tenant);
    insert.execute(&mut connection).await?;
    connection.close().await?;
    let state = PathBuf::from(state);
    let settings = EngineSettings { compiler: compiler.into(), cache: state.join("compiled"), guests: 1 };
    let app = App {
        store,
        blobs: BlobStore::open(&state.join("blobs"))?,
        engine: Engine::new(settings)?.into(),
        tenant: tenant.clone(),
        manifest_resources: true,
    };
    let mut pipelines = HashMap::new();
    for line in std::io::stdin().lines() {
        let answer = answer(&app, &mut pipelines, &serde_json::from_str(&line?)?).await?;
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}

async fn answer(app: &App, pipelines: &mut HashMap<String, Pipeline>, asked: &Value) -> anyhow::Result<Value> {
    if let Some(manifest) = asked["deploy"].as_str() {
        let deployed = app.deploy(&app.check(&manifest_in(Path::new(manifest))).await?).await?;
        pipelines.clear();
        return Ok(json!({ "new": deployed.new }));
    }
    let name = asked["pipeline"].as_str().context("a pipeline is named")?;
    if !pipelines.contains_key(name) {
        pipelines.insert(name.to_owned(), app.load_pipeline(name).await?);
    }
    let pipeline = &pipelines[name];
    let wanted = Wanted::Named { assets: names(&asked["assets"])?, partitions: names(&asked["partitions"])? };
    let force = if asked["force"] == Value::Bool(true) { Force::Selected } else { Force::No };
    let request = PlanRequest { wanted, with_inputs: false, force };
    let asked_ns = now_ns()?;
    let plan = app.plan(pipeline, &request).await?;
    let planned_ns = now_ns()?;
    let run = app.start_run(pipeline, &request, &plan, None).await?;
    let submitted_ns = now_ns()?;
    Ok(json!({
        "run": run.to_string(), "jobs": plan.jobs.len(),
        "asked_ns": asked_ns, "planned_ns": planned_ns, "submitted_ns": submitted_ns,
    }))
}

fn manifest_in(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(flowstone::app::MANIFEST_NAME) } else { path.to_owned() }
}

fn names(list: &Value) -> anyhow::Result<Vec<String>> {
    Ok(serde_json::from_value(list.clone())?)
}

fn now_ns() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}
