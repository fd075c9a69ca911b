//! `flowstone schedule`: one schedule enabled, disabled, run now, or asked when it fires next.

use serde_json::json;

use super::{
    Exit,
    arguments::{OneSchedule, ScheduleCommand},
    figures::instant,
    print::{self, Column},
    session::Session,
};
use crate::app::ScheduleState;

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &ScheduleCommand) -> anyhow::Result<Exit> {
    match command {
        ScheduleCommand::Enable(of) => set_enabled(session, of, true).await?,
        ScheduleCommand::Disable(of) => set_enabled(session, of, false).await?,
        ScheduleCommand::RunNow(of) => {
            let run = session.app.fire_by_hand(&find(session, of).await?).await?;
            session.talk.say(format!("run {run} is submitted; `flowstone status {run}` shows how it goes"));
        }
        ScheduleCommand::Next { of, limit, json } => {
            let state = find(session, of).await?;
            let times = session.app.list_fire_times(&state.schedule, usize::from(*limit)).await?;
            if *json {
                let times: Vec<i64> = times.iter().map(|at| at.as_millisecond()).collect();
                print::json(&json!({ "enabled": state.record.enabled, "fire_at_ms": times }))?;
                return Ok(Exit::Succeeded);
            }
            if !state.record.enabled {
                session.talk.say(format!("`{}` is disabled, and does not fire", of.name));
            }
            print::text(&render(&state.schedule.time_zone, &times))?;
        }
    }
    Ok(Exit::Succeeded)
}

async fn find(session: &Session, of: &OneSchedule) -> anyhow::Result<ScheduleState> {
    let pipeline = session.load_pipeline(&of.pipeline).await?;
    Ok(session.app.find_schedule(&pipeline.name, &of.name).await?)
}

async fn set_enabled(session: &Session, of: &OneSchedule, enabled: bool) -> anyhow::Result<()> {
    let state = find(session, of).await?;
    let changed = session.app.set_schedule_enabled(&state, enabled).await?;
    let (is, was) = if enabled { ("enabled", "was enabled already") } else { ("disabled", "was disabled already") };
    session.talk.say(format!("`{}` {}", of.name, if changed { format!("is {is}") } else { was.to_owned() }));
    Ok(())
}

/// In the schedule's own time, where clocks that change are seen, and in UTC.
fn render(time_zone: &str, times: &[jiff::Timestamp]) -> String {
    let zone = crate::pipeline::calendar::find_time_zone(time_zone);
    let columns = [Column::Text("local"), Column::Text("UTC")];
    let rows = times.iter().map(|at| {
        let local =
            zone.as_ref().map(|zone| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string());
        vec![local.unwrap_or_default(), instant(at.as_millisecond())]
    });
    print::table(&columns, rows, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fire_times_are_shown_in_both_times() {
        let times = ["2024-03-30T01:30:00Z", "2024-03-31T01:00:00Z"].map(|at| at.parse().unwrap());
        insta::assert_snapshot!(render("Europe/Berlin", &times), @"
        local                           UTC
        Sat 2024-03-30 02:30:00 +01:00  2024-03-30 01:30:00
        Sun 2024-03-31 03:00:00 +02:00  2024-03-31 01:00:00
        ");
    }
}
