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
    let pipeline = session.load_pipeline(&args.pipeline).await?;
    session.app.pause(&pipeline, args.asset.as_deref()).await?;
    session.talk.say("paused: what runs goes on to its end, what becomes ready waits");
    Ok(Exit::Succeeded)
}

/// What waited can be claimed again.
pub(super) async fn resume(session: &Session, args: &Pause) -> anyhow::Result<Exit> {
    let pipeline = session.load_pipeline(&args.pipeline).await?;
    let jobs = session.app.resume(&pipeline, args.asset.as_deref()).await?;
    session.talk.say(format!("resumed: {} can be claimed again", plural(jobs, "job")));
    Ok(Exit::Succeeded)
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
        let name = std::iter::once(pause.pipeline).chain(pause.asset).collect::<Vec<_>>().join(" ");
        session.talk.say(format!("`{name}` is paused: its jobs wait for `flowstone resume {name}`"));
    }
    Ok(())
}

fn render(pauses: &[PauseRecord]) -> String {
    let columns =
        [Column::Text("pipeline"), Column::Text("asset"), Column::Text("since (UTC)"), Column::Number("waiting jobs")];
    let rows = pauses.iter().map(|pause| {
        let asset = pause.asset.clone().unwrap_or_else(|| "all".to_owned());
        vec![pause.pipeline.clone(), asset, instant(pause.paused_at_ms), pause.parked.to_string()]
    });
    print::table(&columns, rows, false)
}

fn pause_json(pause: &PauseRecord) -> Value {
    json!({
        "pipeline": pause.pipeline,
        "asset": pause.asset,
        "paused_at_ms": pause.paused_at_ms,
        "parked": pause.parked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_one_line() {
        let of = |asset: Option<&str>, parked| PauseRecord {
            pipeline: "weather".into(),
            asset: asset.map(Into::into),
            paused_at_ms: 1_795_423_391_000,
            parked,
        };
        insta::assert_snapshot!(render(&[of(None, 1_200), of(Some("monthly"), 3)]), @"
        pipeline  asset    since (UTC)          waiting jobs
        weather   all      2026-11-23 08:43:11          1200
        weather   monthly  2026-11-23 08:43:11             3
        ");
    }
}
