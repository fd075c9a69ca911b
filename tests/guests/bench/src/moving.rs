//! Assets that move bytes: how fast is what the contract's streams allow.

use std::io::{BufRead, Write};

use flowstone_sdk::prelude::*;
use serde::Deserialize;

use crate::kernel::Numbers;

/// As much as one call moves.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    bytes: u64,
}

/// As many bytes as the configuration says: the same mebibyte of noise again and again.
#[asset(media_type = "application/octet-stream")]
fn make_bytes(ctx: &Context) -> Result<()> {
    let Config { bytes } = ctx.config()?;
    let chunk: Vec<u8> = Numbers::new(1).flat_map(u64::to_le_bytes).take(CHUNK_BYTES).collect();
    let mut left = bytes;
    while left > 0 {
        let part = &chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        ctx.output().write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

/// What it reads, a mebibyte at a time and without a copy of its own.
#[asset(inputs(source = "make_bytes"), media_type = "application/octet-stream")]
fn copy(ctx: &Context) -> Result<()> {
    let mut reader = ctx.input("source")?.reader()?;
    let mut output = ctx.output();
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(());
        }
        output.write_all(chunk)?;
        let length = chunk.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::Job;
    use serde_json::json;

    #[test]
    fn bytes_are_made_in_number_and_copied_as_they_are() {
        for bytes in [0, 1, (1 << 20) - 1, 1 << 20, (3 << 20) + 5] {
            let made = Job::new("make_bytes").config(json!({ "bytes": bytes })).run().output;
            assert_eq!(made.len(), bytes);
            let copied = Job::new("copy").input("source", &made).run().output;
            assert!(copied == made, "{bytes} bytes differ");
        }
    }
}
