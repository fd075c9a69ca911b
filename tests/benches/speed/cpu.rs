//! Computing guests beside the same code natively: with the engine as it is, and without fuel.

use std::{collections::HashMap, fs, path::PathBuf, process::Command, time::Instant};

use flowstone::{
    bindings::{
        AssetWithAll,
        flowstone::asset::{context, output},
    },
    blob::BlobStore,
    capability::{context::Context, output::Output},
    pipeline::policy::Limits,
};
use flowstone_tests::pipeline;
use wasmtime::{
    Config, Engine, Inlining, Store,
    component::{Component, HasSelf, Linker},
};

use crate::{
    guests::{Guests, single_thread},
    table::Row,
};

const ROUNDS: usize = 5;
const KERNELS: [&str; 4] = ["json", "sort", "sha256", "matmul"];
const FUEL: u64 = 1 << 50;

/// Milliseconds of each kernel three times over, and how many times its native self that is.
pub fn measure() -> Vec<Row> {
    let native = time_native();
    let guests = Guests::new();
    let unmetered = Unmetered::new();
    let mut rows = Vec::new();
    for kernel in KERNELS {
        let asset = format!("cpu_{kernel}");
        let limits = Limits { fuel: FUEL, ..Limits::default() };
        let metered = |_| guests.run(guests.attempt(&asset, limits.clone())).run_us as f64 / 1e3;
        let with_fuel = (0..ROUNDS).map(metered).collect();
        let without = (0..ROUNDS).map(|_| unmetered.time(&asset)).collect();
        let native = &native[kernel];
        rows.push(Row::new(format!("{kernel}, with fuel"), "ms", with_fuel).against("native, no SIMD", native.clone()));
        rows.push(
            Row::new(format!("{kernel}, without fuel"), "ms", without).against("native, no SIMD", native.clone()),
        );
    }
    rows
}

/// Milliseconds of each kernel in the program that scripts/bench has built of the same source.
fn time_native() -> HashMap<String, Vec<f64>> {
    let program = native_program();
    let output = Command::new(&program).arg(ROUNDS.to_string()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: run scripts/bench", program.display()));
    assert!(output.status.success(), "{} ended with {}", program.display(), output.status);
    let mut times: HashMap<String, Vec<f64>> = HashMap::new();
    for line in String::from_utf8(output.stdout).expect("it writes UTF-8").lines() {
        let (kernel, nanos) = line.split_once(' ').expect("a line is a kernel and a time");
        let nanos: f64 = nanos.parse().expect("a time is a number");
        times.entry(kernel.to_owned()).or_default().push(nanos / 1e6);
    }
    times
}

/// `<target>/native/release/examples/native`, where this program is `<target>/release/deps/<program>`.
fn native_program() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    let target = this.ancestors().nth(3).expect("cargo puts benches three folders deep");
    target.join("native/release/examples/native")
}

/// The component in an engine that counts no fuel, and is otherwise like ours where that touches the code.
struct Unmetered {
    engine: Engine,
    component: Component,
    linker: Linker<State>,
    folder: tempfile::TempDir,
}

struct State {
    context: Context,
    output: Output,
}

impl Unmetered {
    fn new() -> Self {
        let mut config = Config::new();
        config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true).compiler_inlining(Inlining::No);
        let engine = Engine::new(&config).expect("the configuration is sound");
        let bytes = fs::read(pipeline::guest("bench")).expect("the component can be read");
        let component = Component::new(&engine, bytes).expect("the component compiles");
        let mut linker = Linker::new(&engine);
        context::add_to_linker::<_, HasSelf<Context>>(&mut linker, |state: &mut State| &mut state.context)
            .expect("the linker is empty");
        output::add_to_linker::<_, HasSelf<Output>>(&mut linker, |state: &mut State| &mut state.output)
            .expect("the linker has no output yet");
        // What computes asks for nothing else.
        linker.define_unknown_imports_as_traps(&component).expect("every other import can trap");
        Self { engine, component, linker, folder: tempfile::tempdir().expect("/tmp is writable") }
    }

    /// Milliseconds of one call.
    fn time(&self, asset: &str) -> f64 {
        let blobs = BlobStore::open(self.folder.path()).expect("the folder is ours");
        let context = Context { asset: asset.to_owned(), attempt: 1, config: "{}".to_owned(), ..Context::default() };
        let output = Output::new(&blobs, "default", 1 << 20, "text/plain".to_owned());
        let mut store = Store::new(&self.engine, State { context, output });
        single_thread().block_on(async {
            let guest = AssetWithAll::instantiate_async(&mut store, &self.component, &self.linker).await;
            let guest = guest.expect("the component is instantiated");
            let started = Instant::now();
            let outcome = guest.flowstone_asset_materializer().call_materialize(&mut store, asset).await;
            let took = started.elapsed().as_secs_f64() * 1e3;
            assert!(matches!(outcome, Ok(Ok(_))), "{asset}: {outcome:?}");
            took
        })
    }
}
