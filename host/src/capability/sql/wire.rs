//! One connection to a Postgres server, message by message.
//!
//! A client of our own over the messages of `postgres-protocol`, and not one of the usual ones, for what those cannot
//! give: rows are read when they are asked for and never gathered by a task of their own; no message is larger than a
//! bound, whatever the server sends; and there is no way to send a statement but as a prepared one, of which the
//! protocol carries one at a time.
//!
//! A connection that is dropped while an answer is under way asks the server to cancel what it does.

use std::{fmt, io, path::PathBuf, sync::Arc};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{
        backend::{ErrorFields, Header, Message, NOTICE_RESPONSE_TAG, NOTIFICATION_RESPONSE_TAG, PARAMETER_STATUS_TAG},
        frontend,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    runtime::Handle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::{
    capability::text::{neutralise, truncate},
    limit::{SQL_CANCEL_TIMEOUT, SQL_ERROR_BYTES_MAX, SQL_MESSAGE_BYTES_MAX, SQL_NOTICES_MAX},
    pipeline::sql::{DatabaseUrl, Host},
};

/// Why an exchange with a server did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection is gone, or was never made.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server refused.
    #[error("{0}")]
    Server(ServerError),
    /// A message of the server is larger than any may be.
    #[error("one row has more than {SQL_MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// The server says more beside its answer than anybody would read.
    #[error("more than {SQL_NOTICES_MAX} notices")]
    Flood,
    /// The server does not keep to the protocol, or asks for what this client does not do.
    #[error("{0}")]
    Protocol(&'static str),
}

/// What a server says about an error: its code and its message, which it may have from anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ServerError {
    /// Five letters and digits.
    pub code: String,
    /// Neutral, and of bounded length.
    pub message: String,
}

impl ServerError {
    fn read(mut fields: ErrorFields<'_>) -> Self {
        let (mut code, mut message) = (String::new(), String::new());
        let text = |bytes: &[u8], most| neutralise(truncate(&String::from_utf8_lossy(bytes), most));
        while let Ok(Some(field)) = fields.next() {
            match field.type_() {
                b'C' => code = text(field.value_bytes(), 5),
                b'M' => message = text(field.value_bytes(), SQL_ERROR_BYTES_MAX),
                _ => {}
            }
        }
        Self { code, message }
    }
}

/// Where a server is, and how to speak with it.
pub struct Address {
    url: DatabaseUrl,
    tls: Option<TlsConnector>,
}

/// Never shows a password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl Address {
    /// With the authorities of this PEM text, or the usual ones. The mistake is one phrase.
    pub fn new(url: DatabaseUrl, ca: Option<&str>) -> Result<Self, &'static str> {
        let tls = if url.tls { Some(connector(ca)?) } else { None };
        Ok(Self { url, tls })
    }

    /// Whether nobody on the way can read what is sent.
    fn is_private(&self) -> bool {
        self.tls.is_some() || matches!(self.url.host, Host::Socket(_))
    }

    fn socket(folder: &std::path::Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }

    async fn reach(&self) -> Result<Box<dyn Stream>, WireError> {
        let host = match &self.url.host {
            Host::Socket(folder) => {
                return Ok(Box::new(UnixStream::connect(Self::socket(folder, self.url.port)).await?));
            }
            Host::Network(host) => host,
        };
        let mut stream = TcpStream::connect((host.as_str(), self.url.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        // One byte and no more: what an attacker put after it must not count as encrypted.
        if stream.read_u8().await? != b'S' {
            return Err(WireError::Protocol("the server has no TLS"));
        }
        let name =
            ServerName::try_from(host.clone()).map_err(|_| WireError::Protocol("the host has no name for TLS"))?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

fn connector(ca: Option<&str>) -> Result<TlsConnector, &'static str> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| "the file of authorities is not PEM")?;
                roots.add(certificate).map_err(|_| "the file of authorities has a certificate that is none")?;
            }
            if roots.is_empty() {
                return Err("the file of authorities has no certificates");
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| "the provider of TLS has no version of it")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whatever bytes go through.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What the server said last about the session's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none.
    Idle,
    /// It is open.
    Open,
    /// A statement failed, and nothing works but its end.
    Failed,
}

/// A connection whose session has begun.
pub struct Connection {
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Messages that were sent and whose answers have not all come.
    busy: bool,
    status: Status,
    notices: usize,
    /// The process and the secret by which its statements are cancelled.
    key: (i32, i32),
    address: Arc<Address>,
    runtime: Handle,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?}, {:?})", self.address, self.status)
    }
}

