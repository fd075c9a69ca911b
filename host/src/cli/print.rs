//! The only writer to stdout, and what makes foreign text harmless on its way to a terminal.
//!
//! Stdout is data: text, JSON, the bytes of an output. Stderr is talk: what goes on, and errors. Whatever leaves as
//! text passes [`neutral`] here, whoever wrote it, so that no command can forget; text that must stay on one line
//! passes [`one_line`] where the line is made. Deliberately without colours: then there is no escape to let through.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;

use crate::limit::TABLE_WIDTH_MIN;

/// The reader of stdout has gone: nobody wants the rest. Not a failure; the program ends quietly.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub struct Closed;

/// Stdout cannot be written, for another reason than that its reader has gone.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
pub struct NotWritten(#[source] io::Error);

/// Writes text as it is meant: line feeds are line feeds, everything else that a terminal would obey is shown instead.
pub fn text(text: &str) -> anyhow::Result<()> {
    written(out(neutral(text).as_bytes()))
}

/// Writes a value as indented JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    written(out(format!("{}\n", neutral_json(&text)).as_bytes()))
}

/// Writes a value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    written(out(format!("{}\n", neutral_json(&text)).as_bytes()))
}

/// Stdout for an output's bytes, which are what they are. See [`TerminalCheck`] for a terminal.
pub fn bytes() -> impl Write + Send {
    io::stdout()
}

/// Writes what `bytes` still holds.
pub fn flushed() -> anyhow::Result<()> {
    written(io::stdout().flush())
}

/// Turns an error of `bytes` into [`Closed`] where it is that.
pub fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        Err(error) => Err(NotWritten(error).into()),
    }
}

fn out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Whether a person looks at stdout.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What goes on, told on stderr unless it was asked to be quiet; above the progress bars while there are any.
#[derive(Clone, Debug)]
pub struct Talk {
    quiet: bool,
    bars: MultiProgress,
}

impl Talk {
    /// A quiet one tells nothing.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()) }
    }

    /// One sentence, or some lines.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.bars.suspend(|| complain(text.as_ref()));
        }
    }

    /// Whether a person looks at stderr.
    pub fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Where progress bars are drawn: nowhere, unless a person looks at stderr and wants to.
    pub fn show_bars(&self) -> Option<&MultiProgress> {
        let wanted = !self.quiet && self.is_terminal();
        wanted.then(|| {
            self.bars.set_draw_target(ProgressDrawTarget::stderr());
            &self.bars
        })
    }

    /// Stderr for traces, which go above the bars too.
    pub fn traces(&self) -> impl Fn() -> Traces + Send + Sync + 'static {
        let bars = self.bars.clone();
        move || Traces(bars.clone())
    }
}

/// See [`Talk::traces`].
pub struct Traces(MultiProgress);

impl Write for Traces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What went wrong, on stderr whatever was asked for.
pub fn complain(text: &str) {
    // Nobody reads it: there is nowhere left to say so.
    let _unread = writeln!(io::stderr(), "{}", neutral(text.trim_end_matches('\n')));
}

/// Text that cannot steer a terminal or hide other text, whoever wrote it; lines stay lines.
pub fn neutral(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c != '\n' && is_steering(c))
}

/// The same on one line: a line feed is shown too, so that nobody can forge the line after.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, is_steering)
}

fn replaced(text: &str, is_replaced: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_replaced) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_replaced(c) { picture(c) } else { c }).collect())
}

