//! An answer on its way to the guest: bounded, on time, counted and hashed as it is read.
//!
//! However it ends (read to its end, too long, cut off, dropped by the guest), the books say once what was read of it.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    client::Answered,
    ledger::{InFlight, Ledger},
};
use crate::{
    bindings::flowstone::asset::types::CapabilityError,
    blob::{Digest, DigestWriter},
    capability::{Refusal, Used},
    limit::CHUNK_BYTES_MAX,
};

/// An answer as the guest gets it.
#[derive(Debug)]
pub struct Answer {
    /// Any status.
    pub status: u16,
    /// As they came.
    pub headers: HeaderMap,
    /// The rest.
    pub body: AnswerBody,
}

/// What the books need to know of a request.
#[derive(Debug)]
pub struct Asked {
    /// Which origin.
    pub site: usize,
    /// The request's number there.
    pub number: usize,
    /// The resource's name.
    pub resource: String,
    /// The method.
    pub method: &'static str,
    /// Unescaped, below the base.
    pub path: String,
    /// Path and query as the guest asked for them: no credential is in it.
    pub line: String,
    /// Of the request's body.
    pub sent_bytes: u64,
    /// Of the answer's body, at most.
    pub response_bytes: u64,
}

/// An answer's body.
#[derive(Debug)]
pub struct AnswerBody {
    incoming: Incoming,
    /// Read from the connection and not yet by the guest.
    held: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    status: u16,
    asked: Asked,
    digest: DigestWriter,
    read: u64,
    ended: Option<End>,
    ledger: Arc<Ledger>,
    _connection: AbortOnDropHandle<()>,
    _in_flight: InFlight,
}

/// How a body ends, when the guest does not end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it was read.
    Whole,
    /// It is longer than what is granted.
    TooLong,
    /// The other side stopped too soon, or said something that is no body.
    CutOff,
    /// It took too long.
    Late,
}

impl End {
    fn refusal(self, response_bytes: u64) -> Option<Refusal> {
        match self {
            Self::Whole => None,
            Self::TooLong => Some(Refusal::limit_reached(format!("{response_bytes} bytes of an answer"))),
            Self::CutOff => Some(CapabilityError::Unavailable("the answer was cut off".into()).into()),
            Self::Late => Some(CapabilityError::Unavailable("the answer took too long".into()).into()),
        }
    }
}

impl Answer {
    /// The guest's from here on.
    pub fn new(answered: Answered, asked: Asked, ledger: Arc<Ledger>, in_flight: InFlight) -> Self {
        let Answered { head, body, connection, deadline } = answered;
        let status = head.status.as_u16();
        let body = AnswerBody {
            incoming: body,
            held: Bytes::new(),
            timer: None,
            deadline,
            status,
            asked,
            digest: DigestWriter::default(),
            read: 0,
            ended: None,
            ledger,
            _connection: connection,
            _in_flight: in_flight,
        };
        Self { status, headers: head.headers, body }
    }
}

impl AnswerBody {
    /// At most `max` bytes and at most a chunk: what is there, or what comes next. Empty at the end.
    pub async fn read(&mut self, max: usize) -> Result<Vec<u8>, Refusal> {
        let max = max.min(CHUNK_BYTES_MAX);
        let mut chunk = Vec::new();
        while chunk.len() < max {
            if self.held.is_empty() {
                let is_first = chunk.is_empty();
                let next = poll_fn(|context| match self.poll_next(context) {
                    // What there is goes to the guest before it waits for more.
                    Poll::Pending if !is_first => Poll::Ready(None),
                    next => next.map(Some),
                });
                match next.await {
                    Some(Ok(bytes)) => self.held = bytes,
                    Some(Err(end)) => match end.refusal(self.asked.response_bytes) {
                        Some(refusal) if chunk.is_empty() => return Err(refusal),
                        // Told at the next call.
                        _ => break,
                    },
                    None => break,
                }
            }
            let take = self.held.len().min(max - chunk.len());
            chunk.extend_from_slice(&self.held[..take]);
            self.held.advance(take);
        }
        Ok(chunk)
    }

    /// The next bytes, not empty, or how it ended: the same answer from then on.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Some(end) = self.ended {
            return Poll::Ready(Err(end));
        }
        let deadline = self.deadline.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(self.end(End::Late)));
        }
        loop {
            let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
                None => return Poll::Ready(Err(self.end(End::Whole))),
                Some(Err(_)) => return Poll::Ready(Err(self.end(End::CutOff))),
                Some(Ok(frame)) => frame,
            };
            // Trailers are left out: nothing that a guest decides by may come after it has decided.
            let Ok(bytes) = frame.into_data() else { continue };
            if bytes.is_empty() {
                continue;
            }
            let room = self.asked.response_bytes - self.read;
            if bytes.len() as u64 > room {
                return Poll::Ready(Err(self.end(End::TooLong)));
            }
            self.read += bytes.len() as u64;
            self.digest.update(&bytes);
            return Poll::Ready(Ok(bytes));
        }
    }

    fn end(&mut self, end: End) -> End {
        self.ended = Some(end);
        end
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let whole = self.ended == Some(End::Whole);
        let body = std::mem::take(&mut self.digest).finish();
        let digest = digest(&self.asked, self.status, whole, body);
        self.ledger.set_answer(self.asked.site, self.asked.number, digest, self.read);
        let result = match self.ended {
            Some(end) => end.refusal(0).map_or("ok", |refusal| refusal.word()),
            None => "ok",
        };
        self.ledger.record(Used {
            resource: &self.asked.resource,
            operation: self.asked.method,
            target: &self.asked.path,
            result,
            bytes: self.asked.sent_bytes.saturating_add(self.read),
        });
    }
}

/// Of what was asked and what the guest read of the answer.
fn digest(asked: &Asked, status: u16, whole: bool, body: Digest) -> Digest {
    let mut digest = DigestWriter::default();
    digest.field(asked.method.as_bytes());
    digest.field(asked.line.as_bytes());
    digest.field(&status.to_le_bytes());
    digest.field(if whole { b"whole" } else { b"part" });
    digest.field(&body.0);
    digest.finish()
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        use wasmtime_wasi_http::Error;
        let this = self.get_mut();
        match ready!(this.poll_next(context)) {
            Ok(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(End::Whole) => Poll::Ready(None),
            Err(End::TooLong) => Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(this.asked.response_bytes))))),
            Err(End::CutOff) => Poll::Ready(Some(Err(Error::HttpResponseIncomplete))),
            Err(End::Late) => Poll::Ready(Some(Err(Error::HttpResponseTimeout))),
        }
    }
}
