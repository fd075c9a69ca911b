//! `flowstone work`: a worker, until it is asked to stop; `flowstone up` fires schedules, releases backfills and collects what
//! is old as well.
//! Every command that works starts and stops its worker as they do.

use std::future::{Future, pending};

use anyhow::{Context as _, bail};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Exit,
    arguments::{Up, Work},
    monitor::Monitor,
    session::Session,
    signals::Signals,
};
use crate::{
    collector::{Keep, collect_while_up},
    config::WorkerFlags,
    limit::COLLECT_STOP_WAIT,
    pipeline::quantity::duration_text,
    runner::{Runner, RunnerSettings},
    scheduler::{backfills::release_backfills, fire_due_schedules},
    store::queue::Served,
};

/// Takes jobs of any run.
pub(super) async fn run(session: &Session, args: &Work) -> anyhow::Result<Exit> {
    until_stopped(session, args, None).await
}

/// Takes jobs of any run, fires schedules, releases backfills, and collects what is old.
pub(super) async fn up(session: &Session, args: &Up) -> anyhow::Result<Exit> {
    until_stopped(session, &args.work, Some(args.keep.keep())).await
}

/// `keep` is of a process that is up.
async fn until_stopped(session: &Session, args: &Work, keep: Option<Keep>) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let monitor = Monitor::prepare(&session.talk, &args.worker).await?;
    let runner = start(session, &args.worker).await?;
    let monitoring = monitor.begin(session, &runner);
    let (worker, slots) = (runner.worker(), args.worker.concurrency());
    let stopping = CancellationToken::new();
    let mut submitting = keep.is_some().then(|| {
        let fires = fire_due_schedules(session.app.clone(), worker, runner.waker(), stopping.clone());
        let releases = release_backfills(session.app.clone(), runner.waker(), stopping.clone());
        AbortOnDropHandle::new(tokio::spawn(async {
            // Neither ends before it is told to.
            tokio::select! {
                () = fires => {}
                () = releases => {}
            }
        }))
    });
    let collecting = keep.map(|keep| {
        let (store, blobs) = (session.app.store.clone(), session.app.blobs.clone());
        AbortOnDropHandle::new(tokio::spawn(collect_while_up(store, blobs, keep, stopping.clone())))
    });
    let also = if keep.is_some() { ", fires schedules and releases backfills" } else { "" };
    session.talk.say(format!("worker {worker} takes jobs, {slots} at a time{also}; interrupt to stop"));
    let submitted = async {
        match &mut submitting {
            Some(submitting) => submitting.await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        () = signals.next() => None,
        ended = submitted => Some(ended),
    };
    stopping.cancel();
    stop(session, runner, &args.worker, &mut signals).await;
    monitoring.end().await;
    if let Some(collecting) = collecting {
        // When the database answers its lease ends; otherwise whoever collects next waits until that has run out.
        let _late = tokio::time::timeout(COLLECT_STOP_WAIT, collecting).await;
    }
    match ended {
        None => Ok(Exit::Succeeded),
        Some(Err(panic)) => bail!("firing schedules and releasing backfills ended: {panic}"),
        Some(Ok(())) => bail!("firing schedules and releasing backfills ended"),
    }
}

/// Starts this process' worker.
pub(super) async fn start(session: &Session, flags: &WorkerFlags) -> anyhow::Result<Runner> {
    let app = &session.app;
    let settings = RunnerSettings {
        slots: flags.concurrency(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        alone: session.is_alone(),
        served: served(flags),
        secrets: session.secrets.sources()?,
        database_urls: session.database_urls.clone(),
    };
    Ok(Runner::start(app.store.clone(), app.engine.clone(), app.blobs.clone(), settings).await?)
}

/// What a process takes jobs from.
pub(super) fn served(flags: &WorkerFlags) -> Served {
    Served { queues: (!flags.queues.is_empty()).then(|| flags.queues.clone()), tags: flags.tags.clone() }
}

/// Claims nothing more from here on; waits for what runs, as long as the grace. A second signal ends the wait. What is
/// given back is not lost: another worker takes it.
pub(super) fn stop(
    session: &Session,
    runner: Runner,
    flags: &WorkerFlags,
    signals: &mut Signals,
) -> impl Future<Output = ()> {
    let grace = flags.grace();
    let stopping = runner.stop(grace, signals.next());
    let grace = duration_text(grace);
    session.talk.say(format!("stopping: what runs has {grace} to finish; interrupt again to stop at once"));
    stopping
}
