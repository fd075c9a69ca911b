//! The recipe of an attempt: the digest of everything that decides its output.
//!
//! Component, asset, resolved configuration, what the grants let it reach, the files behind read-only directories,
//! the partition, and the inputs by what they hold. Not in it: limits, retries, the engine's version, materialization
//! ids, times. The digests of its parts are kept too, so that a plan can say what has changed. What is digested here
//! is a stored format: a change of it makes every asset stale, and needs a new `VERSION`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{asset::Field, partition::PartitionKey, resource::Grant};
use crate::blob::{Digest, DigestWriter};

/// Of the format of every digest in this file.
const VERSION: &[u8] = b"flowstone recipe 1";

/// The parts of a recipe, each as a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeParts {
    /// The code, and with it the asset's definition.
    pub component: Digest,
    /// See [`config_digest`].
    pub config: Digest,
    /// See [`reach_digest`].
    pub grants: Digest,
    /// See [`sources_digest`].
    pub sources: Digest,
    /// See [`input_digest`]; one for each input, in the order in which the asset declares them.
    pub inputs: Vec<Digest>,
}

impl RecipeParts {
    /// The recipe: one asset, one partition, and these parts.
    pub fn recipe(&self, asset: &str, partition: &PartitionKey) -> Digest {
        let mut writer = versioned(b"recipe");
        writer.field(asset.as_bytes());
        writer.field(partition.as_str().as_bytes());
        for part in [&self.component, &self.config, &self.grants, &self.sources] {
            writer.field(&part.0);
        }
        for input in &self.inputs {
            writer.field(&input.0);
        }
        writer.finish()
    }
}

/// One version that an input holds.
#[derive(Clone, Copy, Debug)]
pub struct InputVersion<'a> {
    /// The producer.
    pub asset: &'a str,
    /// Its partition.
    pub partition: &'a PartitionKey,
    /// See [`version_digest`].
    pub seen: Digest,
}

/// What one file tree behind a read-only grant holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFingerprint {
    /// The resource's name.
    pub resource: String,
    /// Of the sorted names, sizes and digests of the files that the grant's globs match.
    pub fingerprint: Digest,
}

/// Digests all that a consumer can see of an output: its bytes, its media type, and what its producer said of it.
pub fn version_digest(output: Digest, media_type: &str, metadata: &[Field]) -> Digest {
    let mut writer = versioned(b"version");
    writer.field(&output.0);
    writer.field(media_type.as_bytes());
    for field in metadata {
        writer.field(field.name.as_bytes());
        writer.field(field.value.as_bytes());
    }
    writer.finish()
}

/// Digests one input: its versions in partition order, and how many that it might have had are absent, so that
/// an optional input with nothing there is not the same as an input that holds no partitions.
pub fn input_digest<'a>(name: &str, versions: impl IntoIterator<Item = InputVersion<'a>>, absent: usize) -> Digest {
    let mut writer = versioned(b"input");
    writer.field(name.as_bytes());
    writer.field(&(absent as u64).to_le_bytes());
    for version in versions {
        writer.field(version.asset.as_bytes());
        writer.field(version.partition.as_str().as_bytes());
        writer.field(&version.seen.0);
    }
    writer.finish()
}

/// Digests a configuration in its canonical text, so that the order of keys in the manifest does not matter.
pub fn config_digest(config: &serde_json::Map<String, Value>) -> Digest {
    let mut writer = versioned(b"config");
    writer.field(canonical_json(config).as_bytes());
    writer.finish()
}

/// Digests what grants let an asset reach, in whatever order they stand. See [`Grant`] for what counts.
pub fn reach_digest(grants: &[Grant]) -> Digest {
    let mut sorted: Vec<&Grant> = grants.iter().collect();
    sorted.sort_by_key(|grant| grant.resource());
    let mut writer = versioned(b"grants");
    for grant in sorted {
        grant.digest_reach(&mut writer);
    }
    writer.finish()
}

/// Digests the fingerprints of what read-only grants reach, in whatever order they were taken.
pub fn sources_digest(fingerprints: &[SourceFingerprint]) -> Digest {
    let mut sorted: Vec<&SourceFingerprint> = fingerprints.iter().collect();
    sorted.sort_by_key(|source| &source.resource);
    let mut writer = versioned(b"sources");
    for source in sorted {
        writer.field(source.resource.as_bytes());
        writer.field(&source.fingerprint.0);
    }
    writer.finish()
}

/// A configuration as the one text that stands for it: keys sorted, no spaces. Also what the guest is given.
pub fn canonical_json(config: &serde_json::Map<String, Value>) -> String {
    let mut text = String::new();
    write_object(config, &mut text);
    text
}

