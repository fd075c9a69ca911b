//! The folder of the server's socket.
//!
//! In the cluster's home, unless the path would be too long for a socket: then it is a folder in `/tmp` with a name
//! nobody can foresee, and the home holds a link to it. A folder in `/tmp` is used again only if it is still the
//! server's and closed to others: anybody may have made one of that name after a reboot.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    account::Account,
    error::{EmbeddedError, reading, writing},
    home::{Home, private_folder_in},
};
use crate::limit::SOCKET_PATH_BYTES_MAX;

/// Part of the socket's name; every cluster has a folder of its own, so they never meet.
pub(super) const PORT: u16 = 5432;

/// The folder to start a server with, while no server runs.
pub(super) fn prepare(home: &Home, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let near = home.0.join("socket");
    match fs::symlink_metadata(&near) {
        Ok(there) if there.is_symlink() => {
            if let Some(folder) = find(home, account)?.filter(|folder| fits(folder)) {
                return Ok(folder);
            }
            fs::remove_file(&near).map_err(writing(&near))?;
        }
        // A socket that a killed server left; the home may also have moved to a longer path since.
        Ok(_) => fs::remove_dir_all(&near).map_err(writing(&near))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(reading(&near)(source)),
    }
    if fits(&near) {
        fs::DirBuilder::new().mode(0o700).create(&near).map_err(writing(&near))?;
        account.give(&near)?;
        return Ok(near);
    }
    let folder = private_folder_in(Path::new("/tmp"), "flowstone-")?.keep();
    account.give(&folder)?;
    std::os::unix::fs::symlink(&folder, &near).map_err(writing(&near))?;
    Ok(folder)
}

/// The folder that a server was started with, if it is one to trust.
pub(super) fn find(home: &Home, account: &Account) -> Result<Option<PathBuf>, EmbeddedError> {
    let near = home.0.join("socket");
    let folder = match fs::read_link(&near) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => near,
    };
    match fs::symlink_metadata(&folder) {
        Ok(folder_is) if folder_is.is_dir() && folder_is.uid() == account.uid && folder_is.mode() & 0o077 == 0 => {
            Ok(Some(folder))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(reading(&folder)(source)),
    }
}

/// Removes a folder that is not in the home, when its server has stopped.
pub(super) fn tidy(home: &Home, folder: &Path) {
    let near = home.0.join("socket");
    if folder != near && fs::remove_dir(folder).is_ok() {
        drop(fs::remove_file(near));
    }
}

/// Whether a socket can be in this folder, and Postgres take it from a list that commas separate.
fn fits(folder: &Path) -> bool {
    let plain = |path: &str| !path.contains(|c: char| c.is_control() || matches!(c, ',' | '"'));
    folder.to_str().is_some_and(plain)
        && folder.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_107_bytes_fits_and_one_more_does_not() {
        let name = |bytes: usize| PathBuf::from(format!("/{}", "a".repeat(bytes - 1)));
        let socket = "/.s.PGSQL.5432".len();
        assert!(fits(&name(107 - socket)));
        assert!(!fits(&name(108 - socket)));
        assert!(!fits(Path::new("/a,b")));
    }

    #[test]
    fn a_folder_that_others_can_enter_is_not_used_again() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let home = Home(folder.path().join("home"));
        let uid = rustix::process::geteuid().as_raw();
        let account = Account::for_tests(uid, rustix::process::getegid().as_raw());
        let planted = folder.path().join("planted");
        fs::create_dir(&home.0).unwrap();
        fs::create_dir(&planted).unwrap();
        fs::set_permissions(&planted, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&planted, home.0.join("socket")).unwrap();
        assert_eq!(find(&home, &account).unwrap(), None);

        fs::set_permissions(&planted, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find(&home, &account).unwrap(), Some(planted));
        assert_eq!(find(&home, &Account::for_tests(uid + 1, 0)).unwrap(), None);
    }
}
