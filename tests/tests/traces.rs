//! Traces as a collector gets them: a real receiver that decodes what comes, and collectors that do not answer.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use flowstone_tests::pipeline::Scenario;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;

/// Takes what is sent to it, as long as the test runs.
struct Receiver {
    url: String,
    taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Receiver {
    /// Answers each request with this status.
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
        let kept = taken.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim_end().is_empty() {
                        break;
                    }
                    head.push(line.trim_end().to_ascii_lowercase());
                }
                assert_eq!(head[0], "post /v1/traces http/1.1");
                assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                kept.lock().unwrap().push(ExportTraceServiceRequest::decode(&*body).unwrap());
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                reader.into_inner().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, taken }
    }

    fn spans(&self) -> Vec<Span> {
        let taken = self.taken.lock().unwrap();
        let resources = taken.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// An attribute as text.
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{key} of {} is {other:?}", span.name),
    }
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn a_collector_gets_each_run_with_its_jobs_attempts_and_calls() {
    let receiver = Receiver::start("200 OK");
    let scenario = Scenario::new("");
    std::fs::write(scenario.folder().join("shelf/a.txt"), "a").unwrap();
    let settings = ["sum", "listing", "broken", "after_broken", "flaky", "--otlp", &receiver.url];
    let events = scenario.run(&settings, 1);
    let run = events[0]["run"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    let spans = receiver.spans();
    let database = scenario.flowstone.database();

    assert!(spans.iter().all(|span| span.trace_id == run.as_bytes()), "a run is a trace");
    let ids: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (&*span.span_id, span)).collect();
    assert_eq!(ids.len(), spans.len(), "each span is sent once and has an id of its own");
    for span in &spans {
        assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
        let parent = ids.get(&*span.parent_span_id);
        let expected = match &*span.name {
            "run" => None,
            "job" => Some("run"),
            "attempt" => Some("job"),
            _ => Some("attempt"),
        };
        assert_eq!(parent.map(|parent| &*parent.name), expected, "{span:?}");
        if let Some(parent) = parent {
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{span:?} of {parent:?}");
            assert!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{span:?} of {parent:?}");
        }
    }

    let runs = named(&spans, "run");
    assert_eq!((runs.len(), attribute(runs[0], "state")), (1, "failed".to_owned()));
    assert_eq!(runs[0].status.as_ref().unwrap().code, StatusCode::Error as i32);

    let mut jobs: Vec<String> = named(&spans, "job")
        .iter()
        .map(|job| format!("{} {}", attribute(job, "job.id"), attribute(job, "state")))
        .collect();
    jobs.sort();
    assert_eq!(jobs, database.ask("select job_id || ' ' || state from job_end order by job_id"), "skipped ones too");

    let mut attempts: Vec<String> = named(&spans, "attempt")
        .iter()
        .map(|span| {
            let keys = ["attempt.id", "job.id", "verdict", "charged", "fuel", "memory.peak_bytes", "asset.name"];
            keys.map(|key| attribute(span, key)).join(" ")
        })
        .collect();
    attempts.sort();
    let recorded = database.ask(
        "select concat_ws(' ', attempt_id, t.job_id, verdict, t.charged::text, fuel_used, memory_bytes_peak, a.name)
         from attempt t join job j using (tenant_id, job_id) join asset_version v using (tenant_id, asset_version_id)
         join asset a using (tenant_id, asset_id) order by attempt_id",
    );
    assert!(recorded.len() > 6, "{recorded:?}");
    assert_eq!(attempts, recorded);
    for attempt in named(&spans, "attempt") {
        let is_well = attribute(attempt, "verdict") == "succeeded";
        assert_eq!(attempt.status.as_ref().unwrap().code == StatusCode::Error as i32, !is_well, "{attempt:?}");
    }

    let calls: Vec<&Span> = spans.iter().filter(|span| span.name.starts_with("files.")).collect();
    assert!(!calls.is_empty(), "{spans:?}");
    let counted = database.ask("select sum((u ->> 'calls')::int)::text from attempt, jsonb_array_elements(uses) u");
    assert_eq!(calls.len().to_string(), counted[0]);
    for call in calls {
        assert_eq!((attribute(call, "resource"), attribute(call, "result")), ("shelf".to_owned(), "ok".to_owned()));
        assert!(call.attributes.iter().all(|attribute| !format!("{attribute:?}").contains("a.txt")), "{call:?}");
    }
}

#[test]
fn a_collector_that_does_not_answer_costs_one_warning_and_no_time() {
    let refuses = Receiver::start("503 Service Unavailable");
    // Bound, and nobody listens behind the backlog.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // One that is silent to the end is hardly waited for long enough to be blamed.
    for (url, warnings) in [(refuses.url.clone(), 1..=1), (format!("http://{gone}"), 1..=1), (silent_url, 0..=1)] {
        let scenario = Scenario::new("");
        let started = Instant::now();
        let run = scenario.flowstone.run(["run", scenario.manifest(), "sum", "keyed", "--otlp", &url]).expect_status(0);
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        let warned = run.stderr.matches("traces cannot be sent").count();
        assert!(warnings.contains(&warned), "{url}: {}", run.stderr);
    }
    assert!(!refuses.spans().is_empty());
}

#[test]
fn a_collector_beyond_plain_http_is_refused_with_what_to_do() {
    let scenario = Scenario::new("");
    let refused = scenario.command("run", &["sum", "--otlp", "https://collector:4318"]).expect_status(2);
    assert!(refused.stderr.contains("http://127.0.0.1:4318"), "{}", refused.stderr);
}
