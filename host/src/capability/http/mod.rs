//! `flowstone:asset/http` and `wasi:http`: granted HTTP origins. Only by grant.
//!
//! What a request may be is decided by `policy`, where it may go by `address`; `client` sends one request, and
//! `send` goes on until there is an answer; `ledger` counts for both interfaces. Network IO runs on the process's
//! runtime, and the guest's thread is free while it waits. Credentials are added in `send`, behind everything that a
//! guest can see.

mod address;
mod answer;
mod client;
mod ledger;
mod policy;
mod retry;
mod send;
mod ungranted;
mod wasi;

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

use self::{
    answer::Answer,
    client::Site,
    ledger::Ledger,
    send::{Origin, Outgoing, Shared},
};
pub use self::{
    client::{Connector, Resolve, Resolving, SystemResolver, authority_mistake},
    policy::{Lack, Policy, Target, Wrong},
    ungranted::{Answered, deny_handle},
};
use super::{Abort, Denial, Interrupt, Refusal, Use, denial::remedy, outside::OutsideRead};
use crate::{
    bindings::flowstone::asset::{http as wit, types},
    blob::DigestWriter,
    limit::{CHUNK_BYTES_MAX, HTTP_URL_BYTES_MAX, WASI_HTTP_FIELDS_BYTES_MAX},
    pipeline::{
        asset::Capability,
        http::{CredentialPlace, HttpGrant, HttpResource, Rate},
    },
    secret::SecretValue,
};

/// The HTTP origins that an attempt may use, and what it takes to reach them.
#[derive(Debug)]
pub struct HttpReach {
    /// At least one.
    pub origins: Vec<GrantedOrigin>,
    /// What connections are made with.
    pub connector: Connector,
    /// Where rates are held.
    pub permits: Arc<dyn Permits>,
    /// Of the job: the same in every attempt. Idempotency keys are made of it.
    pub idempotency: [u8; 32],
}

impl HttpReach {
    /// The secrets that the host adds, by name: an origin may send one back, and the guest say it.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &SecretValue)> {
        self.origins.iter().flat_map(|origin| {
            let names = origin.resource.credentials.iter().map(|credential| &*credential.secret);
            names.zip(origin.credentials.iter().map(|credential| &credential.value))
        })
    }
}

/// An origin that the attempt may use.
#[derive(Debug)]
pub struct GrantedOrigin {
    /// As it was registered.
    pub resource: HttpResource,
    /// What may be done with it, and under which name.
    pub grant: HttpGrant,
    /// What the host adds, with the secrets' values.
    pub credentials: Vec<Credential>,
}

/// A secret and where it goes.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The header or parameter.
    pub place: CredentialPlace,
    /// Never in guest memory.
    pub value: SecretValue,
}

/// What reserving a permit is on its way to: how long to wait for it, or nothing when it would not come in time.
pub type Reserving<'p> = Pin<Box<dyn Future<Output = Result<Option<Duration>, String>> + Send + 'p>>;

/// Rates that hold across worker processes. The capability does not know where.
pub trait Permits: Send + Sync + fmt::Debug {
    /// Reserves the next permit of a resource, if it comes within this time. An error is the host's own trouble.
    fn reserve(&self, resource: String, rate: Rate, within: Duration) -> Reserving<'_>;
}

/// The HTTP of one attempt.
pub struct Http {
    asset: String,
    ledger: Arc<Ledger>,
    granted: Option<Granted>,
    interrupt: Interrupt,
    /// By handle.
    answers: BTreeMap<u32, Answer>,
    /// The next handle: handles are not used again, so that an old one never is another answer.
    next: u32,
    /// Calls of `send` so far.
    calls: u64,
    hooks: wasi::Hooks,
    wasi: WasiHttpCtx,
}

struct Granted {
    shared: Arc<Shared>,
    connector: Connector,
    idempotency: [u8; 32],
}

impl Http {
    /// What an attempt of this asset may use. Fails when stored values were not made by our own manifest, or when a
    /// secret cannot be sent where it should go.
    pub fn new(asset: String, reach: Option<HttpReach>, interrupt: Interrupt) -> Result<Self, String> {
        let grants = reach.iter().flat_map(|reach| reach.origins.iter().map(|origin| &origin.grant));
        let ledger = Ledger::new(grants, interrupt.calls());
        let granted = reach.map(|reach| Granted::new(&asset, reach, ledger.clone())).transpose()?;
        let mut wasi = WasiHttpCtx::new();
        wasi.set_field_size_limit(WASI_HTTP_FIELDS_BYTES_MAX);
        let usable = granted.as_ref().map(|granted| (granted.shared.clone(), granted.connector.runtime.clone()));
        let hooks = wasi::Hooks::new(asset.clone(), ledger.clone(), usable, interrupt.clone());
        Ok(Self { asset, ledger, granted, interrupt, answers: BTreeMap::new(), next: 0, calls: 0, hooks, wasi })
    }

