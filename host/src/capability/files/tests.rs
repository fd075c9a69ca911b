//! The directory capability as a guest calls it: allowed, denied, over the limit.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use cap_std::ambient_authority;
use files::{Host as _, HostDirectory as _};
use tokio_util::sync::CancellationToken;
use types::CapabilityError;

use super::*;
use crate::{
    blob::Digest,
    capability::Abort,
    limit::{STAGED_FILES_DEFAULT, STAGED_FILES_MAX},
};

/// Beside the granted folder `data` is a file `outside.csv` that no path may reach.
struct Setting {
    folder: tempfile::TempDir,
    blobs: BlobStore,
    files: Files,
    handle: u32,
}

impl Setting {
    fn new(access: Access, paths: &[&str], write_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("below")).unwrap();
        fs::write(folder.path().join("outside.csv"), "secret").unwrap();
        for (path, content) in [("a.csv", "alpha"), ("b.csv", "beta"), ("below/c.csv", "gamma"), ("note.txt", "n")] {
            fs::write(data.join(path), content).unwrap();
        }
        let blobs = BlobStore::open(&folder.path().join("blobs")).unwrap();
        let grant = DirectoryGrant {
            resource: "station".into(),
            access,
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            write_bytes,
            entries: STAGED_FILES_DEFAULT,
            mount: None,
        };
        let directory = Dir::open_ambient_dir(&data, ambient_authority()).unwrap();
        let interrupt = Interrupt::new(Instant::now() + Duration::from_secs(3600), CancellationToken::new());
        let directories = vec![Directory { directory, grant }];
        let mut files = Files::new("raw".into(), directories, blobs.clone(), "t".into(), interrupt).unwrap();
        let handle = files.open("station".into()).unwrap().rep();
        Self { folder, blobs, files, handle }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn handle(&self) -> Resource<files::Directory> {
        Resource::new_borrow(self.handle)
    }

    fn read(&mut self, path: &str) -> Result<Vec<u8>, Refusal> {
        self.files.read(self.handle(), path.into(), 0, u32::MAX)
    }

    fn stat(&mut self, path: &str) -> Result<u64, Refusal> {
        let entry = self.files.stat(self.handle(), path.into())?;
        assert_eq!(entry.path, path);
        Ok(entry.size)
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), Refusal> {
        self.files.append(self.handle(), path.into(), bytes.to_vec())
    }

    fn remove(&mut self, path: &str) -> Result<(), Refusal> {
        self.files.remove(self.handle(), path.into())
    }

    fn paths(&mut self) -> Vec<String> {
        let entries = self.files.entries(self.handle(), None, u32::MAX).unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    }
}

