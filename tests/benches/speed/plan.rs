//! A plan of a hundred thousand partitions, when nothing was ever made and when everything is up to date.

use crate::{
    guests::Deployed,
    table::Row,
    watched::{Watched, watch},
};

const ROUNDS: usize = 7;
const MEGABYTE: f64 = 1e6;

/// `flowstone plan` of 1,000 assets with 100 partitions each, by name, beside one of an asset with one partition.
pub fn measure() -> Vec<Row> {
    let small = Deployed::new("bench");
    let large = Deployed::new("layers");
    let one: Vec<Watched> = (0..ROUNDS).map(|_| plan(&small, &["noop"])).collect();
    let mut rows = rows("first plan of 100,000", &one, &(0..ROUNDS).map(|_| plan(&large, &[])).collect::<Vec<_>>());
    eprintln!("100,000 jobs are made, so that they are up to date");
    let made = watch(large.command("run", &["--json"]), |_, _, _| {});
    eprintln!("they took {:.0} s, and at most {:.0} MB", made.took.as_secs_f64(), made.peak_bytes / MEGABYTE);
    rows.extend(self::rows("plan when up to date", &one, &(0..ROUNDS).map(|_| plan(&large, &[])).collect::<Vec<_>>()));
    rows
}

fn plan(deployed: &Deployed, assets: &[&str]) -> Watched {
    watch(deployed.command("plan", assets), |_, _, _| {})
}

fn rows(what: &str, one: &[Watched], all: &[Watched]) -> Vec<Row> {
    let seconds = |watched: &[Watched]| watched.iter().map(|watched| watched.took.as_secs_f64()).collect();
    let megabytes = |watched: &[Watched]| watched.iter().map(|watched| watched.peak_bytes / MEGABYTE).collect();
    vec![
        Row::new(what, "s", seconds(all)).against("plan of 1 partition", seconds(one)).at_most(1.0),
        Row::new(format!("{what}, peak"), "MB", megabytes(all))
            .against("plan of 1 partition", megabytes(one))
            .at_most(300.0),
    ]
}
