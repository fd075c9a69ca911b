//! `flowstone runs`: the newest runs, one a line.

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::Runs,
    figures::{duration_ms, instant, short},
    print::{self, Column},
    session::Session,
};
use crate::store::runs::RunRecord;

/// Lists runs.
pub(super) async fn run(session: &Session, args: &Runs) -> anyhow::Result<Exit> {
    let app = &session.app;
    let runs = app.store.list_runs(&app.tenant, args.pipeline.as_deref(), args.limit.into()).await?;
    if args.json {
        let runs: Vec<Value> = runs.iter().map(run_json).collect();
        print::json(&runs)?;
    } else if runs.is_empty() {
        session.talk.say("there are no runs yet; `flowstone run PIPELINE` makes one");
    } else {
        print::text(&render(&runs))?;
    }
    Ok(Exit::Succeeded)
}

/// Never framed or fitted: an id that is broken in two cannot be copied.
fn render(runs: &[RunRecord]) -> String {
    let columns = [
        Column::Text("run"),
        Column::Text("pipeline"),
        Column::Text("state"),
        Column::Number("jobs"),
        Column::Text("ended"),
        Column::Text("began (UTC)"),
        Column::Text("took"),
    ];
    let rows = runs.iter().map(|run| {
        let took = run.finished_at_ms.map(|end| duration_ms(end.abs_diff(run.created_at_ms)));
        vec![
            short(run.id),
            format!("{} v{}", run.pipeline, run.version),
            state(run).to_owned(),
            run.jobs.to_string(),
            ended(run),
            instant(run.created_at_ms),
            took.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    print::table(&columns, rows, false)
}

/// `52 made, 1 failed`: how jobs ended, where any did.
fn ended(run: &RunRecord) -> String {
    let counts = [
        (run.succeeded - run.reused, "made"),
        (run.reused, "reused"),
        (run.skipped, "skipped"),
        (run.failed, "failed"),
        (run.cancelled, "cancelled"),
    ];
    let present: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    if present.is_empty() { "-".to_owned() } else { present.join(", ") }
}

/// The run's state in words: a run that is asked to end says so.
pub(super) fn state(run: &RunRecord) -> &str {
    if run.state == "running" && run.cancel_requested { "running, being cancelled" } else { &run.state }
}

/// A run for programs.
pub(super) fn run_json(run: &RunRecord) -> Value {
    json!({
        "run": run.id,
        "pipeline": run.pipeline,
        "version": run.version,
        "state": run.state,
        "jobs": run.jobs,
        "succeeded": run.succeeded,
        "reused": run.reused,
        "skipped": run.skipped,
        "failed": run.failed,
        "cancelled": run.cancelled,
        "created_at_ms": run.created_at_ms,
        "finished_at_ms": run.finished_at_ms,
        "cancel_requested": run.cancel_requested,
        "request": run.request,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::status::tests::a_run, *};

    #[test]
    fn a_run_is_one_line() {
        let going = RunRecord { state: "running".into(), finished_at_ms: None, cancel_requested: true, ..a_run() };
        insta::assert_snapshot!(render(&[a_run(), going]), @"
        run            pipeline    state                     jobs  ended                                  began (UTC)          took
        0193b5a0-1c2d  weather v3  failed                       8  3 made, 2 reused, 1 skipped, 2 failed  2026-11-23 08:43:11  3.2 s
        0193b5a0-1c2d  weather v3  running, being cancelled     8  3 made, 2 reused, 1 skipped, 2 failed  2026-11-23 08:43:11  -
        ");
    }

    #[test]
    fn json_has_the_full_id_and_the_plain_counts() {
        let run = run_json(&a_run());
        assert_eq!(run["run"], "0193b5a0-1c2d-7abc-8def-0123456789ab");
        assert_eq!((&run["succeeded"], &run["reused"]), (&json!(5), &json!(2)));
        assert_eq!(run["state"], "failed");
    }
}
