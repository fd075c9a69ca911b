//! Guests that behave and guests that do not, each in a sandbox of its own: what the limits mean.

#[path = "sandbox/baseline.rs"]
mod baseline;
mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use cap_std::{ambient_authority, fs::Dir};
use flowstone::{
    blob::{Content, Digest},
    capability::{
        files::{Change, Directory},
        inputs::{InputGrant, InputVersion},
    },
    engine::{Retry, Verdict},
    limit::CHUNK_BYTES_MAX,
    pipeline::{
        policy::Limits,
        resource::{Access, DirectoryGrant},
    },
};
use support::{Guest, Host, RESULT, RETURNED, word};
use tokio_util::sync::CancellationToken;

const OUTPUT: &str = "flowstone:asset/output";
const WRITE: &str = "(param i32 i32 i32)";
const LOG: &str = "flowstone:asset/log";
const LOG_WRITE: &str = "(param i32 i32 i32 i32 i32)";
const FOR_EVER: &str = "(loop $again (br $again))";

/// How much later than its deadline a guest may be stopped. The design says 200 ms; this machine is shared.
const LATE_MAX: Duration = Duration::from_millis(200);

/// Writes "hello" to the output.
fn hello() -> Guest {
    Guest::new(&format!("(call $write (i32.const 4096) (i32.const 5) (i32.const {RETURNED}))"))
        .import(OUTPUT, "write", WRITE)
        .module("(data (i32.const 4096) \"hello\")")
}

#[tokio::test]
async fn an_honest_guest_succeeds_and_its_output_is_what_it_wrote() {
    let host = Host::new();
    let report = host.run_guest(&hello()).await;
    assert_eq!(report.verdict, Verdict::Succeeded);
    let output = report.output.unwrap();
    assert_eq!(output.content, Content::Inline(b"hello".to_vec()));
    assert_eq!((output.stored.digest, output.media_type.as_str()), (Digest::of(b"hello"), "text/plain"));
    assert!(report.fuel_used > 0 && report.fuel_used < 1_000, "{}", report.fuel_used);
    assert_eq!(report.memory_bytes_peak, 2 << 16);
    assert_eq!(report.explanation, "");
}

#[tokio::test]
async fn a_guest_that_fails_says_why_and_its_output_is_dropped() {
    let guest = Guest::new(&format!(
        "(call $write (i32.const 4096) (i32.const 5) (i32.const {RETURNED}))
         (call $fail (i32.const 4096) (i32.const 5))"
    ))
    .import(OUTPUT, "write", WRITE)
    .module("(data (i32.const 4096) \"empty\")");
    let report = Host::new().run_guest(&guest).await;
    assert_eq!(report.verdict, Verdict::Failed { message: "empty".into(), retry: Retry::Permanent });
    assert!(report.output.is_none());
}

