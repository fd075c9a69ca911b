//! The `flowstone` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The hidden subcommand: this program is its own compiler process.
    if std::env::args().nth(1).as_deref() == Some(flowstone::engine::COMPILE_SUBCOMMAND) {
        return flowstone::engine::compile_child_main();
    }
    ExitCode::SUCCESS
}
