//! The four findings of the review that started this project, each as what a user would see of it: arguments were lost
//! on their way to a worker, resources were missing where they had been granted, errors lost their type and their
//! cause, and what was recorded of one job contradicted itself.
//!
//! The fourth is held at every statement of a commit by `faults.rs`; what stops a deploy, mistake by mistake, by
//! `bad_input.rs`. Here each command is a process of its own, which knows nothing but what the ones before recorded.

use std::fs;

use flowstone_tests::pipeline::{Scenario, ended};
use serde_json::Value;

use crate::checker::{assert_sound, violations};

/// What must survive being quoted, escaped, stored and sent. In TOML, then as the guest prints it.
const AWKWARD: (&str, &str) = (
    r#"[assets.echo.config]
words = ["", "a \"b\" \\ c", "'; drop table job; --", "grüße\t日本 🦀"]
nested = { number = -9007199254740993 }
"#,
    r#"["", "a \"b\" \\ c", "'; drop table job; --", "grüße\t日本 🦀"] Some(-9007199254740993)"#,
);

/// Only the process that was there first can lease jobs: what another one submits is its to run.
const ONLY_THE_FIRST: &str = "
    create table first as select worker_id from worker;
    create function only_the_first() returns trigger language plpgsql as $$
    begin
        if not exists (select from first where worker_id = new.worker_id) then
            raise exception 'not the first' using errcode = 'admin_shutdown';
        end if;
        return new;
    end $$;
    create trigger only_the_first before insert on job_lease for each row execute function only_the_first()";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn finding_1_a_jobs_arguments_reach_a_process_that_has_nothing_but_the_database() {
    let scenario = Scenario::new("");
    let database = scenario.flowstone.database();
    // This one has read another manifest, and runs before there is anything to know of the job.
    let mut worker = scenario.flowstone.start(["run", scenario.manifest(), "waits", "--json", "-j", "4"]);
    worker.event("job.started");
    database.execute(ONLY_THE_FIRST);

    scenario.bind(AWKWARD.0);
    fs::write(scenario.folder().join("shelf/seen.txt"), "").unwrap();
    let events = scenario.run(&["echo"], 0);
    assert_eq!(ended(&events), ["echo[p1] succeeded", "echo[value|with|pipes] succeeded"]);
    for key in ["p1", "value|with|pipes"] {
        let seen = scenario.show("echo", Some(&format!("key={key}")));
        assert_eq!(seen, format!(r#"echo {key} {} ["seen.txt"]"#, AWKWARD.1));
    }
    let elsewhere = "select t.worker_id::text from attempt t where worker_id not in (select worker_id from first)";
    assert_eq!(database.ask(elsewhere), [""; 0], "all of it ran in the first process");
    assert_eq!(database.ask("select count(*)::text from attempt"), ["2"]);
    scenario.go("on");
    worker.wait().expect_status(0);
}

#[test]
fn finding_2_what_is_granted_reaches_the_asset_and_what_is_not_granted_stops_the_deploy() {
    let scenario = Scenario::new(AWKWARD.0);
    let database = scenario.flowstone.database();
    let whole = fs::read_to_string(scenario.manifest()).unwrap();
    let grant = "[assets.listing]\ngrants = { shelf = { access = \"read\", paths = [\"*.txt\"] } }\n";
    assert!(whole.contains(grant), "{whole}");
    fs::write(scenario.manifest(), whole.replace(grant, "")).unwrap();
    let refused = scenario.command("deploy", &[]).expect_status(2).stderr;
    assert!(refused.contains("assets.listing.grants.shelf: the asset needs the directory `shelf`"), "{refused}");
    assert_eq!(database.ask("select name::text from pipeline"), [""; 0], "nothing of it is deployed");

    fs::write(scenario.manifest(), &whole).unwrap();
    scenario.command("deploy", &[]).expect_status(0);
    // From here on only what was deployed tells of the grant.
    fs::remove_file(scenario.manifest()).unwrap();
    fs::write(scenario.folder().join("shelf/granted.txt"), "12345").unwrap();
    fs::write(scenario.folder().join("shelf/not-granted.csv"), "").unwrap();
    let listing = ["run", "scenarios", "listing"];
    scenario.flowstone.run(listing).expect_status(0);
    assert_eq!(scenario.show("listing", None), "granted.txt 5\n");

    // A directory that went away after the deploy is an error with its name, and never an empty directory.
    fs::rename(scenario.folder().join("shelf"), scenario.folder().join("moved")).unwrap();
    let refused = scenario.flowstone.run([&listing[..], &["--force"]].concat()).expect_status(2).stderr;
    assert!(refused.contains("resource `shelf`: cannot read"), "{refused}");
    assert_eq!(scenario.show("listing", None), "granted.txt 5\n", "what was made stays");
    fs::write(scenario.manifest(), &whole).unwrap();
    let refused = scenario.command("deploy", &[]).expect_status(2).stderr;
    assert!(refused.contains("resources.shelf.path: there is no directory at"), "{refused}");
}

#[test]
fn finding_3_an_error_keeps_its_kind_and_its_cause_in_every_later_process() {
    let scenario = Scenario::new("");
    // The guest's: a verdict with its words, for the asset and for what needs it.
    scenario.run(&["after_broken"], 1);
    let logs = json(&scenario.flowstone.run(["logs", "latest", "broken", "--json"]).expect_status(0).stdout);
    let attempt = &logs[0];
    assert_eq!((&attempt["verdict"], &attempt["charged"]), (&"failed".into(), &true.into()));
    assert!(attempt["message"].as_str().unwrap().contains("simulated failure"), "{attempt}");
    let status = json(&scenario.flowstone.run(["status", "--json"]).expect_status(0).stdout);
    let of = |asset: &str| -> (String, String) {
        let jobs = status["job_list"].as_array().unwrap();
        let job = jobs.iter().find(|job| job["asset"] == asset).unwrap_or_else(|| panic!("{status}"));
        (job["state"].as_str().unwrap().to_owned(), job["cause"].as_str().unwrap().to_owned())
    };
    let (state, cause) = of("broken");
    assert!(state == "failed" && cause.contains("simulated failure"), "{state}: {cause}");
    assert_eq!(of("after_broken"), ("skipped".to_owned(), "input broken was not made: it failed".to_owned()));

    // The user's: the place and the fix.
    let mistake = scenario.flowstone.run(["run", "scenarios", "brokn"]).expect_status(2).stderr;
    assert!(mistake.contains("brokn") && mistake.contains("did you mean `broken`"), "{mistake}");

    // The host's: what was done, with what, and what the system said.
    let blobs = scenario.folder().join("no-folder");
    fs::write(&blobs, "").unwrap();
    let trouble = scenario.flowstone.command(["run", "scenarios", "numbers"]).env("FLOWSTONE_BLOBS", &blobs).output();
    let trouble = trouble.unwrap();
    let said = String::from_utf8(trouble.stderr).unwrap();
    assert_eq!(trouble.status.code(), Some(3), "{said}");
    let cause = format!("cannot use {} as a blob store", blobs.display());
    for words in [&*cause, "Not a directory (os error 20)"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    // A fault in the middle of a run is told with its cause too, and is no verdict of the guest's.
    scenario.flowstone.database().execute(
        "create sequence once;
         create function once() returns trigger language plpgsql as $$
         begin
             if nextval('once') = 1 then raise exception 'the disk of the server is full' using errcode = '53100'; end if;
             return new;
         end $$;
         create trigger once before insert on job_lease for each row execute function once()",
    );
    let run = scenario.flowstone.run(["run", "scenarios", "numbers", "--json"]).expect_status(0);
    assert!(run.stderr.contains("the disk of the server is full"), "{}", run.stderr);
    let logs = json(&scenario.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout);
    let verdicts: Vec<&Value> = logs.as_array().unwrap().iter().map(|attempt| &attempt["verdict"]).collect();
    assert_eq!(verdicts, ["succeeded"]);
}

#[tokio::test]
async fn finding_4_whoever_asks_is_told_the_same_of_a_job_and_its_output() {
    let scenario = Scenario::new("");
    let events = scenario.run(&["sum", "despite_broken"], 1);
    let status = json(&scenario.flowstone.run(["status", "--json"]).expect_status(0).stdout);
    let lineage = scenario.flowstone.run(["lineage", "scenarios", "sum", "--format", "json"]).expect_status(0).stdout;
    let lineage = json(&lineage);
    let mut succeeded = 0;
    for job in status["job_list"].as_array().unwrap() {
        let asset = job["asset"].as_str().unwrap();
        let told = events.iter().find(|event| event["event"] == "job.ended" && event["job"] == job["job"]).unwrap();
        for field in ["asset", "state", "cause", "materialization"] {
            assert_eq!(told[field], job[field], "{asset}");
        }
        if job["state"] != "succeeded" {
            assert!(job["materialization"].is_null(), "{job}");
            scenario.flowstone.run(["show", "scenarios", asset]).expect_status(2);
            continue;
        }
        succeeded += 1;
        let record = json(&scenario.flowstone.run(["show", "scenarios", asset, "--meta"]).expect_status(0).stdout);
        assert_eq!((&record["materialization"], &record["job"]), (&job["materialization"], &job["job"]), "{asset}");
        let bytes = scenario.show(asset, None);
        assert_eq!(record["digest"], flowstone::blob::Digest::of(bytes.as_bytes()).to_string(), "{asset}");
        assert_eq!(record["size_bytes"], bytes.len(), "{asset}");
        for node in lineage["nodes"].as_array().unwrap().iter().filter(|node| node["asset"] == asset) {
            for field in ["materialization", "digest"] {
                assert_eq!(node[field], record[field], "{asset}");
            }
        }
    }
    assert_eq!(succeeded, 4, "{status}");
    let database = scenario.flowstone.database();
    assert_sound(&violations(&database.pool().await, &scenario.flowstone.state_dir().join("blobs")).await);
}
