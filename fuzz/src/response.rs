//! What a server answers: any bytes, to a request through `flowstone:asset/http` over a real connection.
//!
//! Whatever comes, the request ends in time; the guest is given a head and a body within the grant's bounds, or is told
//! what went wrong; nothing is its attempt's end or the host's fault; what is recorded is what was read; and every
//! request that a redirect leads to stays below the base.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use flowstone::{
    bindings::flowstone::asset::{
        http::{Host as _, HostClient as _, HostResponse, Request, Response},
        types::CapabilityError,
    },
    capability::{
        Interrupt, Refusal,
        http::{Connector, GrantedOrigin, Http, HttpReach, Permits, Reserving, SystemResolver},
    },
    limit::{HTTP_HEADERS_MAX, HTTP_REDIRECTS_MAX},
    pipeline::http::{HttpGrant, HttpResource, Rate},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;
use wasmtime::component::Resource;

/// Of an answer's head and of its body, as granted.
const HEADER_BYTES: u64 = 1 << 10;
const RESPONSE_BYTES: u64 = 4 << 10;
/// Of one request. The server closes when it has said everything, so nothing should take as long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What one input may take in all: it may redirect, each time to a request of its own.
const LONG_ENOUGH: Duration = Duration::from_secs(2 * (HTTP_REDIRECTS_MAX as u64 + 1));

/// The server: what it says now, and the request lines that it was sent.
struct Server {
    runtime: Runtime,
    address: SocketAddr,
    says: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("there are threads");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
    let address = listener.local_addr().expect("it listens");
    let (says, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (to_say, noted) = (says.clone(), asked.clone());
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = to_say.lock().expect("nobody panics with it").clone();
            tokio::spawn(serve(stream, answer, noted.clone()));
        }
    });
    Server { runtime, address, says, asked }
});

async fn serve(mut stream: TcpStream, answer: Vec<u8>, noted: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return;
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    noted.lock().expect("nobody panics with it").push(line);
    // In two pieces, as a network might deliver it. Whoever stopped listening misses it.
    let (first, rest) = answer.split_at(answer.len() / 2);
    if stream.write_all(first).await.is_ok() && stream.write_all(rest).await.is_ok() {
        drop(stream.shutdown().await);
    }
}

/// No rate is set, so nobody asks.
#[derive(Debug)]
struct NoRate;

impl Permits for NoRate {
    fn reserve(&self, _resource: String, _rate: Rate, _within: Duration) -> Reserving<'_> {
        Box::pin(async { Ok(Some(Duration::ZERO)) })
    }
}

/// Sends a request that is answered with these bytes.
pub fn check(input: &[u8]) {
    let server = &*SERVER;
    *server.says.lock().expect("nobody panics with it") = input.to_vec();
    server.asked.lock().expect("nobody panics with it").clear();
    let began = Instant::now();
    server.runtime.block_on(ask(input));
    assert!(began.elapsed() < LONG_ENOUGH, "it took {:?}", began.elapsed());
    let asked = server.asked.lock().expect("nobody panics with it");
    assert!(asked.len() <= HTTP_REDIRECTS_MAX as usize + 1, "{} requests", asked.len());
    for line in asked.iter() {
        let path = line.strip_prefix("GET /v1").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        let path = path.unwrap_or_else(|| panic!("{line:?} is not below the base"));
        assert!(path.is_empty() || path.starts_with(['/', '?']), "{line:?} is not below the base");
        assert!(!path.contains(' '), "{line:?} is not one request");
        let names = path.split('?').next().unwrap_or_default();
        assert!(!names.contains('\\') && !names.split('/').any(|name| name == ".."), "{line:?}");
    }
}

async fn ask(input: &[u8]) {
    let mut http = attempt();
    let client = http.open("api".into()).unwrap_or_else(|refusal| panic!("it is granted: {refusal:?}"));
    let request = Request {
        method: "GET".into(),
        path: "x".into(),
        query: vec![],
        headers: vec![],
        body: vec![],
        idempotency_key: None,
    };
    let mut body = 0;
    match http.send(client, request).await {
        Err(refusal) => told(refusal),
        Ok(response) => {
            let lend = || Resource::<Response>::new_borrow(response.rep());
            let status = http.status(lend()).expect("it is open");
            assert!((200..1_000).contains(&status), "{status}");
            let headers = http.headers(lend()).expect("it is open");
            let bytes: usize = headers.iter().map(|field| field.name.len()).sum();
            assert!(headers.len() <= HTTP_HEADERS_MAX && bytes as u64 <= HEADER_BYTES, "{headers:?}");
            for field in &headers {
                assert!(!field.value.contains(['\r', '\n', '\0']), "{field:?} is not on one line");
            }
            // In chunks of another size each time.
            for size in 1.. {
                match http.read(lend(), size).await {
                    Err(refusal) => {
                        told(refusal);
                        break;
                    }
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => {
                        assert!(chunk.len() <= size as usize);
                        body += chunk.len();
                    }
                }
            }
            assert!(body as u64 <= RESPONSE_BYTES && body <= input.len(), "{body} bytes of a body");
            HostResponse::drop(&mut http, response).expect("it is open");
        }
    }
    let recorded: u64 = http.take_uses().iter().map(|used| used.bytes).sum();
    assert_eq!(recorded, body as u64, "another number of bytes is recorded");
}

/// A refusal is something that a guest is told.
fn told(refusal: Refusal) {
    match refusal {
        Refusal::Guest(
            CapabilityError::Unavailable(why) | CapabilityError::LimitReached(why) | CapabilityError::Invalid(why),
        ) => assert!(!why.contains("127.0.0.1"), "{why}"),
        Refusal::Guest(CapabilityError::Denied) => {}
        other => panic!("{other:?} is nothing that a server's answer may lead to"),
    }
}

fn attempt() -> Http {
    let server = &*SERVER;
    let url = format!("http://{}/v1", server.address);
    let resource = HttpResource {
        url: url.clone(),
        methods: vec!["GET".into()],
        networks: vec!["127.0.0.1".into()],
        ca: None,
        credentials: vec![],
        rate: None,
        connect_timeout_ms: TIMEOUT.as_millis() as u64,
        first_byte_timeout_ms: TIMEOUT.as_millis() as u64,
        timeout_ms: TIMEOUT.as_millis() as u64,
    };
    let grant = HttpGrant {
        resource: "api".into(),
        url,
        methods: vec!["GET".into()],
        paths: vec!["**".into()],
        headers: vec![],
        requests: 100,
        in_flight: 1,
        request_bytes: 0,
        header_bytes: HEADER_BYTES,
        response_bytes: RESPONSE_BYTES,
        retries: 0,
    };
    let connector = Connector::new(server.runtime.handle().clone(), Arc::new(SystemResolver));
    let origins = vec![GrantedOrigin { resource, grant, credentials: vec![] }];
    let reach = HttpReach { origins, connector, permits: Arc::new(NoRate), idempotency: [0; 32] };
    let interrupt = Interrupt::new(Instant::now() + 2 * LONG_ENOUGH, CancellationToken::new());
    Http::new("asset".into(), Some(reach), interrupt).expect("what is granted can be used")
}
