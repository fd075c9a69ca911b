//! Components of languages that bring their runtime along: the largest that there are, deployed, begun from the compiled
//! cache, and begun again where they are in memory.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use flowstone::{
    blob::Digest,
    engine::{Component, Engine, EngineSettings},
};
use flowstone_tests::{Database, Flowstone, pipeline};
use tokio::runtime::Runtime;

use crate::{
    guests::single_thread,
    table::Row,
    watched::{spawn, watch},
};

/// With how often each is deployed: compiling Python takes seconds.
const LANGUAGES: [(&str, usize); 3] = [("python", 3), ("typescript", 7), ("c", 7)];

const ROUNDS: usize = 21;

/// For each language: deploying, a beginning from the cache, a beginning in memory, and what is mapped.
pub fn measure() -> Vec<Row> {
    LANGUAGES.into_iter().flat_map(|(language, deploys)| measure_language(language, deploys)).collect()
}

fn measure_language(language: &str, deploys: usize) -> Vec<Row> {
    let path = pipeline::root().join(format!("examples/foreign/target/{language}.wasm"));
    let (mut deployed, mut python) = (Vec::new(), Vec::new());
    let database = single_thread().block_on(Database::new());
    for _ in 0..deploys {
        deployed.push(deploy(&database, &path, language));
        python.push(spawn("python3", &["-c", "pass"]).as_secs_f64());
    }
    let (mut mapped, mut held, mut sizes, mut resident) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let beginnings = Beginnings::new(&path);
    for _ in 0..ROUNDS {
        let engine = beginnings.engine();
        let before = code_bytes(&beginnings.cache, "Rss:");
        let (from_cache, component) = beginnings.begin(&engine);
        resident.push((code_bytes(&beginnings.cache, "Rss:") - before) / MIB);
        sizes.push(code_bytes(&beginnings.cache, "Size:") / MIB);
        mapped.push(from_cache);
        held.push(beginnings.begin(&engine).0);
        drop(component);
    }
    let is_python = language == "python";
    let promised = |row: Row, most: f64| if is_python { row.at_most(most) } else { row };
    vec![
        promised(Row::new(format!("{language}: deployed"), "s", deployed).against("python3 -c pass", python), 10.0),
        promised(
            Row::new(format!("{language}: from the compiled cache"), "ms", mapped).against("in memory", held.clone()),
            60.0,
        ),
        promised(Row::new(format!("{language}: in memory"), "ms", held), 10.0),
        Row::new(format!("{language}: its compiled code, resident"), "MiB", resident).against("mapped", sizes),
    ]
}

/// `flowstone deploy` where nothing was ever compiled, in seconds.
fn deploy(database: &Database, component: &Path, language: &str) -> f64 {
    let flowstone = Flowstone::on(database);
    let folder = flowstone.folder();
    let grants = "shop = { paths = [\"price\"] }\nprices = { access = \"read-write\", keys = [\"**\"] }";
    let manifest = format!(
        "[pipeline]\nname = \"{language}\"\n[[components]]\npath = \"{}\"\n[[components]]\npath = \"{}\"\n\
         [resources.desk]\nkind = \"directory\"\npath = \".\"\n[resources.shop]\nkind = \"http\"\n\
         url = \"https://shop.example.com\"\n[resources.prices]\nkind = \"key-value\"\n\
         [assets.orders]\ngrants.desk = {{ paths = [\"orders.csv\"] }}\n\
         [assets.invoice_rust.grants]\n{grants}\n[assets.invoice_{language}.grants]\n{grants}\n",
        pipeline::example("foreign").display(),
        component.display(),
    );
    fs::write(folder.join("flowstone.toml"), manifest).expect("the folder is ours");
    watch(flowstone.command(["--quiet", "deploy", "./flowstone.toml"]), |_, _, _| {}).took.as_secs_f64()
}

/// Engines that share a compiled cache in which one component is.
struct Beginnings {
    runtime: Runtime,
    digest: Digest,
    compiler: PathBuf,
    cache: PathBuf,
    _folder: tempfile::TempDir,
}

impl Beginnings {
    fn new(component: &Path) -> Self {
        let folder = tempfile::tempdir().expect("/tmp is writable");
        let bytes = fs::read(component).expect("the component is built");
        let beginnings = Self {
            runtime: single_thread(),
            digest: Digest::of(&bytes),
            compiler: Flowstone::embedded().command([""; 0]).get_program().into(),
            cache: folder.path().join("compiled"),
            _folder: folder,
        };
        let engine = beginnings.engine();
        let compiled = beginnings.runtime.block_on(engine.load("default", beginnings.digest, async || Ok(bytes)));
        compiled.expect("the component compiles");
        beginnings
    }

    /// One that has nothing in memory.
    fn engine(&self) -> Engine {
        let settings = EngineSettings { compiler: self.compiler.clone(), cache: self.cache.clone(), guests: 1 };
        Engine::new(settings).expect("the engine starts")
    }

    /// Loads the component and lets it describe itself, which instantiates it: in milliseconds.
    fn begin(&self, engine: &Engine) -> (f64, std::sync::Arc<Component>) {
        let began = Instant::now();
        let component = self.runtime.block_on(async {
            let loaded = engine.load("default", self.digest, async || panic!("it is in the compiled cache")).await;
            let component = loaded.expect("it is in the compiled cache");
            let assets = engine.describe(&component).await.expect("it describes itself");
            assert!(!assets.is_empty());
            component
        });
        (began.elapsed().as_secs_f64() * 1e3, component)
    }
}

const MIB: f64 = (1 << 20) as f64;

/// A sum over this process' mappings of files of the cache, of a line that holds kilobytes.
fn code_bytes(cache: &Path, line: &str) -> f64 {
    let maps = fs::read_to_string("/proc/self/smaps").expect("Linux tells of mappings");
    let cache = cache.to_str().expect("temporary folders have plain names");
    let mut is_ours = false;
    let mut kilobytes = 0.0;
    for text in maps.lines() {
        if text.split(' ').next().is_some_and(|first| first.contains('-')) {
            is_ours = text.contains(cache);
        } else if let (true, Some(rest)) = (is_ours, text.strip_prefix(line)) {
            kilobytes += rest.trim().trim_end_matches(" kB").parse::<f64>().expect("it is a number");
        }
    }
    kilobytes * 1024.0
}
