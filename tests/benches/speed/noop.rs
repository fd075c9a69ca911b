//! An attempt that does nothing: the price of a fresh sandbox.

use std::time::Instant;

use flowstone::pipeline::policy::Limits;

use crate::{
    guests::Guests,
    table::{Row, percentile},
    watched::spawn,
};

const ROUNDS: usize = 7;
const ATTEMPTS: usize = 2_000;
const SPAWNS: usize = 200;
const MICROS: f64 = 1e6;

/// Store, instance, call and drop of a component that is in memory, beside the start of a process that does nothing.
pub fn measure() -> Vec<Row> {
    let guests = Guests::new();
    let (mut p50, mut p99, mut spawned) = (Vec::new(), Vec::new(), Vec::new());
    time_attempts(&guests);
    for _ in 0..ROUNDS {
        let times = time_attempts(&guests);
        p50.push(percentile(&times, 50));
        p99.push(percentile(&times, 99));
        let times: Vec<f64> = (0..SPAWNS).map(|_| spawn("/bin/true", &[]).as_secs_f64() * MICROS).collect();
        spawned.push(percentile(&times, 50));
    }
    vec![
        Row::new("no-op attempt, p50", "us", p50).against("spawn of true, p50", spawned).at_most(60.0),
        Row::new("no-op attempt, p99", "us", p99),
    ]
}

fn time_attempts(guests: &Guests) -> Vec<f64> {
    let time = |_| {
        let attempt = guests.attempt("noop", Limits::default());
        let started = Instant::now();
        let report = guests.run(attempt);
        let took = started.elapsed().as_secs_f64() * MICROS;
        drop(report);
        took
    };
    (0..ATTEMPTS).map(time).collect()
}
