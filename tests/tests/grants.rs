//! Clock, randomness, secrets; and who may grant what: the operator's side and the pipeline's.

use std::fs;

use flowstone_tests::{Flowstone, Output, pipeline::guest};

use crate::checker::{assert_sound, violations};

/// A pipeline of the assets of `tests/guests/grants`.
struct Grants {
    flowstone: Flowstone,
    manifest: String,
}

const TOKEN: &str = "correct-horse-battery-staple";

impl Grants {
    /// With these sections in the manifest, and grants for the assets that need some.
    fn new(resources: &str) -> Self {
        let flowstone = Flowstone::new();
        let manifest = flowstone.folder().join("flowstone.toml");
        let grants = Self { flowstone, manifest: manifest.to_str().unwrap().to_owned() };
        grants.bind(resources);
        grants
    }

    fn bind(&self, resources: &str) {
        let component = guest("grants").display().to_string();
        let secret = "grants.token.reveal = true\nretry.max_attempts = 1\n";
        let text = format!(
            "[pipeline]\nname = \"grants\"\n[[components]]\npath = \"{component}\"\n{resources}\n\
             [assets.real_time]\ngrants.wall = {{}}\n\
             [assets.oversleeps]\ngrants.wall = {{}}\nlimits.timeout = \"300ms\"\nretry.max_attempts = 1\n\
             [assets.drawn]\ngrants.dice = {{}}\n\
             [assets.pries]\nretry.max_attempts = 1\n\
             [assets.signed]\n{secret}[assets.signed_hourly]\n{secret}[assets.blabs]\n{secret}[assets.blabs_quietly]\n{secret}[assets.panics]\n{secret}"
        );
        fs::write(&self.manifest, text).unwrap();
    }

    #[track_caller]
    fn run(&self, asset: &str, status: i32) -> Output {
        let mut command = self.flowstone.command(["run", &self.manifest, asset]);
        command.env("FLOWSTONE_SECRET_TOKEN", TOKEN);
        Output::of(&mut command).expect_status(status)
    }

    fn show(&self, asset: &str) -> String {
        self.flowstone.run(["show", "grants", asset]).expect_status(0).stdout
    }

    fn newest_attempt(&self) -> serde_json::Value {
        let logs = self.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
        let logs: Vec<serde_json::Value> = serde_json::from_str(&logs).unwrap();
        logs.into_iter().next_back().unwrap()
    }

    /// Everything that the database holds, as text.
    fn whole_database(&self) -> String {
        let rows = self.flowstone.database().ask(
            "select query_to_xml(format('select t::text as row from %I t', tablename), true, false, '')::text
             from pg_tables where schemaname = 'public'",
        );
        rows.join("\n")
    }
}

const ALL: &str = "[resources.wall]\nkind = \"clock\"\n[resources.dice]\nkind = \"random\"\n\
                   [resources.token]\nkind = \"secret\"\nenv = \"FLOWSTONE_SECRET_TOKEN\"\n";

fn seconds_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn without_a_grant_time_and_chance_follow_from_the_job_and_with_one_they_are_real() {
    let grants = Grants::new(ALL);
    grants.run("logical_time", 0);
    let logical = grants.show("logical_time");
    let (now, slept) = logical.split_once(' ').unwrap();
    assert_eq!(now, "0");
    assert!((50..60).contains(&slept.parse::<u64>().unwrap()), "{slept}");

    let before = seconds_now();
    grants.run("real_time", 0);
    let real = grants.show("real_time");
    let (now, slept) = real.split_once(' ').unwrap();
    assert!((before..=seconds_now()).contains(&now.parse().unwrap()), "{now}");
    assert!(slept.parse::<u64>().unwrap() >= 50, "{slept}");
    let uses = &grants.newest_attempt()["uses"];
    assert!(uses.as_array().unwrap().iter().any(|used| used["resource"] == "wall" && used["operation"] == "wall"));

    grants.run("seeded", 0);
    grants.run("drawn", 0);
    let (seeded, drawn) = (grants.show("seeded"), grants.show("drawn"));
    for asset in ["seeded", "drawn"] {
        grants.flowstone.run(["run", &grants.manifest, asset, "--force"]).expect_status(0);
    }
    assert_eq!(grants.show("seeded"), seeded, "the same recipe draws the same numbers");
    assert_ne!(grants.show("drawn"), drawn);
    assert_eq!(grants.newest_attempt()["uses"][0]["capability"], "random");
}

