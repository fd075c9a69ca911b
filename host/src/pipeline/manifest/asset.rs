//! One `[assets.NAME]` section: grants, configuration, limits, retries.

use std::{collections::BTreeMap, time::Duration};

use globset::GlobBuilder;

use super::{
    super::{
        diagnostic::shown,
        policy::{Access, Backoff, DirectoryGrant, Limits, RetryPolicy},
        quantity::{bytes_text, duration_text, fuel_text, parse_bytes, parse_duration_ms, parse_fuel},
        recipe::canonical_json,
    },
    AssetSettings, Resource,
    reader::{Entry, Quantity, Reader},
};
use crate::limit;

/// The words for access.
pub(super) const ACCESS: [(&str, Access); 2] = [("read", Access::Read), ("read-write", Access::ReadWrite)];

const BACKOFFS: [(&str, Backoff); 3] =
    [("constant", Backoff::Constant), ("linear", Backoff::Linear), ("exponential", Backoff::Exponential)];

const FUEL: Quantity = Quantity {
    what: "an amount of fuel",
    parse: parse_fuel,
    write: fuel_text,
    fix: "write a number with K, M, G or T, for example \"5G\"",
    min: 1,
    max: limit::FUEL_MAX,
};

const fn bytes(min: u64, max: u64) -> Quantity {
    let fix = "write a number with B, KiB, MiB or GiB, for example \"256MiB\"";
    Quantity { what: "a size", parse: parse_bytes, write: bytes_text, fix, min, max }
}

const fn duration(min: Duration, max: Duration) -> Quantity {
    Quantity {
        what: "a duration",
        parse: parse_duration_ms,
        write: |ms| duration_text(Duration::from_millis(ms)),
        fix: "write a number with ms, s, m, h or d, for example \"90s\"",
        min: min.as_millis() as u64,
        max: max.as_millis() as u64,
    }
}

/// Shorter durations are not measured.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads one asset's section; what is wrong is recorded, and a default stands in for it.
pub(super) fn read_asset<'a>(
    reader: &mut Reader<'a>,
    entry: &Entry<'a>,
    resources: &BTreeMap<String, Resource>,
) -> Option<AssetSettings> {
    let section = reader.section(entry, &["grants", "config", "limits", "retry", "fresh_for"])?;
    let mut settings = AssetSettings::default();
    if let Some(grants) = section.get("grants").and_then(|entry| reader.table(entry)) {
        for (resource, entry) in &grants.entries {
            reader.remember(entry);
            settings.grants.extend(read_grant(reader, resource, entry, resources));
        }
        settings.grants.sort_by(|one, other| one.resource.cmp(&other.resource));
    }
    if let Some(entry) = section.get("config") {
        settings.config = reader.json_object(entry).unwrap_or_default();
        let size = canonical_json(&settings.config).len();
        if size > limit::CONFIG_BYTES_MAX {
            let message = format!("{size} bytes as JSON are more than a configuration's {}", limit::CONFIG_BYTES_MAX);
            reader.refuse(entry, message, "put large values into an input or a file");
        }
    }
    if let Some(entry) = section.get("limits") {
        settings.limits = read_limits(reader, entry);
    }
    if let Some(entry) = section.get("retry") {
        settings.retry = read_retry(reader, entry);
    }
    if let Some(entry) = section.get("fresh_for") {
        reader.remember(entry);
        settings.fresh_for_ms = reader.quantity(entry, &duration(SHORTEST, limit::FRESH_FOR_MAX));
    }
    Some(settings)
}

fn read_grant<'a>(
    reader: &mut Reader<'a>,
    resource: &str,
    entry: &Entry<'a>,
    resources: &BTreeMap<String, Resource>,
) -> Option<DirectoryGrant> {
    let section = reader.section(entry, &["access", "paths", "write"])?;
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    let access = access.unwrap_or(Access::Read);
    match resources.get(resource) {
        None => {
            let fix = reader.suggestion(resource, resources.keys().map(|name| &**name)).unwrap_or_else(|| {
                format!("declare [resources.{}] with kind = \"directory\" and path = \"...\"", shown(resource))
            });
            reader.refuse(entry, format!("there is no resource `{}`", shown(resource)), fix);
        }
        Some(Resource::Directory { access: Access::Read, .. }) if access == Access::ReadWrite => {
            let fix = format!("grant \"read\", or set resources.{resource}.access = \"read-write\"");
            reader.refuse(section.get("access").unwrap_or(entry), "the resource may only be read", fix);
        }
        Some(_) => {}
    }
    let write = section.get("write");
    if let (Some(write), Access::Read) = (write, access) {
        reader.refuse(write, "changes nothing without access = \"read-write\"", "remove it");
    }
    let write_bytes = write.and_then(|write| reader.quantity(write, &bytes(1, limit::OUTPUT_BYTES_MAX)));
    let paths = reader.required(&section, "paths", "list globs, for example paths = [\"*.csv\"]; \"**\" is everything");
    let paths = paths.map(|paths| read_globs(reader, paths)).unwrap_or_default();
    let write_bytes = write_bytes.unwrap_or(limit::WRITE_BYTES_DEFAULT);
    Some(DirectoryGrant { resource: resource.to_owned(), access, paths, write_bytes })
}

