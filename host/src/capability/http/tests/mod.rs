//! The capability against servers that are right, wrong and hostile, and guests of every kind. Each server is a real
//! socket on this machine; TLS and the whole way through a component are tested where a certificate can be made.

mod bounds;
mod guests;
mod retries;
mod server;
mod servers;
mod wasi;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use wasmtime::component::Resource;

use self::server::Server;
use super::{
    Connector, Credential, GrantedOrigin, Http, HttpReach, Permits, Reserving, Resolve, Resolving,
    wit::{self, Host as _, HostClient as _, HostResponse as _},
};
use crate::{
    bindings::flowstone::asset::types::{CapabilityError, Field},
    capability::{Interrupt, Refusal, Use},
    limit,
    pipeline::http::{CredentialPlace, CredentialUse, HttpGrant, HttpResource, METHODS, Rate},
    secret::SecretValue,
};

/// A name whose addresses are what the test says, one answer after the other; the last one stays.
#[derive(Debug)]
struct Names(Mutex<VecDeque<Vec<SocketAddr>>>);

impl Resolve for Names {
    fn resolve(&self, host: String, _port: u16) -> Resolving {
        assert_eq!(host, "api.test");
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { answer.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

/// A name that nobody ever answers for.
#[derive(Debug)]
struct NoAnswer;

impl Resolve for NoAnswer {
    fn resolve(&self, _host: String, _port: u16) -> Resolving {
        Box::pin(std::future::pending())
    }
}

/// Rates that are always kept, or never.
#[derive(Debug, Default)]
struct FakePermits {
    wait: Option<Duration>,
    reserved: Mutex<Vec<String>>,
}

impl Permits for FakePermits {
    fn reserve(&self, resource: String, _rate: Rate, _within: Duration) -> Reserving<'_> {
        self.reserved.lock().unwrap().push(resource);
        Box::pin(async move { Ok(self.wait) })
    }
}

/// An attempt that may use one origin, before it begins.
struct Setting {
    resource: HttpResource,
    grant: HttpGrant,
    credentials: Vec<Credential>,
    names: VecDeque<Vec<SocketAddr>>,
    is_silent: bool,
    permits: Arc<FakePermits>,
    job: u8,
    deadline: Duration,
    cancel: CancellationToken,
}

impl Setting {
    /// Everything is granted that can be, at the server's address, within the default bounds.
    fn new(server: &Server) -> Self {
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let url = format!("http://api.test:{}/v1", server.address.port());
        Self {
            resource: HttpResource {
                url: url.clone(),
                methods: all(&METHODS),
                networks: all(&["127.0.0.0/8", "::1"]),
                ca: None,
                credentials: vec![],
                rate: None,
                connect_timeout_ms: 2_000,
                first_byte_timeout_ms: 5_000,
                timeout_ms: 10_000,
            },
            grant: HttpGrant {
                resource: "api".into(),
                url,
                methods: all(&METHODS),
                paths: all(&["**"]),
                headers: all(&["accept", "content-type"]),
                requests: limit::HTTP_REQUESTS_DEFAULT,
                in_flight: limit::HTTP_IN_FLIGHT_DEFAULT,
                request_bytes: 1_000,
                header_bytes: limit::HTTP_HEADER_BYTES_DEFAULT,
                response_bytes: limit::HTTP_RESPONSE_BYTES_DEFAULT,
                retries: 0,
            },
            credentials: vec![],
            names: [vec![server.address]].into(),
            is_silent: false,
            permits: Arc::default(),
            job: 0,
            deadline: Duration::from_secs(30),
            cancel: CancellationToken::new(),
        }
    }

    fn with_credentials(mut self) -> Self {
        let places = [
            CredentialPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() },
            CredentialPlace::Query { name: "key".into() },
        ];
        for place in places {
            self.resource.credentials.push(CredentialUse { secret: "token".into(), place: place.clone() });
            self.credentials.push(Credential { place, value: SecretValue::new(SECRET.as_bytes().to_vec()) });
        }
        self
    }

    fn begin(self) -> Attempt {
        let origin = GrantedOrigin { resource: self.resource, grant: self.grant, credentials: self.credentials };
        let resolver: Arc<dyn Resolve> =
            if self.is_silent { Arc::new(NoAnswer) } else { Arc::new(Names(Mutex::new(self.names))) };
        let connector = Connector::new(tokio::runtime::Handle::current(), resolver);
        let reach = HttpReach { origins: vec![origin], connector, permits: self.permits, idempotency: [self.job; 32] };
        let interrupt = Interrupt::new(Instant::now() + self.deadline, self.cancel);
        Attempt { http: Http::new("raw".into(), Some(reach), interrupt).unwrap() }
    }
}

const SECRET: &str = "s3cr3t-hunter2";

/// An attempt, as its guest uses it.
struct Attempt {
    http: Http,
}

/// A request with nothing special about it.
fn get(path: &str) -> wit::Request {
    request("GET", path)
}

fn request(method: &str, path: &str) -> wit::Request {
    wit::Request {
        method: method.into(),
        path: path.into(),
        query: vec![],
        headers: vec![],
        body: vec![],
        idempotency_key: None,
    }
}

fn field(name: &str, value: &str) -> Field {
    Field { name: name.into(), value: value.into() }
}

type Handle = Resource<wit::Response>;

/// A handle lent to a call, as the bindings do.
fn lend(handle: &Handle) -> Handle {
    Resource::new_borrow(handle.rep())
}

impl Attempt {
    async fn send(&mut self, request: wit::Request) -> Result<Handle, Refusal> {
        let client = self.http.open("api".into())?;
        self.http.send(client, request).await
    }

