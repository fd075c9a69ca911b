//! `flowstone status`: one run, its jobs by asset and state, and why those that are not well are not.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::Status,
    figures::{duration_ms, instant, job, partition, plural},
    print::{self, Column, one_line},
    run_id,
    runs::{run_json, state},
    session::Session,
    unserved,
};
use crate::{
    id::RunId,
    limit::{CAUSES_SHOWN_MAX, LIST_ROWS_MAX},
    store::{
        Store, StoreError,
        runs::{JobRecord, RunRecord},
        unserved::UnservedJobs,
    },
};

/// Shows a run. Looking at a failed run is no failure: the exit status tells of the look.
pub(super) async fn run(session: &Session, args: &Status) -> anyhow::Result<Exit> {
    let app = &session.app;
    let run = run_id::find_run(&app.store, &app.tenant, &args.run).await?;
    let jobs = list_all_jobs(&app.store, &app.tenant, run.id).await?;
    let unserved = app.store.list_unserved_jobs(&app.tenant, run.id).await?;
    if args.json {
        let mut value = run_json(&run);
        value["job_list"] = jobs.iter().map(job_json).collect();
        value["unserved"] = unserved::json(&unserved);
        print::json(&value)?;
    } else {
        print::text(&render(&run, &jobs, &unserved, print::is_terminal()))?;
    }
    Ok(Exit::Succeeded)
}

/// Every job of a run in the order of its plan, read page by page.
pub(super) async fn list_all_jobs(store: &Store, tenant: &str, run: RunId) -> Result<Vec<JobRecord>, StoreError> {
    let mut jobs: Vec<JobRecord> = Vec::new();
    loop {
        let page = store.list_jobs(tenant, run, jobs.last().map(|job| job.id), LIST_ROWS_MAX).await?;
        let full = page.len() as i64 == LIST_ROWS_MAX;
        jobs.extend(page);
        if !full {
            return Ok(jobs);
        }
    }
}

fn job_json(job: &JobRecord) -> Value {
    let label = partition(&job.partition_key);
    json!({
        "job": job.id,
        "asset": job.asset,
        "partition": (!label.is_empty()).then_some(label),
        "partition_key": job.partition_key,
        "reason": job.reason,
        "state": job.state,
        "cause": job.cause,
        "reused": job.reused,
        "materialization": job.materialization,
        "joined_run": job.joined_run,
        "attempts": job.attempts,
        "ended_at_ms": job.ended_at_ms,
    })
}

fn render(run: &RunRecord, jobs: &[JobRecord], unserved: &[UnservedJobs], terminal: bool) -> String {
    let mut text = format!("run       {}\npipeline  {} v{}\n", run.id, run.pipeline, run.version);
    let ended = run.succeeded + run.skipped + run.failed + run.cancelled;
    line(&mut text, format!("state     {}, {ended} of {} ended", state(run), plural(run.jobs as u64, "job")));
    let took = match run.finished_at_ms {
        Some(end) => format!(", took {}", duration_ms(end.abs_diff(run.created_at_ms))),
        None => String::new(),
    };
    line(&mut text, format!("began     {} UTC{took}", instant(run.created_at_ms)));
    if !jobs.is_empty() {
        text.push('\n');
        text.push_str(&by_asset(jobs, terminal));
    }
    if !unserved.is_empty() {
        text.push('\n');
        unserved::lines(unserved).iter().for_each(|told| line(&mut text, told));
    }
    for state in ["failed", "cancelled", "skipped", "running", "joined", "limited", "deferred", "paused"] {
        list_state(&mut text, state, jobs);
    }
    if jobs.iter().any(|job| job.state == "failed") {
        line(&mut text, format!("\nmore: flowstone logs {} ASSET", run.id));
    }
    text
}

fn line(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref());
    text.push('\n');
}

/// How many jobs of each asset are in each state; states that no job is in have no column.
fn by_asset(jobs: &[JobRecord], terminal: bool) -> String {
    const STATES: [&str; 11] = [
        "blocked",
        "ready",
        "deferred",
        "paused",
        "joined",
        "limited",
        "running",
        "succeeded",
        "skipped",
        "failed",
        "cancelled",
    ];
    let present: Vec<&'static str> =
        STATES.into_iter().filter(|state| jobs.iter().any(|job| job.state == *state)).collect();
    let mut assets: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut place = std::collections::HashMap::new();
    for job in jobs {
        let at = *place.entry(&*job.asset).or_insert_with(|| {
            assets.push((&job.asset, vec![0; present.len()]));
            assets.len() - 1
        });
        if let Some(column) = present.iter().position(|state| *state == job.state) {
            assets[at].1[column] += 1;
        }
    }
    let columns: Vec<Column> =
        std::iter::once(Column::Text("asset")).chain(present.into_iter().map(Column::Number)).collect();
    let row = |(asset, counts): (&str, Vec<usize>)| {
        std::iter::once(asset.to_owned()).chain(counts.iter().map(ToString::to_string)).collect()
    };
    print::table(&columns, assets.into_iter().map(row), terminal)
}

