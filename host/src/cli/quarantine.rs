//! `flowstone quarantine`: components that take their workers with them, and letting one run again.

use serde_json::{Value, json};

use super::{
    Exit, Mistake,
    arguments::QuarantineCommand,
    figures::instant,
    print::{self, Column, one_line},
    session::Session,
};
use crate::store::quarantine::QuarantineRecord;

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &QuarantineCommand) -> anyhow::Result<Exit> {
    let app = &session.app;
    let quarantined = app.store.list_quarantine(&app.tenant).await?;
    match command {
        QuarantineCommand::List { json: true } => {
            print::json(&quarantined.iter().map(record_json).collect::<Vec<_>>())?;
        }
        QuarantineCommand::List { json: false } if quarantined.is_empty() => {
            session.talk.say("no component is quarantined");
        }
        QuarantineCommand::List { json: false } => print::text(&render(&quarantined))?,
        QuarantineCommand::Lift { component } => {
            let record = find(&quarantined, component)?;
            if !app.store.lift_quarantine(&app.tenant, record.component).await? {
                return Err(Mistake(format!("component {} is not quarantined any more", record.component)).into());
            }
            session.talk.say("lifted: its jobs run again; `flowstone retry RUN` makes what failed for it");
        }
    }
    Ok(Exit::Succeeded)
}

/// The only one that begins so.
fn find<'q>(quarantined: &'q [QuarantineRecord], typed: &str) -> Result<&'q QuarantineRecord, Mistake> {
    let mut found =
        quarantined.iter().filter(|record| !typed.is_empty() && record.component.to_string().starts_with(typed));
    match (found.next(), found.next()) {
        (Some(record), None) => Ok(record),
        (None, _) => Err(Mistake(format!(
            "no component that begins with `{}` is quarantined; `flowstone quarantine list` lists those that are",
            one_line(typed)
        ))),
        (Some(_), Some(_)) => {
            Err(Mistake(format!("several begin with `{}`; type more of the digest", one_line(typed))))
        }
    }
}

fn render(quarantined: &[QuarantineRecord]) -> String {
    let columns = [
        Column::Text("component"),
        Column::Text("since (UTC)"),
        Column::Number("workers lost"),
        Column::Text("assets"),
    ];
    let rows = quarantined.iter().map(|record| {
        vec![
            record.component.to_string(),
            instant(record.quarantined_at_ms),
            record.deaths.to_string(),
            record.assets.join(", "),
        ]
    });
    print::table(&columns, rows, false)
}

fn record_json(record: &QuarantineRecord) -> Value {
    json!({
        "component": record.component,
        "quarantined_at_ms": record.quarantined_at_ms,
        "deaths": record.deaths,
        "assets": record.assets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Digest;

    fn record(first: u8) -> QuarantineRecord {
        QuarantineRecord {
            component: Digest([first; 32]),
            deaths: 3,
            quarantined_at_ms: 1_795_423_391_000,
            assets: vec!["weather raw".into(), "weather monthly".into()],
        }
    }

    #[test]
    fn a_component_is_one_line() {
        insta::assert_snapshot!(render(&[record(0xab)]), @"
        component                                                         since (UTC)          workers lost  assets
        abababababababababababababababababababababababababababababababab  2026-11-23 08:43:11             3  weather raw, weather monthly
        ");
    }

    #[test]
    fn a_component_is_named_by_as_much_of_its_digest_as_tells_it_from_others() {
        let quarantined = [record(0xab), record(0xac)];
        assert_eq!(find(&quarantined, "ab").unwrap(), &quarantined[0]);
        for (typed, told) in [("a", "several begin"), ("", "no component"), ("b\x1b", "no component")] {
            let mistake = find(&quarantined, typed).unwrap_err().0;
            assert!(mistake.contains(told) && !mistake.contains('\x1b'), "{mistake}");
        }
    }
}
