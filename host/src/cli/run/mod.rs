//! `flowstone run`: plans, submits, works, and follows the run until the database says that it is over.
//!
//! The worker's events are for display and may be missed; the run's row is the truth, and what was missed is read from
//! the jobs' rows. Nothing here decides what runs or how it ends.

mod bars;
mod board;
mod events;
mod follow;
mod lines;
mod reporter;
mod signals;
mod summary;

use std::{pin::pin, time::Duration};

use anyhow::Context as _;

use self::{
    bars::Bars,
    board::Board,
    events::Events,
    follow::{Follow, Over},
    lines::Lines,
    reporter::{Begun, Outcome, Reporter},
    signals::Signals,
};
use super::{
    Exit, arguments::Run, deploy, plan::request, print, session::Session, status::list_all_jobs, watch::Watch,
};
use crate::{
    app::Pipeline,
    id::RunId,
    pipeline::{plan::Plan, quantity::duration_text},
    runner::{Runner, RunnerSettings},
};

/// Runs what is missing or stale.
pub(super) async fn run(session: &Session, args: &Run) -> anyhow::Result<Exit> {
    let app = &session.app;
    // Before anything is done: an address that is taken is a mistake.
    let watch = Watch::prepare(&session.talk, &args.worker).await?;
    let (pipeline, deployed) = app.resolve_pipeline(&args.selection.pipeline).await?;
    if let Some(deployed) = &deployed {
        deploy::tell(&session.talk, deployed);
    }
    let request = request(&args.selection);
    let plan = app.plan(&pipeline, &request).await?;
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let settings = RunnerSettings {
        slots: args.worker.concurrency(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        alone: session.is_alone(),
        secrets: session.secrets.sources()?,
        database_urls: session.database_urls.clone(),
    };
    let runner = Runner::start(app.store.clone(), app.engine.clone(), app.blobs.clone(), settings).await?;
    let watching = watch.begin(session, &runner);
    let events = runner.events();
    let started = async {
        let run = app.start_run(&pipeline, &request, &plan, Some(runner.worker())).await?;
        runner.wake();
        let jobs = list_all_jobs(&app.store, &app.tenant, run).await?;
        let reporter = begin(session, args, &pipeline, &plan, run, &Board::new(&jobs));
        anyhow::Ok(Follow::new(app, run, Board::new(&jobs), reporter, events))
    };
    let mut follow = match started.await {
        Ok(follow) => follow,
        Err(error) => {
            runner.stop_at_once().await;
            return Err(error);
        }
    };
    let over = follow.until_over(&mut signals).await;
    let over = match over {
        Ok(Over::Interrupted) => stop_gracefully(session, runner, args.worker.grace(), &mut follow, &mut signals).await,
        over => {
            runner.stop(args.worker.grace(), signals.next()).await;
            over
        }
    };
    watching.end().await;
    conclude(args, &pipeline, follow, over?)
}

/// Bars where a person looks, events where a program asked for them, lines otherwise.
fn begin(
    session: &Session,
    args: &Run,
    pipeline: &Pipeline,
    plan: &Plan,
    run: RunId,
    board: &Board,
) -> Box<dyn Reporter> {
    let talk = session.talk.clone();
    let mut reporter: Box<dyn Reporter> = match talk.show_bars().cloned() {
        _ if args.json => Box::new(Events::new()),
        Some(bars) if board.jobs() > 0 => Box::new(Bars::new(talk, bars)),
        _ => Box::new(Lines::new(talk)),
    };
    let up_to_date = plan.up_to_date.iter().map(|count| u64::from(*count)).sum();
    reporter.begin(Begun { run, pipeline: &pipeline.name, version: pipeline.number, up_to_date }, board);
    reporter
}

/// Waits for what runs, as long as the grace; a second signal ends the wait. What is given back is not lost: the next
/// run plans what is missing.
async fn stop_gracefully(
    session: &Session,
    runner: Runner,
    grace: Duration,
    follow: &mut Follow<'_>,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    let mut stopping = pin!(runner.stop(grace, signals.next()));
    session
        .talk
        .say(format!("stopping: what runs has {} to finish; interrupt again to stop at once", duration_text(grace)));
    loop {
        tokio::select! {
            () = &mut stopping => break,
            () = follow.listen() => {}
        }
    }
    // The last job may have ended meanwhile.
    Ok(follow.look_closely().await?.map_or(Over::Interrupted, Over::Finished))
}

fn conclude(args: &Run, pipeline: &Pipeline, mut follow: Follow<'_>, over: Over) -> anyhow::Result<Exit> {
    let outcome = match &over {
        Over::Finished(record) => Outcome::Finished(record),
        Over::Interrupted => Outcome::Interrupted,
    };
    follow.reporter.end(outcome, &follow.board);
    if !args.json {
        let summary = summary::render(follow.run, &pipeline.name, outcome, &follow.board, print::is_terminal());
        match print::text(&summary) {
            // How the run went is still what counts.
            Err(error) if error.is::<print::Closed>() => {}
            printed => printed?,
        }
    }
    Ok(match over {
        Over::Finished(record) if record.state == "succeeded" => Exit::Succeeded,
        Over::Finished(_) | Over::Interrupted => Exit::Failed,
    })
}
