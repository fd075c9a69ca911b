//! `kind = "http"`: what a manifest says about an HTTP origin and about a grant of it.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        asset::Capability,
        diagnostic::shown,
        http::{
            BaseUrl, CredentialPlace, CredentialUse, HttpGrant, HttpResource, METHODS, Rate, is_ungrantable_header,
        },
        network::Network,
        quantity::parse_duration_ms,
        resource::Resource,
    },
    grant::{glob_mistake, list_bounded},
    read_path,
    reader::{Entry, Reader, Section, bytes, duration},
    resource::Declared,
};
use crate::limit;

const RESOURCE_KEYS: [&str; 11] = [
    "kind",
    "url",
    "methods",
    "networks",
    "ca",
    "credentials",
    "rate",
    "burst",
    "connect_timeout",
    "first_byte_timeout",
    "timeout",
];

const GRANT_KEYS: [&str; 9] = [
    "methods",
    "paths",
    "headers",
    "requests",
    "in_flight",
    "request_bytes",
    "header_bytes",
    "response_bytes",
    "retries",
];

/// What is read when nothing is said: reading.
const RESOURCE_METHODS_DEFAULT: [&str; 2] = ["GET", "HEAD"];
/// See [`RESOURCE_METHODS_DEFAULT`].
const GRANT_METHODS_DEFAULT: [&str; 1] = ["GET"];

/// Reads an origin.
pub(super) fn read_http<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &RESOURCE_KEYS)?;
    let url = reader.required(&section, "url", "add url = \"https://...\"");
    let base = url.and_then(|url| read_base(reader, url));
    let methods = read_methods(reader, &section, &RESOURCE_METHODS_DEFAULT);
    let networks = section.get("networks").map(|networks| read_networks(reader, networks)).unwrap_or_default();
    let ca = section.get("ca").and_then(|ca| read_path(reader, ca));
    let credentials = section.get("credentials").map(|list| read_credentials(reader, list)).unwrap_or_default();
    if let (Some(list), Some(base)) = (section.get("credentials"), &base)
        && !base.is_https
        && !credentials.is_empty()
    {
        reader.refuse(list, "would be readable by everybody on the way", "use an https url");
    }
    let rate = read_rate(reader, &section);
    let mut time = |name: &str, default: Duration| {
        let least = Duration::from_millis(1);
        let read =
            section.get(name).and_then(|entry| reader.quantity(entry, &duration(least, limit::HTTP_TIMEOUT_MAX)));
        read.unwrap_or(default.as_millis() as u64)
    };
    let connect_timeout_ms = time("connect_timeout", limit::HTTP_CONNECT_TIMEOUT_DEFAULT);
    let first_byte_timeout_ms = time("first_byte_timeout", limit::HTTP_FIRST_BYTE_TIMEOUT_DEFAULT);
    let timeout_ms = time("timeout", limit::HTTP_TIMEOUT_DEFAULT);
    Some(Resource::Http(HttpResource {
        url: base?.canonical(),
        methods,
        networks,
        ca,
        credentials,
        rate,
        connect_timeout_ms,
        first_byte_timeout_ms,
        timeout_ms,
    }))
}

/// Credentials name secrets; whether these are declared can be said when all resources are read.
pub(super) fn check_credentials<'a>(reader: &mut Reader<'a>, root: &Section<'a>, resources: &Declared) {
    let Some(table) = root.get("resources").and_then(|entry| reader.table(entry)) else { return };
    for (name, resource) in resources {
        let Some(Resource::Http(http)) = resource else { continue };
        let Some((_, entry)) = table.entries.iter().find(|(declared, _)| declared == name) else { continue };
        let Some(section) = reader.table(entry) else { continue };
        let Some(list) = section.get("credentials") else { continue };
        for credential in &http.credentials {
            let secret = &credential.secret;
            let is_secret = |declared: &Option<Resource>| {
                declared.as_ref().is_none_or(|declared| declared.capability() == Capability::Secret)
            };
            match resources.get(secret) {
                Some(declared) if is_secret(declared) => {}
                Some(_) => reader.refuse(list, format!("`{}` is not a secret", shown(secret)), ""),
                None => {
                    let fix = format!("declare [resources.{}] with kind = \"secret\"", shown(secret));
                    reader.refuse(list, format!("there is no secret `{}`", shown(secret)), fix);
                }
            }
        }
    }
}

