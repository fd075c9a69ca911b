//! Pipelines for tests: a manifest of the test's own around components that are built before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Flowstone, Output};

/// The component of `tests/guests/<name>`.
pub fn guest(name: &str) -> PathBuf {
    component(&format!("tests/guests/{name}"), &format!("{}_guests", name.replace('-', "_")))
}

/// The component of `examples/<name>`.
pub fn example(name: &str) -> PathBuf {
    component(&format!("examples/{name}"), name)
}

/// The folder of the whole project.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("this crate is in it")
}

fn component(folder: &str, name: &str) -> PathBuf {
    let path = root().join(folder).join(format!("target/wasm32-wasip2/release/{name}.wasm"));
    path.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run scripts/build-examples", path.display()))
}

/// A command with the assets of `tests/guests/scenarios` bound by a manifest.
#[derive(Debug)]
pub struct Scenario {
    /// Runs the commands.
    pub flowstone: Flowstone,
    manifest: PathBuf,
}

impl Scenario {
    /// With a database of its own, directories `counter` and `shelf` and a bucket `tally` granted; `more` follows in the manifest.
    pub fn new(more: &str) -> Self {
        Self::with(Flowstone::new(), more)
    }

    /// The same, with commands that were made before.
    pub fn with(flowstone: Flowstone, more: &str) -> Self {
        let folder = flowstone.folder().join("pipeline");
        for name in ["counter", "shelf"] {
            fs::create_dir_all(folder.join(name)).expect("the folder is the test's own");
        }
        let scenario = Self { flowstone, manifest: folder.join("flowstone.toml") };
        scenario.bind(more);
        scenario
    }

    /// Writes the manifest anew.
    pub fn bind(&self, more: &str) {
        let component = guest("scenarios");
        let text = format!(
            r#"[pipeline]
name = "scenarios"
[[components]]
path = "{}"
[resources.counter]
kind = "directory"
path = "counter"
access = "read-write"
[resources.shelf]
kind = "directory"
path = "shelf"
access = "read"
[resources.tally]
kind = "key-value"
[assets.tallies]
grants = {{ tally = {{ access = "read-write", keys = ["made", "temporary"] }} }}
fresh_for = "1h"
[assets.after_tallies]
grants = {{ tally = {{ access = "read-write", keys = ["**"] }} }}
fresh_for = "1h"
[assets.unique]
grants = {{ counter = {{ access = "read-write", paths = ["count"] }} }}
fresh_for = "1h"
[assets.writes]
grants = {{ counter = {{ access = "read-write", paths = ["**"] }} }}
fresh_for = "1h"
[assets.listing]
grants = {{ shelf = {{ access = "read", paths = ["*.txt"] }} }}
[assets.waits]
grants = {{ counter = {{ access = "read-write", paths = ["go"] }} }}
limits = {{ fuel = "100000G" }}
fresh_for = "1h"
[assets.narrates]
grants = {{ counter = {{ access = "read-write", paths = ["go"] }} }}
limits = {{ fuel = "100000G" }}
fresh_for = "1h"
[assets.reads_for_long]
grants = {{ shelf = {{ access = "read", paths = ["*.txt"] }}, counter = {{ access = "read-write", paths = ["go"] }} }}
limits = {{ fuel = "100000G" }}
[assets.echo]
grants = {{ shelf = {{ access = "read", paths = ["*.txt"] }} }}
[assets.flaky]
retry = {{ max_attempts = 5, backoff = "constant", base = "10ms", cap = "10ms", jitter = false }}
{more}
"#,
            component.display()
        );
        fs::write(&self.manifest, text).expect("the folder is the test's own");
    }

    /// Lets the assets that wait go on, with this as the word.
    pub fn go(&self, word: &str) {
        fs::write(self.folder().join("counter/go"), word).expect("the folder is the test's own");
    }

    /// The folder of the manifest.
    pub fn folder(&self) -> &Path {
        self.manifest.parent().expect("the manifest is in a folder")
    }

    /// The manifest, as an argument.
    pub fn manifest(&self) -> &str {
        self.manifest.to_str().expect("temporary folders have plain names")
    }

    /// `flowstone COMMAND MANIFEST ARGUMENTS...`.
    pub fn command(&self, command: &str, arguments: &[&str]) -> Output {
        let all = [&[command, self.manifest()], arguments].concat();
        self.flowstone.run(all)
    }

    /// `flowstone run MANIFEST ARGUMENTS... --json`, which must end with this status: its events.
    #[track_caller]
    pub fn run(&self, arguments: &[&str], status: i32) -> Vec<serde_json::Value> {
        let output = self.command("run", &[arguments, &["--json"]].concat()).expect_status(status);
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }

    /// The output of an asset's partition, as text.
    #[track_caller]
    pub fn show(&self, asset: &str, partition: Option<&str>) -> String {
        let mut arguments = vec!["show", "scenarios", asset];
        arguments.extend(partition.iter().flat_map(|key| ["--partition", *key]));
        self.flowstone.run(arguments).expect_status(0).stdout
    }
}

/// The ended jobs of some events: `asset` or `asset[partition]`, state, and whether it was reused; sorted.
pub fn ended(events: &[serde_json::Value]) -> Vec<String> {
    let mut ended: Vec<String> = events
        .iter()
        .filter(|event| event["event"] == "job.ended")
        .map(|event| {
            let asset = event["asset"].as_str().expect("an event names its asset");
            let partition = event["partition"].as_str().map(|key| format!("[{key}]")).unwrap_or_default();
            let state = event["state"].as_str().expect("an event has a state");
            let reused = if event["reused"] == true { ", reused" } else { "" };
            format!("{asset}{partition} {state}{reused}")
        })
        .collect();
    ended.sort();
    ended
}
