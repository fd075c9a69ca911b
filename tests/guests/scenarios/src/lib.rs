//! The assets that the scenario tests run: each does one thing that a user's asset might do.

use flowstone_sdk::prelude::*;
use serde::Deserialize;

/// 1 to 5.
#[asset]
fn numbers() -> Result<Json<Vec<i64>>> {
    Ok(Json(vec![1, 2, 3, 4, 5]))
}

/// Each number, times the configured factor.
#[asset(inputs(numbers = "numbers"))]
fn doubled(ctx: &Context) -> Result<Json<Vec<i64>>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default = "two")]
        factor: i64,
    }
    fn two() -> i64 {
        2
    }
    let Config { factor } = ctx.config()?;
    let numbers: Vec<i64> = ctx.input("numbers")?.json()?;
    Ok(Json(numbers.into_iter().map(|number| number * factor).collect()))
}

/// Their sum.
#[asset(inputs(doubled = "doubled"))]
fn sum(ctx: &Context) -> Result<Json<i64>> {
    let numbers: Vec<i64> = ctx.input("doubled")?.json()?;
    Ok(Json(numbers.into_iter().sum()))
}

/// Whether the numbers are even: the same whatever the factor is, as long as it is even.
#[asset(inputs(doubled = "doubled"))]
fn parity(ctx: &Context) -> Result<Json<Vec<bool>>> {
    let numbers: Vec<i64> = ctx.input("doubled")?.json()?;
    Ok(Json(numbers.into_iter().map(|number| number % 2 == 0).collect()))
}

/// Reads what hardly ever changes.
#[asset(inputs(parity = "parity"))]
fn verdict(ctx: &Context) -> Result<Json<bool>> {
    let parity: Vec<bool> = ctx.input("parity")?.json()?;
    Ok(Json(parity.into_iter().all(|even| even)))
}

/// Fails for good.
#[asset]
fn broken() -> Result<String> {
    Err(Error::permanent("simulated failure"))
}

/// Needs what fails.
#[asset(inputs(broken = "broken"))]
fn after_broken(ctx: &Context) -> Result<Vec<u8>> {
    ctx.input("broken")?.bytes()
}

/// Can do without what fails.
#[asset(inputs(broken = optional("broken")))]
fn despite_broken(ctx: &Context) -> Result<String> {
    Ok(if ctx.optional_input("broken")?.is_none() { "missing" } else { "there" }.into())
}

/// Fails twice, and says that it may pass.
#[asset]
fn flaky(ctx: &Context) -> Result<String> {
    match ctx.attempt() {
        attempt @ 1..=2 => Err(Error::retryable(format!("attempt {attempt} is too early"))),
        attempt => Ok(format!("attempt {attempt}")),
    }
}

/// Has nothing to make.
#[asset]
fn nothing_to_make() -> Result<String> {
    skip("nothing to make today")
}

/// Makes an output of no bytes.
#[asset]
fn empty() -> Result<()> {
    Ok(())
}

/// Receives the output of no bytes.
#[asset(inputs(empty = "empty"))]
fn after_empty(ctx: &Context) -> Result<String> {
    let input = ctx.optional_input("empty")?;
    let bytes = input.as_ref().map(Input::bytes).transpose()?.map(|bytes| bytes.len());
    Ok(format!("{bytes:?} bytes"))
}

/// A different number each time it really runs: what is in the directory, and one more.
#[asset(requires(counter = files("counts its own runs in a file")))]
fn unique(ctx: &Context) -> Result<String> {
    let counter = ctx.directory("counter")?;
    let count: u64 = match counter.text("count") {
        Ok(text) => text.trim().parse()?,
        Err(error) if error.capability_error() == Some(&CapabilityError::NotFound) => 0,
        Err(error) => return Err(error),
    };
    let next = (count + 1).to_string();
    counter.append("count", &next)?;
    Ok(next)
}

/// Counts its own runs in a bucket, and leaves something there.
#[asset(requires(tally = key_value("counts its own runs")))]
fn tallies(ctx: &Context) -> Result<()> {
    let tally = ctx.bucket("tally")?;
    tally.increment("made", 1)?;
    tally.set("temporary", "here")
}

/// Takes away what the other one left, and says how often that one ran.
#[asset(inputs(tallies = "tallies"), requires(tally = key_value("takes away what was left")))]
fn after_tallies(ctx: &Context) -> Result<Json<i64>> {
    let tally = ctx.bucket("tally")?;
    tally.remove("temporary")?;
    Ok(Json(tally.count("made")?))
}

/// Writes the key of its partition into a file that all partitions share, and into one of its own beside it.
#[asset(
    partitions(key = static_keys("a", "b", "c", "d")),
    requires(counter = files("writes the configured file")),
)]
fn writes(ctx: &Context) -> Result<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default = "shared")]
        path: String,
    }
    fn shared() -> String {
        "shared".into()
    }
    let Config { path } = ctx.config()?;
    let key = ctx.partition().key("key")?.to_string();
    let counter = ctx.directory("counter")?;
    counter.append(&path, &key)?;
    counter.append(&format!("{path}.{key}"), &key)?;
    Ok(key)
}

/// The key of its partition.
#[asset(partitions(key = static_keys("p1", "p2", "value|with|pipes", "value:with;colons=%")))]
fn keyed(ctx: &Context) -> Result<String> {
    Ok(ctx.partition().key("key")?.to_string())
}

