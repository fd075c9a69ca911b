//! Metrics and health over HTTP/1.1, on loopback: `/metrics`, `/health/live`, `/health/ready`.
//!
//! One request on a connection, which has a fixed time from its first byte to its last; a request has no body. There are
//! few connections, and a new one takes the place of the oldest: connections that say nothing cost nothing and keep
//! nobody out. There is no TLS and no login: other machines cannot get here, and what is told is counts.

use std::{collections::VecDeque, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;

use super::{
    health::{Health, Report},
    metrics::Metrics,
};
use crate::{
    blob::BlobStore,
    engine::Engine,
    limit::{WATCH_CONNECTION_TIMEOUT, WATCH_CONNECTIONS_MAX, WATCH_HEAD_BYTES_MAX, WATCH_HEADERS_MAX},
    runner::Watched,
    store::Store,
};

/// An address that is taken and not yet served.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Answers as long as it is there.
#[derive(Debug)]
pub struct Serving {
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Takes a loopback address, which the configuration has made sure of.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// Where it is: with the port that was free, when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers about this runner and what it works with.
    pub fn serve(self, runner: Watched, store: Store, blobs: BlobStore, engine: Arc<Engine>) -> Serving {
        let answers = Arc::new(Answers {
            metrics: Metrics::new(runner.clone(), store.clone(), engine),
            health: Health::new(runner, store, blobs),
        });
        Serving { _task: AbortOnDropHandle::new(tokio::spawn(accept(self.listener, answers))) }
    }
}

struct Answers {
    metrics: Metrics,
    health: Health,
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or no descriptor is free for now.
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        oldest_first.retain(|connection| !connection.is_finished());
        if oldest_first.len() >= WATCH_CONNECTIONS_MAX
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(connections.spawn(converse(stream, answers.clone())));
    }
}

/// Until descriptors are free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One request and its answer.
async fn converse(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answer(&answers, &request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(WATCH_HEAD_BYTES_MAX)
        .max_headers(WATCH_HEADERS_MAX)
        // Of the whole connection instead.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WATCH_CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "a request was not answered"),
        Err(_) => tracing::debug!("a request took too long"),
    }
}

async fn answer(answers: &Answers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
    }
    if !request.body().is_end_stream() {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body\n");
    }
    match request.uri().path() {
        "/metrics" => match answers.metrics.render().await {
            Ok(metrics) => typed(StatusCode::OK, super::metrics::CONTENT_TYPE, metrics),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n")
            }
        },
        "/health/live" => health(&answers.health.live()),
        "/health/ready" => health(&answers.health.ready().await),
        _ => text(StatusCode::NOT_FOUND, "/metrics, /health/live or /health/ready\n"),
    }
}

fn health(report: &Report) -> Response<Full<Bytes>> {
    let status = if report.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    typed(status, "application/json", format!("{}\n", report.to_json()))
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
