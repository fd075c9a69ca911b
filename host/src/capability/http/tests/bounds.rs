//! Each bound, reached and not reached; and the end of the attempt in the middle of everything.

use super::{
    server::{answer, ok},
    *,
};
use crate::capability::Abort;

#[tokio::test]
async fn requests_of_an_attempt_are_counted_repeated_and_followed_ones_too() {
    let server = Server::saying(&[
        &ok("a"),
        &answer("503 Busy", "", ""),
        &ok("b"),
        &answer("302 Found", "location: /v1/y\r\n", ""),
        &ok("c"),
    ])
    .await;
    let mut setting = Setting::new(&server);
    (setting.grant.requests, setting.grant.retries) = (4, 2);
    let mut attempt = setting.begin();
    assert_eq!(attempt.text("x").await.unwrap(), "a");
    assert_eq!(attempt.text("x").await.unwrap(), "b", "the third request");
    over_limit(attempt.text("x").await, "4 requests");
    over_limit(attempt.text("x").await, "4 requests");
    assert_eq!(server.requests().len(), 4);
    let expected = [
        ("GET", "x", "ok", 2),
        ("GET", "x", "retried", 1),
        ("GET", "x", "redirected", 1),
        ("GET", "y", "limit-reached", 1),
        ("GET", "x", "limit-reached", 1),
    ];
    assert_eq!(attempt.uses(), used(&expected));
}

