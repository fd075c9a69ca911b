//! Whatever is wrong with what somebody gives us, told through the real command: the exit status says whose fault it is,
//! the message names the place and the fix, and nothing that was there before is lost.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use flowstone_tests::{
    Database, Flowstone, Mount,
    guest::{Described, component, component_with_files},
    pipeline::{Scenario, ended, example},
};

/// A pipeline that was sound and has run once. Each test gives it a mistake.
struct Bench {
    flowstone: Flowstone,
    before: Vec<String>,
}

const SOUND: &str = "[pipeline]\nname = \"sound\"\n[[components]]\npath = \"hello.wasm\"\n";

impl Bench {
    fn new() -> Self {
        let mut bench = Self { flowstone: Flowstone::new(), before: Vec::new() };
        fs::create_dir(bench.folder()).unwrap();
        fs::copy(example("hello"), bench.folder().join("hello.wasm")).unwrap();
        bench.bind(SOUND);
        bench.flowstone.run(["run", "./pipeline"]).expect_status(0);
        bench.before = bench.recorded();
        bench
    }

    fn folder(&self) -> PathBuf {
        self.flowstone.folder().join("pipeline")
    }

    fn bind(&self, manifest: &str) {
        fs::write(self.folder().join("flowstone.toml"), manifest).unwrap();
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder().join(name), bytes).unwrap();
    }

    /// All that a deploy or a run would add to.
    fn recorded(&self) -> Vec<String> {
        self.flowstone.database().ask(
            "select format('%s v%s', name, number) from pipeline_version join pipeline using (tenant_id, pipeline_id)
             union all select format('run %s', run_id) from run
             union all select format('materialization %s', materialization_id) from materialization order by 1",
        )
    }

    /// Neither `deploy` nor `run` takes the manifest as it is: both are the user's mistake, say all of this, each on
    /// some line of its own, and change nothing.
    #[track_caller]
    fn refused(&self, expected: &[&str]) -> String {
        let refused = self.flowstone.run(["deploy", "./pipeline"]).expect_status(2);
        assert_eq!(refused.stdout, "", "stdout is for data");
        for words in expected {
            assert!(refused.stderr.lines().any(|line| line.contains(words)), "`{words}` is not in\n{}", refused.stderr);
        }
        assert_eq!(self.recorded(), self.before, "nothing was deployed and nothing is lost");
        refused.stderr
    }

    /// The same of a manifest.
    #[track_caller]
    fn check(&self, manifest: &str, expected: &[&str]) -> String {
        self.bind(manifest);
        self.refused(expected)
    }

    /// The same of a component beside a sound one.
    #[track_caller]
    fn check_component(&self, bytes: impl AsRef<[u8]>, expected: &[&str]) -> String {
        self.put("guest.wasm", bytes);
        self.check(&format!("{SOUND}[[components]]\npath = \"guest.wasm\"\n"), expected)
    }

    /// What was made before is still shown.
    #[track_caller]
    fn is_whole(&self) {
        assert_eq!(self.flowstone.run(["show", "sound", "greeting"]).expect_status(0).stdout, "Hello, World!");
        assert_eq!(self.recorded(), self.before);
    }
}

#[test]
fn a_manifest_that_cannot_be_read_is_named() {
    let bench = Bench::new();
    for (path, words) in [
        ("./nowhere", "cannot read the manifest ./nowhere: No such file"),
        ("nowhere/flowstone.toml", "cannot read the manifest nowhere/flowstone.toml: No such file"),
        (".", "cannot read the manifest ./flowstone.toml: No such file"),
        ("./pipeline/hello.wasm", "the manifest ./pipeline/hello.wasm is not UTF-8 text"),
    ] {
        for command in ["check", "deploy", "plan", "run", "graph"] {
            let refused = bench.flowstone.run([command, path]).expect_status(2);
            assert!(refused.stderr.contains(words), "{command}: `{words}` is not in\n{}", refused.stderr);
            assert_eq!(refused.stdout, "");
        }
    }
    bench.check("", &["flowstone.toml:1:1: pipeline: missing"]);
    bench.check("[pipeline\nname = 1\n", &["flowstone.toml:1:10: "]);
    bench.check(&"# a comment\n".repeat(1_500_000), &["more than"]);
    bench.is_whole();
}

