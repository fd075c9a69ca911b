//! Granted buckets through the real command: real components, our own interface and both drafts of `wasi:keyvalue`;
//! what an attempt sees, what becomes true with its commit, and who meets whom. The guests are those of
//! `tests/guests/key-value` and `tests/guests/wasi-key-value`.

use std::{collections::BTreeMap, fs};

use flowstone::limit::DENIALS_MAX;
use flowstone_tests::{
    Flowstone, Output,
    deadline::wait_until_database_says,
    fault::{COMMIT_STEPS, Fault, Gate, SOMEBODY_WAITS_AT_THE_GATE, Step, When, let_sessions_expire, remove},
    pipeline::{ended, guest, root},
    signal,
};
use serde_json::{Value, json};

use crate::checker::{assert_sound, violations};

/// A pipeline of one component's assets, with the resource `bucket`.
struct Setting {
    flowstone: Flowstone,
}

const ASSETS: [&str; 5] = ["scripted", "scripted_too", "counts", "counts_by_reading", "insists"];
const ALL: &str = "access = \"read-write\", keys = [\"**\"]";
const DECLARED: &str = "[resources.bucket]\nkind = \"key-value\"\n";

impl Setting {
    fn new(more: &str) -> Self {
        let setting = Self { flowstone: Flowstone::new() };
        setting.bind("kv", &format!("{DECLARED}{more}"));
        setting
    }

    /// Writes a pipeline's manifest: what the test does not speak of has a grant that nothing uses.
    fn bind(&self, pipeline: &str, more: &str) {
        let idle: String = ASSETS
            .iter()
            .filter(|asset| !more.contains(&format!("[assets.{asset}]")))
            .map(|asset| {
                format!("[assets.{asset}]\ngrants.bucket = {{ keys = [\"unused\"] }}\nconfig = {{ steps = [] }}\n")
            })
            .collect();
        let component = guest("key-value");
        self.write(pipeline, &format!("[[components]]\npath = \"{}\"\n{more}\n{idle}", component.display()));
    }

    fn write(&self, pipeline: &str, text: &str) {
        let text = format!("[pipeline]\nname = \"{pipeline}\"\n{text}");
        fs::write(self.flowstone.folder().join(format!("{pipeline}.toml")), text).unwrap();
    }

    #[track_caller]
    fn run_of(&self, pipeline: &str, asset: &str, arguments: &[&str], status: i32) -> Output {
        let manifest = format!("./{pipeline}.toml");
        let all = [&["run", &manifest, asset, "--json"], arguments].concat();
        self.flowstone.run(all).expect_status(status)
    }

    #[track_caller]
    fn run(&self, asset: &str, status: i32) -> Output {
        self.run_of("kv", asset, &[], status)
    }

    /// Runs `scripted` with these steps, which must succeed: what it says.
    #[track_caller]
    fn script(&self, grant: &str, steps: &[&[&str]]) -> Vec<String> {
        self.bind("kv", &format!("{DECLARED}{}", scripted("scripted", grant, steps, "done")));
        self.run("scripted", 0);
        self.said("kv", "scripted")
    }

    fn said(&self, pipeline: &str, asset: &str) -> Vec<String> {
        let shown = self.flowstone.run(["show", pipeline, asset]).expect_status(0).stdout;
        shown.lines().map(|line| line.split_once(": ").map_or(line, |(_, answer)| answer).to_owned()).collect()
    }

    /// What is in the database.
    fn values(&self) -> Vec<String> {
        self.flowstone
            .database()
            .ask("select key || '=' || convert_from(value, 'UTF8') from bucket_entry order by owner_id, bucket, key")
    }

    fn verdicts(&self) -> Vec<String> {
        self.flowstone
            .database()
            .ask("select verdict || case when charged then '' else ', uncharged' end from attempt order by started_at")
    }

    async fn assert_sound(&self) {
        let pool = self.flowstone.database().pool().await;
        assert_sound(&violations(&pool, &self.flowstone.state_dir().join("blobs")).await);
    }
}