#[tokio::test]
async fn a_guest_may_ask_to_be_tried_again() {
    // failure::retryable { message: "later", after-ms: some(1500) }
    let guest = Guest::new(&format!(
        "(i32.store8 (i32.const {RESULT}) (i32.const 1))
         (i32.store (i32.const {}) (i32.const 4096)) (i32.store (i32.const {}) (i32.const 5))
         (i32.store8 (i32.const {}) (i32.const 1)) (i64.store (i32.const {}) (i64.const 1500))",
        RESULT + 16,
        RESULT + 20,
        RESULT + 24,
        RESULT + 32,
    ))
    .module("(data (i32.const 4096) \"later\")");
    let report = Host::new().run_guest(&guest).await;
    let retry = Retry::Retryable { after_ms: Some(1_500) };
    assert_eq!(report.verdict, Verdict::Failed { message: "later".into(), retry });
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_fuel() {
    let report = Host::new().run_guest(&Guest::new(FOR_EVER)).await;
    assert_eq!(report.verdict, Verdict::OutOfFuel);
    assert_eq!(report.fuel_used, 100_000_000);
    assert!(report.explanation.contains("all of its 100000000 units"), "{}", report.explanation);
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let guest = Guest::new("(call $deeper)").module("(func $deeper (call $deeper) (call $deeper))");
    let report = Host::new().run_guest(&guest).await;
    assert_eq!(word(&report), "trapped");
    assert!(report.explanation.contains("call stack exhausted"), "{}", report.explanation);
}

#[tokio::test]
async fn a_trap_is_a_verdict_with_its_reason() {
    let report = Host::new().run_guest(&Guest::new("unreachable")).await;
    assert_eq!(report.verdict, Verdict::Trapped("wasm trap: wasm `unreachable` instruction executed".into()));
    let report = Host::new().run_guest(&Guest::new("(drop (i32.load (i32.const -8)))")).await;
    assert!(report.explanation.contains("out of bounds"), "{}", report.explanation);
}

/// Grows until it is refused, then does something.
fn hoard(memory: &str, then: &str) -> Guest {
    let grow = format!("(br_if $more (i32.ne (i32.const -1) (memory.grow {memory} (i32.const 16))))");
    Guest::new(&format!("(loop $more {grow}) {then}"))
}

#[tokio::test]
async fn memory_without_end_is_out_of_memory_when_the_guest_fails_of_it() {
    let host = Host::new();
    for then in ["unreachable", "(call $fail (i32.const 4096) (i32.const 0))"] {
        let report = host.run_guest(&hoard("", then)).await;
        assert_eq!(report.verdict, Verdict::OutOfMemory, "{}", report.explanation);
        let most = Limits::default().memory_bytes;
        assert!(report.memory_bytes_peak <= most && report.memory_bytes_peak > most - (2 << 20));
    }
    let report = host.run_guest(&hoard("", "")).await;
    assert_eq!(report.verdict, Verdict::Succeeded, "a guest that lives with a refusal may");
}

#[tokio::test]
async fn the_memory_limit_is_for_all_memories_together() {
    let two = "(memory $a (export \"memory\") 2) (memory $b 2)";
    let guest = Guest::new(
        "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow $a (i32.const 16)))))
         (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow $b (i32.const 16)))))
         unreachable",
    )
    .memory(two);
    let report = Host::new().run_guest(&guest).await;
    assert_eq!(report.verdict, Verdict::OutOfMemory);
    assert!(report.memory_bytes_peak <= Limits::default().memory_bytes);
}

#[tokio::test]
async fn a_guest_that_begins_with_too_much_memory_is_out_of_memory() {
    let host = Host::new();
    let mut attempt = host.attempt(&Guest::new("").memory("(memory (export \"memory\") 100)")).await;
    attempt.limits.memory_bytes = 1 << 20;
    let report = host.run(attempt).await;
    assert_eq!(report.verdict, Verdict::OutOfMemory);
    assert!(report.explanation.contains("while it was instantiated"), "{}", report.explanation);
}

#[tokio::test]
async fn tables_without_end_are_out_of_memory() {
    let guest = Guest::new(
        "(loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000))))) unreachable",
    )
    .module("(table $t 1 funcref)");
    let report = Host::new().run_guest(&guest).await;
    assert_eq!(report.verdict, Verdict::OutOfMemory);
    assert!(report.explanation.contains("table of more than 100000"), "{}", report.explanation);
}

#[tokio::test]
async fn a_start_function_has_its_own_allowance() {
    let guest = Guest::new("").module(&format!("(func $start {FOR_EVER}) (start $start)"));
    let host = Host::new();
    let report = host.run_guest(&guest).await;
    assert_eq!((&report.verdict, report.fuel_used), (&Verdict::OutOfFuel, 0));
    assert!(report.explanation.contains("while it was instantiated"), "{}", report.explanation);

    // It ends at the attempt's deadline too.
    let mut attempt = host.attempt(&guest).await;
    attempt.limits.timeout_ms = 50;
    let started = Instant::now();
    let report = host.run(attempt).await;
    assert_eq!(report.verdict, Verdict::TimedOut);
    assert!(started.elapsed() < Duration::from_millis(50) + LATE_MAX, "{:?}", started.elapsed());
}