/// Reads a grant, which narrows its resource.
pub(super) fn read_http_grant<'a>(
    reader: &mut Reader<'a>,
    name: &str,
    entry: &Entry<'a>,
    resource: &HttpResource,
) -> Option<HttpGrant> {
    let section = reader.section(entry, &GRANT_KEYS)?;
    let methods = read_methods(reader, &section, &GRANT_METHODS_DEFAULT);
    for method in methods.iter().filter(|method| !resource.methods.contains(method)) {
        let fix = format!("grant another, or add it to resources.{name}.methods");
        let at = section.get("methods").unwrap_or(entry);
        reader.refuse(at, format!("the resource does not allow {method}"), fix);
    }
    let fix = "list globs, for example paths = [\"items/*\"]; \"**\" is everything below the url";
    let paths = reader.required(&section, "paths", fix).map(|paths| read_paths(reader, paths)).unwrap_or_default();
    let headers = section.get("headers").map(|list| read_headers(reader, list, resource)).unwrap_or_default();
    let mut count = |name: &str, min: u32, default: u32, max: u32| {
        section.get(name).and_then(|entry| reader.integer(entry, min, max)).unwrap_or(default)
    };
    let requests = count("requests", 1, limit::HTTP_REQUESTS_DEFAULT, limit::HTTP_REQUESTS_MAX);
    let in_flight = count("in_flight", 1, limit::HTTP_IN_FLIGHT_DEFAULT, limit::HTTP_IN_FLIGHT_MAX);
    let retries = count("retries", 0, limit::HTTP_RETRIES_DEFAULT, limit::HTTP_RETRIES_MAX);
    let mut size = |name: &str, min: u64, default: u64, max: u64| {
        section.get(name).and_then(|entry| reader.quantity(entry, &bytes(min, max))).unwrap_or(default)
    };
    Some(HttpGrant {
        resource: name.to_owned(),
        url: resource.url.clone(),
        methods,
        paths,
        headers,
        requests,
        in_flight,
        request_bytes: size("request_bytes", 0, limit::HTTP_REQUEST_BYTES_DEFAULT, limit::HTTP_REQUEST_BYTES_MAX),
        header_bytes: size("header_bytes", 1, limit::HTTP_HEADER_BYTES_DEFAULT, limit::HTTP_HEADER_BYTES_MAX),
        response_bytes: size("response_bytes", 0, limit::HTTP_RESPONSE_BYTES_DEFAULT, limit::HTTP_RESPONSE_BYTES_MAX),
        retries,
    })
}

fn read_base<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<BaseUrl> {
    let text = reader.string(entry)?;
    if text.len() > limit::HTTP_URL_BYTES_MAX {
        reader.refuse(entry, format!("a URL has at most {} bytes", limit::HTTP_URL_BYTES_MAX), "");
        return None;
    }
    let base = BaseUrl::parse(text);
    if let Err(mistake) = &base {
        let fix = "write scheme, host, port and a plain path, for example \"https://api.example.com/v1\"";
        reader.refuse(entry, format!("\"{}\" {mistake}", shown(text)), fix);
    }
    base.ok()
}

fn read_methods<'a>(reader: &mut Reader<'a>, section: &Section<'a>, default: &[&str]) -> Vec<String> {
    let owned = |list: &[&str]| list.iter().map(|method| (*method).to_owned()).collect();
    let Some(entry) = section.get("methods") else { return owned(default) };
    let Some(methods) = reader.strings(entry) else { return owned(default) };
    if methods.is_empty() {
        reader.refuse(entry, "an empty list allows nothing", "list methods, for example [\"GET\"]");
    }
    for method in methods.iter().filter(|method| !METHODS.contains(method)) {
        let fix = format!("known here: {}", METHODS.join(", "));
        reader.refuse(entry, format!("\"{}\" is not a method that can be allowed", shown(method)), fix);
    }
    let listed: BTreeSet<&str> = methods.into_iter().collect();
    METHODS.iter().filter(|method| listed.contains(**method)).map(|method| (*method).to_owned()).collect()
}

fn read_networks<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Vec<String> {
    let networks = reader.strings(entry).unwrap_or_default();
    if networks.len() > limit::HTTP_NETWORKS_MAX {
        let message = format!("{} networks are more than {}", networks.len(), limit::HTTP_NETWORKS_MAX);
        reader.refuse(entry, message, "");
        return Vec::new();
    }
    for network in &networks {
        if let Err(mistake) = Network::parse(network) {
            reader.refuse(entry, format!("\"{}\" {mistake}", shown(network)), "write one such as \"10.0.0.0/8\"");
        }
    }
    networks.into_iter().map(str::to_owned).collect()
}

