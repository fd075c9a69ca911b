//! Assets that use small grants, well and badly: the clock, randomness, secrets.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flowstone_sdk::prelude::*;

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What time the job's clock shows, and how long a sleep of 50 ms takes by it.
#[asset]
fn logical_time() -> Result<String> {
    let (now, started) = (seconds_since_1970(), Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(50));
    Ok(format!("{now} {}", started.elapsed().as_millis()))
}

/// The same by the machine's clock.
#[asset(requires(wall = clock("stamps the output")))]
fn real_time() -> Result<String> {
    let (now, started) = (seconds_since_1970(), Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(50));
    Ok(format!("{now} {}", started.elapsed().as_millis()))
}

/// Sleeps for a day by the machine's clock.
#[asset(requires(wall = clock("waits")))]
fn oversleeps() -> Result<String> {
    std::thread::sleep(std::time::Duration::from_secs(86_400));
    Ok("awake".into())
}

/// A number that follows from the recipe.
#[asset]
fn seeded() -> Result<String> {
    Ok(RandomState::new().hash_one(0_u8).to_string())
}

/// A number that follows from nothing.
#[asset(requires(dice = random("draws lots")))]
fn drawn() -> Result<String> {
    Ok(RandomState::new().hash_one(0_u8).to_string())
}

/// Reads a secret and uses it without showing it.
#[asset(requires(token = secret("signs the output")))]
fn signed(ctx: &Context) -> Result<String> {
    let token = ctx.secret("token")?;
    let sum: u64 = token.bytes().iter().map(|byte| u64::from(*byte)).sum();
    Ok(sum.to_string())
}

/// The same by the hour, so that many attempts want it at once.
#[asset(partitions(hour = hourly("2024-01-01T00", "2024-01-09T00")), requires(token = secret("signs the output")))]
fn signed_hourly(ctx: &Context) -> Result<String> {
    signed(ctx)
}

/// Says a secret wherever a guest can say something, then fails with it.
#[asset(requires(token = secret("tells everybody")))]
fn blabs(ctx: &Context) -> Result<String> {
    let secret = ctx.secret("token")?;
    let token = secret.text()?;
    log::info!(token = token, "the token is {token}");
    println!("on stdout: {token}");
    eprintln!("{}{token}", "x".repeat(8_190));
    ctx.add_metadata("token", token)?;
    // Named to the host as if it were a resource.
    let _denied = ctx.secret(token);
    Err(Error::permanent(format!("it failed with {token}")))
}

/// The same in what a success leaves behind.
#[asset(requires(token = secret("tells everybody")))]
fn blabs_quietly(ctx: &Context) -> Result<String> {
    let secret = ctx.secret("token")?;
    ctx.add_metadata("token", secret.text()?)?;
    log::info!("the token is {}", secret.text()?);
    Ok("nothing".into())
}

/// Panics with a secret.
#[asset(requires(token = secret("tells everybody")))]
fn panics(ctx: &Context) -> Result<String> {
    let secret = ctx.secret("token")?;
    panic!("the token is {}", secret.text()?);
}

/// Asks for a secret of which it says nothing in its definition.
#[asset]
fn pries(ctx: &Context) -> Result<String> {
    Ok(format!("{} bytes", ctx.secret("token")?.bytes().len()))
}
