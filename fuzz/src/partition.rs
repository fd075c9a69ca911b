//! Partition keys: texts that a client sends, coordinates that a component describes, selections that a user types.
//!
//! One partition has one text, and each text that is accepted is read back as what it was. A key space that is accepted
//! finds each of its partitions where it put it.

use flowstone::{
    limit::PARTITIONS_PER_ASSET_MAX,
    pipeline::{
        asset::{AssetDefinition, AssetKind, Dimension, DimensionKeys, TimeKeys, TimeUnit},
        calendar::{key_text, parse_key},
        definition::{definition_mistakes, is_name},
        keyspace::{KeySpace, logical_time_ms},
        partition::{KeyKind, PartitionKey},
        selection::parse_selection,
    },
};
use jiff::Timestamp;

use crate::{lines, text};

const UNITS: [TimeUnit; 5] = [TimeUnit::Hour, TimeUnit::Day, TimeUnit::Week, TimeUnit::Month, TimeUnit::Year];

/// The first line is a key's text; the next a selection; then come a first time, a last one and a zone; then static keys.
pub fn check(input: &[u8]) {
    let [key, selection, from, to, zone] = lines::<5>(input).map(text);
    parsed(key);
    times(key);
    let rest = input.split(|byte| *byte == b'\n').skip(5);
    let listed: Vec<String> = rest.map(|line| text(line).to_owned()).collect();
    encoded(&listed, from);
    for unit in UNITS {
        let keys = TimeKeys {
            unit,
            from: from.into(),
            to: Some(to).filter(|to| !to.is_empty()).map(str::to_owned),
            time_zone: zone.into(),
        };
        space(DimensionKeys::Time(keys), &listed, selection);
    }
    space(DimensionKeys::Static(listed.clone()), &[], selection);
}

/// A text is canonical or refused.
fn parsed(key: &str) {
    let Ok(parsed) = key.parse::<PartitionKey>() else { return };
    assert_eq!(parsed.as_str(), key);
    let coordinates = parsed.decode();
    let again = PartitionKey::encode(coordinates.iter().map(|(kind, c)| (&*c.dimension, *kind, &*c.key)));
    assert_eq!(again, parsed, "it has another text as well");
    assert!(!key.bytes().any(|byte| byte.is_ascii_control()), "{key:?} would break a log");
    let json = serde_json::to_string(&parsed).expect("it is text");
    assert_eq!(serde_json::from_str::<PartitionKey>(&json).ok(), Some(parsed.clone()));
    assert_eq!(parsed.label().is_empty(), coordinates.is_empty());
}

/// A key of time has one text, and its interval has a beginning.
fn times(key: &str) {
    for unit in UNITS {
        if let Some(ordinal) = parse_key(unit, key) {
            assert_eq!(key_text(unit, ordinal), key, "it has another text as well");
        }
    }
}

/// Coordinates come back from their text, whatever the keys hold.
fn encoded(keys: &[String], name: &str) {
    let name = if is_name(name) { name } else { "k" };
    let coordinates: Vec<(&str, KeyKind, &str)> =
        keys.iter().filter(|key| !key.is_empty()).map(|key| (name, KeyKind::Static, &**key)).collect();
    let key = PartitionKey::encode(coordinates.iter().copied());
    let decoded = key.decode();
    let back: Vec<(&str, KeyKind, &str)> = decoded.iter().map(|(kind, c)| (&*c.dimension, *kind, &*c.key)).collect();
    assert_eq!(back, coordinates);
    assert_eq!(key.as_str().parse::<PartitionKey>().ok(), Some(key));
}

/// Dimensions as a component describes them: what passes the check of its definition has partitions.
fn space(first: DimensionKeys, second: &[String], selection: &str) {
    let mut dimensions = vec![Dimension { name: "first".into(), keys: first }];
    if !second.is_empty() {
        dimensions.push(Dimension { name: "second".into(), keys: DimensionKeys::Static(second.to_vec()) });
    }
    let definition = AssetDefinition {
        name: "asset".into(),
        description: String::new(),
        kind: AssetKind::Plain,
        inputs: vec![],
        dimensions,
        requirements: vec![],
        parameters: vec![],
        media_type: "text/plain".into(),
        checks: vec![],
        tags: vec![],
    };
    let mistakes = definition_mistakes(&definition);
    if !mistakes.is_empty() {
        for mistake in mistakes {
            assert!(!mistake.chars().any(char::is_control), "{mistake:?} could steer a terminal");
        }
        return;
    }
    let now = Timestamp::from_second(1_750_000_000).expect("it is an instant");
    // Two lists that are short enough each may still be too many together.
    let Ok(space) = KeySpace::new(&definition.dimensions, now) else { return };
    assert!(space.len() as usize <= PARTITIONS_PER_ASSET_MAX);
    if space.is_empty() {
        return;
    }
    for index in [0, space.len() / 2, space.len() - 1] {
        let (partition, key) = (space.partition(index), space.key(index));
        assert_eq!(space.find(&partition), Some(index), "{partition:?}");
        assert_eq!(space.find_key(&key), Some(index), "{key}");
        assert_eq!(key, PartitionKey::of(&partition, &definition.dimensions));
        assert_eq!(key.partition(), partition);
        parsed(key.as_str());
        logical_time_ms(&definition.dimensions, &partition);
        let named = parse_selection("asset", &key.label(), &space);
        // Keys may hold what separates them: then the label of one is not a selection.
        if let Ok(ranges) = named {
            assert!(ranges.iter().all(|index| index < space.len()));
        }
    }
    if let Ok(ranges) = parse_selection("asset", selection, &space) {
        assert!(!ranges.is_empty() && ranges.len() <= space.len());
        assert!(ranges.ranges().iter().all(|range| range.start < range.end && range.end <= space.len()));
    }
}
