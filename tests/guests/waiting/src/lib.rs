//! An asset that waits: what a worker is given a thousand times at once.

use flowstone_sdk::prelude::*;

/// Asks once, in each of ten thousand hours.
#[asset(
    requires(api = http("waits for its answer")),
    partitions(hour = hourly("1900-01-01T00", "1901-02-21T15"))
)]
fn waits(ctx: &Context) -> Result<Vec<u8>> {
    ctx.http("api")?.get("wait").send()?.ok()?.bytes().map_err(Error::from)
}
