//! An attack: what it tries, how it must end, and within which bounds. Read from the head of its file, or said by the
//! function that makes its bytes.
//!
//! A file of `tests/attacks` is a core module without its brackets, for the world of these tests. What it leaves out of
//! what the world asks for is added: see [`PRELUDE`].

use std::{fs, path::Path, time::Duration};

use flowstone::pipeline::{
    policy::Limits,
    quantity::{bytes_text, duration_text, parse_bytes, parse_duration_ms, parse_fuel},
};

use crate::support;

/// One attack.
pub struct Attack {
    /// `memory/grows-without-end`.
    pub name: String,
    /// What it tries, in a sentence.
    pub tries: String,
    pub expected: Expected,
    /// Part of the explanation.
    pub says: String,
    /// Of its attempt.
    pub limits: Limits,
    /// What it was granted: names of [`crate::ground::Ground`].
    pub grants: Vec<String>,
    /// Until its end...
    pub within: Duration,
    /// ...from the upload on, compilation included; or from the beginning of its attempt.
    pub from_upload: bool,
    /// What the host may need beside the guest's own memory.
    pub host_bytes: u64,
    /// Makes the uploads: one, or variants of one that all end alike.
    pub make: Box<dyn Fn() -> Vec<Vec<u8>>>,
}

/// How it must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The upload is refused before any code of it runs.
    Refused,
    /// `describe` ends like this, with its own small limits: the deploy is refused.
    NotDescribed(String),
    /// The attempt has this verdict.
    Verdict(String),
    /// Damaged bytes may be harmless: refused, or a component like any other, whose `describe` and attempt end.
    RefusedOrContained,
}

impl Expected {
    fn parse(text: &str) -> Self {
        match text.split_once(' ') {
            Some(("not-described", verdict)) => Self::NotDescribed(verdict.to_owned()),
            None if text == "refused" => Self::Refused,
            _ => Self::Verdict(text.to_owned()),
        }
    }
}

/// What an attempt of an attack may have when its file is silent: little, so that all attacks together take seconds.
fn small_limits() -> Limits {
    Limits { fuel: 100_000_000, memory_bytes: 16 << 20, timeout_ms: 2_000, output_bytes: 1 << 20, log_bytes: 16 << 10 }
}

/// How much later than its deadline an attempt may have ended and be reported. The sandbox's own tests allow 200 ms;
/// here the machine may be doing anything beside it.
const LATE: Duration = Duration::from_millis(700);
/// Of an upload that is refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// Calls move up to 16 MiB into the host, which may hold it twice while it looks at it.
const HOST_BYTES: u64 = 64 << 20;

impl Attack {
    /// One that is made by a function and refused at upload.
    pub fn refused(name: &str, tries: &str, says: &str, make: impl Fn() -> Vec<Vec<u8>> + 'static) -> Self {
        Self {
            name: name.into(),
            tries: tries.into(),
            expected: Expected::Refused,
            says: says.into(),
            limits: small_limits(),
            grants: vec![],
            within: REFUSED_WITHIN,
            from_upload: true,
            host_bytes: HOST_BYTES,
            make: Box::new(make),
        }
    }

    /// The same with another end.
    pub fn ends(mut self, expected: &str) -> Self {
        self.expected = Expected::parse(expected);
        self
    }

    /// The same where some variants may be harmless.
    pub fn or_contained(mut self) -> Self {
        self.expected = Expected::RefusedOrContained;
        self
    }

    /// The same within another time.
    pub fn within(mut self, seconds: u64) -> Self {
        self.within = Duration::from_secs(seconds);
        self
    }

    /// The same with more for the host.
    pub fn host(mut self, bytes: u64) -> Self {
        self.host_bytes = bytes;
        self
    }

    /// One of a file below `tests/attacks`.
    pub fn read(folder: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(folder).unwrap().with_extension("").display().to_string();
        let mut head = text.lines().map_while(|line| line.strip_prefix(";; "));
        let tries = head.next().unwrap_or_else(|| panic!("{name} does not say what it tries")).to_owned();
        let mut attack = Self::refused(&name, &tries, "", {
            let text = text.clone();
            move || vec![support::component(&whole(&text))]
        });
        let mut within = None;
        for line in head {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
            match key {
                "expect" => attack.expected = Expected::parse(value),
                "says" => attack.says = value.into(),
                "limits" => value.split(' ').for_each(|limit| set(&mut attack.limits, limit)),
                "grants" => attack.grants = value.split(' ').map(str::to_owned).collect(),
                "within" => within = parse_duration_ms(value).map(Duration::from_millis),
                _ => panic!("{name}: {key} is no key"),
            }
        }
        attack.from_upload = !matches!(attack.expected, Expected::Verdict(_));
        attack.within = within.unwrap_or(match attack.expected {
            Expected::Verdict(_) => Duration::from_millis(attack.limits.timeout_ms) + LATE,
            _ => REFUSED_WITHIN,
        });
        attack
    }