/// Control characters of both sets, marks that change the direction of text, separators that end a line, and the
/// byte order mark, which has no width.
fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What is shown instead: each of the first 32 has a picture of its own, the escape is `␛`.
fn picture(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// JSON escapes the first control characters itself; the others are in strings only, where an escape means the same.
fn neutral_json(text: &str) -> Cow<'_, str> {
    let is_steering = |c: char| c != '\n' && is_steering(c);
    if !text.contains(is_steering) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| if is_steering(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

/// Looks at bytes instead of writing them: whether a terminal would show them, and nothing else.
#[derive(Debug, Default)]
pub struct TerminalCheck {
    /// The beginning of a character whose rest has not come.
    partial: Vec<u8>,
    harmful: bool,
    last: Option<u8>,
}

impl TerminalCheck {
    /// Whether all bytes so far are text without anything that a terminal would obey, but for line feeds, carriage
    /// returns before them and tabs.
    pub fn is_text(&self) -> bool {
        !self.harmful && self.partial.is_empty()
    }

    /// Whether the cursor would be left in the middle of a line.
    pub fn leaves_a_line_open(&self) -> bool {
        self.last.is_some_and(|last| last != b'\n')
    }
}

impl Write for TerminalCheck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.harmful {
            return Ok(bytes.len());
        }
        self.last = bytes.last().copied().or(self.last);
        let mut pending = std::mem::take(&mut self.partial);
        pending.extend_from_slice(bytes);
        let (text, rest) = match std::str::from_utf8(&pending) {
            Ok(text) => (text, 0),
            Err(error) if error.error_len().is_none() => {
                let valid = error.valid_up_to();
                (std::str::from_utf8(&pending[..valid]).unwrap_or_default(), pending.len() - valid)
            }
            Err(_) => {
                self.harmful = true;
                return Ok(bytes.len());
            }
        };
        self.harmful = text.contains(|c| !matches!(c, '\n' | '\r' | '\t') && is_steering(c));
        self.partial = pending[pending.len() - rest..].to_vec();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A column of a [`table`].
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Words: to the left.
    Text(&'static str),
    /// Figures: to the right.
    Number(&'static str),
}

/// Rows as an aligned table: with lines on a terminal, and without otherwise, one row a line, for other programs.
pub fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>, terminal: bool) -> String {
    let mut table = Table::new();
    if terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        // A terminal that does not tell its width, or hardly has any, would break every word.
        if table.width().is_some_and(|width| width >= TABLE_WIDTH_MIN) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
    } else {
        table.load_style(presets::NOTHING).force_no_tty();
    }
    table.set_header(columns.iter().map(|(Column::Text(title) | Column::Number(title))| *title));
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell).into_owned()));
    }
    for (column, made) in columns.iter().zip(table.column_iter_mut()) {
        if !terminal {
            made.set_padding((0, 2));
        }
        if matches!(column, Column::Number(_)) {
            made.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Rows of two columns, the first as wide as its widest cell.
pub fn table_rows(rows: impl IntoIterator<Item = [String; 2]>) -> Vec<String> {
    let rows: Vec<[String; 2]> = rows.into_iter().map(|row| row.map(|cell| one_line(&cell).into_owned())).collect();
    let width = rows.iter().map(|[first, _]| first.chars().count()).max().unwrap_or(0);
    rows.iter().map(|[first, second]| format!("{first:<width$}  {second}").trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(one_line(text), expected);
        check("\x1b[2J\x1b]0;owned\x07", "␛[2J␛]0;owned␇");
        check("first\r\nforged", "first␍␊forged");
        check("\u{9b}31m \x7f", "\u{fffd}31m ␡");
        check("user\u{202e}nimda\u{2066}\u{feff}", "user\u{fffd}nimda\u{fffd}\u{fffd}");
        check("naïve 日本語 ✓ עברית\ttab", "naïve 日本語 ✓ עברית tab");
        assert_eq!(neutral("two\nlines\x1b"), "two\nlines␛");
    }

    #[test]
    fn json_is_escaped_and_means_the_same() {
        let value = serde_json::json!({ "cause": "\x1b[2J\u{9b}\u{202e}\x7f é\n" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = neutral_json(&text);
        assert!(!escaped.contains(|c: char| c != '\n' && is_steering(c)), "{escaped:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[track_caller]
    fn check_terminal(pieces: &[&[u8]], expected: bool) {
        let mut check = TerminalCheck::default();
        for piece in pieces {
            check.write_all(piece).unwrap();
        }
        assert_eq!(check.is_text(), expected);
    }

    #[test]
    fn only_text_goes_to_a_terminal() {
        check_terminal(&[b"date,value\r\n2012-01-01\t3\n"], true);
        check_terminal(&["caf\u{e9}".as_bytes(), b"\n"], true);
        // A character may be cut between two writes, not at the end.
        check_terminal(&[b"caf\xc3", b"\xa9"], true);
        check_terminal(&[b"caf\xc3"], false);
        check_terminal(&[b"\x1b[2J"], false);
        check_terminal(&[b"good", b"\0bad", b"good"], false);
        check_terminal(&[b"\xff\xfe"], false);
        check_terminal(&[], true);
    }

    #[test]
    fn an_open_line_is_noticed() {
        let open = |bytes: &[u8]| {
            let mut check = TerminalCheck::default();
            check.write_all(bytes).unwrap();
            check.leaves_a_line_open()
        };
        assert!(open(b"a\nb"));
        assert!(!open(b"a\n") && !open(b""));
    }

    #[test]
    fn a_cell_is_one_line_whatever_is_in_it() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["b\nforged\x1b".into(), "1000".into()]];
        insta::assert_snapshot!(table(&[Column::Text("asset"), Column::Number("jobs")], rows, false), @"
        asset      jobs
        a             1
        b␊forged␛  1000
        ");
    }

    #[test]
    fn a_reader_that_has_gone_is_not_a_failure() {
        let gone = written(Err(io::ErrorKind::BrokenPipe.into())).unwrap_err();
        assert!(gone.is::<Closed>());
        let full = written(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(full.is::<NotWritten>());
    }
}
