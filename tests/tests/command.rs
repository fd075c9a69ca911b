//! The command as a person, a shell or a program meets it: help, completions, what goes to which stream, the events of
//! `--json`, a terminal, a reader that goes away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use flowstone_tests::{
    Flowstone,
    pipeline::{Scenario, ended, example, root},
};
use serde_json::Value;

/// The commands that `--help` lists.
fn commands(flowstone: &Flowstone) -> Vec<String> {
    let help = flowstone.run(["--help"]).expect_status(0).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // What is further in continues the line before.
    let names = listed.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let flowstone = Flowstone::embedded();
    let commands = commands(&flowstone);
    assert!(commands.len() >= 14, "{commands:?}");
    for command in &commands {
        let help = flowstone.run([command, "--help"]).expect_status(0);
        assert!(
            help.stdout.contains("Example") && help.stdout.contains(&format!("flowstone {command}")),
            "{}",
            help.stdout
        );
        assert!(help.stdout.contains("Usage:") && help.stderr.is_empty(), "{}", help.stderr);
    }
    let mistyped = flowstone.run(["rnu"]).expect_status(2);
    assert!(
        mistyped.stdout.is_empty() && mistyped.stderr.contains("a similar subcommand exists"),
        "{}",
        mistyped.stderr
    );
    assert!(!flowstone.state_dir().exists(), "help leaves nothing behind");
}

#[test]
fn bash_zsh_and_fish_complete_every_command() {
    let flowstone = Flowstone::embedded();
    let commands = commands(&flowstone);
    for shell in ["bash", "zsh", "fish"] {
        let script = flowstone.run(["completions", shell]).expect_status(0);
        assert!(script.stderr.is_empty(), "{}", script.stderr);
        for command in &commands {
            assert!(script.stdout.contains(command.as_str()), "{shell} does not complete {command}");
        }
        assert!(!script.stdout.contains("compile-component"), "{shell} completes what nobody types");
    }
    let script = flowstone.folder().join("flowstone.bash");
    fs::write(&script, flowstone.run(["completions", "bash"]).stdout).unwrap();
    let sourced = format!("source {} && complete -p flowstone", script.display());
    let bash = std::process::Command::new("bash").args(["--norc", "-c", &sourced]).output().unwrap();
    assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
}

#[test]
fn stdout_is_data_and_stderr_is_talk() {
    let scenario = Scenario::new("");
    let check = |arguments: &[&str], data: bool, talk: bool| {
        let output = scenario.flowstone.run(arguments).expect_status(0);
        assert_eq!(!output.stdout.is_empty(), data, "{arguments:?}: stdout:\n{}", output.stdout);
        assert_eq!(!output.stderr.is_empty(), talk, "{arguments:?}: stderr:\n{}", output.stderr);
    };
    let manifest = scenario.manifest();
    let component = flowstone_tests::pipeline::guest("scenarios");
    check(&["runs"], false, true);
    check(&["runs", "--json"], true, false);
    check(&["check", manifest], false, true);
    check(&["deploy", manifest], false, true);
    check(&["plan", "scenarios", "sum"], true, false);
    check(&["plan", "scenarios", "sum", "--json"], true, false);
    check(&["run", "scenarios", "sum"], true, true);
    check(&["run", "scenarios", "sum", "--force", "--json"], true, false);
    check(&["show", "scenarios", "sum"], true, false);
    check(&["show", "scenarios", "sum", "--meta"], true, false);
    let file = scenario.folder().join("sum.json");
    check(&["show", "scenarios", "sum", "--output", file.to_str().unwrap()], false, true);
    assert_eq!(fs::read_to_string(file).unwrap(), "30");
    check(&["status"], true, false);
    check(&["runs"], true, false);
    check(&["logs"], true, false);
    check(&["lineage", "scenarios", "sum"], true, false);
    check(&["graph", "scenarios"], true, false);
    check(&["inspect", component.to_str().unwrap()], true, false);
    check(&["invalidate", "scenarios", "sum"], false, true);
    // Who asked for quiet gets the data and nothing else.
    check(&["--quiet", "deploy", manifest], false, false);
    check(&["--quiet", "run", "scenarios", "sum"], true, false);
}

#[test]
fn whatever_is_asked_for_as_json_is_json() {
    let scenario = Scenario::new("");
    scenario.run(&["after_broken", "sum"], 1);
    let component = flowstone_tests::pipeline::guest("scenarios");
    for arguments in [
        &["plan", "scenarios", "--json"][..],
        &["status", "--json"],
        &["runs", "--json"],
        &["logs", "--json"],
        &["lineage", "scenarios", "sum", "--format", "json"],
        &["graph", "scenarios", "--format", "json"],
        &["show", "scenarios", "sum", "--meta"],
        &["inspect", component.to_str().unwrap(), "--json"],
    ] {
        let output = scenario.flowstone.run(arguments).expect_status(0).stdout;
        let parsed: Result<Value, _> = serde_json::from_str(&output);
        assert!(parsed.is_ok_and(|value| value.is_object() || value.is_array()), "{arguments:?}: {output}");
    }
}

