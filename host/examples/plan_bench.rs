//! Times a plan of 1,000 assets in ten layers with 100 partitions each: the first one, where everything runs, and a
//! second one, where everything is up to date. Prints medians with spread, and the peak memory. It asserts nothing
//! about time.
//!
//! `cargo run --release --example plan_bench`

use std::{hint::black_box, time::Instant};

use flowstone::{
    blob::Digest,
    id::MaterializationId,
    pipeline::{
        asset::{AssetDefinition, AssetKind, Dimension, DimensionKeys, Input, Mapping, TimeKeys, TimeUnit},
        plan::{Force, InputSource, Known, Latest, Plan, Request, key_spaces, plan},
        policy::{Limits, RetryPolicy},
        recipe::{InputVersion, RecipeParts, config_digest, input_digest, reach_digest, sources_digest},
        selection::resolve_selection,
        validate::BoundAsset,
    },
};
use jiff::Timestamp;

const LAYERS: usize = 10;
const WIDTH: usize = 100;
const RUNS: usize = 9;

fn main() {
    let assets = layered();
    let mut latest = Latest::new(assets.len());
    let first = report("first plan", &assets, &latest);
    carry_out(&assets, &first, &mut latest);
    drop(first);
    let second = report("second plan", &assets, &latest);
    assert!(second.jobs.is_empty(), "everything is up to date");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("peak memory: {}", peak.trim());
}

fn report(name: &str, assets: &[BoundAsset], latest: &Latest) -> Plan {
    let mut times = Vec::new();
    let mut made = None;
    for _ in 0..RUNS {
        drop(made.take());
        let started = Instant::now();
        made = Some(black_box(make_plan(assets, latest)));
        times.push(started.elapsed());
    }
    times.sort();
    let made = made.expect("it ran at least once");
    let inputs: usize = made.jobs.iter().map(|job| job.inputs.len()).sum();
    println!(
        "{name}: {:?} median ({:?} to {:?}), {} jobs, {inputs} inputs, {} up to date",
        times[RUNS / 2],
        times[0],
        times[RUNS - 1],
        made.jobs.len(),
        made.up_to_date.iter().sum::<u32>()
    );
    made
}

fn make_plan(assets: &[BoundAsset], latest: &Latest) -> Plan {
    let now = Timestamp::UNIX_EPOCH;
    let spaces = key_spaces(assets, now).expect("the dimensions are sound");
    let selection = resolve_selection(assets, &spaces, &[], &[]).expect("everything can be selected");
    let request = Request {
        assets,
        spaces: &spaces,
        selection: &selection,
        with_inputs: true,
        force: Force::No,
        now,
        latest,
        sources: &[],
    };
    plan(&request).expect("the assets are sound")
}

/// Records what running the plan would have recorded.
fn carry_out(assets: &[BoundAsset], plan: &Plan, latest: &mut Latest) {
    let mut outputs: Vec<Digest> = Vec::with_capacity(plan.jobs.len());
    for job in &plan.jobs {
        let bound = &assets[job.asset];
        let inputs = bound.definition.inputs.iter().map(|input| {
            let rows = job.inputs.iter().filter(|row| *row.name == *input.name);
            let versions = rows.filter_map(|row| match row.from {
                InputSource::Upstream(upstream) => {
                    let output = outputs[upstream];
                    Some(InputVersion { asset: &input.asset, partition: &plan.jobs[upstream].partition, seen: output })
                }
                InputSource::Pinned(_) | InputSource::Absent => None,
            });
            input_digest(&input.name, versions, 0)
        });
        let parts = RecipeParts {
            component: bound.component,
            config: config_digest(&bound.config),
            grants: reach_digest(&bound.grants),
            sources: sources_digest(&[]),
            inputs: inputs.collect(),
        };
        let digest = parts.recipe(&bound.definition.name, &job.partition);
        outputs.push(digest);
        let known = Known { materialization: MaterializationId::new(), digest, parts, made_at_ms: 0 };
        latest.insert(job.asset, job.partition.clone(), known);
    }
}

fn layered() -> Vec<BoundAsset> {
    let name = |layer: usize, i: usize| format!("asset_{layer}_{}", i % WIDTH);
    let layer = |layer: usize| {
        (0..WIDTH).map(move |i| {
            let inputs: Vec<String> = match layer {
                0 => Vec::new(),
                _ => (0..3).map(|k| name(layer - 1, i + k)).collect(),
            };
            asset(name(layer, i), inputs)
        })
    };
    (0..LAYERS).flat_map(layer).collect()
}

fn asset(name: String, inputs: Vec<String>) -> BoundAsset {
    let input = |asset: String| Input { name: asset.clone(), asset, optional: false, mapping: Mapping::Same };
    // A hundred days.
    let keys = TimeKeys {
        unit: TimeUnit::Day,
        from: "2024-01-01".into(),
        to: Some("2024-04-09".into()),
        time_zone: "UTC".into(),
    };
    let definition = AssetDefinition {
        name,
        description: String::new(),
        kind: AssetKind::Plain,
        inputs: inputs.into_iter().map(input).collect(),
        dimensions: vec![Dimension { name: "day".into(), keys: DimensionKeys::Time(keys) }],
        requirements: vec![],
        media_type: "application/octet-stream".into(),
        checks: vec![],
        tags: vec![],
        parameters: vec![],
    };
    BoundAsset {
        route: Default::default(),
        concurrency: Default::default(),
        definition,
        component: Digest::of(b"component"),
        grants: vec![],
        config: serde_json::Map::new(),
        config_digest: config_digest(&serde_json::Map::new()),
        grants_digest: reach_digest(&[]),
        limits: Limits::default(),
        retry: RetryPolicy::default(),
        fresh_for_ms: None,
        pure: true,
    }
}
