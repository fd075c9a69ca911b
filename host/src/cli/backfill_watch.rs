//! `flowstone backfill watch`: follows a backfill until it goes no further.
//!
//! Its row is asked, a few times a second: nothing of it depends on who watches.

use anyhow::Context as _;

use super::{
    Exit,
    arguments::OneBackfill,
    backfill_id::find_backfill,
    backfill_status::{record_json, render},
    print,
    session::Session,
    signals::Signals,
};
use crate::{limit::BACKFILL_WATCH_POLL, store::backfills::BackfillRecord};

/// Follows one. Interrupting it ends only the watching.
pub(super) async fn run(session: &Session, args: &OneBackfill) -> anyhow::Result<Exit> {
    let app = &session.app;
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let id = find_backfill(&app.store, &app.tenant, &args.backfill).await?;
    let mut told = None;
    loop {
        let state = app.find_backfill(id).await?;
        let now = counts(&state.record);
        if told.as_ref() != Some(&now) {
            if args.json {
                print::json_line(&record_json(&state.record))?;
            } else {
                session.talk.say(&now);
            }
            told = Some(now);
        }
        if goes_no_further(&state.record) {
            if !args.json {
                print::text(&render(&state))?;
            }
            return Ok(if state.record.state == "succeeded" { Exit::Succeeded } else { Exit::Failed });
        }
        tokio::select! {
            () = tokio::time::sleep(BACKFILL_WATCH_POLL) => {}
            () = signals.next() => return Ok(Exit::Failed),
        }
    }
}

/// Nothing is in flight, and nothing comes without somebody's word.
fn goes_no_further(record: &BackfillRecord) -> bool {
    record.state != "running" && record.in_flight == 0
}

/// `running: 120 made, 2 failed, 50 in flight, 828 waiting`.
fn counts(record: &BackfillRecord) -> String {
    let counts = [
        (record.made, "made"),
        (record.up_to_date, "up to date"),
        (record.skipped, "skipped"),
        (record.failed, "failed"),
        (record.in_flight, "in flight"),
        (record.waiting, "waiting"),
    ];
    let present: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("{}: {}", record.state, present.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{super::backfill_status::tests::a_backfill, *};

    #[test]
    fn a_line_says_what_there_is() {
        let record = BackfillRecord { waiting: 0, ..a_backfill().record };
        assert_eq!(counts(&record), "running: 99994 made, 2 skipped, 4 failed, 10 in flight");
        assert!(!goes_no_further(&record));
        assert!(!goes_no_further(&BackfillRecord { state: "cancelled".into(), ..record.clone() }));
        assert!(goes_no_further(&BackfillRecord { state: "halted".into(), in_flight: 0, ..record }));
    }
}