#[test]
fn every_mistake_of_a_manifest_is_told_at_once_with_its_place_and_its_fix() {
    let bench = Bench::new();
    let manifest = r#"[pipeline]
name = "Sound!"
colour = "red"
[[components]]
path = 7
[resources.station]
kind = "directroy"
path = "data"
[assets.greeting]
limits = { fuel = 5, memroy = "1MiB" }
retry = { max_attempts = "three", backoff = "sometimes" }
grants = { statoin = { paths = "*.csv" } }
config = "none"
[assts.greeting]
"#;
    let said = bench.check(
        manifest,
        &[
            "flowstone.toml:2:8: pipeline.name: `Sound!` is not a name",
            "flowstone.toml:3:1: pipeline.colour: unknown key; known here: name, max_concurrent",
            "flowstone.toml:5:8: components[0].path: must be text in quotes, not a whole number",
            "flowstone.toml:7:8: resources.station.kind: \"directroy\" is not known here; did you mean `directory`?",
            "flowstone.toml:10:19: assets.greeting.limits.fuel: must be an amount of fuel, not a whole number",
            "flowstone.toml:10:22: assets.greeting.limits.memroy: unknown key; did you mean `memory`?",
            "flowstone.toml:11:26: assets.greeting.retry.max_attempts: must be a whole number, not text",
            "flowstone.toml:11:45: assets.greeting.retry.backoff: \"sometimes\" is not known here; write one of",
            "flowstone.toml:12:22: assets.greeting.grants.statoin: there is no resource `statoin`; did you mean `station`?",
            "flowstone.toml:13:10: assets.greeting.config: must be a table, not text",
            "flowstone.toml:14:2: assts: unknown key; did you mean `assets`?",
        ],
    );
    assert_eq!(said.lines().filter(|line| line.contains("flowstone.toml:")).count(), said.lines().count(), "{said}");
    bench.is_whole();
}

#[test]
fn impossible_limits_are_refused_with_their_bounds() {
    let bench = Bench::new();
    let limits = |limits: &str| format!("{SOUND}[assets.greeting]\nlimits = {{ {limits} }}\n");
    for (limit, words) in [
        ("fuel = \"0\"", "limits.fuel: \"0\" is out of bounds; from 1 to 1000T"),
        ("fuel = \"9999T\"", "limits.fuel: \"9999T\" is out of bounds"),
        ("fuel = \"-5G\"", "limits.fuel: \"-5G\" is not an amount of fuel"),
        ("memory = \"1KiB\"", "limits.memory: \"1KiB\" is out of bounds; from 1MiB to 4GiB"),
        ("memory = \"5GiB\"", "limits.memory: \"5GiB\" is out of bounds"),
        ("timeout = \"0s\"", "limits.timeout: \"0s\" is out of bounds; from 10ms to "),
        ("timeout = \"2d\"", "limits.timeout: \"2d\" is out of bounds"),
        ("output = \"0B\"", "limits.output: \"0B\" is out of bounds"),
        ("log = \"2MiB\"", "limits.log: \"2MiB\" is out of bounds"),
        ("memory = \"99999999999999999999GiB\"", "limits.memory: \"99999999999999999999GiB\" is "),
    ] {
        bench.check(&limits(limit), &[&format!("flowstone.toml:6:{}", 12 + limit.find('"').unwrap()), words]);
    }
    let retry = "retry = { max_attempts = 0 }\nfresh_for = \"1h\"\n";
    bench.check(
        &format!("{SOUND}[assets.greeting]\n{retry}"),
        &["retry.max_attempts: 0 is out of bounds; from 1 to 100"],
    );
    // What can only be known with the component is told with it.
    bench.check(
        &format!("{SOUND}[assets.greeting]\nfresh_for = \"1h\"\n"),
        &["flowstone.toml:6:1: ", "changes nothing"],
    );
    bench.is_whole();
}

