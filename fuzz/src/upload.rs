//! Uploads: any bytes, through all that a deploy and then a worker do with them: inspection, the compiler process,
//! `describe`, an attempt.
//!
//! A component is refused with sentences that can be shown, or it is sound: what passes the inspection is compiled and
//! linked, its `describe` and its attempt end within their limits and by the guest's own doing. Code that comes through
//! is code that wasm-smith made up, or a real component that was damaged.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};

use arbitrary::{Arbitrary as _, Result, Unstructured};
use flowstone::{
    blob::{BlobError, BlobStore, Digest},
    capability::{Reach, context::Context, log::Log},
    engine::{Attempt, Component, DescribeFailure, Engine, EngineSettings, Verdict},
    limit::{DESCRIBE_TIMEOUT, INSPECTION_ITEMS_MAX, INSTANTIATE_TIMEOUT, MESSAGE_BYTES_MAX},
    pipeline::policy::Limits,
};
use guest_wit_parser::Resolve;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// How late an end may be, on a machine that does other things too.
const SLACK: Duration = Duration::from_secs(10);
/// Bytes of one problem: a message, what it quotes escaped, and the sentence around it.
const PROBLEM_BYTES_MAX: usize = 8 * MESSAGE_BYTES_MAX;

/// The host, as far as an upload meets it.
struct Host {
    runtime: Runtime,
    engine: Engine,
    blobs: BlobStore,
    folder: PathBuf,
}

/// In the folder for temporary files: scripts/fuzz makes one for each run.
static HOST: LazyLock<Host> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("flowstone-fuzz-{}", std::process::id()));
    let program = std::env::current_exe().expect("this program has a place");
    // The real command, which cargo puts beside this program.
    let compiler = program.with_file_name("flowstone");
    assert!(compiler.exists(), "{} is missing: cargo build", compiler.display());
    let engine = Engine::new(EngineSettings { compiler, cache: folder.join("compiled"), guests: 2 });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    Host {
        runtime: runtime.expect("there are threads"),
        engine: engine.expect("the engine starts"),
        blobs: BlobStore::open(&folder.join("blobs")).expect("the folder is ours"),
        folder,
    }
});

/// A component that does nothing and succeeds: what wasm-smith makes is put into it.
static ENVELOPE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32) (i32.const 16))
        (func (export "flowstone:asset/materializer@0.1.0#materialize") (param i32 i32) (result i32) (i32.const 16))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))"#;
    let mut module = wat::parse_str(text).expect("it is sound");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit")).expect("the contract is sound");
    let world = resolve.select_world(&[package], Some("asset")).expect("it has that world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world fits the module");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("the module names its world");
    encoder.encode().expect("the module exports what the world does")
});

/// The components of the examples, as scripts/build-examples leaves them; at least the one above.
static REAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut found = vec![ENVELOPE.clone()];
    for (folder, name) in [("hello", "hello"), ("hostile", "table"), ("hostile", "garbage"), ("hostile", "hostile")] {
        let path = format!("examples/{folder}/target/wasm32-wasip2/release/{name}.wasm");
        found.extend(std::fs::read(root().join(path)));
    }
    found
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first byte says what is made of the others.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut source = Unstructured::new(rest);
    let bytes = match kind % 4 {
        0 => Ok(rest.to_vec()),
        1 => with_module(&mut source),
        2 => component(&mut source),
        _ => damaged(&mut source),
    };
    // Too few bytes for what they should become.
    let Ok(bytes) = bytes else { return };
    let host = &*HOST;
    match host.engine.inspect(&bytes) {
        Err(problems) => {
            assert!((1..=INSPECTION_ITEMS_MAX + 1).contains(&problems.len()), "{} problems", problems.len());
            for problem in &problems {
                assert!(problem.0.len() <= PROBLEM_BYTES_MAX, "{} bytes are no sentence", problem.0.len());
                assert!(!problem.0.chars().any(char::is_control), "{problem} could steer a terminal");
            }
        }
        Ok(inspection) => {
            assert_eq!((inspection.digest, inspection.size), (Digest::of(&bytes), bytes.len() as u64));
            host.runtime.block_on(accepted(host, bytes));
        }
    }
}

const TENANT: &str = "default";

async fn accepted(host: &Host, bytes: Vec<u8>) {
    let digest = Digest::of(&bytes);
    let loaded = host.engine.load(TENANT, digest, || async { Ok::<_, BlobError>(bytes) }).await;
    // It stays mapped; the disk is not to fill up with what is never asked for again.
    for engine in std::fs::read_dir(host.folder.join("compiled")).expect("it is there").flatten() {
        drop(std::fs::remove_dir_all(engine.path().join(TENANT).join(digest.to_string())));
    }
    let component = loaded.unwrap_or_else(|error| panic!("it was accepted and is refused: {error}"));

    let began = Instant::now();
    let described = host.engine.describe(&component).await;
    assert!(began.elapsed() < DESCRIBE_TIMEOUT + SLACK, "`describe` took {:?}", began.elapsed());
    let asset = match described {
        Ok(assets) => assets.into_iter().next().map(|asset| asset.name),
        Err(DescribeFailure::Host(error)) => panic!("`describe` is the host's fault: {error}"),
        Err(_) => None,
    };
    attempt(host, component, asset.unwrap_or_default()).await;
}

