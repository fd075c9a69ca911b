//! Four steps over many hours, some of which fail at first and some for good: what a run is made of whose workers are
//! killed while it goes on. How each hour ends follows from its name, so that a test can count.

use flowstone_sdk::prelude::*;

/// More than a row holds.
const LARGE_BYTES: usize = 40_000;

/// Its hour: `2024-01-31T23`.
fn hour(ctx: &Context) -> Result<String> {
    Ok(ctx.partition().key("hour")?.to_string())
}

#[asset(partitions(hour = hourly("2024-01-01T00", "2024-08-01T00")))]
fn first(ctx: &Context) -> Result<String> {
    hour(ctx)
}

/// Fails for good at 13:00 of every fourth day: in about one hour of a hundred.
#[asset(inputs(first = "first"), partitions(hour = hourly("2024-01-01T00", "2024-08-01T00")))]
fn second(ctx: &Context) -> Result<String> {
    let hour = hour(ctx)?;
    if ["04", "08", "12", "16", "20", "24", "28"].iter().any(|day| hour.ends_with(&format!("-{day}T13"))) {
        return Err(Error::permanent("an hour that fails"));
    }
    Ok(format!("after {}", ctx.input("first")?.text()?))
}

/// The first attempt fails in two hours of a day; the output is large in one.
#[asset(inputs(second = "second"), partitions(hour = hourly("2024-01-01T00", "2024-08-01T00")))]
fn third(ctx: &Context) -> Result<String> {
    let hour = hour(ctx)?;
    if (hour.ends_with("T07") || hour.ends_with("T19")) && ctx.attempt() == 1 {
        return Err(Error::retryable("an hour whose first attempt fails"));
    }
    let mut text = ctx.input("second")?.text()?;
    if hour.ends_with("T05") {
        text.push_str(&"x".repeat(LARGE_BYTES));
    }
    Ok(text)
}

/// Reads two of the others.
#[asset(inputs(first = "first", third = "third"), partitions(hour = hourly("2024-01-01T00", "2024-08-01T00")))]
fn fourth(ctx: &Context) -> Result<String> {
    Ok(format!("{} {}", ctx.input("first")?.text()?, ctx.input("third")?.text()?.len()))
}
