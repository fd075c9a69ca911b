//! One request on one connection: the name resolved once, every address checked, the connection to a checked one.
//!
//! No pool and no reuse: a connection belongs to one request, so that no answer can be taken for another's and nothing
//! is shared between attempts. Whether the request is allowed was decided before; whether it is sent again is decided
//! after: see [`super::policy`] and [`super::send`].

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;

use super::{address, policy::FRAME_BYTES};
use crate::{
    blob::Digest,
    limit::{HTTP_ADDRESSES_MAX, HTTP_BUFFER_BYTES_MIN, HTTP_HEAD_SLACK_BYTES, HTTP_HEADERS_MAX},
    pipeline::{
        http::{BaseUrl, HttpGrant, HttpResource},
        network::Network,
    },
};

/// What resolving a name is on its way to.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How a name becomes addresses.
pub trait Resolve: Send + Sync + fmt::Debug {
    /// All addresses of a name, with the port. Called once for each request; its answer is what is connected to.
    fn resolve(&self, host: String, port: u16) -> Resolving;
}

/// The machine's own way.
#[derive(Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String, port: u16) -> Resolving {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// What a process makes connections with: given to the capability by value.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Where network IO runs: the threads of guests have none.
    pub runtime: Handle,
    resolver: Arc<dyn Resolve>,
    /// By the further authorities that are trusted: the digest of their PEM text.
    trust: Arc<Mutex<HashMap<Option<Digest>, Arc<ClientConfig>>>>,
}

impl Connector {
    /// On this runtime, with names resolved like this.
    pub fn new(runtime: Handle, resolver: Arc<dyn Resolve>) -> Self {
        Self { runtime, resolver, trust: Arc::default() }
    }

    /// Who is trusted: the authorities that browsers trust, and these.
    fn trusting(&self, ca: Option<&String>) -> Result<Arc<ClientConfig>, String> {
        let mut known = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ca.map(|pem| Digest::of(pem.as_bytes()));
        if let Some(config) = known.get(&key) {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in ca.map(|pem| authorities(pem)).transpose()?.unwrap_or_default() {
            roots.add(certificate).map_err(|error| format!("a certificate authority cannot be used: {error}"))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // A ticket would tell the other side that two attempts, perhaps of two tenants, come from one process.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        // Few: one for each authority that a manifest names. Somebody who deploys thousands gets them made anew.
        if known.len() >= TRUST_KEPT_MAX {
            known.clear();
        }
        known.insert(key, config.clone());
        Ok(config)
    }
}

/// TLS configurations that are kept.
const TRUST_KEPT_MAX: usize = 64;

/// The certificates in PEM text, at least one; text that holds anything private is refused.
fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which must not leave its owner".into());
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("it holds no certificate".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is not PEM: {error}")),
    }
}

/// Why PEM text cannot be used as further authorities, when it cannot.
pub fn authority_mistake(pem: &str) -> Option<String> {
    let certificates = match authorities(pem) {
        Ok(certificates) => certificates,
        Err(mistake) => return Some(mistake),
    };
    let mut roots = RootCertStore::empty();
    certificates.into_iter().find_map(|certificate| roots.add(certificate).err()).map(|error| error.to_string())
}

/// Where the requests of one grant go, and within which bounds.
#[derive(Debug)]
pub struct Site {
    base: BaseUrl,
    networks: Vec<Network>,
    tls: Option<Arc<ClientConfig>>,
    resolver: Arc<dyn Resolve>,
    header_bytes: u64,
    /// How long things may take.
    pub times: Times,
}

/// How long one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Until the connection is there.
    pub connect: Duration,
    /// From there until the answer's head is.
    pub first_byte: Duration,
    /// Everything, the answer's body included.
    pub total: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The name leads to an address that is not public and not named.
    Forbidden {
        /// Which.
        address: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// The head is longer than what is granted.
    HeadTooLarge,
    /// The outside failed; whether another try may do better.
    Unavailable {
        /// For the guest: no address, no path of the host's.
        why: &'static str,
        /// A certificate that is wrong now is wrong in a second.
        may_pass: bool,
    },
}

const fn unavailable(why: &'static str) -> Trouble {
    Trouble::Unavailable { why, may_pass: true }
}

/// An answer's head, and the rest of it as it comes.
pub struct Answered {
    /// Status and headers.
    pub head: http::response::Parts,
    /// The body, on its way.
    pub body: Incoming,
    /// Dropped, it closes the connection.
    pub connection: AbortOnDropHandle<()>,
    /// When the body must be there.
    pub deadline: Instant,
}

impl Site {
    /// Of a resource and its grant.
    pub fn new(resource: &HttpResource, grant: &HttpGrant, connector: &Connector) -> Result<Self, String> {
        let base = BaseUrl::parse(&resource.url).map_err(str::to_owned)?;
        let networks = resource.networks.iter().map(|network| Network::parse(network)).collect::<Result<_, _>>()?;
        let tls = base.is_https.then(|| connector.trusting(resource.ca.as_ref())).transpose()?;
        let times = Times {
            connect: Duration::from_millis(resource.connect_timeout_ms),
            first_byte: Duration::from_millis(resource.first_byte_timeout_ms),
            total: Duration::from_millis(resource.timeout_ms),
        };
        let resolver = connector.resolver.clone();
        Ok(Self { base, networks, tls, resolver, header_bytes: grant.header_bytes, times })
    }

