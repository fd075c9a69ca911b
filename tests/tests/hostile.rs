//! The attacks of `examples/hostile`, through the real command: each ends in its own verdict within its own limits, says
//! why, and the honest assets beside them do not notice.

use std::time::{Duration, Instant};

use flowstone_tests::{Flowstone, pipeline::root};
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
             union all select job_id::text from inflight",
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
