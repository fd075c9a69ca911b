//! Attacks on the sandbox, on the deploy and on the compiler, in a process that is watched while they are carried out.
//!
//! Each file of `tests/attacks` is one, and each entry of `generated`. All of them are uploaded, deployed and run as far
//! as they come, on the real engine with its real compiler process; each must end as it says, within its time and its
//! memory, and leave no thread, no descriptor and no file. This is a program of its own so that what is measured is
//! theirs. Those that need a database and the command are in `tests/tests/hostile.rs`.

mod attack;
mod generated;
mod ground;
mod process;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use attack::{Attack, Expected};
use flowstone::limit::{DENIALS_MAX, DENIED_NAME_BYTES_MAX, MESSAGE_BYTES_MAX, USES_MAX};
use ground::{Ended, Ground, SECRET};
use process::{Footprint, forget_peak, peak_bytes};

/// What the allocator, the pool and the components that are kept ready may hold after all of it.
const LEFT_BYTES_MAX: u64 = 48 << 20;
/// The same while the engine is still there: the pool keeps memory for the next attempt.
const KEPT_BYTES_MAX: u64 = 128 << 20;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder, by path.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// All attacks, by group.
fn corpus() -> Vec<Attack> {
    let folder = project().join("tests/attacks");
    let mut attacks: Vec<Attack> = files(&folder).iter().map(|path| Attack::read(&folder, path)).collect();
    attacks.extend(generated::attacks());
    attacks.sort_by_key(|attack| attack.name.split_once('/').map(|(group, _)| group.to_owned()));
    let names: BTreeSet<&str> = attacks.iter().map(|attack| &*attack.name).collect();
    assert_eq!(names.len(), attacks.len(), "no two attacks have the same name");
    attacks
}

#[test]
fn every_attack_ends_as_it_must_and_leaves_nothing() {
    let attacks = corpus();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(std::time::Duration::from_millis(10))
        .build()
        .unwrap();
    // What the first of everything costs is nobody's leak.
    runtime.block_on(async {
        let ground = Ground::new().await;
        let honest = Attack::refused("honest", "", "", || vec![attack::honest()]).ends("succeeded");
        carry_out(&ground, &honest).await;
    });
    let before = Footprint::now();
    let mut failures = Vec::new();
    runtime.block_on(async {
        let ground = Ground::new().await;
        for attack in &attacks {
            failures.extend(carry_out(&ground, attack).await);
        }
    });
    let after = Footprint::settled(before);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), attacks.len(), failures.join("\n"));
    // The other test of this program may have ended meanwhile.
    let is_left = after.threads > before.threads || after.descriptors > before.descriptors;
    assert!(!is_left, "threads or descriptors are left: {before:?}, {after:?}");
    let left = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(left < LEFT_BYTES_MAX, "{left} bytes are left of the attacks");
}

/// The groups, in the order of the document, each with what is meant by it.
const GROUPS: &[(&str, &str)] = &[
    ("processor", "Computing without end, wherever guest code runs, and instructions that do much at once."),
    ("memory", "More memory, tables and handles than granted; values that lie about their length, place or kind."),
    (
        "calls",
        "The host's functions: millions of calls, handles that are not theirs, waits, calls from where none may be made.",
    ),
    ("traps", "Ending badly at each phase of an attempt."),
    ("floods", "Output and log without end."),
    ("escapes", "Text that a terminal would obey, wherever a guest may write some."),
    ("grants", "What was not granted, and what lies beyond what was."),
    ("instances", "More of everything than one attempt may have, in a component of many modules."),
    ("uploads", "What is no component that this host runs."),
    ("compiler", "Modules that would keep a compiler busy, or fill its memory."),
    ("types", "Types that are small to write and large to hold."),
    ("damaged", "Bytes of an honest component that something happened to."),
];

/// What the document must say between its two headings.
fn tables(attacks: &[Attack]) -> String {
    let mut text = String::new();
    for (group, meaning) in GROUPS {
        text += &format!(
            "\n### {group}\n\n{meaning}\n\n| attack | what it tries | how it ends | bound |\n|---|---|---|---|\n"
        );
        let rows = attacks.iter().filter(|attack| attack.name.split_once('/').is_some_and(|(of, _)| of == *group));
        rows.for_each(|attack| text += &format!("{}\n", attack.row()));
    }
    text
}

#[test]
fn the_document_lists_every_attack() {
    let attacks = corpus();
    assert!(attacks.len() >= 150, "{}", attacks.len());
    let known = |attack: &Attack| GROUPS.iter().any(|(group, _)| attack.name.starts_with(&format!("{group}/")));
    assert!(attacks.iter().all(known), "each attack is in a group");
    let document = fs::read_to_string(project().join("docs/attacks.md")).unwrap();
    let (_, rest) = document.split_once("## In the sandbox\n").unwrap();
    let (listed, _) = rest.split_once("\n## Through the command\n").unwrap();
    let expected = tables(&attacks);
    let written = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacks.md");
    fs::write(&written, &expected).unwrap();
    assert!(listed.trim() == expected.trim(), "what docs/attacks.md must say there is in {}", written.display());
}

