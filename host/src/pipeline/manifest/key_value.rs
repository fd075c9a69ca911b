//! `kind = "key-value"`: what a manifest says about a bucket and about a grant of it.

use super::{
    super::{
        key_value::{BucketBounds, BucketGrant, BucketResource, pattern_mistake},
        resource::{Access, Resource},
    },
    grant::{ACCESS, read_list},
    reader::{Entry, Reader, bytes},
};
use crate::limit;

/// Reads a bucket.
pub(super) fn read_bucket<'a>(reader: &mut Reader<'a>, entry: &Entry<'a>) -> Option<Resource> {
    let section = reader.section(entry, &["kind", "access", "max_keys", "max_value", "max_bytes"])?;
    let access = section.get("access").map_or(Some(Access::ReadWrite), |access| reader.word(access, &ACCESS));
    let keys = section.get("max_keys").and_then(|keys| reader.integer(keys, 1, limit::BUCKET_KEYS_MAX as u32));
    let mut size = |name: &str, max: u64, default: u64| {
        section.get(name).and_then(|size| reader.quantity(size, &bytes(1, max))).unwrap_or(default)
    };
    let value_bytes = size("max_value", limit::VALUE_BYTES_MAX, limit::VALUE_BYTES_DEFAULT);
    let bytes = size("max_bytes", limit::BUCKET_BYTES_MAX, limit::BUCKET_BYTES_DEFAULT);
    let keys = keys.map_or(limit::BUCKET_KEYS_DEFAULT, u64::from);
    Some(Resource::KeyValue(BucketResource {
        // Half understood, it still counts as declared.
        access: access.unwrap_or(Access::ReadWrite),
        bounds: BucketBounds { keys, value_bytes, bytes },
    }))
}

/// Reads a grant of a bucket.
pub(super) fn read_bucket_grant<'a>(
    reader: &mut Reader<'a>,
    resource: &str,
    entry: &Entry<'a>,
    allowed: &BucketResource,
) -> Option<BucketGrant> {
    let section = reader.section(entry, &["access", "keys", "writes", "write"])?;
    let access = section.get("access").map_or(Some(Access::Read), |access| reader.word(access, &ACCESS));
    let access = access.unwrap_or(Access::Read);
    if (allowed.access, access) == (Access::Read, Access::ReadWrite) {
        let fix = format!("grant \"read\", or set resources.{resource}.access = \"read-write\"");
        reader.refuse(section.get("access").unwrap_or(entry), "the resource may only be read", fix);
    }
    for name in ["writes", "write"] {
        if let (Some(bound), Access::Read) = (section.get(name), access) {
            reader.refuse(bound, "changes nothing without access = \"read-write\"", "remove it");
        }
    }
    let writes = section.get("writes").and_then(|writes| reader.integer(writes, 1, limit::KEYS_WRITTEN_MAX as u32));
    let write = section.get("write").and_then(|write| reader.quantity(write, &bytes(1, limit::KEYS_WRITTEN_BYTES_MAX)));
    let fix = "list keys, and prefixes that end with \"**\", for example keys = [\"orders/**\"]; \"**\" is every key";
    let keys = reader
        .required(&section, "keys", fix)
        .map(|keys| read_list(reader, keys, "keys", pattern_mistake))
        .unwrap_or_default();
    Some(BucketGrant {
        resource: resource.to_owned(),
        access,
        keys,
        writes: writes.map_or(limit::KEYS_WRITTEN_DEFAULT, u64::from),
        write_bytes: write.unwrap_or(limit::KEYS_WRITTEN_BYTES_DEFAULT),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{
        super::resource::Grant,
        tests::{answer, sound},
    };
    use super::*;

    #[test]
    fn every_field_is_read_and_has_a_default() {
        let lines = r#"
[resources.seen]
kind = "key-value"
access = "read-write"
max_keys = 10
max_value = "1KiB"
max_bytes = "2KiB"
[resources.plain]
kind = "key-value"
[assets.raw.grants]
seen = { access = "read-write", keys = ["a/**", "b"], writes = 3, write = "512B" }
plain = { keys = ["**"] }
"#;
        let manifest = sound(lines);
        let bounds = BucketBounds { keys: 10, value_bytes: 1 << 10, bytes: 2 << 10 };
        let seen = BucketResource { access: Access::ReadWrite, bounds };
        assert_eq!(manifest.resources["seen"], Resource::KeyValue(seen));
        let bounds = BucketBounds {
            keys: limit::BUCKET_KEYS_DEFAULT,
            value_bytes: limit::VALUE_BYTES_DEFAULT,
            bytes: limit::BUCKET_BYTES_DEFAULT,
        };
        let plain = BucketResource { access: Access::ReadWrite, bounds };
        assert_eq!(manifest.resources["plain"], Resource::KeyValue(plain));
        let [Grant::KeyValue(plain), Grant::KeyValue(seen)] = &manifest.assets["raw"].grants[..] else {
            panic!("{:?}", manifest.assets["raw"].grants)
        };
        assert_eq!((seen.access, seen.writes, seen.write_bytes), (Access::ReadWrite, 3, 512));
        assert_eq!(seen.keys, ["a/**", "b"]);
        assert_eq!((plain.access, plain.writes), (Access::Read, limit::KEYS_WRITTEN_DEFAULT));
    }

    #[test]
    fn what_grants_nothing_or_too_much_is_refused() {
        let bucket = "[resources.seen]\nkind = \"key-value\"\n";
        let check = |lines: &str, expected: &str| {
            let answer = answer(lines);
            assert!(answer.contains(expected), "{answer}");
        };
        let grant = |grant: &str| format!("{bucket}[assets.raw]\ngrants.seen = {grant}\n");
        check(&grant("{ keys = [\"**\"] }"), "sound");
        check(&grant("{}"), "assets.raw.grants.seen.keys: missing; list keys, and prefixes");
        check(&grant("{ keys = [] }"), "an empty list grants nothing");
        check(&grant("{ keys = [\"\"] }"), "\"\" names no key");
        check(&grant("{ keys = [\"a*\"] }"), "\"a*\" has a `*` that stands for nothing");
        check(&grant("{ keys = [\"**\"], write = \"1KiB\" }"), "changes nothing without access");
        check(&grant("{ keys = [\"**\"], writes = 1 }"), "changes nothing without access");
        check(&grant("{ keys = [\"**\"], acess = \"read\" }"), "did you mean `access`");
        check(&grant("{ access = \"read-write\", keys = [\"**\"], writes = 100000 }"), "out of bounds");
        let many = vec!["\"a\""; limit::GRANT_PATHS_MAX + 1].join(",");
        check(&grant(&format!("{{ keys = [{many}] }}")), "65 keys are more than 64");
        check(&format!("{bucket}max_keys = 0\n"), "0 is out of bounds");
        check(&format!("{bucket}max_value = \"2MiB\"\n"), "out of bounds");
        check(&format!("{bucket}max_bytes = \"1TiB\"\n"), "max_bytes");
        check(
            &format!(
                "{bucket}access = \"read\"\n[assets.raw]\ngrants.seen = {{ access = \"read-write\", keys = [\"**\"] }}\n"
            ),
            "the resource may only be read; grant \"read\", or set resources.seen.access",
        );
    }
}
