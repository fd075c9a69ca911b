//! Text that a guest wrote and a person will read: cut to a length, and unable to steer a terminal.
//!
//! Meaning is not touched: what is printable stays, in every script.

/// The longest prefix of at most `bytes_max` bytes that does not cut a character.
pub fn truncate(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Replaces what a terminal would obey or what would hide other text: control characters of both sets, among them
/// the escape and the line feed, and the marks that change the direction of text.
pub fn neutralise(text: &str) -> String {
    text.chars().map(neutral).collect()
}

fn neutral(c: char) -> char {
    match c {
        '\t' => ' ',
        // Each has a picture of its own: the escape is shown as ␛.
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        '\u{80}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
        // Marks, embeddings, overrides and isolates of direction, and separators that end a line.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        '\u{2028}' | '\u{2029}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// A message of a guest as it is kept: neutral, at most `bytes_max` bytes, its lines still lines.
pub fn message(text: &str, bytes_max: usize) -> String {
    let lines = truncate(text, bytes_max).lines().map(neutralise);
    let neutral = lines.collect::<Vec<_>>().join("\n");
    truncate(&neutral, bytes_max).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_direction_marks_are_shown_not_obeyed() {
        let check = |text: &str, expected: &str| assert_eq!(neutralise(text), expected);
        check("\x1b[2Jhidden\x07", "␛[2Jhidden␇");
        check("a\r\nb\tc\x7f", "a␍␊b c␡");
        check("\u{9b}31m", "\u{fffd}31m");
        check("user\u{202e}nimda\u{2066}", "user\u{fffd}nimda\u{fffd}");
        check("naïve 日本語 ✓ עברית", "naïve 日本語 ✓ עברית");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("aé", 3), "aé");
        assert_eq!(truncate("", 0), "");
        assert_eq!(message(&"\x1b".repeat(10), 10).len(), 9);
    }

    #[test]
    fn a_message_keeps_its_lines() {
        assert_eq!(message("first\nsecond\x1b", 100), "first\nsecond␛");
    }
}
