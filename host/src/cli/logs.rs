//! `flowstone logs`: the attempts of a run, each with how it ended, what it was denied, and what it said.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Exit, Mistake,
    arguments::Logs,
    figures::{bytes, count, duration_us, instant, job, partition, plural},
    print::{self, one_line},
    run_id,
    session::Session,
    status::list_all_jobs,
};
use crate::{
    id::{AttemptId, JobId, RunId},
    limit::{JOBS_LOGGED_AT_ONCE, LIST_ROWS_MAX, RUN_POLL},
    pipeline::{asset::Field, diagnostic::did_you_mean},
    store::runs::{AttemptLog, JobRecord},
};

/// Shows attempts, the oldest first.
pub(super) async fn run(session: &Session, args: &Logs) -> anyhow::Result<Exit> {
    let (store, tenant) = (&session.app.store, &*session.app.tenant);
    let run = run_id::find_run(store, tenant, &args.run).await?;
    let partition_key = match &args.asset {
        Some(asset) => find_partition(&list_all_jobs(store, tenant, run.id).await?, asset, args.partition.as_deref())?,
        None => None,
    };
    if args.follow {
        return follow(session, args, run.id, partition_key.as_deref()).await;
    }
    let attempts =
        store.list_attempts(tenant, run.id, args.asset.as_deref(), partition_key.as_deref(), LIST_ROWS_MAX).await?;
    if args.json {
        let attempts: Vec<Value> = attempts.iter().map(attempt_json).collect();
        print::json(&attempts)?;
    } else {
        // One attempt at a time: a thousand logs of a megabyte are not one text.
        for (i, attempt) in attempts.iter().enumerate() {
            let gap = if i > 0 { "\n" } else { "" };
            print::text(&format!("{gap}{}", render(attempt)))?;
        }
    }
    if attempts.is_empty() {
        session.talk.say(format!("nothing was attempted; `flowstone status {}` tells what became of the jobs", run.id));
    } else if attempts.len() as i64 == LIST_ROWS_MAX {
        session
            .talk
            .say(format!("there may be more than these {LIST_ROWS_MAX} attempts: name an asset or a partition"));
    }
    Ok(Exit::Succeeded)
}

/// Shows each attempt when it has ended, those that were there before first, until the run is over.
async fn follow(session: &Session, args: &Logs, run: RunId, partition_key: Option<&str>) -> anyhow::Result<Exit> {
    let (store, tenant) = (&session.app.store, &*session.app.tenant);
    let wanted = |job: &JobRecord| {
        args.asset.as_ref().is_none_or(|asset| *asset == job.asset)
            && partition_key.is_none_or(|key| key == job.partition_key)
    };
    let mut shown = Shown::default();
    loop {
        // Looked at first: what ends between the two is among the jobs that are read.
        let Some(record) = store.find_run(tenant, run).await? else { bail!("run {run} has disappeared") };
        let mut after = shown.ended_through;
        loop {
            let page = store.list_jobs(tenant, run, after, LIST_ROWS_MAX).await?;
            let more = shown.take_grown(page.iter().filter(|job| wanted(job)));
            for jobs in more.chunks(JOBS_LOGGED_AT_ONCE) {
                for attempt in store.list_attempts_of(tenant, jobs).await? {
                    if shown.attempts.insert(attempt.id) {
                        print(args, &attempt)?;
                    }
                }
            }
            shown.pass_ended(&page, after);
            after = page.last().map(|job| job.id).or(after);
            if (page.len() as i64) < LIST_ROWS_MAX {
                break;
            }
        }
        if record.state != "running" {
            return Ok(Exit::Succeeded);
        }
        tokio::time::sleep(RUN_POLL).await;
    }
}

fn print(args: &Logs, attempt: &AttemptLog) -> anyhow::Result<()> {
    if args.json {
        return print::json_line(&attempt_json(attempt));
    }
    print::text(&format!("{}\n", render(attempt)))
}

/// What `--follow` has shown. By counts and ids, not by times: clocks of several workers disagree.
#[derive(Default)]
struct Shown {
    attempts: HashSet<AttemptId>,
    /// Of jobs that have not ended yet, how many.
    counts: HashMap<JobId, i64>,
    /// All jobs up to this one have ended and were shown.
    ended_through: Option<JobId>,
}

impl Shown {
    /// The jobs that have more attempts than when they were looked at last.
    fn take_grown<'a>(&mut self, jobs: impl Iterator<Item = &'a JobRecord>) -> Vec<JobId> {
        let mut grown = Vec::new();
        for job in jobs {
            let known = self.counts.entry(job.id).or_default();
            if job.attempts > std::mem::replace(known, job.attempts) {
                grown.push(job.id);
            }
        }
        grown
    }

    /// Forgets what need not be looked at again.
    fn pass_ended(&mut self, page: &[JobRecord], after: Option<JobId>) {
        if after != self.ended_through {
            return;
        }
        let ended = page.iter().take_while(|job| job.ended_at_ms.is_some());
        for job in ended {
            self.counts.remove(&job.id);
            self.ended_through = Some(job.id);
        }
    }
}

