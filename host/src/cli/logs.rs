//! `flowstone logs`: the attempts of a run, each with how it ended, what it was denied, and what it said; of those that
//! still run, what they have said so far.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    time::Instant,
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
    id::{AttemptId, ClaimToken, JobId, RunId},
    limit::{LIST_ROWS_MAX, LOG_TELL_POLL, LOGS_AT_ONCE, RUN_POLL},
    pipeline::{asset::Field, diagnostic::did_you_mean},
    store::{Store, StoreError, attempts::AttemptLog, running_logs::TellingAttempt, runs::JobRecord},
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
    let (asset, key) = (args.asset.as_deref(), partition_key.as_deref());
    // Looked at first: what ends between the two is among those that have ended.
    let mut telling = store.list_telling_attempts(tenant, run.id, asset, key).await?;
    let attempts = store.list_attempts(tenant, run.id, asset, key, LIST_ROWS_MAX).await?;
    let ended: HashSet<_> = attempts.iter().map(|attempt| (attempt.job, attempt.token)).collect();
    telling.retain(|attempt| !ended.contains(&attempt.key()));
    let mut listing = Listing { json: args.json.then(Vec::new), shown: 0 };
    for attempt in &attempts {
        listing.show(|| attempt_json(attempt), || render(attempt, 0))?;
    }
    let unshown: Vec<_> = telling.into_iter().map(|attempt| (attempt, 0)).collect();
    for some in unshown.chunks(LOGS_AT_ONCE) {
        let mut over: HashSet<_> = some.iter().map(|(attempt, _)| attempt.key()).collect();
        for said in read_said(store, tenant, run.id, some).await? {
            over.remove(&said.attempt.key());
            listing.show(|| running_json(&said), || render_running(&said))?;
        }
        // Those that have ended meanwhile.
        let jobs: Vec<JobId> = over.iter().map(|(job, _)| *job).collect();
        let ended = store.list_attempts_of(tenant, &jobs).await?;
        for attempt in ended.iter().filter(|attempt| over.contains(&(attempt.job, attempt.token))) {
            listing.show(|| attempt_json(attempt), || render(attempt, 0))?;
        }
    }
    if listing.finish()? == 0 {
        session.talk.say(format!("nothing was attempted; `flowstone status {}` tells what became of the jobs", run.id));
    } else if attempts.len() as i64 == LIST_ROWS_MAX {
        session
            .talk
            .say(format!("there may be more than these {LIST_ROWS_MAX} attempts: name an asset or a partition"));
    }
    Ok(Exit::Succeeded)
}

/// Attempts as they are listed: as one JSON array, or one text after the other, because a thousand logs of a megabyte are
/// not one text.
struct Listing {
    json: Option<Vec<Value>>,
    shown: usize,
}

impl Listing {
    fn show(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let gap = if self.shown > 0 { "\n" } else { "" };
        self.shown += 1;
        match &mut self.json {
            Some(values) => values.push(json()),
            None => print::text(&format!("{gap}{}", text()))?,
        }
        Ok(())
    }

    /// Returns how many there were.
    fn finish(self) -> anyhow::Result<usize> {
        if let Some(values) = &self.json {
            print::json(values)?;
        }
        Ok(self.shown)
    }
}

/// What a running attempt has said, or what is new of it.
struct Said<'a> {
    attempt: &'a TellingAttempt,
    /// How many lines came before.
    first_line: usize,
    lines: Vec<Value>,
}

/// What is new of these attempts, of each of which so many lines are known; nothing of one that has ended meanwhile.
async fn read_said<'a>(
    store: &Store,
    tenant: &str,
    run: RunId,
    attempts: &'a [(TellingAttempt, usize)],
) -> Result<Vec<Said<'a>>, StoreError> {
    let after: Vec<_> = attempts.iter().map(|(attempt, known)| (attempt.key(), *known as i32)).collect();
    let mut told = store.read_told_lines(tenant, run, &after).await?.into_iter().peekable();
    let mut all = Vec::new();
    for (attempt, known) in attempts {
        let mut said = Said { attempt, first_line: *known, lines: Vec::new() };
        while let Some(told) = told.next_if(|told| told.attempt == attempt.key()) {
            // After a gap its record tells the rest: lines may have been refused, or told when they could not be added.
            if let Value::Array(lines) = told.lines
                && told.first_line as usize == known + said.lines.len()
            {
                said.lines.extend(lines);
            }
        }
        if !said.lines.is_empty() {
            all.push(said);
        }
    }
    Ok(all)
}

