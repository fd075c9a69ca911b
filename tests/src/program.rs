//! The real `flowstone`, as a user runs it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use crate::{Database, StateFolder, database::target_folder};

/// The command with a state directory of its own, in the folder around that directory.
#[derive(Debug)]
pub struct Flowstone {
    state: StateFolder,
    database_url: Option<String>,
    /// Of its own, when it has one: it goes with the commands.
    database: Option<Database>,
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
}

impl Flowstone {
    /// With an embedded cluster, made by the first command.
    pub fn embedded() -> Self {
        Self { state: StateFolder::new(), database_url: None, database: None }
    }

    /// With the database of a test.
    pub fn on(database: &Database) -> Self {
        Self { state: StateFolder::new(), database_url: Some(database.url()), database: None }
    }

    /// With a migrated database of its own: much sooner there than an embedded cluster.
    pub fn new() -> Self {
        Self { database: Some(Database::new_blocking()), ..Self::embedded() }.connected()
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
            if bytes == b"DATABASE_URL" || bytes.starts_with(b"FLOWSTONE_") || bytes.starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("FLOWSTONE_STATE", self.state_dir());
        command.envs(self.database_url.iter().map(|url| ("DATABASE_URL", url)));
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.start(arguments).wait()
    }

    /// Starts a command.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");
        Running { child }
    }
}

impl Default for Flowstone {
    fn default() -> Self {
        Self::new()
    }
}

impl Output {
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
        let status = Command::new("kill").args(["-INT", &self.pid().to_string()]).status().expect("kill can be run");
        assert!(status.success(), "the command had ended");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).expect("a pipe can be read");
                }
                String::from_utf8(bytes).expect("the command writes UTF-8")
            })
        };
        let stdout = read(self.child.stdout.take().map(|pipe| Box::new(pipe) as Box<_>));
        let stderr = read(self.child.stderr.take().map(|pipe| Box::new(pipe) as Box<_>));
        let status = self.child.wait().expect("it is our child").code();
        let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("the reader does not panic");
        Output { status, stdout: text(stdout), stderr: text(stderr) }
    }
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
