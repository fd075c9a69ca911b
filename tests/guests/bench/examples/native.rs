//! The kernels without a sandbox: one line for each time that one was run, `<kernel> <nanoseconds>`.
//!
//! `cargo run --release --example native ROUNDS`, with the compiler flags that turn its vectorizers off.

use std::{hint::black_box, time::Instant};

use bench_guests::kernel::KERNELS;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    for _ in 0..rounds {
        for kernel in KERNELS {
            let started = Instant::now();
            black_box((kernel.run)(black_box(kernel.size)));
            println!("{} {}", kernel.name, started.elapsed().as_nanos());
        }
    }
}
