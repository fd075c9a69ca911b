//! Assets that take more than their share: of time, stack, memory, output, log.

use std::hint::black_box;
use std::io::Write;

use flowstone_sdk::prelude::*;

/// Computes forever.
#[asset]
fn loops_forever() -> Result<()> {
    spin()
}

/// Computes forever, with more fuel than its time is worth.
#[asset]
fn stalls() -> Result<()> {
    spin()
}

fn spin() -> Result<()> {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Calls itself forever.
#[asset]
fn recurses_forever() -> Result<Json<u64>> {
    Ok(Json(descend(0)))
}

#[expect(unconditional_recursion, reason = "that is its purpose")]
fn descend(depth: u64) -> u64 {
    // The addition comes after the call, so that the call cannot become a jump.
    black_box(descend(black_box(depth + 1))) + 1
}

/// Takes memory forever.
#[asset]
fn allocates_forever() -> Result<()> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        blocks.push(black_box(vec![1; 1 << 20]));
    }
}

/// Executes an instruction that traps.
#[asset]
fn traps() -> Result<()> {
    // In a component this is the instruction `unreachable`.
    std::process::abort()
}

/// Panics, and is heard: the message is in the attempt's log.
#[asset]
fn panics() -> Result<()> {
    panic!("this asset always panics")
}

/// Writes forever, whatever it is told.
#[asset(media_type = "application/octet-stream")]
fn writes_forever(ctx: &Context) -> Result<()> {
    let block = vec![b'x'; 1 << 20];
    loop {
        if let Err(refusal) = ctx.output().write(&block) {
            black_box(refusal);
        }
    }
}

/// Logs two megabytes, of which its log limit is kept, and then ends well.
#[asset]
fn logs_without_end() -> Result<String> {
    for number in 0..20_000 {
        log::info!(number = number, "{:.<80}", "a long line \u{1b}[31mwith a terminal escape");
    }
    Ok("logged 20,000 lines".into())
}
