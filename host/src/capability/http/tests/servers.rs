//! Servers that mean harm: what they send ends within the grant's bounds, and costs the host no more than these.

use tokio::io::AsyncWriteExt as _;

use super::{
    server::{answer, ok},
    *,
};

/// Writes this again and again, until nobody listens any more.
async fn endless(first: &'static str, again: String) -> Server {
    let again = Arc::new(again);
    Server::start(move |_, _, mut stream| {
        let again = again.clone();
        async move {
            drop(stream.write_all(first.as_bytes()).await);
            while stream.write_all(again.as_bytes()).await.is_ok() {}
        }
    })
    .await
}

/// A short-lived attempt, and how long it took to end.
async fn ends(server: &Server, change: impl FnOnce(&mut Setting)) -> (Result<Vec<u8>, Refusal>, Duration) {
    let mut setting = Setting::new(server);
    setting.grant.response_bytes = 100_000;
    (setting.resource.first_byte_timeout_ms, setting.resource.timeout_ms) = (500, 1_000);
    change(&mut setting);
    let mut attempt = setting.begin();
    let begun = Instant::now();
    let ended = match attempt.send(get("x")).await {
        Ok(handle) => attempt.body(&handle).await,
        Err(refusal) => Err(refusal),
    };
    (ended, begun.elapsed())
}

#[tokio::test]
async fn heads_without_end_reach_the_bound() {
    // Many headers, one long one, a status line without end, interim answers without end.
    let many = endless("HTTP/1.1 200 OK\r\n", "x: y\r\n".repeat(1_000)).await;
    over_limit(ends(&many, |_| ()).await.0, "answer's head");
    let long = endless("HTTP/1.1 200 OK\r\nx: ", "y".repeat(10_000)).await;
    over_limit(ends(&long, |_| ()).await.0, "answer's head");
    let reason = endless("HTTP/1.1 200 ", "O".repeat(10_000)).await;
    over_limit(ends(&reason, |_| ()).await.0, "answer's head");
    let interim = endless("", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).await;
    let (ended, took) = ends(&interim, |_| ()).await;
    assert!(ended.is_err() && took < Duration::from_secs(1), "{ended:?} {took:?}");
    let hints = endless("", format!("HTTP/1.1 103 Early\r\nlink: {}\r\n\r\n", "x".repeat(1_000))).await;
    assert!(ends(&hints, |_| ()).await.0.is_err());
}

#[tokio::test]
async fn heads_that_are_none_are_told() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 99999 X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "<html>",
    ] {
        let server = Server::saying(&[nonsense]).await;
        let (ended, _) = ends(&server, |_| ()).await;
        assert!(matches!(ended, Err(Refusal::Guest(CapabilityError::Unavailable(_)))), "{nonsense:?} {ended:?}");
    }
}

#[tokio::test]
async fn bodies_without_end_reach_the_bound() {
    let announced = endless("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "x".repeat(10_000)).await;
    over_limit(ends(&announced, |_| ()).await.0, "100000 bytes of an answer");
    let until_closed = endless("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(10_000)).await;
    over_limit(ends(&until_closed, |_| ()).await.0, "100000 bytes of an answer");
    let chunked =
        endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", format!("3e8\r\n{}\r\n", "x".repeat(1_000)))
            .await;
    over_limit(ends(&chunked, |_| ()).await.0, "100000 bytes of an answer");
}

#[tokio::test]
async fn chunks_that_are_mostly_something_else_are_cut_off() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let extension = endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "x".repeat(10_000)).await;
    unavailable(ends(&extension, |_| ()).await.0, "cut off");
    let each =
        endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", format!("1;{}\r\nx\r\n", "y".repeat(1_000)))
            .await;
    let (ended, took) = ends(&each, |_| ()).await;
    assert!(ended.is_err() && took < Duration::from_millis(1_500), "{took:?}");
    let trailers =
        endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n".repeat(1_000)).await;
    let (ended, took) = ends(&trailers, |_| ()).await;
    assert!(ended.is_err() && took < Duration::from_millis(1_500), "{took:?}");
    for body in ["zz\r\nx\r\n", "ffffffffffffffffff\r\nx", "-1\r\nx", "5\r\nabc"] {
        let server = Server::saying(&[&format!("{head}{body}")]).await;
        unavailable(ends(&server, |_| ()).await.0, "cut off");
    }
}