fn guest<T: std::fmt::Debug>(result: Result<T, Refusal>) -> CapabilityError {
    match result {
        Err(Refusal::Guest(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn granted_files_are_listed_sorted_and_in_pages() {
    let mut setting = Setting::new(Access::Read, &["**/*.csv"], 0);
    assert_eq!(setting.paths(), ["a.csv", "b.csv", "below/c.csv"]);
    let page = setting.files.entries(setting.handle(), Some("a.csv".into()), 1).unwrap();
    assert_eq!((page[0].path.as_str(), page[0].size, page.len()), ("b.csv", 4, 1));
    assert!(setting.files.entries(setting.handle(), Some("below/c.csv".into()), 10).unwrap().is_empty());
    assert!(matches!(guest(setting.files.entries(setting.handle(), None, 0)), CapabilityError::Invalid(_)));
}

#[test]
fn granted_files_are_read_from_any_offset() {
    let mut setting = Setting::new(Access::Read, &["**"], 0);
    assert_eq!(setting.read("below/c.csv").unwrap(), b"gamma");
    assert_eq!(setting.files.read(setting.handle(), "a.csv".into(), 2, 2).unwrap(), b"ph");
    assert!(setting.files.read(setting.handle(), "a.csv".into(), 5, 10).unwrap().is_empty());
    assert!(setting.files.read(setting.handle(), "a.csv".into(), u64::MAX, 10).unwrap().is_empty());
    assert!(matches!(guest(setting.files.read(setting.handle(), "a.csv".into(), 0, 0)), CapabilityError::Invalid(_)));

    let large = vec![5; 2 * CHUNK_BYTES_MAX];
    fs::write(setting.data().join("large"), &large).unwrap();
    assert_eq!(setting.read("large").unwrap().len(), CHUNK_BYTES_MAX);
}

#[test]
fn what_the_globs_do_not_match_is_denied_whether_it_exists_or_not() {
    let mut setting = Setting::new(Access::Read, &["*.csv"], 0);
    for path in ["note.txt", "absent.txt", "below/c.csv"] {
        assert!(matches!(guest(setting.read(path)), CapabilityError::Denied), "{path}");
    }
    assert!(matches!(guest(setting.read("absent.csv")), CapabilityError::NotFound));
    let denials = setting.files.take_denials();
    assert_eq!(denials.len(), 3);
    assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { station = { access = "read", paths = ["note.txt"] } }"#);
    assert_eq!((denials[0].resource.as_str(), denials[0].operation.as_str()), ("station", "read"));
}

#[test]
fn another_resource_is_denied_with_the_line_that_grants_it() {
    let mut setting = Setting::new(Access::Read, &["**"], 0);
    assert!(matches!(guest(setting.files.open("secrets".into())), CapabilityError::Denied));
    let denials = setting.files.take_denials();
    assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { secrets = { access = "read", paths = ["**"] } }"#);
}

#[test]
fn no_path_and_no_link_leads_out() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    let outside = setting.folder.path().join("outside.csv");
    for path in ["../outside.csv", "below/../../outside.csv", "/etc/passwd", outside.to_str().unwrap()] {
        assert!(matches!(guest(setting.read(path)), CapabilityError::Invalid(_)), "{path}");
        assert!(matches!(guest(setting.append(path, b"x")), CapabilityError::Invalid(_)), "{path}");
    }
    symlink("../outside.csv", setting.data().join("relative.csv")).unwrap();
    symlink(&outside, setting.data().join("absolute.csv")).unwrap();
    symlink(setting.folder.path(), setting.data().join("up")).unwrap();
    symlink("loop.csv", setting.data().join("loop.csv")).unwrap();
    for path in ["relative.csv", "absolute.csv", "up/outside.csv", "loop.csv"] {
        assert!(matches!(guest(setting.read(path)), CapabilityError::Denied), "{path}");
        assert!(matches!(guest(setting.append(path, b"x")), CapabilityError::Denied), "{path}");
        assert!(matches!(guest(setting.remove(path)), CapabilityError::Denied), "{path}");
    }
    assert_eq!(setting.paths(), ["a.csv", "b.csv", "below/c.csv", "note.txt"], "nor is it listed");
    assert_eq!(fs::read_to_string(outside).unwrap(), "secret");
}

#[test]
fn links_are_followed_to_files_within_and_never_through_folders() {
    let mut setting = Setting::new(Access::Read, &["**"], 0);
    symlink("../a.csv", setting.data().join("below/link.csv")).unwrap();
    symlink("below", setting.data().join("folder")).unwrap();
    assert_eq!(setting.read("below/link.csv").unwrap(), b"alpha");
    assert!(matches!(guest(setting.read("folder/c.csv")), CapabilityError::Denied));
    // So a listing, and with it the fingerprint, names everything that can be read.
    assert_eq!(setting.paths(), ["a.csv", "b.csv", "below/c.csv", "below/link.csv", "note.txt"]);
}

#[test]
fn what_is_not_a_regular_file_is_denied_and_never_waited_for() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    let fifo = setting.data().join("fifo.csv");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(setting.data().join("socket.csv")).unwrap();
    for path in ["fifo.csv", "socket.csv", "below"] {
        assert!(matches!(guest(setting.read(path)), CapabilityError::Denied), "{path}");
        assert!(matches!(guest(setting.append(path, b"x")), CapabilityError::Denied), "{path}");
    }
    assert_eq!(setting.paths().len(), 4);
}

#[test]
fn a_read_grant_does_not_write() {
    let mut setting = Setting::new(Access::Read, &["**"], 100);
    assert!(matches!(guest(setting.append("a.csv", b"x")), CapabilityError::Denied));
    assert!(matches!(guest(setting.remove("a.csv")), CapabilityError::Denied));
    let denials = setting.files.take_denials();
    assert!(denials[0].remedy.contains(r#"access = "read-write", paths = ["a.csv"]"#), "{}", denials[0].remedy);
}

#[tokio::test]
async fn writes_are_staged_and_change_nothing_yet() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    setting.append("new/d.csv", b"de").unwrap();
    setting.append("new/d.csv", b"lta").unwrap();
    setting.append("a.csv", b"replaced").unwrap();
    setting.remove("b.csv").unwrap();
    assert_eq!(fs::read_to_string(setting.data().join("a.csv")).unwrap(), "alpha");
    assert!(!setting.data().join("new").exists() && setting.data().join("b.csv").exists());

    let staged = setting.files.finish().await.unwrap();
    let summary: Vec<_> =
        staged.iter().map(|file| (file.path.as_str(), matches!(file.change, Change::Remove))).collect();
    assert_eq!(summary, [("a.csv", false), ("b.csv", true), ("new/d.csv", false)]);
    let Change::Write(stored) = staged[2].change else { panic!() };
    assert_eq!(setting.blobs.read_all("t", stored.digest).await.unwrap(), b"delta");
    assert_eq!((staged[2].resource.as_str(), stored.digest), ("station", Digest::of(b"delta")));
}

#[test]
fn an_attempt_sees_what_it_has_staged_over_what_is_there() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], u64::MAX);
    // Listed before anything is staged: what is in the directory is listed once, what is staged always.
    assert_eq!(setting.paths(), ["a.csv", "b.csv", "below/c.csv", "note.txt"]);
    setting.append("a.csv", b"new").unwrap();
    setting.remove("b.csv").unwrap();
    setting.append("before", b"").unwrap();
    setting.append("new/d.csv", b"delta").unwrap();
    setting.append("z", b"last").unwrap();
    let expected = ["a.csv", "before", "below/c.csv", "new/d.csv", "note.txt", "z"];
    assert_eq!(setting.paths(), expected);
    let mut paged = Vec::new();
    while let [entry] = &setting.files.entries(setting.handle(), paged.last().cloned(), 1).unwrap()[..] {
        paged.push(entry.path.clone());
    }
    assert_eq!(paged, expected, "pages of one are the same");
    assert_eq!((setting.stat("a.csv").unwrap(), setting.stat("z").unwrap()), (3, 4));
    assert_eq!(setting.stat("note.txt").unwrap(), 1);
    assert_eq!(setting.read("a.csv").unwrap(), b"new", "not what it replaces");
    assert!(matches!(guest(setting.read("b.csv")), CapabilityError::NotFound));
    assert!(matches!(guest(setting.stat("b.csv")), CapabilityError::NotFound));
    assert!(matches!(guest(setting.stat("absent")), CapabilityError::NotFound));
    assert!(matches!(guest(setting.stat("below")), CapabilityError::Denied));

    setting.append("a.csv", &vec![b'x'; CHUNK_BYTES_MAX]).unwrap();
    assert_eq!(setting.files.read(setting.handle(), "a.csv".into(), 2, 3).unwrap(), b"wxx");
    assert_eq!(setting.files.read(setting.handle(), "a.csv".into(), 0, u32::MAX).unwrap().len(), CHUNK_BYTES_MAX);
    setting.remove("a.csv").unwrap();
    assert!(matches!(guest(setting.read("a.csv")), CapabilityError::NotFound), "nor what was staged and removed");
}

