//! `flowstone backfill`: starting backfills, listing them, and saying how one is to go on.

use super::{
    Exit,
    arguments::{BackfillCommand, BackfillStart, Backfills},
    backfill_id::find_backfill,
    backfill_status, backfill_watch, deploy,
    figures::{instant, plural},
    plan,
    print::{self, Column},
    session::Session,
};
use crate::{app::BackfillRequest, pipeline::backfill::Order, store::backfills::BackfillRecord};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &BackfillCommand) -> anyhow::Result<Exit> {
    match command {
        BackfillCommand::Start(args) => start(session, args).await?,
        BackfillCommand::Status(of) => backfill_status::run(session, of).await?,
        BackfillCommand::List(args) => list(session, args).await?,
        BackfillCommand::Watch(of) => return backfill_watch::run(session, of).await,
        BackfillCommand::Pause(of) => pause(session, &of.backfill).await?,
        BackfillCommand::Resume(of) => resume(session, &of.backfill).await?,
        BackfillCommand::Retry(of) => retry(session, &of.backfill).await?,
        BackfillCommand::Cancel(of) => cancel(session, &of.backfill).await?,
    }
    Ok(Exit::Succeeded)
}

/// The id alone on stdout, so that another command can take it.
async fn start(session: &Session, args: &BackfillStart) -> anyhow::Result<()> {
    let (pipeline, deployed) = session.app.resolve_pipeline(&args.pipeline).await?;
    if let Some(deployed) = &deployed {
        deploy::tell(&session.talk, deployed);
    }
    if args.dry_run {
        let preview = session.app.preview_backfill(&pipeline, &request(args)).await?;
        return plan::tell_counts(&pipeline, &preview, args.json);
    }
    let started = session.app.start_backfill(&pipeline, &request(args)).await?;
    let assets = started.assets.join(", ");
    let partitions = plural(started.partitions.into(), "partition");
    session.talk.say(format!("backfill {} of {partitions} of {} is started", started.id, print::one_line(&assets)));
    session.talk.say(format!(
        "any process that is up releases it (`flowstone up` where there is none); `flowstone backfill status {}` shows how \
         it stands",
        started.id
    ));
    print::text(&format!("{}\n", started.id))?;
    Ok(())
}

fn request(args: &BackfillStart) -> BackfillRequest {
    BackfillRequest {
        assets: args.assets.clone(),
        partitions: args.partitions.clone(),
        with_inputs: !args.no_inputs,
        force: args.force,
        order: if args.newest_first { Order::NewestFirst } else { Order::OldestFirst },
        concurrency: args.concurrency,
        halt_after: args.halt_after,
    }
}

async fn pause(session: &Session, typed: &str) -> anyhow::Result<()> {
    let app = &session.app;
    let id = find_backfill(&app.store, &app.tenant, typed).await?;
    app.pause_backfill(id).await?;
    session.talk.say(format!(
        "backfill {id} is paused: nothing more is released, and what is in flight goes on; `flowstone backfill resume {id}` \
         ends the pause"
    ));
    Ok(())
}

async fn resume(session: &Session, typed: &str) -> anyhow::Result<()> {
    let app = &session.app;
    let id = find_backfill(&app.store, &app.tenant, typed).await?;
    app.resume_backfill(id).await?;
    session.talk.say(format!("backfill {id} goes on, released by any process that is up"));
    Ok(())
}

async fn retry(session: &Session, typed: &str) -> anyhow::Result<()> {
    let app = &session.app;
    let id = find_backfill(&app.store, &app.tenant, typed).await?;
    let failed = plural(app.retry_backfill(id).await?.into(), "partition");
    session
        .talk
        .say(format!("{failed} of backfill {id} that failed will be released once more, by any process that is up"));
    Ok(())
}

async fn cancel(session: &Session, typed: &str) -> anyhow::Result<()> {
    let app = &session.app;
    let id = find_backfill(&app.store, &app.tenant, typed).await?;
    let said = match app.cancel_backfill(id).await? {
        0 => "nothing of it was in flight".to_owned(),
        1 => "1 run of it is cancelled too, and what still runs is stopped by its worker".to_owned(),
        runs => format!("{runs} runs of it are cancelled too, and what still runs is stopped by its worker"),
    };
    session.talk.say(format!("backfill {id} is cancelled; {said}"));
    Ok(())
}

async fn list(session: &Session, args: &Backfills) -> anyhow::Result<()> {
    let app = &session.app;
    let pipeline = match &args.pipeline {
        Some(pipeline) => Some(session.load_pipeline(pipeline).await?.name),
        None => None,
    };
    let backfills = app.store.list_backfills(&app.tenant, pipeline.as_deref(), args.limit.into()).await?;
    if args.json {
        print::json(&backfills.iter().map(backfill_status::record_json).collect::<Vec<_>>())?;
    } else if backfills.is_empty() {
        session.talk.say("there are no backfills; `flowstone backfill start PIPELINE ASSET` makes one");
    } else {
        print::text(&render(&backfills))?;
    }
    Ok(())
}

/// Never framed or fitted: an id that is broken in two cannot be copied.
fn render(backfills: &[BackfillRecord]) -> String {
    let columns = [
        Column::Text("backfill"),
        Column::Text("pipeline"),
        Column::Text("state"),
        Column::Number("partitions"),
        Column::Number("made"),
        Column::Number("up to date"),
        Column::Number("skipped"),
        Column::Number("failed"),
        Column::Number("in flight"),
        Column::Number("waiting"),
        Column::Text("began (UTC)"),
    ];
    let rows = backfills.iter().map(|backfill| {
        let counts = [
            backfill.partitions,
            backfill.made,
            backfill.up_to_date,
            backfill.skipped,
            backfill.failed,
            backfill.in_flight,
            backfill.waiting,
        ];
        let mut row = vec![backfill_status::short(backfill.id), backfill.pipeline.clone(), backfill.state.clone()];
        row.extend(counts.map(|count| count.to_string()));
        row.push(instant(backfill.created_at_ms));
        row
    });
    print::table(&columns, rows, false)
}

#[cfg(test)]
mod tests {
    use super::{super::backfill_status::tests::a_backfill, *};

    #[test]
    fn a_backfill_is_one_line() {
        let halted = BackfillRecord { state: "halted".into(), waiting: 0, ..a_backfill().record };
        insta::assert_snapshot!(render(&[a_backfill().record, halted]), @"
        backfill       pipeline  state    partitions   made  up to date  skipped  failed  in flight  waiting  began (UTC)
        0193b5a0-1c2d  weather   running     1000000  99994           0        2       4         10   899990  2026-11-23 08:43:11
        0193b5a0-1c2d  weather   halted      1000000  99994           0        2       4         10        0  2026-11-23 08:43:11
        ");
    }
}
