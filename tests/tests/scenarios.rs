//! What users of such a system do, through the real command: the predecessor's scenarios, by their numbers, with the
//! outcomes that it should have had.

use std::fs;

use flowstone_tests::{
    Flowstone,
    pipeline::{Scenario, ended},
};

#[test]
fn scenario_1_one_asset_runs_and_shows_its_output() {
    let scenario = Scenario::new("");
    assert_eq!(ended(&scenario.run(&["numbers"], 0)), ["numbers succeeded"]);
    assert_eq!(scenario.show("numbers", None), "[1,2,3,4,5]");
}

#[test]
fn scenario_2_and_3_a_chain_makes_what_it_needs_and_keeps_it_readable() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["sum"], 0);
    assert_eq!(ended(&events), ["doubled succeeded", "numbers succeeded", "sum succeeded"]);
    assert_eq!(scenario.show("sum", None), "30");
    assert_eq!(scenario.show("doubled", None), "[2,4,6,8,10]");
    assert_eq!(scenario.show("numbers", None), "[1,2,3,4,5]");
}

#[test]
fn scenario_4_an_unknown_asset_is_refused_with_what_there_is() {
    let scenario = Scenario::new("");
    let output = scenario.command("run", &["nubmers"]).expect_status(2);
    assert!(output.stderr.contains("did you mean `numbers`"), "{}", output.stderr);
    assert!(output.stdout.is_empty());
}

#[test]
fn scenario_5_and_18_a_failure_keeps_its_reason_and_stores_no_output() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["after_broken"], 1);
    assert_eq!(ended(&events), ["after_broken skipped", "broken failed"]);
    let failed = events.iter().find(|event| event["asset"] == "broken" && event["event"] == "job.ended").unwrap();
    assert!(failed["cause"].as_str().unwrap().contains("simulated failure"));
    let skipped =
        events.iter().find(|event| event["asset"] == "after_broken" && event["event"] == "job.ended").unwrap();
    assert!(skipped["cause"].as_str().unwrap().contains("broken"), "the cause names the first asset that failed");

    let shown = scenario.flowstone.run(["show", "scenarios", "broken"]).expect_status(2);
    assert!(shown.stderr.contains("has not been materialized"), "{}", shown.stderr);
    let logs = scenario.flowstone.run(["logs", "latest", "broken"]).expect_status(0);
    assert!(logs.stdout.contains("simulated failure") && logs.stdout.contains("failed"), "{}", logs.stdout);
}

#[test]
fn scenario_7_a_result_is_used_again_until_it_is_forced_or_invalidated() {
    let scenario = Scenario::new("");
    let number = || scenario.show("unique", None);
    scenario.run(&["unique"], 0);
    assert_eq!(number(), "1");
    assert!(ended(&scenario.run(&["unique"], 0)).is_empty(), "it is fresh");
    assert_eq!(number(), "1");
    scenario.run(&["unique", "--force"], 0);
    assert_eq!(number(), "2");
    let invalidated = scenario.flowstone.run(["invalidate", "scenarios", "unique"]).expect_status(0);
    assert!(format!("{}{}", invalidated.stdout, invalidated.stderr).contains('2'), "both results are void");
    scenario.run(&["unique"], 0);
    assert_eq!(number(), "3");
    assert_eq!(fs::read_to_string(scenario.folder().join("counter/count")).unwrap(), "3", "and the file was published");
    let absent = scenario.flowstone.run(["invalidate", "scenarios", "flaky"]).expect_status(0);
    assert!(format!("{}{}", absent.stdout, absent.stderr).contains('0'), "nothing to invalidate is no mistake");
}

#[test]
fn scenario_8_without_inputs_nothing_runs_and_the_missing_ones_are_named() {
    let scenario = Scenario::new("");
    let output = scenario.command("run", &["sum", "--no-inputs"]).expect_status(2);
    assert!(output.stderr.contains("`sum` needs `doubled`"), "{}", output.stderr);
    scenario.run(&["doubled"], 0);
    assert_eq!(ended(&scenario.run(&["sum", "--no-inputs"], 0)), ["sum succeeded"]);
}

#[test]
fn scenario_9_and_10_what_was_never_made_is_not_found_and_what_was_is() {
    let scenario = Scenario::new("");
    scenario.command("deploy", &[]).expect_status(0);
    let before = scenario.flowstone.run(["show", "scenarios", "numbers"]).expect_status(2);
    assert!(before.stderr.contains("flowstone run scenarios numbers"), "the fix is named: {}", before.stderr);
    scenario.run(&["numbers"], 0);
    assert_eq!(scenario.show("numbers", None), "[1,2,3,4,5]");
    let status = scenario.flowstone.run(["status", "--json"]).expect_status(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["state"], &status["succeeded"]), (&"succeeded".into(), &1.into()));
}

