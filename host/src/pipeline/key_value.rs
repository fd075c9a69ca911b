//! Buckets of keys and values: what a resource allows, what a grant narrows it to, and how a counter is written.

use serde::{Deserialize, Serialize};

use super::resource::Access;
use crate::limit::KEY_BYTES_MAX;

/// A bucket, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketResource {
    /// The most that any grant of it may allow.
    pub access: Access,
    /// What it may hold.
    pub bounds: BucketBounds,
}

/// What a bucket may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketBounds {
    /// Keys.
    pub keys: u64,
    /// Bytes of one value.
    pub value_bytes: u64,
    /// Bytes of all keys and values together.
    pub bytes: u64,
}

/// An asset's right to one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketGrant {
    /// The resource's name.
    pub resource: String,
    /// What may be done.
    pub access: Access,
    /// Keys, or prefixes that end with `**`, at least one; what none names is denied.
    pub keys: Vec<String>,
    /// Keys that one attempt may write.
    pub writes: u64,
    /// Bytes of keys and values that one attempt may write.
    pub write_bytes: u64,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyWrite {
    /// It has this value.
    Set(Vec<u8>),
    /// It goes.
    Remove,
    /// Its number grows.
    Add {
        /// By this.
        delta: i64,
        /// The key as a person may see it, for when its value is no number.
        shown: String,
    },
}

/// The keys that a grant names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPatterns(Vec<KeyRange>);

/// Keys that are next to each other in bytewise order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyRange {
    /// This one.
    Key(String),
    /// All that begin so.
    Prefix(String),
}

impl KeyRange {
    /// What is written of them in a manifest.
    pub fn parse(pattern: &str) -> Self {
        match pattern.strip_suffix(EVERYTHING) {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Key(pattern.to_owned()),
        }
    }

    /// No key of it is before this.
    pub fn first(&self) -> &str {
        match self {
            Self::Key(key) => key,
            Self::Prefix(prefix) => prefix,
        }
    }

    /// Whether it has this key.
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }

    /// Whether it has keys after this one.
    pub fn goes_beyond(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own.as_str() > key,
            // Of all keys with a prefix, none is the last.
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()) || prefix.as_str() > key,
        }
    }

    /// What it has of the keys with a prefix.
    fn within(&self, prefix: &str) -> Option<Self> {
        if self.first().starts_with(prefix) {
            return Some(self.clone());
        }
        self.has(prefix).then(|| Self::Prefix(prefix.to_owned()))
    }
}

const EVERYTHING: &str = "**";

impl KeyPatterns {
    /// Of a grant's list.
    pub fn new(patterns: &[String]) -> Self {
        let mut ranges: Vec<KeyRange> = patterns.iter().map(|pattern| KeyRange::parse(pattern)).collect();
        // A prefix before the key that is written the same: what it covers comes after it.
        ranges.sort_by(|one, other| (one.first(), other).cmp(&(other.first(), one)));
        let mut kept: Vec<KeyRange> = Vec::new();
        for range in ranges {
            let covered = kept.last().is_some_and(|last| match last {
                KeyRange::Prefix(prefix) => range.first().starts_with(prefix.as_str()),
                KeyRange::Key(_) => *last == range,
            });
            if !covered {
                kept.push(range);
            }
        }
        Self(kept)
    }

    /// Whether they name this key.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|range| range.has(key))
    }

    /// What they name of the keys with a prefix, in order, no key twice.
    pub fn within(&self, prefix: &str) -> Vec<KeyRange> {
        self.0.iter().filter_map(|range| range.within(prefix)).collect()
    }
}

/// Why a pattern could never name a key, and the fix.
pub fn pattern_mistake(pattern: &str) -> Option<(String, &'static str)> {
    let range = KeyRange::parse(pattern);
    let named = range.first();
    if pattern.is_empty() {
        return Some(("names no key".to_owned(), "write a key, or a prefix and \"**\"; \"**\" is every key"));
    }
    if named.contains('*') {
        return Some(("has a `*` that stands for nothing".to_owned(), "only \"**\" at the end stands for any rest"));
    }
    if named.len() > KEY_BYTES_MAX || named.contains('\0') {
        let message = format!("can name no key: these have at most {KEY_BYTES_MAX} bytes and no NUL");
        return Some((message, "shorten it"));
    }
    None
}

