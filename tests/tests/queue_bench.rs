//! `scripts/bench queue` measures what it says: its drivers run, on few jobs and without the other queues. What it finds is
//! not judged: a machine that runs tests is busy.

use std::process::Command;

use flowstone_tests::{
    Flowstone, Output,
    pipeline::{guest, root},
};

/// By group, a figure of it.
const FIGURES: [(&str, &str); 3] = [
    ("throughput", "FlowStone, 4 workers"),
    ("latency", "submission to first instruction, p99"),
    ("chain", "a chain of 100, a step"),
];

#[test]
fn the_benchmark_of_the_queue_measures_what_it_says() {
    assert!(guest("queue").exists() && guest("waiting").exists());
    let flowstone = Flowstone::embedded();
    let program = flowstone.command([""; 0]).get_program().to_owned();
    let mut bench = Command::new("python3");
    bench.arg(root().join("tests/benches/queue")).args(FIGURES.map(|(group, _)| group));
    bench.args(["--no-peers", "--jobs", "300", "--samples", "5", "--programs"]);
    bench.arg(std::path::Path::new(&program).parent().unwrap());
    let said = Output::of(&mut bench).expect_status(0);
    for (group, figure) in FIGURES {
        let row = said.stdout.lines().find(|line| line.starts_with(figure));
        let value = row.and_then(|row| row[figure.len()..].split_whitespace().next());
        let value: Option<f64> = value.and_then(|value| value.replace(',', "").parse().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{group}: {}\n{}", said.stdout, said.stderr);
    }
}