/// The fields of each event, from the examples of `docs/events.md`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = fs::read_to_string(root().join("docs/events.md")).unwrap();
    let examples = document.lines().filter(|line| line.starts_with("{\"event\":"));
    examples.map(|line| fields(&serde_json::from_str(line).unwrap())).collect()
}

fn fields(event: &Value) -> (String, BTreeSet<String>) {
    let name = event["event"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned();
    (name, event.as_object().unwrap().keys().cloned().collect())
}

#[test]
fn the_events_of_a_run_are_those_of_the_document() {
    let scenario = Scenario::new("");
    let documented = documented();
    // One that is tried again, one that fails, one that is skipped for it, some that succeed, one that is reused.
    let events = scenario.run(&["flaky", "after_broken", "keyed", "sum"], 1);
    let mut seen = BTreeSet::new();
    for event in &events {
        let (name, fields) = fields(event);
        assert_eq!(Some(&fields), documented.get(&name), "{event}");
        seen.insert(name);
    }
    let expected = ["job.deferred", "job.ended", "job.started", "run.finished", "run.started"];
    assert_eq!(seen.iter().collect::<Vec<_>>(), expected);

    let (first, last) = (&events[0], &events[events.len() - 1]);
    assert_eq!((&first["event"], &last["event"]), (&"run.started".into(), &"run.finished".into()));
    assert!(events.iter().all(|event| event["run"] == first["run"]), "one run");
    let jobs: Vec<&Value> = events.iter().filter(|event| event["event"] == "job.ended").collect();
    let ids: BTreeSet<String> = jobs.iter().map(|event| event["job"].to_string()).collect();
    assert_eq!((ids.len(), jobs.len() as u64), (jobs.len(), first["jobs"].as_u64().unwrap()), "each job ends once");
    for state in ["succeeded", "skipped", "failed", "cancelled"] {
        let counted = jobs.iter().filter(|event| event["state"] == state).count() as u64;
        assert_eq!(last[state].as_u64(), Some(counted), "{state}");
    }
    for job in jobs {
        assert_eq!(job["cause"].is_null(), job["state"] == "succeeded", "{job}");
        assert_eq!(job["materialization"].is_string(), job["state"] == "succeeded", "{job}");
    }
}

#[test]
fn a_run_that_has_nothing_to_do_succeeds() {
    let scenario = Scenario::new("");
    scenario.run(&["sum"], 0);
    let again = scenario.command("run", &["sum"]).expect_status(0);
    assert_eq!(again.stdout, "scenarios is up to date\n");
    let events = scenario.run(&["sum"], 0);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["run.started", "run.finished"]);
    assert_eq!((&events[0]["jobs"], &events[0]["up_to_date"]), (&0.into(), &3.into()));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let scenario = Scenario::new("");
    scenario.run(&["after_large"], 0);
    for arguments in [&["show", "scenarios", "large"][..], &["show", "scenarios", "large", "--meta"], &["--help"]] {
        let mut command = scenario.flowstone.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(0), String::new()));
    }
}

