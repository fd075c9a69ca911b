//! Assets that bring a client of their own: `wasi:http`, as it is, without a word of ours.

use flowstone_sdk::prelude::*;
use serde::Deserialize;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

#[derive(Deserialize)]
struct Ask {
    /// Of the server.
    authority: String,
    paths: Vec<String>,
    #[serde(default)]
    body: Option<String>,
}

/// Asks for each path, and says what came of it.
#[asset(requires(api = http("asks as it is configured, with a client of its own")))]
fn brings_a_client(ctx: &Context) -> Result<String> {
    let Ask { authority, paths, body } = ctx.config()?;
    let said = paths.iter().map(|path| match ask(&authority, path, body.as_deref()) {
        Ok((status, Some(body))) => format!("{path}: {status} {}\n", String::from_utf8_lossy(&body)),
        Ok((_, None)) => format!("{path}: cut off\n"),
        Err(error) => format!("{path}: {error:?}\n"),
    });
    Ok(said.collect())
}

/// Needs nothing, and tries all the same.
#[asset]
fn has_no_grant() -> Result<String> {
    match ask("example.com", "/", None) {
        Ok((status, _)) => Ok(format!("it got {status}")),
        Err(error) => Ok(format!("it went on after {error:?}")),
    }
}

/// Makes sets of headers until it is stopped.
#[asset]
fn hoards_fields() -> Result<()> {
    let mut kept = Vec::new();
    loop {
        let fields = Fields::new();
        // Refused past the bound of one set; the set stays.
        for n in 0..100 {
            if fields.append(&format!("x-{n}"), &vec![b'x'; 1_000]).is_err() {
                break;
            }
        }
        kept.push(fields);
    }
}

/// Begins bodies until it is stopped.
#[asset]
fn hoards_bodies() -> Result<()> {
    let mut kept = Vec::new();
    loop {
        let request = OutgoingRequest::new(Fields::new());
        let body = request.body().expect("the first time it is there");
        let stream = body.write().expect("the first time it is there");
        while stream.check_write().is_ok_and(|room| room > 0 && stream.write(&vec![b'x'; room as usize]).is_ok()) {}
        kept.push((request, body, stream));
    }
}

fn ask(authority: &str, path: &str, body: Option<&str>) -> Result<(u16, Option<Vec<u8>>), ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let odd = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Https)).map_err(odd)?;
    request.set_authority(Some(authority)).map_err(odd)?;
    request.set_path_with_query(Some(path)).map_err(odd)?;
    let out = request.body().expect("the first time it is there");
    if body.is_some() {
        request.set_method(&Method::Post).map_err(odd)?;
    }
    let answer = outgoing_handler::handle(request, None)?;
    if let Some(text) = body {
        let stream = out.write().expect("the first time it is there");
        for piece in text.as_bytes().chunks(4_096) {
            // What is refused here is told by the answer.
            if stream.blocking_write_and_flush(piece).is_err() {
                break;
            }
        }
    }
    let finished = OutgoingBody::finish(out, None);
    answer.subscribe().block();
    let answer = answer.get().expect("it is there now").expect("nobody took it before")?;
    finished?;
    let status = answer.status();
    let body = answer.consume().expect("the first time it is there");
    Ok((status, read(&body)))
}

/// The whole body, or nothing when it ends too soon.
fn read(body: &IncomingBody) -> Option<Vec<u8>> {
    let stream = body.stream().expect("the first time it is there");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Some(bytes),
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
}