/// The canonical text of the partition that is meant, among the jobs of the run.
fn find_partition(jobs: &[JobRecord], asset: &str, typed: Option<&str>) -> anyhow::Result<Option<String>> {
    let mut of_asset = jobs.iter().filter(|job| job.asset == asset).peekable();
    if of_asset.peek().is_none() {
        let known = jobs.iter().map(|job| &*job.asset);
        let hint = did_you_mean(asset, known).map(|hint| format!("; {hint}")).unwrap_or_default();
        bail!(Mistake(format!("the run has no job for an asset `{asset}`{hint}")));
    }
    let Some(typed) = typed else { return Ok(None) };
    let found = of_asset.find(|job| job.partition_key == typed || partition(&job.partition_key) == typed);
    match found {
        Some(job) => Ok(Some(job.partition_key.clone())),
        None => bail!(Mistake(format!("the run has no job for `{asset}` in the partition `{typed}`"))),
    }
}

/// A line of a log as it is stored.
#[derive(Deserialize)]
struct Line {
    level: String,
    message: String,
    #[serde(default)]
    fields: Vec<Field>,
}

/// A denial as it is stored.
#[derive(Deserialize)]
struct Denial {
    capability: String,
    resource: String,
    operation: String,
    #[serde(default)]
    target: String,
    remedy: String,
}

/// A use as it is stored.
#[derive(Deserialize)]
struct Use {
    capability: String,
    resource: String,
    operation: String,
    #[serde(default)]
    target: String,
    result: String,
    calls: u64,
    bytes: u64,
}

/// What is stored as a JSON array, read item by item: what another version wrote differently is left out, not fatal.
fn items<T: serde::de::DeserializeOwned>(stored: Option<&Value>) -> Vec<T> {
    let items = stored.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| T::deserialize(item).ok()).collect()
}

fn render(attempt: &AttemptLog) -> String {
    let AttemptLog { verdict, number, .. } = attempt;
    let name = job(&attempt.asset, &attempt.partition_key);
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
    let uncharged = if attempt.charged { "" } else { ", not charged" };
    line(format!("{}  attempt {number}  {verdict}{uncharged}", one_line(&name)));
    line(format!(
        "  {} UTC, {}, fuel {}, memory {}",
        instant(attempt.started_at_ms),
        duration_us(attempt.duration_us.max(0) as u64),
        count(attempt.fuel_used.max(0) as u64),
        bytes(attempt.memory_bytes_peak.max(0) as u64),
    ));
    for message in attempt.message.iter().flat_map(|message| message.lines()) {
        line(format!("  {}", one_line(message)));
    }
    for denial in items::<Denial>(attempt.denials.as_ref()) {
        let target = if denial.target.is_empty() { String::new() } else { format!(" of `{}`", denial.target) };
        let what = format!("{} `{}`: {}{target}", denial.capability, denial.resource, denial.operation);
        line(format!("  denied  {}", one_line(&what)));
        line(format!("          to grant it: {}", one_line(&denial.remedy)));
    }
    for used in items::<Use>(attempt.uses.as_ref()) {
        let target = if used.target.is_empty() { String::new() } else { format!(" `{}`", used.target) };
        let size = if used.bytes == 0 { String::new() } else { format!(", {}", bytes(used.bytes)) };
        let result = if used.result == "ok" { String::new() } else { format!(": {}", used.result) };
        let what = format!("{} `{}`: {}{target}", used.capability, used.resource, used.operation);
        line(format!("  used    {}  {}{size}{}", one_line(&what), plural(used.calls, "call"), one_line(&result)));
    }
    for logged in items::<Line>(attempt.log.as_ref()) {
        let fields = logged.fields.iter().map(|field| format!("  {}={}", field.name, field.value));
        let said = format!("{}{}", logged.message, fields.collect::<String>());
        line(format!("  {:<5}  {}", one_line(&logged.level), one_line(&said)).trim_end().to_owned());
    }
    if attempt.log_dropped > 0 {
        line(format!("  ... and {} more lines, past the asset's log limit", attempt.log_dropped));
    }
    text
}

