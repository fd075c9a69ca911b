//! What a guest or a server names: paths, parameters, headers, whole URLs, redirects, networks, files.
//!
//! What is accepted stays within its grant as this file reads it: a reading of its own, without the host's parsers, that
//! unescapes what is sent again and again, as a careless server would.

use std::path::{Component, Path};

use flowstone::{
    capability::{
        files::{Globs, check_path},
        http::{Policy, Target},
    },
    limit::{HTTP_URL_BYTES_MAX, PATH_BYTES_MAX},
    pipeline::{
        http::{BaseUrl, CredentialPlace, CredentialUse, HttpGrant, HttpResource},
        network::Network,
    },
};

use crate::{lines, text};

/// One line each: base URL, path, glob, parameter, redirect, whole URL, header's name, its value, network, file.
pub fn check(input: &[u8]) {
    let [base, path, glob, parameter, location, url, name, value, network, file] = lines::<10>(input);
    let base = match base_url(text(base)) {
        Some(base) => base,
        None => BaseUrl::parse("https://api.example.com/v1").expect("it is one"),
    };
    requests(&base, path, glob, parameter, location, url);
    header(&base, text(name), value);
    named_network(text(network));
    file_name(text(file), text(glob));
}

/// A base URL has one form, which is what it says.
fn base_url(written: &str) -> Option<BaseUrl> {
    let base = BaseUrl::parse(written).ok()?;
    let canonical = base.canonical();
    assert_eq!(BaseUrl::parse(&canonical).as_ref(), Ok(&base), "{canonical}");
    let (scheme, rest) = canonical.split_once("://").expect("it has a scheme");
    assert_eq!(scheme == "https", base.is_https);
    let (authority, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    assert_eq!((authority, below), (base.authority(), &*base.prefix));
    assert!(!canonical.contains(['@', '?', '#', '\\', '%']) && canonical.bytes().all(|b| b.is_ascii_graphic()));
    assert!(!authority.is_empty() && authority == authority.to_ascii_lowercase(), "{authority}");
    assert!(below.is_empty() || stays(below, ""), "{below}");
    Some(base)
}

fn policy(base: &BaseUrl, glob: &str, header: &str) -> Option<Policy> {
    let resource = HttpResource {
        url: base.canonical(),
        methods: vec!["GET".into(), "POST".into()],
        networks: vec![],
        ca: None,
        credentials: vec![
            CredentialUse {
                secret: "token".into(),
                place: CredentialPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() },
            },
            CredentialUse { secret: "token".into(), place: CredentialPlace::Query { name: "key".into() } },
        ],
        rate: None,
        connect_timeout_ms: 1_000,
        first_byte_timeout_ms: 1_000,
        timeout_ms: 1_000,
    };
    let grant = HttpGrant {
        resource: "api".into(),
        url: base.canonical(),
        methods: resource.methods.clone(),
        paths: vec![glob.into()],
        headers: vec![header.into()],
        requests: 1,
        in_flight: 1,
        request_bytes: 1,
        header_bytes: 1_000,
        response_bytes: 1,
        retries: 0,
    };
    Policy::new(&resource, &grant).ok()
}

fn requests(base: &BaseUrl, path: &[u8], glob: &[u8], parameter: &[u8], location: &[u8], url: &[u8]) {
    let open = policy(base, "**", "accept").expect("that is a glob");
    let (name, value) = text(parameter).split_once('=').unwrap_or((text(parameter), ""));
    if let Ok(target) = open.target(text(path), &[(name, value)]) {
        accepted(base, &target);
        // What is sent is judged as what was asked for.
        let below = target.origin_form();
        let below = below.split('?').next().expect("a split has a first part").strip_prefix(&*base.prefix);
        let again = open.target(below.expect("it was below it"), &[(name, value)]).expect("it was accepted");
        assert_eq!((&again.path, again.origin_form()), (&target.path, target.origin_form()));
        // No grant is wider than everything, and one that matches says so of the path that is recorded.
        if let Some(narrow) = policy(base, text(glob), "accept") {
            let globs = Globs::new(&[text(glob).to_owned()]).expect("the policy has it too");
            assert_eq!(narrow.target(text(path), &[]).is_ok(), globs.is_match(&target.path), "{}", target.path);
        }
    }
    let from = open.target("x", &[]).expect("that is a path");
    if let Ok((method, target, _)) = open.redirect(302, "GET", &from, location) {
        assert_eq!(method, "GET");
        accepted(base, &target);
        same_origin(base, text(location));
    }
    if let Ok(uri) = http::Uri::try_from(url)
        && let Some(Ok(target)) = open.url(&uri)
    {
        accepted(base, &target);
        same_origin(base, text(url));
    }
}

