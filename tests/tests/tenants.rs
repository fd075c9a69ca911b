//! Two tenants of one database, one blob store and one worker: what one has made, the other neither gets nor notices.
//!
//! The command works for the tenant `default` alone, so these tests stand where it stands: on the verbs, the store and the
//! runner, with nothing of them replaced.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use flowstone::{
    app::{App, AppError, Pipeline, PlanRequest, Wanted},
    blob::{BlobStore, Digest},
    engine::{Engine, EngineSettings},
    id::RunId,
    pipeline::plan::Force,
    runner::{Runner, RunnerSettings},
    secret::{SealKey, SecretSources, SecretValue},
    store::{Store, lineage::Direction, queue::Served},
};
use flowstone_tests::{Database, Flowstone, deadline::wait_until_database_says, guest, guest::Described};

const PIPELINE: &str = "shared";

struct Tenants {
    database: Database,
    folder: tempfile::TempDir,
    one: App,
    other: App,
    runner: Runner,
}

impl Tenants {
    /// Both with the same files of a pipeline of two assets, the second of which reads the first; nothing is deployed.
    async fn new() -> Self {
        let database = Database::new().await;
        let pool = database.pool().await;
        sqlx::query("insert into tenant (tenant_id) values ('one'), ('other')").execute(&pool).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let compiler = Flowstone::embedded().command([""; 0]).get_program().into();
        let settings = EngineSettings { compiler, cache: folder.path().join("compiled"), guests: 1 };
        let app = |tenant: &str, engine: &Arc<Engine>, store: &Store| App {
            store: store.clone(),
            blobs: BlobStore::open(&folder.path().join("blobs")).unwrap(),
            engine: Arc::clone(engine),
            tenant: tenant.to_owned(),
            manifest_resources: true,
        };
        let engine = Arc::new(Engine::new(settings).unwrap());
        let store = Store::connect(database.options()).await.unwrap();
        let (one, other) = (app("one", &engine, &store), app("other", &engine, &store));
        let secrets = SecretSources { variables: [].into(), seal_key: Some(SealKey::random().unwrap()) };
        let settings = RunnerSettings {
            served: Served::default(),
            slots: 1,
            host: "here".into(),
            alone: false,
            secrets,
            database_urls: [].into_iter().collect(),
        };
        let runner = Runner::start(store, engine, one.blobs.clone(), settings).await.unwrap();
        let tenants = Self { database, folder, one, other, runner };
        let assets = [Described::new("made"), Described::new("made_of_it").reading("made")];
        fs::write(tenants.folder.path().join("made.wasm"), guest::component(&assets)).unwrap();
        tenants.bind("");
        tenants
    }

    fn manifest(&self) -> PathBuf {
        self.folder.path().join("flowstone.toml")
    }

    fn bind(&self, more: &str) {
        let text = format!("[pipeline]\nname = \"{PIPELINE}\"\n[[components]]\npath = \"made.wasm\"\n{more}");
        fs::write(self.manifest(), text).unwrap();
    }

    async fn deploy(&self, of: &App) -> Pipeline {
        let checked = of.check(&self.manifest()).await.unwrap();
        let deployed = of.deploy(&checked).await.unwrap();
        assert!(deployed.new, "it is that tenant's first version");
        of.load_pipeline(PIPELINE).await.unwrap()
    }

    /// Runs what is to be run, to its end.
    async fn run(&self, of: &App, pipeline: &Pipeline) -> RunId {
        let request = request();
        let plan = of.plan(pipeline, &request).await.unwrap();
        let run = of.start_run(pipeline, &request, &plan, Some(self.runner.worker())).await.unwrap();
        self.runner.wake();
        let pool = self.database.pool().await;
        wait_until_database_says(&pool, "select not exists (select from run where finished_at is null)").await;
        run
    }
}

