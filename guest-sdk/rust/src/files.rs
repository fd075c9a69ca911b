//! Directories that an operator granted.
//!
//! An asset that names this module's functions imports `flowstone:asset/files`, and is deployed only where every
//! directory it requires is granted.
//!
//! Code that opens files by itself, with `std::fs`, needs none of it: where the manifest mounts a granted directory
//! (`mount = "/station"`), its files are there to be read. A native test reads the machine's own files instead.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! /// How many bytes the station has sent.
//! #[asset(requires(station = files("counts the station's files")))]
//! fn station_size(ctx: &Context) -> Result<Json<u64>> {
//!     let mut size = 0;
//!     for entry in ctx.directory("station")?.entries() {
//!         size += entry?.size;
//!     }
//!     Ok(Json(size))
//! }
//!
//! use flowstone_sdk::testing::Job;
//!
//! let finished = Job::new("station_size").directory("station", [("2012/a.csv", "abc"), ("b.csv", "de")]).run();
//! assert_eq!(finished.text(), "5");
//! ```

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::host::{self, CALL_BYTES_MAX, HostResult};
use crate::stream::{Source, Stream, reads_its_stream};

/// As many entries as one call lists.
const ENTRIES_PER_CALL: u32 = 1_000;

/// A granted directory. Paths in it are relative, with `/` between names. What the grant's globs do not match is
/// denied, whether it exists or not.
#[derive(Clone)]
pub struct Directory {
    name: String,
    granted: Rc<host::Directory>,
}

/// A regular file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the directory's root.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

impl Directory {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let granted = host::Directory::open(name)
            .map_err(|error| Error::from(error).context(format!("opening directory `{name}`")))?;
        Ok(Self { name: name.into(), granted: Rc::new(granted) })
    }

    /// Every file that the grant lets the asset see, in every folder below, sorted by path (bytewise): those that are
    /// there, and over them what the asset has written and removed itself.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        let directory = self.clone();
        let mut page = VecDeque::new();
        let mut last: Option<String> = None;
        let mut ended = false;
        std::iter::from_fn(move || {
            if page.is_empty() && !ended {
                match directory.granted.entries(last.as_deref(), ENTRIES_PER_CALL) {
                    Ok(entries) => page.extend(entries),
                    Err(error) => {
                        ended = true;
                        return Some(
                            Err(Error::from(error).context(format!("listing directory `{}`", directory.name))),
                        );
                    }
                }
                ended = page.is_empty();
            }
            let entry = page.pop_front()?;
            last = Some(entry.path.clone());
            Some(Ok(Entry { path: entry.path, size: entry.size }))
        })
    }

    /// One file, without reading it. An error if there is none.
    pub fn stat(&self, path: &str) -> Result<Entry> {
        let entry = self.granted.stat(path).map_err(|error| self.explain("looking at", path, error))?;
        Ok(Entry { path: entry.path, size: entry.size })
    }

    /// All bytes of a file at once.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader(path).read_to_end(&mut bytes).map_err(|error| self.explain("reading", path, error))?;
        Ok(bytes)
    }

    /// All bytes of a file at once, as UTF-8.
    pub fn text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.bytes(path)?).map_err(|error| self.explain("reading", path, error))
    }

    /// A file as a stream. The first read says whether it is there.
    pub fn reader(&self, path: &str) -> FileReader {
        FileReader(Stream::new(File { directory: self.clone(), path: path.into() }))
    }

    /// Adds to a new file, which replaces the one of that path when the materialization is committed. The asset itself
    /// sees it at once, nobody else before.
    pub fn append(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut bytes = bytes.as_ref();
        // An empty file takes one call too.
        loop {
            let (chunk, rest) = bytes.split_at(bytes.len().min(CALL_BYTES_MAX));
            self.granted.append(path, chunk).map_err(|error| self.explain("writing", path, error))?;
            if rest.is_empty() {
                return Ok(());
            }
            bytes = rest;
        }
    }

    /// The same as a stream. Every write is a call: put a [`std::io::BufWriter`] around it for small ones.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    /// use std::io::Write;
    ///
    /// /// Leaves a note.
    /// #[asset(requires(desk = files("leaves a note")))]
    /// fn note(ctx: &Context) -> Result<()> {
    ///     let desk = ctx.directory("desk")?;
    ///     writeln!(desk.writer("note.txt"), "back at 3")?;
    ///     desk.append("note.txt", "or 4\n")?;
    ///     assert_eq!(desk.text("note.txt")?, "back at 3\nor 4\n");
    ///     desk.remove("old.txt")?;
    ///     let left = desk.entries().map(|entry| entry.map(|entry| entry.path)).collect::<Result<Vec<_>>>()?;
    ///     assert_eq!((left, desk.stat("note.txt")?.size), (vec!["note.txt".to_owned()], 15));
    ///     Ok(())
    /// }
    ///
    /// # use flowstone_sdk::testing::Job;
    /// let finished = Job::new("note").directory("desk", [("old.txt", "")]).run();
    /// assert_eq!(finished.directories["desk"]["note.txt"], b"back at 3\nor 4\n");
    /// assert!(!finished.directories["desk"].contains_key("old.txt"));
    /// ```
    pub fn writer(&self, path: &str) -> FileWriter {
        FileWriter { directory: self.clone(), path: path.into() }
    }

    /// Removes a file when the materialization is committed.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.granted.remove(path).map_err(|error| self.explain("removing", path, error))
    }

    fn explain(&self, doing: &str, path: &str, error: impl Into<Error>) -> Error {
        error.into().context(format!("{doing} `{path}` of directory `{}`", self.name))
    }
}

/// A file of a directory, as a stream. It reads a mebibyte ahead. It cannot seek from the end.
pub struct FileReader(Stream<File>);

/// A path, read at any offset.
struct File {
    directory: Directory,
    path: String,
}

impl Source for File {
    fn read_at(&mut self, offset: u64, max: u32) -> HostResult<Vec<u8>> {
        self.directory.granted.read(&self.path, offset, max)
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

reads_its_stream!(FileReader);

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// A staged file, as a stream.
pub struct FileWriter {
    directory: Directory,
    path: String,
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let amount = bytes.len().min(CALL_BYTES_MAX);
        self.directory.granted.append(&self.path, &bytes[..amount])?;
        Ok(amount)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
