//! Sending a request until there is an answer for the guest: within the grant's counts and the resource's rate, tried
//! again where that may help and cannot hurt, and followed where it is redirected within the grant.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::Full;

use super::{
    Credential, Permits,
    answer::{Answer, Asked},
    client::{Answered, Site, Times, Trouble},
    ledger::{InFlight, Ledger},
    policy::{Lack, Policy, Target, Wrong},
    retry,
};
use crate::{
    bindings::flowstone::asset::types::CapabilityError,
    capability::{Abort, Refusal, Used, denial::remedy},
    limit::HTTP_REDIRECTS_MAX,
    pipeline::http::{CredentialPlace, HttpGrant, Rate},
};

/// Everything that both interfaces and their tasks share in one attempt.
#[derive(Debug)]
pub struct Shared {
    /// The asset's name, for remedies.
    pub asset: String,
    /// What is counted.
    pub ledger: Arc<Ledger>,
    /// What is granted.
    pub origins: Vec<Origin>,
    /// Where the resources' rates are held.
    pub permits: Arc<dyn Permits>,
}

/// A granted origin, ready for requests.
#[derive(Debug)]
pub struct Origin {
    /// The grant, as it is stored.
    pub grant: HttpGrant,
    /// What a request may be.
    pub policy: Policy,
    /// Where it goes.
    pub site: Site,
    /// What the host adds.
    pub credentials: Vec<Credential>,
    /// How often.
    pub rate: Option<Rate>,
}

/// A request that is allowed.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Granted.
    pub method: &'static str,
    /// Granted.
    pub target: Target,
    /// Granted, and those that the host sets for the guest.
    pub headers: HeaderMap,
    /// Within the bound.
    pub body: Bytes,
    /// Whether a request that failed may be sent again, and how often.
    pub retries: u32,
    /// Whether redirects are followed; otherwise they are answers.
    pub follow: bool,
    /// Within which each request must be done.
    pub times: Times,
}

/// Sends until there is an answer. Must run where there is network IO. Nothing is waited for past `until`.
pub async fn send(
    shared: Arc<Shared>,
    site: usize,
    outgoing: Outgoing,
    until: Instant,
    in_flight: InFlight,
) -> Result<Answer, Refusal> {
    Sending { shared: &shared, site, outgoing, until }.run(in_flight).await
}

struct Sending<'s> {
    shared: &'s Shared,
    site: usize,
    outgoing: Outgoing,
    until: Instant,
}

