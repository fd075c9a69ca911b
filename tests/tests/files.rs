//! Names that mean to lead out of a granted directory, through the real command and real components: whatever a path
//! says and whatever stands under it, nothing outside is read or written, when the guest asks and when its writes are
//! published. The guests are those of `tests/guests/files`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        net::UnixListener,
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use flowstone::limit::{DIRECTORY_DEPTH_MAX, FILE_NAME_BYTES_MAX, STAGING_PREFIX};
use flowstone_tests::{
    Database, Flowstone, Output,
    deadline::{wait_until, wait_until_database_says},
    fault::{Gate, SOMEBODY_WAITS_AT_THE_GATE},
    pipeline::guest,
};
use rustix::fs::{CWD, FileType, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};

/// A command with a granted folder `vault`, and a folder `outside` beside it that no path may reach.
struct Vault {
    flowstone: Flowstone,
}

const ALL: &str = r#"access = "read-write", paths = ["**"]"#;
const SECRET: &str = "what is outside";

impl Vault {
    fn new() -> Self {
        Self::with(Flowstone::new())
    }

    fn with(flowstone: Flowstone) -> Self {
        let vault = Self { flowstone };
        fs::create_dir_all(vault.inside("below")).unwrap();
        fs::create_dir_all(vault.outside("")).unwrap();
        for (path, text) in [("a.csv", "alpha"), ("below/b.csv", "beta"), ("below/secret.csv", "what is inside")] {
            fs::write(vault.inside(path), text).unwrap();
        }
        fs::write(vault.outside("secret.csv"), SECRET).unwrap();
        vault
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.flowstone.folder().join("vault").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.flowstone.folder().join("outside").join(path)
    }

    /// The manifest with this grant for the assets, these steps for `tries`, and the folder that is granted.
    fn bind(&self, folder: &str, grant: &str, steps: &Value) {
        self.bind_both(folder, grant, steps, &json!([]));
    }

    /// The same with steps for `tries_too`.
    fn bind_both(&self, folder: &str, grant: &str, steps: &Value, steps_too: &Value) {
        let idle = r#"paths = ["unused"]"#;
        let (plain, mounted) = if grant.contains("mount") { (idle, grant) } else { (grant, idle) };
        let asset = |(name, grant, steps): (&str, &str, &Value)| {
            format!(
                "[assets.{name}]\ngrants.vault = {{ {grant} }}\nconfig.steps = {}\nretry.max_attempts = 1\n\
                 limits.fuel = \"100G\"\n",
                toml(steps)
            )
        };
        let assets = [
            ("tries", plain, steps),
            ("tries_too", plain, steps_too),
            ("races", plain, steps),
            ("opens", mounted, steps),
            ("races_mounted", mounted, steps),
        ]
        .map(asset);
        let text = format!(
            "[pipeline]\nname = \"vault\"\n[[components]]\npath = \"{}\"\n[resources.vault]\nkind = \"directory\"\n\
             path = \"{folder}\"\naccess = \"read-write\"\n{}",
            guest("files").display(),
            assets.concat(),
        );
        fs::write(self.flowstone.folder().join("flowstone.toml"), text).unwrap();
    }

    fn run(&self, asset: &str) -> Output {
        self.flowstone.run(["run", "./flowstone.toml", asset])
    }

    /// How each step ends.
    #[track_caller]
    fn tries(&self, grant: &str, steps: Value) -> Vec<String> {
        self.bind("vault", grant, &steps);
        self.run("tries").expect_status(0);
        self.show("tries")
    }

    /// How each step ends in a file system.
    #[track_caller]
    fn opens(&self, grant: &str, steps: &[(&str, &str)]) -> Vec<String> {
        let steps = steps.iter().map(|(op, path)| json!({ "op": op, "path": path, "text": "/data/x" })).collect();
        self.bind("vault", grant, &steps);
        self.run("opens").expect_status(0);
        self.show("opens")
    }

    fn show(&self, asset: &str) -> Vec<String> {
        serde_json::from_str(&self.flowstone.run(["show", "vault", asset]).expect_status(0).stdout).unwrap()
    }