    /// Sends, and drops whatever comes.
    async fn status(&mut self, request: wit::Request) -> Result<u16, Refusal> {
        let handle = self.send(request).await?;
        let status = self.http.status(lend(&handle)).unwrap();
        self.close(handle);
        Ok(status)
    }

    async fn read(&mut self, handle: &Handle, max: u32) -> Result<Vec<u8>, Refusal> {
        self.http.read(lend(handle), max).await
    }

    /// Reads to the end.
    async fn body(&mut self, handle: &Handle) -> Result<Vec<u8>, Refusal> {
        let mut body = Vec::new();
        loop {
            let chunk = self.read(handle, 1 << 20).await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    async fn text(&mut self, path: &str) -> Result<String, Refusal> {
        let handle = self.send(get(path)).await?;
        let body = self.body(&handle).await?;
        self.close(handle);
        Ok(String::from_utf8(body).unwrap())
    }

    fn header(&mut self, handle: &Handle, name: &str) -> Option<String> {
        let headers = self.http.headers(lend(handle)).unwrap();
        headers.into_iter().find(|field| field.name == name).map(|field| field.value)
    }

    fn close(&mut self, handle: Handle) {
        wit::HostResponse::drop(&mut self.http, handle).unwrap();
    }

    /// The uses: operation, target, result, calls.
    fn uses(&mut self) -> Vec<(String, String, String, u64)> {
        let uses = self.http.take_uses().into_iter();
        uses.map(|Use { operation, target, result, calls, .. }| (operation, target, result, calls)).collect()
    }

    fn remedies(&mut self) -> Vec<String> {
        self.http.take_denials().into_iter().map(|denial| denial.remedy).collect()
    }
}

fn used(list: &[(&str, &str, &str, u64)]) -> Vec<(String, String, String, u64)> {
    list.iter().map(|(a, b, c, calls)| ((*a).into(), (*b).into(), (*c).into(), *calls)).collect()
}

#[track_caller]
fn denied<T>(result: Result<T, Refusal>) {
    assert!(matches!(result, Err(Refusal::Guest(CapabilityError::Denied))), "{:?}", result.err());
}

#[track_caller]
fn over_limit<T>(result: Result<T, Refusal>, which: &str) {
    let Err(Refusal::Guest(CapabilityError::LimitReached(said))) = result else { panic!("{:?}", result.err()) };
    assert!(said.contains(which), "{said}");
}

#[track_caller]
fn unavailable<T>(result: Result<T, Refusal>, why: &str) {
    let Err(Refusal::Guest(CapabilityError::Unavailable(said))) = result else { panic!("{:?}", result.err()) };
    assert!(said.contains(why), "{said}");
}

#[track_caller]
fn invalid<T>(result: Result<T, Refusal>) {
    assert!(matches!(result, Err(Refusal::Guest(CapabilityError::Invalid(_)))), "{:?}", result.err());
}
