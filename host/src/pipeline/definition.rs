//! Whether one asset, as its component describes it, makes sense on its own.
//!
//! A description is written by code that nobody trusts: names may be megabytes, lists endless, text full of escapes.
//! What passes here can be stored, printed and drawn. How assets fit together is [`super::validate`]'s business.

use std::collections::HashSet;

use super::{
    asset::{AssetDefinition, AssetKind, DimensionKeys, Field, Mapping, Parameter},
    diagnostic::shown,
    keyspace::KeySpace,
};
use crate::limit::{
    DESCRIPTION_BYTES_MAX, DIMENSIONS_PER_ASSET_MAX, FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX, FIXED_PARTITIONS_MAX,
    INPUTS_PER_ASSET_MAX, MEDIA_TYPE_BYTES_MAX, NAME_BYTES_MAX, PARAMETERS_PER_ASSET_MAX, PARTITION_KEY_BYTES_MAX,
    PARTITION_KEY_TEXT_BYTES_MAX, REASON_BYTES_MAX, REQUIREMENTS_PER_ASSET_MAX, STATIC_KEYS_MAX, TAGS_PER_ASSET_MAX,
};

/// Whether this may name an asset, an input, a dimension, a resource or a pipeline: `a-z`, `0-9` and `_` after a
/// letter, at most [`NAME_BYTES_MAX`] bytes. Such a name needs no escaping anywhere.
pub fn is_name(name: &str) -> bool {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= NAME_BYTES_MAX && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(sound)
}

/// What is wrong with something that should be a name; absent when it is one.
pub fn name_mistake(what: &str, name: &str) -> Option<String> {
    (!is_name(name)).then(|| {
        format!(
            "`{}` is not a name for {what}; use a-z, 0-9 and _, beginning with a letter, at most {NAME_BYTES_MAX} characters",
            shown(name)
        )
    })
}

/// Whether this is a media type: a type and a subtype of RFC 6838's characters, then any printable parameters.
pub fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let typed =
        essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype.trim_end_matches(' ')));
    let printable = parameters.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    text.len() <= MEDIA_TYPE_BYTES_MAX && typed && printable
}

