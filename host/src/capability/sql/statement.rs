//! Which statements may be sent at all, by their first word.
//!
//! The first word decides what Postgres takes a statement for, and the protocol carries one statement at a time, so this
//! needs no parser. What a permitted statement may do is another matter: a function that it calls can be anything, and
//! is bounded by the transaction, the role and the look at the session after it.

/// What a statement is, by its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads, unless what it calls or a part of it writes.
    Read,
    /// Changes rows.
    Write,
}

/// The kind of a statement; or the word that it begins with, which is not permitted.
pub fn kind_of(statement: &str) -> Result<Kind, String> {
    let word = first_word(statement).to_ascii_lowercase();
    match word.as_str() {
        "select" | "values" | "table" | "with" => Ok(Kind::Read),
        "insert" | "update" | "delete" | "merge" => Ok(Kind::Write),
        _ => Err(word),
    }
}

/// What stands first after blanks, comments and opening parentheses; empty where that is no word.
fn first_word(statement: &str) -> &str {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '(']);
        rest = if let Some(line) = rest.strip_prefix("--") {
            line.find(['\n', '\r']).map_or("", |end| &line[end..])
        } else if rest.starts_with("/*") {
            after_comment(rest)
        } else {
            // As Postgres does: what is not ASCII continues a word.
            let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
            return &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())];
        };
    }
}

/// What follows a comment, which may hold others; nothing when it does not end.
fn after_comment(text: &str) -> &str {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides() {
        for statement in
            ["select 1", "  SELECT 1", "((select 1))", "values (1)", "TABLE t", "with a as (select 1) table a"]
        {
            assert_eq!(kind_of(statement), Ok(Kind::Read), "{statement}");
        }
        for statement in
            ["insert into t values (1)", "\u{b}Update t set a = 1", "delete from t", "merge into t using u on true"]
        {
            assert_eq!(kind_of(statement), Ok(Kind::Write), "{statement}");
        }
        assert_eq!(kind_of("-- commit\n/* a /* b */ commit */ select 1"), Ok(Kind::Read));
    }

    #[test]
    fn nothing_hides_the_first_word() {
        for (statement, word) in [
            ("commit", "commit"),
            ("/* select */ Commit", "commit"),
            ("--select\ncommit", "commit"),
            ("--select\rcommit", "commit"),
            ("/*/* */select*/ rollback", "rollback"),
            ("/* select", ""),
            ("-- select", ""),
            ("", ""),
            (";select 1", ""),
            ("\u{feff}select 1", "\u{feff}select"),
            ("\u{a0}select 1", "\u{a0}select"),
            ("selection", "selection"),
            ("select$x", "select$x"),
            ("\"select\" 1", ""),
            ("set role admin", "set"),
            ("explain analyze select 1", "explain"),
            ("/*/ select 1", ""),
        ] {
            assert_eq!(kind_of(statement), Err(word.to_owned()), "{statement:?}");
        }
    }

    #[test]
    fn a_statement_of_comments_without_end_is_read_once() {
        let long = "/*".repeat(1 << 16);
        assert_eq!(kind_of(&long), Err(String::new()));
        let many = "/**/".repeat(1 << 16) + "select 1";
        assert_eq!(kind_of(&many), Ok(Kind::Read));
    }
}
