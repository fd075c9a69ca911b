//! `flowstone.toml`: any text, as an author of a pipeline would deploy it where an operator has registered resources.
//!
//! A text that is refused is refused with a bounded number of plain sentences, each at a place that is in it. One that is
//! accepted means the same when it is read again, is stored and read back as what it is, and none of its grants is
//! refused when an attempt begins.

use std::{collections::BTreeMap, fmt::Debug, sync::LazyLock};

use flowstone::{
    capability::{files::Globs, http::Policy},
    limit::{DIAGNOSTICS_MAX, TIMEOUT_MAX},
    pipeline::{
        diagnostic::Diagnostic,
        manifest::{AssetSettings, Manifest, parse_manifest, parse_name, parse_resources},
        network::Network,
        resource::{Grant, Resource},
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// What an operator has registered.
static REGISTERED: LazyLock<BTreeMap<String, Resource>> = LazyLock::new(|| {
    let text = r#"
        [resources.shelf]
        kind = "directory"
        path = "/srv/shelf"
        access = "read-write"
        [resources.shop]
        kind = "http"
        url = "https://shop.example.com/v1"
        methods = ["GET", "POST"]
        [resources.wall]
        kind = "clock"
        [resources.token]
        kind = "secret"
        sealed = true
    "#;
    parse_resources("operator.toml", text).expect("it is sound")
});

/// Bytes of one mistake, as it is shown: a screen.
const SHOWN_BYTES_MAX: usize = 16 << 10;

/// Reads it as a manifest.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for registered in [&BTreeMap::new(), &*REGISTERED] {
        match parse_manifest("flowstone.toml", text, registered) {
            Ok(manifest) => accepted(&manifest, text, registered),
            Err(mistakes) => refused(&mistakes, text),
        }
    }
    // What is no manifest may still hold these.
    if let Err(mistakes) = parse_resources("flowstone.toml", text) {
        refused(&mistakes, text);
    }
    if let Err(mistakes) = parse_name("flowstone.toml", text) {
        refused(&mistakes, text);
    }
}

fn refused(mistakes: &[Diagnostic], text: &str) {
    assert!(!mistakes.is_empty(), "it was refused for nothing");
    assert!(mistakes.len() <= DIAGNOSTICS_MAX + 1, "{} mistakes", mistakes.len());
    let lines = text.matches('\n').count() + 1;
    for mistake in mistakes {
        if let Some(place) = mistake.place {
            assert!((1..=lines).contains(&place.line) && place.column >= 1, "{place:?} of {lines} lines");
            let line = text.split('\n').nth(place.line - 1).expect("it was counted");
            assert!(place.column <= line.chars().count() + 1, "{place:?} of {line:?}");
        }
        let shown = mistake.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?} could steer a terminal");
        assert!(shown.len() <= SHOWN_BYTES_MAX, "{} bytes are no sentence", shown.len());
    }
}

fn accepted(manifest: &Manifest, text: &str, registered: &BTreeMap<String, Resource>) {
    assert_eq!(parse_manifest("flowstone.toml", text, registered).as_ref(), Ok(manifest), "it is read otherwise");
    assert_eq!(parse_name("flowstone.toml", text).as_ref(), Ok(&manifest.name));
    assert_eq!(parse_resources("flowstone.toml", text).as_ref(), Ok(&manifest.resources));
    assert!(!manifest.components.is_empty());
    for (name, resource) in &manifest.resources {
        stored(resource);
        if let Resource::Http(http) = resource {
            for network in &http.networks {
                assert!(Network::parse(network).is_ok(), "{network} of {name}");
            }
        }
    }
    for settings in manifest.assets.values() {
        asset(settings, &manifest.resources, registered);
    }
}

fn asset(settings: &AssetSettings, own: &BTreeMap<String, Resource>, registered: &BTreeMap<String, Resource>) {
    stored(&settings.grants);
    stored(&settings.config);
    stored(&settings.limits);
    stored(&settings.retry);
    let limits = &settings.limits;
    assert!(limits.fuel > 0 && limits.memory_bytes > 0 && limits.timeout_ms > 0, "{limits:?}");
    assert!(u128::from(limits.timeout_ms) <= TIMEOUT_MAX.as_millis(), "{limits:?}");
    assert!(settings.retry.max_attempts > 0 && settings.retry.base_ms <= settings.retry.cap_ms, "{:?}", settings.retry);
    for grant in &settings.grants {
        let name = grant.resource();
        let resource = own.get(name).or_else(|| registered.get(name)).expect("what is granted is there");
        assert_eq!(grant.excess(resource), None, "an attempt would be refused: {grant:?}");
        match (grant, resource) {
            (Grant::Files(files), _) => assert!(Globs::new(&files.paths).is_ok(), "{files:?}"),
            (Grant::Http(http), Resource::Http(origin)) => drop(Policy::new(origin, http).expect("it can be used")),
            _ => {}
        }
    }
}

/// What is written to the database is what is read from it.
fn stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it can be stored");
    assert_eq!(serde_json::from_str::<T>(&text).as_ref().ok(), Some(value), "{text}");
}
