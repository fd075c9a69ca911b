//! `run --json`: one event a line on stdout. The schema is in `docs/events.md`, and a test holds the two together.

use std::time::Instant;

use serde::Serialize;

use super::{
    board::{Board, Named},
    reporter::{Begun, Notice, Outcome, Reporter},
};
use crate::{
    cli::{figures, print},
    id::{JobId, MaterializationId, RunId},
};

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event")]
pub enum Event<'a> {
    /// The run is submitted.
    #[serde(rename = "run.started")]
    RunStarted {
        /// Its id.
        run: RunId,
        /// Of which pipeline.
        pipeline: &'a str,
        /// Of which version.
        version: i32,
        /// How many jobs it has.
        jobs: usize,
        /// Partitions that need none; null for whoever only watches.
        up_to_date: Option<u64>,
    },
    /// An attempt begins.
    #[serde(rename = "job.started")]
    JobStarted {
        /// Which job.
        #[serde(flatten)]
        of: Of<'a>,
    },
    /// A job will be tried again.
    #[serde(rename = "job.deferred")]
    JobDeferred {
        /// Which job.
        #[serde(flatten)]
        of: Of<'a>,
        /// Why.
        cause: &'a str,
        /// In how long.
        wait_ms: u64,
    },
    /// A job waits for the same job of another run, and takes its end.
    #[serde(rename = "job.joined")]
    JobJoined {
        /// Which job.
        #[serde(flatten)]
        of: Of<'a>,
        /// The other run.
        joined_run: RunId,
    },
    /// A job waits, because something that it shares with others is used up for now.
    #[serde(rename = "job.limited")]
    JobLimited {
        /// Which job.
        #[serde(flatten)]
        of: Of<'a>,
        /// What that is.
        cause: &'a str,
    },
    /// A job ended, and the database says so.
    #[serde(rename = "job.ended")]
    JobEnded {
        /// Which job.
        #[serde(flatten)]
        of: Of<'a>,
        /// How.
        state: &'a str,
        /// Why, unless it succeeded.
        cause: Option<&'a str>,
        /// Whether it succeeded without running.
        reused: bool,
        /// What it made or found, when it succeeded.
        materialization: Option<MaterializationId>,
    },
    /// The host is in trouble; the run waits for its end.
    #[serde(rename = "trouble")]
    Trouble {
        /// What is wrong.
        message: &'a str,
    },
    /// This process was asked to stop before the run was over. The last line.
    #[serde(rename = "run.interrupted")]
    RunInterrupted {
        /// Its id.
        run: RunId,
        /// How many jobs it has.
        jobs: usize,
        /// How many of them ended.
        ended: usize,
    },
    /// The run is over. The last line.
    #[serde(rename = "run.finished")]
    RunFinished {
        /// Its id.
        run: RunId,
        /// How.
        state: &'a str,
        /// In all.
        jobs: i32,
        /// By how they ended.
        succeeded: i32,
        /// Of those that succeeded, without running.
        reused: i32,
        /// By how they ended.
        skipped: i32,
        /// By how they ended.
        failed: i32,
        /// By how they ended.
        cancelled: i32,
        /// From the first event to this one.
        duration_ms: u64,
    },
}

impl<'a> Event<'a> {
    /// The first one of a run.
    pub fn started(begun: Begun<'a>, jobs: usize) -> Self {
        let Begun { run, pipeline, version, up_to_date } = begun;
        Self::RunStarted { run, pipeline, version, jobs, up_to_date }
    }
}

/// The job of an event.
#[derive(Debug, Serialize)]
pub struct Of<'a> {
    run: RunId,
    job: JobId,
    asset: &'a str,
    /// As a person writes it; null for an asset without partitions.
    partition: Option<String>,
    /// Canonical text.
    partition_key: &'a str,
}

impl<'a> Of<'a> {
    fn new(run: RunId, job: JobId, named: Named<'a>) -> Self {
        let label = figures::partition(named.partition_key);
        Self {
            run,
            job,
            asset: named.asset,
            partition: (!label.is_empty()).then_some(label),
            partition_key: named.partition_key,
        }
    }
}

/// Events on stdout.
pub struct Events {
    run: Option<RunId>,
    begun_at: Instant,
    closed: bool,
}

impl Events {
    /// Nothing is written before the run begins.
    pub fn new() -> Self {
        Self { run: None, begun_at: Instant::now(), closed: false }
    }

    /// A reader that has gone, or a full disk, is no reason to stop the run: its results are in the database.
    fn write(&mut self, event: &Event<'_>) {
        if self.closed {
            return;
        }
        if let Err(error) = print::json_line(event) {
            self.closed = true;
            if !error.is::<print::Closed>() {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "no more events are written; the run goes on"
                );
            }
        }
    }
}