fn request() -> PlanRequest {
    PlanRequest { wanted: Wanted::Named { assets: vec![], partitions: vec![] }, with_inputs: false, force: Force::No }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_of_one_tenant_is_not_used_again_for_another() {
    let tenants = Tenants::new().await;
    let (one, other) = (&tenants.one, &tenants.other);
    let pipeline_of_one = tenants.deploy(one).await;
    let run_of_one = tenants.run(one, &pipeline_of_one).await;
    assert_eq!(one.store.list_attempts("one", run_of_one, None, None, 10).await.unwrap().len(), 2);

    // The same bytes, recipes and names: nothing is reused, nothing is up to date, the component is stored again.
    let component = Digest::of(&fs::read(tenants.folder.path().join("made.wasm")).unwrap());
    assert!(one.blobs.contains("one", component).await.unwrap());
    assert!(!other.blobs.contains("other", component).await.unwrap());
    let pipeline_of_other = tenants.deploy(other).await;
    let reasons: Vec<String> = other
        .plan(&pipeline_of_other, &request())
        .await
        .unwrap()
        .jobs
        .iter()
        .map(|job| job.reason.to_string())
        .collect();
    assert_eq!(reasons, ["never materialized", "never materialized"]);
    let run_of_other = tenants.run(other, &pipeline_of_other).await;
    let record = other.store.find_run("other", run_of_other).await.unwrap().unwrap();
    assert_eq!((record.succeeded, record.reused), (2, 0));
    assert_eq!(other.store.list_attempts("other", run_of_other, None, None, 10).await.unwrap().len(), 2);
    let (made, made_again) = (
        one.find_output(&pipeline_of_one, "made", None).await,
        other.find_output(&pipeline_of_other, "made", None).await,
    );
    let (made, made_again) = (made.unwrap(), made_again.unwrap());
    assert_eq!(
        (made.recipe, made.digest),
        (made_again.recipe, made_again.digest),
        "it could have been taken for the same"
    );
    assert_eq!((made_again.reused_from, made_again.run), (None, run_of_other));
    assert_ne!(made.id, made_again.id);

    // Within a tenant it is used again, so that the above is no accident.
    one.invalidate(&pipeline_of_one, "made_of_it", None).await.unwrap();
    let again = tenants.run(one, &pipeline_of_one).await;
    let attempts = one.store.list_attempts("one", again, None, None, 10).await.unwrap();
    assert_eq!(attempts.len(), 1, "what was invalidated is made again, and what was not is not");
    assert_eq!(other.store.list_attempts("other", again, None, None, 10).await.unwrap().len(), 0);
    let untouched = other.find_output(&pipeline_of_other, "made_of_it", None).await.unwrap();
    assert_eq!(untouched.run, run_of_other, "what one tenant invalidates stays valid for the other");
    tenants.runner.stop_at_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_tenant_knows_by_its_id_the_other_is_told_does_not_exist() {
    let tenants = Tenants::new().await;
    let (one, other) = (&tenants.one, &tenants.other);
    let pipeline = tenants.deploy(one).await;
    let run = tenants.run(one, &pipeline).await;
    let made = one.find_output(&pipeline, "made", None).await.unwrap();

    let nothing = other.load_pipeline(PIPELINE).await.unwrap_err();
    let never = other.load_pipeline("never").await.unwrap_err();
    assert_eq!(nothing.to_string().replace(PIPELINE, "never"), never.to_string());
    let (theirs, nobodys) = (other.cancel(run).await.unwrap_err(), RunId::new());
    let never = other.cancel(nobodys).await.unwrap_err();
    assert_eq!(theirs.to_string().replace(&run.to_string(), &nobodys.to_string()), never.to_string());

    let store = &other.store;
    assert!(store.find_run("other", run).await.unwrap().is_none());
    assert_eq!(store.list_runs("other", None, 10).await.unwrap().len(), 0);
    assert_eq!(store.list_jobs("other", run, None, 10).await.unwrap().len(), 0);
    assert_eq!(store.list_attempts("other", run, None, None, 10).await.unwrap().len(), 0);
    assert_eq!(store.walk_lineage("other", made.id, Direction::Up, 5).await.unwrap().nodes.len(), 0);
    assert_eq!(store.list_latest("other", &[pipeline.assets[0].id]).await.unwrap().len(), 0);
    let wanted = (pipeline.assets[0].id, made.partition_key.clone(), made.recipe);
    assert_eq!(store.find_by_recipe("other", &[wanted]).await.unwrap().len(), 0);
    assert_eq!(store.list_inline_blobs("other", &[made.digest]).await.unwrap().len(), 0);
    assert!(store.find_asset_version("other", pipeline.assets[0].version).await.unwrap().is_none());
    tenants.runner.stop_at_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_or_a_secret_of_one_tenant_cannot_be_granted_by_another() {
    let tenants = Tenants::new().await;
    let (one, other) = (&tenants.one, &tenants.other);
    let assets = [Described::new("made").requiring("vault"), Described::new("made_of_it").reading("made")];
    fs::write(tenants.folder.path().join("made.wasm"), guest::component_with_files(&assets)).unwrap();
    let vault = tenants.folder.path().join("vault");
    fs::create_dir(&vault).unwrap();
    let file = tenants.folder.path().join("vault.toml");
    fs::write(&file, "[resources.vault]\nkind = \"directory\"\npath = \"vault\"\naccess = \"read\"\n").unwrap();
    one.register_resources(&file, &["vault".into()]).await.unwrap();
    tenants.bind("[assets.made]\ngrants.vault = { access = \"read\", paths = [\"**\"] }\n");
    one.check(&tenants.manifest()).await.unwrap();

    let refused = other.check(&tenants.manifest()).await.unwrap_err();
    assert!(matches!(refused, AppError::Invalid(_)), "{refused}");
    assert!(refused.to_string().contains("vault"), "{refused}");
    assert!(!refused.to_string().contains(vault.to_str().unwrap()), "{refused}");
    assert!(other.list_registered_resources().await.unwrap().is_empty());

    let key = SealKey::random().unwrap();
    one.set_secret("token", &SecretValue::new(b"hunter2!".into()), &key).await.unwrap();
    assert!(other.store.find_sealed_secret("other", "token").await.unwrap().is_none());
    let kept = one.store.find_sealed_secret("one", "token").await.unwrap().unwrap();
    assert!(key.open("one", "token", &kept.sealed, &kept.key_id).is_ok());
    assert!(key.open("other", "token", &kept.sealed, &kept.key_id).is_err(), "a copied row opens for nobody else");
    tenants.runner.stop(Duration::ZERO, std::future::ready(())).await;
}