    /// Everything below the granted folder, and the secret: by path, kind and content.
    fn snapshot(&self) -> Vec<(PathBuf, String)> {
        let mut found = vec![(self.outside(""), format!("{:?}", names(&self.outside(""))))];
        let mut folders = vec![self.inside("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                let content = if kind.is_file() { fs::read_to_string(&path).unwrap() } else { format!("{kind:?}") };
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                found.push((path, content));
            }
        }
        found.push((self.outside("secret.csv"), fs::read_to_string(self.outside("secret.csv")).unwrap()));
        found.sort();
        found
    }

    fn denials(&self) -> Vec<Value> {
        self.recorded("select denials::text from attempt where denials is not null")
    }

    fn uses(&self) -> Vec<Value> {
        self.recorded("select uses::text from attempt where uses is not null")
    }

    /// A list of each attempt, all together.
    fn recorded(&self, sql: &'static str) -> Vec<Value> {
        let all = self.flowstone.database().ask(sql);
        all.iter().flat_map(|text| serde_json::from_str::<Vec<Value>>(text).unwrap()).collect()
    }
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// JSON of texts, numbers, lists and tables as TOML writes it.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let fields: Vec<String> = table.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        // JSON escapes but one character as TOML does.
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

fn step(op: &str, path: &str) -> Value {
    json!({ "op": op, "path": path, "text": "written" })
}

const OPERATIONS: [&str; 4] = ["read", "stat", "append", "remove"];

/// Every operation at every path.
fn everything_at(paths: &[&str]) -> Value {
    paths.iter().flat_map(|path| OPERATIONS.map(|op| step(op, path))).collect()
}

#[test]
fn a_name_that_makes_no_sense_is_invalid_whatever_is_asked_of_it() {
    let vault = Vault::new();
    let before = vault.snapshot();
    let absolute = vault.outside("secret.csv");
    let own = format!("{STAGING_PREFIX}x");
    let deep = format!("{}a.csv", "d/".repeat(DIRECTORY_DEPTH_MAX));
    let long = "x".repeat(FILE_NAME_BYTES_MAX + 1);
    let below = format!("new/{long}");
    let paths = [
        "",
        "/",
        ".",
        "..",
        "../outside/secret.csv",
        "below/../../outside/secret.csv",
        "below/..",
        "./a.csv",
        "below/./b.csv",
        "below//b.csv",
        "a.csv/",
        "/a.csv",
        "//etc/passwd",
        "/etc/passwd",
        absolute.to_str().unwrap(),
        // The guest makes a NUL of each.
        "a.csv\u{2400}",
        "\u{2400}",
        "a.csv\u{2400}.txt",
        &own,
        &deep,
        &long,
        &below,
    ];
    let mut steps = everything_at(&paths);
    for op in OPERATIONS {
        // 64 KiB, of one name and of many.
        steps.as_array_mut().unwrap().push(json!({ "op": op, "path": "x", "times": 64 << 10, "text": "x" }));
        steps.as_array_mut().unwrap().push(json!({ "op": op, "path": "xx/", "times": 20 << 10, "text": "x" }));
    }
    let ended = vault.tries(ALL, steps.clone());
    assert_eq!(ended.len(), steps.as_array().unwrap().len());
    for (step, ended) in steps.as_array().unwrap().iter().zip(&ended) {
        assert!(ended.starts_with("invalid"), "{step}: {ended}");
    }
    assert_eq!(vault.snapshot(), before);
    assert!(vault.denials().is_empty(), "what makes no sense cannot be granted either");
}

#[test]
fn other_spellings_of_a_name_are_other_names() {
    let vault = Vault::new();
    let before = vault.snapshot();
    let paths = [
        "A.csv",
        "a.CSV",
        "a.csv.",
        "a.csv ",
        " a.csv",
        "a.csv~1",
        "a.csv::$DATA",
        "below\\b.csv",
        "..\\outside\\secret.csv",
        "%2e%2e/outside/secret.csv",
        "..%2foutside%2fsecret.csv",
        "\u{ff0e}\u{ff0e}/outside/secret.csv",
        "..\u{2215}outside",
        "a\u{200b}.csv",
        "...",
        "CON",
        "~/secret.csv",
        "$HOME",
    ];
    let looked_at = |ops: [&str; 3]| -> Value { paths.iter().flat_map(|path| ops.map(|op| step(op, path))).collect() };
    let ended = vault.tries(ALL, looked_at(["read", "stat", "remove"]));
    assert!(ended.iter().all(|ended| ended == "not found"), "{ended:?}");
    // Where globs are narrower, they do not match, whatever the file system would say.
    let narrow = r#"access = "read-write", paths = ["a.csv", "below/*.csv"]"#;
    let ended = vault.tries(narrow, looked_at(["read", "stat", "append"]));
    assert!(ended.iter().all(|ended| ended == "denied"), "{ended:?}");
    assert_eq!(vault.snapshot(), before);
    // Written, each is a file of its own inside.
    let ended = vault.tries(ALL, paths.iter().map(|path| step("append", path)).collect());
    assert!(ended.iter().all(|ended| ended == "ok "), "{ended:?}");
    for path in paths {
        assert_eq!(fs::read_to_string(vault.inside(path)).unwrap(), "written", "{path}");
    }
    assert_eq!(vault.snapshot().len(), before.len() + paths.len() + 5, "with five new folders, and nothing else");
}

#[test]
fn links_lead_to_files_within_and_never_out() {
    let vault = Vault::new();
    symlink("../outside/secret.csv", vault.inside("relative.csv")).unwrap();
    symlink(vault.outside("secret.csv"), vault.inside("absolute.csv")).unwrap();
    symlink(vault.outside(""), vault.inside("folder")).unwrap();
    symlink("relative.csv", vault.inside("chain.csv")).unwrap();
    symlink("itself.csv", vault.inside("itself.csv")).unwrap();
    symlink("/proc/self/environ", vault.inside("environ")).unwrap();
    symlink("..", vault.inside("below/up")).unwrap();
    symlink(".", vault.inside("here")).unwrap();
    symlink("../../outside/new.csv", vault.inside("below/new.csv")).unwrap();
    let before = vault.snapshot();
    let out = [
        "relative.csv",
        "absolute.csv",
        "folder/secret.csv",
        "chain.csv",
        "itself.csv",
        "environ",
        "below/up/a.csv",
        "below/up/up/outside/secret.csv",
        "here/a.csv",
        "below/new.csv",
        "folder",
    ];
    let ended = vault.tries(ALL, everything_at(&out));
    for (step, ended) in everything_at(&out).as_array().unwrap().iter().zip(&ended) {
        assert_eq!(ended, "denied", "{step}");
    }
    let listed = vault.tries(ALL, json!([step("entries", "")]));
    assert_eq!(listed, ["ok a.csv below/b.csv below/secret.csv"], "nor are they listed");
    assert_eq!(vault.snapshot(), before);
    assert!(vault.denials().iter().all(|denial| denial["remedy"].as_str().unwrap().starts_with("none: ")));
    // Within the directory a link is a name of its file; written, it is a file itself.
    symlink("below/b.csv", vault.inside("within.csv")).unwrap();
    let ended = vault.tries(ALL, json!([step("read", "within.csv"), step("append", "within.csv")]));
    assert_eq!(ended, ["ok beta", "ok "]);
    assert_eq!(fs::read_to_string(vault.inside("within.csv")).unwrap(), "written");
    assert_eq!(fs::read_to_string(vault.inside("below/b.csv")).unwrap(), "beta", "not written through");
}

#[test]
fn a_hard_link_is_replaced_and_not_written_through() {
    let vault = Vault::new();
    fs::hard_link(vault.outside("secret.csv"), vault.inside("hard.csv")).unwrap();
    let ended = vault.tries(ALL, json!([step("append", "hard.csv"), step("read", "hard.csv")]));
    assert_eq!(ended, ["ok ", "ok written"]);
    assert_eq!(fs::read_to_string(vault.inside("hard.csv")).unwrap(), "written");
    assert_eq!(fs::read_to_string(vault.outside("secret.csv")).unwrap(), SECRET);
    assert_eq!(fs::metadata(vault.outside("secret.csv")).unwrap().nlink(), 1);
    fs::hard_link(vault.outside("secret.csv"), vault.inside("again.csv")).unwrap();
    vault.tries(ALL, json!([step("remove", "again.csv")]));
    assert!(!vault.inside("again.csv").exists());
    assert_eq!(fs::read_to_string(vault.outside("secret.csv")).unwrap(), SECRET);
}

#[test]
fn pipes_sockets_devices_and_folders_are_no_files_and_are_never_waited_for() {
    let vault = Vault::new();
    mknodat(CWD, vault.inside("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink("pipe", vault.inside("to_pipe")).unwrap();
    let _socket = UnixListener::bind(vault.inside("socket")).unwrap();
    let paths = ["pipe", "to_pipe", "socket", "below"];
    let ended = vault.tries(ALL, everything_at(&paths));
    assert!(ended.iter().all(|ended| ended == "denied"), "{ended:?}");
    // Devices there are in `/dev`, whoever runs this.
    let devices = everything_at(&["null", "zero", "full", "random", "tty", "ptmx"]);
    let all = r#"access = "read-write", paths = ["null", "zero", "full", "random", "tty", "ptmx"]"#;
    vault.bind("/dev", all, &devices);
    vault.run("tries").expect_status(0);
    let ended = vault.show("tries");
    assert_eq!(ended.len(), 24);
    assert!(ended.iter().all(|ended| ended == "denied"), "{ended:?}");
}

#[test]
fn what_an_attempt_writes_it_sees_and_past_its_quota_it_is_told() {
    let vault = Vault::new();
    let steps = json!([
        step("append", "new/c.csv"),
        step("append", "new/c.csv"),
        step("read", "new/c.csv"),
        step("stat", "new/c.csv"),
        step("remove", "a.csv"),
        step("read", "a.csv"),
        step("entries", ""),
        step("append", "third.csv"),
        step("remove", "below/b.csv"),
        step("append", "new/c.csv/below"),
        step("append", "new/c.csv"),
        step("append", "new/c.csv"),
        step("append", "new\u{1b}[2J"),
    ]);
    let ended = vault.tries(r#"access = "read-write", paths = ["**"], write = "21B", entries = 2"#, steps);
    let expected = [
        "ok ",
        "ok ",
        "ok writtenwritten",
        "ok 14",
        "ok ",
        "not found",
        "ok below/b.csv below/secret.csv new/c.csv",
        "limit reached: the grant's limit of 2 files written or removed",
        "limit reached: the grant's limit of 2 files written or removed",
        "limit reached: the grant's limit of 2 files written or removed",
        "ok ",
        "limit reached: the grant's limit of 21 bytes of writes",
        "invalid: the path holds a control character",
    ];
    assert_eq!(ended, expected);
    assert_eq!(fs::read_to_string(vault.inside("new/c.csv")).unwrap(), "written".repeat(3));
    assert!(!vault.inside("a.csv").exists() && vault.inside("below/b.csv").exists());
}

#[tokio::test]
async fn what_stands_under_a_published_name_is_replaced_and_never_written_to() {
    let database = Database::new().await;
    let vault = Vault::with(Flowstone::on(&database));
    let pool = database.pool().await;
    let names = ["hard.csv", "link.csv", "pipe", "socket"];
    vault.bind("vault", ALL, &names.iter().map(|name| step("append", name)).collect());
    let gate = Gate::close_publishing(&database).await;
    let run = vault.flowstone.start(["run", "./flowstone.toml", "tries"]);
    wait_until_database_says(&pool, SOMEBODY_WAITS_AT_THE_GATE).await;
    // None of it was there when the guest asked.
    fs::hard_link(vault.outside("secret.csv"), vault.inside("hard.csv")).unwrap();
    symlink(vault.outside("secret.csv"), vault.inside("link.csv")).unwrap();
    mknodat(CWD, vault.inside("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = UnixListener::bind(vault.inside("socket")).unwrap();
    gate.open().await;
    run.wait().expect_status(0);
    for name in names {
        assert!(fs::symlink_metadata(vault.inside(name)).unwrap().is_file(), "{name}");
        assert_eq!(fs::read_to_string(vault.inside(name)).unwrap(), "written", "{name}");
    }
    assert_eq!(fs::read_to_string(vault.outside("secret.csv")).unwrap(), SECRET);
    assert_eq!(fs::metadata(vault.outside("secret.csv")).unwrap().nlink(), 1);
}

/// Two names of the granted folder that change places as fast as they can, until it is dropped.
struct Swapped<'a>(&'a AtomicBool);

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Vault {
    /// Does something while `below` and a link out of the directory change places, which are as they were in the end;
    /// returns how often they did.
    fn while_swapped(&self, act: impl FnOnce()) -> u32 {
        let (swaps, over) = (AtomicU32::new(0), AtomicBool::new(false));
        symlink(self.outside(""), self.inside("other")).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let (folder, link) = (self.inside("below"), self.inside("other"));
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..2 {
                        renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            // Also when what is done fails: the thread is waited for.
            let _swapped = Swapped(&over);
            act();
        });
        swaps.into_inner()
    }
}

#[test]
fn a_folder_that_becomes_a_link_while_it_is_read_and_published_leads_nowhere() {
    let vault = Vault::new();
    vault.bind("vault", ALL, &json!([]));
    let mut seen = std::collections::BTreeSet::new();
    let swaps = vault.while_swapped(|| {
        // Whether a commit's files can be shown at once depends on the moment; whether it succeeds does not.
        for _ in 0..5 {
            vault.run("races").expect_status(0);
            seen.extend(vault.show("races"));
        }
    });
    assert!(swaps > 1_000, "it was swapped while it was read: {swaps} times");
    let allowed = ["what is inside", "14 bytes", "denied", "not found"];
    assert!(seen.iter().all(|seen| allowed.contains(&seen.as_str())), "{seen:?}");
    assert!(seen.contains("what is inside") && seen.contains("denied"), "both were met: {seen:?}");
    assert_eq!(names(&vault.outside("")), ["secret.csv"], "nothing was written there");
    assert_eq!(fs::read_to_string(vault.outside("secret.csv")).unwrap(), SECRET);
    // At rest, what was committed is shown where it belongs.
    vault.run("races").expect_status(0);
    assert_eq!(fs::read_to_string(vault.inside("below/written.csv")).unwrap(), "x");
}

/// Everything, as a file system.
const MOUNTED: &str = r#"paths = ["**"], mount = "/data""#;

#[test]
fn a_mounted_directory_is_a_file_system_to_read() {
    let vault = Vault::new();
    fs::create_dir_all(vault.inside("below/deep")).unwrap();
    fs::write(vault.inside("below/deep/d.csv"), "delta").unwrap();
    fs::write(vault.inside("below-it.csv"), "").unwrap();
    fs::create_dir_all(vault.inside("empty")).unwrap();
    symlink("below/b.csv", vault.inside("within.csv")).unwrap();
    let steps = [
        ("read", "/data/a.csv", "ok alpha"),
        ("seek", "/data/a.csv", "ok pha"),
        ("read", "/data/below/../a.csv", "ok alpha"),
        ("read", "/data/./below//deep/./d.csv", "ok delta"),
        ("read", "/data/within.csv", "ok beta"),
        ("read", "/data/below-it.csv", "ok "),
        ("read", "/data/absent.csv", "NotFound"),
        ("read", "/data/below", "IsADirectory"),
        ("read", "/data/a.csv/", "NotADirectory"),
        ("stat", "/data", "ok a folder"),
        ("stat", "/data/below/deep", "ok a folder"),
        ("stat", "/data/below/deep/d.csv", "ok 5 bytes"),
        ("stat", "/data/empty", "PermissionDenied"),
        ("entries", "/data", "ok a.csv below-it.csv below/ within.csv"),
        ("entries", "/data/below", "ok b.csv deep/ secret.csv"),
        ("entries", "/data/below/deep/..", "ok b.csv deep/ secret.csv"),
        ("entries", "/data/a.csv", "NotADirectory"),
    ];
    let asked = steps.map(|(op, path, _)| (op, path));
    assert_eq!(vault.opens(MOUNTED, &asked), steps.map(|(_, _, expected)| expected));

    // Counted like any other use of the directory, and a source of what was made.
    let uses = vault.uses();
    let of = |operation: &str, target: &str| {
        let of = |used: &&Value| used["operation"] == operation && used["target"] == target && used["result"] == "ok";
        uses.iter().find(of).unwrap_or_else(|| panic!("no {operation} of {target} in {uses:#?}"))
    };
    let read = of("read", "below/deep/d.csv");
    assert_eq!((&read["capability"], &read["resource"], &read["bytes"]), (&json!("files"), &json!("vault"), &json!(5)));
    assert_eq!(of("read", "a.csv")["bytes"], 13, "twice whole, once from the third byte");
    assert_eq!(of("entries", "below")["calls"], 2);
    let sources = vault.flowstone.database().ask("select kind || ' ' || resource || ' ' || items from external_read");
    assert_eq!(sources, ["directory vault 6"]);

    // What was read is an input: the same is not read again, and a change makes it stale.
    assert!(vault.run("opens").expect_status(0).stdout.contains("up to date"));
    fs::write(vault.inside("a.csv"), "other").unwrap();
    vault.run("opens").expect_status(0);
    assert_eq!(vault.show("opens")[0], "ok other");
}

#[test]
fn nothing_changes_through_a_mounted_directory() {
    let vault = Vault::new();
    let before = vault.snapshot();
    let all = [
        "create",
        "open-to-write",
        "append",
        "truncate",
        "remove",
        "remove-folder",
        "folder",
        "rename",
        "hard-link",
        "times",
    ];
    let steps: Vec<(&str, &str)> =
        all.iter().flat_map(|op| ["/data/a.csv", "/data/new.csv", "/data/below"].map(|path| (*op, path))).collect();
    let ended = vault.opens(MOUNTED, &steps);
    for ((op, path), ended) in steps.iter().zip(&ended) {
        let opened_first = matches!(*op, "truncate" | "times");
        match (*path, opened_first) {
            ("/data/new.csv", true) => assert_eq!(ended, "NotFound", "{op} {path}"),
            _ => assert_eq!(ended, "ReadOnlyFilesystem", "{op} {path}"),
        }
    }
    assert_eq!(vault.snapshot(), before);
    let uses = vault.uses();
    assert!(uses.iter().any(|used| used["result"] == "read-only" && used["target"] == "new.csv"), "{uses:#?}");
}

#[test]
fn a_mounted_directory_holds_what_its_globs_match_and_nothing_else() {
    let vault = Vault::new();
    symlink("../../outside/secret.csv", vault.inside("below/out.csv")).unwrap();
    symlink(vault.outside(""), vault.inside("below/folder.csv")).unwrap();
    symlink("loop.csv", vault.inside("below/loop.csv")).unwrap();
    mknodat(CWD, vault.inside("below/pipe.csv"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let _socket = UnixListener::bind(vault.inside("below/socket.csv")).unwrap();
    fs::write(vault.inside("below/note.txt"), "note").unwrap();
    let narrow = r#"paths = ["below/*.csv"], mount = "/data""#;
    let steps = [
        ("entries", "/data", "ok below/"),
        ("entries", "/data/below", "ok b.csv secret.csv"),
        ("read", "/data/below/b.csv", "ok beta"),
        ("read", "/data/a.csv", "PermissionDenied"),
        ("read", "/data/absent.txt", "PermissionDenied"),
        ("stat", "/data/below/note.txt", "PermissionDenied"),
        ("read", "/data/below/B.CSV", "PermissionDenied"),
        ("read", "/data/below/out.csv", "PermissionDenied"),
        ("stat", "/data/below/out.csv", "PermissionDenied"),
        ("read", "/data/below/folder.csv/secret.csv", "PermissionDenied"),
        ("read", "/data/below/loop.csv", "PermissionDenied"),
        ("read", "/data/below/pipe.csv", "PermissionDenied"),
        ("read", "/data/below/socket.csv", "PermissionDenied"),
        ("read", "/data/../outside/secret.csv", "PermissionDenied"),
        ("read", "/data/below/../../outside/secret.csv", "PermissionDenied"),
        ("entries", "/data/..", "PermissionDenied"),
        ("read", "/etc/passwd", "NotFound"),
        ("entries", "/", "NotFound"),
        ("read", "/data/below/\u{2400}.csv", "InvalidInput"),
    ];
    let asked = steps.map(|(op, path, _)| (op, path));
    assert_eq!(vault.opens(narrow, &asked), steps.map(|(_, _, expected)| expected));
    let denied = vault.denials();
    let denial = denied.iter().find(|denial| denial["target"] == "a.csv").unwrap();
    assert_eq!((&denial["capability"], &denial["operation"]), (&json!("files"), &json!("open")));
    assert_eq!(denial["remedy"], r#"[assets.opens] grants = { vault = { access = "read", paths = ["a.csv"] } }"#);

    let long = json!([{ "op": "read", "path": "/data/xxx", "times": 20 << 10 }, { "op": "hoard", "path": "/data/below/b.csv" }]);
    vault.bind("vault", narrow, &long);
    vault.run("opens").expect_status(0);
    assert_eq!(vault.show("opens"), ["InvalidFilename", "ok 256 and QuotaExceeded"]);
}

#[test]
fn without_a_mount_there_is_no_file_system() {
    let vault = Vault::new();
    // Granted, and not mounted.
    assert_eq!(vault.opens(r#"paths = ["**"]"#, &[]), [""; 0]);
    vault.bind("vault", ALL, &json!([step("read", "/data/a.csv"), step("entries", "/")]));
    vault.run("opens").expect_status(0);
    assert_eq!(vault.show("opens"), ["NotFound", "NotFound"]);
    // Not granted at all.
    vault.run("looks_around").expect_status(0);
    let found = vault.show("looks_around");
    assert!(found.len() == 6 && found.iter().all(|found| found.ends_with(" NotFound")), "{found:?}");
}

#[test]
fn a_folder_that_becomes_a_link_leads_nowhere_in_a_mounted_directory() {
    let vault = Vault::new();
    vault.bind("vault", MOUNTED, &json!([]));
    // Planned before: a directory that changes while it is planned for is an error of the command.
    let mut run = vault.flowstone.start(["run", "./flowstone.toml", "races_mounted", "--json"]);
    run.event("job.started");
    vault.while_swapped(|| {
        // It is dropped and made again, should the directory be found to have changed.
        let logs = || vault.flowstone.database().ask("select log::text from attempt where log is not null");
        wait_until("an attempt has read it", || !logs().is_empty());
    });
    run.wait().expect_status(0);
    let logs = vault.flowstone.database().ask("select log::text from attempt where log is not null");
    assert!(!logs.is_empty() && logs.iter().all(|log| log.contains("what is inside")), "{logs:?}");
    let everything = logs.concat();
    assert!(!everything.contains(SECRET) && !everything.contains("15 bytes"), "{everything}");
    assert!(everything.contains("PermissionDenied"), "it was swapped while it was read: {everything}");
}

#[tokio::test]
async fn a_name_that_is_in_the_way_holds_up_only_what_is_above_or_below_it() {
    let database = Database::new().await;
    let vault = Vault::with(Flowstone::on(&database));
    let pool = database.pool().await;
    // Neither can know what the other has committed and nobody has shown yet.
    let file = json!([step("append", "name")]);
    let folder = json!([step("append", "name/below"), step("append", "other"), step("remove", "a.csv")]);
    vault.bind_both("vault", ALL, &file, &folder);
    let gate = Gate::close_publishing(&database).await;
    let run = vault.flowstone.start(["run", "./flowstone.toml", "tries", "tries_too"]);
    wait_until_database_says(&pool, "select count(*) = 4 from staged_file").await;
    gate.open().await;
    let told = run.wait().expect_status(0).stderr;
    // Whoever was first is shown, the other told of; the rest goes on.
    let left: Vec<String> = sqlx::query_scalar("select path from staged_file").fetch_all(&pool).await.unwrap();
    assert!(left == ["name"] || left == ["name/below"], "{left:?}");
    assert!(told.contains(&format!("`{}` of resource `vault` cannot be published", left[0])), "{told}");
    assert_eq!(fs::read_to_string(vault.inside("other")).unwrap(), "written");
    assert!(!vault.inside("a.csv").exists());
    // It stays until somebody makes room.
    match left[0].as_str() {
        "name" => fs::remove_dir_all(vault.inside("name")).unwrap(),
        _ => fs::remove_file(vault.inside("name")).unwrap(),
    }
    vault.run("looks_around").expect_status(0);
    assert_eq!(fs::read_to_string(vault.inside(&left[0])).unwrap(), "written");
}
