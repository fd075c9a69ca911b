//! The `flowstone` command: parses, runs one command, prints the chain of causes when it fails, and says to the shell
//! how it ended. The only place that decides an exit status.

use std::process::ExitCode;

use clap::Parser as _;
use flowstone::{
    app::AppError,
    cli::{
        self, Exit, Mistake,
        arguments::CommandLine,
        print::{Closed, complain},
    },
    config::SettingError,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something that was run failed or was cancelled.
const FAILED: u8 = 1;
/// A mistake in what was asked for; also clap's own.
const MISTAKE: u8 = 2;
/// Trouble of the host: the database, the disk, or another process at work.
const TROUBLE: u8 = 3;

fn main() -> ExitCode {
    // This program is its own compiler process, which sets its limits before anything else happens.
    if std::env::args_os().nth(1).is_some_and(|command| command == flowstone::engine::COMPILE_SUBCOMMAND) {
        return flowstone::engine::compile_child_main();
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        // Help and the version are no mistakes, and go to stdout; nobody left to read them is none either.
        Err(answer) => {
            let _unread = answer.print();
            return ExitCode::from(if answer.use_stderr() { MISTAKE } else { 0 });
        }
    };
    let outcome = cli::execute(line);
    if let Err(error) = &outcome
        && !error.is::<Closed>()
    {
        complain(&chain(error));
    }
    ExitCode::from(status(&outcome))
}

fn status(outcome: &anyhow::Result<Exit>) -> u8 {
    match outcome {
        Ok(Exit::Succeeded) => 0,
        Ok(Exit::Failed) => FAILED,
        Err(error) if error.is::<Closed>() => 0,
        Err(error) if error.is::<Mistake>() || error.is::<SettingError>() => MISTAKE,
        Err(error) if error.downcast_ref::<AppError>().is_some_and(AppError::is_users) => MISTAKE,
        Err(_) => TROUBLE,
    }
}

/// The error, and each cause on a line of its own.
fn chain(error: &anyhow::Error) -> String {
    let mut causes = error.chain().map(ToString::to_string);
    let mut text = format!("error: {}", causes.next().unwrap_or_default());
    causes.for_each(|cause| text.push_str(&format!("\n  because: {cause}")));
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn failed(error: impl Into<anyhow::Error>) -> anyhow::Result<Exit> {
        Err(error.into())
    }

    #[test]
    fn each_ending_has_its_status() {
        assert_eq!(status(&Ok(Exit::Succeeded)), 0);
        assert_eq!(status(&Ok(Exit::Failed)), 1);
        assert_eq!(status(&failed(Closed)), 0);
        assert_eq!(status(&failed(Mistake("no".into()))), 2);
        assert_eq!(status(&failed(AppError::Usage("no".into()))), 2);
        assert_eq!(status(&failed(AppError::Invalid(vec![]))), 2);
        let gone = AppError::Host { doing: "look".into(), source: "gone".into() };
        assert_eq!(status(&failed(gone)), 3);
        assert_eq!(status(&failed(std::io::Error::other("full"))), 3);
    }

    #[test]
    fn a_mistake_stays_one_whatever_is_said_around_it() {
        assert_eq!(status(&Err(Mistake("no".into())).context("weather.wasm")), 2);
        assert_eq!(status(&Err(AppError::Usage("no".into())).context("weather.wasm")), 2);
    }

    #[test]
    fn the_chain_is_told_once_from_the_outside_in() {
        let error = anyhow::anyhow!("disk full").context("cannot write the blob").context("cannot deploy");
        assert_eq!(chain(&error), "error: cannot deploy\n  because: cannot write the blob\n  because: disk full");
    }
}