#[test]
fn a_path_is_a_file_or_a_folder_and_not_both() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    setting.append("new", b"x").unwrap();
    assert!(matches!(guest(setting.append("new/below", b"x")), CapabilityError::Invalid(_)));
    assert!(matches!(guest(setting.append("new/below/deeper", b"x")), CapabilityError::Invalid(_)));
    setting.append("new-er", b"x").unwrap();
    setting.append("folder/deep/file", b"x").unwrap();
    assert!(matches!(guest(setting.append("folder", b"x")), CapabilityError::Invalid(_)));
    assert!(matches!(guest(setting.append("folder/deep", b"x")), CapabilityError::Invalid(_)));
    setting.remove("folder/deep/file").unwrap();
    setting.append("folder", b"x").unwrap();
    // Where something is already, it says which of the two.
    assert!(matches!(guest(setting.append("below", b"x")), CapabilityError::Denied));
    assert!(matches!(guest(setting.append("a.csv/x", b"x")), CapabilityError::Denied));
}

#[test]
fn a_written_name_is_one_that_others_can_read() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    for path in ["a\nb", "a\u{1b}[2J", "a\u{7f}", "a\u{9b}"] {
        assert!(matches!(guest(setting.append(path, b"x")), CapabilityError::Invalid(_)), "{path:?}");
    }
    // What is there can be read and removed whatever it is called.
    fs::write(setting.data().join("a\nb"), "x").unwrap();
    assert_eq!(setting.read("a\nb").unwrap(), b"x");
    setting.remove("a\nb").unwrap();
}