#[tokio::test]
async fn a_slow_server_ends_with_the_clock() {
    async fn drip(first: &'static str) -> Server {
        Server::start(move |_, _, mut stream| async move {
            drop(stream.write_all(first.as_bytes()).await);
            let mut every = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"x").await.is_ok() {
                every.tick().await;
            }
        })
        .await
    }
    let head = drip("HTTP/1.1 200 OK\r\nx: ").await;
    let (ended, took) = ends(&head, |_| ()).await;
    unavailable(ended, "no answer in time");
    assert!((Duration::from_millis(500)..Duration::from_millis(900)).contains(&took), "{took:?}");
    let body = drip("HTTP/1.1 200 OK\r\n\r\n").await;
    let (ended, took) = ends(&body, |_| ()).await;
    unavailable(ended, "took too long");
    assert!((Duration::from_secs(1)..Duration::from_millis(1_400)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn lengths_that_lie_are_told_or_harmless() {
    let short = Server::saying(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"]).await;
    let mut attempt = Setting::new(&short).begin();
    let handle = attempt.send(get("x")).await.unwrap();
    assert_eq!(attempt.read(&handle, 100).await.unwrap(), b"half");
    unavailable(attempt.read(&handle, 100).await, "cut off");
    attempt.close(handle);
    assert_eq!(attempt.uses(), used(&[("GET", "x", "unavailable", 1)]));
    // What comes after it is nobody's: the connection is not used again.
    let long = Server::saying(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalfHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        &ok("next"),
    ])
    .await;
    let mut attempt = Setting::new(&long).begin();
    assert_eq!(attempt.text("x").await.unwrap(), "half");
    assert_eq!(attempt.text("x").await.unwrap(), "next");
    // Both framings: the chunks are what counts, and the length is not believed.
    let both = Server::saying(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ])
    .await;
    assert_eq!(ends(&both, |_| ()).await.0.unwrap(), b"abcd");
    let chunked =
        Server::saying(&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nx: y\r\n\r\n"])
            .await;
    assert_eq!(ends(&chunked, |_| ()).await.0.unwrap(), b"abc");
}

#[tokio::test]
async fn nothing_is_decompressed() {
    // Not even gzip: whoever looked into it would fail.
    let bomb = Server::saying(&[&answer("200 OK", "content-encoding: gzip\r\n", "10GiB of zeros")]).await;
    let mut attempt = Setting::new(&bomb).begin();
    let handle = attempt.send(get("x")).await.unwrap();
    assert_eq!(attempt.header(&handle, "content-encoding").as_deref(), Some("gzip"));
    assert_eq!(attempt.body(&handle).await.unwrap(), b"10GiB of zeros");
}

#[tokio::test]
async fn an_answer_that_repeats_a_credential_is_not_recorded() {
    let echo = format!("you said {SECRET}");
    let server = Server::saying(&[&answer("200 OK", &format!("x-echo: {SECRET}\r\n"), &echo)]).await;
    let mut attempt = Setting::new(&server).with_credentials().begin();
    assert_eq!(attempt.text("x").await.unwrap(), echo);
    let recorded =
        format!("{:?} {:?} {:?}", attempt.http.take_uses(), attempt.http.take_denials(), attempt.http.reads());
    assert!(!recorded.contains(SECRET), "{recorded}");
}

#[tokio::test]
async fn a_name_is_resolved_once_and_every_address_of_it_is_checked() {
    let server = Server::saying(&[&ok("in")]).await;
    let port = server.address.port();
    let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    let tried = async |names: Vec<Vec<SocketAddr>>, networks: &[&str]| {
        let mut setting = Setting::new(&server);
        setting.names = names.into();
        setting.resource.networks = networks.iter().map(|network| (*network).to_owned()).collect();
        let mut attempt = setting.begin();
        let said = attempt.text("x").await;
        (said, attempt.remedies())
    };
    // Rebinding: the second answer would be this machine; nobody asks a second time. Documentation has no server.
    let named = ["203.0.113.0/24"];
    let (said, _) = tried(vec![vec![address("203.0.113.1")], vec![address("127.0.0.1")]], &named).await;
    unavailable(said, "no connection");
    // And the second request is refused, because it asks anew.
    let mut setting = Setting::new(&server);
    setting.names = [vec![address("127.0.0.1")], vec![address("10.0.0.1")]].into();
    let mut attempt = setting.begin();
    assert_eq!(attempt.text("x").await.unwrap(), "in");
    denied(attempt.text("x").await);
    // One bad address among good ones is enough, wherever it stands, whatever it is written as.
    for bad in
        ["10.0.0.1", "169.254.169.254", "0.0.0.0", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::a00:1", "2002:a00:1::"]
    {
        for list in
            [vec![address(bad)], vec![address("127.0.0.1"), address(bad)], vec![address(bad), address("127.0.0.1")]]
        {
            let (said, remedies) = tried(vec![list], &["127.0.0.0/8"]).await;
            denied(said);
            assert!(remedies[0].starts_with("[resources.api] networks = [\""), "{remedies:?}");
        }
    }
    let (said, remedies) = tried(vec![vec![address("127.0.0.1")]], &[]).await;
    denied(said);
    assert_eq!(remedies, ["[resources.api] networks = [\"127.0.0.1/32\"] (loopback)"]);
    // Mapped, it is what it is; and the port is the base's.
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 1);
    assert_eq!(tried(vec![vec![mapped]], &["127.0.0.0/8"]).await.0.unwrap(), "in");
    // The first that answers; and none.
    let closed = address("127.0.0.2");
    assert_eq!(tried(vec![vec![closed, address("127.0.0.1")]], &["127.0.0.0/8"]).await.0.unwrap(), "in");
    unavailable(tried(vec![vec![]], &["127.0.0.0/8"]).await.0, "no address");
    unavailable(tried(vec![], &["127.0.0.0/8"]).await.0, "cannot be resolved");
}

#[tokio::test]
async fn a_base_that_is_an_address_is_checked_too() {
    let server = Server::saying(&[&ok("in")]).await;
    let port = server.address.port();
    for (host, network, expected) in [
        ("127.0.0.1", "127.0.0.0/8", true),
        ("127.0.0.1", "10.0.0.0/8", false),
        ("0x7f.1", "10.0.0.0/8", false),
        ("[::ffff:127.0.0.1]", "10.0.0.0/8", false),
    ] {
        let mut setting = Setting::new(&server);
        setting.resource.url = format!("http://{host}:{port}/v1");
        setting.resource.networks = vec![network.into()];
        let said = setting.begin().text("x").await;
        assert_eq!(said.is_ok(), expected, "{host} {said:?}");
    }
}
