//! A mounted directory as a guest calls it, without a guest: allowed, denied, over the limit.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use cap_std::{ambient_authority, fs::Dir};
use preopens::Host as _;
use tokio_util::sync::CancellationToken;
use wasi::{HostDescriptor as _, HostDirectoryEntryStream as _};

use super::*;
use crate::{
    blob::BlobStore,
    capability::{Interrupt, files::Directory},
    pipeline::resource::DirectoryGrant,
};

/// A mounted folder with a file outside of it.
struct Setting {
    _folder: tempfile::TempDir,
    files: Files,
    table: ResourceTable,
}

impl Setting {
    fn new(paths: &[&str], mount: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("below/deep")).unwrap();
        fs::write(folder.path().join("outside.csv"), "secret").unwrap();
        for (path, content) in
            [("a.csv", "alpha"), ("below/b.csv", "beta"), ("below/deep/c.csv", ""), ("note.txt", "n")]
        {
            fs::write(data.join(path), content).unwrap();
        }
        symlink("../outside.csv", data.join("out.csv")).unwrap();
        let grant = DirectoryGrant {
            resource: "station".into(),
            access: Access::Read,
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            write_bytes: 0,
            entries: 1,
            mount: mount.map(ToOwned::to_owned),
        };
        let blobs = BlobStore::open(&folder.path().join("blobs")).unwrap();
        let directory = Dir::open_ambient_dir(&data, ambient_authority()).unwrap();
        let interrupt = Interrupt::new(Instant::now() + Duration::from_secs(3600), CancellationToken::new());
        let directories = vec![Directory { directory, grant }];
        let files = Files::new("raw".into(), directories, blobs, "t".into(), interrupt).unwrap();
        Self { _folder: folder, files, table: ResourceTable::new() }
    }

    fn view(&mut self) -> MountedView<'_> {
        MountedView { files: &mut self.files, table: &mut self.table }
    }

    fn root(&mut self) -> Resource<Descriptor> {
        let mut mounts = self.view().get_directories().unwrap();
        assert_eq!((mounts.len(), mounts[0].1.as_str()), (1, "/data"));
        mounts.remove(0).0
    }

    async fn open(&mut self, path: &str) -> Result<Resource<Descriptor>, ErrorCode> {
        let root = self.root();
        let (follow, plain) = (PathFlags::SYMLINK_FOLLOW, OpenFlags::empty());
        let opened = self.view().open_at(root, follow, path.into(), plain, DescriptorFlags::READ).await;
        opened.map_err(|error| error.downcast().unwrap())
    }
}

fn same(descriptor: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(descriptor.rep())
}

