//! Where the cluster lives, and how it comes to be.
//!
//! In the state directory, unless the server's account cannot enter that: a clone in root's home is closed to it.
//! Then the home is a folder of its own below [`FAR`], and the state directory holds a link to it. The home itself
//! stays ours, so that the server's account cannot replace what we read and write in it; what is below `data` and
//! `socket` is the server's.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::io::AsyncWriteExt as _;

use super::{
    account::Account,
    error::{EmbeddedError, reading, tells_of_full_disk, writing},
    postgres::Programs,
};

/// Entered by everybody, written by root alone: nobody else can have made what is in it.
const FAR: &str = "/var/lib/flowstone";

/// The application's role is not a superuser: a statement that should not have been must not become a shell.
const FIRST_STATEMENTS: &str = "CREATE ROLE flowstone LOGIN CREATEDB;\nCREATE DATABASE flowstone OWNER flowstone;\n";

/// A cluster's folder, as a path without links.
#[derive(Clone, Debug)]
pub(super) struct Home(pub PathBuf);

impl Home {
    /// The home of a state directory, if one was ever made.
    pub fn find(state_dir: &Path) -> Result<Option<Self>, EmbeddedError> {
        let link = state_dir.join("postgres");
        match fs::canonicalize(&link) {
            Ok(path) => {
                let home = Self(path);
                if link.is_symlink() {
                    home.check_whose(state_dir)?;
                }
                Ok(Some(home))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(&link) {
                Ok(target) => Err(EmbeddedError::Gone { link, target }),
                Err(_) => Ok(None),
            },
            Err(source) => Err(reading(&link)(source)),
        }
    }

    /// A home elsewhere is that of the state directory that made it. One that was moved takes it along; a copy would
    /// share it, and each owner end the other's server as a leftover of its own.
    fn check_whose(&self, state_dir: &Path) -> Result<(), EmbeddedError> {
        let note = self.0.join(ORIGIN);
        let origin = match fs::read(&note) {
            Ok(bytes) => PathBuf::from(std::ffi::OsString::from_vec(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(reading(&note)(source)),
        };
        if origin == state_dir {
            return Ok(());
        }
        let link = origin.join("postgres");
        if fs::canonicalize(&link).is_ok_and(|home| home == self.0) {
            let (state_dir, link) = (state_dir.to_owned(), state_dir.join("postgres"));
            return Err(EmbeddedError::Copied { state_dir, origin, link });
        }
        fs::write(&note, state_dir.as_os_str().as_encoded_bytes()).map_err(writing(&note))
    }

    /// Makes the home, without data. What a start that was cut short left behind is no obstacle.
    pub async fn make(state_dir: &Path, account: &Account, programs: &Programs) -> Result<Self, EmbeddedError> {
        let near = state_dir.join("postgres");
        if near.is_symlink() {
            return Self::find(state_dir)?.ok_or_else(|| unreachable!("a link leads somewhere or is an error"));
        }
        make_private_folder(&near)?;
        // Some file systems of shared folders know no owners: there the account cannot be admitted either.
        if account.admit(&near).is_ok() && account.can_enter(&near, &programs.postgres()).await? {
            return Ok(Self(near));
        }
        Self(near.clone()).remove_half_made();
        fs::remove_dir(&near).map_err(writing(&near))?;
        let far = make_far_folder()?;
        account.admit(&far)?;
        if !account.can_enter(&far, &programs.postgres()).await? {
            return Err(EmbeddedError::NowhereToLive { near, far });
        }
        let origin = far.join(ORIGIN);
        fs::write(&origin, state_dir.as_os_str().as_encoded_bytes()).map_err(writing(&origin))?;
        std::os::unix::fs::symlink(&far, &near).map_err(writing(&near))?;
        Ok(Self(far))
    }

    /// Postgres' data directory.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Makes the data directory: whole under another name first, so that a half-made one is never used.
    pub async fn fill(&self, account: &Account, programs: &Programs) -> Result<(), EmbeddedError> {
        self.remove_half_made();
        let new = private_folder_in(&self.0, HALF_MADE)?;
        account.give(new.path())?;
        let initdb = programs.initdb();
        let mut command = account.command(&initdb);
        command.arg("--pgdata").arg(new.path());
        // The C locale is everywhere, sorts as bytes, and never changes under an index when the C library does.
        command.args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=peer"]);
        command.args(["--data-checksums", "--no-instructions"]);
        self.run(&initdb, command, "").await?;

        let postgres = programs.postgres();
        let mut command = account.command(&postgres);
        command.args(["--single", "-c", "exit_on_error=on", "-D"]).arg(new.path()).arg("postgres");
        self.run(&postgres, command, FIRST_STATEMENTS).await?;

        let data = self.data();
        fs::rename(new.keep(), &data).map_err(writing(&data))?;
        fs::File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(writing(&self.0))
    }

    /// As far as it goes: an `initdb` whose owner was killed may still be writing. A later attempt gets the rest.
    fn remove_half_made(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(HALF_MADE.as_bytes()) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    async fn run(
        &self,
        program: &Path,
        mut command: tokio::process::Command,
        input: &str,
    ) -> Result<(), EmbeddedError> {
        let run = |source| EmbeddedError::Run { program: program.to_owned(), source };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ended early says why itself.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        let output = child.wait_with_output().await.map_err(run)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        if tells_of_full_disk(&said) {
            return Err(EmbeddedError::DiskFull { path: self.0.clone() });
        }
        let last = said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.contains("removing"));
        let reason = last.map_or_else(|| output.status.to_string(), str::to_owned);
        Err(EmbeddedError::Failed { program: program.to_owned(), reason })
    }
}

const HALF_MADE: &str = "new-";
/// In a home elsewhere: the path of its state directory.
const ORIGIN: &str = "state-directory";

/// Makes the state directory if need be, closed to others, and names it without links.
pub(super) fn open_state_dir(state_dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    if !state_dir.is_dir() {
        if let Some(parent) = state_dir.parent() {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        make_private_folder(state_dir)?;
        // Where that fails the home will be elsewhere.
        drop(account.admit(state_dir));
    }
    fs::canonicalize(state_dir).map_err(reading(state_dir))
}

fn make_private_folder(path: &Path) -> Result<(), EmbeddedError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(writing(path)(error)),
        _ => Ok(()),
    }
}

fn make_far_folder() -> Result<PathBuf, EmbeddedError> {
    let far = Path::new(FAR);
    fs::DirBuilder::new().recursive(true).mode(0o711).create(far).map_err(writing(far))?;
    Ok(private_folder_in(far, "")?.keep())
}

/// A new folder, closed to others, with a name that nobody can foresee. Removed when dropped.
pub(super) fn private_folder_in(folder: &Path, prefix: &str) -> Result<tempfile::TempDir, EmbeddedError> {
    tempfile::Builder::new()
        .prefix(prefix)
        .rand_bytes(12)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(folder)
        .map_err(writing(folder))
}