fn write_object(object: &serde_json::Map<String, Value>, text: &mut String) {
    // Sorted here: whether a map keeps its order is a feature that any other crate in the build may turn on.
    let mut entries: Vec<(&String, &Value)> = object.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    text.push('{');
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(key.as_str()).to_string());
        text.push(':');
        write_value(value, text);
    }
    text.push('}');
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => write_object(object, text),
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_value(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn versioned(what: &[u8]) -> DigestWriter {
    let mut writer = DigestWriter::default();
    writer.field(VERSION);
    writer.field(what);
    writer
}

#[cfg(test)]
mod tests {
    use super::{
        super::resource::{Access, DirectoryGrant},
        *,
    };

    fn config(json: &str) -> serde_json::Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    fn grant(resource: &str, access: Access, paths: &[&str], write_bytes: u64) -> Grant {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        Grant::Files(DirectoryGrant { resource: resource.into(), access, paths, write_bytes, entries: 1, mount: None })
    }

    fn parts() -> RecipeParts {
        let version = InputVersion { asset: "raw", partition: &PartitionKey::unpartitioned(), seen: Digest::of(b"x") };
        RecipeParts {
            component: Digest::of(b"wasm"),
            config: config_digest(&config("{}")),
            grants: reach_digest(&[]),
            sources: sources_digest(&[]),
            inputs: vec![input_digest("raw", [version], 0)],
        }
    }

    #[test]
    fn the_format_of_recipes_is_pinned() {
        // Results that were stored under this format must be found again: change VERSION with it.
        let recipe = parts().recipe("clean", &PartitionKey::unpartitioned()).to_string();
        insta::assert_snapshot!(recipe, @"3e8713b4ae9df16bf91463c169ca047c813c226a82fa76a0161a8b3020db82bf");
    }

    #[test]
    fn every_part_changes_the_recipe() {
        let key: PartitionKey = "k=static:a".parse().unwrap();
        let base = parts().recipe("clean", &key);
        let other = Digest::of(b"other");
        assert_ne!(base, RecipeParts { component: other, ..parts() }.recipe("clean", &key));
        assert_ne!(base, RecipeParts { config: other, ..parts() }.recipe("clean", &key));
        assert_ne!(base, RecipeParts { grants: other, ..parts() }.recipe("clean", &key));
        assert_ne!(base, RecipeParts { sources: other, ..parts() }.recipe("clean", &key));
        assert_ne!(base, RecipeParts { inputs: vec![other], ..parts() }.recipe("clean", &key));
        assert_ne!(base, RecipeParts { inputs: vec![], ..parts() }.recipe("clean", &key));
        assert_ne!(base, parts().recipe("dirty", &key));
        assert_ne!(base, parts().recipe("clean", &"k=static:b".parse().unwrap()));
        assert_eq!(base, parts().recipe("clean", &key));
    }

    #[test]
    fn an_absent_input_is_not_an_empty_one() {
        let [partition, other] = ["k=static:a", "k=static:b"].map(|text| text.parse::<PartitionKey>().unwrap());
        let version = |partition, bytes: &[u8]| InputVersion { asset: "raw", partition, seen: Digest::of(bytes) };
        let digests = [
            input_digest("raw", [], 0),
            input_digest("raw", [], 1),
            input_digest("raw", [version(&partition, b"x")], 0),
            input_digest("raw", [version(&partition, b"x")], 1),
            input_digest("raw", [version(&partition, b"y")], 0),
            input_digest("raw", [version(&other, b"x")], 0),
            input_digest("raw", [version(&partition, b"x"), version(&other, b"x")], 0),
            input_digest("row", [version(&partition, b"x")], 0),
        ];
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "digest {i} repeats");
        }
    }

    #[test]
    fn the_order_of_keys_in_a_configuration_does_not_matter() {
        let [one, other] =
            [r#"{"b": [1, {"y": 1.0, "x": null}], "a": "ü\n"}"#, r#"{"a":"ü\n","b":[1,{"x":null,"y":1.0}]}"#];
        assert_eq!(canonical_json(&config(one)), other);
        assert_eq!(config_digest(&config(one)), config_digest(&config(other)));
        assert_ne!(config_digest(&config(one)), config_digest(&config(r#"{"a":"ü\n","b":[1,{"x":null,"y":1}]}"#)));
    }

    #[test]
    fn a_grant_counts_by_its_rights_and_not_by_its_limits() {
        let reach = |access, paths: &[&str], bytes| reach_digest(&[grant("station", access, paths, bytes)]);
        let base = reach(Access::Read, &["*.csv", "b/**"], 1);
        assert_eq!(base, reach(Access::Read, &["b/**", "*.csv", "*.csv"], 2));
        assert_ne!(base, reach(Access::ReadWrite, &["*.csv", "b/**"], 1));
        assert_ne!(base, reach(Access::Read, &["*.csv"], 1));
        assert_ne!(base, reach_digest(&[grant("other", Access::Read, &["*.csv", "b/**"], 1)]));
        let [a, b] = ["a", "b"].map(|name| grant(name, Access::Read, &["**"], 1));
        assert_eq!(reach_digest(&[a.clone(), b.clone()]), reach_digest(&[b, a]));
    }

    #[test]
    fn the_files_behind_a_grant_are_part_of_the_recipe() {
        let source = |resource: &str, bytes: &[u8]| SourceFingerprint {
            resource: resource.into(),
            fingerprint: Digest::of(bytes),
        };
        let digest = |sources: &[SourceFingerprint]| sources_digest(sources);
        assert_eq!(digest(&[source("a", b"1"), source("b", b"2")]), digest(&[source("b", b"2"), source("a", b"1")]));
        assert_ne!(digest(&[source("a", b"1"), source("b", b"2")]), digest(&[source("a", b"2"), source("b", b"1")]));
    }
}