impl Sending<'_> {
    async fn run(mut self, in_flight: InFlight) -> Result<Answer, Refusal> {
        let (mut sent, mut redirects) = (0, 0);
        loop {
            let number = match self.permit().await {
                Ok(number) => number,
                Err(refusal) => return Err(self.refused(refusal)),
            };
            sent += 1;
            let tried = self.origin().site.exchange(self.request(), self.times()).await;
            if let Some(wait) = self.wait_before_another(&tried, sent) {
                self.record("retried");
                drop(tried);
                tokio::time::sleep(wait).await;
                continue;
            }
            let answered = match tried {
                Ok(answered) => answered,
                Err(trouble) => {
                    let refusal = self.explain(trouble);
                    return Err(self.refused(refusal));
                }
            };
            let status = answered.head.status.as_u16();
            let location = answered.head.headers.get(header::LOCATION).cloned();
            match location.filter(|_| self.outgoing.follow && matches!(status, 301 | 302 | 303 | 307 | 308)) {
                None => return Ok(self.answer(answered, number, in_flight)),
                Some(location) => {
                    redirects += 1;
                    self.follow(status, &location, redirects)?;
                    // Another request: what failed before it does not count against it.
                    sent = 0;
                }
            }
        }
    }

    fn origin(&self) -> &Origin {
        &self.shared.origins[self.site]
    }

    /// No request is given more time than the attempt has.
    fn times(&self) -> Times {
        let left = self.until.saturating_duration_since(Instant::now());
        Times { total: self.outgoing.times.total.min(left), ..self.outgoing.times }
    }

    /// Counts the request, and waits for a permit of the resource's rate.
    async fn permit(&self) -> Result<usize, Refusal> {
        let number = self.shared.ledger.count_request(self.site)?;
        let Some(rate) = self.origin().rate else { return Ok(number) };
        let left = self.until.saturating_duration_since(Instant::now());
        let resource = &self.origin().grant.resource;
        let reserved = self.shared.permits.reserve(resource.clone(), rate, left).await;
        match reserved.map_err(|error| Refusal::Abort(Abort::HostFault(error)))? {
            Some(wait) => tokio::time::sleep(wait).await,
            None => {
                let why = format!("the rate of {} in {} ms", rate.permits, rate.period_ms);
                return Err(Refusal::limit_reached(why));
            }
        }
        Ok(number)
    }

    /// What goes on the wire. Credentials are added here and nowhere else: for this origin, at the last moment.
    fn request(&self) -> http::Request<Full<Bytes>> {
        let origin = self.origin();
        let mut line = self.outgoing.target.origin_form();
        let mut headers = self.outgoing.headers.clone();
        for Credential { place, value } in &origin.credentials {
            match place {
                CredentialPlace::Header { name, prefix } => {
                    let mut carried = prefix.as_bytes().to_vec();
                    carried.extend_from_slice(value.expose());
                    // Both were checked when the attempt was opened.
                    let (Ok(name), Ok(mut carried)) =
                        (http::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&carried))
                    else {
                        continue;
                    };
                    carried.set_sensitive(true);
                    headers.insert(name, carried);
                }
                CredentialPlace::Query { name } => {
                    let mut pair = url::form_urlencoded::Serializer::new(String::new());
                    pair.append_pair(name, &String::from_utf8_lossy(value.expose()));
                    line.push(if line.contains('?') { '&' } else { '?' });
                    line.push_str(&pair.finish());
                }
            }
        }
        let plain = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        headers.insert(header::HOST, plain(origin.policy.base().authority()));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        let mut request = http::Request::new(Full::new(self.outgoing.body.clone()));
        *request.method_mut() = method_of(self.outgoing.method);
        // A path of our own making, and a query of plain characters.
        *request.uri_mut() = line.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        request
    }

    /// How long to wait before the request is sent again; nothing when it is not.
    fn wait_before_another(&self, tried: &Result<Answered, Trouble>, sent: u32) -> Option<std::time::Duration> {
        if sent > self.outgoing.retries {
            return None;
        }
        let asked = match tried {
            Ok(answered) if retry::may_pass(answered.head.status.as_u16()) => {
                retry::retry_after(&answered.head.headers, SystemTime::now())
            }
            Err(Trouble::Unavailable { may_pass: true, .. }) => None,
            _ => return None,
        };
        let mut drawn = [0; 8];
        // Without randomness the wait is the shortest of its range.
        let _else_zero = getrandom::fill(&mut drawn);
        let wait = retry::wait(sent, asked, u64::from_le_bytes(drawn));
        // A wait that the attempt does not live to see is none.
        (Instant::now() + wait < self.until).then_some(wait)
    }

    fn answer(self, answered: Answered, number: usize, in_flight: InFlight) -> Answer {
        let asked = Asked {
            site: self.site,
            number,
            resource: self.origin().grant.resource.clone(),
            method: self.outgoing.method,
            line: self.outgoing.target.origin_form(),
            path: self.outgoing.target.path.clone(),
            sent_bytes: self.outgoing.body.len() as u64,
            response_bytes: self.origin().grant.response_bytes,
        };
        Answer::new(answered, asked, self.shared.ledger.clone(), in_flight)
    }

    /// Turns the request into the one that the answer redirects to.
    fn follow(&mut self, status: u16, location: &HeaderValue, redirects: u32) -> Result<(), Refusal> {
        self.record("redirected");
        if redirects > HTTP_REDIRECTS_MAX {
            return Err(self.refused(Refusal::limit_reached(format!("{HTTP_REDIRECTS_MAX} redirects"))));
        }
        let Outgoing { method, target, .. } = &self.outgoing;
        match self.origin().policy.redirect(status, method, target, location.as_bytes()) {
            Ok((method, target, keeps_body)) => {
                if !keeps_body {
                    self.outgoing.body = Bytes::new();
                    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                        self.outgoing.headers.remove(name);
                    }
                }
                (self.outgoing.method, self.outgoing.target) = (method, target);
                Ok(())
            }
            Err(wrong) => {
                let shown = String::from_utf8_lossy(location.as_bytes());
                // What it says after `?` may be a credential that it repeats.
                let shown = shown.split('?').next().unwrap_or_default();
                // A redirect that makes no sense is no mistake of the guest's.
                let wrong = match wrong {
                    Wrong::Invalid(_) => Wrong::Denied(Lack::Never("none: it redirects to what makes no sense")),
                    other => other,
                };
                Err(self.shared.wrong(self.site, "redirect", shown, wrong))
            }
        }
    }

    /// The guest is told the kind of trouble; the operator, which address.
    fn explain(&self, trouble: Trouble) -> Refusal {
        match trouble {
            Trouble::Unavailable { why, .. } => CapabilityError::Unavailable(why.into()).into(),
            Trouble::HeadTooLarge => {
                Refusal::limit_reached(format!("{} bytes of an answer's head", self.origin().grant.header_bytes))
            }
            Trouble::Forbidden { address, kind } => {
                let resource = &self.origin().grant.resource;
                let prefix = if address.is_ipv4() { 32 } else { 128 };
                let remedy = format!("[resources.{resource}] networks = [\"{address}/{prefix}\"] ({kind})");
                self.shared.ledger.deny(resource, "connect", &address.to_string(), remedy);
                CapabilityError::Denied.into()
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        self.record(refusal.word());
        refusal
    }

    fn record(&self, result: &'static str) {
        self.shared.ledger.record(Used {
            resource: &self.origin().grant.resource,
            operation: self.outgoing.method,
            target: &self.outgoing.target.path,
            result,
            bytes: self.outgoing.body.len() as u64,
        });
    }
}

impl Shared {
    /// Records why a request does not go out, and says it in the guest's words.
    pub fn wrong(&self, site: usize, operation: &'static str, target: &str, wrong: Wrong) -> Refusal {
        let resource = &self.origins[site].grant.resource;
        let refusal = match wrong {
            Wrong::Invalid(why) => Refusal::invalid(why),
            Wrong::Limit(which) => Refusal::limit_reached(which),
            Wrong::Denied(lack) => {
                let remedy = match lack.grant() {
                    Ok(grant) => remedy(&self.asset, resource, &grant),
                    Err(why) => why.to_owned(),
                };
                self.ledger.deny(resource, operation, target, remedy);
                CapabilityError::Denied.into()
            }
        };
        self.ledger.record(Used { resource, operation, target, result: refusal.word(), bytes: 0 });
        refusal
    }
}

/// Who asks. The same for every tenant and version, so that nothing is told by it.
const USER_AGENT: &str = "flowstone";

fn method_of(granted: &'static str) -> http::Method {
    http::Method::from_bytes(granted.as_bytes()).unwrap_or_default()
}
