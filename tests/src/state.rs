//! A state directory that leaves nothing behind.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A temporary folder with a state directory in it. Dropped, it waits for a server that is about to stop and removes
/// everything, also a cluster that had to live elsewhere.
#[derive(Debug)]
pub struct StateFolder {
    folder: tempfile::TempDir,
}

impl StateFolder {
    /// In a folder that every account can enter, like a clone in `/srv`.
    pub fn new() -> Self {
        Self::with_mode(0o711)
    }

    /// In a folder with these permissions.
    pub fn with_mode(mode: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("flowstone-test-").tempdir().expect("/tmp is writable");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("the folder is ours");
        Self { folder }
    }

    /// The folder around the state directory: where a command runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory, which need not exist.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(".flowstone")
    }

    /// A state directory so deep that no socket fits into it.
    pub fn deep_path(&self) -> PathBuf {
        let deep = self.folder.path().join("d".repeat(120));
        fs::DirBuilder::new().mode(0o711).recursive(true).create(&deep).expect("the folder is ours");
        deep.join(".flowstone")
    }

    /// The process id of the server of a state directory, while there is one.
    pub fn postmaster(state_dir: &Path) -> Option<u32> {
        let text = fs::read_to_string(state_dir.join("postgres/data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }
}

impl Default for StateFolder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        for state_dir in [self.path(), self.folder.path().join("d".repeat(120)).join(".flowstone")] {
            let deadline = Instant::now() + Duration::from_secs(30);
            while Self::postmaster(&state_dir).is_some_and(is_alive) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Ok(elsewhere) = fs::read_link(state_dir.join("postgres"))
                && elsewhere.starts_with("/var/lib/flowstone")
            {
                drop(fs::remove_dir_all(elsewhere));
            }
        }
    }
}

/// Whether a process has this id.
pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