fn accepted(base: &BaseUrl, target: &Target) {
    let line = target.origin_form();
    assert!(line.len() <= HTTP_URL_BYTES_MAX + 1);
    assert!(line.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{line:?} is not one word");
    let (path, query) = line.split_once('?').unwrap_or((&line, ""));
    assert!(stays(path, &base.prefix), "{path:?} leaves {:?}", base.prefix);
    assert_eq!(unescaped(path).trim_end_matches('/'), below(&base.prefix, &target.path), "another path is recorded");
    for pair in query.split(['&', ';']) {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        let name = unescaped(&name).to_lowercase();
        assert!(name.trim() != "key" && !name.trim().starts_with("key["), "{query:?} replaces the credential");
    }
}

fn below(prefix: &str, path: &str) -> String {
    format!("{prefix}/{path}").trim_end_matches('/').to_owned()
}

/// Whether a path is below a prefix, however often and however badly it is unescaped.
fn stays(path: &str, prefix: &str) -> bool {
    let mut path = path.to_owned();
    loop {
        let Some(below) = path.strip_prefix(prefix) else { return false };
        if !below.is_empty() && !below.starts_with('/') || path.starts_with("//") {
            return false;
        }
        let names = below.strip_suffix('/').unwrap_or(below).split('/').skip(1);
        for name in names {
            if matches!(name.split(';').next(), None | Some("" | "." | "..")) {
                return false;
            }
        }
        if path.contains(['\\', '\u{ff0f}', '\u{2215}', '\u{2044}', '\u{ff0e}']) || path.chars().any(char::is_control) {
            return false;
        }
        let next = unescaped(&path);
        if next == path {
            return true;
        }
        path = next;
    }
}

/// One round of it. What is no escape stays as it is, as most servers have it.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let (mut plain, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// A URL that was accepted names the base's host, or none.
fn same_origin(base: &BaseUrl, url: &str) {
    let lower = url.to_ascii_lowercase();
    let rest = match (lower.split_once(':'), lower.starts_with("//")) {
        (_, true) => &lower[2..],
        // A scheme is letters; what else has a colon is a path.
        (Some((scheme, rest)), _) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            assert_eq!(scheme == "https", base.is_https, "{url}");
            match rest.strip_prefix("//") {
                Some(rest) => rest,
                // `https:path`, which browsers read as a path.
                None => return,
            }
        }
        _ => return,
    };
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    // Nobody, or somebody called nothing, which is as good as nobody.
    let (user, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
    assert!(user.is_empty() || user == ":", "{url} names a user");
    // Names in other alphabets and numbers in other bases are the base's own business: it was compared by its rules.
    if authority.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'-') && !authority.is_empty() {
        assert_eq!(authority.trim_end_matches('.'), base.host, "{url}");
    }
}

/// Nobody can grant or send what frames a request, leads it elsewhere, or carries a credential.
fn header(base: &BaseUrl, name: &str, value: &[u8]) {
    let Some(policy) = policy(base, "**", name) else { return };
    let Ok(headers) = policy.headers([(name, value)].into_iter()) else { return };
    let lower = name.to_ascii_lowercase();
    let framing = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"];
    assert!(!framing.contains(&&*lower) && !lower.starts_with("proxy-") && lower != "authorization", "{name}");
    assert!(lower.bytes().all(|b| b.is_ascii_graphic() && b != b':'), "{name:?}");
    assert!(value.iter().all(|b| *b == b'\t' || (0x20..0x7f).contains(b)), "{value:?} is not on one line");
    assert_eq!(headers.len(), 1);
}

/// A network is not nearly everything, and holds the address by which it is called.
fn named_network(written: &str) {
    let Ok(network) = Network::parse(written) else { return };
    let first = written.split('/').next().and_then(|address| address.parse().ok()).expect("it has an address");
    assert!(network.contains(first), "{written}");
    let far = ["127.0.0.1", "8.8.8.8", "198.51.100.1", "::1", "2001:4860::1", "fd00::1"];
    let held = far.iter().filter(|address| network.contains(address.parse().expect("it is one"))).count();
    assert!(held <= 1, "{written} is nearly everything");
}

/// A path within a directory has nothing but names in it.
fn file_name(written: &str, glob: &str) {
    if check_path(written).is_err() {
        return;
    }
    assert!(written.len() <= PATH_BYTES_MAX && !written.contains('\0'));
    let parts: Vec<Component<'_>> = Path::new(written).components().collect();
    assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{written:?}");
    assert_eq!(parts.len(), written.split('/').count(), "{written:?}");
    if let Ok(globs) = Globs::new(&[glob.to_owned()]) {
        globs.is_match(written);
    }
}
