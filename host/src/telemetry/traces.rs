//! Spans on their way to an OpenTelemetry collector: OTLP over HTTP/1.1, as protobuf, in batches.
//!
//! The messages are OpenTelemetry's own (`opentelemetry-proto`); sending them is a request of ours, because the exporters of
//! its SDK read the environment, bring an HTTP client and a thread, and this needs none of that. A collector that does not
//! answer costs one warning: its batch is dropped, and while one is on its way, what does not fit the queue is.

use std::{
    io,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span::SpanKind, status::StatusCode},
};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wasmtime_wasi_http::io::TokioIo;

use crate::{
    config::Collector,
    limit::{
        SPAN_TEXT_BYTES_MAX, SPANS_BATCH_MAX, SPANS_EXPORT_TIMEOUT, SPANS_FLUSH_WAIT, SPANS_GATHER, SPANS_QUEUED_MAX,
    },
    runner::{
        Runner,
        trace::{Span, Value},
    },
};

/// Sends a runner's spans until it is [finished](Self::finish).
#[derive(Debug)]
pub struct Exporting {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Exporting {
    /// From now on.
    pub fn start(collector: Collector, runner: &Runner) -> Self {
        let (sink, spans) = mpsc::channel(SPANS_QUEUED_MAX);
        runner.trace_to(sink);
        let exporter = Exporter {
            collector,
            resource: resource(&runner.worker().to_string()),
            dropped: runner.watched().meters().spans_dropped.clone(),
            is_failing: false,
        };
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(exporter.export(spans, stop.clone())));
        Self { stop, task }
    }

    /// Sends what is left, if that goes quickly.
    pub async fn finish(self) {
        self.stop.cancel();
        if timeout(SPANS_FLUSH_WAIT, self.task).await.is_err() {
            tracing::debug!("the last spans were not sent in time");
        }
    }
}

struct Exporter {
    collector: Collector,
    resource: Resource,
    dropped: Counter,
    /// So that it is said once that it does, and once that it does no more.
    is_failing: bool,
}

impl Exporter {
    async fn export(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(SPANS_BATCH_MAX);
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    while batch.len() < SPANS_BATCH_MAX && let Ok(span) = spans.try_recv() {
                        batch.push(span);
                    }
                    spans.is_empty()
                }
                is_last = gather(&mut spans, &mut batch) => is_last,
            };
            if !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
            }
            if is_last {
                return;
            }
        }
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = self.encode(batch);
        let sent = timeout(SPANS_EXPORT_TIMEOUT, self.post(body)).await;
        match sent.unwrap_or_else(|_| Err("it does not answer".into())) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                self.dropped.inc_by(count);
                if !std::mem::replace(&mut self.is_failing, true) {
                    let collector = self.collector.to_string();
                    tracing::warn!(collector, error = &*error, "traces cannot be sent, and are dropped until they can");
                }
            }
        }
    }

    fn encode(&self, batch: Vec<Span>) -> Vec<u8> {
        let scope = InstrumentationScope {
            name: "flowstone".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        };
        let spans = batch.into_iter().map(otlp).collect();
        let of_scope = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
        let of_resource =
            ResourceSpans { resource: Some(self.resource.clone()), scope_spans: vec![of_scope], ..Default::default() };
        ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.collector.host(), self.collector.port())).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.collector.path())
            .header(header::HOST, self.collector.authority())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
            .body(Full::new(Bytes::from(body)))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // What it says is of no use; but the connection is not cut off in the middle of it.
        drop(Limited::new(answer.into_body(), SPAN_TEXT_BYTES_MAX).collect().await);
        if !status.is_success() {
            return Err(io::Error::other(format!("it answered {status}")).into());
        }
        Ok(())
    }
}

/// Fills a batch, which waits for more no longer than [`SPANS_GATHER`]. True: nothing comes any more.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) -> bool {
    if batch.is_empty() && spans.recv_many(batch, SPANS_BATCH_MAX).await == 0 {
        return true;
    }
    let until = Instant::now() + SPANS_GATHER;
    while batch.len() < SPANS_BATCH_MAX {
        let room = SPANS_BATCH_MAX - batch.len();
        match timeout_at(until, spans.recv_many(batch, room)).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    false
}

fn resource(worker: &str) -> Resource {
    let attributes = [
        ("service.name", "flowstone"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", worker),
    ];
    let attributes = attributes.map(|(key, value)| attribute(key, Value::Text(value.to_owned()))).to_vec();
    Resource { attributes, ..Default::default() }
}

fn otlp(span: Span) -> OtlpSpan {
    let status = match span.error {
        None => Status::default(),
        Some(message) => Status { message: cut(message), code: StatusCode::Error as i32 },
    };
    OtlpSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: span.name.into_owned(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: nanoseconds(span.started),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status: Some(status),
        ..Default::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(cut(text)),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SPAN_TEXT_BYTES_MAX));
    text
}

fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let cut = cut("ü".repeat(SPAN_TEXT_BYTES_MAX));
        assert!(cut.len() <= SPAN_TEXT_BYTES_MAX && cut.chars().all(|c| c == 'ü'));
    }

    #[tokio::test]
    async fn a_batch_is_sent_when_it_is_full_or_has_waited() {
        let span = Span {
            trace: [1; 16],
            id: [1; 8],
            parent: None,
            name: "run".into(),
            started: SystemTime::now(),
            ended: SystemTime::now(),
            attributes: vec![],
            error: None,
        };
        let (sink, mut spans) = mpsc::channel(2 * SPANS_BATCH_MAX);
        for _ in 0..SPANS_BATCH_MAX + 1 {
            sink.try_send(span.clone()).unwrap();
        }
        let mut batch = Vec::new();
        assert!(!gather(&mut spans, &mut batch).await);
        assert_eq!(batch.len(), SPANS_BATCH_MAX);
        batch.clear();
        assert!(!gather(&mut spans, &mut batch).await, "it has waited, and more may come");
        assert_eq!(batch.len(), 1);
        drop(sink);
        assert!(gather(&mut spans, &mut Vec::new()).await);
    }
}
