//! The Postgres programs of this machine: where they are, and which version.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{account::Account, error::EmbeddedError};
use crate::limit::POSTGRES_MAJOR_MIN;

/// One installation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Programs {
    /// Its major version.
    pub major: u32,
    folder: PathBuf,
}

impl Programs {
    /// The newest installation that the account can run; of this major version, if there is a cluster already.
    pub async fn find(account: &Account, major: Option<u32>) -> Option<Self> {
        let mut newest = None;
        for folder in folders().await {
            let Some(found) = version_of(account, &folder).await else { continue };
            let wanted = major.map_or(found >= POSTGRES_MAJOR_MIN, |major| major == found);
            if wanted {
                newest = newest.max(Some(Self { major: found, folder }));
            }
        }
        newest
    }

    /// The server.
    pub fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// What makes a data directory.
    pub fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }
}

/// Where the programs may be: what `pg_config` says, Debian's folders, which are not in `PATH`, and `PATH`.
async fn folders() -> BTreeSet<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(first_line(Command::new("pg_config").arg("--bindir")).await);
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        candidates.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    // A link in PATH leads to the folder where the other programs are.
    let on_path = first_line(Command::new("sh").args(["-c", "command -v postgres"])).await;
    candidates.extend(on_path.and_then(|path| Some(fs::canonicalize(path).ok()?.parent()?.to_owned())));
    candidates
        .into_iter()
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .filter(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .collect()
}

async fn first_line(command: &mut Command) -> Option<PathBuf> {
    let output = command.output().await.ok().filter(|output| output.status.success())?;
    let line = output.stdout.split(|byte| *byte == b'\n').next().filter(|line| !line.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(line)))
}

async fn version_of(account: &Account, folder: &Path) -> Option<u32> {
    let mut command = account.command(&folder.join("postgres"));
    let output = command.arg("--version").stdout(std::process::Stdio::piped()).output().await.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// From `postgres (PostgreSQL) 15.18 (Debian ...)`, `... 18beta1` and the like.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

/// The major version that made this data directory; nothing where there is none.
pub(super) fn version_of_data(data: &Path) -> Result<Option<u32>, EmbeddedError> {
    let path = data.join("PG_VERSION");
    let read = |source| EmbeddedError::NotReadable { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|error| read(std::io::Error::new(std::io::ErrorKind::InvalidData, error))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(read(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 19", Some(19)),
            ("postgres 9.6", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }
}
