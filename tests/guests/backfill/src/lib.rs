//! Many partitions, of which some fail and of some there is nothing to make: what backfills are made of. How each ends
//! follows from its name, unless the manifest says that it has been mended.

use flowstone_sdk::prelude::*;
use serde::Deserialize;

/// As many hours as an asset may have.
#[asset(partitions(hour = hourly("1900-01-01T00", "2014-01-29T15")))]
fn million(ctx: &Context) -> Result<String> {
    Ok(ctx.partition().key("hour")?.to_string())
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    mended: bool,
}

/// Fails on the 13th and the 14th of a month; on the 1st there is nothing to make.
#[asset(partitions(day = daily("2024-01-01", "2024-04-09")))]
fn days(ctx: &Context) -> Result<String> {
    let day = ctx.partition().key("day")?.to_string();
    if !ctx.config::<Config>()?.mended && (day.ends_with("-13") || day.ends_with("-14")) {
        return Err(Error::permanent(format!("no rain on {day}")));
    }
    if day.ends_with("-01") {
        return skip("nothing to make on the first");
    }
    Ok(day)
}

/// Reads a day.
#[asset(inputs(days = "days"), partitions(day = daily("2024-01-01", "2024-04-09")))]
fn after_days(ctx: &Context) -> Result<String> {
    Ok(format!("after {}", ctx.input("days")?.text()?))
}

/// Other partitions than the days.
#[asset(partitions(month = monthly("2024-01", "2024-03")))]
fn months(ctx: &Context) -> Result<String> {
    Ok(ctx.partition().key("month")?.to_string())
}

/// Has no partitions.
#[asset]
fn whole() -> Result<()> {
    Ok(())
}

/// Runs until it is stopped.
#[asset(partitions(key = static_keys("a", "b", "c", "d", "e", "f", "g", "h")), requires(counter = files("waits for a file")))]
fn waits(ctx: &Context) -> Result<String> {
    loop {
        if let Ok(word) = ctx.directory("counter")?.text("go") {
            return Ok(word);
        }
    }
}