/// Shows what attempts say while they run, and each when it has ended, those that were there before first, until the run
/// is over.
async fn follow(session: &Session, args: &Logs, run: RunId, partition_key: Option<&str>) -> anyhow::Result<Exit> {
    let (store, tenant) = (&session.app.store, &*session.app.tenant);
    let wanted = |job: &JobRecord| {
        args.asset.as_ref().is_none_or(|asset| *asset == job.asset)
            && partition_key.is_none_or(|key| key == job.partition_key)
    };
    let mut shown = Shown::default();
    let mut looked_at: Option<Instant> = None;
    loop {
        // Looked at first: what ends between the two is among the jobs that are read.
        let Some(record) = store.find_run(tenant, run).await? else { bail!("run {run} has disappeared") };
        // Before the ends: what has ended is no longer here.
        if looked_at.is_none_or(|looked_at| looked_at.elapsed() >= LOG_TELL_POLL) {
            looked_at = Some(Instant::now());
            let telling = store.list_telling_attempts(tenant, run, args.asset.as_deref(), partition_key).await?;
            for some in shown.untold(telling).chunks(LOGS_AT_ONCE) {
                for said in read_said(store, tenant, run, some).await? {
                    print_said(args, &mut shown, &said)?;
                }
            }
        }
        let mut after = shown.ended_through;
        loop {
            let page = store.list_jobs(tenant, run, after, LIST_ROWS_MAX).await?;
            let more = shown.take_grown(page.iter().filter(|job| wanted(job)));
            for jobs in more.chunks(LOGS_AT_ONCE) {
                for attempt in store.list_attempts_of(tenant, jobs).await? {
                    if shown.attempts.insert(attempt.id) {
                        print_ended(args, &mut shown, &attempt)?;
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

/// An attempt that has ended, without the lines that were shown while it ran.
fn print_ended(args: &Logs, shown: &mut Shown, attempt: &AttemptLog) -> anyhow::Result<()> {
    let lines = shown.lines.remove(&(attempt.job, attempt.token)).unwrap_or_default();
    if args.json {
        return print::json_line(&attempt_json(attempt));
    }
    let gap = if shown.last.take().is_some() { "\n" } else { "" };
    print::text(&format!("{gap}{}\n", render(attempt, lines)))
}

/// What an attempt has said since: under its name, unless that is what was shown last.
fn print_said(args: &Logs, shown: &mut Shown, said: &Said<'_>) -> anyhow::Result<()> {
    let attempt = said.attempt.key();
    shown.lines.insert(attempt, said.first_line + said.lines.len());
    if args.json {
        return print::json_line(&running_json(said));
    }
    match shown.last.replace(attempt) {
        Some(last) if last == attempt => print::text(&render_lines(&said.lines)),
        Some(_) => print::text(&format!("\n{}", render_running(said))),
        None => print::text(&render_running(said)),
    }
}

/// What `--follow` has shown. By counts and ids, not by times: clocks of several workers disagree.
#[derive(Default)]
struct Shown {
    attempts: HashSet<AttemptId>,
    /// Of jobs that have not ended yet, how many.
    counts: HashMap<JobId, i64>,
    /// All jobs up to this one have ended and were shown.
    ended_through: Option<JobId>,
    /// Of attempts that run, how many lines.
    lines: HashMap<(JobId, ClaimToken), usize>,
    /// The attempt whose lines came last.
    last: Option<(JobId, ClaimToken)>,
}

impl Shown {
    /// Those that have told more than was shown, with how much that is.
    fn untold(&self, telling: Vec<TellingAttempt>) -> Vec<(TellingAttempt, usize)> {
        let known = |attempt: &TellingAttempt| self.lines.get(&attempt.key()).copied().unwrap_or_default();
        let pairs = telling.into_iter().map(|attempt| (known(&attempt), attempt));
        let new = pairs.filter(|(known, attempt)| attempt.last_line as usize >= *known);
        new.map(|(known, attempt)| (attempt, known)).collect()
    }

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

/// What is stored as a JSON array, if anything is.
fn array(stored: Option<&Value>) -> &[Value] {
    stored.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Read item by item: what another version wrote differently is left out, not fatal.
fn items<'a, T: Deserialize<'a>>(stored: &'a [Value]) -> impl Iterator<Item = T> {
    stored.iter().filter_map(|item| T::deserialize(item).ok())
}

/// With its log after the first so many lines.
fn render(attempt: &AttemptLog, lines_shown: usize) -> String {
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
    for denial in items::<Denial>(array(attempt.denials.as_ref())) {
        let target = if denial.target.is_empty() { String::new() } else { format!(" of `{}`", denial.target) };
        let what = format!("{} `{}`: {}{target}", denial.capability, denial.resource, denial.operation);
        line(format!("  denied  {}", one_line(&what)));
        line(format!("          to grant it: {}", one_line(&denial.remedy)));
    }
    for used in items::<Use>(array(attempt.uses.as_ref())) {
        let target = if used.target.is_empty() { String::new() } else { format!(" `{}`", used.target) };
        let size = if used.bytes == 0 { String::new() } else { format!(", {}", bytes(used.bytes)) };
        let result = if used.result == "ok" { String::new() } else { format!(": {}", used.result) };
        let what = format!("{} `{}`: {}{target}", used.capability, used.resource, used.operation);
        line(format!("  used    {}  {}{size}{}", one_line(&what), plural(used.calls, "call"), one_line(&result)));
    }
    text.push_str(&render_lines(array(attempt.log.as_ref()).get(lines_shown..).unwrap_or_default()));
    if attempt.log_dropped > 0 {
        text.push_str(&format!("  ... and {} more lines, past the asset's log limit\n", attempt.log_dropped));
    }
    text
}

fn render_running(said: &Said<'_>) -> String {
    let name = job(&said.attempt.asset, &said.attempt.partition_key);
    format!("{}  attempt {}  running\n{}", one_line(&name), said.attempt.number, render_lines(&said.lines))
}

fn render_lines(lines: &[Value]) -> String {
    let mut text = String::new();
    for logged in items::<Line>(lines) {
        let fields = logged.fields.iter().map(|field| format!("  {}={}", field.name, field.value));
        let said = format!("{}{}", logged.message, fields.collect::<String>());
        text.push_str(format!("  {:<5}  {}", one_line(&logged.level), one_line(&said)).trim_end());
        text.push('\n');
    }
    text
}

/// An attempt that still runs: no verdict, and what it has said so far or, when it is followed, since.
fn running_json(said: &Said<'_>) -> Value {
    let label = partition(&said.attempt.partition_key);
    json!({
        "job": said.attempt.job,
        "asset": said.attempt.asset,
        "partition": (!label.is_empty()).then_some(label),
        "partition_key": said.attempt.partition_key,
        "attempt": said.attempt.number,
        "verdict": null,
        "claimed_at_ms": said.attempt.claimed_at_ms,
        "first_line": said.first_line,
        "log": said.lines,
    })
}

fn attempt_json(attempt: &AttemptLog) -> Value {
    let label = partition(&attempt.partition_key);
    json!({
        "job": attempt.job,
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
            job: JobId::new(),
            token: ClaimToken::new(),
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
        insta::assert_snapshot!(render(&an_attempt(), 0), @r#"
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
    fn lines_that_were_shown_while_it_ran_are_not_shown_again() {
        let text = render(&an_attempt(), 1);
        assert!(text.contains("forged") && text.contains("7 more lines") && !text.contains("three rows"), "{text}");
        assert!(!render(&an_attempt(), 9).contains("forged"));
    }

    #[test]
    fn a_running_attempt_is_its_name_and_its_lines() {
        let ended = an_attempt();
        let attempt = TellingAttempt {
            job: ended.job,
            token: ended.token,
            asset: ended.asset,
            partition_key: ended.partition_key,
            number: 2,
            claimed_at_ms: 1_795_423_391_000,
            last_line: 0,
        };
        let lines = ended.log.unwrap().as_array().unwrap().clone();
        let said = Said { attempt: &attempt, first_line: 3, lines };
        insta::assert_snapshot!(render_running(&said), @r"
        monthly[2012-01]  attempt 2  running
          info   three rows  rows=3
          warn   ␛[31mforged␊line
        ");
        let value = running_json(&said);
        assert_eq!(
            (&value["verdict"], &value["first_line"], &value["partition"]),
            (&Value::Null, &json!(3), &json!("2012-01"))
        );
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
        insta::assert_snapshot!(render(&lost, 0), @"
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