#[test]
fn scenario_11_and_38_partitions_do_not_see_each_other() {
    let scenario = Scenario::new("");
    scenario.run(&["keyed", "--partition", "p1"], 0);
    assert_eq!(scenario.show("keyed", Some("p1")), "p1");
    scenario.flowstone.run(["show", "scenarios", "keyed", "--partition", "p2"]).expect_status(2);
    let missing = scenario.command("run", &["after_keyed", "--partition", "p2", "--no-inputs"]).expect_status(2);
    assert!(missing.stderr.contains("p2"), "{}", missing.stderr);
    scenario.run(&["after_keyed", "--partition", "p1", "--no-inputs"], 0);
    assert_eq!(scenario.show("after_keyed", Some("p1")), "after p1");
    let unknown = scenario.command("run", &["keyed", "--partition", "p3"]).expect_status(2);
    assert!(unknown.stderr.contains("has no partition `p3`"), "{}", unknown.stderr);
}

#[test]
fn scenario_13_an_optional_input_that_failed_is_absent() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["despite_broken"], 1);
    assert_eq!(ended(&events), ["broken failed", "despite_broken succeeded"]);
    assert_eq!(scenario.show("despite_broken", None), "missing");
}

#[test]
fn scenario_19_a_retryable_failure_is_tried_again_and_every_attempt_is_visible() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["flaky"], 0);
    assert_eq!(events.iter().filter(|event| event["event"] == "job.deferred").count(), 2);
    assert_eq!(scenario.show("flaky", None), "attempt 3");
    let logs = scenario.flowstone.run(["logs", "latest", "flaky"]).expect_status(0);
    for words in ["attempt 1 is too early", "attempt 2 is too early", "succeeded"] {
        assert!(logs.stdout.contains(words), "{words} is not in\n{}", logs.stdout);
    }
}

#[test]
fn scenario_21_a_fresh_process_runs_what_was_deployed_without_the_manifest() {
    // Each command starts and stops the embedded cluster, as it does for somebody who has no server.
    let scenario = Scenario::with(Flowstone::embedded(), "");
    scenario.command("deploy", &[]).expect_status(0);
    fs::remove_file(scenario.manifest()).unwrap();
    scenario.flowstone.run(["run", "scenarios", "sum"]).expect_status(0);
    assert_eq!(scenario.show("sum", None), "30");
    let graph = scenario.flowstone.run(["graph", "scenarios"]).expect_status(0);
    for name in ["numbers", "doubled", "sum", "nothing_to_make"] {
        assert!(graph.stdout.contains(name), "{name} is not in\n{}", graph.stdout);
    }
}

#[test]
fn scenario_22_an_empty_output_exists_and_reaches_its_consumer() {
    let scenario = Scenario::new("");
    scenario.run(&["after_empty"], 0);
    assert_eq!(scenario.show("empty", None), "");
    assert_eq!(scenario.show("after_empty", None), "Some(0) bytes");
}

#[test]
fn scenario_32_a_graph_shows_isolated_assets_too() {
    let scenario = Scenario::new("");
    let mermaid = scenario.command("graph", &["--format", "mermaid"]).expect_status(0).stdout;
    assert!(mermaid.starts_with("graph TD"), "{mermaid}");
    assert!(mermaid.contains("nothing_to_make"), "{mermaid}");
    let json: serde_json::Value =
        serde_json::from_str(&scenario.command("graph", &["--format", "json"]).expect_status(0).stdout).unwrap();
    assert!(json.to_string().contains("doubled"));
    assert!(scenario.command("graph", &["--format", "dot"]).expect_status(0).stdout.contains("digraph"));
}

#[test]
fn scenario_35_keys_of_any_text_survive_the_whole_way() {
    let scenario = Scenario::new("");
    scenario.run(&["after_keyed"], 0);
    for key in ["p1", "p2", "value|with|pipes", "value:with;colons=%"] {
        assert_eq!(scenario.show("after_keyed", Some(&format!("key={key}"))), format!("after {key}"));
    }
}

#[test]
fn scenario_39_and_40_a_range_runs_what_is_missing_of_it() {
    let scenario = Scenario::new("");
    let three = scenario.run(&["daily", "--partition", "2024-01-01..2024-01-03"], 0);
    assert_eq!(ended(&three).len(), 3);
    let four = scenario.run(&["daily", "--partition", "2024-01-01..2024-01-04"], 0);
    assert_eq!(ended(&four), ["daily[2024-01-04] succeeded"]);
    assert!(ended(&scenario.run(&["daily", "--partition", "2024-01-01..2024-01-04"], 0)).is_empty());
    let forced = scenario.run(&["daily", "--partition", "2024-01-01..2024-01-04", "--force"], 0);
    assert_eq!(ended(&forced).len(), 4);
}