#[test]
fn dependencies_that_lead_nowhere_or_in_a_circle_are_refused() {
    let bench = Bench::new();
    let reading = |name: &str, asset: &str| Described::new(name).reading(asset);
    bench.check_component(
        component(&[reading("letter", "greetng"), reading("reply", "nobody")]),
        &[
            "guest.wasm: letter: the input `greetng` reads the asset `greetng`, which does not exist; did you mean `greeting`?",
            "guest.wasm: reply: the input `nobody` reads the asset `nobody`, which does not exist",
        ],
    );
    let circle = [reading("chicken", "egg"), reading("egg", "nest"), reading("nest", "chicken")];
    let said = bench.check_component(component(&circle), &["the assets need each other: "]);
    for edge in ["chicken -> egg", "egg -> nest", "nest -> chicken"] {
        let turned = edge.split(" -> ").collect::<Vec<_>>();
        let turned = format!("{} -> {}", turned[1], turned[0]);
        assert!(said.contains(edge) || said.contains(&turned), "{edge} is not in\n{said}");
    }
    bench.check_component(component(&[reading("navel", "navel")]), &["the assets need each other: navel -> navel"]);
    bench.is_whole();
}

#[test]
fn a_requirement_without_a_grant_names_the_line_that_grants_it_and_that_line_deploys() {
    let bench = Bench::new();
    fs::create_dir(bench.folder().join("data")).unwrap();
    bench.put("guest.wasm", component_with_files(&[Described::new("reader").requiring("station")]));
    let resource = "[resources.station]\nkind = \"directory\"\npath = \"data\"\naccess = \"read\"\n";
    let ungranted = format!("{SOUND}[[components]]\npath = \"guest.wasm\"\n{resource}");
    let said = bench.check(
        &ungranted,
        &["assets.reader.grants.station: the asset needs the directory `station`, and nothing grants it; write in "],
    );
    let (_, fix) = said.split_once("; write in ").unwrap();
    let (section, line) = fix.trim().split_once(": ").unwrap();
    assert_eq!(section, "[assets.reader]");

    // Beside grants that are there, it is another line.
    let other = resource.replace("station", "other");
    let beside = format!("{ungranted}{other}[assets.reader]\ngrants = {{ other = {{ paths = [\"*\"] }} }}\n");
    bench.check(
        &beside,
        &[
            "flowstone.toml:15:9: assets.reader.grants.station: the asset needs the directory `station`",
            "; add to the grants of [assets.reader]: station = {",
            "flowstone.toml:16:12: assets.reader.grants.other: the asset does not ask for `other`; remove the grant",
        ],
    );

    bench.bind(&format!("{ungranted}{section}\n{line}\n"));
    bench.flowstone.run(["run", "./pipeline"]).expect_status(0);
    assert_eq!(bench.flowstone.run(["show", "sound", "reader"]).expect_status(0).stdout, "");
}

#[test]
fn a_grant_that_cannot_be_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.folder().join("data")).unwrap();
    let resource = "[resources.station]\nkind = \"directory\"\npath = \"data\"\naccess = \"read\"\n";
    let granted = |grant: &str| format!("{SOUND}{resource}[assets.greeting]\ngrants = {{ {grant} }}\n");
    bench.check(
        &granted("station = { paths = [\"*\"] }"),
        &["flowstone.toml:10:12: assets.greeting.grants.station: the asset does not ask for `station`; remove the grant"],
    );
    bench
        .check(&granted("statino = { paths = [\"*\"] }"), &["there is no resource `statino`; did you mean `station`?"]);
    bench.check(
        &granted("station = { access = \"read-write\", paths = [\"*\"] }"),
        &["assets.greeting.grants.station.access: the resource may only be read; grant \"read\", or set "],
    );
    bench.check(&granted("station = { paths = [\"../*\"] }"), &["\"../*\" can match nothing"]);
    bench.check(&granted("station = { paths = [] }"), &["an empty list grants nothing"]);
    bench.check(
        &granted("station = { paths = [\"*\"] }").replace("\"data\"", "\"elsewhere\""),
        &["flowstone.toml:5:12: resources.station.path: there is no directory at ", "make it, or mend `path`"],
    );
    bench.check(
        &format!("{SOUND}[assets.greetign]\n"),
        &["flowstone.toml:5:9: assets.greetign: no component describes an asset of this name; did you mean `greeting`?"],
    );
    bench.is_whole();
}