#[test]
fn an_asset_with_a_real_clock_is_effectful_and_is_stopped_in_its_sleep() {
    let grants = Grants::new(ALL);
    grants.run("logical_time", 0);
    assert!(grants.run("logical_time", 0).stdout.contains("up to date"));
    grants.run("real_time", 0);
    assert!(!grants.run("real_time", 0).stdout.contains("up to date"));
    let started = std::time::Instant::now();
    grants.run("oversleeps", 1);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    assert_eq!(grants.newest_attempt()["verdict"], "timed-out");
}

#[test]
fn a_secret_reaches_the_asset_from_the_environment_a_file_and_the_database() {
    let sum: u64 = TOKEN.bytes().map(u64::from).sum();
    let grants = Grants::new(ALL);
    grants.run("signed", 0);
    assert_eq!(grants.show("signed"), sum.to_string());
    let uses = &grants.newest_attempt()["uses"];
    assert_eq!(uses[0]["operation"], "reveal");
    assert_eq!(uses[0]["calls"], 1);

    let others = ALL.replace("env = \"FLOWSTONE_SECRET_TOKEN\"", "file = \"token.txt\"");
    grants.bind(&others);
    fs::write(grants.flowstone.folder().join("token.txt"), format!("{TOKEN}x\n")).unwrap();
    grants.run("signed", 0);
    assert_eq!(grants.show("signed"), (sum + u64::from(b'x')).to_string());

    grants.bind(&ALL.replace("env = \"FLOWSTONE_SECRET_TOKEN\"", "sealed = true"));
    let never_set = grants.run("signed", 1).stderr;
    assert!(never_set.contains("flowstone secret set token") || never_set.contains("seal key"), "{never_set}");
    let mut command = grants.flowstone.command(["secret", "set", "token"]);
    Output::with_input(&mut command, format!("{TOKEN}y\n").as_bytes()).expect_status(0);
    grants.run("signed", 0);
    assert_eq!(grants.show("signed"), (sum + u64::from(b'y')).to_string());
    assert!(!grants.whole_database().contains(TOKEN));
    let listed = grants.flowstone.run(["secret", "list"]).expect_status(0).stdout;
    assert!(listed.contains("token") && !listed.contains(TOKEN), "{listed}");

    // Another key is named, and opens nothing.
    let mut command = grants.flowstone.command(["run", &grants.manifest, "signed"]);
    command.env("FLOWSTONE_SEAL_KEY", "ab".repeat(32));
    let refused = Output::of(&mut command).expect_status(1);
    assert!(refused.stderr.contains("sealed under another key"), "{}", refused.stderr);
    grants.flowstone.run(["secret", "remove", "token"]).expect_status(0);
    grants.flowstone.run(["secret", "remove", "token"]).expect_status(2);
    grants.run("signed", 1);
}

