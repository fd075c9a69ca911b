//! `flowstone pause`, `resume` and `pauses`: what an operator wants to wait.

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::{Pause, Pauses},
    figures::{instant, plural},
    print::{self, Column},
    session::Session,
};
use crate::{app::Pipeline, store::pauses::PauseRecord};

/// What becomes ready waits from now on.
pub(super) async fn pause(session: &Session, args: &Pause) -> anyhow::Result<Exit> {
    match subject(args) {
        Subject::Queue(queue) => session.app.pause_queue(queue).await?,
        Subject::Pipeline(pipeline) => {
            let pipeline = session.load_pipeline(pipeline).await?;
            session.app.pause(&pipeline, args.asset.as_deref()).await?;
        }
    }
    session.talk.say("paused: what runs goes on to its end, what becomes ready waits");
    Ok(Exit::Succeeded)
}

/// What waited can be claimed again.
pub(super) async fn resume(session: &Session, args: &Pause) -> anyhow::Result<Exit> {
    match subject(args) {
        Subject::Queue(queue) => {
            session.app.resume_queue(queue).await?;
            session.talk.say("resumed: its jobs can be claimed again");
        }
        Subject::Pipeline(pipeline) => {
            let pipeline = session.load_pipeline(pipeline).await?;
            let jobs = session.app.resume(&pipeline, args.asset.as_deref()).await?;
            session.talk.say(format!("resumed: {} can be claimed again", plural(jobs, "job")));
        }
    }
    Ok(Exit::Succeeded)
}

/// What is to be paused or resumed.
enum Subject<'a> {
    Queue(&'a str),
    Pipeline(&'a str),
}

fn subject(args: &Pause) -> Subject<'_> {
    match (&args.queue, &args.pipeline) {
        (Some(queue), _) => Subject::Queue(queue),
        (None, pipeline) => Subject::Pipeline(pipeline.as_deref().expect("the arguments require one of the two")),
    }
}

/// Lists the pauses that are on.
pub(super) async fn list(session: &Session, args: &Pauses) -> anyhow::Result<Exit> {
    let pauses = session.app.store.list_pauses(&session.app.tenant).await?;
    if args.json {
        print::json(&pauses.iter().map(pause_json).collect::<Vec<_>>())?;
    } else if pauses.is_empty() {
        session.talk.say("nothing is paused");
    } else {
        print::text(&render(&pauses))?;
    }
    Ok(Exit::Succeeded)
}

/// Tells whoever submits a run that it may have to wait.
pub(super) async fn warn(session: &Session, pipeline: &Pipeline) -> anyhow::Result<()> {
    for pause in session.app.list_pauses_of(pipeline).await? {
        let queue = pause.queue.map(|queue| format!("--queue {queue}"));
        let name = pause.pipeline.into_iter().chain(pause.asset).chain(queue).collect::<Vec<_>>().join(" ");
        session.talk.say(format!("`{name}` is paused: its jobs wait for `flowstone resume {name}`"));
    }
    Ok(())
}

fn render(pauses: &[PauseRecord]) -> String {
    let columns = [
        Column::Text("pipeline"),
        Column::Text("asset"),
        Column::Text("queue"),
        Column::Text("since (UTC)"),
        Column::Number("waiting jobs"),
    ];
    let all = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    let rows = pauses.iter().map(|pause| {
        let (pipeline, asset, queue) = (all(&pause.pipeline), all(&pause.asset), all(&pause.queue));
        vec![pipeline, asset, queue, instant(pause.paused_at_ms), pause.parked.to_string()]
    });
    print::table(&columns, rows, false)
}

fn pause_json(pause: &PauseRecord) -> Value {
    json!({
        "pipeline": pause.pipeline,
        "asset": pause.asset,
        "queue": pause.queue,
        "paused_at_ms": pause.paused_at_ms,
        "parked": pause.parked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_one_line() {
        let of = |pipeline: Option<&str>, asset: Option<&str>, queue: Option<&str>, parked| PauseRecord {
            pipeline: pipeline.map(Into::into),
            asset: asset.map(Into::into),
            queue: queue.map(Into::into),
            paused_at_ms: 1_795_423_391_000,
            parked,
        };
        let weather = Some("weather");
        let pauses =
            [of(weather, None, None, 1_200), of(weather, Some("monthly"), None, 3), of(None, None, Some("gpu"), 0)];
        insta::assert_snapshot!(render(&pauses), @"
        pipeline  asset    queue  since (UTC)          waiting jobs
        weather   all      all    2026-11-23 08:43:11          1200
        weather   monthly  all    2026-11-23 08:43:11             3
        all       all      gpu    2026-11-23 08:43:11             0
        ");
    }
}
