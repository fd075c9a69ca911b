//! `flowstone schedules`: what fires by itself, what came of it last, and when it fires next.

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::Schedules,
    figures::{instant, short},
    print::{self, Column, one_line},
    session::Session,
};
use crate::app::ScheduleState;

/// Lists schedules.
pub(super) async fn run(session: &Session, args: &Schedules) -> anyhow::Result<Exit> {
    let pipeline = match &args.pipeline {
        Some(pipeline) => Some(session.load_pipeline(pipeline).await?.name),
        None => None,
    };
    let schedules = session.app.list_schedules(pipeline.as_deref()).await?;
    if args.json {
        print::json(&schedules.iter().map(schedule_json).collect::<Vec<_>>())?;
    } else if schedules.is_empty() {
        session.talk.say("there are no schedules; a manifest declares one with [schedules.NAME]");
    } else {
        print::text(&render(&schedules))?;
    }
    Ok(Exit::Succeeded)
}

/// Never framed or fitted: an id that is broken in two cannot be copied.
fn render(schedules: &[ScheduleState]) -> String {
    let columns = [
        Column::Text("pipeline"),
        Column::Text("schedule"),
        Column::Text("cron"),
        Column::Text("time zone"),
        Column::Text("enabled"),
        Column::Text("next (UTC)"),
        Column::Text("last (UTC)"),
        Column::Text("what came of it"),
    ];
    let rows = schedules.iter().map(|state| {
        let last = state.record.last.as_ref();
        let none = || "-".to_owned();
        vec![
            state.record.pipeline.clone(),
            state.record.name.clone(),
            state.schedule.cron.clone(),
            state.schedule.time_zone.clone(),
            if state.record.enabled { "yes" } else { "no" }.to_owned(),
            state.next.map_or_else(none, |next| instant(next.as_millisecond())),
            last.map_or_else(none, |last| instant(last.fire_at_ms)),
            last.map_or_else(none, |last| match (last.run, &last.error) {
                (Some(run), _) => format!("run {}", short(run)),
                (None, Some(error)) => format!("failed: {}", one_line(error)),
                (None, None) => last.state.clone(),
            }),
        ]
    });
    print::table(&columns, rows, false)
}

fn schedule_json(state: &ScheduleState) -> Value {
    let last = state.record.last.as_ref().map(|last| {
        json!({
            "fire_at_ms": last.fire_at_ms,
            "cause": last.cause,
            "state": last.state,
            "run": last.run,
            "error": last.error,
        })
    });
    json!({
        "pipeline": state.record.pipeline,
        "schedule": state.record.name,
        "cron": state.schedule.cron,
        "time_zone": state.schedule.time_zone,
        "assets": state.schedule.assets,
        "partition": state.schedule.partition,
        "misfire": state.schedule.misfire,
        "enabled": state.record.enabled,
        "next_fire_at_ms": state.next.map(|next| next.as_millisecond()),
        "last_fire": last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::ScheduleId,
        pipeline::schedule::{Misfire, Schedule},
        store::schedules::{FireRecord, ScheduleRecord},
    };

    fn a_schedule(enabled: bool, last: Option<FireRecord>) -> ScheduleState {
        let schedule = Schedule {
            cron: "0 6 * * *".into(),
            time_zone: "Europe/Berlin".into(),
            assets: vec![],
            partition: None,
            misfire: Misfire::CatchUp(3),
        };
        let next = enabled.then(|| "2026-11-24T05:00:00Z".parse().unwrap());
        let settings = json!(schedule);
        let (pipeline, name) = ("weather".into(), "nightly".into());
        ScheduleState {
            record: ScheduleRecord { id: ScheduleId::new(), pipeline, name, settings, enabled, last },
            schedule,
            next,
        }
    }

    fn fired(state: &str, run: Option<&str>, error: Option<&str>) -> Option<FireRecord> {
        let run = run.map(|run| run.parse().unwrap());
        let (cause, state, error) = ("clock".into(), state.into(), error.map(Into::into));
        Some(FireRecord { fire_at_ms: 1_795_410_000_000, cause, state, run, error })
    }

    #[test]
    fn a_schedule_is_one_line() {
        let schedules = [
            a_schedule(true, fired("submitted", Some("0193b5a0-1c2d-7abc-8def-0123456789ab"), None)),
            a_schedule(true, fired("failed", None, Some("cannot read data\nforged line\x1b[2J"))),
            a_schedule(false, fired("missed", None, None)),
            a_schedule(true, None),
        ];
        insta::assert_snapshot!(render(&schedules), @"
        pipeline  schedule  cron       time zone      enabled  next (UTC)           last (UTC)           what came of it
        weather   nightly   0 6 * * *  Europe/Berlin  yes      2026-11-24 05:00:00  2026-11-23 05:00:00  run 0193b5a0-1c2d
        weather   nightly   0 6 * * *  Europe/Berlin  yes      2026-11-24 05:00:00  2026-11-23 05:00:00  failed: cannot read data␊forged line␛[2J
        weather   nightly   0 6 * * *  Europe/Berlin  no       -                    2026-11-23 05:00:00  missed
        weather   nightly   0 6 * * *  Europe/Berlin  yes      2026-11-24 05:00:00  -                    -
        ");
    }

    #[test]
    fn json_has_the_settings_and_the_full_id() {
        let state = a_schedule(true, fired("submitted", Some("0193b5a0-1c2d-7abc-8def-0123456789ab"), None));
        let said = schedule_json(&state);
        assert_eq!(said["last_fire"]["run"], "0193b5a0-1c2d-7abc-8def-0123456789ab");
        assert_eq!((&said["misfire"], &said["partition"]), (&json!({ "catch-up": 3 }), &Value::Null));
        assert_eq!(said["next_fire_at_ms"], 1_795_496_400_000_i64);
    }
}
