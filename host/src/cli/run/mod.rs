//! `flowstone run`: plans, submits, works, and follows the run until the database says that it is over. `retry` does the
//! same with what an earlier run left; `watch` only follows.
//!
//! The worker's events are for display and may be missed; the run's row is the truth, and what was missed is read from
//! the jobs' rows. Nothing here decides what runs or how it ends.

mod bars;
mod board;
mod events;
mod follow;
mod lines;
mod reporter;
mod summary;

use std::pin::pin;

use anyhow::Context as _;

use self::{
    bars::Bars,
    board::Board,
    events::Events,
    follow::{Follow, Over},
    lines::Lines,
    reporter::{Begun, Outcome, Reporter},
};
use super::{
    Exit,
    arguments::{How, Retry, Run, Watch},
    deploy,
    monitor::Monitor,
    pause,
    plan::request,
    print, run_id,
    session::Session,
    signals::Signals,
    status::list_all_jobs,
    unserved, work,
};
use crate::{
    app::{IdempotencyKey, Pipeline, PlanRequest, Submitted},
    id::{RunId, WorkerId},
    pipeline::plan::Plan,
    runner::Runner,
};

/// Runs what is missing or stale.
pub(super) async fn run(session: &Session, args: &Run) -> anyhow::Result<Exit> {
    let monitor = prepare_monitor(session, &args.how).await?;
    let (pipeline, deployed) = session.app.resolve_pipeline(&args.selection.pipeline).await?;
    if let Some(deployed) = &deployed {
        deploy::tell(&session.talk, deployed);
    }
    make(session, &pipeline, &request(&args.selection), args.idempotency_key.as_ref(), &args.how, monitor).await
}

/// Runs what an earlier run left.
pub(super) async fn retry(session: &Session, args: &Retry) -> anyhow::Result<Exit> {
    let app = &session.app;
    let monitor = prepare_monitor(session, &args.how).await?;
    let earlier = run_id::find_run(&app.store, &app.tenant, &args.run).await?;
    let request = app.request_of_rest(&earlier).await?;
    let pipeline = app.load_pipeline(&earlier.pipeline).await?;
    make(session, &pipeline, &request, None, &args.how, monitor).await
}

/// Before anything is done: an address that is taken is a mistake. Whoever leaves the run to others needs none.
async fn prepare_monitor(session: &Session, how: &How) -> anyhow::Result<Option<Monitor>> {
    if how.detach { Ok(None) } else { Monitor::prepare(&session.talk, &how.worker).await.map(Some) }
}

/// Follows a run that others work on.
pub(super) async fn watch(session: &Session, args: &Watch) -> anyhow::Result<Exit> {
    let app = &session.app;
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let record = run_id::find_run(&app.store, &app.tenant, &args.run).await?;
    unserved::warn(session, record.id).await;
    let board = Board::new(&list_all_jobs(&app.store, &app.tenant, record.id).await?);
    let (run, pipeline) = (record.id, &*record.pipeline);
    let reporter =
        begin(session, args.json, Begun { run, pipeline, version: record.version, up_to_date: None }, &board);
    let mut follow = Follow::new(app, run, board, reporter, None);
    let over = follow.until_over(&mut signals).await?;
    conclude(args.json, pipeline, follow, over)
}

/// Plans and submits; then works until it is over, unless the run is left to others.
async fn make(
    session: &Session,
    pipeline: &Pipeline,
    request: &PlanRequest,
    key: Option<&IdempotencyKey>,
    how: &How,
    monitor: Option<Monitor>,
) -> anyhow::Result<Exit> {
    let app = &session.app;
    let wanted = match key {
        Some(key) => app.find_submitted(&pipeline.name, request, key).await?.map(Wanted::Submitted),
        None => None,
    };
    let wanted = match wanted {
        Some(submitted) => submitted,
        None => Wanted::Planned { request, plan: app.plan(pipeline, request).await?, key },
    };
    pause::warn(session, pipeline).await?;
    let Some(monitor) = monitor else {
        let (begun, jobs) = submit(session, pipeline, &wanted, None).await?;
        return tell_detached(session, how, begun, jobs).await;
    };
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let runner = work::start(session, &how.worker).await?;
    let monitoring = monitor.begin(session, &runner);
    let events = runner.events();
    let started = async {
        let (begun, _) = submit(session, pipeline, &wanted, Some(runner.worker())).await?;
        runner.wake();
        unserved::warn(session, begun.run).await;
        let jobs = list_all_jobs(&app.store, &app.tenant, begun.run).await?;
        let reporter = begin(session, how.json, begun, &Board::new(&jobs));
        anyhow::Ok(Follow::new(app, begun.run, Board::new(&jobs), reporter, Some(events)))
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
        Ok(Over::Interrupted) => stop_gracefully(session, runner, how, &mut follow, &mut signals).await,
        over => {
            runner.stop(how.worker.grace(), signals.next()).await;
            over
        }
    };
    monitoring.end().await;
    // It has no owner that it would end with.
    let over = over.map(|over| if key.is_some() && matches!(over, Over::Interrupted) { Over::Left } else { over });
    conclude(how.json, &pipeline.name, follow, over?)
}

