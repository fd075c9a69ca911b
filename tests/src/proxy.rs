//! A wire between the command and Postgres that can be cut: at a `COMMIT`, before the server hears of it or before the
//! command hears the answer; before it hears what it has claimed; or altogether for a while. It can be slow, and it can
//! leave connections half open.

use std::{
    collections::HashSet,
    io::{self, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;

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
    server: Mutex<PathBuf>,
    cut: Mutex<Option<(Cut, usize)>>,
    /// Whether the answer of the next claim that takes something is to be lost.
    lose_claim: AtomicBool,
    commits: AtomicUsize,
    has_cut: AtomicBool,
    down: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
    /// How many connections there have been.
    opened: AtomicUsize,
    /// Over those that came before this one nothing passes any more, and none is closed.
    silent_before: AtomicUsize,
    /// New ones wait.
    holds_new: AtomicBool,
    /// Each message takes so long, in milliseconds.
    delay_ms: AtomicU64,
}

impl Proxy {
    /// In front of the server of a test's database.
    pub fn new(database: &Database) -> Self {
        Self::to(&database.options())
    }

    /// In front of the server that these options name, which listens on a socket.
    pub fn to(options: &PgConnectOptions) -> Self {
        let port = options.get_port();
        let folder = tempfile::Builder::new().prefix("flowstone-proxy-").tempdir().expect("/tmp is writable");
        let socket = |folder: &std::path::Path| folder.join(format!(".s.PGSQL.{port}"));
        let listener = UnixListener::bind(socket(folder.path())).expect("the folder is new");
        let server = socket(options.get_socket().expect("the server has a socket"));
        let wire = Arc::new(Wire {
            server: Mutex::new(server),
            cut: Mutex::default(),
            lose_claim: AtomicBool::new(false),
            commits: AtomicUsize::new(0),
            has_cut: AtomicBool::new(false),
            down: AtomicBool::new(false),
            open: Mutex::default(),
            opened: AtomicUsize::new(0),
            silent_before: AtomicUsize::new(0),
            holds_new: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
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

    /// New connections lead to another server, which has the same database.
    pub fn lead_to(&self, options: &PgConnectOptions) {
        let folder = options.get_socket().expect("the server has a socket");
        let socket = folder.join(format!(".s.PGSQL.{}", options.get_port()));
        *self.wire.server.lock().expect("no holder panics") = socket;
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
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

    /// The next claim that takes jobs takes them, and its answer is lost with the connection.
    pub fn lose_next_claim(&self) {
        self.wire.has_cut.store(false, Ordering::SeqCst);
        self.wire.lose_claim.store(true, Ordering::SeqCst);
    }

    /// Whether what was to be cut has been.
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

    /// Leaves every connection that there is half open: what is sent is lost, nothing is answered, and neither side is
    /// told. New ones are as good as ever.
    pub fn leave_half_open(&self) {
        self.wire.silent_before.store(self.wire.opened.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The same, and new ones wait until [`Proxy::let_pass`].
    pub fn swallow_everything(&self) {
        self.wire.holds_new.store(true, Ordering::SeqCst);
        self.leave_half_open();
    }

    /// New connections are as good as ever; those that were lost stay so.
    pub fn let_pass(&self) {
        self.wire.holds_new.store(false, Ordering::SeqCst);
    }

    /// From now on each message takes so long, in both directions.
    pub fn delay(&self, each: Duration) {
        self.wire.delay_ms.store(each.as_millis() as u64, Ordering::SeqCst);
    }

    /// Accepts connections again.
    pub fn bring_up(&self) {
        self.wire.down.store(false, Ordering::SeqCst);
    }
}

impl Wire {
    fn serve(self: &Arc<Self>, mut client: UnixStream) -> io::Result<()> {
        while self.holds_new.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let mut server = {
            let server = self.server.lock().expect("no holder panics").clone();
            UnixStream::connect(server)?
        };
        self.open.lock().expect("no holder panics").extend([client.try_clone()?, server.try_clone()?]);
        if self.down.load(Ordering::SeqCst) {
            client.shutdown(Shutdown::Both)?;
            return server.shutdown(Shutdown::Both);
        }
        let answers_lost = Arc::new(AtomicBool::new(false));
        let claiming = Arc::new(AtomicBool::new(false));
        let answers = {
            let (wire, lost, claiming) = (self.clone(), answers_lost.clone(), claiming.clone());
            let (from, to) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || wire.answer(number, from, to, &lost, &claiming))
        };
        // The first message has no type.
        let mut typed = false;
        let mut claims = HashSet::new();
        // A prepared commit has gone by, and the message that runs it has not.
        let mut prepared = false;
        // What a client sends at once arrives as a whole or not at all.
        let (mut begins, mut passes) = (true, true);
        while let Ok(message) = read_message(&mut client, typed) {
            typed = true;
            match message[0] {
                b'P' if contains(&message, CLAIM) => {
                    claims.insert(texts(&message)[0].to_vec());
                }
                b'B' => claiming.store(claims.contains(texts(&message)[1]), Ordering::SeqCst),
                _ => {}
            }
            match self.cut_of(&message) {
                Some(Cut::BeforeCommit) => break,
                Some(Cut::BeforeAnswer) if message.starts_with(b"P") => prepared = true,
                // Everything before is answered: a commit is sent when the client has seen that it may.
                Some(Cut::BeforeAnswer) => answers_lost.store(true, Ordering::SeqCst),
                None if prepared && message.starts_with(b"S") => answers_lost.store(true, Ordering::SeqCst),
                None => {}
            }
            if begins {
                passes = self.passes(number);
            }
            begins = matches!(message[0], b'Q' | b'S');
            if !passes {
                continue;
            }
            server.write_all(&message)?;
            if answers_lost.load(Ordering::SeqCst) {
                // It ends when the answer has come.
                break;
            }
        }
        if self.is_silent(number) {
            // The server does not hear that the client is gone; its side stays open with this wire.
            return Ok(());
        }
        if !answers_lost.load(Ordering::SeqCst) {
            server.shutdown(Shutdown::Both)?;
        }
        drop(answers.join());
        client.shutdown(Shutdown::Both)
    }

    /// Passes on what the server answers, until it is to be lost.
    fn answer(&self, number: usize, from: UnixStream, mut to: UnixStream, lost: &AtomicBool, claiming: &AtomicBool) {
        let mut reader = BufReader::new(&from);
        let mut taken = false;
        while let Ok(message) = read_message(&mut reader, true) {
            if !self.passes(number) {
                continue;
            }
            let is_row = message[0] == b'D';
            // A row of a claim: it has taken something.
            if is_row && claiming.load(Ordering::SeqCst) && self.lose_claim.swap(false, Ordering::SeqCst) {
                taken = true;
            }
            // The server is ready for more: what it answers has happened.
            if taken && message[0] == b'Z' {
                self.has_cut.store(true, Ordering::SeqCst);
                break;
            }
            if lost.load(Ordering::SeqCst) || (!taken && to.write_all(&message).is_err()) {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    }

    /// Whether the message of this connection passes, after its time.
    fn passes(&self, number: usize) -> bool {
        thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
        !self.is_silent(number)
    }

    fn is_silent(&self, number: usize) -> bool {
        number < self.silent_before.load(Ordering::SeqCst)
    }

    fn cut_of(&self, message: &[u8]) -> Option<Cut> {
        let simple = message.starts_with(b"Q") && message.get(5..).is_some_and(|text| text.starts_with(b"COMMIT"));
        // Of an unnamed statement: messages that bind and run it follow, up to a sync.
        let prepared =
            message.starts_with(b"P") && message.get(5..).is_some_and(|text| text.starts_with(b"\0commit\0"));
        if !(simple || prepared) {
            return None;
        }
        let (cut, nth) = (*self.cut.lock().expect("no holder panics"))?;
        let this = self.commits.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        self.has_cut.fetch_or(this, Ordering::SeqCst);
        this.then_some(cut)
    }
}

/// Between two looks at whether connections pass.
const LOOK: Duration = Duration::from_millis(5);

/// Words that only the statement of a claim has.
const CLAIM: &[u8] = b"insert into job_lease";

fn contains(message: &[u8], words: &[u8]) -> bool {
    message.windows(words.len()).any(|window| window == words)
}

/// The texts that a message begins with, each of which ends with a zero: the name of what is parsed, or the names of
/// what is bound and of the statement.
fn texts(message: &[u8]) -> Vec<&[u8]> {
    message[5..].splitn(3, |byte| *byte == 0).collect()
}

/// One message: its type, its length, which counts itself, and the rest.
fn read_message(from: &mut impl Read, typed: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if typed { 5 } else { 4 }];
    from.read_exact(&mut message)?;
    let head = message.len();
    let length = u32::from_be_bytes(message[head - 4..].try_into().expect("these are four bytes"));
    message.resize(head - 4 + length as usize, 0);
    from.read_exact(&mut message[head..])?;
    Ok(message)
}