    /// Sends one request and waits for the head of its answer. Must run where there is network IO.
    pub async fn exchange(&self, request: http::Request<Full<Bytes>>, times: Times) -> Result<Answered, Trouble> {
        let deadline = Instant::now() + times.total;
        let connect = Instant::now() + times.connect.min(times.total);
        let (stream, allowance) = tokio::time::timeout_at(connect.into(), self.connect(connect))
            .await
            .unwrap_or(Err(unavailable("no connection in time")))?;
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size((self.header_bytes as usize).max(HTTP_BUFFER_BYTES_MIN)).max_headers(HTTP_HEADERS_MAX);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = begun.map_err(|_| unavailable("the connection was lost"))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Its error is the one that the answer or its body ends with.
            drop(connection.await);
        }));
        let first_byte = (Instant::now() + times.first_byte).min(deadline);
        let answer = tokio::time::timeout_at(first_byte.into(), sender.send_request(request)).await;
        let answer = answer.map_err(|_| unavailable("no answer in time"))?;
        let answer = answer.map_err(|error| explain(&error, &allowance))?;
        allowance.store(u64::MAX, Ordering::Relaxed);
        let (head, body) = answer.into_parts();
        if head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(unavailable("the answer is an upgrade that nobody asked for"));
        }
        let head_bytes: usize =
            head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FRAME_BYTES).sum();
        if head_bytes as u64 > self.header_bytes {
            return Err(Trouble::HeadTooLarge);
        }
        Ok(Answered { head, body, connection, deadline })
    }

    /// A connection to one of the name's addresses, encrypted if the scheme says so; and what may still be read of it.
    async fn connect(&self, deadline: Instant) -> Result<(Bounded, Arc<AtomicU64>), Trouble> {
        let addresses = self.addresses().await?;
        let mut tcp = None;
        for (at, address) in addresses.iter().enumerate() {
            // The last one has all the time that is left, those before it their share.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - at).unwrap_or(1);
            if let Ok(Ok(connected)) = tokio::time::timeout(share, TcpStream::connect(address)).await {
                tcp = Some(connected);
                break;
            }
        }
        let tcp = tcp.ok_or(unavailable("no connection"))?;
        // Only speed is lost without it.
        drop(tcp.set_nodelay(true));
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(self.base.host.clone());
                let name = name.map_err(|_| Trouble::Unavailable { why: "no name for TLS", may_pass: false })?;
                let begun = TlsConnector::from(config.clone()).connect(name, tcp).await;
                Box::new(begun.map_err(|error| explain_tls(&error))?)
            }
        };
        let left = Arc::new(AtomicU64::new(self.header_bytes.saturating_add(HTTP_HEAD_SLACK_BYTES)));
        Ok((Bounded { stream, left: left.clone() }, left))
    }

    /// The name's addresses, if every one of them may be connected to: a name that also leads elsewhere is not trusted
    /// for the rest.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let literal: Option<IpAddr> = self.base.host.parse().ok();
        let found = match literal {
            Some(address) => vec![SocketAddr::new(address, self.base.port)],
            None => {
                let resolved = self.resolver.resolve(self.base.host.clone(), self.base.port).await;
                resolved.map_err(|_| unavailable("the name cannot be resolved"))?
            }
        };
        let mut checked = Vec::new();
        for found in found.iter().take(HTTP_ADDRESSES_MAX) {
            let address = address::checked(found.ip(), &self.networks)
                .map_err(|kind| Trouble::Forbidden { address: found.ip(), kind })?;
            // The port is the base's, whatever the resolver says.
            let address = SocketAddr::new(address, self.base.port);
            if !checked.contains(&address) {
                checked.push(address);
            }
        }
        if checked.is_empty() { Err(unavailable("the name has no address")) } else { Ok(checked) }
    }
}

fn explain(error: &hyper::Error, allowance: &AtomicU64) -> Trouble {
    if error.is_parse_too_large() || allowance.load(Ordering::Relaxed) == 0 {
        return Trouble::HeadTooLarge;
    }
    if error.is_parse() {
        return Trouble::Unavailable { why: "the answer is not HTTP", may_pass: false };
    }
    unavailable("the connection was lost before the answer")
}

fn explain_tls(error: &io::Error) -> Trouble {
    use tokio_rustls::rustls::Error;
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            Trouble::Unavailable { why: "the certificate is not accepted", may_pass: false }
        }
        Some(_) => Trouble::Unavailable { why: "TLS failed", may_pass: false },
        None => unavailable("the connection was lost"),
    }
}

/// What a connection is, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection of which only so much may be read: until the head is there, whatever comes instead of it.
struct Bounded {
    stream: Box<dyn Stream>,
    left: Arc<AtomicU64>,
}

impl AsyncRead for Bounded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(Err(io::Error::other("too much came before the answer")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        let left = this.left.load(Ordering::Relaxed);
        if left != u64::MAX {
            // Only this task reads; the other one sets it to the most, after which it stays there.
            let less = left.saturating_sub(read);
            let _unless_lifted = this.left.compare_exchange(left, less, Ordering::Relaxed, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
