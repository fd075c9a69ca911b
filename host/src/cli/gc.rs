//! `flowstone gc`: what is old goes, and what nothing names.

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::Gc,
    figures::{bytes, count, plural},
    print::{self, Column},
    session::Session,
};
use crate::{
    collector::{Collected, collect, preview},
    limit::COLLECT_TROUBLE_WAIT,
    store::retention::Amount,
};

/// Removes it, after whoever else collects; or only says what would go.
pub(super) async fn run(session: &Session, args: &Gc) -> anyhow::Result<Exit> {
    let (store, blobs, keep) = (&session.app.store, &session.app.blobs, args.keep.keep());
    let collected = match args.dry_run {
        true => preview(store, blobs, &keep).await?,
        false => loop {
            if let Some(collected) = collect(store, blobs, &keep).await? {
                break collected;
            }
            session.talk.say("another process collects; waiting for it");
            tokio::time::sleep(COLLECT_TROUBLE_WAIT).await;
        },
    };
    match args.json {
        true => print::json(&in_json(&collected, args.dry_run))?,
        false => print::text(&render(&collected, args.dry_run))?,
    }
    if let Some(run) = collected.held_by {
        session.talk.say(format!(
            "run {run} is older than history is kept, and goes on: nothing of its time or later goes before it ends; \
             `flowstone status {run}` says why, `flowstone cancel {run}` ends it"
        ));
    }
    if !collected.days_in_use.is_empty() {
        let days = plural(collected.days_in_use.len() as u64, "table");
        session.talk.say(format!("{days} of old days are in use, by a long transaction perhaps; they go another time"));
    }
    Ok(Exit::Succeeded)
}

fn render(collected: &Collected, dry_run: bool) -> String {
    let columns = [
        Column::Text(if dry_run { "would be removed" } else { "removed" }),
        Column::Number("count"),
        Column::Number("bytes"),
    ];
    let of = |what: &str, amount: Amount| vec![what.to_owned(), count(amount.count), bytes(amount.bytes)];
    let number = |what: &str, number: u64| vec![what.to_owned(), count(number), String::new()];
    let rows = [
        of(
            &match &collected.history_before {
                Some(day) => format!("tables of days before {day}"),
                None => "tables of days of history".to_owned(),
            },
            collected.history,
        ),
        number("  runs", collected.runs),
        number("  jobs", collected.jobs),
        number("  backfills", collected.backfills),
        number("  fires that made no run", collected.fires),
        of("rows of the outbox", collected.outbox),
        of("rows of the audit", collected.audit),
        of("materializations' bytes, not their facts", collected.materializations),
        of("stored blobs that nothing names", collected.blobs),
        of("small blobs that nothing names", collected.inline),
        of("files that were never finished", collected.unfinished),
    ];
    print::table(&columns, rows, false)
}

fn in_json(collected: &Collected, dry_run: bool) -> Value {
    let of = |amount: Amount| json!({ "count": amount.count, "bytes": amount.bytes });
    let in_use = collected.days_in_use.iter().map(|day| json!({ "table": day.history, "day": day.day }));
    json!({
        "dry_run": dry_run,
        "history": {
            "before": collected.history_before,
            "tables": collected.history.count,
            "bytes": collected.history.bytes,
            "runs": collected.runs,
            "jobs": collected.jobs,
            "backfills": collected.backfills,
            "fires": collected.fires,
            "in_use": in_use.collect::<Vec<_>>(),
            "held_by": collected.held_by,
        },
        "outbox": of(collected.outbox),
        "audit": of(collected.audit),
        "materializations": of(collected.materializations),
        "blobs": of(collected.blobs),
        "inline_blobs": of(collected.inline),
        "unfinished": of(collected.unfinished),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_a_line_with_its_count_and_its_bytes() {
        let collected = Collected {
            history_before: Some("2026-10-31".to_owned()),
            history: Amount { count: 8, bytes: 123_456_789 },
            jobs: 1_200_000,
            runs: 24,
            blobs: Amount { count: 3, bytes: 4_096 },
            ..Collected::default()
        };
        let text = render(&collected, true);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 12, "{text}");
        assert_eq!(lines[0].join(" "), "would be removed count bytes");
        assert_eq!(lines[1].join(" "), "tables of days before 2026-10-31 8 117.7 MiB");
        assert_eq!(lines[2].join(" "), "runs 24");
        assert_eq!(lines[3].join(" "), "jobs 1.2 M");
        assert_eq!(lines[9].join(" "), "stored blobs that nothing names 3 4.0 KiB");
        assert!(render(&collected, false).starts_with("removed "));
    }
}
