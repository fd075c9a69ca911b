//! What is wrong with a manifest or a component's description: the place, the offending key, why, and the fix.
//!
//! Collects, never prints; the order is the order in which things stand in the file.

use std::fmt;

use crate::limit::{DIAGNOSTICS_MAX, NAME_BYTES_MAX};

/// One mistake of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The manifest or the component, as the user named it.
    pub file: String,
    /// Where in the file; absent where the mistake has no line, as in a component.
    pub place: Option<Place>,
    /// The dotted key, or the asset; empty when the whole file is meant.
    pub key: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it; absent when the message says it all.
    pub fix: Option<String>,
}

/// A place in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The list as it is answered: at most [`DIAGNOSTICS_MAX`], and then how many were left out.
pub(super) fn bounded(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let more = diagnostics.len().saturating_sub(DIAGNOSTICS_MAX);
    if more > 0 {
        diagnostics.truncate(DIAGNOSTICS_MAX);
        let file = diagnostics[0].file.clone();
        let message = format!("and {more} more mistakes; mend these first");
        diagnostics.push(Diagnostic { file, place: None, key: String::new(), message, fix: None });
    }
    diagnostics
}

/// The candidate that was probably meant, if any is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances are quadratic in the lengths, and a hostile name may be a megabyte.
    if name.len() > 2 * NAME_BYTES_MAX {
        return None;
    }
    let near = |candidate: &str| 1 + name.len().min(candidate.len()) / 4;
    candidates
        .into_iter()
        // Most candidates are ruled out by their length: distances are what takes the time among ten thousand names.
        .filter(|candidate| name.len().abs_diff(candidate.len()) <= near(candidate))
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?" for the nearest candidate.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Untrusted text as it may stand in a message: cut to a name's length, with control characters and invisible ones
/// escaped.
pub fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(NAME_BYTES_MAX)
        .flat_map(|c| if c == '\'' || c == '"' || c == '\\' { vec![c] } else { c.escape_debug().collect() })
        .collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["raw_weather", "clean_weather", "x"];
        assert_eq!(nearest("raw_wether", names), Some("raw_weather"));
        assert_eq!(nearest("y", names), Some("x"));
        assert_eq!(nearest("monthly", names), None);
        assert_eq!(nearest(&"raw_weather".repeat(100_000), names), None);
    }

    #[test]
    fn untrusted_text_is_shown_short_and_without_terminal_escapes() {
        assert_eq!(shown("a\u{1b}[2J\nb"), r"a\u{1b}[2J\nb");
        assert_eq!(shown("\u{202e}x"), r"\u{202e}x");
        assert_eq!(shown(&"x".repeat(1 << 20)), format!("{}...", "x".repeat(NAME_BYTES_MAX)));
        assert_eq!(shown("it's \"é\""), "it's \"é\"");
    }

    #[test]
    fn a_long_list_of_mistakes_is_cut_and_says_so() {
        let one = Diagnostic { file: "f".into(), place: None, key: "k".into(), message: "m".into(), fix: None };
        let answer = bounded(vec![one; DIAGNOSTICS_MAX + 7]);
        assert_eq!(answer.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(answer[DIAGNOSTICS_MAX].to_string(), "f: and 7 more mistakes; mend these first");
    }
}
