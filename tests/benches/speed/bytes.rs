//! A gibibyte through an input and an output of one asset.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use sqlx::{Connection as _, PgConnection};

use crate::{
    guests::{Deployed, single_thread},
    table::Row,
    watched::{spawn, watch},
};

const ROUNDS: usize = 3;
const MEGABYTE: f64 = 1e6;

/// The attempt of `copy`, beside `sha256sum` and `cp` of the same file.
pub fn measure() -> Vec<Row> {
    let deployed = Deployed::new("bench");
    watch(deployed.command("run", &["make_bytes", "--json"]), |_, _, _| {});
    let (mut copied, mut peaks, mut by_tools) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let watched = watch(deployed.command("run", &["copy", "--force", "--json"]), |_, _, _| {});
        peaks.push(watched.peak_bytes / MEGABYTE);
        let (bytes, micros) = last_attempt(&deployed);
        copied.push(bytes as f64 / micros as f64);
        by_tools.push(bytes as f64 / 1e6 / hash_and_copy(&deployed));
    }
    vec![
        Row::new("1 GiB through an asset", "MB/s", copied).against("sha256sum, then cp", by_tools).ratio_at_least(0.25),
        Row::new("1 GiB through an asset, peak", "MB", peaks).at_most(200.0),
    ]
}

/// Bytes of output and microseconds of the newest attempt.
fn last_attempt(deployed: &Deployed) -> (i64, i64) {
    single_thread().block_on(async {
        let connection = PgConnection::connect_with(&deployed.database.options()).await;
        sqlx::query_as("select output_bytes, duration_us from attempt order by attempt_id desc limit 1")
            .fetch_one(&mut connection.expect("the server is up"))
            .await
            .expect("an attempt was made")
    })
}

/// Seconds that the tools take over the stored output.
fn hash_and_copy(deployed: &Deployed) -> f64 {
    let stored = largest_file(deployed.flowstone.state_dir().join("blobs"));
    let copy = deployed.flowstone.folder().join("copy");
    let (from, to) = (stored.to_str().expect("a digest is plain"), copy.to_str().expect("the folder is plain"));
    let started = Instant::now();
    let hashed = Command::new("sha256sum").arg(from).output().expect("sha256sum can be run");
    assert!(hashed.status.success(), "sha256sum ended with {}", hashed.status);
    spawn("cp", &[from, to]);
    let took = started.elapsed().as_secs_f64();
    fs::remove_file(&copy).expect("it was made");
    took
}

fn largest_file(folder: PathBuf) -> PathBuf {
    let mut folders = vec![folder];
    let mut largest = (0, PathBuf::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the blob store can be listed").flatten() {
            let kind = entry.metadata().expect("nothing is removed meanwhile");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.len() > largest.0 {
                largest = (kind.len(), entry.path());
            }
        }
    }
    largest.1
}
