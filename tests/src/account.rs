//! Under which account the servers of tests run, and where Debian keeps their programs.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

/// The account of a server, which refuses to be root's.
#[derive(Debug)]
pub(crate) enum Account {
    Ours,
    Other { user: u32, group: u32 },
}

impl Account {
    /// Ours, unless we are root.
    pub(crate) fn of_servers() -> Self {
        if !is_root() {
            return Self::Ours;
        }
        let accounts = fs::read_to_string("/etc/passwd").expect("there are accounts");
        let fields = |name: &str| {
            let line = accounts.lines().find(|line| line.starts_with(&format!("{name}:")))?;
            let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
            Some(Self::Other { user: fields.next()??, group: fields.next()?? })
        };
        fields("postgres").or_else(|| fields("nobody")).expect("there is an account that is not root's")
    }

    /// Gives it a file or a folder.
    pub(crate) fn own(&self, path: &Path) {
        if let Self::Other { user, group } = self {
            chown(path, Some(*user), Some(*group)).expect("root gives what it likes");
        }
    }

    /// A program that ends with the thread that starts it.
    pub(crate) fn run(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let Self::Other { user, group } = self {
            command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".into()]);
        }
        command.args(["--pdeathsig", "INT", "--"]).arg(program).current_dir("/").env("HOME", "/");
        command
    }
}

fn is_root() -> bool {
    let own = fs::metadata("/proc/self").expect("there is a /proc");
    std::os::unix::fs::MetadataExt::uid(&own) == 0
}

/// A program of the newest Postgres: Debian keeps them out of the path.
pub(crate) fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|program| program.exists());
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}
