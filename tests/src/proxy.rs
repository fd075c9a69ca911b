//! A wire between the command and Postgres that can be cut: at a `COMMIT`, before the server hears of it or before the
//! command hears the answer, or altogether for a while.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crate::Database;

/// Where a commit is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees it.
    BeforeCommit,
    /// The server commits, and its answer is lost.
    BeforeAnswer,
}

/// A proxy on a unix socket of its own.
#[derive(Debug)]
pub struct Proxy {
    folder: tempfile::TempDir,
    name: String,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    server: PathBuf,
    cut: Mutex<Option<(Cut, usize)>>,
    commits: AtomicUsize,
    has_cut: AtomicBool,
    down: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
}

impl Proxy {
    /// In front of the server of a test's database.
    pub fn new(database: &Database) -> Self {
        let options = database.options();
        let port = options.get_port();
        let folder = tempfile::Builder::new().prefix("flowstone-proxy-").tempdir().expect("/tmp is writable");
        let socket = |folder: &std::path::Path| folder.join(format!(".s.PGSQL.{port}"));
        let listener = UnixListener::bind(socket(folder.path())).expect("the folder is new");
        let server = socket(options.get_socket().expect("the embedded server has a socket"));
        let wire = Arc::new(Wire {
            server,
            cut: Mutex::default(),
            commits: AtomicUsize::new(0),
            has_cut: AtomicBool::new(false),
            down: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = wire.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let wire = accepting.clone();
                // A connection that breaks is what this is for.
                thread::spawn(move || drop(wire.serve(client)));
            }
        });
        let name = options.get_database().expect("a test's database has a name").to_owned();
        Self { folder, name, wire }
    }

    /// For a `flowstone` command.
    pub fn url(&self) -> String {
        format!("postgres:///{}?host={}&user=flowstone&sslmode=disable", self.name, self.folder.path().display())
    }

    /// From now on, cuts the connection that sends the `nth` commit.
    pub fn cut_at(&self, cut: Cut, nth: usize) {
        self.wire.commits.store(0, Ordering::SeqCst);
        self.wire.has_cut.store(false, Ordering::SeqCst);
        *self.wire.cut.lock().expect("no holder panics") = Some((cut, nth));
    }

    /// Whether there was an `nth` commit.
    pub fn has_cut(&self) -> bool {
        self.wire.has_cut.load(Ordering::SeqCst)
    }

    /// Cuts everything, and accepts nothing.
    pub fn take_down(&self) {
        self.wire.down.store(true, Ordering::SeqCst);
        for stream in self.wire.open.lock().expect("no holder panics").drain(..) {
            // It may have ended by itself.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Accepts connections again.
    pub fn bring_up(&self) {
        self.wire.down.store(false, Ordering::SeqCst);
    }
}

impl Wire {
    fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut server = UnixStream::connect(&self.server)?;
        self.open.lock().expect("no holder panics").extend([client.try_clone()?, server.try_clone()?]);
        if self.down.load(Ordering::SeqCst) {
            client.shutdown(Shutdown::Both)?;
            return server.shutdown(Shutdown::Both);
        }
        let answers_lost = Arc::new(AtomicBool::new(false));
        let lost = answers_lost.clone();
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        let answers = thread::spawn(move || {
            let mut buffer = [0; 1 << 16];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if lost.load(Ordering::SeqCst) || to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            drop(to.shutdown(Shutdown::Both));
            drop(from.shutdown(Shutdown::Both));
        });
        // The first message has no type.
        let mut typed = false;
        while let Ok(message) = read_message(&mut client, typed) {
            typed = true;
            match self.cut_of(&message) {
                Some(Cut::BeforeCommit) => break,
                // Everything before is answered: a commit is sent when the client has seen that it may.
                Some(Cut::BeforeAnswer) => answers_lost.store(true, Ordering::SeqCst),
                None => {}
            }
            server.write_all(&message)?;
            if answers_lost.load(Ordering::SeqCst) {
                // It ends when the answer has come.
                break;
            }
        }
        if !answers_lost.load(Ordering::SeqCst) {
            server.shutdown(Shutdown::Both)?;
        }
        drop(answers.join());
        client.shutdown(Shutdown::Both)
    }

    fn cut_of(&self, message: &[u8]) -> Option<Cut> {
        if !(message.starts_with(b"Q") && message.get(5..).is_some_and(|text| text.starts_with(b"COMMIT"))) {
            return None;
        }
        let (cut, nth) = (*self.cut.lock().expect("no holder panics"))?;
        let this = self.commits.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        self.has_cut.fetch_or(this, Ordering::SeqCst);
        this.then_some(cut)
    }
}

/// One message of a client: its type, its length, which counts itself, and the rest.
fn read_message(client: &mut UnixStream, typed: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if typed { 5 } else { 4 }];
    client.read_exact(&mut message)?;
    let head = message.len();
    let length = u32::from_be_bytes(message[head - 4..].try_into().expect("these are four bytes"));
    message.resize(head - 4 + length as usize, 0);
    client.read_exact(&mut message[head..])?;
    Ok(message)
}
