//! Spans of what the runner does: run > job > attempt > call of a capability. Made only when somebody takes them.
//!
//! Ids are those of the rows: a run's id is its trace, and the ends of ids are spans, so that spans which different
//! workers make of one run fit together and nothing has to be handed on. A run and a job begin when they were submitted,
//! by the clock of the process that did it, which their ids carry.
//!
//! Whoever takes spans gets them through a queue with an end: what does not fit is dropped and counted, and nobody waits.

use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Shared, known::KnownJob};
use crate::{
    blob::Digest,
    capability::Call,
    id::{JobId, RunId},
    store::commit::{AttemptRecord, Committed, FinishedJob},
};

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Of the run.
    pub trace: [u8; 16],
    /// Its own.
    pub id: [u8; 8],
    /// The span that it is a part of; none of a run.
    pub parent: Option<[u8; 8]>,
    /// `run`, `job`, `attempt`, or the function that was called.
    pub name: Cow<'static, str>,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, when it did.
    pub error: Option<String>,
}

/// What an attribute is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

/// Who takes spans.
pub type SpanSink = mpsc::Sender<Span>;

impl Shared {
    /// Whether anybody takes spans.
    pub(super) fn is_traced(&self) -> bool {
        self.spans.get().is_some()
    }

    fn emit(&self, span: Span) {
        if let Some(spans) = self.spans.get()
            && spans.try_send(span).is_err()
        {
            self.meters.spans_dropped.inc();
        }
    }

    /// An attempt that is over, and what it called.
    pub(super) fn trace_attempt(&self, job: &KnownJob, attempt: &AttemptRecord, begun: Instant, calls: Vec<Call>) {
        if !self.is_traced() {
            return;
        }
        let (now, ended) = (Instant::now(), SystemTime::now());
        let at = |instant: Instant| ended.checked_sub(now.saturating_duration_since(instant)).unwrap_or(ended);
        let (trace, id) = (job.run.0.into_bytes(), span_id(attempt.id.0));
        for (number, call) in calls.into_iter().enumerate() {
            self.emit(Span {
                trace,
                id: call_span_id(attempt.id.0, number),
                parent: Some(id),
                name: format!("{}.{}", call.capability, call.operation).into(),
                started: at(call.started),
                ended: at(call.ended),
                attributes: vec![
                    ("capability", text(call.capability)),
                    ("resource", Value::Text(call.resource)),
                    ("result", text(call.result)),
                    ("bytes", number_of(call.bytes)),
                ],
                error: (call.result != "ok").then(|| call.result.to_owned()),
            });
        }
        let is_well = ["succeeded", "skipped", "suspended"].contains(&attempt.verdict);
        self.emit(Span {
            trace,
            id,
            parent: Some(span_id(job.claim.job.0)),
            name: "attempt".into(),
            started: at(begun),
            ended,
            attributes: vec![
                ("run.id", Value::Text(job.run.to_string())),
                ("job.id", Value::Text(job.claim.job.to_string())),
                ("attempt.id", Value::Text(attempt.id.to_string())),
                ("worker.id", Value::Text(self.worker.to_string())),
                ("asset.name", Value::Text(job.asset.bound.definition.name.clone())),
                ("partition", text(job.partition_key.as_str())),
                ("attempt", Value::Number(i64::from(job.claim.charged) + 1)),
                ("verdict", text(attempt.verdict)),
                ("charged", Value::Flag(attempt.charged)),
                ("fuel", number_of(attempt.fuel_used)),
                ("memory.peak_bytes", number_of(attempt.memory_bytes_peak)),
                ("output.bytes", number_of(attempt.output_bytes)),
            ],
            error: (!is_well).then(|| attempt.message.clone().unwrap_or_else(|| attempt.verdict.to_owned())),
        });
    }

    /// What a commit has ended. Jobs that ended because others did have no name here: the batch does not hold them.
    pub(super) fn trace_ends(&self, batch: &[FinishedJob], committed: &Committed) {
        if !self.is_traced() {
            return;
        }
        let ended = SystemTime::now();
        let names: HashMap<JobId, &str> = batch.iter().map(|item| (item.claim.job, &*item.name)).collect();
        for job in &committed.ended {
            let mut attributes = vec![
                ("run.id", Value::Text(job.run.to_string())),
                ("job.id", Value::Text(job.job.to_string())),
                ("state", text(job.state)),
                ("reused", Value::Flag(job.reused)),
            ];
            attributes.extend(names.get(&job.job).map(|name| ("job.name", text(name))));
            self.emit(Span {
                trace: job.run.0.into_bytes(),
                id: span_id(job.job.0),
                parent: Some(span_id(job.run.0)),
                name: "job".into(),
                started: submitted_at(job.job.0).min(ended),
                ended,
                attributes,
                error: (job.state == "failed").then(|| job.cause.clone().unwrap_or_default()),
            });
        }
        for (run, state) in &committed.finished_runs {
            self.emit(run_span(*run, state, ended));
        }
    }
}

fn run_span(run: RunId, state: &str, ended: SystemTime) -> Span {
    Span {
        trace: run.0.into_bytes(),
        id: span_id(run.0),
        parent: None,
        name: "run".into(),
        started: submitted_at(run.0).min(ended),
        ended,
        attributes: vec![("run.id", Value::Text(run.to_string())), ("state", text(state))],
        error: (state == "failed").then(|| "a job failed".to_owned()),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn number_of(number: u64) -> Value {
    Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The random end of an id: never 0, because it begins with the variant of a UUID.
fn span_id(id: Uuid) -> [u8; 8] {
    id.into_bytes()[8..].try_into().expect("a UUID has 16 bytes")
}

/// A call has no row, so that its id follows from the attempt's.
fn call_span_id(attempt: Uuid, number: usize) -> [u8; 8] {
    let digest = Digest::of(&[attempt.as_bytes().as_slice(), &number.to_le_bytes()].concat());
    digest.0[..8].try_into().expect("a digest has 32 bytes")
}

/// UUIDv7 begin with the milliseconds of their making.
fn submitted_at(id: Uuid) -> SystemTime {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.as_bytes()[..6]);
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_and_their_span() {
        let (before, run) = (SystemTime::now(), RunId::new());
        let submitted = submitted_at(run.0);
        assert!(submitted + Duration::from_millis(1) > before && submitted <= SystemTime::now());
        let span = run_span(run, "failed", SystemTime::now());
        assert_eq!((span.trace, &span.id[..]), (run.0.into_bytes(), &run.0.as_bytes()[8..]));
        assert!(span.id != [0; 8] && span.started <= span.ended && span.error.is_some());
        // By a clock that is ahead.
        let span = run_span(run, "succeeded", submitted - Duration::from_secs(3600));
        assert!(span.started <= span.ended && span.error.is_none());
    }

    #[test]
    fn calls_of_one_attempt_have_ids_of_their_own() {
        let attempt = Uuid::now_v7();
        assert_ne!(call_span_id(attempt, 0), call_span_id(attempt, 1));
        assert_ne!(call_span_id(attempt, 0), span_id(attempt));
        assert_eq!(call_span_id(attempt, 7), call_span_id(attempt, 7));
    }
}
