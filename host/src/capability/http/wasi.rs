//! `wasi:http/outgoing-handler`: the same origins by their whole URLs, under the same policy and the same counts.
//!
//! A URL that is below no granted base is refused. The guest's own client decides about redirects and repetitions, so
//! the host does neither: a redirect is an answer, and where it leads is judged when the guest asks for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{
    answer::Answer,
    client::Times,
    ledger::{InFlight, Ledger},
    policy::{Target, Wrong},
    send::{Outgoing, Shared, send},
};
use crate::{
    bindings::flowstone::asset::types::CapabilityError,
    capability::{Interrupt, Refusal, denial::toml_text},
    limit::WASI_HTTP_WRITE_BYTES_MAX,
    pipeline::asset::Capability,
};

/// What `wasi:http` asks whenever a guest wants to send something.
pub struct Hooks {
    asset: String,
    ledger: Arc<Ledger>,
    /// Nothing when no origin is granted.
    usable: Option<(Arc<Shared>, Handle)>,
    interrupt: Interrupt,
}

/// What is sent back while the request is worked on.
type Responding = Box<dyn Future<Output = Result<(http::Response<WasiBody>, Processing), Error>> + Send>;
/// Errors that come after the head: there are none, the body says them.
type Processing = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl Hooks {
    /// Of one attempt.
    pub fn new(
        asset: String,
        ledger: Arc<Ledger>,
        usable: Option<(Arc<Shared>, Handle)>,
        interrupt: Interrupt,
    ) -> Self {
        Self { asset, ledger, usable, interrupt }
    }

    /// The granted origin below whose base the URL is: the most specific one, when there are several.
    fn find<'s>(&self, shared: &'s Shared, url: &http::Uri) -> Option<(usize, Result<Target, Wrong>)> {
        let held = |(site, origin): (usize, &'s super::Origin)| Some((site, origin.policy.url(url)?));
        let found = shared.origins.iter().enumerate().filter_map(held);
        found.max_by_key(|(site, _)| shared.origins[*site].policy.prefix_bytes())
    }

    /// The URL is nobody's.
    fn deny(&self, url: &http::Uri) -> Error {
        let origin =
            format!("{}://{}", url.scheme_str().unwrap_or("https"), url.authority().map_or("", |a| a.as_str()));
        let remedy = format!(
            "[resources.NAME] kind = \"http\" and url = {}, and [assets.{}] grants = {{ NAME = {} }}",
            toml_text(&origin),
            self.asset,
            Capability::Http.grant_example()
        );
        self.ledger.deny(&origin, "handle", url.path(), remedy);
        Error::HttpRequestDenied
    }

    /// Judges a request, and begins to send it.
    fn begin(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<AbortOnDropHandle<Result<Answer, Error>>, Error> {
        let (head, body) = request.into_parts();
        let Some((shared, runtime)) = &self.usable else { return Err(self.deny(&head.uri)) };
        let Some((site, target)) = self.find(shared, &head.uri) else { return Err(self.deny(&head.uri)) };
        let origin = &shared.origins[site];
        let path = target.as_ref().map_or_else(|_| head.uri.path().to_owned(), |target| target.path.clone());
        let shown = format!("{} {path}", head.method);
        let wrong = |wrong: Wrong| error_of(shared.wrong(site, "handle", &shown, wrong));
        let method = origin.policy.method(head.method.as_str()).map_err(wrong)?;
        let target = target.map_err(wrong)?;
        let length = head.headers.get(header::CONTENT_LENGTH).cloned();
        let headers = self.headers(origin, head.headers).map_err(wrong)?;
        let in_flight = shared.ledger.begin(site).map_err(error_of)?;
        let outgoing = Outgoing {
            method,
            target,
            headers,
            body: Bytes::new(),
            retries: 0,
            follow: false,
            times: shorter(origin.site.times, options),
        };
        let body = Body { body, request_bytes: origin.grant.request_bytes, length };
        let sending = sent(shared.clone(), site, outgoing, body, self.interrupt.deadline(), in_flight);
        Ok(AbortOnDropHandle::new(runtime.spawn(sending)))
    }

    /// Those that the guest may send. The length is the host's to say.
    fn headers(&self, origin: &super::Origin, mut headers: HeaderMap) -> Result<HeaderMap, Wrong> {
        headers.remove(header::CONTENT_LENGTH);
        origin.policy.headers(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
    }
}

/// A request's body on its way out of the guest.
struct Body {
    body: WasiBody,
    request_bytes: u64,
    /// What the guest said that its length is.
    length: Option<http::HeaderValue>,
}

impl Body {
    /// All of it: the host sends nothing before the guest has finished, and nothing that is not what it said.
    async fn collected(self) -> Result<Bytes, Error> {
        let most = usize::try_from(self.request_bytes).unwrap_or(usize::MAX);
        let collected =
            Limited::new(self.body, most).collect().await.map_err(|error| match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) if error.is::<LengthLimitError>() => Error::HttpRequestBodySize(Some(self.request_bytes)),
                Err(error) => Error::InternalError(Some(error.to_string())),
            })?;
        let bytes = collected.to_bytes();
        let is_said = |length: &http::HeaderValue| length.as_bytes() == bytes.len().to_string().as_bytes();
        match self.length {
            Some(length) if !is_said(&length) => Err(Error::HttpRequestBodySize(Some(bytes.len() as u64))),
            _ => Ok(bytes),
        }
    }
}

async fn sent(
    shared: Arc<Shared>,
    site: usize,
    mut outgoing: Outgoing,
    body: Body,
    until: Instant,
    in_flight: InFlight,
) -> Result<Answer, Error> {
    outgoing.body = body.collected().await?;
    send(shared, site, outgoing, until, in_flight).await.map_err(error_of)
}

/// A guest may be less patient than the operator, never more.
fn shorter(times: Times, options: Option<RequestOptions>) -> Times {
    let least = |ours: Duration, theirs: Option<Duration>| theirs.map_or(ours, |theirs| theirs.min(ours));
    let options = options.unwrap_or_default();
    Times {
        connect: least(times.connect, options.connect_timeout),
        first_byte: least(times.first_byte, options.first_byte_timeout),
        total: times.total,
    }
}

/// The words of `wasi:http`.
fn error_of(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Guest(CapabilityError::Denied | CapabilityError::NotFound) => Error::HttpRequestDenied,
        Refusal::Guest(CapabilityError::Invalid(_)) => Error::HttpRequestUriInvalid,
        Refusal::Guest(CapabilityError::LimitReached(_) | CapabilityError::Conflict) => Error::ConnectionLimitReached,
        Refusal::Guest(CapabilityError::Unavailable(_)) => Error::DestinationUnavailable,
        Refusal::Abort(_) => Error::InternalError(None),
    }
}

impl WasiHttpHooks for Hooks {
    /// Headers are judged when the request is sent, where the origin is known; what the library strips of answers
    /// stays what it strips by itself.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Processing,
    ) -> Responding {
        let sending = self.begin(request, options);
        Box::new(async move {
            let answer = sending?.await.map_err(|error| Error::InternalError(Some(error.to_string())))??;
            let mut response = http::Response::new(UnsyncBoxBody::new(answer.body));
            *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or_default();
            *response.headers_mut() = answer.headers;
            Ok((response, Box::new(async { Ok(()) }) as Processing))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WASI_HTTP_WRITE_BYTES_MAX
    }
}