    /// What `wasi:http` works on.
    pub fn wasi_view<'v>(&'v mut self, table: &'v mut ResourceTable) -> WasiHttpCtxView<'v> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.wasi }
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.ledger.take_denials()
    }

    /// What was done with what was granted. Answers that are still open end here.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.answers.clear();
        self.ledger.take_uses()
    }

    /// What came from outside. Asked after [`Http::take_uses`].
    pub fn reads(&self) -> Vec<OutsideRead> {
        self.ledger.reads()
    }

    fn origin(&self, client: &Resource<wit::Client>) -> Result<(&Granted, usize, &Origin), Refusal> {
        let site = client.rep() as usize;
        let granted = self.granted.as_ref().ok_or_else(|| Refusal::invalid("the client is closed"))?;
        let origin = granted.shared.origins.get(site).ok_or_else(|| Refusal::invalid("the client is closed"))?;
        Ok((granted, site, origin))
    }

    /// Judges a request, and sends it.
    async fn exchange(&mut self, client: &Resource<wit::Client>, request: wit::Request) -> Result<Answer, Refusal> {
        let call = self.calls;
        self.calls += 1;
        let (granted, site, origin) = self.origin(client)?;
        let shared = granted.shared.clone();
        let outgoing = match granted.judge(origin, request, call) {
            Ok(outgoing) => outgoing,
            Err((target, wrong)) => return Err(shared.wrong(site, "send", &target, wrong)),
        };
        let in_flight = shared.ledger.begin(site)?;
        let sending = send::send(shared, site, outgoing, self.interrupt.deadline(), in_flight);
        let sending = AbortOnDropHandle::new(granted.connector.runtime.spawn(sending));
        let sent = uninterrupted(&self.interrupt, sending).await?;
        // A panic of ours, or a process that stops.
        sent.map_err(|error| Refusal::Abort(Abort::host_fault(&error)))?
    }

    async fn read_chunk(&mut self, response: &Resource<wit::Response>, max: u32) -> Result<Vec<u8>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("a read of no bytes would look like the end"));
        }
        let answer = self.answers.get_mut(&response.rep()).ok_or_else(|| Refusal::invalid("the response is closed"))?;
        uninterrupted(&self.interrupt, answer.body.read((max as usize).min(CHUNK_BYTES_MAX))).await?
    }
}

/// Waits for the outside, unless the attempt ends first.
async fn uninterrupted<T>(interrupt: &Interrupt, waiting: impl Future<Output = T>) -> Result<T, Abort> {
    tokio::select! {
        biased;
        () = interrupt.ended() => Err(Abort::Interrupted),
        done = waiting => Ok(done),
    }
}

impl Granted {
    fn new(asset: &str, reach: HttpReach, ledger: Arc<Ledger>) -> Result<Self, String> {
        let HttpReach { origins, connector, permits, idempotency } = reach;
        let origin = |GrantedOrigin { resource, grant, credentials }: GrantedOrigin| {
            let named = |mistake: String| format!("resource `{}`: {mistake}", grant.resource);
            credentials.iter().try_for_each(check_credential).map_err(named)?;
            Ok(Origin {
                policy: Policy::new(&resource, &grant).map_err(named)?,
                site: Site::new(&resource, &grant, &connector).map_err(named)?,
                rate: resource.rate,
                grant,
                credentials,
            })
        };
        let origins = origins.into_iter().map(origin).collect::<Result<_, String>>()?;
        let shared = Arc::new(Shared { asset: asset.to_owned(), ledger, origins, permits });
        Ok(Self { shared, connector, idempotency })
    }

