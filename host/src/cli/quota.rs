//! `flowstone quota`: how much the attempts of a tenant may use in an hour, a day or a month.

use serde_json::{Value, json};

use super::{
    Exit, Mistake,
    arguments::{Measure, QuotaCommand},
    figures::{bytes, count, instant, plural},
    print::{self, Column},
    session::Session,
};
use crate::{
    pipeline::quantity::{parse_bytes, parse_fuel},
    store::quotas::QuotaRecord,
};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &QuotaCommand) -> anyhow::Result<Exit> {
    let app = &session.app;
    match command {
        QuotaCommand::Set { measure, amount, per } => {
            let amount = parse_amount(*measure, amount)?;
            app.store.set_quota(&app.tenant, measure.name(), amount, per.name()).await?;
            session.talk.say(format!(
                "at most {} of {} a {}",
                shown(measure.name(), amount),
                measure.name(),
                per.name()
            ));
        }
        QuotaCommand::List { json: true } => {
            let quotas = app.store.list_quotas(&app.tenant).await?;
            print::json(&quotas.iter().map(quota_json).collect::<Vec<_>>())?;
        }
        QuotaCommand::List { json: false } => {
            let quotas = app.store.list_quotas(&app.tenant).await?;
            match quotas.is_empty() {
                true => session.talk.say("there are no quotas; `flowstone quota set fuel 10T --per day` makes one"),
                false => print::text(&render(&quotas))?,
            }
        }
        QuotaCommand::Remove { measure } => {
            let Some(jobs) = app.store.remove_quota(&app.tenant, measure.name()).await? else {
                return Err(Mistake(format!(
                    "there is no quota of {}; `flowstone quota list` lists them",
                    measure.name()
                ))
                .into());
            };
            session.talk.say(format!("removed: {} that waited for it can be claimed", plural(jobs, "job")));
        }
    }
    Ok(Exit::Succeeded)
}

fn parse_amount(measure: Measure, text: &str) -> Result<i64, Mistake> {
    let (parsed, fix) = match measure {
        Measure::Fuel => (parse_fuel(text), "write a number with K, M, G or T, such as 10T"),
        Measure::Bytes => (parse_bytes(text), "write a size such as 500MiB or 2TiB"),
    };
    let amount = parsed.and_then(|amount| i64::try_from(amount).ok()).filter(|amount| *amount >= 1);
    amount.ok_or_else(|| Mistake(format!("`{}` is no amount of {}: {fix}", print::one_line(text), measure.name())))
}

fn shown(measure: &str, amount: i64) -> String {
    match measure {
        "bytes" => bytes(amount.unsigned_abs()),
        _ => count(amount.unsigned_abs()),
    }
}

fn render(quotas: &[QuotaRecord]) -> String {
    let columns = [
        Column::Text("quota"),
        Column::Number("used"),
        Column::Number("of"),
        Column::Text("per"),
        Column::Text("until (UTC)"),
        Column::Number("waiting jobs"),
    ];
    let rows = quotas.iter().map(|quota| {
        let amount = |amount| shown(&quota.measure, amount);
        let (used, of, until) = (amount(quota.used), amount(quota.amount), instant(quota.ends_at_ms));
        vec![quota.measure.clone(), used, of, quota.period.clone(), until, quota.waiting.to_string()]
    });
    print::table(&columns, rows, false)
}

fn quota_json(quota: &QuotaRecord) -> Value {
    json!({
        "quota": quota.measure,
        "used": quota.used,
        "amount": quota.amount,
        "per": quota.period,
        "ends_at_ms": quota.ends_at_ms,
        "waiting": quota.waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_one_line() {
        let quota = |measure: &str, used, amount, waiting| QuotaRecord {
            measure: measure.into(),
            amount,
            period: "day".into(),
            used,
            ends_at_ms: 1_795_478_400_000,
            waiting,
        };
        let quotas = [quota("fuel", 12_300_000_000_000, 10_000_000_000_000, 7), quota("bytes", 1_536, 10 << 30, 0)];
        insta::assert_snapshot!(render(&quotas), @"
        quota     used        of  per  until (UTC)          waiting jobs
        fuel    12.3 T    10.0 T  day  2026-11-24 00:00:00             7
        bytes  1.5 KiB  10.0 GiB  day  2026-11-24 00:00:00             0
        ");
    }

    #[test]
    fn an_amount_has_the_unit_of_what_is_measured() {
        assert_eq!(parse_amount(Measure::Fuel, "10T").unwrap(), 10_000_000_000_000);
        assert_eq!(parse_amount(Measure::Bytes, "2KiB").unwrap(), 2_048);
        for (measure, text) in [(Measure::Fuel, "0"), (Measure::Bytes, "10T"), (Measure::Fuel, "\x1b")] {
            let mistake = parse_amount(measure, text).unwrap_err().0;
            assert!(mistake.contains("is no amount of") && !mistake.contains('\x1b'), "{mistake}");
        }
    }
}
