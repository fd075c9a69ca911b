//! A wire between a client and a server of HTTP that can be in trouble.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What becomes of new connections, and of what moves on those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: all passes.
    None,
    /// Connections are closed at once.
    Closed,
    /// Nothing passes, and nothing is closed.
    Silent,
    /// Each answer is this status, this many times; then all passes.
    Answers(u16, usize),
    /// After this many bytes of requests the connection is cut, once; then all passes.
    CutAfter(usize),
    /// Requests to write what has this in its path are answered with 503, the others pass.
    RefusesWritesOf(&'static str),
    /// Requests to read what has this in its path are never answered, the others pass.
    SilentReadsOf(&'static str),
    /// Answers pass in small pieces, each after a while.
    Slow,
}

/// A relay on a port of its own.
#[derive(Debug)]
pub struct Relay {
    address: String,
    trouble: Arc<Mutex<Trouble>>,
}

impl Relay {
    /// In front of a server.
    pub fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let address = listener.local_addr().expect("it is bound").to_string();
        let trouble = Arc::new(Mutex::new(Trouble::None));
        let current = trouble.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, trouble) = (server.clone(), current.clone());
                // A connection that breaks is what this is for.
                thread::spawn(move || drop(serve(client, &server, &trouble)));
            }
        });
        Self { address, trouble }
    }

    /// As a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, for connections that are there too.
    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().expect("nobody panics with it") = trouble;
    }

    /// What is left of it.
    pub fn trouble(&self) -> Trouble {
        *self.trouble.lock().expect("nobody panics with it")
    }
}

fn serve(mut client: TcpStream, server: &str, trouble: &Arc<Mutex<Trouble>>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let answers = trouble.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            let passed = match current(&answers) {
                Trouble::Silent => {
                    hold(&answers);
                    Ok(())
                }
                Trouble::Slow => buffer[..count].chunks(4 << 10).try_for_each(|piece| {
                    thread::sleep(Duration::from_millis(1));
                    to_client.write_all(piece)
                }),
                _ => to_client.write_all(&buffer[..count]),
            };
            if passed.is_err() || current(&answers) == Trouble::Closed {
                break;
            }
        }
        // Either side may have done it before.
        drop((to_client.shutdown(Shutdown::Both), from_server.shutdown(Shutdown::Both)));
    });
    let mut to_server = server;
    let mut buffer = [0; 16 << 10];
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            break to_server.shutdown(Shutdown::Write);
        }
        match pass(trouble, &buffer[..count]) {
            Passing::All => to_server.write_all(&buffer[..count])?,
            Passing::Nothing => hold(trouble),
            Passing::Cut => {
                to_server.shutdown(Shutdown::Both)?;
                break client.shutdown(Shutdown::Both);
            }
            Passing::Answer(status) => {
                let answer = format!("HTTP/1.1 {status} Trouble\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                client.write_all(answer.as_bytes())?;
                to_server.shutdown(Shutdown::Both)?;
                break client.shutdown(Shutdown::Write);
            }
        }
    }
}

enum Passing {
    All,
    Nothing,
    Cut,
    Answer(u16),
}

/// What becomes of bytes on their way to the server.
fn pass(trouble: &Mutex<Trouble>, bytes: &[u8]) -> Passing {
    let count = bytes.len();
    let mut trouble = trouble.lock().expect("nobody panics with it");
    match &mut *trouble {
        Trouble::None | Trouble::Slow => Passing::All,
        Trouble::Closed => Passing::Cut,
        Trouble::Silent => Passing::Nothing,
        Trouble::Answers(status, times) => {
            let status = *status;
            *times = times.saturating_sub(1);
            if *times == 0 {
                *trouble = Trouble::None;
            }
            Passing::Answer(status)
        }
        Trouble::RefusesWritesOf(path) => {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let refused = line.starts_with(b"PUT ") && String::from_utf8_lossy(line).contains(*path);
            if refused { Passing::Answer(503) } else { Passing::All }
        }
        Trouble::SilentReadsOf(path) => {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let held = line.starts_with(b"GET ") && String::from_utf8_lossy(line).contains(*path);
            if held { Passing::Nothing } else { Passing::All }
        }
        Trouble::CutAfter(left) if *left <= count => {
            *trouble = Trouble::None;
            Passing::Cut
        }
        Trouble::CutAfter(left) => {
            *left -= count;
            Passing::All
        }
    }
}

fn current(trouble: &Mutex<Trouble>) -> Trouble {
    *trouble.lock().expect("nobody panics with it")
}

/// Until it is over; what was on its way is lost then.
fn hold(trouble: &Mutex<Trouble>) {
    while matches!(current(trouble), Trouble::Silent | Trouble::SilentReadsOf(_)) {
        thread::sleep(Duration::from_millis(10));
    }
}
