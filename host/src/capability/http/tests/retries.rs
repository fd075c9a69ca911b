//! Sending again, and following: what is repeated, how long is waited, and where redirects may lead.

use super::{
    server::{answer, ok},
    *,
};

fn retrying(server: &Server) -> Attempt {
    let mut setting = Setting::new(server);
    setting.grant.retries = limit::HTTP_RETRIES_DEFAULT;
    setting.begin()
}

#[tokio::test]
async fn scenario_114_what_may_pass_is_tried_again_and_the_last_answer_is_returned() {
    let busy = answer("429 Too Many", "", "");
    let wait = answer("429 Too Many", "retry-after: 1\r\n", "");
    let broken = answer("500 Oh", "", "oh");
    let check = async |answers: &[&str], status: u16, calls: usize| {
        let server = Server::saying(answers).await;
        let begun = Instant::now();
        assert_eq!(retrying(&server).status(get("x")).await.unwrap(), status);
        assert_eq!(server.requests().len(), calls);
        begun.elapsed()
    };
    check(&[&ok("")], 200, 1).await;
    check(&[&answer("400 Bad", "", "")], 400, 1).await;
    check(&[&answer("501 Never", "", "")], 501, 1).await;
    check(&[&busy, &ok("")], 200, 2).await;
    assert!(check(&[&wait, &ok("")], 200, 2).await >= Duration::from_secs(1));
    check(&[&broken, &ok("")], 200, 2).await;
    // A failure on the way: the connection is closed without a word.
    check(&["", &ok("")], 200, 2).await;
    // Three, and not a wait after the last.
    let took = check(&[&broken], 500, 3).await;
    assert!(took < Duration::from_millis(100 + 200 + 300), "{took:?}");
    check(&[&broken, &broken, &answer("404 No", "", "")], 404, 3).await;
}

#[tokio::test]
async fn the_last_failure_is_returned_when_nothing_ever_answers() {
    let server = Server::saying(&[""]).await;
    let mut attempt = retrying(&server);
    unavailable(attempt.status(get("x")).await, "connection was lost");
    assert_eq!(server.requests().len(), 3);
    assert_eq!(attempt.uses(), used(&[("GET", "x", "retried", 2), ("GET", "x", "unavailable", 1)]));
}

#[tokio::test]
async fn k36_a_request_that_changes_something_is_repeated_only_with_a_key() {
    let broken = answer("500 Oh", "", "");
    for (method, calls) in [("POST", 1), ("PATCH", 1), ("PUT", 3), ("DELETE", 3), ("HEAD", 3)] {
        let server = Server::saying(&[&broken]).await;
        assert_eq!(retrying(&server).status(request(method, "x")).await.unwrap(), 500);
        assert_eq!(server.requests().len(), calls, "{method}");
        let lost = Server::saying(&[""]).await;
        unavailable(retrying(&lost).status(request(method, "x")).await, "lost");
        assert_eq!(lost.requests().len(), calls, "{method}");
    }
    let server = Server::saying(&[&broken, &broken, &ok("")]).await;
    let mut asked = request("POST", "x");
    asked.idempotency_key = Some("order-7".into());
    assert_eq!(retrying(&server).status(asked).await.unwrap(), 200);
    let keys = keys(&server);
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "each try is the same request: {keys:?}");
}

#[tokio::test]
async fn an_idempotency_key_is_the_jobs_and_the_requests() {
    let keyed = async |job: u8, names: &[&str]| {
        let server = Server::saying(&[&ok("")]).await;
        let mut setting = Setting::new(&server);
        setting.job = job;
        let mut attempt = setting.begin();
        for name in names {
            let mut asked = request("POST", "x");
            asked.idempotency_key = Some((*name).into());
            attempt.status(asked).await.unwrap();
        }
        keys(&server)
    };
    let first = keyed(1, &["", "a", "", "a"]).await;
    assert_eq!(keyed(1, &["", "a", "", "a"]).await, first, "a re-run of the job repeats them");
    assert_eq!(first[1], first[3], "a name is the request's, wherever it is sent");
    assert_ne!(first[0], first[2], "without one, its number is");
    assert!(keyed(2, &["", "a", ""]).await.iter().all(|key| !first.contains(key)), "another job's are others");
    assert!(first.iter().all(|key| key.len() == 64), "what the guest says is not sent: {first:?}");
}

fn keys(server: &Server) -> Vec<String> {
    let key = |text: &String| text.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).map(str::to_owned);
    server.requests().iter().filter_map(key).collect()
}

#[tokio::test]
async fn a_wait_that_the_attempt_does_not_live_to_see_is_not_begun() {
    let server = Server::saying(&[&answer("503 Later", "retry-after: 86400\r\n", "")]).await;
    let mut setting = Setting::new(&server);
    (setting.grant.retries, setting.deadline) = (10, Duration::from_secs(5));
    let begun = Instant::now();
    assert_eq!(setting.begin().status(get("x")).await.unwrap(), 503);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(server.requests().len(), 1);
}