/// The key of the partition that its input has.
#[asset(
    inputs(keyed = "keyed"),
    partitions(key = static_keys("p1", "p2", "value|with|pipes", "value:with;colons=%")),
)]
fn after_keyed(ctx: &Context) -> Result<String> {
    Ok(format!("after {}", ctx.input("keyed")?.text()?))
}

/// One a day.
#[asset(partitions(date = daily("2024-01-01", "2024-01-05")))]
fn daily(ctx: &Context) -> Result<String> {
    Ok(ctx.partition().key("date")?.to_string())
}

/// Two dimensions, and a window of the days before.
#[asset(
    inputs(days = window("daily", -2, 0)),
    partitions(date = daily("2024-01-01", "2024-01-05"), region = static_keys("eu", "us")),
)]
fn trailing(ctx: &Context) -> Result<String> {
    let days: Result<Vec<String>> = ctx.inputs("days")?.iter().map(Input::text).collect();
    let partition = ctx.partition();
    Ok(format!("{} {}: {}", partition.key("date")?, partition.key("region")?, days?.join(" ")))
}

/// More than a row holds.
#[asset(media_type = "application/octet-stream")]
fn large() -> Result<Vec<u8>> {
    Ok((0..200_000_u32).flat_map(u32::to_le_bytes).collect())
}

/// Reads it all.
#[asset(inputs(large = "large"))]
fn after_large(ctx: &Context) -> Result<Json<u64>> {
    let bytes = ctx.input("large")?.bytes()?;
    Ok(Json(bytes.iter().map(|byte| u64::from(*byte)).sum()))
}

/// Never ends by itself.
#[asset]
fn spins() -> Result<String> {
    log::info!("spinning");
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
        if n == u64::MAX {
            return Ok("for ever has passed".into());
        }
    }
}

/// What it can see of the files it was granted.
#[asset(requires(shelf = files("lists what is on the shelf")))]
fn listing(ctx: &Context) -> Result<String> {
    let shelf = ctx.directory("shelf")?;
    let mut listed = String::new();
    for entry in shelf.entries() {
        let entry = entry?;
        listed.push_str(&format!("{} {}\n", entry.path, entry.size));
    }
    Ok(listed)
}

/// Is made only when the test says so: reads until there is a file `go`, and is what that file says.
#[asset(requires(counter = files("looks for the word to go on")))]
fn waits(ctx: &Context) -> Result<String> {
    wait_for_go(ctx)
}

/// Says what it does: before it waits for a word, before it waits for another, and after that.
#[asset(requires(counter = files("looks for the word to go on")))]
fn narrates(ctx: &Context) -> Result<String> {
    log::info!(attempt = ctx.attempt(), "waiting for the word");
    println!("on two lines\nas printed");
    let first = wait_for_go(ctx)?;
    log::info!(word = first, "going on");
    loop {
        let word = wait_for_go(ctx)?;
        if word != first {
            log::info!(word = word, "done");
            return Ok(word);
        }
    }
}

/// Needs what waits.
#[asset(inputs(waits = "waits"))]
fn after_waits(ctx: &Context) -> Result<String> {
    Ok(format!("after {}", ctx.input("waits")?.text()?))
}

/// Reads the shelf before it waits, and once more after that.
#[asset(requires(
    shelf = files("lists what is on the shelf"),
    counter = files("looks for the word to go on"),
))]
fn reads_for_long(ctx: &Context) -> Result<String> {
    let shelf = ctx.directory("shelf")?;
    let mut before = 0;
    for entry in shelf.entries() {
        before += entry?.size;
    }
    wait_for_go(ctx)?;
    let mut after = 0;
    for entry in shelf.entries() {
        after += entry?.size;
    }
    Ok(format!("{before} {after}"))
}

fn wait_for_go(ctx: &Context) -> Result<String> {
    let counter = ctx.directory("counter")?;
    loop {
        match counter.text("go") {
            // A file that is being written is empty for a moment.
            Ok(text) if text.is_empty() => {}
            Ok(text) => return Ok(text),
            Err(error) if error.capability_error() == Some(&CapabilityError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Everything that reached it: configuration, partition, and what its grant lets it see.
#[asset(
    partitions(key = static_keys("p1", "value|with|pipes")),
    requires(shelf = files("lists what is on the shelf")),
)]
fn echo(ctx: &Context) -> Result<String> {
    #[derive(Deserialize)]
    struct Config {
        words: Vec<String>,
        nested: Option<Nested>,
    }
    #[derive(Deserialize)]
    struct Nested {
        number: i64,
    }
    let Config { words, nested } = ctx.config()?;
    let mut files = Vec::new();
    for entry in ctx.directory("shelf")?.entries() {
        files.push(entry?.path);
    }
    let number = nested.map(|nested| nested.number);
    Ok(format!("{} {} {words:?} {number:?} {files:?}", ctx.asset(), ctx.partition().key("key")?))
}

/// Reads what is made early and what is made late.
#[asset(inputs(numbers = "numbers", doubled = "doubled"))]
fn early_and_late(ctx: &Context) -> Result<Json<usize>> {
    let numbers: Vec<i64> = ctx.input("numbers")?.json()?;
    let doubled: Vec<i64> = ctx.input("doubled")?.json()?;
    Ok(Json(numbers.len() + doubled.len()))
}
