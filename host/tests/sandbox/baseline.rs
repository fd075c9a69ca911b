//! Behind each function of the WASI baseline there is nothing: a guest calls every one, and what it is answered is here.
//!
//! The functions are those of `wit/deps`, of every interface that an inspection lets through as part of the baseline;
//! one without an expected answer fails the test. Functions of resources that nothing hands out are called with a made-up
//! handle.

use std::collections::BTreeMap;

use flowstone::{
    blob::Content,
    engine::{BASELINE, Verdict},
};
use guest_wit_parser::{
    Function, Handle, Int, Resolve, SizeAlign, Type, TypeDefKind, TypeId,
    abi::{AbiVariant, WasmType},
};

use super::support::{Host, WASI, WORLD, component};

/// Functions, the arguments of those that take more than zeros, and what they answer. A handle in the arguments is made by
/// a function of the guest's, which asks the host for it.
const ANSWERS: &[(&str, &str, &str)] = &[
    ("wasi:cli/environment#get-environment", "", "0 items"),
    ("wasi:cli/environment#get-arguments", "", "0 items"),
    ("wasi:cli/environment#initial-cwd", "", "none"),
    ("wasi:cli/exit#exit", "", "failed: it exited with status 0 instead of returning"),
    ("wasi:cli/exit#exit-with-code", "(i32.const 7)", "failed: it exited with status 7 instead of returning"),
    ("wasi:cli/stdin#get-stdin", "", "a handle"),
    ("wasi:cli/stdout#get-stdout", "", "a handle"),
    ("wasi:cli/stderr#get-stderr", "", "a handle"),
    ("wasi:cli/terminal-stdin#get-terminal-stdin", "", "none"),
    ("wasi:cli/terminal-stdout#get-terminal-stdout", "", "none"),
    ("wasi:cli/terminal-stderr#get-terminal-stderr", "", "none"),
    // The job's instant, and a step for each look.
    ("wasi:clocks/monotonic-clock#now", "", "0"),
    ("wasi:clocks/monotonic-clock#resolution", "", "1000"),
    ("wasi:clocks/monotonic-clock#subscribe-instant", "", "a handle"),
    ("wasi:clocks/monotonic-clock#subscribe-duration", "", "a handle"),
    ("wasi:clocks/wall-clock#now", "", "{0, 0}"),
    ("wasi:clocks/wall-clock#resolution", "", "{0, 1000000}"),
    ("wasi:filesystem/preopens#get-directories", "", "0 items"),
    ("wasi:io/poll#[method]pollable.ready", "(call $pollable)", "true"),
    ("wasi:io/poll#[method]pollable.block", "(call $pollable)", ""),
    ("wasi:io/poll#poll", "(call $pollables) (i32.const 1)", "1 items"),
    // Its input is closed.
    ("wasi:io/streams#[method]input-stream.read", "(call $input) (i64.const 1)", "err(closed)"),
    ("wasi:io/streams#[method]input-stream.blocking-read", "(call $input) (i64.const 1)", "err(closed)"),
    ("wasi:io/streams#[method]input-stream.skip", "(call $input) (i64.const 1)", "err(closed)"),
    ("wasi:io/streams#[method]input-stream.blocking-skip", "(call $input) (i64.const 1)", "err(closed)"),
    ("wasi:io/streams#[method]input-stream.subscribe", "(call $input)", "a handle"),
    // Its output is its log.
    ("wasi:io/streams#[method]output-stream.check-write", "(call $output)", "ok(65536)"),
    ("wasi:io/streams#[method]output-stream.write", "(call $output) (i32.const 4096) (i32.const 1)", "ok"),
    (
        "wasi:io/streams#[method]output-stream.blocking-write-and-flush",
        "(call $output) (i32.const 4096) (i32.const 1)",
        "ok",
    ),
    ("wasi:io/streams#[method]output-stream.flush", "(call $output)", "ok"),
    ("wasi:io/streams#[method]output-stream.blocking-flush", "(call $output)", "ok"),
    ("wasi:io/streams#[method]output-stream.subscribe", "(call $output)", "a handle"),
    ("wasi:io/streams#[method]output-stream.write-zeroes", "(call $output) (i64.const 1)", "ok"),
    ("wasi:io/streams#[method]output-stream.blocking-write-zeroes-and-flush", "(call $output) (i64.const 1)", "ok"),
    ("wasi:io/streams#[method]output-stream.splice", "(call $output) (call $input) (i64.const 1)", "err(closed)"),
    (
        "wasi:io/streams#[method]output-stream.blocking-splice",
        "(call $output) (call $input) (i64.const 1)",
        "err(closed)",
    ),
    // Of the attempt's seed.
    ("wasi:random/random#get-random-bytes", "(i64.const 8)", "8 items"),
    ("wasi:random/random#get-random-u64", "", "4753173749397848308"),
    ("wasi:random/insecure#get-insecure-random-bytes", "(i64.const 8)", "8 items"),
    ("wasi:random/insecure#get-insecure-random-u64", "", "17250399114163879021"),
    ("wasi:random/insecure-seed#insecure-seed", "", "{14546071416996108741, 1013833090320175808}"),
    ("wasi:sockets/instance-network#instance-network", "", "a handle"),
    (
        "wasi:sockets/ip-name-lookup#resolve-addresses",
        "(call $network) (i32.const 4100) (i32.const 9)",
        "err(permanent-resolver-failure)",
    ),
    ("wasi:sockets/tcp-create-socket#create-tcp-socket", "", "err(access-denied)"),
    ("wasi:sockets/udp-create-socket#create-udp-socket", "", "err(access-denied)"),
];

