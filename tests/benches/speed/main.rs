//! What FlowStone promises about speed, measured on the machine it runs on, beside a yardstick of the same machine and
//! minute. `docs/benchmarks.md` says what each figure means.
//!
//! It asserts nothing about time: machines differ, and a busy one is not wrong. A target that is missed is marked.

mod bytes;
mod capabilities;
mod components;
mod cpu;
mod guests;
mod jobs;
mod noop;
mod plan;
mod start;
mod table;
mod watched;

use std::{fs, process::ExitCode, thread};

use table::{Row, render};

/// One group of figures.
struct Bench {
    name: &'static str,
    measure: fn() -> Vec<Row>,
}

const BENCHES: [Bench; 8] = [
    Bench { name: "noop", measure: noop::measure },
    Bench { name: "start", measure: start::measure },
    Bench { name: "components", measure: components::measure },
    Bench { name: "jobs", measure: jobs::measure },
    Bench { name: "plan", measure: plan::measure },
    Bench { name: "bytes", measure: bytes::measure },
    Bench { name: "capabilities", measure: capabilities::measure },
    Bench { name: "cpu", measure: cpu::measure },
];

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|name| BENCHES.iter().all(|bench| bench.name != **name)) {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        eprintln!("error: there is no bench `{unknown}`; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut rows = Vec::new();
    for bench in BENCHES.iter().filter(|bench| wanted.is_empty() || wanted.iter().any(|name| name == bench.name)) {
        eprintln!("\n== {}", bench.name);
        rows.extend((bench.measure)());
    }
    println!("{}\n\n{}", machine(), render(&rows));
    ExitCode::SUCCESS
}

/// Where and when.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let name = name.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let build = if cfg!(debug_assertions) { ", NOT A RELEASE BUILD" } else { "" };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    format!("{now}, {cores} x {name}, load {load} at the end{build}")
}