async fn attempt(host: &Host, component: std::sync::Arc<Component>, asset: String) {
    let limits = Limits {
        fuel: 20_000_000,
        memory_bytes: 32 << 20,
        timeout_ms: 1_000,
        output_bytes: 1 << 20,
        log_bytes: 4 << 10,
    };
    let attempt = Attempt {
        component,
        context: Context { run_id: "run".into(), asset, attempt: 1, ..Context::default() },
        inputs: vec![],
        reach: Reach::default(),
        limits: limits.clone(),
        media_type: "text/plain".into(),
        log: Log::default(),
        seed: [7; 32],
        tenant: TENANT.into(),
        blobs: host.blobs.clone(),
    };
    let began = Instant::now();
    let report = host.engine.run(attempt, CancellationToken::new()).await;
    let most = INSTANTIATE_TIMEOUT.min(Duration::from_millis(limits.timeout_ms)) + SLACK;
    assert!(began.elapsed() < most, "an attempt took {:?}", began.elapsed());
    assert!(!matches!(report.verdict, Verdict::HostFault(_)), "{:?}", report.verdict);
    assert!(report.memory_bytes_peak <= limits.memory_bytes, "{} bytes of memory", report.memory_bytes_peak);
    assert!(report.fuel_used <= limits.fuel, "{} units of fuel", report.fuel_used);
    let told = report.explanation.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'));
    assert!(told, "{:?} could steer a terminal", report.explanation);
}

/// A core module that wasm-smith made up, within a component that has all that is asked of one; instantiated, so that
/// its start function and its segments run, where it imports nothing.
fn with_module(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let is_instantiated = source.arbitrary()?;
    let mut config = wasm_smith::Config::arbitrary(source)?;
    if is_instantiated {
        config.max_imports = 0;
        config.min_imports = 0;
    }
    let module = wasm_smith::Module::new(config, source)?.to_bytes();
    let mut bytes = ENVELOPE.clone();
    let modules = sections(&bytes).filter(|(id, _)| *id == CORE_MODULE).count();
    push_section(&mut bytes, CORE_MODULE, &module);
    if is_instantiated {
        // One instance, of the module of this index, without arguments.
        push_section(&mut bytes, CORE_INSTANCE, &[1, 0, modules as u8, 0]);
    }
    Ok(bytes)
}

/// A component that wasm-smith made up.
fn component(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let config = wasm_smith::Config::arbitrary(source)?;
    Ok(wasm_smith::Component::new(config, source)?.to_bytes())
}

/// A real component with sections missing, repeated or moved, and bytes changed.
fn damaged(source: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let whole = source.choose(REAL.as_slice())?;
    let mut parts: Vec<(u8, &[u8])> = sections(whole).collect();
    for _ in 0..source.int_in_range(0..=2)? {
        let (one, other) = (source.choose_index(parts.len())?, source.choose_index(parts.len())?);
        match source.int_in_range(0..=2)? {
            0 => {
                parts.remove(one);
            }
            1 => parts.insert(other, parts[one]),
            _ => parts.swap(one, other),
        }
    }
    let mut bytes = whole[..HEADER_BYTES].to_vec();
    for (id, body) in parts {
        push_section(&mut bytes, id, body);
    }
    for _ in 0..source.int_in_range(0..=4)? {
        let at = source.choose_index(bytes.len())?;
        match source.int_in_range(0..=3)? {
            0 => bytes.truncate(at + 1),
            1 => bytes[at] ^= 1 << source.int_in_range(0..=7)?,
            _ => bytes[at] = source.arbitrary()?,
        }
    }
    Ok(bytes)
}

/// Of a component's preamble.
const HEADER_BYTES: usize = 8;
const CORE_MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;

/// The outermost sections of a component that is sound: their kinds and what is in them.
fn sections(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = &bytes[HEADER_BYTES..];
    std::iter::from_fn(move || {
        let (id, mut after) = rest.split_first()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let (byte, next) = after.split_first()?;
            after = next;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (body, next) = after.split_at_checked(length)?;
        rest = next;
        Some((*id, body))
    })
}

fn push_section(bytes: &mut Vec<u8>, id: u8, body: &[u8]) {
    bytes.push(id);
    let mut length = body.len();
    loop {
        let more = length > 0x7f;
        bytes.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
}