    /// The request, if it is allowed; otherwise what is recorded as its target, and why not.
    fn judge(&self, origin: &Origin, request: wit::Request, call: u64) -> Result<Outgoing, (String, Wrong)> {
        let wit::Request { method, path, query, headers, body, idempotency_key } = request;
        let policy = &origin.policy;
        let shown = path.split('?').next().unwrap_or_default().to_owned();
        let wrong = |wrong: Wrong| (format!("{method} {shown}"), wrong);
        let granted = policy.method(&method).map_err(wrong)?;
        let pairs: Vec<(&str, &str)> = query.iter().map(|field| (&*field.name, &*field.value)).collect();
        let target = policy.target(&path, &pairs).map_err(wrong)?;
        let fields = headers.iter().map(|field| (&*field.name, field.value.as_bytes()));
        let mut headers = policy.headers(fields).map_err(wrong)?;
        if body.len() as u64 > origin.grant.request_bytes {
            return Err(wrong(Wrong::Limit(format!("{} bytes of a request", origin.grant.request_bytes))));
        }
        let repeatable = retry::is_idempotent(granted) || idempotency_key.is_some();
        if let Some(name) = idempotency_key {
            if name.len() > HTTP_URL_BYTES_MAX {
                return Err(wrong(Wrong::Invalid("the idempotency key is too long".into())));
            }
            headers.insert(IDEMPOTENCY_KEY, self.idempotency_key(&origin.grant.resource, &name, call));
        }
        Ok(Outgoing {
            method: granted,
            target,
            headers,
            body: Bytes::from(body),
            retries: if repeatable { origin.grant.retries } else { 0 },
            follow: true,
            times: origin.site.times,
        })
    }

    /// The same for the same request in every attempt of the job, and for no other.
    fn idempotency_key(&self, resource: &str, name: &str, call: u64) -> HeaderValue {
        let mut digest = DigestWriter::default();
        digest.field(b"idempotency-key");
        digest.field(&self.idempotency);
        digest.field(resource.as_bytes());
        match name {
            "" => digest.field(&call.to_le_bytes()),
            name => {
                digest.field(b"named");
                digest.field(name.as_bytes());
            }
        }
        // Hexadecimal digits.
        HeaderValue::from_str(&digest.finish().to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether a secret can be sent where it should go. The mistake does not say what the secret is.
fn check_credential(credential: &Credential) -> Result<(), String> {
    let value = credential.value.expose();
    match &credential.place {
        CredentialPlace::Header { name, prefix } => {
            let sound = value.iter().chain(prefix.as_bytes()).all(|b| *b == b' ' || b.is_ascii_graphic());
            match sound && !value.is_empty() {
                true => HeaderName::from_bytes(name.as_bytes()).map(drop).map_err(|error| error.to_string()),
                false => Err(format!("the secret for header `{name}` is empty, or not plain ASCII on one line")),
            }
        }
        CredentialPlace::Query { name } if value.is_empty() || std::str::from_utf8(value).is_err() => {
            Err(format!("the secret for parameter `{name}` is empty, or no text"))
        }
        CredentialPlace::Query { .. } => Ok(()),
    }
}

impl wit::Host for Http {
    fn open(&mut self, resource: String) -> Result<Resource<wit::Client>, Refusal> {
        let origins = self.granted.iter().flat_map(|granted| &granted.shared.origins);
        if let Some(site) = origins.enumerate().find(|(_, origin)| origin.grant.resource == resource) {
            // A client has no state of its own, so its position is its handle, however often it is opened.
            return Ok(Resource::new_own(site.0 as u32));
        }
        let remedy = remedy(&self.asset, &resource, Capability::Http.grant_example());
        self.ledger.deny(&resource, "open", "", remedy);
        Err(types::CapabilityError::Denied.into())
    }
}

impl wit::HostClient for Http {
    async fn send(
        &mut self,
        client: Resource<wit::Client>,
        request: wit::Request,
    ) -> Result<Resource<wit::Response>, Refusal> {
        let answer = self.exchange(&client, request).await?;
        let handle = self.next;
        // Each took a request out of a bounded number.
        self.next += 1;
        self.answers.insert(handle, answer);
        Ok(Resource::new_own(handle))
    }

    fn drop(&mut self, _client: Resource<wit::Client>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl wit::HostResponse for Http {
    fn status(&mut self, response: Resource<wit::Response>) -> wasmtime::Result<u16> {
        Ok(self.answers.get(&response.rep()).map_or(0, |answer| answer.status))
    }

    fn headers(&mut self, response: Resource<wit::Response>) -> wasmtime::Result<Vec<types::Field>> {
        let headers = self.answers.get(&response.rep()).into_iter().flat_map(|answer| &answer.headers);
        let field = |(name, value): (&HeaderName, &HeaderValue)| types::Field {
            name: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        Ok(headers.map(field).collect())
    }

    async fn read(&mut self, response: Resource<wit::Response>, max: u32) -> Result<Vec<u8>, Refusal> {
        self.read_chunk(&response, max).await
    }

    fn drop(&mut self, response: Resource<wit::Response>) -> wasmtime::Result<()> {
        self.answers.remove(&response.rep());
        Ok(())
    }
}

impl types::Host for Http {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

#[cfg(test)]
mod tests;
