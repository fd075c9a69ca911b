//! Assets that use a directory as their configuration says, step by step, and say how each step ended.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _};
use std::time::SystemTime;
use std::{fs, io};

use flowstone_sdk::prelude::*;
use serde::Deserialize;

/// What is tried at one path.
#[derive(Deserialize)]
struct Step {
    /// `read`, `stat`, `append`, `remove` or `entries`; of the file system also others.
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
    take_steps(ctx)
}

/// The same beside it.
#[asset(requires(vault = files("takes the steps of its configuration")))]
fn tries_too(ctx: &Context) -> Result<Json<Vec<String>>> {
    take_steps(ctx)
}

fn take_steps(ctx: &Context) -> Result<Json<Vec<String>>> {
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

/// The same steps with the standard library, below the mount `/data`: `read`, `stat`, `entries`, and whatever would change
/// something.
#[asset(requires(vault = files("reads through the file system")))]
fn opens(ctx: &Context) -> Result<Json<Vec<String>>> {
    let Steps { steps } = ctx.config()?;
    let ended = steps.iter().map(|Step { op, path, times, text }| {
        let path = path.replace('\u{2400}', "\0").repeat(*times);
        match attempt(op, &path, text) {
            Ok(text) => format!("ok {text}"),
            Err(error) => format!("{:?}", error.kind()),
        }
    });
    Ok(Json(ended.collect()))
}

fn attempt(op: &str, path: &str, text: &str) -> io::Result<String> {
    let done = |()| String::new();
    match op {
        "read" => fs::read_to_string(path),
        // From an offset, by a handle.
        "seek" => {
            let mut file = fs::File::open(path)?;
            file.seek(io::SeekFrom::Start(2))?;
            let mut rest = String::new();
            file.read_to_string(&mut rest)?;
            Ok(rest)
        }
        "stat" => {
            let found = fs::metadata(path)?;
            Ok(if found.is_dir() { "a folder".into() } else { format!("{} bytes", found.len()) })
        }
        "entries" => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let kind = if entry.file_type()?.is_dir() { "/" } else { "" };
                names.push(format!("{}{kind}", entry.file_name().to_string_lossy()));
            }
            Ok(names.join(" "))
        }
        "create" => fs::write(path, text).map(done),
        "open-to-write" => fs::File::options().write(true).open(path).map(|_| String::new()),
        "append" => fs::File::options().append(true).open(path).map(|_| String::new()),
        "truncate" => fs::File::open(path)?.set_len(0).map(done),
        "remove" => fs::remove_file(path).map(done),
        "remove-folder" => fs::remove_dir(path).map(done),
        "folder" => fs::create_dir(path).map(done),
        "rename" => fs::rename(path, text).map(done),
        "hard-link" => fs::hard_link(path, text).map(done),
        "times" => fs::File::open(path)?.set_modified(SystemTime::UNIX_EPOCH).map(done),
        "hoard" => {
            let mut open = Vec::new();
            loop {
                match fs::File::open(path) {
                    Ok(file) => open.push(file),
                    Err(error) => return Ok(format!("{} and {:?}", open.len(), error.kind())),
                }
            }
        }
        other => Err(io::Error::other(other.to_owned())),
    }
}

/// Reads the same file over and over with the standard library; the output is everything different that it saw.
#[asset(requires(vault = files("reads the same file over and over")))]
fn races_mounted() -> Result<Json<BTreeSet<String>>> {
    let mut seen = BTreeSet::new();
    for _ in 0..3_000 {
        seen.insert(fs::read_to_string("/data/below/secret.csv").unwrap_or_else(|error| format!("{:?}", error.kind())));
        let found = fs::metadata("/data/below/secret.csv").map(|found| format!("{} bytes", found.len()));
        seen.insert(found.unwrap_or_else(|error| format!("{:?}", error.kind())));
    }
    // Of an attempt that is dropped because the directory changed, the log stays.
    log::info!("saw {seen:?}");
    Ok(Json(seen))
}

/// Looks for a file system without a grant of one: how the root, the present folder and a usual file are found.
#[asset]
fn looks_around() -> Result<Json<Vec<String>>> {
    let found = ["/", ".", "/data", "/data/a.csv", "/etc/passwd", "/tmp"].map(|path| match fs::metadata(path) {
        Ok(_) => format!("{path} is there"),
        Err(error) => format!("{path} {:?}", error.kind()),
    });
    Ok(Json(found.into()))
}
