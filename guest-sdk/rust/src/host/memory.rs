//! In a native build: the host of the [`Job`](crate::testing::Job) that runs on this thread, all of it in memory.
//!
//! It answers as the real one does where an asset could see a difference: undeclared inputs and ungranted directories
//! are denied, paths are checked, nothing moves more bytes a call than the contract allows, writes to a directory are
//! staged. It has no limits of its own.

pub(crate) mod sql;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

pub(crate) use self::sql::{Database, Rows};
use super::memory_http::Answers;
use super::{CALL_BYTES_MAX, EntryRecord, HostResult, Job, VersionRecord};
use crate::error::CapabilityError;
use crate::log::{Level, Line};

/// A version and its bytes.
pub(crate) type StoredVersion = (VersionRecord, Rc<[u8]>);

/// Everything that one attempt can see and has made.
pub(crate) struct Memory {
    pub job: Job,
    pub inputs: BTreeMap<String, Vec<StoredVersion>>,
    pub directories: BTreeMap<String, Files>,
    pub secrets: BTreeMap<String, Vec<u8>>,
    pub origins: BTreeMap<String, Answers>,
    /// Origin, line and body.
    pub requests: Vec<(String, String, Vec<u8>)>,
    pub databases: BTreeMap<String, sql::Answered>,
    pub output: Vec<u8>,
    pub media_type: String,
    pub metadata: Vec<(String, String)>,
    pub log: Vec<Line>,
}

/// A directory: what is there, and what the attempt staged over it.
#[derive(Default)]
pub(crate) struct Files {
    pub present: BTreeMap<String, Vec<u8>>,
    /// `None` is a removal.
    pub staged: BTreeMap<String, Option<Vec<u8>>>,
}

impl Files {
    /// As the directory is after the commit.
    pub(crate) fn published(mut self) -> BTreeMap<String, Vec<u8>> {
        for (path, bytes) in self.staged {
            match bytes {
                Some(bytes) => self.present.insert(path, bytes),
                None => self.present.remove(&path),
            };
        }
        self.present
    }
}

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

/// Runs the closure as the attempt that this memory belongs to.
pub(crate) fn with_memory<T>(memory: Memory, attempt: impl FnOnce() -> T) -> (T, Memory) {
    /// Takes the memory away even when the asset panics, so that the thread's next test starts clean.
    struct Installed;
    impl Drop for Installed {
        fn drop(&mut self) {
            MEMORY.take();
        }
    }
    let earlier = MEMORY.replace(Some(memory));
    assert!(earlier.is_none(), "an asset cannot run a test job of its own");
    let installed = Installed;
    let result = attempt();
    let memory = MEMORY.take().expect("it was put there above, and only the guard below takes it away");
    drop(installed);
    (result, memory)
}

/// Lets the closure at the attempt that runs.
pub(super) fn with<T>(call: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(|memory| {
        call(memory.as_mut().expect("outside a component, assets run in a flowstone_sdk::testing::Job"))
    })
}

pub(crate) fn current_job() -> Job {
    with(|memory| memory.job.clone())
}

pub(crate) fn list_versions(input: &str) -> HostResult<Vec<VersionRecord>> {
    with(|memory| {
        let versions = memory.inputs.get(input).ok_or(CapabilityError::Denied)?;
        Ok(versions.iter().map(|(version, _)| version.clone()).collect())
    })
}

/// A place in the bytes of one version.
pub(crate) struct Reader {
    bytes: Rc<[u8]>,
    at: usize,
}

impl Reader {
    pub(crate) fn open(input: &str, index: u32) -> HostResult<Self> {
        with(|memory| {
            let versions = memory.inputs.get(input).ok_or(CapabilityError::Denied)?;
            let (_, bytes) = versions.get(index as usize).ok_or(CapabilityError::NotFound)?;
            Ok(Self { bytes: bytes.clone(), at: 0 })
        })
    }

    pub(crate) fn read(&mut self, max: u32) -> HostResult<Vec<u8>> {
        let chunk = chunk_at(&self.bytes, self.at, max);
        self.at += chunk.len();
        Ok(chunk)
    }

    pub(crate) fn seek(&mut self, offset: u64) -> HostResult<()> {
        if offset > self.bytes.len() as u64 {
            return Err(CapabilityError::Invalid("the offset is past the end".into()));
        }
        self.at = offset as usize;
        Ok(())
    }
}