#[test]
fn the_quota_of_files_is_exact_and_counts_what_would_change() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    setting.files.open[0].grant.entries = 2;
    setting.append("x", b"1").unwrap();
    setting.remove("a.csv").unwrap();
    setting.append("x", b"2").unwrap();
    assert!(matches!(guest(setting.append("y", b"1")), CapabilityError::LimitReached(_)));
    assert!(matches!(guest(setting.remove("b.csv")), CapabilityError::LimitReached(_)));
    setting.remove("x").unwrap();
    setting.append("y", b"1").unwrap();
    assert!(matches!(guest(setting.append("x", b"1")), CapabilityError::LimitReached(_)));
}

#[tokio::test]
async fn a_name_that_is_another_files_elsewhere_is_read_and_never_written_through() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    fs::hard_link(setting.folder.path().join("outside.csv"), setting.data().join("hard.csv")).unwrap();
    // It is a file of the directory as much as of any other: whoever made the link shared it.
    assert_eq!(setting.read("hard.csv").unwrap(), b"secret");
    setting.append("hard.csv", b"mine").unwrap();
    setting.files.finish().await.unwrap();
    assert_eq!(fs::read_to_string(setting.folder.path().join("outside.csv")).unwrap(), "secret");
}

#[tokio::test]
async fn removals_know_what_is_staged() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 100);
    assert!(matches!(guest(setting.remove("absent.csv")), CapabilityError::NotFound));
    setting.append("new.csv", b"x").unwrap();
    setting.remove("new.csv").unwrap();
    assert!(matches!(guest(setting.remove("new.csv")), CapabilityError::NotFound));
    setting.remove("a.csv").unwrap();
    assert!(matches!(guest(setting.remove("a.csv")), CapabilityError::NotFound));
    setting.append("a.csv", b"again").unwrap();
    setting.append("b.csv", b"x").unwrap();
    setting.remove("b.csv").unwrap();
    let staged = setting.files.finish().await.unwrap();
    let summary: Vec<_> =
        staged.iter().map(|file| (file.path.as_str(), matches!(file.change, Change::Remove))).collect();
    assert_eq!(summary, [("a.csv", false), ("b.csv", true)]);
}

#[test]
fn the_write_quota_is_exact_and_not_given_back() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], 10);
    setting.append("x", b"12345").unwrap();
    setting.remove("x").unwrap();
    setting.append("y", b"12345").unwrap();
    assert!(matches!(guest(setting.append("y", b"1")), CapabilityError::LimitReached(_)));
    assert!(matches!(guest(setting.append("z", b"1")), CapabilityError::LimitReached(_)));
    assert!(matches!(guest(setting.append("y", &vec![0; CHUNK_BYTES_MAX + 1])), CapabilityError::Invalid(_)));
}

#[test]
fn staged_files_are_bounded() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], u64::MAX);
    for n in 0..STAGED_FILES_MAX {
        setting.append(&format!("{n}"), b"").unwrap();
    }
    assert!(matches!(guest(setting.append("more", b"")), CapabilityError::LimitReached(_)));
    assert!(matches!(guest(setting.remove("a.csv")), CapabilityError::LimitReached(_)));
    setting.append("0", b"still there").unwrap();
}

#[test]
fn an_unfinished_attempt_leaves_no_staged_files() {
    let mut setting = Setting::new(Access::ReadWrite, &["**"], u64::MAX);
    setting.append("x", &vec![1; CHUNK_BYTES_MAX]).unwrap();
    let Setting { folder, files, .. } = setting;
    drop(files);
    let left = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(left(&folder.path().join("blobs/tmp")), 0);
    assert_eq!(left(&folder.path().join("blobs")), 1);
}

#[test]
fn a_folder_without_end_reaches_a_limit() {
    let mut setting = Setting::new(Access::Read, &["**"], 0);
    let deep = "d/".repeat(crate::limit::DIRECTORY_DEPTH_MAX + 2);
    fs::create_dir_all(setting.data().join(deep)).unwrap();
    let refused = guest(setting.files.entries(setting.handle(), None, 10));
    assert!(matches!(refused, CapabilityError::LimitReached(_)), "{refused:?}");
}

#[test]
fn listing_stops_when_the_attempt_must_end() {
    let mut setting = Setting::new(Access::Read, &["**"], 0);
    setting.files.interrupt = Interrupt::new(Instant::now(), CancellationToken::new());
    let stopped = setting.files.entries(setting.handle(), None, 10);
    assert!(matches!(stopped, Err(Refusal::Abort(Abort::Interrupted))));
}
