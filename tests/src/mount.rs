//! Disks that are full or read-only, where the machine lets a test make one.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A small file system of its own over a folder. Dropped, it is gone, with all that was in it.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Of so many megabytes; `None` where mounting is not permitted.
    pub fn new(folder: &Path, megabytes: u32) -> Option<Self> {
        let options = format!("size={megabytes}m,mode=711");
        run("mount", &["-t", "tmpfs", "-o", &options, "flowstone-test"], folder)
            .then(|| Self(folder.to_owned()))
            .or_else(|| {
                eprintln!("not tested: mounting is not permitted");
                None
            })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// With other options, such as `remount,ro`.
    #[track_caller]
    pub fn remount(&self, options: &str) {
        assert!(run("mount", &["-o", options], &self.0), "what was mounted can be mounted anew");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["--lazy"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) -> bool {
    Command::new(program).args(arguments).arg(at).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