#[tokio::test]
async fn too_much_output_is_the_verdict_whatever_the_guest_does_next() {
    let host = Host::new();
    for then in ["", "unreachable", "(call $fail (i32.const 4096) (i32.const 1))"] {
        let guest = Guest::new(&format!(
            "(loop $more
               (call $write (i32.const 0) (i32.const 65536) (i32.const {RETURNED}))
               (br_if $more (i32.eqz (i32.load8_u (i32.const {RETURNED})))))
             {then}"
        ))
        .import(OUTPUT, "write", WRITE);
        let mut attempt = host.attempt(&guest).await;
        attempt.limits.output_bytes = 10_000_000;
        let report = host.run(attempt).await;
        assert_eq!(report.verdict, Verdict::OutputTooLarge, "{}", report.explanation);
        assert!(report.output.is_none());
    }
    assert_eq!(fs::read_dir(host.folder.path().join("blobs/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_flood_of_log_is_cut_and_counted() {
    let guest = Guest::new(
        "(loop $more
           (call $write (i32.const 2) (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 0))
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (br_if $more (i32.lt_u (local.get $a) (i32.const 100000))))",
    )
    .import(LOG, "write", LOG_WRITE)
    .module("(data (i32.const 4096) \"a\\1bb\")");
    let host = Host::new();
    let report = host.run_guest(&guest).await;
    assert_eq!(report.verdict, Verdict::Succeeded);
    assert_eq!(report.log.lines.len() as u64 + report.log.dropped, 100_000);
    assert!(report.log.lines.len() < 2_000 && report.log.lines[0].message == "a␛b");
}

fn input(content: Content, bytes: &[u8]) -> InputGrant {
    let version = InputVersion {
        asset: "raw".into(),
        partition: vec![],
        materialization: "m".into(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: "text/plain".into(),
        metadata: vec![],
        content,
    };
    InputGrant { name: "raw".into(), versions: vec![version] }
}

/// Copies input `raw` to the output, chunk by chunk.
fn copy() -> Guest {
    Guest::new(&format!(
        "(call $open (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const {RETURNED}))
         (if (i32.load8_u (i32.const {RETURNED})) (then (call $fail (i32.const 4099) (i32.const 6)))
         (else
           (local.set $a (i32.load (i32.const {handle})))
           (loop $more
             (global.set $heap (i32.const 65536))
             (call $read (local.get $a) (i32.const 0x7fffffff) (i32.const {RETURNED}))
             (local.set $b (i32.load (i32.const {length})))
             (call $write (i32.load (i32.const {handle})) (local.get $b) (i32.const {RETURNED}))
             (br_if $more (local.get $b)))))",
        handle = RETURNED + 4,
        length = RETURNED + 8,
    ))
    .import("flowstone:asset/inputs", "open", "(param i32 i32 i32 i32)")
    .import("flowstone:asset/inputs", "[method]reader.read", "(param i32 i32 i32)")
    .import(OUTPUT, "write", WRITE)
    .module("(data (i32.const 4096) \"rawdenied\")")
}

#[tokio::test]
async fn inputs_reach_the_guest_and_what_it_read_is_recorded() {
    let host = Host::new();
    let bytes: Vec<u8> = (0..3 * CHUNK_BYTES_MAX + 7).map(|n| (n % 253) as u8).collect();
    host.blobs.put("default", bytes.clone()).await.unwrap();
    for (content, bytes) in [(Content::Stored, bytes), (Content::Inline(b"small".to_vec()), b"small".to_vec())] {
        let mut attempt = host.attempt(&copy()).await;
        attempt.inputs = vec![input(content, &bytes)];
        let report = host.run(attempt).await;
        assert_eq!(report.verdict, Verdict::Succeeded, "{}", report.explanation);
        assert_eq!(report.output.unwrap().stored.digest, Digest::of(&bytes));
        assert_eq!((report.reads.len(), report.reads[0].bytes_read), (1, bytes.len() as u64));
    }
}

#[tokio::test]
async fn an_undeclared_input_is_denied_and_the_operator_learns_it() {
    let report = Host::new().run_guest(&copy()).await;
    assert_eq!(report.verdict, Verdict::Failed { message: "denied".into(), retry: Retry::Permanent });
    assert_eq!((report.denials[0].capability.as_str(), report.denials[0].resource.as_str()), ("inputs", "raw"));
    assert!(report.reads.is_empty());
}

#[tokio::test]
async fn a_corrupt_input_is_our_fault_not_the_guests() {
    let host = Host::new();
    let stored = host.blobs.put("default", b"right").await.unwrap();
    let name = stored.digest.to_string();
    fs::write(host.folder.path().join("blobs/default").join(&name[..2]).join(&name), "wrong").unwrap();
    let mut attempt = host.attempt(&copy()).await;
    attempt.inputs = vec![input(Content::Stored, b"right")];
    let report = host.run(attempt).await;
    assert_eq!(word(&report), "host-fault");
    assert!(report.explanation.contains("corrupt"), "{}", report.explanation);
}

#[tokio::test]
async fn a_blob_store_that_cannot_be_written_is_our_fault() {
    let host = Host::new();
    let guest = Guest::new(&format!(
        "(loop $more (call $write (i32.const 0) (i32.const 65536) (i32.const {RETURNED})) (br $more))"
    ))
    .import(OUTPUT, "write", WRITE);
    let attempt = host.attempt(&guest).await;
    fs::remove_dir_all(host.folder.path().join("blobs")).unwrap();
    let report = host.run(attempt).await;
    assert_eq!(word(&report), "host-fault", "{}", report.explanation);
}

/// Opens directory `station`, reads `a.csv` into the output, and stages a copy of it as `b.csv`.
fn read_and_append() -> Guest {
    Guest::new(&format!(
        "(call $open (i32.const 4096) (i32.const 7) (i32.const {RETURNED}))
         (if (i32.load8_u (i32.const {RETURNED})) (then (call $fail (i32.const 4096) (i32.const 7))))
         (local.set $a (i32.load (i32.const {value})))
         (call $read (local.get $a) (i32.const 4103) (i32.const 5) (i64.const 0) (i32.const 1000) (i32.const {RETURNED}))
         (if (i32.load8_u (i32.const {RETURNED})) (then (call $fail (i32.const 4103) (i32.const 5))))
         (local.set $b (i32.load (i32.const {length})))
         (call $write (i32.load (i32.const {value})) (local.get $b) (i32.const {RETURNED}))
         (call $append (local.get $a) (i32.const 4108) (i32.const 5) (i32.const 4103) (i32.const 5) (i32.const {RETURNED}))",
        value = RETURNED + 4,
        length = RETURNED + 8,
    ))
    .import("flowstone:asset/files", "open", "(param i32 i32 i32)")
    .import("flowstone:asset/files", "[method]directory.read", "(param i32 i32 i32 i64 i32 i32)")
    .import("flowstone:asset/files", "[method]directory.append", "(param i32 i32 i32 i32 i32 i32)")
    .import(OUTPUT, "write", WRITE)
    .module("(data (i32.const 4096) \"stationa.csvb.csv\")")
}

#[tokio::test]
async fn a_granted_directory_is_read_and_writes_are_staged() {
    let host = Host::new();
    let data = host.folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.csv"), "1,2,3").unwrap();
    let mut attempt = host.attempt(&read_and_append()).await;
    attempt.reach.directories = vec![Directory {
        directory: Dir::open_ambient_dir(&data, ambient_authority()).unwrap(),
        grant: DirectoryGrant {
            resource: "station".into(),
            access: Access::ReadWrite,
            paths: vec!["*.csv".into()],
            write_bytes: 100,
            entries: 10,
            mount: None,
        },
    }];
    let report = host.run(attempt).await;
    assert_eq!(report.verdict, Verdict::Succeeded, "{}", report.explanation);
    assert_eq!(report.output.unwrap().content, Content::Inline(b"1,2,3".to_vec()));
    let staged = &report.staged[0];
    assert_eq!((staged.resource.as_str(), staged.path.as_str()), ("station", "b.csv"));
    let Change::Write(stored) = staged.change else { panic!() };
    assert_eq!(host.blobs.read_all("default", stored.digest).await.unwrap(), b"a.csv");
    assert!(!data.join("b.csv").exists(), "publishing is the commit's business");
}

#[tokio::test]
async fn an_asset_without_a_grant_is_denied_by_its_first_call() {
    let report = Host::new().run_guest(&read_and_append()).await;
    assert_eq!(report.verdict, Verdict::Denied);
    assert_eq!(
        report.denials[0].remedy,
        r#"[assets.thing] grants = { station = { access = "read", paths = ["**"] } }"#
    );
    assert!(report.output.is_none() && report.staged.is_empty());
}

#[tokio::test]
async fn a_guest_that_imports_files_and_does_not_use_them_runs_without_a_grant() {
    let guest = hello().import("flowstone:asset/files", "open", "(param i32 i32 i32)");
    let host = Host::new();
    let inspected = host.engine.inspect(&guest.build()).unwrap();
    assert_eq!(inspected.capabilities.into_iter().collect::<Vec<_>>(), [flowstone::pipeline::asset::Capability::Files]);
    assert_eq!(host.run_guest(&guest).await.verdict, Verdict::Succeeded);
}

#[tokio::test]
async fn exit_is_a_failure() {
    let host = Host::new();
    for (status, number) in [("0", 0), ("1", 1)] {
        let guest =
            Guest::new(&format!("(call $exit (i32.const {status}))")).import("wasi:cli/exit", "exit", "(param i32)");
        let report = host.run_guest(&guest).await;
        let message = format!("it exited with status {number} instead of returning");
        assert_eq!(report.verdict, Verdict::Failed { message, retry: Retry::Permanent });
    }
}

#[tokio::test]
async fn what_a_guest_prints_is_in_its_log() {
    let guest = Guest::new(&format!(
        "(call $blocking-write-and-flush (call $get-stderr) (i32.const 4096) (i32.const 9) (i32.const {RETURNED}))"
    ))
    .import("wasi:cli/stderr", "get-stderr", "(result i32)")
    .import("wasi:io/streams", "[method]output-stream.blocking-write-and-flush", "(param i32 i32 i32 i32)")
    .module("(data (i32.const 4096) \"one\\0atwo..\")");
    let report = Host::new().run_guest(&guest).await;
    let lines: Vec<_> = report.log.lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(lines, ["one", "two.."], "the last line needs no end");
}

/// Writes what the generators say.
fn dice() -> Guest {
    Guest::new(&format!(
        "(i64.store (i32.const 8192) (call $get-random-u64))
         (i64.store (i32.const 8200) (call $get-insecure-random-u64))
         (call $insecure-seed (i32.const 8208))
         (call $write (i32.const 8192) (i32.const 32) (i32.const {RETURNED}))"
    ))
    .import("wasi:random/random", "get-random-u64", "(result i64)")
    .import("wasi:random/insecure", "get-insecure-random-u64", "(result i64)")
    .import("wasi:random/insecure-seed", "insecure-seed", "(param i32)")
    .import(OUTPUT, "write", WRITE)
}

#[tokio::test]
async fn the_seed_decides_every_random_number() {
    let host = Host::new();
    let mut outputs = vec![];
    for seed in [1, 1, 2] {
        let mut attempt = host.attempt(&dice()).await;
        attempt.seed = [seed; 32];
        outputs.push(host.run(attempt).await.output.unwrap().stored.digest);
    }
    assert_eq!(outputs[0], outputs[1]);
    assert_ne!(outputs[0], outputs[2]);
}

#[tokio::test]
async fn the_clock_stands_at_the_jobs_instant_and_sleeping_takes_no_time() {
    let guest = Guest::new(&format!(
        "(call $block (call $subscribe-duration (i64.const 3600000000000)))
         (call $now (i32.const 8192))
         (call $write (i32.const 8192) (i32.const 8) (i32.const {RETURNED}))"
    ))
    .import("wasi:clocks/monotonic-clock", "subscribe-duration", "(param i64) (result i32)")
    .import("wasi:io/poll", "[method]pollable.block", "(param i32)")
    .import("wasi:clocks/wall-clock", "now", "(param i32)")
    .import(OUTPUT, "write", WRITE);
    let host = Host::new();
    let mut attempt = host.attempt(&guest).await;
    attempt.context.logical_time_ms = 1_704_067_200_000;
    let report = host.run(attempt).await;
    assert_eq!(report.verdict, Verdict::Succeeded, "{}", report.explanation);
    let Content::Inline(bytes) = report.output.unwrap().content else { panic!() };
    assert_eq!(u64::from_le_bytes(bytes.try_into().unwrap()), 1_704_067_200);
    assert!(report.run_us < 10_000_000, "an hour's sleep took {} us", report.run_us);
}

#[tokio::test]
async fn fuel_is_the_same_in_every_fresh_store() {
    let guest = Guest::new(&format!(
        "(loop $more
           (local.set $a (i32.add (local.get $a) (i32.const 1)))
           (drop (memory.grow (i32.const 1)))
           (call $write (i32.const 4096) (i32.const 5) (i32.const {RETURNED}))
           (br_if $more (i32.lt_u (local.get $a) (i32.const 100))))"
    ))
    .import(OUTPUT, "write", WRITE)
    .module("(data (i32.const 4096) \"hello\")");
    let host = Host::new();
    let mut used = vec![];
    for _ in 0..20 {
        used.push(host.run_guest(&guest).await.fuel_used);
    }
    assert!(used[0] > 1_000 && used.iter().all(|fuel| *fuel == used[0]), "{used:?}");
}

/// Guests that never end, each in another way: in their own code, or in calls that take long and cost no fuel.
fn endless() -> Vec<(&'static str, Guest)> {
    let looped = |call: &str| format!("(loop $again {call} (br $again))");
    // As much as one call may carry: each takes milliseconds of the host and some dozens of units of fuel.
    let twelve_mib = "(memory (export \"memory\") 200)";
    let log = "(call $write (i32.const 2) (i32.const 0) (i32.const 8388608) (i32.const 0) (i32.const 0))";
    let output = format!("(call $write (i32.const 0) (i32.const 8388608) (i32.const {RETURNED}))");
    let resolve =
        format!("(call $resolve-addresses (local.get $a) (i32.const 4096) (i32.const 8388608) (i32.const {RETURNED}))");
    let random = format!(
        "(global.set $heap (i32.const 65536)) (call $get-random-bytes (i64.const 1000000) (i32.const {RETURNED}))"
    );
    let sleep = "(call $block (local.get $a))";
    vec![
        ("a tight loop", Guest::new(FOR_EVER)),
        ("long log lines", Guest::new(&looped(log)).import(LOG, "write", LOG_WRITE).memory(twelve_mib)),
        ("refused output", Guest::new(&looped(&output)).import(OUTPUT, "write", WRITE).memory(twelve_mib)),
        (
            "long names",
            Guest::new(&format!("(local.set $a (call $instance-network)) {}", looped(&resolve)))
                .import("wasi:sockets/instance-network", "instance-network", "(result i32)")
                .import("wasi:sockets/ip-name-lookup", "resolve-addresses", "(param i32 i32 i32 i32)")
                .memory(twelve_mib),
        ),
        (
            "randomness",
            Guest::new(&looped(&random)).import("wasi:random/random", "get-random-bytes", "(param i64 i32)"),
        ),
        (
            "sleep",
            Guest::new(&format!("(local.set $a (call $subscribe-duration (i64.const 1))) {}", looped(sleep)))
                .import("wasi:clocks/monotonic-clock", "subscribe-duration", "(param i64) (result i32)")
                .import("wasi:io/poll", "[method]pollable.block", "(param i32)"),
        ),
    ]
}

#[tokio::test]
async fn no_guest_outlives_its_deadline() {
    let host = Host::new();
    for (name, guest) in endless() {
        let mut attempt = host.attempt(&guest).await;
        attempt.limits = Limits { fuel: u64::MAX / 2, timeout_ms: 100, ..Limits::default() };
        let started = Instant::now();
        let report = host.run(attempt).await;
        let late = started.elapsed().saturating_sub(Duration::from_millis(100));
        assert_eq!(word(&report), "timed-out", "{name}: {}", report.explanation);
        assert!(late < LATE_MAX, "{name}: {late:?} late");
    }
}

#[tokio::test]
async fn what_is_returned_after_the_deadline_is_not_taken() {
    let host = Host::new();
    let mut attempt = host.attempt(&Guest::new("")).await;
    // It neither yields nor calls the host, so that only its return can be looked at.
    attempt.limits.timeout_ms = 0;
    let report = host.run(attempt).await;
    assert_eq!((word(&report), report.output), ("timed-out", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_guest_outlives_its_cancellation() {
    let host = Host::new();
    for (name, guest) in endless() {
        let mut attempt = host.attempt(&guest).await;
        attempt.limits = Limits { fuel: u64::MAX / 2, timeout_ms: 60_000, ..Limits::default() };
        let cancel = CancellationToken::new();
        let (canceller, cancelled_at) = (cancel.clone(), Instant::now() + Duration::from_millis(100));
        let thread = std::thread::spawn(move || {
            std::thread::sleep(cancelled_at.saturating_duration_since(Instant::now()));
            canceller.cancel();
        });
        let report = host.engine.run(attempt, cancel).await;
        let late = cancelled_at.elapsed();
        thread.join().unwrap();
        assert_eq!(word(&report), "cancelled", "{name}: {}", report.explanation);
        assert!(late < LATE_MAX, "{name}: {late:?} late");
    }
}

#[tokio::test]
async fn an_attempt_that_is_cancelled_before_it_begins_runs_nothing() {
    let host = Host::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = host.engine.run(host.attempt(&hello()).await, cancel).await;
    assert_eq!((word(&report), report.fuel_used), ("cancelled", 0));
}

/// Prints what a cycle costs (`--nocapture`); `scripts/bench` measures it in an optimised build.
#[tokio::test]
async fn a_cycle_that_does_nothing_is_short() {
    let host = Host::new();
    let component = host.load(&Guest::new("")).await;
    let mut cycles = vec![];
    for _ in 0..2_000 {
        let attempt = host.attempt_of(component.clone());
        let started = Instant::now();
        let report = host.engine.run(attempt, CancellationToken::new()).await;
        cycles.push((started.elapsed(), report.instantiate_us));
        assert_eq!(report.verdict, Verdict::Succeeded);
    }
    cycles.sort_unstable();
    let at = |percent: usize| cycles[cycles.len() * percent / 100];
    println!("no-op cycle: p50 {:?} (instantiate {} us), p99 {:?}", at(50).0, at(50).1, at(99).0);
    assert!(at(50).0 < Duration::from_millis(2), "{:?}", at(50));
}
