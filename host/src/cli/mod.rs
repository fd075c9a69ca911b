//! The command line: one file per command, each from its arguments to what it prints and how it ends.
//!
//! A command decides nothing of its own: the verbs are in [`crate::app`], the reading in [`crate::store`]. What is
//! printed is made by pure functions to text, and leaves through [`mod@print`]. What an ending means to the shell is decided
//! in `main.rs`.

pub mod arguments;
pub mod print;

mod backfill;
mod backfill_id;
mod backfill_status;
mod backfill_watch;
mod cancel;
mod check;
mod completions;
mod deploy;
mod figures;
mod gc;
mod grants;
mod graph;
mod inspect;
mod inspect_text;
mod invalidate;
mod lineage;
mod lineage_picture;
mod logs;
mod monitor;
mod pause;
mod plan;
mod pool;
mod quarantine;
mod quota;
mod resource;
mod run;
mod run_id;
mod runs;
mod schedule;
mod schedules;
mod secret;
mod session;
mod show;
mod signals;
mod status;
mod unserved;
mod work;

use anyhow::Context as _;
use arguments::{Command, CommandLine, Retry, Run};
use print::Talk;
use session::{Access, Session};

use crate::{config::Settings, telemetry};

/// How a command ended that could do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Succeeded,
    /// The command worked, and something that it ran did not.
    Failed,
}

/// A mistake in what was typed, in one sentence with the fix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Mistake(pub String);

/// Does what the command line says, on a runtime of its own.
pub fn execute(line: CommandLine) -> anyhow::Result<Exit> {
    if let Command::Completions { shell } = line.command {
        return completions::run(shell);
    }
    let talk = Talk::new(line.quiet);
    let settings = Settings::resolve(&line.global)?;
    telemetry::start(&settings.log, settings.colors && talk.is_terminal(), talk.traces())?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(dispatch(line.command, &settings, talk));
    // Nothing that matters is left; a look-up that hangs must not hold the command.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(command: Command, settings: &Settings, talk: Talk) -> anyhow::Result<Exit> {
    if let Command::Inspect(args) = &command {
        return inspect::run(settings, &talk, args).await;
    }
    let (access, guests) = match &command {
        Command::Run(Run { how, .. }) | Command::Retry(Retry { how, .. }) if !how.detach => {
            (Access::Alone, how.worker.concurrency())
        }
        Command::Work(args) => (Access::Alone, args.worker.concurrency()),
        Command::Up(args) => (Access::Alone, args.work.worker.concurrency()),
        _ => (Access::Beside, 1),
    };
    let session = Session::open(settings, talk, access, guests).await?;
    let outcome = dispatch_in(&session, command).await;
    session.close().await;
    outcome
}

async fn dispatch_in(session: &Session, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Check(args) => check::run(session, &args).await,
        Command::Deploy(args) => deploy::run(session, &args).await,
        Command::Plan(args) => plan::run(session, &args).await,
        Command::Run(args) => run::run(session, &args).await,
        Command::Retry(args) => run::retry(session, &args).await,
        Command::Watch(args) => run::watch(session, &args).await,
        Command::Work(args) => work::run(session, &args).await,
        Command::Up(args) => work::up(session, &args).await,
        Command::Show(args) => show::run(session, &args).await,
        Command::Status(args) => status::run(session, &args).await,
        Command::Runs(args) => runs::run(session, &args).await,
        Command::Logs(args) => logs::run(session, &args).await,
        Command::Lineage(args) => lineage::run(session, &args).await,
        Command::Graph(args) => graph::run(session, &args).await,
        Command::Pause(args) => pause::pause(session, &args).await,
        Command::Resume(args) => pause::resume(session, &args).await,
        Command::Pauses(args) => pause::list(session, &args).await,
        Command::Cancel(args) => cancel::run(session, &args).await,
        Command::Invalidate(args) => invalidate::run(session, &args).await,
        Command::Gc(args) => gc::run(session, &args).await,
        Command::Grants(args) => grants::run(session, &args).await,
        Command::Resource(command) => resource::run(session, &command).await,
        Command::Secret(command) => secret::run(session, &command).await,
        Command::Quota(command) => quota::run(session, &command).await,
        Command::Quarantine(command) => quarantine::run(session, &command).await,
        Command::Pool(command) => pool::run(session, &command).await,
        Command::Schedules(args) => schedules::run(session, &args).await,
        Command::Schedule(command) => schedule::run(session, &command).await,
        Command::Backfill(command) => backfill::run(session, &command).await,
        Command::Inspect(_) | Command::Completions { .. } => {
            unreachable!("these need no session")
        }
    }
}
