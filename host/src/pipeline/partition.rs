//! Partitions: typed coordinates and their canonical text.
//!
//! The text is what identifies a partition in the database, so it is injective: two partitions that differ, even only in
//! kind (`year:2012` and `static:2012`), have different texts, and each has one text only. Which partitions an asset has
//! is [`super::keyspace`]'s business.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    asset::{Dimension, DimensionKeys, TimeUnit},
    calendar,
};

/// One coordinate: a dimension and the key on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinate {
    /// The dimension's name.
    pub dimension: String,
    /// The key on it.
    pub key: String,
}

/// Coordinates in the order in which the asset declares its dimensions; empty for an unpartitioned asset.
pub type Partition = Vec<Coordinate>;

/// The text of an unpartitioned asset's only partition. No other text is without `=`.
const UNPARTITIONED: &str = "none";

/// The kind of a key: part of the canonical text, so that a year is never taken for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// An interval of time.
    Time(TimeUnit),
    /// One of a list.
    Static,
}

impl KeyKind {
    const ALL: [Self; 6] = [
        Self::Time(TimeUnit::Hour),
        Self::Time(TimeUnit::Day),
        Self::Time(TimeUnit::Week),
        Self::Time(TimeUnit::Month),
        Self::Time(TimeUnit::Year),
        Self::Static,
    ];

    /// Of the keys along a dimension. Dynamic keys are names like static ones.
    pub fn of(keys: &DimensionKeys) -> Self {
        match keys {
            DimensionKeys::Time(time) => Self::Time(time.unit),
            DimensionKeys::Static(_) | DimensionKeys::Dynamic => Self::Static,
        }
    }

    /// As it stands in the canonical text.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Time(unit) => unit.name(),
            Self::Static => "static",
        }
    }
}

/// A partition in its canonical text: `none`, or coordinates such as `month=month:2012-01;region=static:eu` in the order
/// of the asset's dimensions. Bytes that would be ambiguous are written as `%3B`. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(Arc<str>);

/// Text that is not the canonical text of any partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the canonical text of a partition", super::diagnostic::shown(.0))]
pub struct ParsePartitionKeyError(String);

impl PartitionKey {
    /// The only partition of an unpartitioned asset.
    pub fn unpartitioned() -> Self {
        Self(UNPARTITIONED.into())
    }

    /// The canonical text of coordinates that are known to fit the dimensions, in their order.
    pub fn encode<'a>(coordinates: impl IntoIterator<Item = (&'a str, KeyKind, &'a str)>) -> Self {
        let mut text = String::new();
        for (dimension, kind, key) in coordinates {
            let separator = if text.is_empty() { "" } else { ";" };
            text.extend([separator, dimension, "=", kind.tag(), ":", &escaped(key)]);
        }
        if text.is_empty() { Self::unpartitioned() } else { Self(text.into()) }
    }

    /// The canonical text of a partition of an asset with these dimensions.
    pub fn of(partition: &Partition, dimensions: &[Dimension]) -> Self {
        let coordinates = partition.iter().zip(dimensions);
        Self::encode(coordinates.map(|(c, dimension)| (&*c.dimension, KeyKind::of(&dimension.keys), &*c.key)))
    }

    /// The coordinates with their kinds.
    pub fn decode(&self) -> Vec<(KeyKind, Coordinate)> {
        decoded(&self.0).expect("only canonical text is in a key")
    }

    /// The coordinates alone, as a guest sees them.
    pub fn partition(&self) -> Partition {
        self.decode().into_iter().map(|(_, coordinate)| coordinate).collect()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The keys as a person writes them: `2012-01`, or `month=2012-01,region=eu` where there are several; empty for the
    /// only partition of an unpartitioned asset.
    pub fn label(&self) -> String {
        match &*self.decode() {
            [(_, only)] => only.key.clone(),
            several => {
                let texts: Vec<String> = several.iter().map(|(_, c)| format!("{}={}", c.dimension, c.key)).collect();
                texts.join(",")
            }
        }
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PartitionKey {
    type Err = ParsePartitionKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decoded(text).map(|_| Self(text.into())).ok_or_else(|| ParsePartitionKeyError(text.to_owned()))
    }
}

impl Serialize for PartitionKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PartitionKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `;` ends a coordinate and `%` begins an escape; control characters would break logs. Everything else stands for itself.
fn is_reserved(byte: u8) -> bool {
    byte == b';' || byte == b'%' || byte.is_ascii_control()
}

fn escaped(key: &str) -> Cow<'_, str> {
    if !key.bytes().any(is_reserved) {
        return Cow::Borrowed(key);
    }
    let escape = |c: char| if c.is_ascii() && is_reserved(c as u8) { format!("%{:02X}", c as u8) } else { c.into() };
    Cow::Owned(key.chars().map(escape).collect())
}

fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut key = pieces.next()?.to_owned();
    for piece in pieces {
        let byte = u8::from_str_radix(piece.get(..2)?, 16).ok().filter(u8::is_ascii)?;
        key.push(byte.into());
        key.push_str(piece.get(2..)?);
    }
    // One text for each key: an escape that was not needed, or in another case, is refused.
    (escaped(&key) == text).then_some(key)
}

fn decoded(text: &str) -> Option<Vec<(KeyKind, Coordinate)>> {
    if text == UNPARTITIONED {
        return Some(Vec::new());
    }
    text.split(';').map(decoded_coordinate).collect()
}

fn decoded_coordinate(text: &str) -> Option<(KeyKind, Coordinate)> {
    let (dimension, key) = text.split_once('=')?;
    let (tag, key) = key.split_once(':')?;
    let kind = KeyKind::ALL.into_iter().find(|kind| kind.tag() == tag)?;
    let key = unescaped(key)?;
    let sound = match kind {
        KeyKind::Time(unit) => calendar::parse_key(unit, &key).is_some(),
        KeyKind::Static => !key.is_empty(),
    };
    let named = super::definition::is_name(dimension);
    (sound && named).then(|| (kind, Coordinate { dimension: dimension.to_owned(), key }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes, compares with the expected text, and proves that decoding gives the same back.
    #[track_caller]
    fn check(coordinates: &[(&str, KeyKind, &str)], expected: &str) {
        let key = PartitionKey::encode(coordinates.iter().copied());
        assert_eq!(key.as_str(), expected);
        let decoded = key.decode();
        let decoded: Vec<_> = decoded.iter().map(|(kind, c)| (&*c.dimension, *kind, &*c.key)).collect();
        assert_eq!(decoded, coordinates);
        assert_eq!(expected.parse::<PartitionKey>().unwrap(), key);
        assert_eq!(serde_json::from_str::<PartitionKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
    }

    const DAY: KeyKind = KeyKind::Time(TimeUnit::Day);
    const HOUR: KeyKind = KeyKind::Time(TimeUnit::Hour);
    const STATIC: KeyKind = KeyKind::Static;

    #[test]
    fn scenario_34_times_are_encoded_with_their_unit() {
        check(&[("day", DAY, "2024-01-01")], "day=day:2024-01-01");
        check(&[("hour", HOUR, "2024-01-01T12")], "hour=hour:2024-01-01T12");
        check(&[("w", KeyKind::Time(TimeUnit::Week), "2024-W01")], "w=week:2024-W01");
    }

    #[test]
    fn scenario_35_several_dimensions_and_reserved_bytes_round_trip() {
        check(
            &[("tenant", STATIC, "tenant"), ("region", STATIC, "region"), ("day", DAY, "2024-01-01")],
            "tenant=static:tenant;region=static:region;day=day:2024-01-01",
        );
        check(&[("k", STATIC, "value|with|pipes")], "k=static:value|with|pipes");
        check(&[("k", STATIC, "value:with:colons")], "k=static:value:with:colons");
        check(&[("k", STATIC, "simple")], "k=static:simple");
        check(&[("k", STATIC, "a;b=static:c"), ("l", STATIC, "100%")], "k=static:a%3Bb=static:c;l=static:100%25");
        check(&[("k", STATIC, "tab\tünï")], "k=static:tab%09ünï");
    }

    #[test]
    fn scenario_36_a_number_and_a_name_keep_their_kind() {
        check(&[("k", STATIC, "2012")], "k=static:2012");
        check(&[("k", KeyKind::Time(TimeUnit::Year), "2012")], "k=year:2012");
    }

    #[test]
    fn scenario_37_no_partition_is_not_the_partition_called_none() {
        check(&[], "none");
        check(&[("k", STATIC, "none")], "k=static:none");
        for legacy in ["", "2024-01-01", "tenant|region|2024-01-01"] {
            assert!(legacy.parse::<PartitionKey>().is_err(), "{legacy:?}");
        }
    }

    #[test]
    fn text_that_is_not_canonical_is_refused() {
        for text in [
            "None",
            "k=static:",
            "k=static",
            "k=",
            "=static:a",
            "K=static:a",
            "k=dynamic:a",
            "k=static:a;",
            ";k=static:a",
            "k=static:%41",
            "k=static:%3b",
            "k=static:%",
            "k=static:%2",
            "k=static:%+5",
            "k=static:%FF",
            "k=static:%é",
            "k=month:2012-1",
            "k=month:2012",
            "k=day:2023-02-29",
            "k=static:a\nb",
        ] {
            assert!(text.parse::<PartitionKey>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_label_is_what_a_person_writes() {
        let label = |text: &str| text.parse::<PartitionKey>().unwrap().label();
        assert_eq!(label("month=month:2012-01"), "2012-01");
        assert_eq!(label("month=month:2012-01;region=static:eu"), "month=2012-01,region=eu");
        assert_eq!(label("none"), "");
    }

    fn a_key() -> impl Strategy<Value = (KeyKind, String)> {
        let time =
            (prop::sample::select(&KeyKind::ALL[..5]), -2_000i64..2_000).prop_map(|(kind, ordinal)| match kind {
                KeyKind::Time(unit) if ordinal > -1_969 => (kind, calendar::key_text(unit, ordinal)),
                _ => (KeyKind::Static, ordinal.to_string()),
            });
        // The bytes that could be taken for syntax come up often.
        prop_oneof![time, "[;=:%a0-9A-F\\PC\n]{1,8}".prop_map(|key| (KeyKind::Static, key))]
    }

    fn coordinates() -> impl Strategy<Value = Vec<(String, KeyKind, String)>> {
        prop::collection::vec(("[a-z][a-z0-9_]{0,3}", a_key()), 0..4)
            .prop_map(|list| list.into_iter().map(|(name, (kind, key))| (name, kind, key)).collect())
    }

    fn encoded(list: &[(String, KeyKind, String)]) -> PartitionKey {
        PartitionKey::encode(list.iter().map(|(dimension, kind, key)| (&**dimension, *kind, &**key)))
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(list in coordinates()) {
            let decoded: Vec<_> =
                encoded(&list).decode().into_iter().map(|(kind, c)| (c.dimension, kind, c.key)).collect();
            prop_assert_eq!(decoded, list);
        }

        #[test]
        fn partitions_that_differ_have_different_texts(one in coordinates(), other in coordinates()) {
            prop_assert_eq!(encoded(&one) == encoded(&other), one == other);
        }

        #[test]
        fn each_partition_has_one_text(text in "k=(static|year):[;%=a2050]{0,6}") {
            if let Ok(key) = text.parse::<PartitionKey>() {
                let again = key.decode().into_iter().map(|(kind, c)| (c.dimension, kind, c.key)).collect::<Vec<_>>();
                prop_assert_eq!(encoded(&again), PartitionKey((&*text).into()));
            }
        }
    }
}