/// Whether text in it holds a NUL, which the database cannot keep.
fn holds_nul(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Everything that is wrong with this definition, each in one sentence.
pub fn definition_mistakes(definition: &AssetDefinition) -> Vec<String> {
    let mut mistakes = Mistakes(Vec::new());
    mistakes.check_name("an asset", &definition.name);
    mistakes.check_text("the description", &definition.description, DESCRIPTION_BYTES_MAX);
    match definition.kind {
        AssetKind::Plain => {}
        AssetKind::Scatter => mistakes.push("assets of the kind `scatter` are not supported yet"),
        AssetKind::Router => mistakes.push("assets of the kind `router` are not supported yet"),
    }
    if !definition.checks.is_empty() {
        mistakes.push("checks are not supported yet");
    }
    if !is_media_type(&definition.media_type) {
        let media_type = shown(&definition.media_type);
        mistakes.push(format!("`{media_type}` is not a media type; write one such as `application/json`"));
    }
    mistakes.check_tags(&definition.tags);
    mistakes.check_inputs(definition);
    mistakes.check_dimensions(definition);
    mistakes.check_requirements(definition);
    mistakes.check_parameters(&definition.parameters);
    mistakes.0
}

struct Mistakes(Vec<String>);

impl Mistakes {
    fn push(&mut self, mistake: impl Into<String>) {
        self.0.push(mistake.into());
    }

    fn check_name(&mut self, what: &str, name: &str) {
        self.0.extend(name_mistake(what, name));
    }

    /// Text for people: lines are fine, other control characters could rewrite a terminal.
    fn check_text(&mut self, what: &str, text: &str, max: usize) {
        if text.len() > max {
            self.push(format!("{what} has {} bytes; at most {max} are kept", text.len()));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            self.push(format!("{what} holds control characters"));
        }
    }

    /// Whether a list is short enough to be looked at.
    fn check_count(&mut self, what: &str, count: usize, max: usize) -> bool {
        if count > max {
            self.push(format!("{count} {what} are more than the {max} that an asset may have"));
        }
        count <= max
    }

    fn check_unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.push(format!("there are two {what} called `{}`", shown(name)));
            }
        }
    }

    fn check_tags(&mut self, tags: &[Field]) {
        if !self.check_count("tags", tags.len(), TAGS_PER_ASSET_MAX) {
            return;
        }
        self.check_unique("tags", tags.iter().map(|tag| &*tag.name));
        for tag in tags {
            if tag.name.is_empty() {
                self.push("a tag has no name");
            }
            self.check_text("a tag's name", &tag.name, FIELD_NAME_BYTES_MAX);
            self.check_text("a tag's value", &tag.value, FIELD_VALUE_BYTES_MAX);
        }
    }

    fn check_parameters(&mut self, parameters: &[Parameter]) {
        if !self.check_count("parameters", parameters.len(), PARAMETERS_PER_ASSET_MAX) {
            return;
        }
        self.check_unique("parameters", parameters.iter().map(|parameter| &*parameter.name));
        for parameter in parameters {
            self.check_name("a parameter", &parameter.name);
            self.check_text("a parameter's description", &parameter.description, REASON_BYTES_MAX);
            if parameter.default.as_ref().is_some_and(|default| !parameter.kind.takes(default)) {
                self.push(format!("the default of the parameter `{}` is of another kind", shown(&parameter.name)));
            }
            if parameter.default.as_ref().is_some_and(holds_nul) {
                self.push(format!("the default of the parameter `{}` holds a NUL", shown(&parameter.name)));
            }
        }
    }

    fn check_inputs(&mut self, definition: &AssetDefinition) {
        let inputs = &definition.inputs;
        if !self.check_count("inputs", inputs.len(), INPUTS_PER_ASSET_MAX) {
            return;
        }
        self.check_unique("inputs", inputs.iter().map(|input| &*input.name));
        for input in inputs {
            self.check_name("an input", &input.name);
            match &input.mapping {
                Mapping::Fixed(partitions) if partitions.len() > FIXED_PARTITIONS_MAX => self.push(format!(
                    "the input `{}` names {} partitions; a fixed mapping has at most {FIXED_PARTITIONS_MAX}",
                    shown(&input.name),
                    partitions.len()
                )),
                _ => {}
            }
        }
    }

    fn check_dimensions(&mut self, definition: &AssetDefinition) {
        let dimensions = &definition.dimensions;
        if !self.check_count("dimensions", dimensions.len(), DIMENSIONS_PER_ASSET_MAX) {
            return;
        }
        self.check_unique("dimensions", dimensions.iter().map(|dimension| &*dimension.name));
        let before = self.0.len();
        // Every key at its longest: no partition's text is longer.
        let mut text_bytes = 0;
        for dimension in dimensions {
            self.check_name("a dimension", &dimension.name);
            // `=`, a tag, `:` and `;`.
            text_bytes += dimension.name.len() + "static".len() + 3;
            text_bytes += match &dimension.keys {
                DimensionKeys::Static(keys) => self.check_static_keys(&dimension.name, keys),
                DimensionKeys::Time(_) | DimensionKeys::Dynamic => 16,
            };
            // The clock does not matter to whether keys are sound; at the epoch no open time has grown long.
            if let Err(error) = KeySpace::new(std::slice::from_ref(dimension), jiff::Timestamp::UNIX_EPOCH) {
                self.push(format!("the dimension `{}`: {error}", shown(&dimension.name)));
            }
        }
        if self.0.len() > before {
            return;
        }
        if let Err(error) = KeySpace::new(dimensions, jiff::Timestamp::UNIX_EPOCH) {
            self.push(error.to_string());
        }
        if text_bytes > PARTITION_KEY_TEXT_BYTES_MAX {
            self.push(format!(
                "the longest keys of all dimensions together take {text_bytes} bytes; at most \
                 {PARTITION_KEY_TEXT_BYTES_MAX} can be indexed"
            ));
        }
    }

    /// Checks the keys of a list, and returns the bytes of the longest one's canonical text.
    fn check_static_keys(&mut self, dimension: &str, keys: &[String]) -> usize {
        let dimension = shown(dimension);
        if keys.len() > STATIC_KEYS_MAX {
            self.push(format!("the dimension `{dimension}` lists {} keys; at most {STATIC_KEYS_MAX}", keys.len()));
            return 0;
        }
        for key in keys {
            let mistake = match key {
                key if key.is_empty() => "is empty",
                key if key.len() > PARTITION_KEY_BYTES_MAX => "is longer than 256 bytes",
                key if key.chars().any(char::is_control) => "holds control characters",
                _ => continue,
            };
            self.push(format!("the dimension `{dimension}`: the key `{}` {mistake}", shown(key)));
        }
        // `;` and `%` take three bytes.
        let text_bytes = |key: &String| key.len() + 2 * key.bytes().filter(|b| matches!(b, b';' | b'%')).count();
        keys.iter().map(text_bytes).max().unwrap_or(0)
    }

    fn check_requirements(&mut self, definition: &AssetDefinition) {
        let requirements = &definition.requirements;
        if !self.check_count("requirements", requirements.len(), REQUIREMENTS_PER_ASSET_MAX) {
            return;
        }
        self.check_unique("requirements", requirements.iter().map(|requirement| &*requirement.resource_name));
        for requirement in requirements {
            self.check_name("a resource", &requirement.resource_name);
            self.check_text("a requirement's reason", &requirement.reason, REASON_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            asset::{Capability, Dimension, Requirement, TimeUnit},
            graph::tests::asset,
            keyspace::tests::{list, time},
        },
        *,
    };

    /// What is said about a sound asset after this change to it.
    #[track_caller]
    fn check(change: impl FnOnce(&mut AssetDefinition), expected: &[&str]) {
        let mut definition = asset("weather", &["raw", "other?"]);
        change(&mut definition);
        assert_eq!(definition_mistakes(&definition), expected);
    }

    fn files(resource: &str) -> Requirement {
        Requirement { resource_name: resource.into(), capability: Capability::Files, reason: "the readings".into() }
    }

    #[test]
    fn a_sound_asset_passes() {
        check(
            |a| {
                a.description = "Several lines,\n\tindented, in any language: été".into();
                a.dimensions =
                    vec![list("region", &["eu; west", "100 %"]), time("day", TimeUnit::Day, "2024-01-01", None)];
                a.requirements = vec![files("station")];
                a.tags = vec![Field { name: "owner".into(), value: "[]".into() }];
                a.media_type = "text/csv; charset=utf-8".into();
            },
            &[],
        );
    }

    #[test]
    fn names_that_would_need_escaping_are_refused() {
        let names = ["", "Weather", "1st", "_x", "a-b", "a b", "é", "a\n", "a\u{1b}[31m"];
        for name in names {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name("a") && is_name("a1_b") && is_name(&"a".repeat(64)) && !is_name(&"a".repeat(65)));
        check(
            |a| a.name = "a\u{1b}[31m".repeat(1 << 18),
            &[&format!(
                "`{}...` is not a name for an asset; use a-z, 0-9 and _, beginning with a letter, at most 64 characters",
                r"a\u{1b}[31m".repeat(10) + r"a\u{1b}[3"
            )],
        );
        check(
            |a| a.inputs[0].name = "Raw".into(),
            &["`Raw` is not a name for an input; use a-z, 0-9 and _, beginning with a letter, at most 64 characters"],
        );
    }

    #[test]
    fn text_that_is_too_long_or_controls_a_terminal_is_refused() {
        check(|a| a.description = "x".repeat(5_000), &["the description has 5000 bytes; at most 4096 are kept"]);
        check(|a| a.description = "a\u{7}".into(), &["the description holds control characters"]);
        check(
            |a| a.tags = vec![Field { name: String::new(), value: "\u{0}".into() }],
            &["a tag has no name", "a tag's value holds control characters"],
        );
    }

    #[test]
    fn what_is_reserved_is_refused() {
        // Scenario 26: there is no router to be routed from.
        check(|a| a.kind = AssetKind::Router, &["assets of the kind `router` are not supported yet"]);
        check(|a| a.kind = AssetKind::Scatter, &["assets of the kind `scatter` are not supported yet"]);
        check(|a| a.checks = vec!["fresh".into()], &["checks are not supported yet"]);
        check(
            |a| a.dimensions = vec![Dimension { name: "d".into(), keys: DimensionKeys::Dynamic }],
            &["the dimension `d`: dynamic keys are not supported yet"],
        );
    }

    #[test]
    fn lists_that_are_too_long_are_refused_and_not_looked_at() {
        check(|a| a.inputs = vec![a.inputs[0].clone(); 65], &["65 inputs are more than the 64 that an asset may have"]);
        check(
            |a| a.dimensions = vec![list("a", &["x"]); 5],
            &["5 dimensions are more than the 4 that an asset may have"],
        );
        check(
            |a| a.requirements = vec![files("r"); 33],
            &["33 requirements are more than the 32 that an asset may have"],
        );
        check(
            |a| a.inputs[0].mapping = Mapping::Fixed(vec![vec![]; 1_025]),
            &["the input `raw` names 1025 partitions; a fixed mapping has at most 1024"],
        );
        let keys: Vec<String> = (0..10_001).map(|i| i.to_string()).collect();
        check(
            |a| a.dimensions = vec![Dimension { name: "d".into(), keys: DimensionKeys::Static(keys) }],
            &["the dimension `d` lists 10001 keys; at most 10000"],
        );
    }

    #[test]
    fn what_is_listed_twice_is_refused() {
        check(|a| a.inputs[1].name = "raw".into(), &["there are two inputs called `raw`"]);
        check(|a| a.dimensions = vec![list("a", &["x"]), list("a", &["y"])], &["there are two dimensions called `a`"]);
        check(|a| a.requirements = vec![files("r"), files("r")], &["there are two requirements called `r`"]);
        check(|a| a.dimensions = vec![list("a", &["x", "x"])], &["the dimension `a`: the key `x` is listed twice"]);
    }

    #[test]
    fn keys_that_are_not_sound_are_refused() {
        check(
            |a| a.dimensions = vec![list("a", &["", "x\ny"])],
            &["the dimension `a`: the key `` is empty", r"the dimension `a`: the key `x\ny` holds control characters"],
        );
        check(
            |a| a.dimensions = vec![time("m", TimeUnit::Month, "2012-1", None)],
            &["the dimension `m`: `2012-1` is not a month; write it like `2024-01`"],
        );
        let mut zoned = time("m", TimeUnit::Month, "2012-01", None);
        let DimensionKeys::Time(keys) = &mut zoned.keys else { unreachable!("the dimension is time") };
        keys.time_zone = "Mars/Olympus".into();
        check(
            |a| a.dimensions = vec![zoned],
            &[
                "the dimension `m`: `Mars/Olympus` is not a time zone; write an IANA name such as `UTC` or `Europe/Berlin`",
            ],
        );
        let days = |name| time(name, TimeUnit::Day, "2001-01-01", Some("2020-12-31"));
        check(
            |a| a.dimensions = vec![days("a"), days("b")],
            &["53363025 partitions are more than the 1000000 that an asset may have"],
        );
        let long = ["%".repeat(256)];
        let long: Vec<&str> = long.iter().map(|key| &**key).collect();
        check(
            |a| a.dimensions = ["a", "b", "c"].map(|name| list(name, &long)).to_vec(),
            &["the longest keys of all dimensions together take 2334 bytes; at most 2048 can be indexed"],
        );
    }

    #[test]
    fn media_types_have_a_type_and_a_subtype() {
        for sound in ["application/json", "text/csv; charset=utf-8", "application/vnd.apache.parquet", "image/svg+xml"]
        {
            assert!(is_media_type(sound), "{sound}");
        }
        for other in
            ["", "json", "/", "text/", "/csv", "text/csv\n", "text/c sv", "text/csv; a=\u{1b}", "a/b/c", "tëxt/csv"]
        {
            assert!(!is_media_type(other), "{other:?}");
        }
        assert!(!is_media_type(&format!("text/{}", "x".repeat(127))));
    }
}
