//! How an object store is reached: HTTP/1.1 on connections that are kept for the next request, TLS by the authorities
//! that browsers trust, and no proxy, certificate or other setting that this process was not given.
//!
//! A connection on which nothing moves for [`PATIENCE`] is given up, whatever it waits for; so one rule bounds a
//! server that does not answer, one that stops in the middle, and how long an idle connection is kept. Trying again is
//! the caller's business.

use std::{
    collections::HashMap,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{HeaderValue, Uri, header, uri::Scheme};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::{self, SendRequest};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use wasmtime_wasi_http::io::TokioIo;

pub use crate::limit::BLOB_PATIENCE as PATIENCE;
use crate::limit::{BLOB_CONNECT_TIMEOUT, BLOB_CONNECTIONS_KEPT_MAX};

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody is there, or not under this name.
    #[error("no connection to {host}: {why}")]
    Connect {
        /// With its port.
        host: String,
        /// What the system said.
        why: String,
    },
    /// The other side is silent.
    #[error("nothing came from {host} for {} s", PATIENCE.as_secs())]
    Silent {
        /// With its port.
        host: String,
    },
    /// The other side went away.
    #[error("the connection to {host} was lost")]
    Lost {
        /// With its port.
        host: String,
    },
    /// What came is no HTTP.
    #[error("{host} does not speak HTTP")]
    Nonsense {
        /// With its port.
        host: String,
    },
}

impl Trouble {
    fn into_error(self) -> HttpError {
        let kind = match &self {
            Self::Connect { .. } => HttpErrorKind::Connect,
            Self::Silent { .. } => HttpErrorKind::Timeout,
            Self::Lost { .. } => HttpErrorKind::Request,
            Self::Nonsense { .. } => HttpErrorKind::Decode,
        };
        HttpError::new(kind, self)
    }

    /// What hyper's error comes from.
    fn of(error: &hyper::Error, host: String) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(found) = cause {
            if found.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                return Self::Silent { host };
            }
            cause = found.source();
        }
        if error.is_parse() { Self::Nonsense { host } } else { Self::Lost { host } }
    }
}

/// The connections of one store.
#[derive(Debug)]
pub struct Wire {
    tls: Arc<ClientConfig>,
    idle: Arc<Idle>,
}

type Connection = SendRequest<HttpRequestBody>;

/// Connections that wait for a request, by whether they are encrypted and whom they lead to.
#[derive(Debug, Default)]
struct Idle(Mutex<HashMap<(bool, String), Vec<Connection>>>);

impl Idle {
    fn take(&self, to: &(bool, String)) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(to)?;
        std::iter::from_fn(|| kept.pop()).find(|connection| connection.is_ready())
    }

    fn keep(&self, to: (bool, String), connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(to).or_default();
        kept.retain(|connection| !connection.is_closed());
        if kept.len() < BLOB_CONNECTIONS_KEPT_MAX {
            kept.push(connection);
        }
    }
}

impl Wire {
    /// Makes the connections of a store, with these authorities trusted as well: certificates in PEM, or nothing.
    pub fn connector(authorities: &str) -> impl HttpConnector {
        Connector { authorities: authorities.to_owned() }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Trouble> {
        let (mut head, body) = request.into_parts();
        let to = destination(&head.uri)?;
        let host = to.1.clone();
        let value = HeaderValue::try_from(signed_host(&head.uri));
        head.headers.insert(header::HOST, value.map_err(|_| Trouble::Nonsense { host: host.clone() })?);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse().map_err(|_| Trouble::Nonsense { host: host.clone() })?;
        let mut connection = match self.idle.take(&to) {
            Some(connection) => connection,
            None => self.connect(&to).await?,
        };
        let lost = |error: hyper::Error, host| Trouble::of(&error, host);
        let answer = connection.send_request(http::Request::from_parts(head, body)).await;
        let (head, body) = answer.map_err(|error| lost(error, host.clone()))?.into_parts();
        let idle = self.idle.clone();
        tokio::spawn(async move {
            // It is when the answer's body has been read; never, when it was dropped before.
            if connection.ready().await.is_ok() {
                idle.keep(to, connection);
            }
        });
        let body = body.map_err(move |error| lost(error, host.clone()).into_error());
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }

    async fn connect(&self, (encrypted, host): &(bool, String)) -> Result<Connection, Trouble> {
        let failed = |why: String| Trouble::Connect { host: host.clone(), why };
        let connected = async {
            let tcp = TcpStream::connect(host.as_str()).await?;
            tcp.set_nodelay(true)?;
            if !encrypted {
                return Ok(Box::new(tcp) as Box<dyn Stream>);
            }
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
            Ok(Box::new(TlsConnector::from(self.tls.clone()).connect(name, tcp).await?) as Box<dyn Stream>)
        };
        let connected: io::Result<_> = tokio::time::timeout(BLOB_CONNECT_TIMEOUT, connected)
            .await
            .map_err(|_| failed(format!("none within {} s", BLOB_CONNECT_TIMEOUT.as_secs())))?;
        let stream = Watched::new(connected.map_err(|error| failed(error.to_string()))?);
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        tokio::spawn(async move {
            // Its error is the one that the answer or its body ends with.
            drop(driver.await);
        });
        Ok(sender)
    }
}

impl HttpService for Wire {
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async { self.exchange(request).await.map_err(Trouble::into_error) })
    }
}

#[derive(Debug)]
struct Connector {
    authorities: String,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(self.authorities.as_bytes()) {
            let certificate = certificate.map_err(|error| rustls::Error::General(format!("AWS_CA_BUNDLE: {error}")));
            roots.add(certificate.map_err(failed)?).map_err(failed)?;
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(HttpClient::new(Wire { tls: Arc::new(tls), idle: Arc::default() }))
    }
}

/// Whether it is encrypted, and the host with its port.
fn destination(uri: &Uri) -> Result<(bool, String), Trouble> {
    let encrypted = uri.scheme() != Some(&Scheme::HTTP);
    let host = uri.host().ok_or_else(|| Trouble::Nonsense { host: uri.to_string() })?;
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    Ok((encrypted, format!("{host}:{port}")))
}

/// The host as it is signed: without a port that its scheme implies.
fn signed_host(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let implied = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    match uri.port_u16() {
        Some(port) if port != implied => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// What a connection is, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that fails when nothing has moved on it for long.
struct Watched {
    stream: Box<dyn Stream>,
    silence: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, silence: Box::pin(tokio::time::sleep(PATIENCE)) }
    }

    /// The same outcome, unless nothing moved and nothing has for long.
    fn watch<T>(&mut self, context: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + PATIENCE);
            return moved;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched(..)")
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let moved = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.watch(context, moved)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let moved = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch(context, moved)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