/// The jobs in a state, jobs of one asset with the same cause once.
fn list_state(text: &mut String, state: &str, jobs: &[JobRecord]) {
    let mut groups: Vec<(&JobRecord, usize)> = Vec::new();
    let mut place = std::collections::HashMap::new();
    for job in jobs.iter().filter(|job| job.state == state) {
        let at = *place.entry((&job.asset, &job.cause, job.joined_run)).or_insert_with(|| {
            groups.push((job, 0));
            groups.len() - 1
        });
        groups[at].1 += 1;
    }
    if groups.is_empty() {
        return;
    }
    write!(text, "\n{state}:\n").expect("writing to a string cannot fail");
    for (first, count) in groups.iter().take(CAUSES_SHOWN_MAX) {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let cause = match first.joined_run {
            Some(run) => format!(": run {run}"),
            None => first.cause.as_ref().map(|cause| format!(": {}", one_line(cause))).unwrap_or_default(),
        };
        line(text, format!("  {}{more}{cause}", one_line(&job(&first.asset, &first.partition_key))));
    }
    if let Some(more) = groups.len().checked_sub(CAUSES_SHOWN_MAX).filter(|more| *more > 0) {
        line(text, format!("  and {more} other causes"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::id::JobId;

    pub(crate) fn a_run() -> RunRecord {
        RunRecord {
            id: "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap(),
            pipeline: "weather".into(),
            version: 3,
            state: "failed".into(),
            jobs: 8,
            succeeded: 5,
            reused: 2,
            skipped: 1,
            failed: 2,
            cancelled: 0,
            created_at_ms: 1_795_423_391_000,
            finished_at_ms: Some(1_795_423_394_210),
            cancel_requested: false,
            request: json!({}),
        }
    }

    pub(crate) fn a_job(asset: &str, partition_key: &str, state: &str, cause: Option<&str>) -> JobRecord {
        JobRecord {
            id: JobId::new(),
            asset: asset.into(),
            partition_key: partition_key.into(),
            reason: "never materialized".into(),
            state: state.into(),
            cause: cause.map(Into::into),
            reused: false,
            materialization: None,
            joined_run: None,
            attempts: 1,
            ended_at_ms: None,
        }
    }

    #[test]
    fn a_run_is_shown_with_its_causes() {
        let jobs = [
            a_job("raw", "none", "succeeded", None),
            a_job("monthly", "month=month:2012-01", "succeeded", None),
            a_job("monthly", "month=month:2012-02", "failed", Some("out of fuel\nforged line\x1b[2J")),
            a_job("monthly", "month=month:2012-03", "failed", Some("out of fuel\nforged line\x1b[2J")),
            a_job("report", "none", "skipped", Some("input monthly[month=month:2012-02] was not made: it failed")),
        ];
        insta::assert_snapshot!(render(&a_run(), &jobs, &[], false), @"
        run       0193b5a0-1c2d-7abc-8def-0123456789ab
        pipeline  weather v3
        state     failed, 8 of 8 jobs ended
        began     2026-11-23 08:43:11 UTC, took 3.2 s

        asset    succeeded  skipped  failed
        raw              1        0       0
        monthly          1        0       2
        report           0        1       0

        failed:
          monthly[2012-02] and 1 more: out of fuel␊forged line␛[2J

        skipped:
          report: input monthly[month=month:2012-02] was not made: it failed

        more: flowstone logs 0193b5a0-1c2d-7abc-8def-0123456789ab ASSET
        ");
    }

    #[test]
    fn a_joined_job_is_shown_with_the_run_whose_job_it_waits_for() {
        let mut jobs = ["month=month:2012-01", "month=month:2012-02"].map(|key| a_job("monthly", key, "joined", None));
        jobs.iter_mut().for_each(|job| job.joined_run = Some(a_run().id));
        let text = render(&a_run(), &jobs, &[], false);
        let told = format!("\njoined:\n  monthly[2012-01] and 1 more: run {}\n", a_run().id);
        assert!(text.contains(&told), "{text}");
    }

    #[test]
    fn a_run_without_jobs_is_short() {
        let run = RunRecord { jobs: 0, succeeded: 0, skipped: 0, failed: 0, state: "succeeded".into(), ..a_run() };
        insta::assert_snapshot!(render(&run, &[], &[], false), @"
        run       0193b5a0-1c2d-7abc-8def-0123456789ab
        pipeline  weather v3
        state     succeeded, 0 of 0 jobs ended
        began     2026-11-23 08:43:11 UTC, took 3.2 s
        ");
    }

    #[test]
    fn many_causes_are_cut() {
        let jobs: Vec<JobRecord> =
            (0..CAUSES_SHOWN_MAX + 5).map(|n| a_job("a", "none", "failed", Some(&n.to_string()))).collect();
        let text = render(&a_run(), &jobs, &[], false);
        assert!(text.contains("  and 5 other causes\n"), "{text}");
    }
}
