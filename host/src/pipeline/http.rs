//! HTTP origins as resources, and the grants of them: resolved values, and what a base URL must be.
//!
//! What a request may be is decided by the capability; here is only what operators write.

use serde::{Deserialize, Serialize};
use url::Url;

/// An HTTP origin that an operator registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpResource {
    /// The base: scheme, host, port and path prefix. Canonical: see [`BaseUrl`].
    pub url: String,
    /// The most that any grant of it may allow.
    pub methods: Vec<String>,
    /// Networks of private addresses that its name may lead to. Empty allows public addresses only.
    pub networks: Vec<String>,
    /// Further certificate authorities: a path relative to the manifest until it is deployed, PEM text from then on.
    pub ca: Option<String>,
    /// What the host adds to each request.
    pub credentials: Vec<CredentialUse>,
    /// How often it may be asked, by all workers together.
    pub rate: Option<Rate>,
    /// Until a connection is there, TLS included.
    pub connect_timeout_ms: u64,
    /// From there until the answer's head is there.
    pub first_byte_timeout_ms: u64,
    /// Of one request, from its start to the last byte of its answer.
    pub timeout_ms: u64,
}

/// Where the host puts a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialUse {
    /// The secret resource's name.
    pub secret: String,
    /// Where it goes.
    pub place: CredentialPlace,
}

/// The part of a request that carries a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CredentialPlace {
    /// A header: the prefix and then the secret.
    Header {
        /// Lower case.
        name: String,
        /// `Bearer `, with its blank.
        prefix: String,
    },
    /// A parameter of the query.
    Query {
        /// As it is sent.
        name: String,
    },
}

/// A token bucket: so many permits in each period, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// At least 1.
    pub permits: u32,
    /// In which they are given out.
    pub period_ms: u64,
    /// At least 1.
    pub burst: u32,
}

/// An asset's right to one HTTP origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGrant {
    /// The resource's name.
    pub resource: String,
    /// Of the resource: what is reached is part of what is granted.
    pub url: String,
    /// Upper case, at least one, all of them the resource's too.
    pub methods: Vec<String>,
    /// Globs over the decoded path below the base, without a leading `/`; the empty one is the base itself.
    pub paths: Vec<String>,
    /// Lower-case names of headers that the guest may send.
    pub headers: Vec<String>,
    /// That one attempt may send, those that the host repeats or follows among them.
    pub requests: u32,
    /// Requests and open answers at once.
    pub in_flight: u32,
    /// Of one request's body.
    pub request_bytes: u64,
    /// Of the headers of one request, and of the head of one answer.
    pub header_bytes: u64,
    /// Of one answer's body.
    pub response_bytes: u64,
    /// Times that one request is sent again by the host.
    pub retries: u32,
}

/// The methods that can be granted. `CONNECT` makes a tunnel and `TRACE` echoes credentials.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];

/// Headers that are the host's own business, or would undo what was granted; nobody can grant them.
const UNGRANTABLE_HEADERS: [&str; 20] = [
    // Framing, routing and hops: two readings of a message are how requests are smuggled.
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    // Another method or path than the one that was checked.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "forwarded",
    // Derived from the job: see `send` in `http.wit`.
    "idempotency-key",
];

/// Whether a header, by its lower-case name, can never be granted.
pub fn is_ungrantable_header(name: &str) -> bool {
    name.starts_with("proxy-") || UNGRANTABLE_HEADERS.contains(&name)
}

/// A base URL that means one thing to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether the connection is encrypted.
    pub is_https: bool,
    /// A lower-case name, or an address; an IPv6 one without its brackets.
    pub host: String,
    /// Given, or the scheme's.
    pub port: u16,
    /// Begins with `/` unless it is empty; never ends with one.
    pub prefix: String,
    authority: String,
}

