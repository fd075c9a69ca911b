//! The attacks of `examples/hostile`, through the real command: each ends in its own verdict within its own limits, says
//! why, and the honest assets beside them do not notice.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use flowstone_tests::{
    Flowstone, Output,
    guest::{Described, component_that},
    pipeline::root,
};
use serde_json::{Value, json};

/// How an attack must end.
struct Expected {
    asset: &'static str,
    verdict: &'static str,
    /// Words of the cause; of an attack that may succeed, all of its output.
    words: &'static str,
    /// What the attempt's record says was refused, and the line that would grant it.
    denied: Option<[&'static str; 4]>,
}

const fn attack(asset: &'static str, verdict: &'static str, words: &'static str) -> Expected {
    Expected { asset, verdict, words, denied: None }
}

const EXPECTED: &[Expected] = &[
    attack("honest", "succeeded", "3152"),
    attack("honest_downstream", "succeeded", "All of it costs 31.52."),
    attack("loops_forever", "out-of-fuel", "it used all of its 200000000 units of fuel"),
    attack("stalls", "timed-out", "it was stopped at its deadline of 1000 ms"),
    attack("recurses_forever", "trapped", "call stack exhausted"),
    attack("allocates_forever", "out-of-memory", "it asked for more than its 33554432 bytes of memory"),
    attack("grows_tables", "out-of-memory", "it asked for a table of more than 100000 elements"),
    attack("traps", "trapped", "`unreachable` instruction executed"),
    attack("panics", "trapped", "`unreachable` instruction executed"),
    attack("writes_forever", "output-too-large", "it wrote more than its output limit of 4194304 bytes"),
    attack("logs_without_end", "succeeded", "logged 20,000 lines"),
    attack("reads_environment", "succeeded", r#"{"variables":[],"arguments":[]}"#),
    attack("reads_parent", "failed", "reading `../secret.csv` of directory `vault`: invalid"),
    attack("reads_absolute", "failed", "reading `/etc/passwd` of directory `vault`: invalid"),
    attack("opens_file", "failed", "No such file or directory"),
    attack("opens_socket", "failed", "Permission denied"),
    Expected {
        denied: Some(["files", "vault", "way_out.csv", "none: it is not a regular file, or a link leads to it"]),
        ..attack("follows_link", "failed", "reading `way_out.csv` of directory `vault`: denied")
    },
    Expected {
        denied: Some([
            "files",
            "vault",
            "",
            "[assets.opens_ungranted] grants = { vault = { access = \"read\", paths = ",
        ]),
        ..attack("opens_ungranted", "denied", "it called an interface of which it was granted nothing")
    },
    Expected {
        denied: Some(["inputs", "honest", "", "declare an input of that name"]),
        ..attack("reads_undeclared", "failed", "reading input `honest`: denied")
    },
];

/// Far more than the deadlines of all of them together, one after the other.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

#[test]
fn each_attack_ends_in_its_own_verdict_and_honest_assets_beside_it_succeed() {
    let flowstone = Flowstone::new();
    let manifest = root().join("examples/hostile");
    let manifest = manifest.to_str().unwrap();
    let began = Instant::now();
    let run = flowstone.run(["run", manifest]).expect_status(1);
    assert!(began.elapsed() < LONG_ENOUGH, "{:?}", began.elapsed());

    let logs = flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
    let Value::Array(attempts) = serde_json::from_str(&logs).unwrap() else { panic!("{logs}") };
    assert_eq!(attempts.len(), EXPECTED.len(), "nothing is tried twice, and every asset is expected");
    for expected in EXPECTED {
        let attempt = attempts.iter().find(|attempt| attempt["asset"] == expected.asset).unwrap();
        check(&flowstone, attempt, expected);
        if expected.verdict != "succeeded" {
            assert!(run.stdout.contains(&format!("{}: ", expected.asset)), "the cause is in the summary");
        }
    }
    check_bounds(&attempts);
    check_record(&flowstone);

    // The process that ran them was well to its end, and what it left is no hindrance to the next.
    let again = flowstone.run(["run", manifest, "honest", "honest_downstream"]).expect_status(0);
    assert!(again.stdout.contains("hostile is up to date"), "{}", again.stdout);
    let forced = flowstone.run(["run", manifest, "honest_downstream", "--force-all"]).expect_status(0);
    assert!(forced.stdout.contains("succeeded in"), "{}", forced.stdout);
}

#[track_caller]
fn check(flowstone: &Flowstone, attempt: &Value, expected: &Expected) {
    let Expected { asset, verdict, words, denied } = expected;
    assert_eq!((&attempt["verdict"], &attempt["charged"]), (&json!(verdict), &json!(true)), "{attempt:#}");
    if *verdict == "succeeded" {
        assert_eq!(flowstone.run(["show", "hostile", asset]).expect_status(0).stdout, *words, "{asset}");
    } else {
        let message = attempt["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{asset}: {message}");
        flowstone.run(["show", "hostile", asset]).expect_status(2);
    }
    let told: Vec<Option<&str>> = attempt["denials"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|denial| ["capability", "resource", "target", "remedy"].map(|field| denial[field].as_str()))
        .collect();
    match denied {
        None => assert_eq!(told, [], "{asset}"),
        Some([capability, resource, target, remedy]) => {
            assert_eq!(told[..3], [Some(*capability), Some(*resource), Some(*target)], "{asset}");
            assert!(told[3].unwrap().starts_with(remedy) && told.len() == 4, "{asset}: {told:?}");
        }
    }
}

/// What the manifest allows each of them is the most that it took.
fn check_bounds(attempts: &[Value]) {
    let of = |asset: &str| attempts.iter().find(|attempt| attempt["asset"] == asset).unwrap();
    let number = |asset: &str, field: &str| of(asset)[field].as_u64().unwrap();
    assert_eq!(number("loops_forever", "fuel_used"), 200_000_000);
    assert!((1_000_000..5_000_000).contains(&number("stalls", "duration_us")), "{:#}", of("stalls"));
    assert!((16 << 20..=32 << 20).contains(&number("allocates_forever", "memory_bytes_peak")));

    let panicked = of("panics")["log"].to_string();
    assert!(panicked.contains("this asset always panics"), "what it panicked with is in its log: {panicked}");
    let endless = of("logs_without_end");
    let (kept, dropped) = (endless["log"].as_array().unwrap(), endless["log_dropped"].as_u64().unwrap());
    assert_eq!(kept.len() as u64 + dropped, 20_000, "every line is kept or counted");
    assert!(!kept.is_empty() && endless["log"].to_string().len() < 4 * (16 << 10), "and few are kept");
    let escaped = |attempt: &Value| attempt.to_string().contains(r"\u001b");
    assert!(!attempts.iter().any(escaped), "no terminal escape is stored");
}

/// What the database must say after any run.
fn check_record(flowstone: &Flowstone) {
    let database = flowstone.database();
    let nothing: [&str; 0] = [];
    for (rule, broken) in [
        (
            "every job has ended",
            "select job_id::text from job where not exists (select from job_end where job_end.job_id = job.job_id)",
        ),
        (
            "no job is also in the queue",
            "select job_id::text from job_blocked union all select job_id::text from job_ready
             union all select job_id::text from job_deferred union all select job_id::text from job_lease
             union all select job_id::text from job_joined union all select job_id::text from job_limited union all select job_id::text from live_job",
        ),
        (
            "a job has a materialization if and only if it succeeded",
            "select job_id::text from job_end left join materialization using (tenant_id, job_id)
             where (state = 'succeeded') <> (materialization.job_id is not null)",
        ),
        (
            "an attempt that did not succeed made nothing",
            "select attempt_id::text from attempt join materialization using (tenant_id, attempt_id)
             where verdict <> 'succeeded'",
        ),
        (
            "a run counts what its jobs say",
            "select run_id::text from run cross join lateral (
                 select count(*) filter (where state = 'succeeded') as succeeded,
                        count(*) filter (where state = 'failed') as failed,
                        count(*) filter (where state = 'skipped') as skipped,
                        count(*) filter (where state = 'cancelled') as cancelled
                 from job_end join job using (tenant_id, job_id) where job.run_id = run.run_id) as counted
             where (run.succeeded, run.failed, run.skipped, run.cancelled)
                <> (counted.succeeded, counted.failed, counted.skipped, counted.cancelled)",
        ),
        ("every run has ended", "select run_id::text from run where finished_at is null"),
        ("nothing waits to be published", "select path from staged_file"),
    ] {
        assert_eq!(database.ask(broken), nothing, "{rule}");
    }
    assert_eq!(database.ask("select format('%s of %s', succeeded, jobs) from run"), ["4 of 19"]);
}

#[test]
fn a_component_that_describes_what_is_not_in_its_memory_is_refused_at_deploy() {
    let flowstone = Flowstone::new();
    let manifest = root().join("examples/hostile/garbage.toml");
    let refused = flowstone.run(["deploy", manifest.to_str().unwrap()]).expect_status(2);
    assert!(refused.stderr.contains("garbage.wasm: `describe` did not return: "), "{}", refused.stderr);
    assert!(refused.stderr.contains("out of bounds"), "{}", refused.stderr);
    assert_eq!(flowstone.database().ask("select name::text from pipeline"), [] as [&str; 0]);
}

const OUTPUT: &str = r#"(import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))"#;
const OPEN: &str = r#"(import "flowstone:asset/inputs@0.1.0" "open" (func $open (param i32 i32 i32 i32)))"#;

/// A pipeline of one component in the folder of the command.
fn pipeline(flowstone: &Flowstone, component: &[u8], more: &str) -> String {
    let manifest = flowstone.folder().join("flowstone.toml");
    fs::write(flowstone.folder().join("attack.wasm"), component).unwrap();
    let text = format!("[pipeline]\nname = \"attack\"\n[[components]]\npath = \"attack.wasm\"\n{more}");
    fs::write(&manifest, text).unwrap();
    manifest.to_str().unwrap().to_owned()
}

#[test]
fn guests_that_hold_all_they_may_leave_descriptors_for_the_host() {
    let flowstone = Flowstone::new();
    let hoards: Vec<String> = (0..4).map(|n| format!("hoards_{n}")).collect();
    let mut assets = vec![Described::new("large")];
    assets.extend(hoards.iter().map(|name| Described::new(name).reading("large")));
    // Each writes what is too large for a row, and opens it until it is refused: 256 times, and `large` itself never.
    let code = r#"(call $write (i32.const 65536) (i32.const 20000) (i32.const 512))
        (i64.store (i32.const 8192) (i64.const 0x656772616c))
        (loop $again
          (call $open (i32.const 8192) (i32.const 5) (i32.const 0) (i32.const 512))
          (br_if $again (i32.eqz (i32.load8_u (i32.const 512)))))"#;
    let component = component_that(&assets, &[OUTPUT, OPEN].concat(), code);
    let manifest = pipeline(&flowstone, &component, "");
    // As a shell starts a process, but with so few that one guest could take them all.
    let run = flowstone.command(["run", &manifest, "--concurrency", "4"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -S -n 200 && exec timeout 60 \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.current_dir(flowstone.folder());
    Output::of(&mut limited).expect_status(0);
    let tries = flowstone.database().ask("select format('%s %s', verdict, count(*)) from attempt group by verdict");
    assert_eq!(tries, ["succeeded 5"], "nothing was in anybody's way");
}

/// Clears a screen, names a window, fills a clipboard, colours by a single byte, turns text around.
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}31m\u{202e}gnp.exe\u{2028}";

#[test]
fn no_command_shows_a_terminal_what_a_guest_wrote_for_it() {
    let flowstone = Flowstone::new();
    let stored = |(at, byte): (usize, u8)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))\n", 8_192 + at);
    let stored: String = ESCAPES.bytes().enumerate().map(stored).collect();
    let length = ESCAPES.len();
    let imports = r#"(import "flowstone:asset/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
        (import "flowstone:asset/output@0.1.0" "set-metadata" (func $set_metadata (param i32 i32 i32)))
        (import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))"#;
    // The name of its metadata is `k`, the value the escapes; `fails` ends with them as its reason.
    let code = format!(
        r#"{stored}
        (call $write (i32.const 8192) (i32.const {length}) (i32.const 512))
        (i32.store8 (i32.const 9000) (i32.const 107))
        (i32.store (i32.const 9008) (i32.const 9000)) (i32.store (i32.const 9012) (i32.const 1))
        (i32.store (i32.const 9016) (i32.const 8192)) (i32.store (i32.const 9020) (i32.const {length}))
        (call $set_metadata (i32.const 9008) (i32.const 1) (i32.const 512))
        (call $log (i32.const 3) (i32.const 8192) (i32.const {length}) (i32.const 9008) (i32.const 1))
        (if (i32.eq (i32.load8_u (local.get 0)) (i32.const 102)) (then
          (i32.store8 (i32.const 16) (i32.const 1)) (i32.store8 (i32.const 24) (i32.const 1))
          (i32.store (i32.const 32) (i32.const 8192)) (i32.store (i32.const 36) (i32.const {length}))))"#
    );
    let assets = [Described::new("makes"), Described::new("fails").saying("says nothing")];
    let manifest =
        pipeline(&flowstone, &component_that(&assets, imports, &code), "[assets.fails]\nretry.max_attempts = 1\n");
    let shown = [
        flowstone.run(["run", &manifest]).expect_status(1),
        flowstone.run(["run", &manifest, "--force-all", "--json"]).expect_status(1),
        flowstone.run(["logs", "latest"]).expect_status(0),
        flowstone.run(["logs", "latest", "--json"]).expect_status(0),
        flowstone.run(["lineage", "attack", "makes"]).expect_status(0),
        flowstone.run(["lineage", "attack", "makes", "--format", "json"]).expect_status(0),
        flowstone.run(["status"]).expect_status(0),
        flowstone.run(["runs"]).expect_status(0),
    ];
    assert!(shown[2].stdout.contains("owned"), "what it wrote is shown: {}", shown[2].stdout);
    let obeyed =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}');
    for output in &shown {
        assert!(!output.stdout.contains(obeyed) && !output.stderr.contains(obeyed), "{output:?}");
    }
}

