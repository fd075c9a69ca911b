//! Under which account the server runs, and how a program is run under it.
//!
//! An ordinary user runs it himself. Postgres refuses to run as root, so root drops to `postgres`, or to `nobody`
//! where there is no such account; the programs then get neither root's groups nor its environment.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use tokio::process::Command;

use super::error::{EmbeddedError, writing};

/// The accounts on both sides of the socket.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Whose processes the server's are.
    pub uid: u32,
    gid: u32,
    /// Whether that is somebody else than this process.
    pub is_other: bool,
    /// The name of this process' account: the only one that may connect.
    pub client: String,
}

impl Account {
    /// For this process.
    pub fn of_this_process() -> Result<Self, EmbeddedError> {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let client =
            name_of(&passwd, uid).or_else(|| ask_for_name(uid)).ok_or(EmbeddedError::NamelessAccount { uid })?;
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            return Ok(Self { uid, gid, is_other: false, client });
        }
        let (uid, gid) =
            ids_of(&passwd, "postgres").or_else(|| ids_of(&passwd, "nobody")).ok_or(EmbeddedError::NoServerAccount)?;
        Ok(Self { uid, gid, is_other: true, client })
    }

    #[cfg(test)]
    pub fn for_tests(uid: u32, gid: u32) -> Self {
        Self { uid, gid, is_other: false, client: "test".to_owned() }
    }

    /// A program that runs under the account, in `/`, without our environment and out of reach of the terminal's
    /// signals: an interrupt is for the owner, which then stops the server in its own time.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives the account a folder or file of its own, closed to everybody else.
    pub fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        if self.is_other {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(writing(path))?;
        }
        Ok(())
    }

    /// Lets the account enter a folder or read a file that stays ours, and nobody else.
    pub fn admit(&self, path: &Path) -> Result<(), EmbeddedError> {
        let set = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let shared = || {
            std::os::unix::fs::chown(path, None, Some(self.gid))?;
            set(if path.is_dir() { 0o710 } else { 0o640 })
        };
        let private = || set(if path.is_dir() { 0o700 } else { 0o600 });
        if self.is_other { shared() } else { private() }.map_err(writing(path))
    }

    /// Whether a program can be run in this folder under the account. Tried, not computed: access lists, mount
    /// options and security modules have a say too.
    pub async fn can_enter(&self, folder: &Path, program: &Path) -> Result<bool, EmbeddedError> {
        match self.command(program).current_dir(folder).arg("--version").status().await {
            Ok(status) => Ok(status.success()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(source) => Err(EmbeddedError::Run { program: program.to_owned(), source }),
        }
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [name, _, id, ..] if id == uid => Some(name.to_owned()),
        _ => None,
    })
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [found, _, uid, gid, ..] if found == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    })
}

/// Accounts of a directory service are not in `/etc/passwd`; `id` asks the C library, as Postgres will.
fn ask_for_name(uid: u32) -> Option<String> {
    let output = std::process::Command::new("id").arg("-un").arg(uid.to_string()).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\nbroken\npostgres:x:101:104::/var/lib/postgresql:/bin/sh\n";

    #[test]
    fn accounts_are_found_by_name_and_by_id() {
        assert_eq!(ids_of(PASSWD, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(PASSWD, "nobody"), None);
        assert_eq!(name_of(PASSWD, 0).as_deref(), Some("root"));
        assert_eq!(name_of(PASSWD, 104), None);
    }
}
