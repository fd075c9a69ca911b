//! What a grant costs where nothing leaves the process: the call of a function, a value that was read before, and the
//! judgement of a request.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Instant, SystemTime},
};

use flowstone::{
    capability::{
        Reach,
        http::Policy,
        key_value::{BucketReader, GrantedBucket, KeyBound, Reading, StoredKeys, StoredValue},
    },
    pipeline::{
        http::{HttpGrant, HttpResource},
        key_value::BucketGrant,
        policy::Limits,
    },
};
use serde_json::json;

use crate::{
    guests::Guests,
    table::{Row, percentile},
};

const ROUNDS: usize = 7;
const CALLS: usize = 200_000;
const GETS: usize = 50_000;
const VALUE_BYTES: usize = 1_024;
const JUDGEMENTS: usize = 20_000;
const FUEL: u64 = 1 << 50;
const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// Nanoseconds of a call and microseconds of a value, guest and component boundary included, and of a judgement.
pub fn measure() -> Vec<Row> {
    let guests = Guests::new();
    let policy = policy();
    let (mut calls, mut native, mut gets, mut copied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut judged, mut parsed) = (Vec::new(), Vec::new());
    time_calls(&guests, CALLS);
    for _ in 0..ROUNDS {
        calls.push((time_calls(&guests, CALLS) - time_calls(&guests, 0)) * NANOS / CALLS as f64);
        native.push(time_each(CALLS, SystemTime::now) * NANOS);
        gets.push((time_gets(&guests, GETS) - time_gets(&guests, 1)) * MICROS / GETS as f64);
        copied.push(time_each(GETS, || vec![7_u8; VALUE_BYTES]) * MICROS);
        judged.push(p50_us(|| judge(&policy)));
        parsed.push(p50_us(|| url::Url::parse(URL)));
    }
    vec![
        Row::new("call of a granted capability", "ns", calls).against("the clock, natively", native).at_most(300.0),
        Row::new("get of 1 KiB that was read before", "us", gets).against("making 1 KiB", copied).at_most(5.0),
        Row::new("judgement of an http request, p50", "us", judged).against("parsing its URL", parsed).at_most(2.0),
    ]
}

/// Seconds of an attempt that reads the granted clock so often: each reading is a use that is counted.
fn time_calls(guests: &Guests, calls: usize) -> f64 {
    let mut attempt = guests.attempt("clock_calls", Limits { fuel: FUEL, ..Limits::default() });
    attempt.context.config = json!({ "size": calls }).to_string();
    attempt.reach = Reach { clock: Some("wall".to_owned()), ..Reach::default() };
    let report = guests.run(attempt);
    assert_eq!(report.uses.iter().map(|used| used.calls).sum::<u64>(), calls as u64, "each call is counted");
    report.run_us as f64 / MICROS
}

/// Seconds of an attempt that asks for the same value so often.
fn time_gets(guests: &Guests, gets: usize) -> f64 {
    let mut attempt = guests.attempt("bucket_gets", Limits { fuel: FUEL, ..Limits::default() });
    attempt.context.config = json!({ "size": gets }).to_string();
    let grant = json!({
        "resource": "seen", "access": "read", "keys": ["**"], "writes": 1, "write_bytes": 1,
    });
    let grant: BucketGrant = serde_json::from_value(grant).expect("it is a grant");
    let bucket = GrantedBucket { grant, value_bytes_max: VALUE_BYTES as u64, reader: Arc::new(OneValue) };
    attempt.reach = Reach { buckets: vec![bucket], ..Reach::default() };
    guests.run(attempt).run_us as f64 / MICROS
}

/// A bucket with one value, which is there at once: what the database takes is not measured here.
#[derive(Debug)]
struct OneValue;

impl BucketReader for OneValue {
    fn get(&self, _: String) -> Reading<'_, Option<StoredValue>> {
        Box::pin(async { Ok(Some(StoredValue { value: vec![7; VALUE_BYTES], version: 1 })) })
    }

    fn list(&self, _: KeyBound, _: usize) -> Reading<'_, StoredKeys> {
        Box::pin(async { Err("nothing here lists".to_owned()) })
    }
}

/// What a request of an ordinary API is judged by, and the URL that it comes to.
const URL: &str = "https://api.example.com/v2/stations/10384/daily/2024-01-01?unit=metric&lang=en";

fn policy() -> Policy {
    let resource = json!({
        "url": "https://api.example.com/v2/", "methods": ["GET", "POST"], "networks": [], "ca": null,
        "credentials": [{ "secret": "token", "place": { "header": { "name": "authorization", "prefix": "Bearer " } } }],
        "rate": null, "connect_timeout_ms": 1_000, "first_byte_timeout_ms": 1_000, "timeout_ms": 1_000,
    });
    let resource: HttpResource = serde_json::from_value(resource).expect("it is a resource");
    let grant = json!({
        "resource": "api", "url": "https://api.example.com/v2/", "methods": ["GET"],
        "paths": ["stations/*/monthly/*", "stations/*/daily/*", "regions/**"],
        "headers": ["accept", "accept-language", "if-none-match"],
        "requests": 100, "in_flight": 4, "request_bytes": 0, "header_bytes": 16_384, "response_bytes": 1_048_576,
        "retries": 3,
    });
    let grant: HttpGrant = serde_json::from_value(grant).expect("it is a grant");
    Policy::new(&resource, &grant).expect("they make a policy")
}

/// Everything that is asked of a request before it may leave: its method, its path and parameters, its headers.
fn judge(policy: &Policy) -> impl Sized {
    let method = policy.method("GET").expect("it is granted");
    let query = [("unit", "metric"), ("lang", "en")];
    let target = policy.target("stations/10384/daily/2024-01-01", &query).expect("it is granted");
    let headers = [("accept", &b"application/json"[..]), ("accept-language", b"en")];
    let headers = policy.headers(headers.into_iter()).expect("they are granted");
    (method, target, headers)
}

fn p50_us<T>(work: impl Fn() -> T) -> f64 {
    let times: Vec<f64> = (0..JUDGEMENTS).map(|_| time_each(1, &work) * MICROS).collect();
    percentile(&times, 50)
}

/// Seconds of one, in so many.
fn time_each<T>(times: usize, work: impl Fn() -> T) -> f64 {
    let started = Instant::now();
    for _ in 0..times {
        black_box(work());
    }
    started.elapsed().as_secs_f64() / times as f64
}
