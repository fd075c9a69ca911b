//! What guests ask for: granted, not granted, and with tricks.

use super::{server::ok, *};
use crate::{capability::Ungranted, pipeline::asset::Capability};

#[tokio::test]
async fn a_granted_request_goes_out_and_its_answer_comes_back() {
    let server = Server::saying(&["HTTP/1.1 203 Odd\r\nX-One: a\r\ncontent-length: 5\r\n\r\nhello"]).await;
    let mut attempt = Setting::new(&server).begin();
    let mut asked = request("POST", "/items/a b");
    asked.query = vec![field("q", "x&y"), field("q", "2")];
    asked.headers = vec![field("Accept", "text/csv")];
    asked.body = b"body".to_vec();
    let handle = attempt.send(asked).await.unwrap();
    assert_eq!(attempt.http.status(lend(&handle)).unwrap(), 203);
    assert_eq!(attempt.header(&handle, "x-one").as_deref(), Some("a"));
    assert_eq!(attempt.body(&handle).await.unwrap(), b"hello");
    assert_eq!(attempt.read(&handle, 1).await.unwrap(), b"", "the end stays the end");
    attempt.close(handle);

    let seen = server.requests().remove(0);
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/items/a%20b?q=x%26y&q=2 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: api.test:{}", server.address.port());
    let expected = ["accept-encoding: identity", "accept: text/csv", "connection: close", "content-length: 4", &host];
    assert_eq!(lines, [&expected[..], &["user-agent: flowstone"]].concat());
    assert_eq!(body, "body");

    let uses = attempt.http.take_uses();
    let summary: Vec<_> = uses.iter().map(|u| (&*u.resource, &*u.operation, &*u.target, &*u.result, u.bytes)).collect();
    assert_eq!(summary, [("api", "POST", "items/a b", "ok", 9)]);
    let reads = attempt.http.reads();
    assert_eq!(
        (&*reads[0].resource, reads[0].capability, reads[0].items, reads[0].bytes),
        ("api", Capability::Http, 1, 5)
    );
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_no_request_arrives() {
    let server = Server::saying(&[&ok("")]).await;
    let mut setting = Setting::new(&server);
    setting.grant.methods = vec!["GET".into()];
    setting.grant.paths = vec!["items/*".into()];
    let mut attempt = setting.begin();
    denied(attempt.http.open("other".into()));
    denied(attempt.send(request("POST", "items/1")).await);
    denied(attempt.send(get("admin")).await);
    let mut with_header = get("items/1");
    with_header.headers = vec![field("x-evil", "1")];
    denied(attempt.send(with_header.clone()).await);
    with_header.headers = vec![field("host", "evil.com")];
    denied(attempt.send(with_header).await);
    assert_eq!(
        attempt.remedies(),
        [
            "[assets.raw] grants = { other = { methods = [\"GET\"], paths = [\"**\"] } }",
            "[assets.raw] grants = { api = { methods = [\"POST\"] } }",
            "[assets.raw] grants = { api = { paths = [\"admin\"] } }",
            "[assets.raw] grants = { api = { headers = [\"x-evil\"] } }",
            "none: the header is the host's own, or would undo the grant",
        ]
    );
    assert_eq!(attempt.status(get("items/1")).await.unwrap(), 200);
    assert_eq!(server.lines(), ["GET /v1/items/1 HTTP/1.1"]);
    let refused: u64 = attempt.uses().iter().filter(|(_, _, result, _)| result == "denied").map(|u| u.3).sum();
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn tricks_with_paths_and_headers_send_nothing() {
    let server = Server::saying(&[&ok("")]).await;
    let mut attempt = Setting::new(&server).with_credentials().begin();
    for path in ["//evil.com/", "/\\evil.com", "..", "%2e%2e/admin", "a/..%2f..%2fadmin", "a%00", "a\r\nHost: evil.com"]
    {
        invalid(attempt.send(get(path)).await);
    }
    for value in ["a\r\nhost: evil.com", "a\nb", "a\r\n b", "a\0"] {
        let mut asked = get("x");
        asked.headers = vec![field("accept", value)];
        invalid(attempt.send(asked).await);
    }
    let mut twice = get("x");
    twice.headers = vec![field("accept", "a"), field("ACCEPT", "b")];
    invalid(attempt.send(twice).await);
    for name in
        ["authorization", "Host", "content-length", "Transfer-Encoding", "proxy-authorization", "idempotency-key"]
    {
        let mut asked = get("x");
        asked.headers = vec![field(name, "1")];
        denied(attempt.send(asked).await);
    }
    let mut own_key = get("x");
    own_key.query = vec![field("KEY", "mine")];
    denied(attempt.send(own_key).await);
    assert!(server.requests().is_empty());
    // An absolute URL is a path with an empty name; with one slash, it is an odd name below the base.
    invalid(attempt.send(get("http://evil.com/")).await);
    attempt.status(get("http:evil.com")).await.unwrap();
    assert!(server.lines()[0].starts_with("GET /v1/http:evil.com?key="));
}

#[tokio::test]
async fn credentials_are_on_the_wire_and_nowhere_else() {
    let server = Server::saying(&[&ok("")]).await;
    let mut attempt = Setting::new(&server).with_credentials().begin();
    attempt.status(get("items")).await.unwrap();
    let mut with_query = get("items");
    with_query.query = vec![field("page", "2")];
    attempt.status(with_query).await.unwrap();
    denied(attempt.http.open("other".into()));
    assert_eq!(
        server.lines(),
        [format!("GET /v1/items?key={SECRET} HTTP/1.1"), format!("GET /v1/items?page=2&key={SECRET} HTTP/1.1")]
    );
    assert!(server.requests()[0].contains(&format!("authorization: Bearer {SECRET}\r\n")));
    let recorded = format!("{:?} {:?}", attempt.http.take_uses(), attempt.http.take_denials());
    assert!(!recorded.contains(SECRET), "{recorded}");
}

#[tokio::test]
async fn a_secret_that_would_break_a_request_opens_nothing() {
    let server = Server::saying(&[&ok("")]).await;
    for bad in ["", "a\r\nx: y", "a\n", "\u{fc}"] {
        let mut setting = Setting::new(&server).with_credentials();
        setting.credentials[0].value = SecretValue::new(bad.as_bytes().to_vec());
        let origin =
            GrantedOrigin { resource: setting.resource, grant: setting.grant, credentials: setting.credentials };
        let connector = Connector::new(tokio::runtime::Handle::current(), Arc::new(super::super::SystemResolver));
        let reach = HttpReach { origins: vec![origin], connector, permits: setting.permits, idempotency: [0; 32] };
        let interrupt = Interrupt::new(Instant::now(), CancellationToken::new());
        let Err(mistake) = Http::new("raw".into(), Some(reach), interrupt) else { panic!("{bad:?} is taken") };
        assert!(mistake.contains("authorization") && (bad.is_empty() || !mistake.contains(bad)), "{mistake}");
    }
}

#[tokio::test]
async fn the_lineage_tells_answers_apart_and_the_same_ones_not() {
    let digest = async |bodies: &[&str], paths: &[&str]| {
        let answers: Vec<String> = bodies.iter().map(|body| ok(body)).collect();
        let server = Server::saying(&answers.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut attempt = Setting::new(&server).begin();
        for path in paths {
            attempt.text(path).await.unwrap();
        }
        attempt.http.reads()[0].digest
    };
    let first = digest(&["a", "b"], &["x", "y"]).await;
    assert_eq!(digest(&["a", "b"], &["x", "y"]).await, first);
    assert_ne!(digest(&["b", "a"], &["x", "y"]).await, first);
    assert_ne!(digest(&["a", "b"], &["y", "x"]).await, first);
    assert_ne!(digest(&["a", "b"], &["x"]).await, first);
    let server = Server::saying(&[&ok("a")]).await;
    let mut attempt = Setting::new(&server).begin();
    assert_eq!(attempt.http.reads(), [], "who asks nothing reads nothing");
    let handle = attempt.send(get("x")).await.unwrap();
    attempt.close(handle);
    let unread = attempt.http.reads();
    assert_eq!((unread[0].items, unread[0].bytes), (1, 0), "an answer that is not read to its end is one too");
}

#[tokio::test]
async fn handles_make_sense_only_while_they_are_open() {
    let server = Server::saying(&[&ok("abc")]).await;
    let mut attempt = Setting::new(&server).begin();
    let handle = attempt.send(get("x")).await.unwrap();
    invalid(attempt.read(&handle, 0).await);
    let gone = lend(&handle);
    attempt.close(handle);
    invalid(attempt.read(&gone, 1).await);
    invalid(attempt.http.send(Resource::new_own(7), get("x")).await);
    let next = attempt.send(get("x")).await.unwrap();
    assert_ne!(next.rep(), gone.rep(), "a handle never becomes another answer's");
}

#[tokio::test]
async fn an_asset_without_the_grant_ends_at_its_first_call() {
    use crate::capability::Abort;
    let mut ungranted = Ungranted::new("raw".into());
    assert!(matches!(ungranted.open("api".into()), Err(Refusal::Abort(Abort::Denied))));
    let sent = ungranted.send(Resource::new_own(0), get("x")).await;
    assert!(matches!(sent, Err(Refusal::Abort(Abort::Denied))));
    assert!(matches!(ungranted.read(Resource::new_own(0), 1).await, Err(Refusal::Abort(Abort::Denied))));
    let remedy = &ungranted.take_denials()[0].remedy;
    assert_eq!(remedy, "[assets.raw] grants = { api = { methods = [\"GET\"], paths = [\"**\"] } }");
}