#[test]
fn what_is_no_component_is_told_from_what_is_a_broken_one() {
    let bench = Bench::new();
    let whole = fs::read(example("hello")).unwrap();
    let compiled = files(&bench.flowstone.state_dir().join("compiled"));
    assert!(!compiled.is_empty(), "the sound one was compiled");

    bench.check(
        &SOUND.replace("hello.wasm", "helo.wasm"),
        &["helo.wasm: cannot be read: No such file or directory (os error 2); build it, or mend `path`"],
    );
    bench.check_component("", &["guest.wasm: it is empty: upload a WebAssembly component"]);
    bench.check_component("name,price\n", &["guest.wasm: it is not WebAssembly: upload the .wasm file of a component"]);
    bench.check_component(b"\0asm\x0d", &["guest.wasm: it is cut off after its first bytes: upload the whole file"]);
    for length in [whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        bench.check_component(
            &whole[..length],
            &[&format!("guest.wasm: it is cut off after {length} bytes: upload the whole file")],
        );
    }
    bench.check_component(
        wat::parse_str("(module)").unwrap(),
        &["guest.wasm: it is a core module, not a component: build it for wasm32-wasip2, or wrap it"],
    );
    for code in compiled {
        bench.check_component(
            fs::read(code).unwrap(),
            &["guest.wasm: it is already compiled code, which is never accepted from outside"],
        );
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2..whole.len() / 2 + 64].fill(0xff);
    bench.check_component(damaged, &["guest.wasm: it is not valid WebAssembly, at byte "]);
    bench.check_component(
        wat::parse_str(r#"(component (import "acme:clock/now@1.0.0" (instance)))"#).unwrap(),
        &[
            "guest.wasm: it imports `acme:clock/now@1.0.0`",
            "guest.wasm: it does not export `flowstone:asset/definitions@0.1.0`: build it against the world",
            "guest.wasm: it does not export `flowstone:asset/materializer@0.1.0`: build it against the world",
        ],
    );
    bench.is_whole();
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_component_that_describes_nonsense_is_refused() {
    let bench = Bench::new();
    let named = |name: &str| component(&[Described::new(name)]);
    let many: Vec<Described> = (0..10_000).map(|number| Described::new(format!("a{number}"))).collect();
    bench.check_component(component(&many), &["the component has 10000 assets, more than 1024"]);
    bench.check_component(component(&[]), &["guest.wasm: the component describes no assets"]);
    let said = bench
        .check_component(named(&"a".repeat(1 << 20)), &["the name of asset number 1 has 1048576 bytes, more than 64"]);
    assert!(said.len() < 1_000, "a long name is not repeated");
    bench.check_component(
        component(&[Described::new("twice"), Described::new("twice")]),
        &["guest.wasm: twice: the component describes two assets of this name"],
    );
    bench.check_component(named("greeting"), &["hello.wasm and guest.wasm both describe an asset of this name"]);
    for name in ["", "Weather", "../etc", "a b", "a\u{202e}b"] {
        bench
            .check_component(named(name), &["is not a name for an asset; use a-z, 0-9 and _, beginning with a letter"]);
    }
    for asset in [Described::new("a\u{1b}[2J\nerror: forged"), Described::new("a").saying("a\u{1b}[2J\u{7}")] {
        let said = bench.check_component(component(&[asset]), &["guest.wasm: "]);
        assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
        assert!(!said.lines().any(|line| line.starts_with("error: forged")), "{said}");
    }
    bench.is_whole();
}

#[test]
fn a_component_that_could_use_files_and_never_says_so_is_refused() {
    let bench = Bench::new();
    bench.check_component(
        component_with_files(&[Described::new("reader")]),
        &["guest.wasm: it imports `flowstone:asset/files`, and no asset of it requires files; declare the requirement"],
    );
    bench.is_whole();
}

#[test]
fn the_mistakes_of_several_components_are_told_at_once() {
    let bench = Bench::new();
    bench.put("text.wasm", "hello");
    bench.put("module.wasm", wat::parse_str("(module)").unwrap());
    bench.put("idle.wasm", component_with_files(&[Described::new("reader")]));
    let components = ["text", "module", "idle", "missing"];
    let listed: String = components.iter().map(|name| format!("[[components]]\npath = \"{name}.wasm\"\n")).collect();
    bench.check(
        &format!("{SOUND}{listed}[resources.station]\nkind = \"directory\"\npath = \"data\"\naccess = \"read\"\n"),
        &[
            "text.wasm: it is not WebAssembly",
            "module.wasm: it is a core module",
            "idle.wasm: it imports `flowstone:asset/files`",
            "missing.wasm: cannot be read",
            "resources.station.path: there is no directory",
        ],
    );
    bench.is_whole();
}

#[test]
fn a_partition_or_a_run_that_does_not_exist_is_named() {
    let scenario = Scenario::new("");
    scenario.run(&["keyed", "--partition", "p1"], 0);
    for (arguments, words) in [
        (["keyed", "p9"], "asset `keyed` has no partition `p9`"),
        (["daily", "2023-12-31"], "asset `daily` has no partition `2023-12-31`"),
        (["daily", "2024-13-01"], "`2024-13-01`"),
        (["daily", "2024-01-03..2024-01-01"], "2024-01-03..2024-01-01"),
        (["numbers", "p1"], "asset `numbers` is not partitioned"),
        (["trailing", "date=2024-01-02,regoin=eu"], "regoin"),
    ] {
        for command in ["plan", "run"] {
            let [asset, key] = arguments;
            let refused = scenario.command(command, &[asset, "--partition", key]).expect_status(2);
            assert!(refused.stderr.contains(words), "`{words}` is not in\n{}", refused.stderr);
            assert_eq!(refused.stdout, "");
        }
    }
    let flowstone = &scenario.flowstone;
    let show = |arguments: &[&str]| flowstone.run([&["show", "scenarios"], arguments].concat()).expect_status(2).stderr;
    assert!(show(&["keyed"]).contains("say which partition with --partition"), "{}", show(&["keyed"]));
    assert!(show(&["keyed", "--partition", "p9"]).contains("has no partition `p9`"));
    assert!(show(&["keyd", "--partition", "p1"]).contains("did you mean `keyed`?"));
    let unknown = flowstone.run(["show", "scenarois", "keyed"]).expect_status(2);
    assert!(
        unknown.stderr.contains("no pipeline `scenarois` is deployed; did you mean `scenarios`?"),
        "{}",
        unknown.stderr
    );
    for command in ["status", "logs", "cancel"] {
        let unknown = flowstone.run([command, "ffffffff"]).expect_status(2);
        assert!(unknown.stderr.contains("`flowstone runs` lists them"), "{}", unknown.stderr);
    }
    assert_eq!(scenario.show("keyed", Some("p1")), "p1");
}

#[test]
fn a_full_disk_stops_a_deploy_and_room_mends_it() {
    let bench = Bench::new();
    let blobs = bench.flowstone.folder().join("small");
    fs::create_dir(&blobs).unwrap();
    let Some(_mount) = Mount::new(&blobs, 1) else { return };
    let filler = blobs.join("filler");
    assert!(fs::write(&filler, vec![1; 2 << 20]).is_err(), "the disk is full");
    bench.bind(&SOUND.replace("sound", "another"));
    let deploy = || bench.flowstone.command(["deploy", "./pipeline"]).env("FLOWSTONE_BLOBS", &blobs).output().unwrap();
    let refused = deploy();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("No space left on device") && said.contains("small"), "{said}");
    bench.is_whole();
    fs::remove_file(filler).unwrap();
    let deployed = deploy();
    assert_eq!(deployed.status.code(), Some(0), "{}", String::from_utf8_lossy(&deployed.stderr));
}

#[test]
fn a_run_waits_while_the_disk_is_full_and_charges_nobody() {
    let scenario = Scenario::new("");
    let blobs = scenario.flowstone.state_dir().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let Some(_mount) = Mount::new(&blobs, 4) else { return };
    scenario.command("deploy", &[]).expect_status(0);
    scenario.run(&["numbers"], 0);
    let filler = blobs.join("filler");
    assert!(fs::write(&filler, vec![1; 8 << 20]).is_err(), "the disk is full");

    let mut running = scenario.flowstone.command(["run", "scenarios", "large", "--json"]);
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut events = Vec::new();
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "job.deferred" && filler.exists() {
            assert!(event["cause"].as_str().unwrap().contains("blob"), "{event}");
            fs::remove_file(&filler).unwrap();
        }
        events.push(event);
    }
    assert_eq!(running.wait().unwrap().code(), Some(0), "{events:#?}");
    assert!(!filler.exists(), "the run met the full disk: {events:#?}");
    assert_eq!(ended(&events), ["large succeeded"]);
    let attempts = scenario.flowstone.database().ask(
        "select format('%s, charged: %s', verdict, charged) from attempt join job using (tenant_id, job_id)
         join asset_version using (tenant_id, asset_version_id) join asset using (tenant_id, asset_id)
         where name = 'large' order by attempt_id",
    );
    let (last, before) = attempts.split_last().unwrap();
    assert_eq!(last, "succeeded, charged: t");
    assert!(!before.is_empty() && before.iter().all(|attempt| attempt == "lost, charged: f"), "{attempts:?}");
    assert_eq!(scenario.show("numbers", None), "[1,2,3,4,5]");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_with_the_flag_for_another() {
    let bench = Bench::new();
    // In /proc nobody makes a folder, not even root.
    let own = |database: bool| {
        let mut command = bench.flowstone.command(["--state", "/proc/flowstone", "deploy", "./pipeline"]);
        if !database {
            command.env_remove("DATABASE_URL");
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said) = own(false);
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("cannot write /proc/flowstone: the state directory must be writable"), "{said}");
    let (status, said) = own(true);
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("cannot use /proc/flowstone/blobs as a blob store"), "{said}");
    bench.is_whole();
}

