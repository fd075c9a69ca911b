//! Guests written as text, and an engine to run them: what the sandbox tests share.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use flowstone::{
    blob::{BlobError, BlobStore, Digest},
    capability::{Reach, context::Context, log::Log},
    engine::{Attempt, BASELINE, Component, Engine, EngineSettings, Report},
    pipeline::policy::Limits,
};
use guest_wit_parser::{Resolve, WorldId};
use tokio_util::sync::CancellationToken;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Where the result of `materialize` is: all zero means `ok(done)`.
pub const RESULT: u32 = 1024;
/// Where host functions put what they return.
pub const RETURNED: u32 = 2048;

/// `cabi_realloc`: what it gives out begins at the global `$heap`, and is never taken back.
pub const REALLOC: &str = r#"(func $realloc (export "cabi_realloc")
  (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
  (global.set $heap (i32.add (local.get $at) (local.get $size)))
  (block $enough
    (br_if $enough (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
    (br_if $enough (i32.ne (i32.const -1)
      (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16))))))
    unreachable)
  (local.get $at))"#;

/// A component of one core module, for the world of this package and all of the WASI baseline.
pub struct Guest {
    imports: Vec<(&'static str, &'static str, &'static str)>,
    describe: String,
    materialize: String,
    module: String,
    memory: String,
}

impl Guest {
    /// A guest whose `materialize` is this code. It returns `ok(done)` unless the code writes something else to
    /// [`RESULT`], or does not come to its end. `$asset` and `$asset_len` are its parameter; `$a` to `$d` are spare.
    pub fn new(materialize: &str) -> Self {
        Self {
            imports: vec![],
            describe: format!("(i32.const {RETURNED})"),
            materialize: materialize.into(),
            module: String::new(),
            memory: "(memory (export \"memory\") 2)".into(),
        }
    }

    /// Imports a function of an interface of ours or of WASI as `$name`, with these core parameters and results.
    pub fn import(mut self, interface: &'static str, function: &'static str, core: &'static str) -> Self {
        self.imports.push((interface, function, core));
        self
    }

    /// Replaces the body of `describe`, which returns no assets otherwise.
    pub fn describe(mut self, body: &str) -> Self {
        self.describe = body.into();
        self
    }

    /// Adds text to the module: functions, tables, data, a start function.
    pub fn module(mut self, text: &str) -> Self {
        self.module.push_str(text);
        self
    }

    /// Replaces the memory.
    pub fn memory(mut self, text: &str) -> Self {
        self.memory = text.into();
        self
    }

    fn text(&self) -> String {
        let imports: String = self
            .imports
            .iter()
            .map(|(interface, function, core)| {
                let name = function.rsplit(['.', ']']).next().unwrap();
                format!("(import \"{}\" \"{function}\" (func ${name} {core}))\n", versioned(interface))
            })
            .collect();
        let Self { describe, materialize, module, memory, .. } = self;
        format!(
            r#"(module
            {imports}
            {memory}
            (global $heap (mut i32) (i32.const 65536))
            {REALLOC}
            (func $fail (param $text i32) (param $length i32)
              (i32.store8 (i32.const {RESULT}) (i32.const 1))
              (i32.store8 (i32.const {failure}) (i32.const 1))
              (i32.store (i32.const {text}) (local.get $text))
              (i32.store (i32.const {length}) (local.get $length)))
            (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32)
              (local $a i32) (local $b i32)
              {describe})
            (func (export "flowstone:asset/materializer@0.1.0#materialize") (param $asset i32) (param $asset_len i32)
              (result i32)
              (local $a i32) (local $b i32) (local $c i64) (local $d i64)
              {materialize}
              (i32.const {RESULT}))
            {module})"#,
            failure = RESULT + 8,
            text = RESULT + 16,
            length = RESULT + 20,
        )
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        component(&self.text())
    }
}

/// The component of a core module that is written for the world of these tests.
pub fn component(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let (resolve, world) = &*WORLD;
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn versioned(interface: &str) -> String {
    let version = if interface.starts_with("wasi:") { WASI } else { "0.1.0" };
    format!("{interface}@{version}")
}

/// The version of WASI that is vendored in `wit/deps`.
pub const WASI: &str = "0.2.12";

/// Everything that the host links: a component imports of it what its module does.
pub static WORLD: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    let wasi: String = BASELINE.iter().map(|interface| format!("import {interface}@{WASI};\n")).collect();
    let text = format!("package test:guest;\nworld guest {{ include flowstone:asset/everything@0.1.0;\n{wasi} }}");
    let package = resolve.push_str("guest.wit", &text).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    (resolve, world)
});

/// An engine with its own folders, and this crate's binary as its compiler.
pub struct Host {
    pub engine: Engine,
    pub blobs: BlobStore,
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(settings(folder.path().join("compiled"))).unwrap();
        let blobs = BlobStore::open(&folder.path().join("blobs")).unwrap();
        Self { engine, blobs, folder }
    }

    pub async fn load(&self, guest: &Guest) -> Arc<Component> {
        self.load_bytes(guest.build()).await
    }

    /// Of a component that was built otherwise.
    pub async fn load_bytes(&self, bytes: Vec<u8>) -> Arc<Component> {
        if let Err(problems) = self.engine.inspect(&bytes) {
            panic!("{problems:#?}");
        }
        load(&self.engine, bytes).await
    }

    /// An attempt with default limits, without inputs and grants.
    pub async fn attempt(&self, guest: &Guest) -> Attempt {
        self.attempt_of(self.load(guest).await)
    }

    /// The same, of a component that was loaded.
    pub fn attempt_of(&self, component: Arc<Component>) -> Attempt {
        Attempt {
            component,
            context: Context { run_id: "run".into(), asset: "thing".into(), attempt: 1, ..Context::default() },
            inputs: vec![],
            reach: Reach::default(),
            limits: Limits { fuel: 100_000_000, timeout_ms: 20_000, ..Limits::default() },
            media_type: "text/plain".into(),
            log: Log::default(),
            seed: [7; 32],
            tenant: "default".into(),
            blobs: self.blobs.clone(),
        }
    }

    pub async fn run(&self, attempt: Attempt) -> Report {
        let finished = self.engine.run(attempt, CancellationToken::new());
        tokio::time::timeout(Duration::from_secs(60), finished).await.expect("an attempt ends by itself")
    }

    /// Runs a guest with default limits.
    pub async fn run_guest(&self, guest: &Guest) -> Report {
        self.run(self.attempt(guest).await).await
    }
}

pub fn settings(cache: PathBuf) -> EngineSettings {
    EngineSettings { compiler: env!("CARGO_BIN_EXE_flowstone").into(), cache, guests: 4 }
}

pub async fn load(engine: &Engine, bytes: Vec<u8>) -> Arc<Component> {
    engine.load("default", Digest::of(&bytes), || async { Ok::<_, BlobError>(bytes) }).await.unwrap()
}

/// The verdict's word.
pub fn word(report: &Report) -> &'static str {
    report.verdict.as_str()
}
