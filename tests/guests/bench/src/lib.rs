//! Guests whose cost is the host's: assets that do nothing, move bytes, or only compute.
//!
//! The computing ones call [`kernel`], which knows nothing of assets, so that a native program can run the same code.

pub mod kernel;
mod moving;

use std::{hint::black_box, time::SystemTime};

use flowstone_sdk::prelude::*;
use serde::Deserialize;

/// Nothing, once.
#[asset]
fn noop() -> Result<()> {
    Ok(())
}

/// Nothing, in each of ten thousand hours.
#[asset(partitions(hour = hourly("2020-01-01T00", "2021-02-20T15")))]
fn noop_partitioned() -> Result<()> {
    Ok(())
}

/// Nothing, in as many hours, each of which waits for the one `noop`.
#[asset(inputs(noop = "noop"), partitions(hour = hourly("2020-01-01T00", "2021-02-20T15")))]
fn noop_fan() -> Result<()> {
    Ok(())
}

/// Reads the granted clock once, in each of ten thousand hours.
#[asset(requires(wall = clock("is what is measured")), partitions(hour = hourly("2020-01-01T00", "2021-02-20T15")))]
fn clock_partitioned() -> Result<()> {
    SystemTime::now();
    Ok(())
}

/// Reads the granted clock so many times.
#[asset(requires(wall = clock("is what is measured")))]
fn clock_calls(ctx: &Context) -> Result<()> {
    let work: Work = ctx.config()?;
    for _ in 0..work.size.unwrap_or(0) {
        black_box(SystemTime::now());
    }
    Ok(())
}

/// Asks for one value so many times: all but the first come out of the attempt's own memory.
#[asset(requires(seen = key_value("is what is measured")))]
fn bucket_gets(ctx: &Context) -> Result<()> {
    let work: Work = ctx.config()?;
    let seen = ctx.bucket("seen")?;
    for _ in 0..work.size.unwrap_or(0) {
        black_box(seen.get("a")?);
    }
    Ok(())
}

/// How much a kernel has to do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    size: Option<usize>,
}

fn compute(ctx: &Context, kernel: &kernel::Kernel) -> Result<String> {
    let work: Work = ctx.config()?;
    Ok(format!("{:016x}", (kernel.run)(work.size.unwrap_or(kernel.size))))
}

/// Parses a JSON document, and adds up what is in it.
#[asset]
fn cpu_json(ctx: &Context) -> Result<String> {
    compute(ctx, &kernel::JSON)
}

/// Sorts numbers.
#[asset]
fn cpu_sort(ctx: &Context) -> Result<String> {
    compute(ctx, &kernel::SORT)
}

/// Hashes bytes.
#[asset]
fn cpu_sha256(ctx: &Context) -> Result<String> {
    compute(ctx, &kernel::SHA256)
}

/// Multiplies matrices.
#[asset]
fn cpu_matmul(ctx: &Context) -> Result<String> {
    compute(ctx, &kernel::MATMUL)
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::Job;
    use serde_json::json;

    #[test]
    fn a_kernel_gives_the_same_as_an_asset_and_as_a_function() {
        for (asset, kernel) in [
            ("cpu_json", &crate::kernel::JSON),
            ("cpu_sort", &crate::kernel::SORT),
            ("cpu_sha256", &crate::kernel::SHA256),
            ("cpu_matmul", &crate::kernel::MATMUL),
        ] {
            let finished = Job::new(asset).config(json!({ "size": 10 })).run();
            assert_eq!(finished.text(), format!("{:016x}", (kernel.run)(10)), "{asset}");
            assert_ne!((kernel.run)(10), (kernel.run)(11), "{asset}");
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(Job::new("noop").run().text(), "");
        assert_eq!(Job::new("noop_partitioned").partition("hour", "2020-01-01T00").run().text(), "");
        assert_eq!(Job::new("noop_fan").partition("hour", "2020-01-01T00").input("noop", "").run().text(), "");
    }
}
