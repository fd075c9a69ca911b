//! Reading manifests: the whole of a sound one, and one negative fixture for each rule.

use super::{
    super::{
        policy::Backoff,
        resource::{Access, DirectoryGrant},
    },
    *,
};
use crate::limit;

/// A manifest that is sound, before and after what a fixture adds.
const HEAD: &str = "[pipeline]\nname = \"weather\"\n[[components]]\npath = \"weather.wasm\"\n";
const STATION: &str = "[resources.station]\nkind = \"directory\"\npath = \"data\"\n";

/// The answer to a sound head with these lines after it, which begin at line 5.
pub(super) fn answer(lines: &str) -> String {
    answer_whole(&format!("{HEAD}{lines}"))
}

fn answer_whole(text: &str) -> String {
    match parse_manifest("flowstone.toml", text, &BTreeMap::new()) {
        Ok(_) => "sound".to_owned(),
        Err(diagnostics) => diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

/// What a sound head and these lines are read as.
#[track_caller]
pub(super) fn sound(lines: &str) -> Manifest {
    parse_manifest("flowstone.toml", &format!("{HEAD}{lines}"), &BTreeMap::new())
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// A sound head and these lines have one mistake, which is answered with these words.
#[track_caller]
pub(super) fn refused(lines: &str, expected: &str) {
    let answer = answer(lines);
    assert!(answer.contains(expected), "{answer}");
    assert_eq!(answer.lines().count(), 1, "{answer}");
}

/// The answer to a section of one asset, whose lines begin at line 9, beside a declared resource.
fn answer_asset(lines: &str) -> String {
    answer(&format!("{STATION}[assets.raw]\n{lines}"))
}

#[track_caller]
fn check(answer: String, expected: &str) {
    assert_eq!(answer, expected);
}

fn settings(lines: &str) -> AssetSettings {
    let manifest =
        parse_manifest("flowstone.toml", &format!("{HEAD}{STATION}[assets.raw]\n{lines}"), &BTreeMap::new()).unwrap();
    manifest.assets["raw"].clone()
}

#[test]
fn every_field_of_a_manifest_is_read() {
    let text = r#"
[pipeline]
name = "weather"

[[components]]
path = "target/wasm32-wasip2/release/weather.wasm"

[resources.station]
kind = "directory"
path = "data"
access = "read-write"

[assets.raw_weather]
grants = { station = { access = "read-write", paths = ["*.csv", "b/**"], write = "2MiB", entries = 9 } }
config = { city = "Seattle", days = [1, 2.5, true], since = 2012-01-01, at = { lat = 47.6 } }
limits = { fuel = "5G", memory = "128MiB", timeout = "30s", output = "1MiB", log = "1KiB" }
retry  = { max_attempts = 7, backoff = "linear", base = "2s", cap = "1m", jitter = false }
fresh_for = "1h"
"#;
    let manifest = parse_manifest("flowstone.toml", text, &BTreeMap::new()).unwrap();
    assert_eq!(manifest.name, "weather");
    assert_eq!(manifest.components, [ComponentSource { path: "target/wasm32-wasip2/release/weather.wasm".into() }]);
    let station = Resource::Directory { path: "data".into(), access: Access::ReadWrite };
    assert_eq!(manifest.resources, BTreeMap::from([("station".to_owned(), station)]));
    let raw = &manifest.assets["raw_weather"];
    let grant = DirectoryGrant {
        resource: "station".into(),
        access: Access::ReadWrite,
        paths: vec!["*.csv".into(), "b/**".into()],
        write_bytes: 2 << 20,
        entries: 9,
        mount: None,
    };
    assert_eq!(raw.grants, [Grant::Files(grant)]);
    let config = serde_json::json!({
        "city": "Seattle", "days": [1, 2.5, true], "since": "2012-01-01", "at": { "lat": 47.6 },
    });
    assert_eq!(serde_json::Value::Object(raw.config.clone()), config);
    let limits = Limits {
        fuel: 5_000_000_000,
        memory_bytes: 128 << 20,
        timeout_ms: 30_000,
        output_bytes: 1 << 20,
        log_bytes: 1 << 10,
    };
    assert_eq!(raw.limits, limits);
    let retry =
        RetryPolicy { max_attempts: 7, backoff: Backoff::Linear, base_ms: 2_000, cap_ms: 60_000, jitter: false };
    assert_eq!(raw.retry, retry);
    assert_eq!(raw.fresh_for_ms, Some(3_600_000));
    assert_eq!(manifest.place("assets.raw_weather").unwrap().line, 13);
    assert_eq!(manifest.place("assets.raw_weather.grants.station").unwrap(), Place { line: 14, column: 12 });
}

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(settings(""), AssetSettings::default());
    let grants = settings("grants.station.paths = [\"**\"]").grants;
    let grant = grants[0].directory().unwrap();
    assert_eq!((grant.access, grant.write_bytes), (Access::Read, limit::WRITE_BYTES_DEFAULT));
    assert_eq!(grant.entries, limit::STAGED_FILES_DEFAULT);
    let limits = Limits { fuel: 7, ..Limits::default() };
    assert_eq!(settings("limits.fuel = \"7\"").limits, limits);
    let retry = settings("retry.base = \"1h\"").retry;
    assert_eq!((retry.base_ms, retry.cap_ms), (3_600_000, 3_600_000));
}

#[test]
fn sections_and_inline_tables_mean_the_same() {
    let inline = settings("limits = { fuel = \"5G\" }\nconfig = { list = [{ a = 1 }] }");
    let sections = settings("[assets.raw.limits]\nfuel = \"5G\"\n[[assets.raw.config.list]]\na = 1");
    assert_eq!(inline, sections);
}

#[test]
fn all_mistakes_are_in_one_answer_in_the_order_of_the_file() {
    let text = r#"
[pipelin]
name = "weather"

[resources.station]
kind = "directry"
path = 7

[assets.raw]
limits = { fuel = "5X", memory = "8GiB", tiemout = "1s" }
retry = { max_attempts = 0 }
grants = { staton = { paths = [] } }
"#;
    insta::assert_snapshot!(answer_whole(text), @r#"
    flowstone.toml:1:1: pipeline: missing; add [pipeline] with name = "..."
    flowstone.toml:1:1: components: missing; add [[components]] with path = "..." for each component
    flowstone.toml:2:2: pipelin: unknown key; did you mean `pipeline`?
    flowstone.toml:6:8: resources.station.kind: "directry" is not known here; did you mean `directory`?
    flowstone.toml:7:8: resources.station.path: must be text in quotes, not a whole number
    flowstone.toml:10:19: assets.raw.limits.fuel: "5X" is not an amount of fuel; write a number with K, M, G or T, for example "5G"
    flowstone.toml:10:34: assets.raw.limits.memory: "8GiB" is out of bounds; from 1MiB to 4GiB
    flowstone.toml:10:42: assets.raw.limits.tiemout: unknown key; did you mean `timeout`?
    flowstone.toml:11:26: assets.raw.retry.max_attempts: 0 is out of bounds; from 1 to 100
    flowstone.toml:12:21: assets.raw.grants.staton: there is no resource `staton`; did you mean `station`?
    flowstone.toml:12:31: assets.raw.grants.staton.paths: an empty list grants nothing; list globs, or remove the grant
    "#);
}

#[test]
fn syntax_errors_have_their_place() {
    insta::assert_snapshot!(answer("[assets.raw\n"), @"flowstone.toml:5:12: unclosed table, expected `]`");
    insta::assert_snapshot!(answer("[assets.raw]\nconfig = { a = 1, a = 2 }\n"), @"flowstone.toml:6:19: a: duplicate key");
    insta::assert_snapshot!(answer("[pipeline]\nname = \"again\"\n"), @"flowstone.toml:5:2: pipeline: duplicate key");
    insta::assert_snapshot!(answer("\u{1b}[2J"), @"flowstone.toml:5:2: key with no value, expected `=`");
}

#[test]
fn missing_parts_are_named() {
    insta::assert_snapshot!(answer_whole(""), @r#"
    flowstone.toml:1:1: pipeline: missing; add [pipeline] with name = "..."
    flowstone.toml:1:1: components: missing; add [[components]] with path = "..." for each component
    "#);
    insta::assert_snapshot!(answer_whole("pipeline = {}\ncomponents = []\n"), @r#"
    flowstone.toml:1:1: pipeline.name: missing; add name = "..."
    flowstone.toml:2:14: components: a pipeline needs at least one component; add [[components]] with path = "..." for each component
    "#);
    insta::assert_snapshot!(answer("[[components]]\n[resources.a]\n"), @r#"
    flowstone.toml:5:1: components[1].path: missing; add path = "..."
    flowstone.toml:6:12: resources.a.kind: missing; add kind = "directory", or another kind
    "#);
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    check(answer("[asset.raw]\n"), "flowstone.toml:5:2: asset: unknown key; did you mean `assets`?");
    check(
        answer("[assets.raw]\ncolour = \"blue\"\n"),
        "flowstone.toml:6:1: assets.raw.colour: unknown key; known here: grants, config, limits, retry, fresh_for, queue, priority, worker_tags, max_concurrent, pools",
    );
    check(
        answer("[[components]]\npath = \"b\"\nsha = \"x\"\n"),
        "flowstone.toml:7:1: components[1].sha: unknown key; known here: path",
    );
    check(
        answer_asset("\"a\\u001bb\" = 1\n"),
        r#"flowstone.toml:9:1: assets.raw."a\u{1b}b": unknown key; known here: grants, config, limits, retry, fresh_for, queue, priority, worker_tags, max_concurrent, pools"#,
    );
    check(
        answer(&format!("{STATION}acess = \"read\"\n")),
        "flowstone.toml:8:1: resources.station.acess: unknown key; did you mean `access`?",
    );
    check(
        answer_asset("retry.attempts = 3\n"),
        "flowstone.toml:9:7: assets.raw.retry.attempts: unknown key; \
         known here: max_attempts, backoff, base, cap, jitter",
    );
    check(
        answer_asset("grants.station = { paths = [\"**\"], path = \"x\" }\n"),
        "flowstone.toml:9:36: assets.raw.grants.station.path: unknown key; did you mean `paths`?",
    );
}

#[test]
fn wrong_types_are_refused_everywhere() {
    check(answer("assets = 1\n"), "flowstone.toml:5:1: components[0].assets: unknown key; known here: path");
    check(
        answer_whole("components = 1\npipeline = 2\n"),
        "flowstone.toml:1:14: components: must be a list of tables, not a whole number\nflowstone.toml:2:12: pipeline: must be a table, not a whole number",
    );
    check(answer_asset("limits = \"5G\"\n"), "flowstone.toml:9:10: assets.raw.limits: must be a table, not text");
    check(
        answer_asset("limits.memory = 256\n"),
        "flowstone.toml:9:17: assets.raw.limits.memory: must be a size, not a whole number; \
         write a number with B, KiB, MiB or GiB, for example \"256MiB\"",
    );
    check(
        answer_asset("retry.max_attempts = \"3\"\n"),
        "flowstone.toml:9:22: assets.raw.retry.max_attempts: must be a whole number, not text",
    );
    check(
        answer_asset("retry.jitter = 1\n"),
        "flowstone.toml:9:16: assets.raw.retry.jitter: must be true or false, not a whole number",
    );
    check(
        answer_asset("grants.station.paths = \"*\"\n"),
        "flowstone.toml:9:24: assets.raw.grants.station.paths: must be a list of texts, not text",
    );
    check(
        answer_asset("grants.station.paths = [1]\n"),
        "flowstone.toml:9:24: assets.raw.grants.station.paths: must be a list of texts, not a list",
    );
    check(answer_asset("config = []\n"), "flowstone.toml:9:10: assets.raw.config: must be a table, not a list");
    check(
        answer_asset("config = { a = [nan] }\n"),
        "flowstone.toml:9:16: assets.raw.config.a: JSON has no infinity and no NaN; write a number",
    );
    check(
        answer_asset("config = { a = [\"x\\u0000\"] }\n"),
        "flowstone.toml:9:16: assets.raw.config.a: holds a NUL, which the database cannot keep; leave it out",
    );
    check(
        answer_asset("fresh_for = true\n"),
        "flowstone.toml:9:13: assets.raw.fresh_for: must be a duration, not true or false; \
         write a number with ms, s, m, h or d, for example \"90s\"",
    );
}

#[test]
fn amounts_are_written_with_their_unit() {
    check(
        answer_asset("limits.fuel = \"5X\"\n"),
        "flowstone.toml:9:15: assets.raw.limits.fuel: \"5X\" is not an amount of fuel; \
         write a number with K, M, G or T, for example \"5G\"",
    );
    check(
        answer_asset("limits.timeout = \"1 minute\"\n"),
        "flowstone.toml:9:18: assets.raw.limits.timeout: \"1 minute\" is not a duration; \
         write a number with ms, s, m, h or d, for example \"90s\"",
    );
}

#[test]
fn impossible_values_are_refused() {
    let bounds = [
        ("limits.fuel = \"0\"", "limits.fuel: \"0\" is out of bounds; from 1 to 1000T"),
        ("limits.fuel = \"2000T\"", "limits.fuel: \"2000T\" is out of bounds; from 1 to 1000T"),
        ("limits.memory = \"1KiB\"", "limits.memory: \"1KiB\" is out of bounds; from 1MiB to 4GiB"),
        ("limits.memory = \"8GiB\"", "limits.memory: \"8GiB\" is out of bounds; from 1MiB to 4GiB"),
        ("limits.timeout = \"1ms\"", "limits.timeout: \"1ms\" is out of bounds; from 10ms to 1d"),
        ("limits.timeout = \"2d\"", "limits.timeout: \"2d\" is out of bounds; from 10ms to 1d"),
        ("limits.output = \"0B\"", "limits.output: \"0B\" is out of bounds; from 1B to 5TiB"),
        ("limits.log = \"1GiB\"", "limits.log: \"1GiB\" is out of bounds; from 0B to 1MiB"),
        ("retry.max_attempts = 0", "retry.max_attempts: 0 is out of bounds; from 1 to 100"),
        ("retry.max_attempts = -1", "retry.max_attempts: -1 is out of bounds; from 1 to 100"),
        ("retry.base = \"0s\"", "retry.base: \"0s\" is out of bounds; from 1ms to 1d"),
        ("retry.cap = \"2d\"", "retry.cap: \"2d\" is out of bounds; from 1ms to 1d"),
        ("retry.cap = \"500ms\"", "retry.cap: is shorter than the first wait, 1s; raise cap or lower base"),
        ("fresh_for = \"1000d\"", "fresh_for: \"1000d\" is out of bounds; from 1ms to 366d"),
    ];
    for (line, expected) in bounds {
        let answer = answer_asset(line);
        assert_eq!(answer.split_once(" assets.raw.").unwrap().1, expected, "{line}");
    }
    let config = format!("config.text = \"{}\"\n", "x".repeat(limit::CONFIG_BYTES_MAX));
    assert!(answer_asset(&config).contains("are more than a configuration's 65536"));
}

#[test]
fn words_are_one_of_a_few() {
    check(
        answer_asset("retry.backoff = \"exponental\"\n"),
        "flowstone.toml:9:17: assets.raw.retry.backoff: \"exponental\" is not known here; did you mean `exponential`?",
    );
    check(
        answer("[resources.a]\nkind = \"queue\"\npath = \"x\"\n"),
        "flowstone.toml:6:8: resources.a.kind: \"queue\" is not known here; \
         write one of \"directory\", \"clock\", \"random\", \"secret\", \"http\", \"sql\", \"key-value\"",
    );
    check(
        answer(&format!("{STATION}access = \"all\"\n")),
        "flowstone.toml:8:10: resources.station.access: \"all\" is not known here; \
         write one of \"read\", \"read-write\"",
    );
}

#[test]
fn a_grant_names_a_resource_and_stays_within_it() {
    check(
        answer_asset("grants = { staton = { paths = [\"**\"] } }\n"),
        "flowstone.toml:9:21: assets.raw.grants.staton: there is no resource `staton`; did you mean `station`?",
    );
    check(
        answer_asset("grants = { other = { paths = [\"**\"] } }\n"),
        "flowstone.toml:9:20: assets.raw.grants.other: there is no resource `other`; \
         declare [resources.other] with its kind, for example kind = \"directory\" and path = \"...\"",
    );
    check(
        answer_asset("grants = { station = { access = \"read-write\", paths = [\"**\"] } }\n"),
        "flowstone.toml:9:33: assets.raw.grants.station.access: the resource may only be read; \
         grant \"read\", or set resources.station.access = \"read-write\"",
    );
    check(
        answer_asset("grants = { station = { paths = [\"**\"], write = \"1MiB\" } }\n"),
        "flowstone.toml:9:48: assets.raw.grants.station.write: changes nothing without access = \"read-write\"; remove it",
    );
    check(
        answer_asset("grants = { station = { paths = [\"**\"], entries = 5 } }\n"),
        "flowstone.toml:9:50: assets.raw.grants.station.entries: changes nothing without access = \"read-write\"; remove it",
    );
    let mounted =
        |mount: &str| settings(&format!("grants.station = {{ paths = [\"**\"], mount = \"{mount}\" }}")).grants;
    assert_eq!(mounted("/data/2012")[0].directory().unwrap().mount.as_deref(), Some("/data/2012"));
    for mount in ["", "/", "data", "/data/", "/data/../etc", "/a//b", "/a\\nb"] {
        let said = answer_asset(&format!("grants.station = {{ paths = [\"**\"], mount = \"{mount}\" }}\n"));
        assert!(said.contains("is no place to mount a directory; write an absolute path"), "{mount}: {said}");
    }
    for entries in ["0", "257", "-1"] {
        let line = format!("grants = {{ station = {{ paths = [\"**\"], entries = {entries} }} }}\n");
        assert!(answer_asset(&line).contains(&format!("{entries} is out of bounds; from 1 to 256")), "{entries}");
    }
}

#[test]
fn an_empty_list_of_globs_means_nothing_and_is_refused() {
    check(
        answer_asset("grants.station.paths = []\n"),
        "flowstone.toml:9:24: assets.raw.grants.station.paths: an empty list grants nothing; \
         list globs, or remove the grant",
    );
    check(
        answer_asset("grants.station = {}\n"),
        "flowstone.toml:9:8: assets.raw.grants.station.paths: missing; \
         list globs, for example paths = [\"*.csv\"]; \"**\" is everything",
    );
    assert_eq!(answer_asset("grants.station.paths = [\"*\", \"*.csv\", \"**\", \"a/**/b?.{csv,txt}\"]\n"), "sound");
}

#[test]
fn globs_that_match_nothing_are_refused() {
    for glob in ["/etc/passwd", "../x", "a/../b", "./a", "a//b"] {
        check(
            answer_asset(&format!("grants.station.paths = [\"{glob}\"]\n")),
            &format!(
                "flowstone.toml:9:24: assets.raw.grants.station.paths: \"{glob}\" can match nothing; \
                 paths are relative to the directory, without `.` and `..`"
            ),
        );
    }
    check(
        answer_asset("grants.station.paths = [\"[a\"]\n"),
        "flowstone.toml:9:24: assets.raw.grants.station.paths: \"[a\" is not a glob: \
         unclosed character class; missing ']'; write one such as \"*.csv\" or \"**\"",
    );
    assert!(answer_asset("grants.station.paths = [\"\"]\n").contains("is not a glob of 1 to 1024 bytes"));
    let many = vec!["\"a\""; limit::GRANT_PATHS_MAX + 1].join(",");
    assert!(answer_asset(&format!("grants.station.paths = [{many}]\n")).ends_with("65 globs are more than 64"));
}

#[test]
fn names_and_paths_are_sound() {
    check(
        answer_whole(
            "pipeline.name = \"My Pipeline\"\ncomponents = [{ path = \"\" }, { path = \"a\" }, { path = \"a\" }]\n",
        ),
        "flowstone.toml:1:17: pipeline.name: `My Pipeline` is not a name for a pipeline; \
         use a-z, 0-9 and _, beginning with a letter, at most 64 characters\n\
         flowstone.toml:2:24: components[0].path: \"\" is not a path; write the path, relative to the manifest\n\
         flowstone.toml:2:55: components[2].path: \"a\" is listed twice; remove one of the two",
    );
    assert!(answer("[assets.Raw]\n").contains("`Raw` is not a name for an asset"));
    assert!(answer("[resources.\"a b\"]\nkind = \"directory\"\npath = \"x\"\n").contains("not a name for a resource"));
}

#[test]
fn a_manifest_without_end_is_refused() {
    let answer = answer(&"#".repeat(limit::MANIFEST_BYTES_MAX));
    assert_eq!(answer, "flowstone.toml: 16777281 bytes are more than the 16777216 that a manifest may have");
    let many: String =
        (0..=limit::COMPONENTS_PER_PIPELINE_MAX).map(|i| format!("[[components]]\npath = \"{i}\"\n")).collect();
    assert!(answer_whole(&format!("pipeline.name = \"a\"\n{many}")).contains("257 components are more than the 256"));
    let many: String = (0..=limit::ASSETS_PER_PIPELINE_MAX).map(|i| format!("[assets.a{i}]\n")).collect();
    let resources: String = (0..=limit::RESOURCES_PER_PIPELINE_MAX)
        .map(|i| format!("[resources.r{i}]\nkind = \"directory\"\npath = \"x\"\n"))
        .collect();
    assert!(self::answer(&resources).contains("1025 resources are more than the 1024"));
    assert!(self::answer(&many).contains("10001 assets are more than the 10000"));
}
