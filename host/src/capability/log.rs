//! `flowstone:asset/log`, and the guest's standard output and error: what the asset says. Always there.
//!
//! Lines are kept in memory up to the asset's log limit and stored with the attempt; after the first that does not
//! fit, all are counted and dropped. What is kept cannot steer a terminal.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use wasmtime_wasi::{
    async_trait,
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use super::{
    Masks,
    text::{neutralise, truncate},
};
use crate::{
    bindings::flowstone::asset::{log, types},
    limit::{
        FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX, FIELDS_MAX, LOG_LINE_BYTES_MAX, LOG_LINE_OVERHEAD_BYTES,
        STREAM_WRITE_BYTES_MAX,
    },
    pipeline::asset::Field,
};

/// What an attempt said.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lines {
    /// The first ones, in order.
    pub lines: Vec<Line>,
    /// How many came after the limit was reached.
    pub dropped: u64,
}

/// One line, harmless to print.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// Without line feeds.
    pub message: String,
    /// Named values; `stream` is `stdout` or `stderr` for what was printed.
    pub fields: Vec<Field>,
}

impl Line {
    /// About how many it takes where it is stored.
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|field| LINE_BYTES + field.name.len() + field.value.len());
        LINE_BYTES + self.message.len() + fields.sum::<usize>()
    }
}

/// What a line takes beside its message, and a field beside its name and value: the names and marks of JSON.
const LINE_BYTES: usize = 64;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever mends the asset.
    Debug,
    /// What happened.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
}

impl Level {
    /// The word of the WIT package.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The log of one attempt; clones write to the same. It keeps nothing before it is opened.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: Lines,
    bytes_left: u64,
    masks: Masks,
    opened_at: Option<Instant>,
}

impl Log {
    /// Lets a log that keeps nothing yet keep about this many bytes, none of them of a masked secret.
    pub fn open(self, bytes_max: u64, masks: Masks) -> Self {
        *self.kept() = Kept { lines: Lines::default(), bytes_left: bytes_max, masks, opened_at: Some(Instant::now()) };
        self
    }

    /// Whether it was opened so long ago, or longer.
    pub fn is_open_since(&self, wait: Duration) -> bool {
        self.kept().opened_at.is_some_and(|opened_at| opened_at.elapsed() >= wait)
    }

    /// Lines after the first so many: at least the next one if it is there, and of more about this many bytes.
    pub fn lines_from(&self, first: usize, bytes_max: usize) -> Vec<Line> {
        let kept = self.kept();
        let mut room = bytes_max;
        let fits = |line: &&Line| {
            let is_room = room > 0;
            room = room.saturating_sub(line.bytes());
            is_room
        };
        kept.lines.lines.iter().skip(first).take_while(fits).cloned().collect()
    }

    /// What was said so far.
    pub fn take(&self) -> Lines {
        std::mem::take(&mut self.kept().lines)
    }

    /// A stream of the guest whose lines go to this log.
    pub fn stream(&self, level: Level, name: &'static str) -> LogStream {
        LogStream { log: self.clone(), level, name, partial: Vec::new() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic between two pushes leaves a log that is shorter, not wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_full(&self) -> bool {
        self.lines.dropped > 0
    }

    /// Keeps one line, or counts it.
    fn push(&mut self, level: Level, message: &str, fields: Vec<Field>) {
        let message = neutralise(truncate(message, LOG_LINE_BYTES_MAX));
        let text = message.len() + fields.iter().map(|field| field.name.len() + field.value.len()).sum::<usize>();
        let bytes = text as u64 + LOG_LINE_OVERHEAD_BYTES;
        if self.is_full() || bytes > self.bytes_left {
            self.lines.dropped += 1;
            return;
        }
        self.bytes_left -= bytes;
        self.lines.lines.push(Line { level, message, fields });
    }
}

impl log::Host for Log {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<types::Field>) -> wasmtime::Result<()> {
        let masks = {
            let mut kept = self.kept();
            if kept.is_full() {
                kept.lines.dropped += 1;
                return Ok(());
            }
            kept.masks.clone()
        };
        // Before anything is cut: half a secret is one too. And apart from the lock: a message may be long.
        let message = masks.apply(&message);
        // Fields belong to the write: its first line has them.
        let mut fields = fields.iter().take(FIELDS_MAX).map(|field| neutral_field(field, &masks)).collect();
        let mut kept = self.kept();
        for line in message.split('\n') {
            kept.push(level.into(), line, std::mem::take(&mut fields));
            if kept.is_full() {
                break;
            }
        }
        Ok(())
    }
}

fn neutral_field(field: &types::Field, masks: &Masks) -> Field {
    Field {
        name: neutralise(truncate(&masks.apply(&field.name), FIELD_NAME_BYTES_MAX)),
        value: neutralise(truncate(&masks.apply(&field.value), FIELD_VALUE_BYTES_MAX)),
    }
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Trace => Self::Trace,
            log::Level::Debug => Self::Debug,
            log::Level::Info => Self::Info,
            log::Level::Warn => Self::Warn,
            log::Level::Error => Self::Error,
        }
    }
}

/// Standard output or error of a guest: each line of it becomes a line of the log. Never full, never slow.
pub struct LogStream {
    log: Log,
    level: Level,
    name: &'static str,
    /// What came after the last line feed, at most one line long.
    partial: Vec<u8>,
}

