//! One `[assets.NAME]` section: configuration, limits, retries, queue, and the grants by [`super::grant`].

use std::time::Duration;

use super::{
    super::{
        concurrency::{Concurrency, TENANT_POOL},
        definition::name_mistake,
        policy::{Backoff, Limits, RetryPolicy, Route},
        quantity::{duration_text, fuel_text, parse_fuel},
        recipe::canonical_json,
    },
    AssetSettings,
    grant::read_grants,
    reader::{Entry, Quantity, Reader, Section, bytes, duration},
    resource::Declared,
};
use crate::limit;

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

/// Shorter durations are not measured.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads one asset's section; what is wrong is recorded, and a default stands in for it.
pub(super) fn read_asset<'a>(
    reader: &mut Reader<'a>,
    entry: &Entry<'a>,
    resources: &Declared,
) -> Option<AssetSettings> {
    let known = [
        "grants",
        "config",
        "limits",
        "retry",
        "fresh_for",
        "queue",
        "priority",
        "worker_tags",
        "max_concurrent",
        "pools",
    ];
    let section = reader.section(entry, &known)?;
    let mut settings = AssetSettings::default();
    if let Some(entry) = section.get("grants") {
        settings.grants = read_grants(reader, entry, resources);
    }
    if let Some(entry) = section.get("config") {
        settings.config = reader.json_object(entry).unwrap_or_default();
        reader.remember_children(entry);
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
    settings.route = read_route(reader, &section);
    settings.concurrency = read_concurrency(reader, &section);
    Some(settings)
}

fn read_route<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Route {
    let mut route = Route::default();
    if let Some((entry, queue)) = section.get("queue").and_then(|entry| Some((entry, reader.string(entry)?))) {
        if let Some(mistake) = name_mistake("a queue", queue) {
            reader.refuse(entry, mistake, "");
        }
        route.queue = queue.to_owned();
    }
    let bounds = -limit::PRIORITY_MAX..=limit::PRIORITY_MAX;
    if let Some(priority) = section.get("priority").and_then(|entry| reader.signed(entry, bounds)) {
        route.priority = priority;
    }
    let Some((entry, tags)) = section.get("worker_tags").and_then(|entry| Some((entry, reader.strings(entry)?))) else {
        return route;
    };
    if tags.len() > limit::WORKER_TAGS_MAX {
        let message = format!("{} tags are more than the {} of an asset", tags.len(), limit::WORKER_TAGS_MAX);
        reader.refuse(entry, message, "");
        return route;
    }
    for tag in tags {
        if let Some(mistake) = name_mistake("a worker's tag", tag) {
            reader.refuse(entry, mistake, "");
        }
        route.tags.insert(tag.to_owned());
    }
    route
}

fn read_concurrency<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Concurrency {
    let of_asset = section.get("max_concurrent").and_then(|entry| reader.integer(entry, 1, limit::POOL_SIZE_MAX));
    let mut concurrency = Concurrency { of_asset, ..Concurrency::default() };
    let Some((entry, pools)) = section.get("pools").and_then(|entry| Some((entry, reader.strings(entry)?))) else {
        return concurrency;
    };
    reader.remember(entry);
    if pools.len() > limit::POOLS_PER_ASSET_MAX {
        let message = format!("{} pools are more than the {} of an asset", pools.len(), limit::POOLS_PER_ASSET_MAX);
        reader.refuse(entry, message, "");
        return concurrency;
    }
    for pool in pools {
        if let Some(mistake) = name_mistake("a pool", pool) {
            reader.refuse(entry, mistake, "");
        } else if pool == TENANT_POOL {
            reader.refuse(entry, format!("every job is in the pool `{TENANT_POOL}`"), "leave it out");
        }
        concurrency.pools.insert(pool.to_owned());
    }
    concurrency
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