/// More look-ups at once than the pool has connections open: some open a new one.
#[test]
fn sealed_secrets_are_looked_up_for_many_attempts_at_once() {
    let grants = Grants::new(&ALL.replace("env = \"FLOWSTONE_SECRET_TOKEN\"", "sealed = true"));
    let mut command = grants.flowstone.command(["secret", "set", "token"]);
    Output::with_input(&mut command, TOKEN.as_bytes()).expect_status(0);
    let run = grants.flowstone.run(["run", &grants.manifest, "signed_hourly", "--concurrency", "64"]).expect_status(0);
    assert!(!run.stderr.contains("panic"), "{}", run.stderr);
    let verdicts = grants.flowstone.database().ask("select distinct verdict::text from attempt");
    assert_eq!(verdicts, ["succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_appears_nowhere_whatever_a_guest_says() {
    let grants = Grants::new(ALL);
    let mut printed = String::new();
    for (asset, status) in [("blabs", 1), ("blabs_quietly", 0), ("panics", 1)] {
        let run = grants.run(asset, status);
        printed += &format!("{}{}", run.stdout, run.stderr);
        for arguments in
            [&["logs", "latest"][..], &["logs", "latest", "--json"], &["status", "latest"], &["grants", "grants"]]
        {
            let output = grants.flowstone.run(arguments).expect_status(0);
            printed += &format!("{}{}", output.stdout, output.stderr);
        }
    }
    printed += &grants.flowstone.run(["show", "grants", "blabs_quietly", "--meta"]).expect_status(0).stdout;
    assert!(printed.contains("[secret token]"), "{printed}");
    let everything = printed + &grants.whole_database();
    assert!(everything.contains("it failed with [secret token]"));
    assert!(!everything.contains(TOKEN));
    let in_hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!everything.contains(&in_hex));
    // What was cut at the end of a line does not show its beginning either.
    assert!(!everything.contains(&TOKEN[..8]), "the beginning of the secret is shown");
    let database = grants.flowstone.database();
    assert_sound(&violations(&database.pool().await, &grants.flowstone.state_dir().join("blobs")).await);
}

#[test]
fn a_secret_that_was_not_granted_is_not_there() {
    let grants = Grants::new(ALL);
    grants.run("pries", 1);
    let attempt = grants.newest_attempt();
    assert_eq!(attempt["verdict"], "denied");
    assert_eq!(attempt["denials"][0]["remedy"], "[assets.pries] grants = { token = { reveal = true } }");
    let unset = grants.flowstone.run(["run", &grants.manifest, "signed"]).expect_status(1);
    assert!(unset.stderr.contains("the worker has no variable FLOWSTONE_SECRET_TOKEN"), "{}", unset.stderr);
}

#[test]
fn a_secret_can_only_be_of_the_variables_that_are_meant_for_it() {
    for variable in ["DATABASE_URL", "PATH", "FLOWSTONE_SECRET_", "FLOWSTONE_SEAL_KEY"] {
        let grants = Grants::new(&ALL.replace("FLOWSTONE_SECRET_TOKEN", variable));
        let refused = grants.flowstone.run(["check", &grants.manifest]).expect_status(2);
        assert!(refused.stderr.contains("only variables that begin with FLOWSTONE_SECRET_"), "{}", refused.stderr);
    }
}

#[test]
fn neither_an_operator_nor_a_pipeline_is_enough_alone() {
    let grants = Grants::new("");
    let refuse = |arguments: &[&str], status: i32| {
        let mut command = grants.flowstone.command(arguments);
        command.env("FLOWSTONE_MANIFEST_RESOURCES", "refuse").env("FLOWSTONE_SECRET_TOKEN", TOKEN);
        Output::of(&mut command).expect_status(status)
    };
    // A grant without the operator's resource.
    let missing = refuse(&["check", &grants.manifest], 2).stderr;
    assert!(missing.contains("there is no resource `token`"), "{missing}");
    // A resource that the pipeline declares itself.
    grants.bind(ALL);
    let declared = refuse(&["check", &grants.manifest], 2).stderr;
    assert!(declared.contains("flowstone resource add") && declared.contains("resources.token"), "{declared}");
    // The operator's resource without a grant: the component asks for what nobody grants.
    let operators = grants.flowstone.folder().join("operator.toml");
    fs::write(&operators, ALL).unwrap();
    grants.flowstone.run(["resource", "add", operators.to_str().unwrap()]).expect_status(0);
    grants.bind("");
    let text = fs::read_to_string(&grants.manifest).unwrap();
    fs::write(&grants.manifest, text.replace("[assets.signed]\ngrants.token.reveal = true", "[assets.signed]"))
        .unwrap();
    let ungranted = refuse(&["check", &grants.manifest], 2).stderr;
    assert!(ungranted.contains("assets.signed.grants.token"), "{ungranted}");
    // Both together.
    grants.bind("");
    refuse(&["run", &grants.manifest, "signed"], 0);
    let table = grants.flowstone.run(["grants", "grants"]).expect_status(0).stdout;
    assert!(table.contains("signed") && table.contains("reveal") && table.contains("operator"), "{table}");
    // A resource of the same name cannot be slipped in under the operator's.
    grants.bind(ALL);
    let shadowed = grants.flowstone.run(["check", &grants.manifest]).expect_status(2).stderr;
    assert!(shadowed.contains("an operator has registered a resource of this name"), "{shadowed}");
}

#[test]
fn what_a_pipeline_declared_stays_its_own_whatever_an_operator_registers_later() {
    let grants = Grants::new(ALL);
    grants.run("signed", 0);
    let operators = grants.flowstone.folder().join("operator.toml");
    fs::write(&operators, "[resources.token]\nkind = \"clock\"\n").unwrap();
    grants.flowstone.run(["resource", "add", operators.to_str().unwrap()]).expect_status(0);
    let table = grants.flowstone.run(["grants", "grants"]).expect_status(0).stdout;
    let line = table.lines().find(|line| line.starts_with("signed ")).unwrap();
    assert!(line.ends_with("pipeline") && !line.contains("cannot be used"), "{table}");
}

#[test]
fn what_an_operator_takes_away_is_gone_for_what_was_deployed_before() {
    let grants = Grants::new("");
    let operators = grants.flowstone.folder().join("operator.toml");
    fs::write(&operators, ALL).unwrap();
    grants.flowstone.run(["resource", "add", operators.to_str().unwrap()]).expect_status(0);
    grants.run("signed", 0);
    grants.flowstone.run(["resource", "remove", "token"]).expect_status(0);
    let by_name = |status| {
        let mut command = grants.flowstone.command(["run", "grants", "signed"]);
        command.env("FLOWSTONE_SECRET_TOKEN", TOKEN);
        Output::of(&mut command).expect_status(status)
    };
    let gone = by_name(1).stderr;
    assert!(gone.contains("`token`, which is not registered"), "{gone}");
    let table = grants.flowstone.run(["grants", "grants"]).expect_status(0).stdout;
    assert!(table.contains("cannot be used: the resource is not registered"), "{table}");
    grants.flowstone.run(["resource", "add", operators.to_str().unwrap(), "token"]).expect_status(0);
    by_name(0);
    // Another kind under the same name is not what was granted.
    fs::write(&operators, "[resources.token]\nkind = \"clock\"\n").unwrap();
    grants.flowstone.run(["resource", "add", operators.to_str().unwrap()]).expect_status(0);
    let changed = by_name(1).stderr;
    assert!(changed.contains("is a clock, not a secret"), "{changed}");
}

#[test]
fn a_plan_shows_which_rights_a_manifest_changes_before_anything_runs() {
    let grants = Grants::new(ALL);
    let first = grants.flowstone.run(["plan", &grants.manifest]).expect_status(0).stdout;
    assert!(first.contains("+ signed: secret `token`, reveal"), "{first}");
    let again = grants.flowstone.run(["plan", &grants.manifest]).expect_status(0).stdout;
    assert!(!again.contains("grants that changed"), "{again}");
    let text = fs::read_to_string(&grants.manifest).unwrap();
    let wider = text.replace("[resources.wall]", "[resources.clock]").replace("grants.wall", "grants.clock");
    fs::write(&grants.manifest, wider).unwrap();
    let refused = grants.flowstone.run(["plan", &grants.manifest]).expect_status(2).stderr;
    assert!(refused.contains("assets.real_time.grants.wall"), "{refused}");
}

#[test]
fn mistakes_with_resources_and_secrets_are_named() {
    let flowstone = Flowstone::new();
    let file = flowstone.folder().join("operator.toml");
    let add = |text: &str| {
        fs::write(&file, text).unwrap();
        flowstone.run(["resource", "add", file.to_str().unwrap()]).expect_status(2).stderr
    };
    assert!(add("").contains("declares no resources"));
    assert!(add("[resources.a]\nkind = \"secret\"\n").contains("a secret is in one place"));
    assert!(add("[resources.a]\nkind = \"directory\"\npath = \"nowhere\"\n").contains("there is no directory at"));
    assert!(add("[resource.a]\nkind = \"clock\"\n").contains("did you mean `resources`"));
    assert!(add("[resources.a]\nkind = \"clock\"\nspeed = 2\n").contains("resources.a.speed"));
    flowstone.run(["resource", "add", "absent.toml"]).expect_status(2);
    flowstone.run(["resource", "remove", "absent"]).expect_status(2);
    let set = |name: &str, value: &[u8]| {
        let mut command = flowstone.command(["secret", "set", name]);
        Output::with_input(&mut command, value).expect_status(2).stderr
    };
    assert!(set("token", b"").contains("it is empty"));
    assert!(set("token", b"\n").contains("it is empty"));
    assert!(set("token", &[b'x'; 17 << 10]).contains("longer than 16 KiB"));
    assert!(set("a b", b"hunter2").contains("not a name for a secret"));
    assert!(!set("a b", b"hunter2").contains("hunter2"));
}