/// Resources of which nothing in the baseline hands out one: their functions are out of reach.
const OUT_OF_REACH: &[&str] = &[
    "descriptor",
    "directory-entry-stream",
    "error",
    "incoming-datagram-stream",
    "outgoing-datagram-stream",
    "resolve-address-stream",
    "tcp-socket",
    "udp-socket",
];

/// What a call with a handle that was never given ends with.
const NO_HANDLE: &str = "trapped: unknown handle index 0";

/// A function of the baseline.
struct Call {
    /// `wasi:cli/environment#get-environment`.
    name: String,
    function: Function,
}

impl Call {
    /// What it must answer, and the arguments that are not zeros.
    fn expected(&self) -> Option<(&'static str, &'static str)> {
        if let Some((_, arguments, answer)) = ANSWERS.iter().find(|(name, _, _)| *name == self.name) {
            return Some((arguments, answer));
        }
        let handle = self.function.params.first().and_then(|parameter| resource(&WORLD.0, parameter.ty))?;
        OUT_OF_REACH.contains(&handle).then_some(("", NO_HANDLE))
    }
}

/// The resource that a handle is of.
fn resource(resolve: &Resolve, of: Type) -> Option<&str> {
    let Type::Id(id) = of else { return None };
    match &resolve.types[id].kind {
        TypeDefKind::Handle(Handle::Own(resource) | Handle::Borrow(resource)) => name(resolve, *resource),
        TypeDefKind::Type(other) => self::resource(resolve, *other),
        _ => None,
    }
}

fn name(resolve: &Resolve, id: TypeId) -> Option<&str> {
    resolve.types[id].name.as_deref()
}

/// Every function of the baseline.
fn functions() -> Vec<Call> {
    let (resolve, _) = &*WORLD;
    let mut calls = Vec::new();
    let mut interfaces = Vec::new();
    for (id, interface) in resolve.interfaces.iter() {
        let Some(name) = resolve.id_of(id).and_then(|name| name.strip_suffix(&format!("@{WASI}")).map(str::to_owned))
        else {
            continue;
        };
        if BASELINE.contains(&name.as_str()) {
            let function =
                |function: &Function| Call { name: format!("{name}#{}", function.name), function: function.clone() };
            calls.extend(interface.functions.values().map(function));
            interfaces.push(name);
        }
    }
    interfaces.sort();
    assert_eq!(interfaces, BASELINE, "the vendored WIT has every interface of the baseline");
    calls
}

