//! Assets that use a directory as their configuration says, step by step, and say how each step ended.

use std::collections::BTreeSet;

use flowstone_sdk::prelude::*;
use serde::Deserialize;

/// What is tried at one path.
#[derive(Deserialize)]
struct Step {
    /// `read`, `stat`, `append`, `remove` or `entries`.
    op: String,
    /// U+2400 stands for a NUL, which no configuration holds.
    #[serde(default)]
    path: String,
    /// How often the path is written after itself: a name of any length from a short configuration.
    #[serde(default = "once")]
    times: usize,
    /// What is appended.
    #[serde(default)]
    text: String,
}

fn once() -> usize {
    1
}

#[derive(Deserialize)]
struct Steps {
    steps: Vec<Step>,
}

/// Takes the steps of its configuration; the output is how each of them ended.
#[asset(requires(vault = files("takes the steps of its configuration")))]
fn tries(ctx: &Context) -> Result<Json<Vec<String>>> {
    let vault = ctx.directory("vault")?;
    let Steps { steps } = ctx.config()?;
    let ended = steps.iter().map(|Step { op, path, times, text }| {
        let path = path.replace('\u{2400}', "\0").repeat(*times);
        let result = match &**op {
            "read" => vault.text(&path),
            "stat" => vault.stat(&path).map(|entry| entry.size.to_string()),
            "append" => vault.append(&path, text).map(|()| String::new()),
            "remove" => vault.remove(&path).map(|()| String::new()),
            "entries" => {
                let paths = vault.entries().map(|entry| entry.map(|entry| entry.path));
                paths.collect::<Result<Vec<_>>>().map(|paths| paths.join(" "))
            }
            other => Err(Error::permanent(format!("`{other}` is no step"))),
        };
        match result {
            Ok(text) => format!("ok {text}"),
            Err(error) => last_words(&error.to_string()),
        }
    });
    Ok(Json(ended.collect()))
}

/// The host's own word of an error: names may be long.
fn last_words(error: &str) -> String {
    error.rsplit_once("`: ").map_or(error, |(_, words)| words).to_owned()
}

/// Reads, looks at, lists and writes the same few paths over and over; the output is everything different that it saw.
#[asset(requires(vault = files("reads the same files over and over")))]
fn races(ctx: &Context) -> Result<Json<BTreeSet<String>>> {
    let vault = ctx.directory("vault")?;
    let mut seen = BTreeSet::new();
    for turn in 0..3_000 {
        seen.insert(match vault.text("below/secret.csv") {
            Ok(text) => text,
            Err(error) => last_words(&error.to_string()),
        });
        seen.insert(match vault.stat("below/secret.csv") {
            Ok(entry) => format!("{} bytes", entry.size),
            Err(error) => last_words(&error.to_string()),
        });
        // Refused while the folder is something else; goes on all the same.
        let _refused = vault.append("below/written.csv", if turn == 0 { "x" } else { "" });
    }
    Ok(Json(seen))
}
