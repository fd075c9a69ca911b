//! Reads the sources and holds what no compiler does: who may know whom, that documents are true, that nothing is left
//! unfinished or untested. What each module is for, its own first lines say.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flowstone_tests::pipeline::root;

/// A file of the project.
struct Source {
    /// From the project's folder.
    path: String,
    text: String,
}

impl Source {
    /// Its code, without comments and without what follows the first `#[cfg(test)] mod`.
    fn code(&self) -> String {
        let tested = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        let lines = self.text[..tested].lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// `pipeline` of `host/src/pipeline/graph.rs`, `limit` of `host/src/limit.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("host/src/")?;
        inside.split('/').next().map(|first| first.trim_end_matches(".rs"))
    }
}

/// Every file below a folder with this ending, but for what is built.
fn sources(folder: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                true if name == "target" || name.starts_with('.') => {}
                true => folders.push(path),
                false if name.ends_with(ending) => {
                    found.push(Source { path: relative(&path), text: fs::read_to_string(&path).unwrap() });
                }
                false => {}
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has files that end with {ending}");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

fn rust() -> Vec<Source> {
    ["host", "guest-sdk", "tests", "examples", "fuzz"].into_iter().flat_map(|folder| sources(folder, ".rs")).collect()
}

/// Whether the code has this text as a word of its own: `sqlx::` is not in `mysqlx::`.
fn says(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(part_of_name))
}