impl BaseUrl {
    /// Reads a base URL. What could mean something else to another reader is refused: user names, queries, fragments,
    /// escapes, empty names, dots.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err("is neither http nor https"),
        };
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err("holds a user name or password; use credentials instead");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("has a query or a fragment");
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("has no host");
        };
        // As it was written: the parser would already have resolved dots and turned backslashes.
        let (_, written) = text.split_once("://").ok_or("is not an absolute URL")?;
        if written.starts_with(['/', '\\']) || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("has no host, or blanks within");
        }
        let written = written.find(['/', '\\']).map_or("", |at| &written[at..]);
        let prefix = written.strip_suffix('/').unwrap_or(written);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,=:".contains(c);
        let is_sound = |name: &str| !matches!(name, "" | "." | "..") && name.chars().all(is_plain);
        if !prefix.is_empty() && !prefix[1..].split('/').all(is_sound) || prefix.starts_with('\\') {
            return Err("has a path that is not plain: letters, digits and -._~ between single slashes");
        }
        let host = match host {
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                // `0x7f..` is a name, and `0x7f.` an address: it would not mean the same when it is read again.
                if name.split('.').any(str::is_empty) {
                    return Err("has a host with an empty name between its dots");
                }
                name.to_owned()
            }
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let default = if is_https { 443 } else { 80 };
        let authority = if port == default { shown } else { format!("{shown}:{port}") };
        Ok(Self { is_https, host, port, prefix: prefix.to_owned(), authority })
    }

    /// The host and, where it is not the scheme's, the port: what the `host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// As it is stored: scheme, authority and prefix.
    pub fn canonical(&self) -> String {
        format!("{}://{}{}", if self.is_https { "https" } else { "http" }, self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{blob::DigestWriter, pipeline::resource::Grant};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// What is stored is its canonical form: it must not become another host, or none, when it is read from there.
        #[test]
        fn a_base_url_is_the_same_when_it_is_read_again(text in "https?://(0x)?[0-9a-f.]{1,5}[.]{0,2}(:[0-9]{1,3})?(/[a-z]{0,2}){0,2}") {
            if let Ok(base) = BaseUrl::parse(&text) {
                prop_assert_eq!(BaseUrl::parse(&base.canonical()), Ok(base), "{}", text);
            }
        }
    }

    #[test]
    fn a_base_url_has_one_form() {
        let check = |text: &str, expected: &str| assert_eq!(BaseUrl::parse(text).unwrap().canonical(), expected);
        check("https://API.Example.com", "https://api.example.com");
        check("https://api.example.com:443/v1/", "https://api.example.com/v1");
        check("http://api.example.com:8080/a/b", "http://api.example.com:8080/a/b");
        check("https://[::1]:8443/", "https://[::1]:8443");
        check("https://bücher.example/", "https://xn--bcher-kva.example");
        check("https://example.com./", "https://example.com");
        // Every way of writing an address is that address.
        check("http://0x7f.1/", "http://127.0.0.1");
        check("http://2130706433/", "http://127.0.0.1");
        check("http://017700000001/", "http://127.0.0.1");
    }

    #[test]
    fn what_two_readers_could_read_differently_is_no_base_url() {
        for bad in [
            "",
            "example.com",
            "//example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "https://user@example.com/",
            "https://user:secret@example.com/",
            "https://example.com/@evil",
            "https://example.com?x=1",
            "https://example.com/#top",
            "https://example.com/a/../b",
            "https://example.com/./a",
            "https://example.com/a//b",
            "https://example.com//",
            "https://example.com/a%2fb",
            "https://example.com/%61",
            "https://example.com\\evil",
            "https://example.com/a\\b",
            "https://example.com/a;b",
            "https:///path",
            // Found by scripts/fuzz.
            "http://0x7f../",
            "https://example.com../",
            "https://a..b/",
            "https://\\evil.com",
            "https://exa\tmple.com/",
            "https://example.com\n/a",
            " https://example.com",
            "https://exa mple.com/",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad} {:?}", BaseUrl::parse(bad));
        }
    }

    #[test]
    fn what_a_grant_reaches_is_its_url_methods_paths_and_headers() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let grant = HttpGrant {
            resource: "api".into(),
            url: "https://a".into(),
            methods: list(&["GET", "POST"]),
            paths: list(&["a", "b"]),
            headers: list(&["accept"]),
            requests: 1,
            in_flight: 1,
            request_bytes: 1,
            header_bytes: 1,
            response_bytes: 1,
            retries: 1,
        };
        let reach = |change: fn(&mut HttpGrant)| {
            let (mut grant, mut writer) = (grant.clone(), DigestWriter::default());
            change(&mut grant);
            Grant::Http(grant).digest_reach(&mut writer);
            writer.finish()
        };
        let same = reach(|_| ());
        assert_eq!(reach(|grant| grant.paths.reverse()), same);
        assert_eq!(reach(|grant| (grant.requests, grant.retries, grant.response_bytes) = (9, 9, 9)), same);
        let changes: [fn(&mut HttpGrant); 5] = [
            |grant| grant.url = "https://b".into(),
            |grant| grant.resource = "b".into(),
            |grant| grant.methods.truncate(1),
            |grant| grant.paths.truncate(1),
            |grant| grant.headers.clear(),
        ];
        for change in changes {
            assert_ne!(reach(change), same);
        }
    }

    #[test]
    fn headers_that_frame_route_or_override_can_never_be_granted() {
        for name in ["host", "content-length", "transfer-encoding", "proxy-authorization", "x-http-method-override"] {
            assert!(is_ungrantable_header(name), "{name}");
        }
        for name in ["accept", "content-type", "authorization", "x-request-id", "cookie"] {
            assert!(!is_ungrantable_header(name), "{name}");
        }
    }
}