#[test]
fn a_run_goes_on_when_the_reader_of_its_events_goes_away() {
    let scenario = Scenario::new("");
    let mut command = scenario.flowstone.command(["run", scenario.manifest(), "after_keyed", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("run.started"), "{first}");
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(ended(&scenario.run(&["after_keyed"], 0)).is_empty(), "all of it was made");
}

/// What the command shows on a terminal of this width.
fn on_a_terminal(flowstone: &Flowstone, arguments: &str) -> String {
    let plain = flowstone.command([] as [&str; 0]);
    let line = format!("stty cols 120 rows 40; {} {arguments}", plain.get_program().to_str().unwrap());
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .current_dir(flowstone.folder())
        .stdin(Stdio::null())
        .env("TERM", "xterm");
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().expect("util-linux has script");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    shown
}

#[test]
fn a_terminal_shows_bars_and_a_table_and_nothing_else_does() {
    let scenario = Scenario::new("");
    let shown = on_a_terminal(&scenario.flowstone, &format!("run {} after_keyed", scenario.manifest()));
    for (what, sign) in [("a bar", "━━━"), ("its count", "4/4"), ("a cursor that moves", "\u{1b}["), ("a table", "│")]
    {
        assert!(shown.contains(sign), "there is not {what} in\n{shown:?}");
    }
    assert!(shown.contains("succeeded in"), "{shown:?}");

    let plain = scenario.command("run", &["after_keyed", "--force"]).expect_status(0);
    for sign in ["━", "\u{1b}", "│"] {
        assert!(
            !plain.stdout.contains(sign) && !plain.stderr.contains(sign),
            "{sign:?}:\n{}{}",
            plain.stdout,
            plain.stderr
        );
    }
    assert_eq!(plain.stderr.lines().filter(|line| line.contains("after_keyed[")).count(), 4, "a line for each job");
}

#[test]
fn a_terminal_is_not_shown_bytes_that_it_would_obey() {
    let scenario = Scenario::new("");
    scenario.run(&["large"], 0);
    let show = |flag: &str| format!("show scenarios large {flag} || echo status $?");
    let refused = on_a_terminal(&scenario.flowstone, &show(""));
    assert!(refused.contains("not plain text") && refused.contains("status 2"), "{refused:?}");
}

#[test]
fn two_pipelines_in_one_database_do_not_mix() {
    let scenario = Scenario::new("");
    scenario.run(&["numbers"], 0);
    // Its asset has the name of one of the other pipeline's, and other contents.
    let folder = scenario.flowstone.folder().join("other");
    fs::create_dir(&folder).unwrap();
    let text = "[pipeline]\nname = \"other\"\n[[components]]\npath = \"numbers.wasm\"\n";
    fs::write(folder.join("flowstone.toml"), text).unwrap();
    let described =
        [flowstone_tests::guest::Described::new("numbers"), flowstone_tests::guest::Described::new("only_here")];
    fs::write(folder.join("numbers.wasm"), flowstone_tests::guest::component(&described)).unwrap();
    let flowstone = &scenario.flowstone;
    flowstone.run(["show", "other", "numbers"]).expect_status(2);
    flowstone.run(["deploy", folder.to_str().unwrap()]).expect_status(0);
    let unmade = flowstone.run(["show", "other", "numbers"]).expect_status(2);
    assert!(unmade.stderr.contains("`flowstone run other numbers` does it"), "{}", unmade.stderr);
    flowstone.run(["run", "other"]).expect_status(0);
    assert_eq!(flowstone.run(["show", "other", "numbers"]).expect_status(0).stdout, "");
    assert_eq!(scenario.show("numbers", None), "[1,2,3,4,5]");

    flowstone.run(["invalidate", "other", "numbers"]).expect_status(0);
    assert!(ended(&scenario.run(&["numbers"], 0)).is_empty(), "what the other one voids is still good here");
    let runs = |pipeline: &str| -> Vec<Value> {
        let listed = flowstone.run(["runs", pipeline, "--json"]).expect_status(0).stdout;
        serde_json::from_str(&listed).unwrap()
    };
    assert_eq!((runs("other").len(), runs("scenarios").len()), (1, 2));
    assert!(runs("other").iter().all(|run| run["pipeline"] == "other"));
    let graph = flowstone.run(["graph", "scenarios"]).expect_status(0).stdout;
    assert!(!graph.contains("only_here"), "{graph}");
}

#[test]
fn ranges_and_several_partitions_select_what_they_say() {
    let scenario = Scenario::new("");
    let planned = |keys: &[&str]| -> Vec<String> {
        let flags = keys.iter().flat_map(|key| ["--partition", *key]);
        let arguments: Vec<&str> = ["daily"].into_iter().chain(flags).chain(["--json"]).collect();
        let plan: Value = serde_json::from_str(&scenario.command("plan", &arguments).expect_status(0).stdout).unwrap();
        let jobs = plan["jobs"].as_array().unwrap().iter().map(|job| job["partition"].as_str().unwrap().to_owned());
        jobs.collect()
    };
    assert_eq!(planned(&["2024-01-02"]), ["2024-01-02"]);
    assert_eq!(planned(&["2024-01-02..2024-01-03"]), ["2024-01-02", "2024-01-03"]);
    assert_eq!(planned(&["2024-01-03", "2024-01-01"]), ["2024-01-01", "2024-01-03"]);
    assert_eq!(planned(&["2024-01-01..2024-01-02", "2024-01-02..2024-01-03"]).len(), 3, "no partition twice");
    scenario.run(&["daily", "--partition", "2024-01-02"], 0);
    assert_eq!(planned(&["2024-01-01..2024-01-03"]), ["2024-01-01", "2024-01-03"]);
}

#[test]
fn inspect_tells_what_a_component_would_need_without_any_state() {
    let flowstone = Flowstone::embedded();
    let weather = example("weather");
    let said = flowstone.run(["inspect", weather.to_str().unwrap()]).expect_status(0).stdout;
    for words in ["raw_weather", "weather_report", "station", "flowstone:asset/files", "flowstone:asset/materializer"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    let report: Value =
        serde_json::from_str(&flowstone.run(["inspect", weather.to_str().unwrap(), "--json"]).expect_status(0).stdout)
            .unwrap();
    assert_eq!(report["assets"].as_array().map(Vec::len), Some(5), "{report:#}");
    assert_eq!(report["size_bytes"].as_u64(), Some(fs::metadata(weather).unwrap().len()), "{report:#}");
    assert!(!flowstone.state_dir().join("postgres").exists(), "no database is needed to look at a file");
}