impl LogStream {
    fn push_line(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let field = Field { name: "stream".into(), value: self.name.into() };
        let mut kept = self.log.kept();
        let line = kept.masks.apply(&String::from_utf8_lossy(&bytes)).into_owned();
        kept.push(self.level, &line, vec![field]);
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > STREAM_WRITE_BYTES_MAX {
            return Err(StreamError::trap("more bytes written than were permitted"));
        }
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = LOG_LINE_BYTES_MAX - self.partial.len();
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                self.push_line();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl Drop for LogStream {
    /// What a guest printed last need not end in a line feed.
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.push_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use log::Host as _;

    use super::*;
    use crate::secret::SecretValue;

    fn messages(lines: &Lines) -> Vec<&str> {
        lines.lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn lines_are_kept_in_order_with_level_and_fields() {
        let mut log = Log::default().open(1_000, Masks::default());
        let fields = vec![types::Field { name: "rows".into(), value: "3\x1b".into() }];
        log.write(log::Level::Warn, "first\nsecond".into(), fields).unwrap();
        let lines = log.take();
        assert_eq!(messages(&lines), ["first", "second"]);
        assert_eq!(lines.lines[0].level, Level::Warn);
        assert_eq!(lines.lines[0].fields, [Field { name: "rows".into(), value: "3␛".into() }]);
        assert!(lines.lines[1].fields.is_empty());
    }

    #[test]
    fn what_is_said_can_be_read_meanwhile_part_by_part() {
        let mut log = Log::default().open(1_000, Masks::default());
        for message in ["one", "two", "three"] {
            log.write(log::Level::Info, message.into(), vec![]).unwrap();
        }
        let read = |first, bytes_max| -> Vec<String> {
            log.lines_from(first, bytes_max).into_iter().map(|line| line.message).collect()
        };
        assert_eq!(read(0, usize::MAX), ["one", "two", "three"]);
        assert_eq!(read(1, 1), ["two"]);
        assert_eq!(read(1, LINE_BYTES + 4), ["two", "three"]);
        assert!(read(3, usize::MAX).is_empty() && read(0, 0).is_empty());
        assert_eq!(log.take().lines.len(), 3);
    }

    #[test]
    fn a_terminal_cannot_be_steered() {
        let mut log = Log::default().open(1_000, Masks::default());
        log.write(log::Level::Info, "\x1b]0;owned\x07\r\u{202e}".into(), vec![]).unwrap();
        assert_eq!(messages(&log.take()), ["␛]0;owned␇␍\u{fffd}"]);
    }

    #[test]
    fn past_the_limit_lines_are_counted_and_dropped() {
        let mut log = Log::default().open(3 * (LOG_LINE_OVERHEAD_BYTES + 4), Masks::default());
        for _ in 0..10 {
            log.write(log::Level::Info, "1234".into(), vec![]).unwrap();
        }
        log.write(log::Level::Info, String::new(), vec![]).unwrap();
        let lines = log.take();
        assert_eq!((lines.lines.len(), lines.dropped), (3, 8));
    }

    #[test]
    fn empty_lines_fill_a_log_too() {
        let mut log = Log::default().open(10 * LOG_LINE_OVERHEAD_BYTES, Masks::default());
        log.write(log::Level::Info, "\n".repeat(1_000_000), vec![]).unwrap();
        let lines = log.take();
        assert_eq!((lines.lines.len(), lines.dropped), (10, 1));
    }

    #[test]
    fn long_lines_are_cut() {
        let mut log = Log::default().open(u64::MAX, Masks::default());
        log.write(log::Level::Info, "é".repeat(LOG_LINE_BYTES_MAX), vec![]).unwrap();
        assert_eq!(log.take().lines[0].message.len(), LOG_LINE_BYTES_MAX);
    }

    #[test]
    fn printed_bytes_become_lines_whatever_the_pieces() {
        let log = Log::default().open(100_000, Masks::default());
        let mut stream = log.stream(Level::Error, "stderr");
        for piece in ["one\ntw", "o\n", "\nthr", "ee"] {
            stream.write(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        stream.write(Bytes::from_static(b"\xff")).unwrap();
        drop(stream);
        let lines = log.take();
        assert_eq!(messages(&lines), ["one", "two", "", "three\u{fffd}"]);
        assert_eq!(lines.lines[0].level, Level::Error);
        assert_eq!(lines.lines[0].fields, [Field { name: "stream".into(), value: "stderr".into() }]);
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let log = Log::default().open(1_000_000, Masks::default());
        let mut stream = log.stream(Level::Info, "stdout");
        for _ in 0..1_000 {
            stream.write(Bytes::from(vec![b'x'; STREAM_WRITE_BYTES_MAX])).unwrap();
        }
        assert!(stream.partial.capacity() <= 2 * LOG_LINE_BYTES_MAX);
        assert!(stream.write(Bytes::from(vec![b'x'; STREAM_WRITE_BYTES_MAX + 1])).is_err());
    }

    #[test]
    fn a_secret_is_masked_in_messages_fields_and_streams_wherever_a_line_is_cut() {
        let value = SecretValue::new(b"hunter2-hunter2".into());
        let mut log = Log::default().open(1 << 20, Masks::of([("token", &value)]));
        let field = types::Field { name: "hunter2-hunter2".into(), value: "is hunter2-hunter2".into() };
        log.write(log::Level::Info, "it is hunter2-hunter2\nand again hunter2-hunter2".into(), vec![field]).unwrap();
        let filler = "x".repeat(LOG_LINE_BYTES_MAX - 8);
        log.write(log::Level::Info, format!("{filler}hunter2-hunter2"), vec![]).unwrap();
        let mut stream = log.stream(Level::Info, "stdout");
        stream.write(Bytes::from(format!("hunter2-hunter2\n{filler}hunter2-hunter2\n"))).unwrap();
        let lines = log.take().lines;
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0].message, "it is [secret token]");
        assert_eq!(lines[0].fields, [Field { name: "[secret token]".into(), value: "is [secret token]".into() }]);
        assert!(lines.iter().all(|line| !line.message.contains("hunt")), "{lines:?}");
    }
}