fn read_globs<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Vec<String> {
    let Some(globs) = reader.strings(entry) else { return Vec::new() };
    if globs.is_empty() {
        reader.refuse(entry, "an empty list grants nothing", "list globs, or remove the grant");
    }
    if globs.len() > limit::GRANT_PATHS_MAX {
        reader.refuse(entry, format!("{} globs are more than {}", globs.len(), limit::GRANT_PATHS_MAX), "");
        return Vec::new();
    }
    for glob in &globs {
        if let Some((mistake, fix)) = glob_mistake(glob) {
            reader.refuse(entry, format!("\"{}\" {mistake}", shown(glob)), fix);
        }
    }
    globs.into_iter().map(ToOwned::to_owned).collect()
}

/// Why a glob could never match, and the fix.
fn glob_mistake(glob: &str) -> Option<(String, &'static str)> {
    let parts = || glob.split('/');
    if glob.is_empty() || glob.len() > limit::GRANT_PATH_BYTES_MAX {
        return Some((format!("is not a glob of 1 to {} bytes", limit::GRANT_PATH_BYTES_MAX), ""));
    }
    if glob.starts_with('/') || parts().any(|part| matches!(part, "" | "." | "..")) {
        return Some(("can match nothing".to_owned(), "paths are relative to the directory, without `.` and `..`"));
    }
    match GlobBuilder::new(glob).literal_separator(true).build() {
        Ok(_) => None,
        Err(error) => Some((format!("is not a glob: {}", error.kind()), "write one such as \"*.csv\" or \"**\"")),
    }
}

fn read_limits<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = reader.section(entry, &["fuel", "memory", "timeout", "output", "log"]) else { return limits };
    let fields = [
        ("fuel", &mut limits.fuel, FUEL),
        ("memory", &mut limits.memory_bytes, bytes(limit::MEMORY_BYTES_MIN, limit::MEMORY_BYTES_MAX)),
        ("timeout", &mut limits.timeout_ms, duration(limit::TIMEOUT_MIN, limit::TIMEOUT_MAX)),
        ("output", &mut limits.output_bytes, bytes(1, limit::OUTPUT_BYTES_MAX)),
        ("log", &mut limits.log_bytes, bytes(0, limit::LOG_BYTES_MAX)),
    ];
    for (name, field, quantity) in fields {
        if let Some(amount) = section.get(name).and_then(|entry| reader.quantity(entry, &quantity)) {
            *field = amount;
        }
    }
    limits
}

fn read_retry<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> RetryPolicy {
    let mut retry = RetryPolicy::default();
    let known = ["max_attempts", "backoff", "base", "cap", "jitter"];
    let Some(section) = reader.section(entry, &known) else { return retry };
    let wait = duration(SHORTEST, limit::RETRY_WAIT_MAX);
    let attempts = section.get("max_attempts");
    if let Some(attempts) = attempts.and_then(|entry| reader.integer(entry, 1, limit::ATTEMPTS_MAX)) {
        retry.max_attempts = attempts;
    }
    if let Some(backoff) = section.get("backoff").and_then(|entry| reader.word(entry, &BACKOFFS)) {
        retry.backoff = backoff;
    }
    if let Some(jitter) = section.get("jitter").and_then(|entry| reader.boolean(entry)) {
        retry.jitter = jitter;
    }
    let base = section.get("base").and_then(|entry| reader.quantity(entry, &wait));
    retry.base_ms = base.unwrap_or(retry.base_ms);
    // A first wait beyond the default cap is its own cap: the manifest has not contradicted itself.
    retry.cap_ms = retry.cap_ms.max(retry.base_ms);
    if let Some((entry, cap)) = section.get("cap").and_then(|entry| Some((entry, reader.quantity(entry, &wait)?))) {
        if cap < retry.base_ms {
            let base = duration_text(Duration::from_millis(retry.base_ms));
            reader.refuse(entry, format!("is shorter than the first wait, {base}"), "raise cap or lower base");
        }
        retry.cap_ms = cap;
    }
    retry
}