fn attempt_json(attempt: &AttemptLog) -> Value {
    let label = partition(&attempt.partition_key);
    json!({
        "asset": attempt.asset,
        "partition": (!label.is_empty()).then_some(label),
        "partition_key": attempt.partition_key,
        "attempt": attempt.number,
        "verdict": attempt.verdict,
        "message": attempt.message,
        "charged": attempt.charged,
        "fuel_used": attempt.fuel_used,
        "memory_bytes_peak": attempt.memory_bytes_peak,
        "duration_us": attempt.duration_us,
        "started_at_ms": attempt.started_at_ms,
        "denials": attempt.denials.clone().unwrap_or_else(|| json!([])),
        "uses": attempt.uses.clone().unwrap_or_else(|| json!([])),
        "log": attempt.log.clone().unwrap_or_else(|| json!([])),
        "log_dropped": attempt.log_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::status::tests::a_job, *};

    fn an_attempt() -> AttemptLog {
        AttemptLog {
            id: AttemptId::new(),
            asset: "monthly".into(),
            partition_key: "month=month:2012-01".into(),
            number: 2,
            verdict: "denied".into(),
            message: Some("a path outside its directory\nsecond line\x1b".into()),
            charged: true,
            fuel_used: 5_000_000_000,
            memory_bytes_peak: 1_179_648,
            duration_us: 41_230,
            started_at_ms: 1_795_423_391_000,
            log: Some(json!([
                { "level": "info", "message": "three rows", "fields": [{ "name": "rows", "value": "3" }] },
                { "level": "warn", "message": "\u{1b}[31mforged\nline", "fields": [] },
                { "written": "by a later version" },
            ])),
            log_dropped: 7,
            denials: Some(json!([{
                "capability": "files", "resource": "station", "operation": "read", "target": "../secret",
                "remedy": "[assets.monthly] grants = { station = { access = \"read\", paths = [\"../secret\"] } }",
            }])),
            uses: Some(json!([
                { "capability": "files", "resource": "station", "operation": "read", "target": "a.csv", "result": "ok",
                  "calls": 2, "bytes": 48_219 },
                { "capability": "files", "resource": "station", "operation": "read", "target": "../secret",
                  "result": "denied", "calls": 1, "bytes": 0 },
            ])),
        }
    }

    #[test]
    fn an_attempt_is_shown_with_denials_and_lines() {
        insta::assert_snapshot!(render(&an_attempt()), @r#"
        monthly[2012-01]  attempt 2  denied
          2026-11-23 08:43:11 UTC, 41.2 ms, fuel 5.0 G, memory 1.1 MiB
          a path outside its directory
          second line␛
          denied  files `station`: read of `../secret`
                  to grant it: [assets.monthly] grants = { station = { access = "read", paths = ["../secret"] } }
          used    files `station`: read `a.csv`  2 calls, 47.1 KiB
          used    files `station`: read `../secret`  1 call: denied
          info   three rows  rows=3
          warn   ␛[31mforged␊line
          ... and 7 more lines, past the asset's log limit
        "#);
    }

    #[test]
    fn an_attempt_that_said_nothing_is_two_lines() {
        let lost = AttemptLog {
            message: None,
            log: None,
            log_dropped: 0,
            denials: None,
            uses: None,
            charged: false,
            verdict: "lost".into(),
            ..an_attempt()
        };
        insta::assert_snapshot!(render(&lost), @"
        monthly[2012-01]  attempt 2  lost, not charged
          2026-11-23 08:43:11 UTC, 41.2 ms, fuel 5.0 G, memory 1.1 MiB
        ");
    }

    #[test]
    fn partitions_are_found_as_they_are_typed_or_stored() {
        let jobs = [
            a_job("monthly", "month=month:2012-01", "succeeded", None),
            a_job("grid", "month=month:2012-01;region=static:eu", "succeeded", None),
            a_job("report", "none", "succeeded", None),
        ];
        let find = |asset, typed| find_partition(&jobs, asset, typed).map_err(|error| error.to_string());
        assert_eq!(find("monthly", Some("2012-01")).unwrap().as_deref(), Some("month=month:2012-01"));
        assert_eq!(find("monthly", Some("month=month:2012-01")).unwrap().as_deref(), Some("month=month:2012-01"));
        assert_eq!(
            find("grid", Some("month=2012-01,region=eu")).unwrap().as_deref(),
            Some("month=month:2012-01;region=static:eu")
        );
        assert_eq!(find("report", None).unwrap(), None);
        assert_eq!(
            find("reprot", None).unwrap_err(),
            "the run has no job for an asset `reprot`; did you mean `report`?"
        );
        assert_eq!(
            find("monthly", Some("2019-01")).unwrap_err(),
            "the run has no job for `monthly` in the partition `2019-01`"
        );
    }

    #[test]
    fn json_never_omits_a_list() {
        let value = attempt_json(&AttemptLog { log: None, denials: None, uses: None, ..an_attempt() });
        assert_eq!((&value["log"], &value["denials"], &value["uses"]), (&json!([]), &json!([]), &json!([])));
        assert_eq!(value["partition"], "2012-01");
    }
}