/// An asset that does these steps and ends so.
fn scripted(asset: &str, grant: &str, steps: &[&[&str]], end: &str) -> String {
    let steps = serde_json::to_string(steps).unwrap();
    format!(
        "[assets.{asset}]\nconfig = {{ steps = {steps}, end = \"{end}\" }}\ngrants.bucket = {{ {grant} }}\n\
         retry = {{ max_attempts = 1 }}\n"
    )
}

/// Where a commit writes values, and holds their bucket.
fn entries_are_written() -> &'static Step {
    COMMIT_STEPS.iter().find(|step| (step.table, step.operation) == ("bucket_entry", "insert")).unwrap()
}

fn parsed(lists: Vec<String>) -> Vec<Value> {
    lists.iter().flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap()).collect()
}

/// What the example's log says, computed in another way.
fn visits(day: u32) -> impl Iterator<Item = (u32, &'static str)> {
    (0..30_u32).map(move |n| ((day * 7 + n * n) % 61, ["home", "shop", "help"][n as usize % 3]))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_remembers_what_days_that_are_counted_at_once_have_in_common() {
    let setting = Setting { flowstone: Flowstone::new() };
    let folder = root().join("examples/visits");
    let run = |arguments: &[&str]| {
        let output = setting.flowstone.run([&["run", folder.to_str().unwrap(), "--json"], arguments].concat());
        let output = output.expect_status(0);
        ended(&output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>())
    };
    assert_eq!(run(&["--concurrency", "7"]).len(), 7 + 7 + 1);
    let shown = setting.flowstone.run(["show", "visits", "week"]).expect_status(0).stdout;
    let week: Value = serde_json::from_str(&shown).unwrap();
    let (mut pages, mut first) = (BTreeMap::new(), BTreeMap::new());
    for day in (4..=10).rev() {
        for (visitor, page) in visits(day) {
            *pages.entry(page).or_insert(0) += 1;
            first.insert(visitor, day);
        }
    }
    let mut new = BTreeMap::new();
    for day in first.values() {
        *new.entry(format!("2024-03-{day:02}")).or_insert(0) += 1;
    }
    assert_eq!(week, json!({ "pages": pages, "new_visitors": new }));
    // What was counted is not counted again; only looking is done anew.
    assert_eq!(run(&[]), ["week succeeded"]);
    assert_eq!(setting.flowstone.run(["show", "visits", "week"]).expect_status(0).stdout, shown);
    setting.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_sees_its_own_writes_and_the_next_job_what_was_committed() {
    let setting = Setting::new("");
    let steps: &[&[&str]] = &[
        &["get", "a"],
        &["set", "a", "1"],
        &["get", "a"],
        &["remove", "a"],
        &["get", "a"],
        &["set", "a", "2"],
        &["increment", "n", "5"],
        &["increment", "n", "-2"],
        &["get", "n"],
        &["increment", "n", "1"],
        &["increment", "a", "40"],
        &["set", "word", "one"],
        &["increment", "word", "1"],
        &["keys", ""],
    ];
    let said = setting.script(ALL, steps);
    let no_number = "invalid: its value is not the decimal text of a 64-bit integer";
    assert_eq!(
        said,
        ["nothing", "ok", "1", "ok", "nothing", "ok", "ok", "ok", "3", "ok", "ok", "ok", no_number, "a n word"]
    );
    assert_eq!(setting.values(), ["a=42", "n=4", "word=one"]);
    assert_eq!(setting.script(ALL, &[&["get", "a"], &["remove", "word"], &["keys", ""]]), ["42", "ok", "a n"]);
    assert_eq!(setting.values(), ["a=42", "n=4"]);
    setting.assert_sound().await;
}

#[test]
fn compare_and_set_writes_only_over_what_was_looked_at() {
    let setting = Setting::new("");
    let steps: &[&[&str]] = &[
        &["look", "k"],
        &["swap", "k", "first"],
        &["swap", "k", "again"],
        &["look", "k"],
        &["swap", "k", "second"],
        &["swap", "k", "third"],
        &["get", "k"],
    ];
    assert_eq!(setting.script(ALL, steps), ["nothing", "true", "false", "first", "true", "false", "second"]);
    // Over what an earlier job has left.
    let steps: &[&[&str]] = &[&["look", "other"], &["swap", "k", "x"], &["look", "k"], &["swap", "k", "third"]];
    assert_eq!(setting.script(ALL, steps), ["nothing", "false", "second", "true"]);
    assert_eq!(setting.values(), ["k=third"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_wrote_is_dropped_unless_it_succeeds() {
    let setting = Setting::new("");
    let steps: &[&[&str]] = &[&["set", "a", "1"], &["increment", "n", "1"], &["get", "b"]];
    for (end, status) in [("fail", 1), ("retry", 1), ("panic", 1), ("skip", 0)] {
        setting.bind("kv", &format!("{DECLARED}{}", scripted("scripted", ALL, steps, end)));
        setting.run("scripted", status);
        assert_eq!(setting.values(), [""; 0], "{end}");
    }
    assert_eq!(setting.verdicts(), ["failed", "failed", "trapped", "skipped"]);
    setting.assert_sound().await;
}

#[test]
fn what_the_grant_does_not_name_is_denied_and_the_record_says_what_would_grant_it() {
    let setting = Setting::new("");
    setting.script(ALL, &[&["set", "a/1", "x"], &["set", "b/1", "x"], &["set", "c", "x"]]);
    let steps: &[&[&str]] = &[
        &["get", "a/1"],
        &["get", "b/1"],
        &["get", "b/absent"],
        &["get", "c"],
        &["set", "a/1", "y"],
        &["increment", "a/1", "1"],
        &["remove", "c"],
        &["keys", ""],
        &["keys", "a"],
        &["keys", "b"],
    ];
    let said = setting.script("keys = [\"a/**\", \"c\"]", steps);
    let denied = "denied";
    assert_eq!(said, ["x", denied, denied, "x", denied, denied, denied, "a/1 c", "a/1", denied]);
    let denials =
        parsed(setting.flowstone.database().ask("select denials::text from attempt where denials is not null"));
    let remedies: Vec<&str> = denials.iter().map(|denial| denial["remedy"].as_str().unwrap()).collect();
    let grants = |grant: &str| format!("[assets.scripted] grants = {{ bucket = {{ {grant} }} }}");
    assert_eq!(
        remedies,
        [
            grants("access = \"read\", keys = [\"b/1\"]"),
            grants("access = \"read\", keys = [\"b/absent\"]"),
            grants("access = \"read-write\", keys = [\"a/1\"]"),
            grants("access = \"read-write\", keys = [\"a/1\"]"),
            grants("access = \"read-write\", keys = [\"c\"]"),
            grants("access = \"read\", keys = [\"b**\"]"),
        ]
    );
    assert_eq!(setting.values(), ["a/1=x", "b/1=x", "c=x"]);
}

#[test]
fn a_guest_without_a_grant_is_stopped_at_its_first_call() {
    let setting = Setting::new("");
    setting.run("has_no_grant", 1);
    assert_eq!(setting.verdicts(), ["denied"]);
    let denials = parsed(setting.flowstone.database().ask("select denials::text from attempt"));
    let remedy = "[assets.has_no_grant] grants = { bucket = { access = \"read\", keys = [\"**\"] } }";
    assert_eq!(denials[0]["remedy"], remedy);
}

#[test]
fn a_guest_that_insists_is_denied_each_time_and_its_record_stays_small() {
    let setting = Setting::new("");
    setting.run("insists", 0);
    assert_eq!(setting.flowstone.run(["show", "kv", "insists"]).stdout, "40000 times");
    let denials = parsed(setting.flowstone.database().ask("select denials::text from attempt"));
    assert_eq!(denials.len(), DENIALS_MAX);
    let calls = "select sum((u->>'calls')::bigint)::text from attempt, jsonb_array_elements(uses) u";
    assert_eq!(setting.flowstone.database().ask(calls), ["40000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_buckets_end_at_their_bounds() {
    let setting = Setting::new("");
    let long = "k".repeat(1_024);
    let longer = "k".repeat(1_025);
    let steps: &[&[&str]] = &[
        &["set", &long, ""],
        &["set", &longer, ""],
        &["get", &longer],
        &["set", "", ""],
        &["get", ""],
        &["set-bytes", "large", "65536"],
        &["set-bytes", "larger", "65537"],
        &["remove", &long],
    ];
    let key = |length: usize| format!("invalid: a key has 1 to 1024 bytes, not {length}");
    let value = "limit reached: the bucket's limit of 65536 bytes a value";
    assert_eq!(setting.script(ALL, steps), ["ok", &key(1_025), &key(1_025), &key(0), &key(0), "ok", value, "ok"]);
    // Of one attempt.
    let few = format!("{ALL}, writes = 3, write = \"300B\"");
    let steps: &[&[&str]] = &[
        &["set-bytes", "a", "100"],
        &["set-bytes", "b", "200"],
        &["set-bytes", "b", "10"],
        &["set", "b", "again"],
        &["increment", "c", "1"],
        &["remove", "d"],
    ];
    let (bytes, keys) = (
        "limit reached: the grant's limit of 300 bytes of writes",
        "limit reached: the grant's limit of 3 keys written",
    );
    assert_eq!(setting.script(&few, steps), ["ok", bytes, "ok", "ok", "ok", keys]);

    // Of the bucket: only the commit can say.
    let small = "[resources.bucket]\nkind = \"key-value\"\nmax_keys = 5\nmax_value = \"100B\"\nmax_bytes = \"1KiB\"\n";
    let bind = |steps: &[&[&str]]| {
        setting.bind("kv", &format!("{small}{}", scripted("scripted", ALL, steps, "done")));
    };
    bind(&[&["remove", "large"], &["set-many", "m", "4", "10"]]);
    let refused = setting.run("scripted", 1);
    assert!(refused.stdout.contains("would hold 7 keys, more than its bound of 5"), "{}", refused.stdout);
    assert!(!setting.values().iter().any(|value| value.starts_with('m')), "{:?}", setting.values());
    bind(&[&["remove", "large"], &["remove", "a"], &["remove", "b"], &["remove", "c"], &["set-many", "m", "5", "100"]]);
    setting.run("scripted", 0);
    assert_eq!(setting.values().len(), 5);
    setting.assert_sound().await;
}

#[test]
fn a_listing_is_in_order_over_many_pages_with_what_the_attempt_wrote_merged_in() {
    let setting = Setting::new("");
    let many = format!("{ALL}, writes = 5000, write = \"2MiB\"");
    setting.script(&many, &[&["set-many", "p/", "2500", "1"], &["set", "q", ""]]);
    let steps: &[&[&str]] = &[
        &["keys", "p/"],
        &["keys", "p/00000"],
        &["remove", "p/000000"],
        &["set", "p/000001.5", ""],
        &["increment", "p/000003.5", "1"],
        &["remove", "p/000004"],
        &["keys", "p/00000"],
        &["set", "p/zzz", ""],
        &["remove", "p/002499"],
        &["keys", "p/"],
        &["set-many", "o/", "1500", "0"],
        &["keys", "o/"],
        &["keys", "none"],
    ];
    let ten: Vec<String> = (0..10).map(|n| format!("p/{n:06}")).collect();
    let changed = "p/000001 p/000001.5 p/000002 p/000003 p/000003.5 p/000005 p/000006 p/000007 p/000008 p/000009";
    assert_eq!(
        setting.script(&many, steps),
        [
            "2500 p/000000 p/002499",
            &ten.join(" "),
            "ok",
            "ok",
            "ok",
            "ok",
            changed,
            "ok",
            "ok",
            "2500 p/000001 p/zzz",
            "ok",
            "1500 o/000000 o/001499",
            ""
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_that_count_at_once_give_the_exact_sum() {
    let setting = Setting::new(&format!("[assets.counts]\ngrants.bucket = {{ {ALL} }}\n"));
    setting.run_of("kv", "counts", &["--concurrency", "16"], 0);
    assert_eq!(setting.values(), ["total=300"]);
    assert_eq!(setting.verdicts(), vec!["succeeded"; 100], "nobody ran twice");
    setting.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_look_before_they_write_give_the_exact_sum_too() {
    let setting = Setting::new(&format!("[assets.counts_by_reading]\ngrants.bucket = {{ {ALL} }}\n"));
    setting.run_of("kv", "counts_by_reading", &["--concurrency", "8"], 0);
    let values = setting.values();
    assert_eq!(values[0], "total=21");
    let mut days: Vec<&str> = values[1..].iter().map(|value| value.split_once('=').unwrap().1).collect();
    days.sort_unstable();
    days.dedup();
    assert_eq!((values.len(), days.len()), (22, 21), "each day was counted once: {values:?}");
    let verdicts = setting.verdicts();
    let charged = verdicts.iter().filter(|verdict| *verdict == "succeeded").count();
    assert_eq!(charged, 21);
    assert!(
        verdicts.iter().all(|verdict| ["succeeded", "conflicted, uncharged"].contains(&&**verdict)),
        "{verdicts:?}"
    );
    setting.assert_sound().await;
}

/// The attempt is over and its commit has begun, when somebody else commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changed_since_it_was_read_makes_the_attempt_run_again_without_charge() {
    let setting = Setting::new("");
    setting.script(ALL, &[&["set", "a", "old"]]);
    let steps: &[&[&str]] = &[&["get", "a"], &["set", "mine", "here"], &["increment", "n", "1"]];
    let pool = setting.flowstone.database().pool().await;
    let changes = [
        ("update bucket_entry set value = 'new', version = nextval('bucket_version')", &steps, "new"),
        (
            "delete from bucket_entry where key = 'a'; update bucket set keys = keys - 1, bytes = bytes - 4",
            &steps,
            "nothing",
        ),
    ];
    for (change, steps, seen) in changes {
        // Another configuration makes it another result each time.
        setting.bind("kv", &format!("{DECLARED}{}", scripted("scripted_too", ALL, steps, "done")));
        let gate = Gate::close(setting.flowstone.database()).await;
        COMMIT_STEPS[0].inject(&pool, When::Before, Fault::Gated).await;
        let running = setting.flowstone.start(["run", "./kv.toml", "scripted_too", "--json", "--force"]);
        wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        sqlx::raw_sql(change).execute(&pool).await.unwrap();
        gate.open().await;
        let output = running.wait().expect_status(0);
        remove(&pool).await;
        let cause = "keys of bucket `bucket` changed while the attempt used them";
        assert!(output.stdout.contains(cause), "the command tells it: {}", output.stdout);
        assert_eq!(setting.said("kv", "scripted_too")[0], seen);
        setting.flowstone.database().execute("delete from bucket_entry where key in ('mine', 'n'); update bucket set keys = (select count(*) from bucket_entry), bytes = (select coalesce(sum(octet_length(key) + octet_length(value)), 0) from bucket_entry)");
    }
    assert_eq!(
        setting.verdicts(),
        ["succeeded", "conflicted, uncharged", "succeeded", "conflicted, uncharged", "succeeded"]
    );
    setting.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_in_its_commit_leaves_nothing_of_it() {
    let setting = Setting::new("");
    let steps: &[&[&str]] = &[&["increment", "n", "1"], &["set", "k", "v"]];
    setting.bind("kv", &format!("{DECLARED}{}", scripted("scripted", ALL, steps, "done")));
    let pool = setting.flowstone.database().pool().await;
    let step = entries_are_written();
    for _ in 0..2 {
        let gate = Gate::close(setting.flowstone.database()).await;
        step.inject(&pool, When::After, Fault::Gated).await;
        let running = setting.flowstone.start(["run", "./kv.toml", "scripted"]);
        wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
        running.kill();
        gate.open().await;
        let_sessions_expire(&pool).await;
        remove(&pool).await;
        assert_eq!(setting.values(), [""; 0]);
        setting.assert_sound().await;
    }
    setting.run("scripted", 0);
    assert_eq!(setting.values(), ["k=v", "n=1"]);
    setting.assert_sound().await;
}

#[test]
fn a_pipelines_bucket_is_its_own_whatever_others_call_theirs() {
    let setting = Setting::new("");
    for pipeline in ["one", "two"] {
        let steps: &[&[&str]] = &[&["get", "k"], &["set", "k", pipeline], &["keys", ""]];
        setting.bind(pipeline, &format!("{DECLARED}{}", scripted("scripted", ALL, steps, "done")));
        setting.run_of(pipeline, "scripted", &[], 0);
        assert_eq!(setting.said(pipeline, "scripted"), ["nothing", "ok", "k"]);
    }
    for pipeline in ["one", "two"] {
        setting.run_of(pipeline, "scripted", &["--force"], 0);
        assert_eq!(setting.said(pipeline, "scripted")[0], pipeline);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_bucket_is_one_for_all_pipelines() {
    let setting = Setting::new("");
    let folder = setting.flowstone.folder();
    fs::write(folder.join("operator.toml"), format!("{DECLARED}access = \"read-write\"\n")).unwrap();
    setting.flowstone.run(["resource", "add", "./operator.toml"]).expect_status(0);
    for pipeline in ["one", "two"] {
        setting.bind(pipeline, &format!("[assets.counts]\ngrants.bucket = {{ {ALL} }}\n"));
    }
    // Two processes at once.
    let start = |pipeline: &str| {
        setting.flowstone.start(["run", &format!("./{pipeline}.toml"), "counts", "--concurrency", "4"])
    };
    let running = ["one", "two"].map(start);
    for running in running {
        running.wait().expect_status(0);
    }
    assert_eq!(setting.values(), ["total=600"]);
    let table = setting.flowstone.run(["grants", "one"]).expect_status(0).stdout;
    let row = table.lines().find(|line| line.starts_with("counts")).unwrap();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["counts", "key-value", "bucket", "read-write **, writes up to 1000 keys of 1MiB", "operator"]);

    // What the operator lowers or takes away holds for what was deployed before.
    fs::write(folder.join("operator.toml"), format!("{DECLARED}access = \"read\"\n")).unwrap();
    setting.flowstone.run(["resource", "add", "./operator.toml"]).expect_status(0);
    let refused = setting.flowstone.run(["run", "one", "counts", "--force"]).expect_status(1);
    assert!(refused.stderr.contains("the resource may only be read"), "{}", refused.stderr);
    assert_eq!(setting.values(), ["total=600"]);
    setting.assert_sound().await;
}

#[test]
fn every_use_is_recorded_and_what_was_read_is_a_source() {
    let setting = Setting::new("");
    setting.script(ALL, &[&["set", "a", "12345"], &["set", "b", "1"]]);
    let steps: &[&[&str]] = &[&["get", "a"], &["get", "a"], &["get", "absent"], &["keys", "a"], &["set", "c", "xy"]];
    setting.script(ALL, steps);
    let uses = setting.flowstone.database().ask("select uses::text from attempt order by started_at desc limit 1");
    let said = |used: &Value| {
        let word = |name: &str| used[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| used[name].as_u64().unwrap();
        format!("{} {} {} {} {}", word("operation"), word("target"), word("result"), number("calls"), number("bytes"))
    };
    let uses: Vec<String> = parsed(uses).iter().map(said).collect();
    assert_eq!(uses, ["get a ok 2 10", "get absent ok 1 0", "keys a ok 2 1", "set c ok 1 2"]);
    let sources =
        setting.flowstone.database().ask("select kind || ' ' || items || ' ' || size_bytes from external_read");
    // Two keys that were read, of which one is there, and one that was listed.
    assert_eq!(sources, ["key-value 3 6"]);
    let tree = setting.flowstone.run(["lineage", "kv", "scripted"]).expect_status(0).stdout;
    assert!(tree.contains("key-value `bucket`") && tree.contains("3 keys"), "{tree}");
    let logs = setting.flowstone.run(["logs", "latest"]).expect_status(0).stdout;
    assert!(logs.contains("key-value") && logs.contains("bucket"), "{logs}");
}

#[test]
fn code_that_brings_the_standards_interface_reaches_the_same_buckets_in_both_drafts() {
    let setting = Setting::new("");
    let grant = "access = \"read-write\", keys = [\"a/**\"], writes = 5000";
    for asset in ["first_draft", "second_draft"] {
        setting.script(ALL, &[&["set", "a/1", "one"], &["set", "a/below", "-7"], &["set", "b/1", "hidden"]]);
        // Under the name of the pipeline whose bucket it is.
        setting.write(
            "kv",
            &format!(
                "[[components]]\npath = \"{}\"\n{DECLARED}[assets.first_draft]\ngrants.bucket = {{ {grant} }}\n\
                 [assets.second_draft]\ngrants.bucket = {{ {grant} }}\n",
                guest("wasi-key-value").display()
            ),
        );
        setting.run(asset, 0);
        let said = setting.flowstone.run(["show", "kv", asset]).expect_status(0).stdout;
        let common = "\
open: Some(Error::AccessDenied)
get: Ok(Some([111, 110, 101]))
exists: Ok(true) Ok(false)
set: Ok(())
get: Ok(Some([116, 119, 111]))
delete: Ok(()) Ok(None)
denied: Err(Error::AccessDenied)
invalid: Err(Error::Other(\"invalid: a key has 1 to 1024 bytes, not 0\"))
set-many: Ok(())
set-many of too many: Err(Error::Other(\"invalid: 1001 keys in one call, more than 1000\"))
delete-many: Ok(())
set one: Ok(())
";
        let own = match asset {
            "first_draft" => {
                "\
get-many: [Some((\"a/1\", [111, 110, 101])), None]
increment: Ok(4) Ok(42)
increment below: Err(Error::Other(\"invalid: a counter is a signed number of 64 bits, and here never negative\"))
list-keys: 2 of 1002 [\"a/many/0996\", \"a/many/0997\", \"a/zero\"]
list-keys of no page: Err(Error::Other(\"invalid: no page ended with this cursor\"))
"
            }
            _ => {
                "\
get-many: [(\"a/1\", Some([111, 110, 101])), (\"a/9\", None)]
increment: Ok(4) Ok(42)
increment below: Ok(-6)
list-keys: 2 of 1002 [\"a/many/0996\", \"a/many/0997\", \"a/zero\"]
current: Ok(Some([111, 110, 101]))
failed: Ok(Some([99, 104, 97, 110, 103, 101, 100]))
swap: true Ok(Some([115, 119, 97, 112, 112, 101, 100]))
create: Ok(None) true
comparisons: 1000 Error::Other(\"limit reached: at most 1000 comparisons are open at once\")
"
            }
        };
        assert_eq!(said, format!("{common}{own}"), "{asset}");
        let values = setting.values();
        let has = |value: &str| values.iter().any(|known| known == value);
        assert!(has("a/count=42") && has("a/zero=0") && has("a/many/0000=x") && has("b/1=hidden"), "{values:?}");
        setting.flowstone.database().execute(
            "delete from bucket_entry; update bucket set keys = 0, bytes = 0, keys_version = nextval('bucket_version')",
        );
    }
    setting.run("has_no_grant", 1);
    assert_eq!(setting.verdicts().last().map(String::as_str), Some("denied"));
}

/// A worker that stands still in the middle of its commit holds what others wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_in_its_commit_does_not_hold_a_bucket_for_ever() {
    let setting = Setting::new("");
    let steps: &[&[&str]] = &[&["increment", "n", "1"]];
    let both = scripted("scripted", ALL, steps, "done") + &scripted("scripted_too", ALL, steps, "done");
    setting.bind("kv", &format!("{DECLARED}{both}"));
    let pool = setting.flowstone.database().pool().await;
    let gate = Gate::close(setting.flowstone.database()).await;
    let step = entries_are_written();
    step.inject(&pool, When::After, Fault::Gated).await;
    let stopped = setting.flowstone.start(["run", "./kv.toml", "scripted"]);
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    signal(stopped.pid(), "STOP");
    gate.open().await;
    wait_until_database_says(
        &pool,
        "select exists (select from pg_stat_activity
             where datname = current_database() and state = 'idle in transaction')",
    )
    .await;
    // The other one waits for the bucket until the server ends the transaction.
    setting.run("scripted_too", 0);
    assert_eq!(setting.values(), ["n=1"]);
    signal(stopped.pid(), "CONT");
    stopped.wait().expect_status(0);
    assert_eq!(setting.values(), ["n=2"]);
    setting.assert_sound().await;
}
