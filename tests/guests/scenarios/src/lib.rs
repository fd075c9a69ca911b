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
#[asset(inputs(broken = { asset = "broken", optional = true }))]
fn despite_broken(ctx: &Context) -> Result<String> {
    Ok(if ctx.input("broken")?.is_absent() { "missing" } else { "there" }.into())
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
    let input = ctx.input("empty")?;
    Ok(format!("absent: {}, bytes: {}", input.is_absent(), input.bytes()?.len()))
}

/// A different number each time it really runs: what is in the directory, and one more.
#[asset(requires(counter = files("counts its own runs in a file")))]
fn unique() -> Result<String> {
    let counter = Directory::open("counter")?;
    let count: u64 = match counter.read("count") {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse()?,
        Err(error) if error == CapabilityError::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    let next = (count + 1).to_string();
    counter.write("count", next.as_bytes())?;
    Ok(next)
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
    inputs(days = { asset = "daily", mapping = window(-2, 0) }),
    partitions(date = daily("2024-01-01", "2024-01-05"), region = static_keys("eu", "us")),
)]
fn trailing(ctx: &Context) -> Result<String> {
    let days: Result<Vec<String>> = ctx.input("days")?.versions().iter().map(|day| day.text()).collect();
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
fn listing() -> Result<String> {
    let shelf = Directory::open("shelf")?;
    let mut listed = String::new();
    for entry in shelf.entries() {
        let entry = entry?;
        listed.push_str(&format!("{} {}\n", entry.path, entry.size));
    }
    Ok(listed)
}