impl Reporter for Events {
    fn begin(&mut self, begun: Begun<'_>, board: &Board) {
        (self.run, self.begun_at) = (Some(begun.run), Instant::now());
        self.write(&Event::started(begun, board.jobs()));
    }

    fn note(&mut self, notice: Notice<'_>, _: &Board) {
        if let Some(run) = self.run {
            self.write(&event(run, notice));
        }
    }

    fn tick(&mut self, _: &Board) {}

    fn end(&mut self, outcome: Outcome<'_>, board: &Board) {
        let Some(run) = self.run else { return };
        let duration_ms = self.begun_at.elapsed().as_millis() as u64;
        self.write(&match outcome {
            Outcome::Interrupted | Outcome::Left => {
                Event::RunInterrupted { run, jobs: board.jobs(), ended: board.ended }
            }
            Outcome::Finished(record) => Event::RunFinished {
                run,
                state: &record.state,
                jobs: record.jobs,
                succeeded: record.succeeded,
                reused: record.reused,
                skipped: record.skipped,
                failed: record.failed,
                cancelled: record.cancelled,
                duration_ms,
            },
        });
    }
}

fn event(run: RunId, notice: Notice<'_>) -> Event<'_> {
    match notice {
        Notice::Started(job, named) => Event::JobStarted { of: Of::new(run, job, named) },
        Notice::Deferred { job, named, cause, wait_ms } => {
            Event::JobDeferred { of: Of::new(run, job, named), cause, wait_ms }
        }
        Notice::Joined { job, named, joined } => Event::JobJoined { of: Of::new(run, job, named), joined_run: joined },
        Notice::Limited { job, named, cause } => Event::JobLimited { of: Of::new(run, job, named), cause },
        Notice::Ended { job, named, end, materialization } => Event::JobEnded {
            of: Of::new(run, job, named),
            state: end.state,
            cause: end.cause,
            reused: end.reused,
            materialization,
        },
        Notice::Trouble(message) => Event::Trouble { message },
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::board::tests::{FAILED, MADE, a_board},
        *,
    };

    const DOCUMENT: &str = include_str!("../../../../docs/events.md");

    fn examples() -> Vec<serde_json::Value> {
        let lines = DOCUMENT.lines().filter(|line| line.starts_with("{\"event\""));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// One of each, as they are written.
    fn written() -> Vec<serde_json::Value> {
        let run: RunId = "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap();
        let (board, ids) = a_board(&[]);
        let named = board.find(ids[1]).unwrap();
        let made = MaterializationId::new();
        let events = [
            Event::RunStarted { run, pipeline: "weather", version: 3, jobs: 54, up_to_date: Some(0) },
            event(run, Notice::Started(ids[1], named)),
            event(run, Notice::Deferred { job: ids[1], named, cause: "busy", wait_ms: 1_000 }),
            event(run, Notice::Ended { job: ids[1], named, end: MADE, materialization: Some(made) }),
            event(run, Notice::Ended { job: ids[1], named, end: FAILED, materialization: None }),
            event(run, Notice::Joined { job: ids[1], named, joined: run }),
            event(run, Notice::Limited { job: ids[1], named, cause: "the pool `db` is full" }),
            event(run, Notice::Trouble("the database is unavailable")),
            Event::RunInterrupted { run, jobs: 54, ended: 12 },
            Event::RunFinished {
                run,
                state: "failed",
                jobs: 54,
                succeeded: 52,
                reused: 1,
                skipped: 1,
                failed: 1,
                cancelled: 0,
                duration_ms: 812,
            },
        ];
        events.iter().map(|event| serde_json::to_value(event).unwrap()).collect()
    }

    #[test]
    fn the_documented_examples_have_the_fields_that_are_written() {
        let fields = |event: &serde_json::Value| -> (String, Vec<String>) {
            let mut names: Vec<String> = event.as_object().unwrap().keys().cloned().collect();
            names.sort();
            (event["event"].as_str().unwrap().to_owned(), names)
        };
        let mut documented: Vec<_> = examples().iter().map(fields).collect();
        let mut written: Vec<_> = written().iter().map(fields).collect();
        for list in [&mut documented, &mut written] {
            list.sort();
            list.dedup();
        }
        assert_eq!(documented, written);
    }

    #[test]
    fn every_field_is_explained() {
        for event in written() {
            for field in event.as_object().unwrap().keys() {
                assert!(DOCUMENT.contains(&format!("`{field}`")), "docs/events.md does not explain {field}");
            }
        }
    }

    #[test]
    fn absent_is_null_and_never_left_out() {
        let [.., _, finished] = &written()[..] else { unreachable!("there are several") };
        assert_eq!(finished["cancelled"], 0);
        let failed = &written()[4];
        assert!(failed["materialization"].is_null() && failed["cause"].is_string());
        let made = &written()[3];
        assert!(made["materialization"].is_string() && made["cause"].is_null());
    }
}