#[tokio::test]
async fn open_answers_are_bounded_and_a_closed_one_makes_room() {
    let server = Server::saying(&[&ok("abc")]).await;
    let mut setting = Setting::new(&server);
    setting.grant.in_flight = 2;
    let mut attempt = setting.begin();
    let first = attempt.send(get("1")).await.unwrap();
    let second = attempt.send(get("2")).await.unwrap();
    for _ in 0..100 {
        over_limit(attempt.send(get("3")).await, "2 requests at once");
    }
    attempt.body(&second).await.unwrap();
    over_limit(attempt.send(get("3")).await, "2 requests at once");
    attempt.close(first);
    let third = attempt.send(get("3")).await.unwrap();
    attempt.close(second);
    attempt.close(third);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_body_may_have_its_bytes_and_not_one_more() {
    let server = Server::saying(&[&ok("")]).await;
    let mut attempt = Setting::new(&server).begin();
    let mut asked = request("POST", "x");
    asked.body = vec![b'x'; 1_000];
    attempt.status(asked.clone()).await.unwrap();
    asked.body.push(b'x');
    over_limit(attempt.status(asked).await, "1000 bytes of a request");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn headers_of_a_request_may_have_their_bytes_and_not_one_more() {
    let server = Server::saying(&[&ok("")]).await;
    let mut setting = Setting::new(&server);
    setting.grant.header_bytes = 100;
    let mut attempt = setting.begin();
    // Its name, its value, and four bytes around them.
    let mut asked = get("x");
    asked.headers = vec![field("accept", &"a".repeat(100 - 6 - 4))];
    attempt.status(asked.clone()).await.unwrap();
    asked.headers[0].value.push('a');
    over_limit(attempt.status(asked).await, "headers of 100 bytes");
}

#[tokio::test]
async fn the_head_of_an_answer_may_have_its_bytes_and_not_one_more() {
    let with_head = |bytes: usize| {
        // `content-length: 0` with its frame takes 19.
        answer("200 OK", &format!("x: {}\r\n", "v".repeat(bytes - 19 - 5)), "")
    };
    let server = Server::saying(&[&with_head(500), &with_head(501), &with_head(100_000)]).await;
    let mut setting = Setting::new(&server);
    setting.grant.header_bytes = 500;
    let mut attempt = setting.begin();
    attempt.status(get("x")).await.unwrap();
    over_limit(attempt.status(get("x")).await, "500 bytes of an answer's head");
    over_limit(attempt.status(get("x")).await, "500 bytes of an answer's head");
}

#[tokio::test]
async fn the_body_of_an_answer_may_have_its_bytes_and_not_one_more() {
    let server = Server::saying(&[&ok(&"x".repeat(5_000)), &ok(&"x".repeat(5_001))]).await;
    let mut setting = Setting::new(&server);
    setting.grant.response_bytes = 5_000;
    let mut attempt = setting.begin();
    assert_eq!(attempt.text("x").await.unwrap().len(), 5_000);
    let handle = attempt.send(get("x")).await.unwrap();
    over_limit(attempt.body(&handle).await, "5000 bytes of an answer");
    over_limit(attempt.read(&handle, 1).await, "5000 bytes of an answer");
    attempt.close(handle);
    assert_eq!(attempt.uses(), used(&[("GET", "x", "ok", 1), ("GET", "x", "limit-reached", 1)]));
}

#[tokio::test]
async fn chunks_are_as_large_as_asked_for_and_no_larger_than_a_mebibyte() {
    let body = "x".repeat(3 << 20);
    let server = Server::saying(&[&ok(&body)]).await;
    let mut attempt = Setting::new(&server).begin();
    let handle = attempt.send(get("x")).await.unwrap();
    assert_eq!(attempt.read(&handle, 1).await.unwrap().len(), 1);
    let mut left = body.len() - 1;
    while left > 0 {
        let chunk = attempt.read(&handle, u32::MAX).await.unwrap().len();
        assert!((1..=1 << 20).contains(&chunk), "{chunk}");
        left -= chunk;
    }
    assert_eq!(attempt.read(&handle, u32::MAX).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_permit_of_the_rate_is_waited_for_or_the_bound_is_reached() {
    let server = Server::saying(&[&ok("")]).await;
    let with = |wait| {
        let mut setting = Setting::new(&server);
        setting.resource.rate = Some(Rate { permits: 5, period_ms: 1_000, burst: 5 });
        setting.permits = Arc::new(FakePermits { wait, ..FakePermits::default() });
        let permits = setting.permits.clone();
        (setting.begin(), permits)
    };
    let (mut attempt, permits) = with(Some(Duration::from_millis(150)));
    let begun = Instant::now();
    attempt.status(get("x")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert_eq!(*permits.reserved.lock().unwrap(), ["api"]);
    let (mut attempt, _) = with(None);
    over_limit(attempt.status(get("x")).await, "the rate of 5 in 1000 ms");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn each_timeout_ends_the_request_and_says_which() {
    let silent = Server::start(|_, _, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut setting = Setting::new(&silent);
    setting.resource.first_byte_timeout_ms = 100;
    unavailable(setting.begin().status(get("x")).await, "no answer in time");
    let mut setting = Setting::new(&silent);
    setting.resource.timeout_ms = 100;
    unavailable(setting.begin().status(get("x")).await, "no answer in time");
    let mut setting = Setting::new(&silent);
    (setting.resource.connect_timeout_ms, setting.is_silent) = (100, true);
    let begun = Instant::now();
    unavailable(setting.begin().status(get("x")).await, "no connection in time");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_end_of_the_attempt_ends_every_wait() {
    let half = Server::start(|number, _, mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        if number == 0 {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        }
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut setting = Setting::new(&half);
    setting.deadline = Duration::from_millis(300);
    let begun = Instant::now();
    let mut attempt = setting.begin();
    let handle = attempt.send(get("x")).await.unwrap();
    assert_eq!(attempt.read(&handle, 100).await.unwrap(), b"half");
    let late = attempt.read(&handle, 100).await;
    assert!(matches!(late, Err(Refusal::Abort(Abort::Interrupted))), "{late:?}");
    let late = attempt.status(get("x")).await;
    assert!(matches!(late, Err(Refusal::Abort(Abort::Interrupted))), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));

    let setting = Setting::new(&half);
    let cancel = setting.cancel.clone();
    let mut attempt = setting.begin();
    let (sent, ()) = tokio::join!(attempt.status(get("x")), async { cancel.cancel() });
    assert!(matches!(sent, Err(Refusal::Abort(Abort::Interrupted))), "{sent:?}");
}