    /// Its row of `docs/attacks.md`.
    pub fn row(&self) -> String {
        let name = self.name.split_once('/').map_or(&*self.name, |(_, name)| name);
        let verdict = match &self.expected {
            Expected::Refused => "refused at upload".to_owned(),
            Expected::NotDescribed(verdict) => format!("refused at deploy: {verdict}"),
            Expected::Verdict(verdict) => verdict.clone(),
            Expected::RefusedOrContained => "refused at upload, or runs like any other".to_owned(),
        };
        let memory = match self.expected {
            Expected::Verdict(_) => {
                format!("{} + {}", bytes_text(self.limits.memory_bytes), bytes_text(self.host_bytes))
            }
            _ => bytes_text(self.host_bytes),
        };
        format!("| `{name}` | {} | {verdict} | {}, {memory} |", self.tries, duration_text(self.within))
    }
}

fn set(limits: &mut Limits, limit: &str) {
    let (which, value) = limit.split_once('=').unwrap();
    match which {
        "fuel" => limits.fuel = parse_fuel(value).unwrap(),
        "memory" => limits.memory_bytes = parse_bytes(value).unwrap(),
        "timeout" => limits.timeout_ms = parse_duration_ms(value).unwrap(),
        "output" => limits.output_bytes = parse_bytes(value).unwrap(),
        "log" => limits.log_bytes = parse_bytes(value).unwrap(),
        _ => panic!("{which} is no limit"),
    }
}

/// A component that attacks nothing.
pub fn honest() -> Vec<u8> {
    support::component(&whole(""))
}

/// The text of a file with what it leaves out.
fn whole(text: &str) -> String {
    let missing = PRELUDE.iter().filter(|(unless, _)| !text.contains(unless)).map(|(_, part)| *part);
    let parts: Vec<&str> = std::iter::once(text).chain(missing).collect();
    format!("(module\n{})", parts.join("\n"))
}

/// Each part is added to a file that does not have the text before it.
///
/// What `materialize` returns is at 1024: zeros, `ok(done)`, unless `$fail` or the attack writes something else. What
/// host functions return goes to 2048.
const PRELUDE: &[(&str, &str)] = &[
    (r#"(export "memory")"#, r#"(memory (export "memory") 2)"#),
    (r#""cabi_realloc""#, support::REALLOC),
    ("(global $heap", "(global $heap (mut i32) (i32.const 65536))"),
    (
        "(func $fail",
        "(func $fail (param $text i32) (param $length i32)
          (i32.store8 (i32.const 1024) (i32.const 1))
          (i32.store8 (i32.const 1032) (i32.const 1))
          (i32.store (i32.const 1040) (local.get $text))
          (i32.store (i32.const 1044) (local.get $length)))",
    ),
    // Whether the last call was refused. If it was, the attack fails with the refusal as its message.
    (
        "(func $refused",
        r#"(func $refused (result i32)
          (if (i32.eqz (i32.load8_u (i32.const 2048))) (then (return (i32.const 0))))
          (call $fail (i32.const 512) (i32.const 6))
          (if (i32.eq (i32.load8_u (i32.const 2052)) (i32.const 1)) (then (call $fail (i32.const 518) (i32.const 9))))
          (if (i32.ge_u (i32.load8_u (i32.const 2052)) (i32.const 3))
            (then (call $fail (i32.load (i32.const 2056)) (i32.load (i32.const 2060)))))
          (i32.const 1))
        (data (i32.const 512) "deniednot-found")"#,
    ),
    ("(func $describe", "(func $describe (result i32) (i32.const 2048))"),
    ("#describe\"", r#"(export "flowstone:asset/definitions@0.1.0#describe" (func $describe))"#),
    ("(func $materialize", "(func $materialize (param i32 i32) (result i32) (i32.const 1024))"),
    ("0#materialize\" (", r#"(export "flowstone:asset/materializer@0.1.0#materialize" (func $materialize))"#),
];