pub(crate) fn write_output(bytes: &[u8]) -> HostResult<()> {
    check_call_size(bytes)?;
    with(|memory| memory.output.extend_from_slice(bytes));
    Ok(())
}

pub(crate) fn set_media_type(media_type: &str) -> HostResult<()> {
    if !media_type.contains('/') {
        return Err(CapabilityError::Invalid(format!("`{media_type}` is not a media type")));
    }
    with(|memory| memory.media_type = media_type.into());
    Ok(())
}

pub(crate) fn set_metadata(fields: &[(String, String)]) -> HostResult<()> {
    for (index, (name, _)) in fields.iter().enumerate() {
        if fields[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(CapabilityError::Invalid(format!("the name `{name}` repeats")));
        }
    }
    with(|memory| memory.metadata = fields.to_vec());
    Ok(())
}

pub(crate) fn write_log(level: Level, message: &str, fields: &[(String, String)]) {
    let line = Line { level, message: message.into(), fields: fields.to_vec() };
    // Code that only logs may be called by a plain unit test, without a job.
    MEMORY.with_borrow_mut(|memory| match memory {
        Some(memory) => memory.log.push(line),
        None => eprintln!("{line}"),
    });
}

pub(crate) fn reveal_secret(name: &str) -> HostResult<Vec<u8>> {
    with(|memory| memory.secrets.get(name).cloned().ok_or(CapabilityError::Denied))
}

/// A granted directory, by its name.
pub(crate) struct Directory(String);

impl Directory {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        let granted = with(|memory| memory.directories.contains_key(resource_name));
        granted.then(|| Self(resource_name.into())).ok_or(CapabilityError::Denied)
    }

    pub(crate) fn entries(&self, after: Option<&str>, max: u32) -> HostResult<Vec<EntryRecord>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.with_files(|files| {
            let page = files.present.range::<str, _>((start, Bound::Unbounded)).take(max.min(1_000) as usize);
            page.map(|(path, bytes)| EntryRecord { path: path.clone(), size: bytes.len() as u64 }).collect()
        }))
    }

    pub(crate) fn read(&self, path: &str, offset: u64, max: u32) -> HostResult<Vec<u8>> {
        check_path(path)?;
        self.with_files(|files| {
            let bytes = files.present.get(path).ok_or(CapabilityError::NotFound)?;
            Ok(chunk_at(bytes, usize::try_from(offset).unwrap_or(usize::MAX), max))
        })
    }

    pub(crate) fn append(&self, path: &str, bytes: &[u8]) -> HostResult<()> {
        check_path(path)?;
        check_call_size(bytes)?;
        self.with_files(|files| {
            let staged = files.staged.entry(path.into()).or_default();
            staged.get_or_insert_default().extend_from_slice(bytes);
        });
        Ok(())
    }

    pub(crate) fn remove(&self, path: &str) -> HostResult<()> {
        check_path(path)?;
        self.with_files(|files| {
            let staged = files.staged.get(path).is_some_and(Option::is_some);
            if !staged && !files.present.contains_key(path) {
                return Err(CapabilityError::NotFound);
            }
            files.staged.insert(path.into(), None);
            Ok(())
        })
    }

    fn with_files<T>(&self, call: impl FnOnce(&mut Files) -> T) -> T {
        with(|memory| call(memory.directories.get_mut(&self.0).expect("it was there when the directory was opened")))
    }
}

fn chunk_at(bytes: &[u8], at: usize, max: u32) -> Vec<u8> {
    let rest = bytes.get(at..).unwrap_or_default();
    rest[..rest.len().min(max as usize).min(CALL_BYTES_MAX)].to_vec()
}

fn check_call_size(bytes: &[u8]) -> HostResult<()> {
    match bytes.len() <= CALL_BYTES_MAX {
        true => Ok(()),
        false => Err(CapabilityError::Invalid("more than 1 MiB in one call".into())),
    }
}

fn check_path(path: &str) -> HostResult<()> {
    let wrong = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
    match path.len() > 1_024 || path.split('/').any(wrong) {
        true => Err(CapabilityError::Invalid(format!("`{}` is not a relative path", path.escape_debug()))),
        false => Ok(()),
    }
}