/// A guest that imports all of these and calls the one whose number is its asset's name, in three digits. It writes what
/// it was answered: 64 bytes, as the canonical ABI lays them out.
fn guest(calls: &[Call]) -> Vec<u8> {
    let (mut imports, mut arms) = (String::new(), String::new());
    for (number, call) in calls.iter().enumerate() {
        let (interface, function) = call.name.split_once('#').unwrap();
        let signature = WORLD.0.wasm_signature(AbiVariant::GuestImport, &call.function);
        let core = |of: &WasmType| match of {
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
            WasmType::I64 | WasmType::PointerOrI64 => "i64",
            WasmType::F32 => "f32",
            WasmType::F64 => "f64",
        };
        let parameters: Vec<&str> = signature.params.iter().map(core).collect();
        let results: Vec<&str> = signature.results.iter().map(core).collect();
        imports += &format!(
            "(import \"{interface}@{WASI}\" \"{function}\" (func $f{number} (param {}) (result {})))\n",
            parameters.join(" "),
            results.join(" ")
        );
        let returned = if signature.retptr { "(i32.const 2048)" } else { "" };
        let zeros = parameters.len() - usize::from(signature.retptr);
        let zeros: String = parameters[..zeros].iter().map(|of| format!("({of}.const 0)")).collect();
        let arguments = call.expected().map(|(arguments, _)| arguments).filter(|text| !text.is_empty());
        let mut called = format!("(call $f{number} {} {returned})", arguments.unwrap_or(&zeros));
        if let [result] = results[..] {
            called = format!("({result}.store (i32.const 2048) {called})");
        }
        arms += &format!("(if (i32.eq (local.get $n) (i32.const {number})) (then {called}))\n");
    }
    let text = format!(
        r#"(module
        {imports}
        (import "wasi:cli/stdin@{WASI}" "get-stdin" (func $input (result i32)))
        (import "wasi:cli/stdout@{WASI}" "get-stdout" (func $output (result i32)))
        (import "wasi:sockets/instance-network@{WASI}" "instance-network" (func $network (result i32)))
        (import "wasi:clocks/monotonic-clock@{WASI}" "subscribe-duration" (func $timer (param i64) (result i32)))
        (import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))
        (memory (export "memory") 2)
        (data (i32.const 4096) "\0a")
        (data (i32.const 4100) "localhost")
        (global $heap (mut i32) (i32.const 65536))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
          (global.set $heap (i32.add (global.get $heap) (i32.const 256)))
          (global.get $heap))
        (func $pollable (result i32) (call $timer (i64.const 0)))
        (func $pollables (result i32) (i32.store (i32.const 8192) (call $pollable)) (i32.const 8192))
        (func $digit (param $at i32) (result i32) (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32) (i32.const 1024))
        (func (export "flowstone:asset/materializer@0.1.0#materialize") (param $asset i32) (param i32) (result i32)
          (local $n i32)
          (local.set $n (i32.add (i32.mul (call $digit (local.get $asset)) (i32.const 100))
            (i32.add (i32.mul (call $digit (i32.add (local.get $asset) (i32.const 1))) (i32.const 10))
              (call $digit (i32.add (local.get $asset) (i32.const 2))))))
          {arms}
          (call $write (i32.const 2048) (i32.const 64) (i32.const 1024))
          (i32.const 1024)))"#
    );
    component(&text)
}

