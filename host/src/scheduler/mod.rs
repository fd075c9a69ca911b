//! Firing schedules: one reconciler, which any number of processes may run at once.
//!
//! It takes no input. A look first decides about the schedules that are due: which fires run and which were missed. That
//! is written with the next fire time, by whoever is first. Then it submits the runs of the fires that are due, one after
//! the other. A fire that a process has taken is its own as long as its worker's session lasts; a fire ends, and its run
//! begins to exist, in one transaction. So wherever a process dies, another goes on, and each fire has one run. What is
//! due is said by the database's clock.
//!
//! Above the runner and `app`, because it submits like a user and works like a worker.

pub mod backfills;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Fired},
    id::WorkerId,
    limit::{SCHEDULE_POLL, SCHEDULE_TROUBLE_WAIT, SCHEDULES_DECIDED_MAX},
    pipeline::{
        fire_times::FireTimes,
        schedule::{Schedule, decide},
    },
    store::{
        StoreError,
        schedules::{DecidedFires, DueSchedule},
    },
};

/// Fires the schedules of all tenants until it is told to stop. `worker` is this process's; `wake` says that there is
/// work, instead of leaving it to the next poll. The future may be dropped at any moment: what it had taken comes free with
/// the worker's session.
pub async fn fire_due_schedules(app: App, worker: WorkerId, wake: impl Fn(), stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let wait = match look(&app, worker, &wake, &stopping).await {
            Ok(()) => SCHEDULE_POLL,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "schedules cannot be fired for now");
                SCHEDULE_TROUBLE_WAIT
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// Decides what is due, and submits what was decided by anyone.
async fn look(app: &App, worker: WorkerId, wake: &impl Fn(), stopping: &CancellationToken) -> Result<(), StoreError> {
    loop {
        let due = app.store.list_due_schedules().await?;
        let mut decided = false;
        for schedule in &due {
            decided |= decide_fires(app, schedule).await?;
        }
        if !decided || due.len() < SCHEDULES_DECIDED_MAX as usize || stopping.is_cancelled() {
            break;
        }
    }
    while !stopping.is_cancelled() {
        let Some(fire) = app.store.take_due_fire(worker).await? else { break };
        let of_tenant = App { tenant: fire.tenant.clone(), ..app.clone() };
        match of_tenant.submit_fire(&fire).await? {
            Fired::Submitted(run) => {
                tracing::info!(run.id = %run, schedule.name = fire.name, pipeline.name = fire.pipeline, "a schedule fired");
                wake();
            }
            Fired::Failed(error) => {
                tracing::warn!(
                    schedule.name = fire.name,
                    pipeline.name = fire.pipeline,
                    error,
                    "a schedule could not run"
                );
            }
            Fired::NotDue => {}
        }
    }
    Ok(())
}

/// False: there is nothing that this process can do about it.
async fn decide_fires(app: &App, due: &DueSchedule) -> Result<bool, StoreError> {
    // A later version of this program may have written what this one cannot read: it fires that itself.
    let Some(decided) = decision(due) else {
        tracing::warn!(schedule.id = %due.id, "another version of flowstone wrote a schedule that this one cannot read");
        return Ok(false);
    };
    match app.store.record_fires(due, &decided).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            // The others must not wait for this one.
            tracing::error!(schedule.id = %due.id, error = &error as &dyn std::error::Error, "a schedule cannot be decided");
            Ok(false)
        }
    }
}

fn decision(due: &DueSchedule) -> Option<DecidedFires> {
    let schedule: Schedule = serde_json::from_value(due.settings.clone()).ok()?;
    let times = FireTimes::new(&schedule.cron, &schedule.time_zone).ok()?;
    let undecided = Timestamp::from_second(due.next_fire_s).ok()?;
    let now = Timestamp::from_millisecond(due.now_ms).ok()?;
    let decision = decide(&times, schedule.misfire, undecided, now);
    let second = Timestamp::as_second;
    Some(DecidedFires {
        run: decision.run.into_iter().map(second).collect(),
        missed: decision.missed.map(|(first, last)| (second(first), second(last))),
        next_fire_s: decision.next.map(second),
    })
}
