//! A server of the test's own, byte by byte: what it says is whatever the test says, nonsense included.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server on this machine, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    /// Every request, whole, in the order in which they came.
    pub seen: Arc<Mutex<Vec<String>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    /// Gives each connection, with its request read and numbered from 0, to this.
    pub async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(usize, String, TcpStream) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let serve = Arc::new(move |n, text, stream| -> Serving { Box::pin(serve(n, text, stream)) });
        let noted = seen.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (serve, noted) = (serve.clone(), noted.clone());
                tokio::spawn(async move {
                    let Some(text) = read_request(&mut stream).await else { return };
                    let number = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(text.clone());
                        noted.len() - 1
                    };
                    serve(number, text, stream).await;
                });
            }
        });
        Self { address, seen, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Answers the nth request with the nth of these, and all further ones with the last; then closes.
    pub async fn saying(answers: &[&str]) -> Self {
        let answers: Arc<Vec<String>> = Arc::new(answers.iter().map(|text| (*text).to_owned()).collect());
        Self::start(move |number, _, mut stream| {
            let answers = answers.clone();
            async move {
                let text = answers.get(number).or(answers.last()).unwrap();
                // Whoever stopped listening misses it.
                drop(stream.write_all(text.as_bytes()).await);
            }
        })
        .await
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// The request lines.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

/// An answer of this status and body.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

pub fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

/// The head and the body that it announces.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