/// A run that somebody wants.
enum Wanted<'a> {
    /// Submitted before, under the same key.
    Submitted(RunId),
    /// To be submitted.
    Planned { request: &'a PlanRequest, plan: Plan, key: Option<&'a IdempotencyKey> },
}

/// Submits what is not submitted yet; returns what the run begins with, and how many jobs it has.
async fn submit<'a>(
    session: &Session,
    pipeline: &'a Pipeline,
    wanted: &Wanted<'_>,
    owner: Option<WorkerId>,
) -> anyhow::Result<(Begun<'a>, usize)> {
    let app = &session.app;
    let submitted = match wanted {
        Wanted::Submitted(run) => Submitted::Before(*run),
        Wanted::Planned { request, plan, key: Some(key) } => app.start_run_once(pipeline, request, plan, key).await?,
        Wanted::Planned { request, plan, key: None } => {
            Submitted::Now(app.start_run(pipeline, request, plan, owner).await?)
        }
    };
    let pipeline_name = &*pipeline.name;
    match (submitted, wanted) {
        (Submitted::Now(run), Wanted::Planned { plan, .. }) => {
            let up_to_date = plan.up_to_date.iter().map(|count| u64::from(*count)).sum();
            let begun = Begun { run, pipeline: pipeline_name, version: pipeline.number, up_to_date: Some(up_to_date) };
            Ok((begun, plan.jobs.len()))
        }
        (Submitted::Now(run) | Submitted::Before(run), _) => {
            let record = run_id::find_run(&app.store, &app.tenant, &run.to_string()).await?;
            session.talk.say(format!("run {run} was submitted before under this key"));
            let begun = Begun { run, pipeline: pipeline_name, version: record.version, up_to_date: None };
            Ok((begun, record.jobs as usize))
        }
    }
}

/// The id alone on stdout, so that another command can take it.
async fn tell_detached(session: &Session, how: &How, begun: Begun<'_>, jobs: usize) -> anyhow::Result<Exit> {
    session.talk.say(lines::headline(begun, jobs));
    if jobs > 0 {
        session.talk.say(format!("`flowstone watch {}` follows it; `flowstone work` works on it", begun.run));
        unserved::warn(session, begun.run).await;
    }
    if how.json {
        print::json_line(&events::Event::started(begun, jobs))?;
    } else {
        print::text(&format!("{}\n", begun.run))?;
    }
    Ok(Exit::Succeeded)
}

/// Bars where a person looks, events where a program asked for them, lines otherwise.
fn begin(session: &Session, json: bool, begun: Begun<'_>, board: &Board) -> Box<dyn Reporter> {
    let talk = session.talk.clone();
    let mut reporter: Box<dyn Reporter> = match talk.show_bars().cloned() {
        _ if json => Box::new(Events::new()),
        Some(bars) if board.jobs() > 0 => Box::new(Bars::new(talk, bars)),
        _ => Box::new(Lines::new(talk)),
    };
    reporter.begin(begun, board);
    reporter
}

/// Waits for what runs, as long as the grace; a second signal ends the wait. What is given back is not lost: the next
/// run plans what is missing.
async fn stop_gracefully(
    session: &Session,
    runner: Runner,
    how: &How,
    follow: &mut Follow<'_>,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    let mut stopping = pin!(work::stop(session, runner, &how.worker, signals));
    loop {
        tokio::select! {
            () = &mut stopping => break,
            () = follow.listen() => {}
        }
    }
    // The last job may have ended meanwhile.
    Ok(follow.look_closely().await?.map_or(Over::Interrupted, Over::Finished))
}

fn conclude(json: bool, pipeline: &str, mut follow: Follow<'_>, over: Over) -> anyhow::Result<Exit> {
    let outcome = match &over {
        Over::Finished(record) => Outcome::Finished(record),
        Over::Interrupted => Outcome::Interrupted,
        Over::Left => Outcome::Left,
    };
    follow.reporter.end(outcome, &follow.board);
    if !json {
        let summary = summary::render(follow.run, pipeline, outcome, &follow.board, print::is_terminal());
        match print::text(&summary) {
            // How the run went is still what counts.
            Err(error) if error.is::<print::Closed>() => {}
            printed => printed?,
        }
    }
    Ok(match over {
        Over::Finished(record) if record.state == "succeeded" => Exit::Succeeded,
        Over::Finished(_) | Over::Interrupted | Over::Left => Exit::Failed,
    })
}