#[test]
fn a_window_reads_the_days_before_and_dimensions_multiply() {
    let scenario = Scenario::new("");
    scenario.run(&["trailing", "--partition", "date=2024-01-04,region=eu"], 0);
    assert_eq!(
        scenario.show("trailing", Some("date=2024-01-04,region=eu")),
        "2024-01-04 eu: 2024-01-02 2024-01-03 2024-01-04"
    );
    let rest = scenario.run(&["trailing"], 0);
    assert_eq!(
        ended(&rest).iter().filter(|job| job.starts_with("trailing")).count(),
        9,
        "ten, less the one that is there"
    );
    assert_eq!(scenario.show("trailing", Some("date=2024-01-01,region=us")), "2024-01-01 us: 2024-01-01");
}

#[test]
fn early_cut_off_stops_where_an_input_came_out_the_same() {
    let scenario = Scenario::new("");
    scenario.run(&["verdict"], 0);
    scenario.bind("[assets.doubled]\nconfig = { factor = 4 }");
    let events = scenario.run(&["verdict"], 0);
    // `doubled` is made anew; `parity` too, because its input differs; `verdict` reads the same again.
    assert_eq!(ended(&events), ["doubled succeeded", "parity succeeded", "verdict succeeded, reused"]);
    // And back: the first results are found again, although they are not the latest.
    scenario.bind("");
    let events = scenario.run(&["verdict"], 0);
    assert_eq!(ended(&events), ["doubled succeeded, reused", "parity succeeded, reused", "verdict succeeded, reused"]);
    assert_eq!(scenario.show("doubled", None), "[2,4,6,8,10]");
}

#[test]
fn a_plan_says_why_each_job_would_run() {
    let scenario = Scenario::new("");
    let reasons = |arguments: &[&str]| -> Vec<(String, String)> {
        let output = scenario.command("plan", &[arguments, &["--json"]].concat()).expect_status(0);
        let plan: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let jobs = plan["jobs"].as_array().unwrap_or_else(|| panic!("{plan}"));
        jobs.iter().map(|job| (text(&job["asset"]), text(&job["reason"]))).collect()
    };
    let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(asset, reason)| ((*asset).to_owned(), (*reason).to_owned())).collect()
    };
    assert_eq!(reasons(&["doubled"]), of(&[("numbers", "never-materialized"), ("doubled", "never-materialized")]));
    scenario.run(&["sum"], 0);
    assert!(reasons(&["sum"]).is_empty());
    scenario.bind("[assets.doubled]\nconfig = { factor = 3 }");
    assert_eq!(reasons(&["sum"]), of(&[("doubled", "config-changed"), ("sum", "input-will-run")]));
    assert_eq!(reasons(&["numbers", "--force"]), of(&[("numbers", "forced")]));
    fs::write(scenario.folder().join("shelf/a.txt"), "a").unwrap();
    scenario.run(&["listing"], 0);
    assert_eq!(scenario.show("listing", None), "a.txt 1\n");
    fs::write(scenario.folder().join("shelf/not-granted.csv"), "b").unwrap();
    assert!(reasons(&["listing"]).is_empty(), "what the grant does not match is no input");
    fs::write(scenario.folder().join("shelf/b.txt"), "b").unwrap();
    assert_eq!(reasons(&["listing"]), of(&[("listing", "source-changed")]));
}

#[test]
fn a_skipped_asset_skips_what_needs_it_and_is_no_failure() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["nothing_to_make"], 0);
    assert_eq!(ended(&events), ["nothing_to_make skipped"]);
}

#[test]
fn an_output_larger_than_a_row_goes_through_the_blob_store() {
    let scenario = Scenario::new("");
    scenario.run(&["after_large"], 0);
    let sum: u64 = (0..200_000_u32).flat_map(u32::to_le_bytes).map(u64::from).sum();
    assert_eq!(scenario.show("after_large", None), sum.to_string());
}

#[test]
fn scenario_106_and_107_lineage_goes_both_ways() {
    let scenario = Scenario::new("");
    scenario.run(&["sum"], 0);
    let walk = |asset: &str, direction: &str| -> String {
        let output = scenario.flowstone.run(["lineage", "scenarios", asset, direction, "--format", "json"]);
        output.expect_status(0).stdout
    };
    let up: serde_json::Value = serde_json::from_str(&walk("sum", "--up")).unwrap();
    let depths = |value: &serde_json::Value| -> Vec<(String, i64)> {
        let nodes = value["nodes"].as_array().unwrap();
        nodes.iter().map(|node| (node["asset"].as_str().unwrap().to_owned(), node["depth"].as_i64().unwrap())).collect()
    };
    let named = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
        pairs.iter().map(|(asset, depth)| ((*asset).to_owned(), *depth)).collect()
    };
    assert_eq!(depths(&up), named(&[("sum", 0), ("doubled", 1), ("numbers", 2)]));
    let down: serde_json::Value = serde_json::from_str(&walk("numbers", "--down")).unwrap();
    assert_eq!(depths(&down), named(&[("numbers", 0), ("doubled", 1), ("sum", 2)]));
    // Runs again do not multiply what is drawn.
    scenario.run(&["sum", "--force-all"], 0);
    let again: serde_json::Value = serde_json::from_str(&walk("sum", "--up")).unwrap();
    assert_eq!(depths(&again), depths(&up));
}