#[test]
fn a_disk_that_became_read_only_loses_nothing() {
    let scenario = Scenario::new("");
    let state = scenario.flowstone.state_dir();
    fs::create_dir_all(&state).unwrap();
    let Some(mount) = Mount::new(&state, 64) else { return };
    scenario.run(&["large"], 0);
    mount.remount("remount,ro");
    let refused = scenario.command("run", &["--force"]).expect_status(3);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    mount.remount("remount,rw");
    assert_eq!(ended(&scenario.run(&["after_large"], 0)), ["after_large succeeded"], "and `large` is still there");
}

#[tokio::test]
async fn a_database_of_an_earlier_version_is_brought_up_to_date() {
    let database = Database::empty().await;
    let first = tempfile::tempdir().unwrap();
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut migrations: Vec<_> = fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    migrations.sort();
    for name in &migrations[..3] {
        fs::copy(all.join(name), first.path().join(name)).unwrap();
    }
    sqlx::migrate::Migrator::new(first.path()).await.unwrap().run(&database.pool().await).await.unwrap();

    let flowstone = Flowstone::on(&database);
    fs::copy(example("hello"), flowstone.folder().join("hello.wasm")).unwrap();
    fs::write(flowstone.folder().join("flowstone.toml"), SOUND).unwrap();
    flowstone.run(["run", "."]).expect_status(0);
    assert_eq!(flowstone.run(["show", "sound", "greeting"]).expect_status(0).stdout, "Hello, World!");
    let applied = "select count(*) from _sqlx_migrations where success";
    let applied: i64 = sqlx::query_scalar(applied).fetch_one(&database.pool().await).await.unwrap();
    assert_eq!(applied, migrations.len() as i64);
}

