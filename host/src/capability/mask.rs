//! Secrets in what a guest says: replaced by their names before anything is cut, stored or shown.
//!
//! Against accidents, not against will: a guest that was shown a secret can write it in another alphabet. Whoever must
//! not have it must not be granted it.

use std::{borrow::Cow, sync::Arc};

use zeroize::Zeroizing;

use crate::{limit::MASKED_BYTES_MIN, secret::SecretValue};

/// The secrets that an attempt could know.
#[derive(Clone, Debug, Default)]
pub struct Masks(Arc<[Mask]>);

struct Mask {
    text: Zeroizing<String>,
    instead: String,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.instead)
    }
}

impl Masks {
    /// Of these secrets, by name. Of one with several lines each line counts as well; what is shorter than
    /// [`MASKED_BYTES_MIN`] would hide ordinary words, and is let through.
    pub fn of<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a SecretValue)>) -> Self {
        let mut masks: Vec<Mask> = Vec::new();
        for (name, value) in secrets {
            // What is no text cannot stand in text.
            let Ok(text) = std::str::from_utf8(value.expose()) else { continue };
            let whole = std::iter::once(text.trim_end_matches(['\r', '\n']));
            for text in whole.chain(text.lines()).filter(|text| text.len() >= MASKED_BYTES_MIN) {
                masks.push(Mask { text: Zeroizing::new(text.to_owned()), instead: format!("[secret {name}]") });
            }
        }
        // The whole before its lines.
        masks.sort_by(|one, other| (other.text.len(), other.text.as_str()).cmp(&(one.text.len(), one.text.as_str())));
        masks.dedup_by(|one, other| one.text == other.text);
        Self(masks.into())
    }

    /// The text without the secrets. What the text ends in the middle of counts too: it may have been cut.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for mask in self.0.iter() {
            if masked.contains(mask.text.as_str()) {
                masked = Cow::Owned(masked.replace(mask.text.as_str(), &mask.instead));
            }
            if let Some(begun) = begun_at_the_end(&masked, &mask.text) {
                let kept = masked.len() - begun;
                masked = Cow::Owned(format!("{}{}", &masked[..kept], mask.instead));
            }
        }
        masked
    }

    /// The same, in place.
    pub fn apply_to(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.apply(text) {
            *text = masked;
        }
    }
}

/// How many bytes of the secret's beginning the text ends with, if they are enough to mask.
fn begun_at_the_end(text: &str, secret: &str) -> Option<usize> {
    (MASKED_BYTES_MIN..secret.len())
        .rev()
        .find(|length| secret.is_char_boundary(*length) && text.ends_with(&secret[..*length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(secret: &str, text: &str, expected: &str) {
        let value = SecretValue::new(secret.into());
        assert_eq!(Masks::of([("token", &value)]).apply(text), expected);
    }

    #[test]
    fn a_secret_is_replaced_wherever_it_stands() {
        check(
            "hunter2!",
            "the token is hunter2!, hunter2!hunter2!",
            "the token is [secret token], [secret token][secret token]",
        );
        check("hunter2!", "the token is hunter 2", "the token is hunter 2");
        check("pässwörd", "ein pässwörd", "ein [secret token]");
    }

    #[test]
    fn a_secret_that_was_cut_is_replaced_too() {
        check("hunter2!", "the token is hunt", "the token is [secret token]");
        check("hunter2!", "the token is hun", "the token is hun");
        check("ääääää", "x ääää", "x [secret token]");
    }

    #[test]
    fn each_line_of_a_key_is_a_secret() {
        check("-----BEGIN\nc2VjcmV0\n", "a c2VjcmV0 b", "a [secret token] b");
        check("-----BEGIN\nc2VjcmV0\n", "x -----BEGIN\nc2VjcmV0 y", "x [secret token] y");
    }

    #[test]
    fn of_secrets_that_hold_each_other_the_longer_goes_first() {
        let (long, short) = (SecretValue::new(b"hunter2-live".into()), SecretValue::new(b"hunter2".into()));
        let masks = Masks::of([("short", &short), ("long", &long)]);
        assert_eq!(masks.apply("hunter2-live hunter2 x"), "[secret long] [secret short] x");
        assert_eq!(format!("{masks:?}"), "Masks([[secret long], [secret short]])");
    }

    #[test]
    fn what_would_hide_ordinary_words_is_let_through() {
        check("ab", "abab", "abab");
        check("\u{0}", "\u{0}", "\u{0}");
        let binary = SecretValue::new(vec![0xff; 32]);
        assert_eq!(Masks::of([("key", &binary)]).apply("anything"), "anything");
    }
}
