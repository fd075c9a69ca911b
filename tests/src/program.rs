//! The real `flowstone`, as a user runs it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Instant, SystemTime},
};

use crate::{Database, StateFolder, database::target_folder, deadline::DEADLINE};

/// The command with a state directory of its own, in the folder around that directory.
#[derive(Debug)]
pub struct Flowstone {
    state: StateFolder,
    database_url: Option<String>,
    /// Of its own, when it has one: it goes with the commands.
    database: Option<Database>,
    /// What its commands are told besides.
    variables: Vec<(String, String)>,
}

/// What a command that has ended leaves.
#[derive(Debug)]
pub struct Output {
    /// The exit status; nothing when a signal ended it.
    pub status: Option<i32>,
    /// The data.
    pub stdout: String,
    /// The talk.
    pub stderr: String,
}

/// A command that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// What a command writes, as it comes.
#[derive(Debug)]
struct Lines {
    coming: Receiver<String>,
    seen: String,
}

impl Flowstone {
    /// With an embedded cluster, made by the first command.
    pub fn embedded() -> Self {
        Self { state: StateFolder::new(), database_url: None, database: None, variables: Vec::new() }
    }

    /// With the database of a test.
    pub fn on(database: &Database) -> Self {
        Self { database_url: Some(database.url()), ..Self::embedded() }
    }

    /// With a migrated database of its own: much sooner there than an embedded cluster.
    pub fn new() -> Self {
        Self { database: Some(Database::new_blocking()), ..Self::embedded() }.connected()
    }

    /// With a migrated database that it owns from now on.
    pub fn owning(database: Database) -> Self {
        Self { database: Some(database), ..Self::embedded() }.connected()
    }

    /// From now on with another database, which it owns, and the same state directory.
    pub fn own(&mut self, database: Database) {
        self.database_url = Some(database.url());
        self.database = Some(database);
    }

    /// With a database of its own in which nothing is, not even the migrations.
    pub fn unmigrated() -> Self {
        Self { database: Some(Database::empty_blocking()), ..Self::embedded() }.connected()
    }

    fn connected(mut self) -> Self {
        self.database_url = self.database.as_ref().map(Database::url);
        self
    }

    /// Its own database.
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("the test made it with a database")
    }

    /// From now on with another database, and the same state directory.
    pub fn use_database(&mut self, url: String) {
        self.database_url = Some(url);
    }

    /// From now on with these variables.
    pub fn set(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        self.variables.extend(variables);
    }

    /// Where commands run.
    pub fn folder(&self) -> &Path {
        self.state.folder()
    }

    /// Where they keep their state.
    pub fn state_dir(&self) -> PathBuf {
        self.state.path()
    }

    /// A command to add to before it is run. It sees none of this process' settings.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.folder()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if bytes == b"DATABASE_URL"
                || bytes.starts_with(b"FLOWSTONE_")
                || bytes.starts_with(b"PG")
                || bytes.starts_with(b"AWS_")
            {
                command.env_remove(name);
            }
        }
        command.env("FLOWSTONE_STATE", self.state_dir());
        // Most tests bring their resources along, on a server too.
        command.env("FLOWSTONE_MANIFEST_RESOURCES", "allow");
        command.envs(self.database_url.iter().map(|url| ("DATABASE_URL", url)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.start(arguments).wait()
    }

    /// Starts a command.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        self.start_with(arguments, [])
    }

    /// Starts a command with these variables.
    pub fn start_with<'v, S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        variables: impl IntoIterator<Item = (&'v str, &'v str)>,
    ) -> Running {
        let mut command = self.command(arguments);
        command.envs(variables);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");
        let stdout = Lines::of(child.stdout.take().expect("it is a pipe"));
        let stderr = Lines::of(child.stderr.take().expect("it is a pipe"));
        Running { child, stdout, stderr }
    }
}

impl Default for Flowstone {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
    /// Runs a command that a test has set up itself to its end.
    pub fn of(command: &mut Command) -> Self {
        Self::with_input(command, b"")
    }

    /// The same, with this on its standard input. It must fit a pipe, or be read.
    pub fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be run");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        // A command that has seen enough closes it.
        drop(stdin.write_all(input));
        drop(stdin);
        let output = child.wait_with_output().expect("it is our child");
        let text = |bytes| String::from_utf8(bytes).expect("the command writes UTF-8");
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts the exit status, and shows what was said when it is another.
    #[track_caller]
    pub fn expect_status(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and returns when it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// `kill -INT`, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    /// `kill -NAME`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the next line of stdout that is an event of `run --json` with this name.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> serde_json::Value {
        let start = format!("{{\"event\":\"{name}\"");
        let line = self.stdout.find(|line| line.starts_with(&start));
        self.stderr.seen.extend(self.stderr.coming.try_iter());
        let line = line.unwrap_or_else(|| panic!("no event {name}: {}\n{}", self.stdout.seen, self.stderr.seen));
        serde_json::from_str(&line).expect("each line is JSON")
    }

    /// Waits for the next line of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.stdout.find(|_| true);
        line.unwrap_or_else(|| panic!("no further line: {}", self.stdout.seen))
    }

    /// Waits for the next line of stderr with these words in it: the whole line.
    #[track_caller]
    pub fn said(&mut self, words: &str) -> String {
        let found = self.stderr.find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("{words:?} is not in: {}", self.stderr.seen))
    }

    /// Whether it has ended by now.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        // All of it first: the command may wait for its reader.
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        let status = self.child.wait().expect("it is our child").code();
        Output { status, stdout, stderr }
    }
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).expect("a pipe can be read") > 0 {
                let text = String::from_utf8(std::mem::take(&mut line)).expect("the command writes UTF-8");
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self { coming, seen: String::new() }
    }

    /// The next line of this kind, within the time that tests wait for anything.
    fn find(&mut self, is_it: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = match self.coming.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            };
            self.seen.push_str(&line);
            if is_it(&line) {
                return Some(line);
            }
        }
    }

    /// Everything, once the command has closed it.
    fn rest(&mut self) -> String {
        self.seen.extend(self.coming.iter());
        std::mem::take(&mut self.seen)
    }
}

/// `kill -NAME PID`.
#[track_caller]
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill can be run");
    assert!(status.success(), "there is no process {pid}");
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program beside this test, which cargo does not build for the tests of another package.
fn program() -> PathBuf {
    let program = target_folder().join("flowstone");
    let built = fs::metadata(&program).and_then(|file| file.modified());
    let Ok(built) = built else { panic!("{} is missing: cargo build -p flowstone", program.display()) };
    if let Some(source) = newer_source(&program, built) {
        panic!("{} is older than {source}: cargo build -p flowstone", program.display());
    }
    program
}

/// Cargo lists a program's sources beside it: `<program>: <source> <source> ...`, blanks escaped.
fn newer_source(program: &Path, built: SystemTime) -> Option<String> {
    let list = fs::read_to_string(program.with_extension("d")).expect("cargo lists the sources of what it builds");
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources).trim();
    let sources = sources.replace("\\ ", "\0");
    sources
        .split(' ')
        .map(|source| source.replace('\0', " "))
        .find(|source| fs::metadata(source).and_then(|file| file.modified()).is_ok_and(|changed| changed > built))
}
