//! Assets over HTTP: what their configuration says is what they ask for.

use flowstone_sdk::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Ask {
    #[serde(default = "get")]
    method: String,
    path: String,
    #[serde(default)]
    body: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default = "once")]
    times: u32,
}

fn get() -> String {
    "GET".into()
}

fn once() -> u32 {
    1
}

/// Asks as it is configured; the output is the last answer's body.
#[asset(requires(api = http("asks as it is configured")))]
fn asks(ctx: &Context) -> Result<Vec<u8>> {
    let Ask { method, path, body, key, times } = ctx.config()?;
    let api = ctx.http("api")?;
    let mut last = Vec::new();
    for _ in 0..times {
        let mut request = api.request(&*method, &*path).body(body.clone());
        if let Some(key) = &key {
            request = request.idempotent(key.as_str());
        }
        last = request.send()?.ok()?.bytes()?;
    }
    Ok(last)
}

/// The same, as a second asset that can run beside it.
#[asset(requires(api = http("asks as it is configured")))]
fn asks_too(ctx: &Context) -> Result<Vec<u8>> {
    let Ask { path, times, .. } = ctx.config()?;
    let api = ctx.http("api")?;
    let mut last = Vec::new();
    for _ in 0..times {
        last = api.get(&*path).send()?.ok()?.bytes()?;
    }
    Ok(last)
}

/// Asks once in each of its hours, so that many ask at once.
#[asset(
    partitions(hour = hourly("2024-01-01T00", "2024-01-31T00")),
    requires(api = http("asks as it is configured")),
)]
fn asks_each(ctx: &Context) -> Result<Vec<u8>> {
    let Ask { path, .. } = ctx.config()?;
    let hour = ctx.partition().key("hour")?.to_string();
    ctx.http("api")?.get(format!("{path}/{hour}")).send()?.ok()?.bytes()
}

/// Keeps every answer open, and says after how many it was stopped.
#[asset(requires(api = http("keeps answers open")))]
fn hoards(ctx: &Context) -> Result<String> {
    let api = ctx.http("api")?;
    let mut open = Vec::new();
    loop {
        match api.get("items/1").send() {
            Ok(answer) => open.push(answer),
            Err(error) => return Ok(format!("{} open: {error}", open.len())),
        }
    }
}

/// Asks for what it may not, again and again, and goes on.
#[asset(requires(api = http("asks for what it may not")))]
fn insists(ctx: &Context) -> Result<String> {
    let api = ctx.http("api")?;
    let mut denied = 0;
    for n in 0..20_000 {
        let refused = api.get(format!("admin/{n}")).send();
        let error = refused.err().ok_or_else(|| Error::permanent("it was let in"))?;
        denied += u32::from(error.capability_error() == Some(&CapabilityError::Denied));
    }
    Ok(format!("{denied} times"))
}