fn read_credentials<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Vec<CredentialUse> {
    let sections = reader.sections(entry, &["secret", "header", "prefix", "query"]);
    if sections.len() > limit::HTTP_CREDENTIALS_MAX {
        let message = format!("{} credentials are more than {}", sections.len(), limit::HTTP_CREDENTIALS_MAX);
        reader.refuse(entry, message, "");
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut credentials = Vec::new();
    for section in &sections {
        let Some(credential) = read_credential(reader, section) else { continue };
        let place = match &credential.place {
            CredentialPlace::Header { name, .. } => format!("header {name}"),
            CredentialPlace::Query { name } => format!("query {name}"),
        };
        if !seen.insert(place) {
            reader.refuse(&section.this, "has the place of another credential", "remove one of the two");
        }
        credentials.push(credential);
    }
    credentials
}

fn read_credential<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<CredentialUse> {
    let secret = reader.required(section, "secret", "add secret = \"...\", the name of a secret resource");
    let secret = secret.and_then(|secret| reader.string(secret));
    let prefix = section.get("prefix");
    let place = match (section.get("header"), section.get("query")) {
        (Some(header), None) => {
            let name = read_header_name(reader, header);
            let prefix = prefix.and_then(|prefix| read_prefix(reader, prefix)).unwrap_or_default();
            name.map(|name| CredentialPlace::Header { name, prefix })
        }
        (None, Some(query)) => {
            if let Some(prefix) = prefix {
                reader.refuse(prefix, "changes nothing in a query", "remove it");
            }
            let name = reader.string(query).map(str::to_owned);
            if name.as_deref() == Some("") {
                reader.refuse(query, "a parameter has a name", "");
            }
            name.map(|name| CredentialPlace::Query { name })
        }
        _ => {
            let fix = "add header = \"authorization\" or query = \"key\", one of them";
            reader.refuse(&section.this, "a credential goes to one place", fix);
            None
        }
    };
    Some(CredentialUse { secret: secret?.to_owned(), place: place? })
}

fn read_prefix<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let prefix = reader.string(entry)?;
    if prefix.len() > limit::FIELD_NAME_BYTES_MAX || !prefix.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        reader.refuse(entry, "is not the beginning of a header", "write plain characters, for example \"Bearer \"");
        return None;
    }
    Some(prefix.to_owned())
}

fn read_headers<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>, resource: &HttpResource) -> Vec<String> {
    let Some(names) = reader.strings(entry) else { return Vec::new() };
    if names.len() > limit::HTTP_HEADERS_MAX {
        reader.refuse(entry, format!("{} headers are more than {}", names.len(), limit::HTTP_HEADERS_MAX), "");
        return Vec::new();
    }
    let mut granted = BTreeSet::new();
    for name in names {
        let Some(name) = header_name(reader, entry, name) else { continue };
        let carries = |credential: &CredentialUse| matches!(&credential.place, CredentialPlace::Header { name: carrier, .. } if *carrier == name);
        if resource.credentials.iter().any(carries) {
            reader.refuse(entry, format!("\"{name}\" carries a credential of the resource's"), "remove it");
        }
        granted.insert(name);
    }
    granted.into_iter().collect()
}

fn read_header_name<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<String> {
    let name = reader.string(entry)?;
    header_name(reader, entry, name)
}

fn header_name<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>, name: &str) -> Option<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > limit::FIELD_NAME_BYTES_MAX || !name.bytes().all(is_token) {
        reader.refuse(entry, format!("\"{}\" is not a header's name", shown(name)), "");
        return None;
    }
    let name = name.to_ascii_lowercase();
    if is_ungrantable_header(&name) {
        reader.refuse(entry, format!("\"{name}\" is the host's own, or would undo the grant"), "remove it");
        return None;
    }
    Some(name)
}

fn read_paths<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Vec<String> {
    let mut paths = Vec::new();
    for glob in list_bounded(reader, entry, "globs") {
        // `/` alone is the base itself; a final one is a name of its own to most servers.
        let below = glob.strip_prefix('/').unwrap_or(glob);
        let named = below.strip_suffix('/').unwrap_or(below);
        if !(named.is_empty() && glob == "/")
            && let Some((mistake, fix)) = glob_mistake(named)
        {
            let fix =
                if mistake.starts_with("can match") { "paths are below the url, without `.` and `..`" } else { fix };
            reader.refuse(entry, format!("\"{}\" {mistake}", shown(glob)), fix);
        }
        paths.push(below.to_owned());
    }
    paths
}