/// Carries out one attack with all its variants; what went wrong.
async fn carry_out(ground: &Ground, attack: &Attack) -> Vec<String> {
    let mut wrong = Vec::new();
    let uploads = (attack.make)();
    let mut before = Footprint::now();
    let kept = ground.kept.get();
    forget_peak();
    let began = std::time::Instant::now();
    for (number, upload) in uploads.into_iter().enumerate() {
        let ended = ground.carry_out(attack, upload).await;
        check(attack, &ended, &mut wrong);
        if !attack.from_upload && ended.took > attack.within {
            wrong.push(format!("its attempt took {:?}", ended.took));
        }
        if !wrong.is_empty() {
            wrong.push(format!("variant {number}"));
            break;
        }
    }
    if attack.from_upload && began.elapsed() > attack.within {
        wrong.push(format!("all of it took {:?}", began.elapsed()));
    }
    let took = began.elapsed();
    let most = before.resident_bytes + attack.limits.memory_bytes + attack.host_bytes;
    if peak_bytes() > most {
        wrong.push(format!("{} bytes were resident, of which {} before", peak_bytes(), before.resident_bytes));
    }
    before.descriptors += ground.kept.get() - kept;
    let after = Footprint::settled(before);
    if (after.threads, after.descriptors) > (before.threads, before.descriptors) {
        wrong.push(format!("it left threads or descriptors: {before:?}, {after:?}"));
    }
    if after.resident_bytes > before.resident_bytes + KEPT_BYTES_MAX {
        wrong.push(format!("it left memory: {before:?}, {after:?}"));
    }
    if ground.unfinished_files() > 0 {
        wrong.push("it left unfinished files".into());
    }
    println!("{:>9.1?} {:>5} MB {}", took, (peak_bytes().saturating_sub(before.resident_bytes)) >> 20, attack.name);
    wrong.into_iter().map(|wrong| format!("{}: {wrong}", attack.name)).collect()
}

/// Its verdict, its words, and that what it left for people is bounded and harmless.
fn check(attack: &Attack, ended: &Ended, wrong: &mut Vec<String>) {
    let harmless = attack.expected == Expected::RefusedOrContained;
    if !harmless && ended.how != attack.expected {
        wrong.push(format!("{:?} instead of {:?}: {}", ended.how, attack.expected, ended.explanation));
    }
    if !ended.explanation.contains(&attack.says) {
        wrong.push(format!("it says {:?}", ended.explanation));
    }
    if ended.explanation.len() > 200 * MESSAGE_BYTES_MAX {
        wrong.push(format!("it is told in {} bytes", ended.explanation.len()));
    }
    let mut texts = vec![ended.explanation.clone()];
    if let Some(report) = &ended.report {
        let log: usize = report.log.lines.iter().map(|line| line.message.len()).sum();
        if log as u64 > attack.limits.log_bytes {
            wrong.push(format!("{log} bytes of log were kept"));
        }
        if report.denials.len() > DENIALS_MAX || report.uses.len() > 4 * USES_MAX {
            wrong.push(format!("{} denials and {} uses were kept", report.denials.len(), report.uses.len()));
        }
        if report.memory_bytes_peak > attack.limits.memory_bytes || report.fuel_used > attack.limits.fuel {
            wrong.push(format!("{} bytes, {} units of fuel", report.memory_bytes_peak, report.fuel_used));
        }
        let stored = report.output.as_ref().map_or(0, |output| output.stored.size);
        if stored > attack.limits.output_bytes || (report.output.is_some() && report.verdict.as_str() != "succeeded") {
            wrong.push(format!("{stored} bytes of output"));
        }
        for line in &report.log.lines {
            texts.push(line.message.clone());
            texts.extend(line.fields.iter().flat_map(|field| [field.name.clone(), field.value.clone()]));
        }
        for denial in &report.denials {
            if denial.target.len() > 3 * DENIED_NAME_BYTES_MAX || denial.remedy.len() > 12 * DENIED_NAME_BYTES_MAX {
                wrong.push(format!("a denial is told in {} bytes", denial.remedy.len()));
            }
            texts.extend([denial.resource.clone(), denial.target.clone(), denial.remedy.clone()]);
        }
        texts.extend(report.uses.iter().map(|used| used.target.clone()));
    }
    let steers = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if let Some(text) = texts.iter().find(|text| text.contains(steers)) {
        wrong.push(format!("a terminal would obey {text:?}"));
    }
    if texts.iter().any(|text| text.contains(SECRET)) {
        wrong.push("the secret is said".into());
    }
}