impl Connection {
    /// Connects and begins a session with these settings. Must be called on a runtime that does IO, which is also where
    /// a cancel request will come from.
    pub async fn open(address: Arc<Address>, settings: &[(&str, &str)]) -> Result<Self, WireError> {
        let stream = address.reach().await?;
        let mut connection = Self {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            busy: false,
            status: Status::Idle,
            notices: 0,
            key: (0, 0),
            runtime: Handle::current(),
            address,
        };
        connection.begin_session(settings).await?;
        Ok(connection)
    }

    async fn begin_session(&mut self, settings: &[(&str, &str)]) -> Result<(), WireError> {
        let address = self.address.clone();
        let login = [("user", &*address.url.user), ("database", &*address.url.database)];
        frontend::startup_message(login.into_iter().chain(settings.iter().copied()), &mut self.outgoing)?;
        self.flush().await?;
        let password = address.url.password.as_deref();
        let mut scram = None;
        loop {
            match self.receive().await? {
                Message::AuthenticationOk => {}
                Message::AuthenticationCleartextPassword if address.is_private() => {
                    frontend::password_message(needed(password)?.as_bytes(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Message::AuthenticationCleartextPassword => {
                    return Err(WireError::Protocol("the server wants the password in clear over an open network"));
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(address.url.user.as_bytes(), needed(password)?.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256))? {
                        return Err(WireError::Protocol("the server knows no way of logging in that this host knows"));
                    }
                    let started = ScramSha256::new(needed(password)?.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, started.message(), &mut self.outgoing)?;
                    scram = Some(started);
                    self.flush().await?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or(UNEXPECTED)?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Message::AuthenticationSaslFinal(body) => scram.as_mut().ok_or(UNEXPECTED)?.finish(body.data())?,
                Message::BackendKeyData(body) => self.key = (body.process_id(), body.secret_key()),
                Message::ErrorResponse(body) => return Err(WireError::Server(ServerError::read(body.fields()))),
                Message::ReadyForQuery(body) => return self.ready(body.status()),
                _ => return Err(UNEXPECTED),
            }
        }
    }

    /// Whether answers are still under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Of its transaction, when the last exchange ended.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Adds messages that go out with the next [`Self::flush`]: all of them, or none.
    pub fn queue(&mut self, add: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), WireError> {
        let before = self.outgoing.len();
        let added = add(&mut self.outgoing);
        if added.is_err() {
            // Half a message would be the beginning of the next one.
            self.outgoing.truncate(before);
        }
        Ok(added?)
    }

    /// Ends what was queued, sends it, and so begins an exchange, which ends when the server is ready again.
    pub async fn send(&mut self) -> Result<(), WireError> {
        frontend::sync(&mut self.outgoing);
        self.busy = true;
        self.notices = 0;
        self.flush().await
    }

    /// The next message of the exchange that is not beside the point.
    pub async fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(header) = Header::parse(&self.incoming)? {
                if usize::try_from(header.len()).map_or(true, |length| length > SQL_MESSAGE_BYTES_MAX) {
                    return Err(WireError::TooLarge);
                }
                let beside = [NOTICE_RESPONSE_TAG, NOTIFICATION_RESPONSE_TAG, PARAMETER_STATUS_TAG];
                if let Some(message) = Message::parse(&mut self.incoming)? {
                    if !beside.contains(&header.tag()) {
                        return Ok(message);
                    }
                    self.notices += 1;
                    if self.notices > SQL_NOTICES_MAX {
                        return Err(WireError::Flood);
                    }
                    continue;
                }
            }
            self.incoming.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Notes that the server is ready, as it says: the exchange is over.
    pub fn ready(&mut self, status: u8) -> Result<(), WireError> {
        self.busy = false;
        self.status = match status {
            b'I' => Status::Idle,
            b'T' => Status::Open,
            b'E' => Status::Failed,
            _ => return Err(UNEXPECTED),
        };
        Ok(())
    }

    /// The same, or the server's error, after the end of its exchange.
    pub async fn answer(&mut self) -> Result<Message, WireError> {
        match self.receive().await? {
            Message::ErrorResponse(body) => Err(WireError::Server(self.refused(&body).await?)),
            message => Ok(message),
        }
    }

    /// Reads on to the end of the exchange; an error that came on the way is returned then.
    pub async fn finish(&mut self) -> Result<(), WireError> {
        let mut refused = None;
        loop {
            match self.receive().await? {
                Message::ReadyForQuery(body) => {
                    self.ready(body.status())?;
                    return refused.map_or(Ok(()), |error| Err(WireError::Server(error)));
                }
                Message::ErrorResponse(body) => refused = refused.or(Some(ServerError::read(body.fields()))),
                _ => {}
            }
        }
    }

    async fn refused(
        &mut self,
        body: &postgres_protocol::message::backend::ErrorResponseBody,
    ) -> Result<ServerError, WireError> {
        let error = ServerError::read(body.fields());
        match self.finish().await {
            Ok(()) | Err(WireError::Server(_)) => Ok(error),
            Err(other) => Err(other),
        }
    }

    /// Queues a statement of the host's own, whose parameters are text.
    pub fn queue_statement(&mut self, statement: &str, parameters: &[Option<&str>]) -> Result<(), WireError> {
        self.queue(|out| {
            frontend::parse("", statement, None, out)?;
            let value = |value: &Option<&str>, out: &mut BytesMut| match value {
                Some(text) => {
                    out.extend_from_slice(text.as_bytes());
                    Ok(postgres_protocol::IsNull::No)
                }
                None => Ok(postgres_protocol::IsNull::Yes),
            };
            bind("", "", parameters.iter(), value, out)?;
            frontend::execute("", 0, out)
        })
    }

    /// Runs a statement of the host's own: its row as text, of which there is one at most, and how many rows it changed.
    pub async fn run(
        &mut self,
        statement: &str,
        parameters: &[Option<&str>],
    ) -> Result<(Option<TextRow>, u64), WireError> {
        self.queue_statement(statement, parameters)?;
        self.send().await?;
        let (mut seen, mut changed) = (None, 0);
        loop {
            match self.answer().await? {
                // Whoever answers with more than was asked for is not listened to without end.
                Message::DataRow(_) if seen.is_some() => return Err(UNEXPECTED),
                Message::DataRow(row) => seen = Some(text_row(&row)?),
                Message::CommandComplete(body) => changed = rows_changed(body.tag()?),
                Message::ReadyForQuery(body) => {
                    self.ready(body.status())?;
                    return Ok((seen, changed));
                }
                _ => {}
            }
        }
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        self.stream.write_all(&self.outgoing).await?;
        self.outgoing.clear();
        Ok(self.stream.flush().await?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.busy || self.key == (0, 0) {
            return;
        }
        // The server notices a closed connection only when it writes: a statement that computes would go on.
        let (address, key) = (self.address.clone(), self.key);
        self.runtime.spawn(async move {
            let cancel = async {
                let mut stream = address.reach().await?;
                let mut request = BytesMut::new();
                frontend::cancel_request(key.0, key.1, &mut request);
                stream.write_all(&request).await?;
                stream.flush().await?;
                // The server closes when it has passed the request on.
                let _closed = stream.read_u8().await;
                Ok::<_, WireError>(())
            };
            match tokio::time::timeout(SQL_CANCEL_TIMEOUT, cancel).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "a statement cannot be cancelled"),
                Err(_) => tracing::debug!("a statement cannot be cancelled in time"),
            }
        });
    }
}

/// A row whose fields are text, or nothing.
pub type TextRow = Vec<Option<String>>;

/// The fields of a row as text.
pub fn text_row(row: &postgres_protocol::message::backend::DataRowBody) -> Result<TextRow, WireError> {
    let text = |range| String::from_utf8_lossy(&row.buffer()[range]).into_owned();
    Ok(row.ranges().map(|range: Option<std::ops::Range<usize>>| Ok(range.map(text))).collect()?)
}

/// The number at the end of a command's tag: `INSERT 0 5`, `UPDATE 3`.
pub fn rows_changed(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Queues the values of a prepared statement's parameters, in text, for a portal whose rows will be text too.
pub fn bind<T>(
    portal: &str,
    statement: &str,
    values: impl IntoIterator<Item = T>,
    write: impl FnMut(T, &mut BytesMut) -> Result<postgres_protocol::IsNull, Box<dyn std::error::Error + Sync + Send>>,
    out: &mut BytesMut,
) -> io::Result<()> {
    frontend::bind(portal, statement, None, values, write, None, out).map_err(|error| match error {
        frontend::BindError::Serialization(error) => io::Error::other(error),
        frontend::BindError::Conversion(error) => io::Error::other(error),
    })
}

fn needed(password: Option<&str>) -> Result<&str, WireError> {
    password.ok_or(WireError::Protocol("the server wants a password, and the URL has none"))
}

/// Room for one read: some dozens of usual rows.
const READ_BYTES: usize = 16 << 10;

/// Out of its turn.
pub const UNEXPECTED: WireError = WireError::Protocol("the server does not keep to the protocol");
