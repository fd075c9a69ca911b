//! `flowstone backfill status`: a backfill's partitions by what became of them, and what failed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    arguments::OneBackfill,
    backfill_id::find_backfill,
    figures::{self, instant, plural},
    print::{self, one_line},
    session::Session,
};
use crate::{
    app::{BackfillState, FailedPartitions},
    id::{BackfillId, RunId},
    pipeline::backfill::Order,
    store::backfills::BackfillRecord,
};

/// Shows one.
pub(super) async fn run(session: &Session, args: &OneBackfill) -> anyhow::Result<()> {
    let app = &session.app;
    let id = find_backfill(&app.store, &app.tenant, &args.backfill).await?;
    let state = app.find_backfill(id).await?;
    if args.json {
        print::json(&state_json(&state))?;
    } else {
        print::text(&render(&state))?;
    }
    Ok(())
}

/// Enough of its id to tell it from others.
pub(super) fn short(id: BackfillId) -> String {
    figures::short(RunId(id.0))
}

pub(super) fn render(state: &BackfillState) -> String {
    let (record, settings) = (&state.record, &state.settings);
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
    let cause = record.cause.as_ref().map(|cause| format!(": {}", one_line(cause))).unwrap_or_default();
    line(format!("backfill {} of {} is {}{cause}", record.id, record.pipeline, record.state));
    line(format!("  assets      {}", one_line(&settings.assets.join(", "))));
    let order = match settings.order {
        Order::OldestFirst => "oldest first",
        Order::NewestFirst => "newest first",
    };
    let halts = match record.halt_after {
        None => "goes on whatever fails".to_owned(),
        Some(after) => format!("halts after {}", plural(after as u64, "failure")),
    };
    let typed = match &settings.partitions[..] {
        [] => "all".to_owned(),
        typed => one_line(&typed.join(" ")).into_owned(),
    };
    line(format!("  partitions  {typed}: {order}, {} at a time, {halts}", record.concurrency));
    line(format!("  began       {} UTC", instant(record.created_at_ms)));
    if let Some(finished_at_ms) = record.finished_at_ms {
        line(format!("  ended       {} UTC", instant(finished_at_ms)));
    }
    let counts = [
        ("made", record.made),
        ("up to date", record.up_to_date),
        ("skipped", record.skipped),
        ("failed", record.failed),
        ("in flight", record.in_flight),
        ("waiting", record.waiting),
    ];
    line(String::new());
    for (what, count) in counts.iter().filter(|(_, count)| *count > 0) {
        line(format!("  {count:>9} {what}"));
    }
    line(format!("  {:>9} in all", record.partitions));
    if !state.failures.is_empty() {
        line("\nfailed:".to_owned());
        for failure in &state.failures {
            let run = figures::short(failure.run);
            line(format!("  {}: {} (run {run})", one_line(&range(failure)), one_line(&failure.cause)));
        }
        let shown: u32 = state.failures.iter().map(|failure| failure.count).sum();
        let more = (record.failed as u32).saturating_sub(shown);
        if more > 0 {
            line(format!("  and {more} more"));
        }
    }
    text
}

/// `2012-01`, or `2012-01 .. 2012-03 (3)`.
fn range(failure: &FailedPartitions) -> String {
    match failure.count {
        1 => failure.first.label(),
        count => format!("{} .. {} ({count})", failure.first.label(), failure.last.label()),
    }
}

fn state_json(state: &BackfillState) -> Value {
    let failures = state.failures.iter().map(|failure| {
        json!({
            "first": failure.first.label(),
            "last": failure.last.label(),
            "partitions": failure.count,
            "run": failure.run,
            "cause": failure.cause,
        })
    });
    let mut value = record_json(&state.record);
    value["failures"] = failures.collect();
    value
}

/// A backfill for programs.
pub(super) fn record_json(record: &BackfillRecord) -> Value {
    json!({
        "backfill": record.id,
        "pipeline": record.pipeline,
        "state": record.state,
        "cause": record.cause,
        "request": record.settings,
        "concurrency": record.concurrency,
        "halt_after": record.halt_after,
        "partitions": record.partitions,
        "made": record.made,
        "up_to_date": record.up_to_date,
        "skipped": record.skipped,
        "failed": record.failed,
        "in_flight": record.in_flight,
        "waiting": record.waiting,
        "created_at_ms": record.created_at_ms,
        "finished_at_ms": record.finished_at_ms,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pipeline::backfill::BackfillSettings;

    pub(crate) fn a_backfill() -> BackfillState {
        let settings = BackfillSettings {
            assets: vec!["monthly".into()],
            partitions: vec!["2012-01..".into()],
            as_of_ms: 1_795_423_391_000,
            order: Order::NewestFirst,
            with_inputs: true,
            force: false,
        };
        let record = BackfillRecord {
            id: "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap(),
            pipeline: "weather".into(),
            settings: json!(settings),
            concurrency: 10,
            halt_after: Some(3),
            state: "running".into(),
            cause: None,
            partitions: 1_000_000,
            waiting: 899_990,
            in_flight: 10,
            up_to_date: 0,
            made: 99_994,
            skipped: 2,
            failed: 4,
            created_at_ms: 1_795_423_391_000,
            finished_at_ms: None,
        };
        BackfillState { record, settings, failures: vec![] }
    }

    fn failed(first: &str, last: &str, count: u32, cause: &str) -> FailedPartitions {
        FailedPartitions {
            first: format!("month=month:{first}").parse().unwrap(),
            last: format!("month=month:{last}").parse().unwrap(),
            count,
            run: "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap(),
            cause: cause.to_owned(),
        }
    }

    #[test]
    fn what_became_of_partitions_is_counted_and_failures_are_ranges() {
        let mut state = a_backfill();
        state.record.cause = Some("3 partitions failed".into());
        state.record.state = "halted".into();
        state.failures =
            vec![failed("2012-02", "2012-02", 1, "no rain\nforged line"), failed("2012-05", "2012-06", 2, "no sun")];
        insta::assert_snapshot!(render(&state), @"
        backfill 0193b5a0-1c2d-7abc-8def-0123456789ab of weather is halted: 3 partitions failed
          assets      monthly
          partitions  2012-01..: newest first, 10 at a time, halts after 3 failures
          began       2026-11-23 08:43:11 UTC

              99994 made
                  2 skipped
                  4 failed
                 10 in flight
             899990 waiting
            1000000 in all

        failed:
          2012-02: no rain␊forged line (run 0193b5a0-1c2d)
          2012-05 .. 2012-06 (2): no sun (run 0193b5a0-1c2d)
          and 1 more
        ");
        assert_eq!(state_json(&state)["failures"][1]["last"], "2012-06");
        assert_eq!(state_json(&state)["request"]["order"], "newest-first");
    }
}