#[test]
fn a_database_that_is_for_later_versions_only_is_left_alone() {
    let bench = Bench::new();
    let raise = "create table kept as select migration from schema_floor; update schema_floor set migration = 9999";
    bench.flowstone.database().execute(raise);
    for arguments in [&["deploy", "./pipeline"][..], &["run", "./pipeline"], &["show", "sound", "greeting"], &["runs"]]
    {
        let refused = bench.flowstone.run(arguments).expect_status(3);
        let words = "the database does not fit this version of flowstone: its tables are for versions of flowstone that know \
             migration 9999, and this one knows them up to";
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
        assert!(refused.stderr.contains("use the later version"), "the fix: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
    bench.flowstone.database().execute("update schema_floor set migration = (select migration from kept)");
    bench.is_whole();
}

#[test]
fn a_database_that_is_gone_is_the_hosts_fault_and_an_address_that_is_none_is_the_users() {
    let bench = Bench::new();
    let socket = bench.flowstone.folder().join("no-socket-here");
    let nobody = "postgres://flowstone@127.0.0.1:1/flowstone".to_owned();
    let check = |url: &str, status: i32, words: &str| {
        let output = bench.flowstone.command(["run", "./pipeline"]).env("DATABASE_URL", url).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{url}: {said}");
        assert!(said.contains(words), "{url}: `{words}` is not in\n{said}");
        assert_eq!(output.stdout, b"");
    };
    check(&nobody, 3, "the database is unavailable while connecting");
    check(
        &format!("postgres:///flowstone?host={}&user=flowstone", socket.display()),
        3,
        "is unavailable while connecting",
    );
    check(&bench.flowstone.database().url().replace("/test_", "/gone_"), 3, "does not exist");
    check("mysql://localhost/flowstone", 2, "DATABASE_URL");
    check("postgres://localhost:port/flowstone", 2, "DATABASE_URL");
    bench.is_whole();
}
