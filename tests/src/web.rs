//! An HTTPS server of the test's own, with a certificate authority that it makes up: a real counterpart for assets that
//! reach outside.
//!
//! It reads requests as they come and answers what the test says, byte by byte. One thread for each connection, and one
//! request on each: that is how the host asks.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// A server on this machine. Dropped, it accepts nothing more.
pub struct Web {
    address: SocketAddr,
    authority: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    over: Arc<AtomicBool>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET /v1/items?page=1`.
    pub line: String,
    /// As they came.
    pub headers: Vec<(String, String)>,
    /// After the head.
    pub body: String,
    /// When it was whole.
    pub at: Instant,
}

impl Seen {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer of this status and body.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Web {
    /// Answers each request, numbered from 0, with what this says of it.
    pub fn start(say: impl Fn(usize, &Seen) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has ports");
        let address = listener.local_addr().expect("it is bound");
        let (authority, config) = certificates();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (say, noted, ended) = (Arc::new(say), seen.clone(), over.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (say, noted, config) = (say.clone(), noted.clone(), config.clone());
                thread::spawn(move || serve(stream, config, &noted, &*say));
            }
        });
        Self { address, authority, seen, over }
    }

    /// `localhost:PORT`, which its certificate names.
    pub fn authority(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate of its authority, as PEM text.
    pub fn ca(&self) -> &str {
        &self.authority
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().expect("no thread panics with it").clone()
    }

    /// Their first lines.
    pub fn lines(&self) -> Vec<String> {
        self.requests().into_iter().map(|seen| seen.line).collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

/// How long a connection may be silent: a test that waits for longer has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

fn serve(stream: TcpStream, config: Arc<ServerConfig>, noted: &Mutex<Vec<Seen>>, say: &dyn Fn(usize, &Seen) -> String) {
    stream.set_read_timeout(Some(SILENCE_MAX)).expect("a socket has timeouts");
    let connection = ServerConnection::new(config).expect("the certificate is sound");
    let mut stream = StreamOwned::new(connection, stream);
    // A client that does not trust the certificate goes away without a request.
    let Some(seen) = read(&mut stream) else { return };
    let number = {
        let mut noted = noted.lock().expect("no thread panics with it");
        noted.push(seen.clone());
        noted.len() - 1
    };
    let said = say(number, &seen);
    // Whoever stopped listening misses it.
    if stream.write_all(said.as_bytes()).is_ok() {
        stream.conn.send_close_notify();
        drop(stream.flush());
    }
}

fn read(stream: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
            let headers: Vec<_> = lines.filter_map(header).collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.map_or(0, |(_, value)| value.parse().unwrap_or(0));
            if body.len() >= length {
                return Some(Seen { line, headers, body: body.to_owned(), at: Instant::now() });
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// An authority of our own, and a certificate by it for this machine.
fn certificates() -> (String, Arc<ServerConfig>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("there is randomness");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("the parameters are sound");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("it is a name");
    let key = KeyPair::generate().expect("there is randomness");
    let certificate = own.signed_by(&key, &authority).expect("the parameters are sound");
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .expect("the key is the certificate's");
    (authority.pem(), Arc::new(config))
}
