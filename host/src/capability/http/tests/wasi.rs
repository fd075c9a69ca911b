//! `wasi:http` without a component: what its hook lets out.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpHooks as _};

use super::{
    server::{answer, ok},
    *,
};

fn asked(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> http::Request<WasiBody> {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes())).map_err(|never| match never {});
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(UnsyncBoxBody::new(body)).unwrap()
}

async fn handle(attempt: &mut Attempt, request: http::Request<WasiBody>) -> Result<(u16, Result<Bytes, Error>), Error> {
    let responding = attempt.http.hooks.send_request(request, None, Box::new(async { Ok(()) }));
    let (response, _processing) = Box::into_pin(responding).await?;
    Ok((response.status().as_u16(), response.into_body().collect().await.map(|body| body.to_bytes())))
}

#[tokio::test]
async fn a_url_below_a_granted_base_goes_out_under_the_same_rules() {
    let server = Server::saying(&[&ok("hello")]).await;
    let mut setting = Setting::new(&server).with_credentials();
    setting.grant.paths = vec!["items/*".into()];
    setting.grant.request_bytes = 4;
    let base = setting.resource.url.clone();
    let mut attempt = setting.begin();
    let (status, body) = handle(
        &mut attempt,
        asked("POST", &format!("{base}/items/7?a=b"), &[("accept", "x"), ("content-length", "4")], "body"),
    )
    .await
    .unwrap();
    assert_eq!((status, &*body.unwrap()), (200, &b"hello"[..]));
    let seen = server.requests().remove(0);
    assert!(seen.starts_with(&format!("POST /v1/items/7?a=b&key={SECRET} HTTP/1.1\r\n")), "{seen}");
    assert!(
        seen.contains(&format!("authorization: Bearer {SECRET}"))
            && seen.contains("content-length: 4")
            && seen.ends_with("body")
    );

    let mut refused = async |request| handle(&mut attempt, request).await;
    let denied = async |result: Result<_, Error>| assert!(matches!(result, Err(Error::HttpRequestDenied)));
    denied(refused(asked("GET", &format!("{base}/admin"), &[], "")).await.map(drop)).await;
    denied(refused(asked("GET", "http://evil.com/v1/items/7", &[], "")).await.map(drop)).await;
    denied(refused(asked("GET", &base.replace("/v1", "/"), &[], "")).await.map(drop)).await;
    denied(refused(asked("GET", &format!("{base}/items/7"), &[("x-evil", "1")], "")).await.map(drop)).await;
    denied(refused(asked("GET", &format!("{base}/items/7"), &[("authorization", "mine")], "")).await.map(drop)).await;
    denied(refused(asked("GET", &format!("{base}/items/7?Key=mine"), &[], "")).await.map(drop)).await;
    denied(refused(asked("CONNECT", &format!("{base}/items/7"), &[], "")).await.map(drop)).await;
    let odd = refused(asked("GET", &format!("{base}/items/%2e%2e"), &[], "")).await;
    assert!(matches!(odd, Err(Error::HttpRequestUriInvalid)));
    let long = refused(asked("POST", &format!("{base}/items/7"), &[], "12345")).await;
    assert!(matches!(long, Err(Error::HttpRequestBodySize(Some(4)))));
    let lying = refused(asked("POST", &format!("{base}/items/7"), &[("content-length", "3")], "body")).await;
    assert!(matches!(lying, Err(Error::HttpRequestBodySize(Some(4)))));
    assert_eq!(server.requests().len(), 1);
    let remedies = attempt.remedies();
    assert_eq!(remedies[0], "[assets.raw] grants = { api = { paths = [\"admin\"] } }");
    assert!(remedies[1].starts_with("[resources.NAME] kind = \"http\" and url = \"http://evil.com\""), "{remedies:?}");
}

#[tokio::test]
async fn redirects_and_failures_are_the_guests_own_business() {
    let server =
        Server::saying(&[&answer("302 Found", "location: http://evil.com/\r\n", ""), &answer("503 Busy", "", "")])
            .await;
    let mut setting = Setting::new(&server);
    setting.grant.retries = 5;
    let base = setting.resource.url.clone();
    let mut attempt = setting.begin();
    assert_eq!(handle(&mut attempt, asked("GET", &base, &[], "")).await.unwrap().0, 302);
    assert_eq!(handle(&mut attempt, asked("GET", &base, &[], "")).await.unwrap().0, 503);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(attempt.uses(), used(&[("GET", "", "ok", 2)]));
    assert_eq!(attempt.http.reads()[0].items, 2);
}

#[tokio::test]
async fn both_interfaces_share_their_counts() {
    let server = Server::saying(&[&ok(&"x".repeat(2_000))]).await;
    let mut setting = Setting::new(&server);
    (setting.grant.requests, setting.grant.in_flight, setting.grant.response_bytes) = (3, 1, 1_000);
    let base = setting.resource.url.clone();
    let mut attempt = setting.begin();
    let open = attempt.send(get("x")).await.unwrap();
    let full = handle(&mut attempt, asked("GET", &base, &[], "")).await;
    assert!(matches!(full, Err(Error::ConnectionLimitReached)));
    attempt.close(open);
    let (_, body) = handle(&mut attempt, asked("GET", &base, &[], "")).await.unwrap();
    assert!(matches!(body, Err(Error::HttpResponseBodySize(Some(1_000)))));
    attempt.status(get("x")).await.unwrap();
    let spent = handle(&mut attempt, asked("GET", &base, &[], "")).await;
    assert!(matches!(spent, Err(Error::ConnectionLimitReached)));
    over_limit(attempt.status(get("x")).await, "3 requests");
}