fn to(location: &str) -> String {
    answer("302 Found", &format!("location: {location}\r\n"), "")
}

#[tokio::test]
async fn redirects_within_the_grant_are_followed_with_credentials_each_time() {
    let server = Server::saying(&[&to("/v1/b?page=2&key=old"), &to("c/"), &ok("there")]).await;
    let mut setting = Setting::new(&server).with_credentials();
    setting.grant.paths = vec!["a".into(), "b".into(), "c/".into()];
    let mut attempt = setting.begin();
    assert_eq!(attempt.text("a").await.unwrap(), "there");
    assert_eq!(
        server.lines(),
        ["a?key=S", "b?page=2&key=S", "c/?key=S"].map(|line| format!("GET /v1/{} HTTP/1.1", line.replace('S', SECRET)))
    );
    assert!(server.requests().iter().all(|text| text.contains(&format!("authorization: Bearer {SECRET}"))));
    assert_eq!(
        attempt.uses(),
        used(&[("GET", "a", "redirected", 1), ("GET", "b", "redirected", 1), ("GET", "c/", "ok", 1)])
    );
}

#[tokio::test]
async fn redirects_out_of_the_grant_go_nowhere() {
    let other = Server::saying(&[&ok("stolen")]).await;
    let elsewhere = other.address;
    for location in [
        format!("http://{elsewhere}/v1/a"),
        format!("//{elsewhere}/v1/a"),
        format!("http://api.test:{}/v1/a", elsewhere.port()),
        format!("http://api.test@{elsewhere}/v1/a"),
        format!("/\\{elsewhere}/v1/a"),
        "https://api.test/v1/a".into(),
        "http://127.0.0.1/".into(),
        "http://169.254.169.254/latest/meta-data/".into(),
        "file:///etc/passwd".into(),
        "/admin".into(),
        "../admin".into(),
        "/v1/%2e%2e/admin".into(),
        "/v1/..%2fadmin".into(),
        "/v1/forbidden?key=s3cr3t".into(),
    ] {
        let server = Server::saying(&[&to(&location), &ok("")]).await;
        let mut setting = Setting::new(&server).with_credentials();
        setting.grant.paths = vec!["a".into()];
        let mut attempt = setting.begin();
        denied(attempt.status(get("a")).await);
        assert_eq!(server.requests().len(), 1, "{location}");
        let denials = attempt.http.take_denials();
        assert_eq!(denials[0].operation, "redirect");
        assert!(!denials[0].target.contains("key="), "{denials:?}");
    }
    assert!(other.requests().is_empty(), "nothing ever arrived there");
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::saying(&[&to("/v1/a")]).await;
    let mut attempt = retrying(&server);
    over_limit(attempt.status(get("a")).await, "5 redirects");
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn a_redirect_may_change_the_method_and_only_to_a_granted_one() {
    let see_other = answer("303 See", "location: /v1/b\r\n", "");
    let temporary = answer("307 There", "location: /v1/b\r\n", "");
    let posted = |body: &str| {
        let mut asked = request("POST", "a");
        (asked.body, asked.headers) = (body.as_bytes().to_vec(), vec![field("content-type", "text/plain")]);
        asked
    };
    let server = Server::saying(&[&see_other, &ok("")]).await;
    Setting::new(&server).begin().status(posted("data")).await.unwrap();
    let second = server.requests().remove(1);
    assert!(
        second.starts_with("GET /v1/b ") && second.ends_with("\r\n\r\n") && !second.contains("content-type"),
        "{second}"
    );
    let server = Server::saying(&[&temporary, &ok("")]).await;
    Setting::new(&server).begin().status(posted("data")).await.unwrap();
    let second = server.requests().remove(1);
    assert!(second.starts_with("POST /v1/b ") && second.ends_with("\r\n\r\ndata"), "{second}");
    let server = Server::saying(&[&see_other, &ok("")]).await;
    let mut setting = Setting::new(&server);
    setting.grant.methods = vec!["POST".into()];
    denied(setting.begin().status(posted("data")).await);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_is_no_redirect_is_an_answer() {
    for (status, headers) in [
        ("300 Choose", "location: /v1/b\r\n"),
        ("302 Found", ""),
        ("304 Same", ""),
        ("201 Made", "location: /v1/b\r\n"),
    ] {
        let server = Server::saying(&[&format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\n\r\n")]).await;
        let mut attempt = Setting::new(&server).begin();
        assert_eq!(attempt.status(get("a")).await.unwrap().to_string(), status[..3]);
        assert_eq!(server.requests().len(), 1);
    }
}