/// The modules of the host that the code names from the crate's root, however it groups them.
fn modules_named(code: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut at_name) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_name = true,
                c if at_name && c.is_alphabetic() => {
                    found.insert(name(&group[at..]));
                    at_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// Bottom up: a module uses only what is above it in this list.
const ORDER: [&str; 18] = [
    "id",
    "limit",
    "secret",
    "blob",
    "bindings",
    "pipeline",
    "store",
    "capability",
    "engine",
    "app",
    "runner",
    "scheduler",
    "collector",
    "embedded",
    "config",
    "telemetry",
    "cli",
    "main",
];

/// The front and the back meet in rows and blobs, so that some may not know others although they are below them.
const NEVER: &[(&str, &[&str])] = &[
    ("pipeline", &["store", "capability", "engine"]),
    ("store", &["capability", "engine", "app", "runner"]),
    ("capability", &["store", "app", "runner"]),
    ("engine", &["store", "app", "runner"]),
    ("runner", &["app", "cli", "config"]),
    ("app", &["runner", "cli", "config", "embedded"]),
    ("scheduler", &["runner", "capability", "engine"]),
    ("collector", &["pipeline", "capability", "engine", "app", "runner", "scheduler"]),
    ("embedded", &["store", "app", "runner", "engine", "capability", "pipeline", "blob"]),
];

#[test]
fn a_module_uses_only_what_is_below_it() {
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut checked = 0;
    for source in sources("host/src", ".rs").iter().filter(|source| source.module() != Some("lib")) {
        let module = source.module().unwrap();
        let own = place(module).unwrap_or_else(|| panic!("{} is in no known module", source.path));
        let named = modules_named(&source.code());
        let never = NEVER.iter().find(|(from, _)| *from == module).map_or(&[][..], |(_, never)| never);
        for used in named.iter().filter(|used| *used != module) {
            // What is no module is an item of the crate's root, of which there is none but macros.
            let Some(other) = place(used) else { continue };
            // The generated traits return the error that the host functions do.
            if (module, used.as_str()) == ("bindings", "capability") {
                continue;
            }
            assert!(other < own && !never.contains(&used.as_str()), "{} uses {used}", source.path);
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} edges were found: the reader of sources is blind");
}

#[test]
fn each_module_knows_only_its_own_crates() {
    let rules: [(&str, &[&str]); 9] = [
        (
            "pipeline",
            &["sqlx::", "wasmtime::", "wasmtime_wasi::", "tokio::", "std::fs", "fs::", "cap_std::", "std::net"],
        ),
        ("store", &["wasmtime::", "wasmtime_wasi::", "wasmparser::", "clap::"]),
        ("engine", &["sqlx::", "clap::"]),
        ("capability", &["sqlx::", "clap::"]),
        ("app", &["sqlx::", "wasmtime::", "wasmparser::", "clap::"]),
        ("runner", &["sqlx::", "wasmtime::", "clap::"]),
        ("scheduler", &["sqlx::", "wasmtime::", "wasmparser::", "clap::"]),
        ("collector", &["sqlx::", "wasmtime::", "wasmparser::", "clap::"]),
        ("cli", &["sqlx::", "wasmtime::", "wasmparser::"]),
    ];
    for source in sources("host/src", ".rs") {
        for (_, forbidden) in rules.iter().filter(|(module, _)| source.module() == Some(module)) {
            let code = source.code();
            for word in *forbidden {
                assert!(!says(&code, word), "{} knows {word}", source.path);
            }
        }
    }
}

/// A client of our own speaks to operators' databases; FlowStone's own is reached through sqlx alone, and by the store.
#[test]
fn the_messages_of_postgres_are_known_in_one_place() {
    let knows = |source: &&Source| says(&source.code(), "postgres_protocol::");
    let all = sources("host/src", ".rs");
    let knowing: BTreeSet<&str> = all.iter().filter(knows).map(|source| &*source.path).collect();
    let expected = ["host/src/capability/sql/transaction.rs", "host/src/capability/sql/wire.rs"];
    assert_eq!(knowing, expected.into());
    for source in all.iter().filter(|source| expected.contains(&&*source.path)) {
        assert!(!says(&source.code(), "frontend::query("), "{} sends what is not prepared", source.path);
    }
}

#[test]
fn statements_are_in_the_store_only() {
    for source in sources("host/src", ".rs") {
        let macros = ["sqlx::query!", "sqlx::query_as!", "sqlx::query_scalar!", "sqlx::query_file!"];
        let code = source.code();
        let has = macros.iter().any(|word| says(&code, word));
        assert!(!has || source.module() == Some("store"), "{} has a statement", source.path);
    }
    let of_store = sources("host/src/store", ".rs");
    assert!(of_store.iter().any(|source| says(&source.code(), "sqlx::query!")), "the check looks for what there is");
}

/// What is due is said by the database's clock: that of a worker may be an hour off.
#[test]
fn schedules_are_fired_without_a_clock_of_our_own() {
    let known = [
        "host/src/app/schedule.rs",
        "host/src/app/backfill.rs",
        "host/src/scheduler/mod.rs",
        "host/src/scheduler/backfills.rs",
    ];
    let asked: Vec<Source> = ["host/src/app", "host/src/scheduler", "host/src/runner"]
        .into_iter()
        .flat_map(|folder| sources(folder, ".rs"))
        .filter(|source| ["Timestamp::now()", "SystemTime::now()"].iter().any(|clock| source.code().contains(clock)))
        .collect();
    assert!(!asked.is_empty(), "the check looks for what there is");
    for source in asked {
        assert!(!known.contains(&&*source.path), "{} asks a clock", source.path);
    }
}

#[test]
fn one_file_writes_to_stdout_and_one_reads_the_environment() {
    // The child that compiles is another program in the same file: its stdout is the code that it made.
    let writers = ["host/src/cli/print.rs", "host/src/engine/compile.rs"];
    let readers = ["host/src/config.rs"];
    let (mut wrote, mut read) = (BTreeSet::new(), BTreeSet::new());
    for source in sources("host/src", ".rs") {
        let code = source.code();
        if ["println!", "print!", "stdout()", "dbg!"].iter().any(|word| says(&code, word)) {
            wrote.insert(source.path.clone());
        }
        if ["env::var", "env::var_os", "env::vars", "env::vars_os"].iter().any(|word| says(&code, word)) {
            read.insert(source.path);
        }
    }
    assert_eq!(wrote, writers.map(str::to_owned).into());
    assert_eq!(read, readers.map(str::to_owned).into());
}

#[test]
fn every_file_says_first_what_it_is_for_and_nothing_is_unfinished() {
    // In pieces, so that this file does not find itself.
    let unfinished = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["#[ign", "ore"].concat()];
    for source in rust() {
        assert!(source.text.starts_with("//! "), "{} does not say what it is for", source.path);
        for word in &unfinished {
            assert!(!source.text.contains(word), "{} has {word}", source.path);
        }
    }
    for source in sources("migrations", ".sql") {
        assert!(source.text.starts_with("-- "), "{} does not say why", source.path);
    }
}

#[test]
fn every_guest_and_every_attack_is_named_by_a_test() {
    let mut tests: String = sources("tests/tests", ".rs").into_iter().map(|source| source.text).collect();
    for program in ["tests/src", "tests/benches"] {
        tests.extend(sources(program, "").into_iter().map(|source| source.text));
    }
    for entry in fs::read_dir(root().join("tests/guests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = [format!("guest(\"{name}\")"), format!("new(\"{name}\""), format!("tests/guests/{name}`")];
        assert!(named.iter().any(|name| tests.contains(name)), "nothing runs the guest {name}");
    }
    let attacks: Vec<String> =
        sources("examples/hostile/src", ".rs").iter().flat_map(|source| assets(&source.text)).collect();
    assert!(attacks.len() >= 18, "{attacks:?}");
    let hostile = fs::read_to_string(root().join("tests/tests/hostile.rs")).unwrap();
    for attack in attacks.iter().map(String::as_str).chain(["grows_tables"]) {
        assert!(hostile.contains(&format!("\"{attack}\"")), "hostile.rs does not expect {attack}");
    }
}

/// The functions that `#[asset]` stands over.
fn assets(text: &str) -> Vec<String> {
    let after = text.split("#[asset").skip(1).filter_map(|rest| rest.split_once("\nfn "));
    after.map(|(_, function)| function.split('(').next().unwrap().to_owned()).collect()
}

/// Text in backquotes that looks like a path of the project.
fn paths_in(document: &str) -> BTreeSet<String> {
    let mut prose = String::new();
    for (at, part) in document.split("```").enumerate() {
        // Every other part is a block of code: a transcript, not a claim.
        if at % 2 == 0 {
            prose.push_str(part);
        }
    }
    let quoted = prose.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| {
        let named = [".rs", ".md", ".toml", ".sql", ".wit", ".csv"].iter().any(|ending| text.ends_with(ending));
        let ours = [
            "host/",
            "tests/",
            "examples/",
            "fuzz/",
            "scripts/",
            "docs/",
            "wit/",
            "migrations/",
            "guest-sdk/",
            "deploy/",
        ];
        let known = ours.iter().any(|folder| text.starts_with(folder));
        // What leads out of the project is no claim about it.
        (named || known) && !text.contains([' ', '*', '<', '{']) && !text.starts_with("../")
    };
    let paths = quoted.filter(is_path).map(|path| path.trim_end_matches('/').to_owned());
    paths.collect()
}

#[test]
fn documents_name_only_what_exists() {
    let all: Vec<String> = ["host", "guest-sdk", "tests", "examples", "migrations", "wit", "docs"]
        .into_iter()
        .flat_map(|folder| sources(folder, ""))
        .map(|source| source.path)
        .collect();
    let documents = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let documents: Vec<PathBuf> =
        documents.chain(sources("docs", ".md").iter().map(|s| root().join(&s.path))).collect();
    let mut checked = 0;
    for document in documents {
        for path in paths_in(&fs::read_to_string(&document).unwrap()) {
            let beside = all.iter().any(|file| file.ends_with(&format!("/{path}")));
            assert!(root().join(&path).exists() || beside, "{} names {path}", relative(&document));
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} paths were found");
}

/// The words of a check constraint's list.
fn constrained(migration: &str, constraint: &str) -> BTreeSet<String> {
    let (_, rule) = migration.split_once(&format!("constraint {constraint} check")).expect("the constraint is there");
    let (_, list) = rule.split_once(" in (").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    list.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words in backquotes in the first cells of the table below a heading.
fn first_cells(document: &str, heading: &str) -> BTreeSet<String> {
    let (_, table) = document.split_once(heading).unwrap_or_else(|| panic!("{heading} is not there"));
    let rows =
        table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn the_documented_states_and_verdicts_are_those_of_the_database() {
    let document = fs::read_to_string(root().join("docs/job-states.md")).unwrap();
    let history = fs::read_to_string(root().join("migrations/0004_runs_and_jobs.sql")).unwrap();
    let queue = ["0005_queue.sql", "0015_pauses.sql", "0017_live_jobs.sql", "0019_pools.sql"]
        .map(|name| fs::read_to_string(root().join("migrations").join(name)).unwrap())
        .concat();

    let mut states = constrained(&history, "job_end_state_is_final");
    for (table, state) in [
        ("job_blocked", "blocked"),
        ("job_ready", "ready"),
        ("job_deferred", "deferred"),
        ("job_paused", "paused"),
        ("job_joined", "joined"),
        ("job_limited", "limited"),
        ("job_lease", "running"),
    ] {
        assert!(queue.contains(&format!("create table {table} (")), "{table}");
        assert!(document.contains(&format!("| `{state}` | `{table}` |")), "{state} is where {table} has it");
        states.insert(state.to_owned());
    }
    assert_eq!(first_cells(&document, "stateDiagram-v2"), states);
    assert_eq!(
        first_cells(&document, "## What follows from an attempt's verdict"),
        constrained(&history, "attempt_verdict_is_known")
    );
    let drawn = document.split("```").nth(1).unwrap();
    for state in &states {
        assert!(drawn.contains(&format!("--> {state}")), "the picture has no way to {state}");
    }
}

/// The rows of the table below a heading, each as its cells.
fn rows<'d>(document: &'d str, heading: &str) -> Vec<Vec<&'d str>> {
    let (_, table) = document.split_once(heading).unwrap_or_else(|| panic!("{heading} is not there"));
    let rows =
        table.lines().skip_while(|line| !line.starts_with("|---")).skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_promise_of_security_is_held_by_a_test_that_exists() {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let sources: String = rust().into_iter().map(|source| source.text).collect();
    let promises = rows(&document, "## What is promised");
    assert!(promises.len() > 25, "only {} promises were found", promises.len());
    for promise in promises {
        let [promised, held] = promise[..] else { panic!("{promise:?}") };
        let named: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing holds: {promised}");
        for test in named {
            let is_target = root().join(format!("fuzz/fuzz_targets/{test}.rs")).exists();
            assert!(
                is_target || sources.contains(&format!("fn {test}(")),
                "{test} is not there, and holds: {promised}"
            );
        }
    }
}