#[tokio::test]
async fn granted_files_are_opened_read_and_listed() {
    let mut setting = Setting::new(&["**/*.csv"], Some("/data"));
    let file = setting.open("below/b.csv").await.unwrap();
    assert_eq!(setting.view().read(same(&file), u64::MAX, 0).await.unwrap(), (b"beta".to_vec(), false));
    assert_eq!(setting.view().read(same(&file), 2, 1).await.unwrap(), (b"et".to_vec(), false));
    assert_eq!(setting.view().read(same(&file), 10, 4).await.unwrap(), (vec![], true));
    let stat = setting.view().stat(same(&file)).await.unwrap();
    assert_eq!((stat.type_, stat.size), (DescriptorType::RegularFile, 4));
    assert!(stat.data_modification_timestamp.is_none(), "times are no part of the recipe");
    let stream = setting.view().read_via_stream(same(&file), 1).unwrap();
    assert_eq!(setting.table.get_mut(&stream).unwrap().read(100).unwrap(), "eta");
    assert!(matches!(setting.table.get_mut(&stream).unwrap().read(100), Err(StreamError::Closed)));

    let folder = setting.open("below").await.unwrap();
    assert_eq!(setting.view().read(same(&folder), 1, 0).await.unwrap_err().downcast().unwrap(), ErrorCode::IsDirectory);
    let listing = setting.view().read_directory(folder).await.unwrap();
    let mut names = Vec::new();
    while let Some(entry) = setting.view().read_directory_entry(Resource::new_borrow(listing.rep())).await.unwrap() {
        names.push((entry.name, entry.type_));
    }
    let expected = [("b.csv", DescriptorType::RegularFile), ("deep", DescriptorType::Directory)];
    assert_eq!(names, expected.map(|(name, kind)| (name.to_owned(), kind)));

    let uses = setting.files.take_uses();
    let read = uses.iter().find(|used| used.operation == "read").unwrap();
    assert_eq!((&*read.resource, &*read.target, read.calls, read.bytes), ("station", "below/b.csv", 5, 9));
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_recorded() {
    let mut setting = Setting::new(&["**/*.csv"], Some("/data"));
    for (path, expected) in [
        ("note.txt", ErrorCode::Access),
        ("absent.txt", ErrorCode::Access),
        ("absent.csv", ErrorCode::NoEntry),
        ("out.csv", ErrorCode::Access),
        ("../outside.csv", ErrorCode::NotPermitted),
        ("/data/a.csv", ErrorCode::NotPermitted),
        ("a.csv/", ErrorCode::NotDirectory),
    ] {
        assert_eq!(setting.open(path).await.unwrap_err(), expected, "{path}");
    }
    let denials = setting.files.take_denials();
    let denied: Vec<_> = denials.iter().map(|denial| (&*denial.operation, &*denial.target)).collect();
    assert_eq!(denied, [("open", "note.txt"), ("open", "absent.txt"), ("open", "out.csv")]);
    assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { station = { access = "read", paths = ["note.txt"] } }"#);
    let words: Vec<String> = setting.files.take_uses().into_iter().map(|used| used.result).collect();
    assert_eq!(words, ["denied", "denied", "not-found", "denied", "ok"]);
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let mut setting = Setting::new(&["**"], Some("/data"));
    let (root, file) = (setting.root(), setting.open("a.csv").await.unwrap());
    let mut view = setting.view();
    let (at, none) = (|| "new".to_owned(), PathFlags::empty());
    let answers = [
        view.write(same(&file), vec![1], 0).await.map(drop),
        view.set_size(same(&file), 0).await,
        view.write_via_stream(same(&file), 0).map(drop),
        view.append_via_stream(same(&file)).map(drop),
        view.set_times(same(&file), NewTimestamp::Now, NewTimestamp::Now).await,
        view.set_times_at(same(&root), none, at(), NewTimestamp::Now, NewTimestamp::Now).await,
        view.create_directory_at(same(&root), at()).await,
        view.link_at(same(&root), none, "a.csv".into(), same(&root), at()).await,
        view.symlink_at(same(&root), "a.csv".into(), at()).await,
        view.rename_at(same(&root), "a.csv".into(), same(&root), at()).await,
        view.unlink_file_at(same(&root), "a.csv".into()).await,
        view.remove_directory_at(same(&root), "below".into()).await,
        view.open_at(same(&root), none, at(), OpenFlags::CREATE, DescriptorFlags::READ).await.map(drop),
        view.open_at(same(&root), none, "a.csv".into(), OpenFlags::TRUNCATE, DescriptorFlags::READ).await.map(drop),
        view.open_at(same(&root), none, "a.csv".into(), OpenFlags::empty(), DescriptorFlags::WRITE).await.map(drop),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap_err().downcast().unwrap(), ErrorCode::ReadOnly, "{number}");
    }
    view.sync(same(&file)).await.unwrap();
    assert_eq!(view.get_flags(same(&root)).await.unwrap(), DescriptorFlags::READ);
}

#[tokio::test]
async fn open_files_are_bounded_and_a_closed_one_makes_room() {
    let mut setting = Setting::new(&["**"], Some("/data"));
    let mut open = Vec::new();
    for _ in 0..MOUNTED_FILES_OPEN_MAX {
        open.push(setting.open("a.csv").await.unwrap());
    }
    assert_eq!(setting.open("a.csv").await.unwrap_err(), ErrorCode::Quota);
    // A stream keeps its file open.
    let stream = setting.view().read_via_stream(same(&open[0]), 0).unwrap();
    wasi::HostDescriptor::drop(&mut setting.view(), open.remove(0)).unwrap();
    assert_eq!(setting.open("a.csv").await.unwrap_err(), ErrorCode::Quota);
    setting.table.delete(stream).unwrap();
    setting.open("a.csv").await.unwrap();
}

#[test]
fn without_a_mount_there_is_nothing() {
    assert!(Setting::new(&["**"], None).view().get_directories().unwrap().is_empty());
}

#[test]
fn paths_are_joined_without_their_dots_and_never_lead_above_their_folder() {
    let check = |folder: &str, path: &str, expected: &str| {
        assert_eq!(join(folder, path).unwrap(), expected, "{folder} {path}");
    };
    check("", "a.csv", "a.csv");
    check("below", "a.csv", "below/a.csv");
    check("below", ".", "below");
    check("", ".", "");
    check("below", "./x//y/../z/", "below/x/z");
    check("", "x/..", "");
    let long = "x".repeat(PATH_BYTES_MAX + 1);
    let deep = "d/".repeat(DIRECTORY_DEPTH_MAX + 1);
    for (path, expected) in [
        ("", ErrorCode::NoEntry),
        ("/", ErrorCode::NotPermitted),
        ("/etc/passwd", ErrorCode::NotPermitted),
        ("..", ErrorCode::NotPermitted),
        ("../below/a.csv", ErrorCode::NotPermitted),
        ("x/../../y", ErrorCode::NotPermitted),
        ("a\0", ErrorCode::Invalid),
        (&long, ErrorCode::NameTooLong),
        (&deep, ErrorCode::NameTooLong),
    ] {
        assert_eq!(join("below", path).unwrap_err().downcast().unwrap(), expected, "{path:?}");
    }
}