/// What is tried through the command beside `examples/hostile`, and the test that tries it.
const FURTHER: &[(&str, &str)] = &[
    ("garbage", "a_component_that_describes_what_is_not_in_its_memory_is_refused_at_deploy"),
    ("hoards", "guests_that_hold_all_they_may_leave_descriptors_for_the_host"),
    ("escapes", "no_command_shows_a_terminal_what_a_guest_wrote_for_it"),
    ("another-tenants-result", "a_result_of_one_tenant_is_not_used_again_for_another"),
    ("another-tenants-ids", "what_one_tenant_knows_by_its_id_the_other_is_told_does_not_exist"),
    ("another-tenants-resource", "a_resource_or_a_secret_of_one_tenant_cannot_be_granted_by_another"),
];

#[test]
fn the_document_lists_every_attack_through_the_command() {
    let document = fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let (_, table) = document.split_once("## Through the command").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    let listed: BTreeMap<String, String> = rows.map(|row| (cells(row)[1].clone(), cells(row)[3].clone())).collect();
    let attacks = EXPECTED.iter().filter(|expected| !expected.asset.starts_with("honest"));
    let mut expected: BTreeMap<String, String> =
        attacks.map(|attack| (attack.asset.to_owned(), attack.verdict.to_owned())).collect();
    for (name, test) in FURTHER {
        let tests =
            ["hostile", "tenants"].map(|file| fs::read_to_string(root().join(format!("tests/tests/{file}.rs"))));
        assert!(tests.iter().any(|text| text.as_ref().unwrap().contains(&format!("fn {test}("))), "there is no {test}");
        expected.insert((*name).to_owned(), listed.get(*name).cloned().unwrap_or_default());
    }
    assert_eq!(listed, expected);
}