fn read_rate<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<Rate> {
    let burst = section.get("burst");
    let Some(entry) = section.get("rate") else {
        if let Some(burst) = burst {
            reader.refuse(burst, "changes nothing without a rate", "add rate = \"5/s\"");
        }
        return None;
    };
    let text = reader.string(entry)?;
    let Some((permits, period_ms)) = parse_rate(text) else {
        reader.refuse(entry, format!("\"{}\" is not a rate", shown(text)), "write one such as \"5/s\" or \"100/m\"");
        return None;
    };
    let burst = burst.map_or(Some(permits), |burst| reader.integer(burst, 1, limit::HTTP_RATE_MAX));
    Some(Rate { permits, period_ms, burst: burst? })
}

/// `5/s`, `100/m`, `1/10s`: permits and milliseconds.
fn parse_rate(text: &str) -> Option<(u32, u64)> {
    let (permits, period) = text.split_once('/')?;
    let permits = permits.parse().ok().filter(|permits| (1..=limit::HTTP_RATE_MAX).contains(permits))?;
    let bare = period.chars().all(|c| c.is_ascii_alphabetic());
    let period_ms = if bare { parse_duration_ms(&format!("1{period}")) } else { parse_duration_ms(period) }?;
    let longest = limit::HTTP_RATE_PERIOD_MAX.as_millis() as u64;
    (1..=longest).contains(&period_ms).then_some((permits, period_ms))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{answer, refused, sound},
        *,
    };

    const API: &str = "[resources.api]\nkind = \"http\"\nurl = \"https://api.example.com/v1/\"\n";

    #[track_caller]
    fn refused_resource(line: &str, expected: &str) {
        refused(&format!("{API}{line}\n"), expected);
    }

    #[track_caller]
    fn refused_grant(grant: &str, expected: &str) {
        refused(&format!("{API}[assets.raw]\ngrants.api = {grant}\n"), expected);
    }

    #[test]
    fn everything_that_is_said_is_there() {
        let manifest = sound(
            r#"
[resources.api]
kind = "http"
url = "https://API.example.com:8443/v1/"
methods = ["POST", "GET", "DELETE"]
networks = ["10.0.0.0/8", "fd00::/8"]
ca = "ca.pem"
rate = "5/s"
burst = 10
connect_timeout = "1s"
first_byte_timeout = "2s"
timeout = "3s"
[assets.raw.grants.api]
methods = ["POST", "GET"]
paths = ["/items/*", "/", "search/"]
headers = ["Accept", "content-type"]
requests = 7
in_flight = 2
request_bytes = "1KiB"
header_bytes = "2KiB"
response_bytes = "3KiB"
retries = 0
"#,
        );
        let Resource::Http(http) = &manifest.resources["api"] else { panic!() };
        let expected = HttpResource {
            url: "https://api.example.com:8443/v1".into(),
            methods: vec!["GET".into(), "POST".into(), "DELETE".into()],
            networks: vec!["10.0.0.0/8".into(), "fd00::/8".into()],
            ca: Some("ca.pem".into()),
            credentials: vec![],
            rate: Some(Rate { permits: 5, period_ms: 1_000, burst: 10 }),
            connect_timeout_ms: 1_000,
            first_byte_timeout_ms: 2_000,
            timeout_ms: 3_000,
        };
        assert_eq!(*http, expected);
        let grant = manifest.assets["raw"].grants[0].http().unwrap();
        let expected = HttpGrant {
            resource: "api".into(),
            url: "https://api.example.com:8443/v1".into(),
            methods: vec!["GET".into(), "POST".into()],
            paths: vec!["items/*".into(), "".into(), "search/".into()],
            headers: vec!["accept".into(), "content-type".into()],
            requests: 7,
            in_flight: 2,
            request_bytes: 1 << 10,
            header_bytes: 2 << 10,
            response_bytes: 3 << 10,
            retries: 0,
        };
        assert_eq!(*grant, expected);
    }

    #[test]
    fn what_is_left_out_is_reading_without_headers() {
        let manifest = sound(&format!("{API}[assets.raw]\ngrants.api.paths = [\"**\"]\n"));
        let Resource::Http(http) = &manifest.resources["api"] else { panic!() };
        assert_eq!(
            (&*http.methods, http.networks.len(), &http.ca, http.rate),
            (&["GET".into(), "HEAD".into()][..], 0, &None, None)
        );
        let grant = manifest.assets["raw"].grants[0].http().unwrap();
        assert_eq!((&*grant.methods, &*grant.headers), (&["GET".into()][..], &[][..]));
        assert_eq!((grant.requests, grant.retries), (limit::HTTP_REQUESTS_DEFAULT, limit::HTTP_RETRIES_DEFAULT));
    }

    #[test]
    fn a_base_url_is_plain() {
        refused("[resources.api]\nkind = \"http\"\n", "resources.api.url: missing");
        for (url, expected) in [
            ("ftp://a", "is neither http nor https"),
            ("https://u:p@a", "user name or password"),
            ("https://a/../b", "a path that is not plain"),
            ("https://a?k=v", "has a query"),
        ] {
            refused(&format!("[resources.api]\nkind = \"http\"\nurl = \"{url}\"\n"), expected);
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        refused_resource("methods = []", "an empty list allows nothing");
        refused_resource("methods = [\"get\"]", "\"get\" is not a method that can be allowed");
        refused_resource("methods = [\"CONNECT\"]", "\"CONNECT\" is not a method");
        refused_resource("networks = [\"0.0.0.0/0\"]", "names almost everything");
        refused_resource("networks = [\"localhost\"]", "is not a network");
        refused_resource("rate = \"0/s\"", "\"0/s\" is not a rate");
        refused_resource("rate = \"5\"", "\"5\" is not a rate");
        refused_resource("burst = 5", "changes nothing without a rate");
        refused_resource("rate = \"5/s\"\nburst = 0", "0 is out of bounds");
        refused_resource("timeout = \"1d\"", "\"1d\" is out of bounds");
        refused_resource("tiemout = \"1s\"", "did you mean `timeout`?");
        refused_resource("ca = \"\"", "is not a path");
    }

    #[test]
    fn a_credential_goes_to_one_place_over_tls_from_a_declared_secret() {
        let credentials = |text: &str| format!("credentials = [{text}]");
        refused_resource(
            &credentials("{ secret = \"token\", header = \"authorization\" }"),
            "there is no secret `token`",
        );
        refused_resource(&credentials("{ secret = \"api\", query = \"key\" }"), "`api` is not a secret");
        refused_resource(&credentials("{ secret = \"token\" }"), "a credential goes to one place");
        refused_resource(&credentials("{ secret = \"t\", header = \"a\", query = \"b\" }"), "goes to one place");
        refused_resource(&credentials("{ header = \"authorization\" }"), "credentials[0].secret: missing");
        refused_resource(&credentials("{ secret = \"t\", header = \"host\" }"), "is the host's own");
        refused_resource(&credentials("{ secret = \"t\", header = \"a b\" }"), "is not a header's name");
        let plain = format!("{}{}\n", API.replace("https", "http"), credentials("{ secret = \"t\", query = \"k\" }"));
        assert!(answer(&plain).contains("would be readable by everybody on the way"));
    }

    #[test]
    fn a_grant_stays_within_its_resource() {
        refused_grant("{ paths = [\"**\"], methods = [\"POST\"] }", "the resource does not allow POST");
        refused_grant("{}", "grants.api.paths: missing");
        refused_grant("{ paths = [] }", "an empty list grants nothing");
        refused_grant("{ paths = [\"../x\"] }", "can match nothing; paths are below the url");
        refused_grant("{ paths = [\"//x\"] }", "can match nothing");
        refused_grant("{ paths = [\"**\"], headers = [\"Host\"] }", "\"host\" is the host's own");
        refused_grant("{ paths = [\"**\"], headers = [\"x-http-method-override\"] }", "would undo the grant");
        refused_grant("{ paths = [\"**\"], headers = [\"a:b\"] }", "is not a header's name");
        refused_grant("{ paths = [\"**\"], requests = 0 }", "0 is out of bounds");
        refused_grant("{ paths = [\"**\"], in_flight = 100000 }", "is out of bounds");
        refused_grant("{ paths = [\"**\"], response_bytes = \"1PiB\" }", "is not a size");
        refused_grant("{ paths = [\"**\"], retries = 100 }", "is out of bounds");
    }

    #[test]
    fn rates_are_permits_in_a_period() {
        assert_eq!(parse_rate("5/s"), Some((5, 1_000)));
        assert_eq!(parse_rate("100/m"), Some((100, 60_000)));
        assert_eq!(parse_rate("1/10s"), Some((1, 10_000)));
        for bad in ["", "/s", "5/", "x/s", "-1/s", "5/y", "5/0s", "5000000000/s", "1/400d"] {
            assert_eq!(parse_rate(bad), None, "{bad}");
        }
    }
}