/// Why this can be no key.
pub fn key_mistake(key: &str) -> Option<String> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Some(format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len()));
    }
    key.contains('\0').then(|| "a key holds no NUL".to_owned())
}

/// Why a counter cannot be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterError {
    /// Its value is another text, or none.
    #[error("its value is not the decimal text of a 64-bit integer")]
    NotANumber,
    /// The sum has no place in 64 bits.
    #[error("the sum is out of the range of a 64-bit integer")]
    OutOfRange,
}

/// A counter's value and some more; nothing counts as 0.
pub fn add(value: Option<&[u8]>, delta: i64) -> Result<i64, CounterError> {
    let number = match value {
        None => 0,
        Some(text) => {
            std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(CounterError::NotANumber)?
        }
    };
    number.checked_add(delta).ok_or(CounterError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> KeyPatterns {
        KeyPatterns::new(&list.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pattern_names_a_key_or_all_that_begin_with_it() {
        let named = patterns(&["orders/**", "total", "a/b"]);
        for key in ["orders/", "orders/1", "orders/1/x", "total", "a/b"] {
            assert!(named.has(key), "{key}");
        }
        for key in ["orders", "order/1", "totals", "tota", "a", "a/b/c", "", "ORDERS/1"] {
            assert!(!named.has(key), "{key}");
        }
        assert!(patterns(&["**"]).has("anything"));
        assert!(!patterns(&[]).has("anything"));
    }

    #[test]
    fn ranges_are_in_order_and_no_key_is_in_two() {
        let key = |text: &str| KeyRange::Key(text.to_owned());
        let prefix = |text: &str| KeyRange::Prefix(text.to_owned());
        let named = patterns(&["b/**", "b/1/**", "b/**", "c", "b/2", "c", "a", "d", "d**"]);
        assert_eq!(named.within(""), [key("a"), prefix("b/"), key("c"), prefix("d")]);
        assert_eq!(named.within("b"), [prefix("b/")]);
        assert_eq!(named.within("b/2"), [prefix("b/2")]);
        assert_eq!(named.within("c"), [key("c")]);
        assert!(named.within("cc").is_empty() && named.within("x").is_empty());
        assert_eq!(patterns(&["**", "a"]).within("a"), [prefix("a")]);
    }

    #[test]
    fn a_range_knows_what_comes_after_a_key() {
        let prefix = KeyRange::Prefix("b/".to_owned());
        assert!(prefix.goes_beyond("a") && prefix.goes_beyond("b/") && prefix.goes_beyond("b/zzz"));
        assert!(!prefix.goes_beyond("b0") && !prefix.goes_beyond("c"));
        let key = KeyRange::Key("b".to_owned());
        assert!(key.goes_beyond("a") && !key.goes_beyond("b") && !key.goes_beyond("c"));
    }

    #[test]
    fn patterns_that_can_name_nothing_are_mistakes() {
        for sound in ["a", "a/**", "**", "ü/**"] {
            assert_eq!(pattern_mistake(sound), None, "{sound}");
        }
        for other in ["", "*", "a*", "a*/b", "***", "a/**/b", "a\0", &"x".repeat(KEY_BYTES_MAX + 1)] {
            assert!(pattern_mistake(other).is_some(), "{other}");
        }
    }

    #[test]
    fn counters_are_decimal_text() {
        assert_eq!(add(None, -3), Ok(-3));
        assert_eq!(add(Some(b"40"), 2), Ok(42));
        assert_eq!(add(Some(b"-9223372036854775808"), 1), Ok(i64::MIN + 1));
        for text in ["", " 1", "1.0", "0x1", "1e3", "9223372036854775808", "one", "\u{0661}"] {
            assert_eq!(add(Some(text.as_bytes()), 1), Err(CounterError::NotANumber), "{text}");
        }
        assert_eq!(add(Some(&[0xff]), 1), Err(CounterError::NotANumber));
        assert_eq!(add(Some(b"9223372036854775807"), 1), Err(CounterError::OutOfRange));
        assert_eq!(add(Some(b"-1"), i64::MIN), Err(CounterError::OutOfRange));
    }
}