/// A value of the canonical ABI as text: numbers and cases, and of lists how many items they have.
fn shown(sizes: &SizeAlign, of: &Type, bytes: &[u8]) -> String {
    let resolve = &WORLD.0;
    let unsigned = |length: usize| {
        let mut value = [0; 8];
        value[..length].copy_from_slice(&bytes[..length]);
        u64::from_le_bytes(value)
    };
    let items = || format!("{} items", u32::from_le_bytes(bytes[4..8].try_into().unwrap()));
    let after = |offset: usize, of: &Type| shown(sizes, of, &bytes[offset..]);
    let id = match of {
        Type::Bool => return (bytes[0] != 0).to_string(),
        Type::U8 => return unsigned(1).to_string(),
        Type::U16 => return unsigned(2).to_string(),
        Type::U32 => return unsigned(4).to_string(),
        Type::U64 => return unsigned(8).to_string(),
        Type::String => return items(),
        Type::Id(id) => *id,
        other => panic!("nothing of the baseline returns {other:?}"),
    };
    let record = |fields: Vec<&Type>| {
        let offsets = sizes.field_offsets(fields);
        let fields: Vec<String> = offsets.iter().map(|(at, of)| after(at.size_wasm32(), of)).collect();
        format!("{{{}}}", fields.join(", "))
    };
    let case = |name: &str, at: usize, of: Option<&Type>| match of {
        Some(of) => format!("{name}({})", after(at, of)),
        None => name.to_owned(),
    };
    match &resolve.types[id].kind {
        TypeDefKind::Type(other) => shown(sizes, other, bytes),
        TypeDefKind::Handle(_) => "a handle".into(),
        TypeDefKind::List(_) => items(),
        TypeDefKind::Record(of) => record(of.fields.iter().map(|field| &field.ty).collect()),
        TypeDefKind::Tuple(of) => record(of.types.iter().collect()),
        TypeDefKind::Enum(of) => of.cases[bytes[0] as usize].name.clone(),
        TypeDefKind::Option(_) if bytes[0] == 0 => "none".into(),
        TypeDefKind::Option(of) => case("some", sizes.align(of).align_wasm32().max(1), Some(of)),
        TypeDefKind::Result(of) => {
            let at = sizes.payload_offset(Int::U8, [of.ok.as_ref(), of.err.as_ref()]).size_wasm32();
            if bytes[0] == 0 { case("ok", at, of.ok.as_ref()) } else { case("err", at, of.err.as_ref()) }
        }
        TypeDefKind::Variant(of) => {
            let at = sizes.payload_offset(of.tag(), of.cases.iter().map(|case| case.ty.as_ref())).size_wasm32();
            let found = &of.cases[bytes[0] as usize];
            case(&found.name, at, found.ty.as_ref())
        }
        other => panic!("nothing of the baseline returns a {}", other.as_str()),
    }
}

#[tokio::test]
async fn behind_every_function_of_the_baseline_there_is_nothing() {
    let calls = functions();
    assert!(calls.len() > 100, "{}", calls.len());
    let mut sizes = SizeAlign::default();
    sizes.fill(&WORLD.0);
    let host = Host::new();
    let component = host.load_bytes(guest(&calls)).await;
    let (mut expected, mut answered) = (BTreeMap::new(), BTreeMap::new());
    for (number, call) in calls.iter().enumerate() {
        let mut attempt = host.attempt_of(component.clone());
        attempt.context.asset = format!("{number:03}");
        let report = host.run(attempt).await;
        let answer = match (&report.verdict, report.output.as_ref().map(|output| &output.content)) {
            (Verdict::Succeeded, Some(Content::Inline(bytes))) => {
                call.function.result.as_ref().map_or_else(String::new, |of| shown(&sizes, of, bytes))
            }
            (verdict, _) => format!("{}: {}", verdict.as_str(), report.explanation),
        };
        answered.insert(&*call.name, answer);
        let nobody = "nobody has said what it must answer";
        expected.insert(&*call.name, call.expected().map_or(nobody, |(_, answer)| answer).to_owned());
    }
    assert_eq!(answered, expected);
    let known = |name: &&str| expected.contains_key(name);
    assert!(ANSWERS.iter().all(|(name, _, _)| known(name)), "each expected answer is of a function that there is");
}
