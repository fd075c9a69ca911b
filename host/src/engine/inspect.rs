//! Looking at an uploaded component without compiling it and without running any of it.
//!
//! Everything that is wrong is found in one go, each as a sentence that says how to mend it. What passes here can
//! still be refused by the compiler; what is refused here never meets it.

use std::{collections::BTreeSet, fmt};

use wasmparser::{
    ComponentTypeRef, Operator, Parser, Payload, Validator, WasmFeatures,
    component_types::ComponentEntityType,
    types::{Types, TypesRef},
};

use super::{
    config::UNSUPPORTED,
    signature::{PACKAGE, functions, unversioned},
};
use crate::{
    blob::Digest,
    capability::{
        config::WASI_CONFIG,
        text::{neutralise, truncate},
    },
    limit::{
        COMPONENT_BYTES_MAX, FUNCTION_BYTES_MAX, FUNCTIONS_MAX, GLOBALS_MAX, INSPECTION_ITEMS_MAX, LOCALS_MAX,
        MEMORY_BYTES_MAX, MESSAGE_BYTES_MAX, NESTING_MAX, PER_MODULE_MAX, TABLE_ELEMENTS_MAX,
    },
    pipeline::asset::Capability,
};

/// What a component is, from its bytes alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it imports, in its own order.
    pub imports: Vec<Import>,
    /// What it exports, in its own order, the host's concern or not.
    pub exports: Vec<String>,
    /// What it could use if it were granted.
    pub capabilities: BTreeSet<Capability>,
}

/// One import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// With its version.
    pub name: String,
    /// What importing it means.
    pub class: ImportClass,
}

/// What importing an interface means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportClass {
    /// Ours, always there, inert.
    Ours,
    /// Of WASI, always there, with nothing behind it.
    Baseline,
    /// There only by grant.
    Capability(Capability),
}

/// One thing that is wrong with a component, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The interfaces of WASI 0.2 that every guest finds, with nothing behind them. A test calls each of their functions.
pub const BASELINE: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// What is there only by grant.
const CAPABILITIES: [Capability; 5] =
    [Capability::Files, Capability::Secret, Capability::Http, Capability::Sql, Capability::KeyValue];

/// The interfaces of WASI 0.2 through which granted HTTP origins are reached too.
const WASI_HTTP: &[&str] = &["wasi:http/outgoing-handler", "wasi:http/types"];

/// The interfaces of WASI through which granted buckets are reached too: drafts, which match only exactly.
const WASI_KEY_VALUE: &[&str] = &[
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
];

/// Inspects a component; or says everything that is wrong with it.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Vec<Problem>> {
    if let Some(problem) = not_a_component(bytes) {
        return Err(vec![Problem(problem)]);
    }
    let mut problems = Problems::default();
    let types = match validate(bytes, &mut problems) {
        Some(types) => types,
        None => return Err(problems.0),
    };
    let contents = match Contents::read(bytes, &mut problems) {
        Ok(contents) => contents,
        // It was just validated, so this is a disagreement of the parser with itself.
        Err(error) => return Err(vec![malformed(&error, bytes)]),
    };
    let imports = contents.imports.iter().filter_map(|import| import.classify(types.as_ref(), &mut problems)).collect();
    contents.check_exports(types.as_ref(), &mut problems);
    if !problems.0.is_empty() {
        return Err(problems.0);
    }
    Ok(Inspection::new(bytes, imports, contents.exports))
}

impl Inspection {
    fn new(bytes: &[u8], imports: Vec<Import>, exports: Vec<String>) -> Self {
        let capability = |import: &Import| match import.class {
            ImportClass::Capability(capability) => Some(capability),
            ImportClass::Ours | ImportClass::Baseline => None,
        };
        let capabilities = imports.iter().filter_map(capability).collect();
        Self { digest: Digest::of(bytes), size: bytes.len() as u64, imports, exports, capabilities }
    }
}

/// The problems found so far; a bounded number of them.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn push(&mut self, problem: String) {
        if self.0.len() < INSPECTION_ITEMS_MAX {
            self.0.push(Problem(problem));
        }
    }
}

/// What makes it senseless to look any further.
fn not_a_component(bytes: &[u8]) -> Option<String> {
    const WASM: &[u8] = b"\0asm";
    const MODULE: [u8; 4] = [1, 0, 0, 0];
    if bytes.len() > COMPONENT_BYTES_MAX {
        let size = bytes.len();
        return Some(format!("it has {size} bytes, more than {COMPONENT_BYTES_MAX}: strip its debug information"));
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() || bytes.starts_with(b"\x7fELF") {
        return Some(
            "it is already compiled code, which is never accepted from outside: upload the WebAssembly component"
                .into(),
        );
    }
    if bytes.is_empty() {
        return Some("it is empty: upload a WebAssembly component".into());
    }
    if !bytes.starts_with(&WASM[..bytes.len().min(WASM.len())]) {
        return Some("it is not WebAssembly: upload the .wasm file of a component".into());
    }
    if bytes.len() < 8 {
        return Some("it is cut off after its first bytes: upload the whole file".into());
    }
    if bytes[4..8] == MODULE {
        return Some(
            "it is a core module, not a component: build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
                .into(),
        );
    }
    None
}

/// The features of the engine's configuration, for a reader that explains itself better than the compiler.
fn features() -> WasmFeatures {
    (WasmFeatures::WASM3 | WasmFeatures::COMPONENT_MODEL) & !UNSUPPORTED
}

/// The component's types. A feature that is off is a problem like others; a component that is malformed has no types.
fn validate(bytes: &[u8], problems: &mut Problems) -> Option<Types> {
    let refused = match Validator::new_with_features(features()).validate_all(bytes) {
        Ok(types) => return Some(types),
        Err(error) => error,
    };
    match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
        Ok(types) => {
            problems.push(unsupported(&refused));
            Some(types)
        }
        Err(error) => {
            problems.0.push(malformed(&error, bytes));
            None
        }
    }
}

fn malformed(error: &wasmparser::BinaryReaderError, bytes: &[u8]) -> Problem {
    let at = error.offset();
    // Cut between two sections, it is the end of the file at which something turns out to be missing.
    if at >= bytes.len() || is_cut_within_a_section(bytes) {
        return Problem(format!("it is cut off after {} bytes: upload the whole file", bytes.len()));
    }
    Problem(format!("it is not valid WebAssembly, at byte {at}: {}", quoted(error.message())))
}

/// Whether the last section says that it is longer than what is left. Only that: a section that is whole may hold
/// rubbish, and a reader of rubbish meets an unexpected end too.
fn is_cut_within_a_section(bytes: &[u8]) -> bool {
    let mut rest = &bytes[bytes.len().min(8)..];
    while let [_, after @ ..] = rest {
        let mut size = wasmparser::BinaryReader::new(after, 0);
        let Ok(length) = size.read_var_u32() else { return after.len() < 5 };
        match after.get(size.current_position() + length as usize..) {
            Some(next) => rest = next,
            None => return true,
        }
    }
    false
}

fn unsupported(error: &wasmparser::BinaryReaderError) -> String {
    let message = quoted(error.message());
    if message.contains("async") {
        return format!(
            "it uses the component model's async features, which this host does not run ({message}): build it \
             without them, with `componentize-qjs --sync`, `jco componentize --backend-qjs-disable-async`, or \
             synchronous functions"
        );
    }
    format!("it uses a feature that this host does not run: {message}: build it without that feature")
}

/// Text from the component, or about it, as it may be shown.
fn quoted(text: &str) -> String {
    neutralise(truncate(text, MESSAGE_BYTES_MAX))
}

/// What the bytes hold, as far as it concerns us.
#[derive(Default)]
struct Contents {
    imports: Vec<RawImport>,
    exports: Vec<String>,
}

struct RawImport {
    name: String,
    is_interface: bool,
}

impl Contents {
    fn read(bytes: &[u8], problems: &mut Problems) -> wasmparser::Result<Self> {
        let mut contents = Self::default();
        let mut depth = 0_usize;
        let mut memory_bytes = 0_u64;
        let mut globals = 0_u64;
        let mut code = Code::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        contents.import(&import?, problems);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        contents.export(export?.name.name, problems);
                    }
                }
                Payload::MemorySection(section) => {
                    module_bound("memories", section.count(), problems);
                    for memory in section {
                        memory_bytes = memory_bytes.saturating_add(memory?.initial.saturating_mul(64 << 10));
                    }
                }
                Payload::TableSection(section) => {
                    module_bound("tables", section.count(), problems);
                    for table in section {
                        initial_table(table?.ty.initial, problems);
                    }
                }
                Payload::GlobalSection(section) => globals += u64::from(section.count()),
                Payload::CodeSectionEntry(body) => code.count(&body)?,
                _ => {}
            }
        }
        code.check(problems);
        if globals > GLOBALS_MAX {
            problems.push(format!("it has {globals} globals, more than {GLOBALS_MAX}: keep what they hold in memory"));
        }
        if memory_bytes > MEMORY_BYTES_MAX {
            problems.push(format!(
                "its memories begin with {memory_bytes} bytes, more than the {MEMORY_BYTES_MAX} that any asset may have: \
                 build it with a smaller initial memory"
            ));
        }
        Ok(contents)
    }

    fn import(&mut self, import: &wasmparser::ComponentImport<'_>, problems: &mut Problems) {
        if self.imports.len() >= INSPECTION_ITEMS_MAX {
            return problems.push(format!("it imports more than {INSPECTION_ITEMS_MAX} things"));
        }
        let is_interface = match import.ty {
            ComponentTypeRef::Instance(_) => true,
            // A type is no right to anything: it names one of an interface that is imported as well.
            ComponentTypeRef::Type(_) => return,
            _ => false,
        };
        self.imports.push(RawImport { name: import.name.name.to_owned(), is_interface });
    }

    fn export(&mut self, name: &str, problems: &mut Problems) {
        if self.exports.len() >= INSPECTION_ITEMS_MAX {
            return problems.push(format!("it exports more than {INSPECTION_ITEMS_MAX} things"));
        }
        self.exports.push(quoted(name));
    }

    /// What every component must export is there and has the types of our package. Other exports are ignored: some
    /// toolchains leave their own.
    fn check_exports(&self, types: TypesRef<'_>, problems: &mut Problems) {
        for (interface, expected) in &PACKAGE.exports {
            let is_it = |name: &&String| unversioned(name) == interface && is_our_version(name);
            let Some(name) = self.exports.iter().find(is_it) else {
                problems.push(format!(
                    "it does not export `{interface}@{VERSION}`: build it against the world `flowstone:asset/asset`"
                ));
                continue;
            };
            let item = types.component_item_for_export(name).map(|item| item.ty);
            let Some(ComponentEntityType::Instance(instance)) = item else {
                problems.push(format!("its export `{name}` is not an interface"));
                continue;
            };
            let found = functions(types, instance);
            for (function, signature) in expected {
                match found.get(function) {
                    Some(found) if found == signature => {}
                    Some(_) => problems.push(other_type("export", name, function)),
                    None => problems.push(format!("its export `{name}` has no function `{function}`")),
                }
            }
        }
    }
}

/// How much there is to compile. Each module is within what the format allows; a compiler can be kept busy for minutes
/// with less.
#[derive(Default)]
struct Code {
    functions: usize,
    largest_bytes: usize,
    most_locals: u64,
    deepest: usize,
}

impl Code {
    fn count(&mut self, body: &wasmparser::FunctionBody<'_>) -> wasmparser::Result<()> {
        self.functions += 1;
        self.largest_bytes = self.largest_bytes.max(body.range().len());
        let mut locals = 0_u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        self.most_locals = self.most_locals.max(locals);
        let mut depth = 0_usize;
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.deepest = self.deepest.max(depth);
        }
        Ok(())
    }

    fn check(&self, problems: &mut Problems) {
        let Self { functions, largest_bytes, most_locals, deepest } = self;
        if *functions > FUNCTIONS_MAX {
            problems.push(format!(
                "it has {functions} functions, more than {FUNCTIONS_MAX}: leave out what it does not use"
            ));
        }
        if *largest_bytes > FUNCTION_BYTES_MAX {
            problems.push(format!(
                "one of its functions has {largest_bytes} bytes of code, more than {FUNCTION_BYTES_MAX}: build it with less \
                 inlining"
            ));
        }
        if *most_locals > LOCALS_MAX {
            problems.push(format!(
                "one of its functions has {most_locals} locals, more than {LOCALS_MAX}: build it with optimisation"
            ));
        }
        if *deepest > NESTING_MAX {
            problems.push(format!(
                "one of its functions has {deepest} blocks within each other, more than {NESTING_MAX}: split it"
            ));
        }
    }
}

fn module_bound(what: &str, count: u32, problems: &mut Problems) {
    if count > PER_MODULE_MAX {
        problems.push(format!("one of its core modules has {count} {what}, more than {PER_MODULE_MAX}"));
    }
}

fn initial_table(elements: u64, problems: &mut Problems) {
    if elements > TABLE_ELEMENTS_MAX as u64 {
        problems.push(format!("one of its tables begins with {elements} elements, more than {TABLE_ELEMENTS_MAX}"));
    }
}

fn other_type(side: &str, interface: &str, function: &str) -> String {
    format!(
        "its {side} `{interface}` has function `{function}` with other types than `flowstone:asset@{VERSION}`: build it \
         against this host's WIT package"
    )
}

/// The version of our package.
const VERSION: &str = "0.1.0";

/// Whether the linker matches this version with ours: any patch of 0.1.
fn is_our_version(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| version.starts_with("0.1."))
}

impl RawImport {
    fn classify(&self, types: TypesRef<'_>, problems: &mut Problems) -> Option<Import> {
        let name = quoted(&self.name);
        let class = self.class();
        let Some(class) = class.filter(|_| self.is_interface) else {
            problems.push(self.unknown());
            return None;
        };
        if class != ImportClass::Baseline {
            self.check_types(types, problems);
        }
        Some(Import { name, class })
    }

    fn class(&self) -> Option<ImportClass> {
        let interface = unversioned(&self.name);
        if WASI_CONFIG.contains(&self.name.as_str()) {
            return Some(ImportClass::Baseline);
        }
        let by_grant = CAPABILITIES.iter().find(|capability| capability.interface() == Some(interface));
        if let Some(capability) = by_grant.filter(|_| is_our_version(&self.name)) {
            return Some(ImportClass::Capability(*capability));
        }
        if PACKAGE.imports.contains_key(interface) && is_our_version(&self.name) {
            return Some(ImportClass::Ours);
        }
        let is_wasi_02 = self.name.split_once('@').is_some_and(|(_, version)| version.starts_with("0.2."));
        if is_wasi_02 && WASI_HTTP.contains(&interface) {
            return Some(ImportClass::Capability(Capability::Http));
        }
        if WASI_KEY_VALUE.contains(&&*self.name) {
            return Some(ImportClass::Capability(Capability::KeyValue));
        }
        (is_wasi_02 && BASELINE.contains(&interface)).then_some(ImportClass::Baseline)
    }

    /// Why this import cannot be given, and what to do.
    fn unknown(&self) -> String {
        let name = quoted(&self.name);
        let interface = unversioned(&self.name);
        if !self.is_interface {
            return format!("it imports `{name}`, which is not an interface: an asset imports interfaces only");
        }
        if interface.starts_with("wasi:") && self.name.contains("@0.3") {
            return format!("it imports `{name}`: this host runs WASI 0.2, build it for wasm32-wasip2");
        }
        if interface.starts_with("wasi:config/") {
            return format!(
                "it imports `{name}`: this host has {}, build it against one of them",
                WASI_CONFIG.join(" and ")
            );
        }
        if interface.starts_with("wasi:keyvalue/") {
            return format!(
                "it imports `{name}`: of wasi:keyvalue this host has store, atomics and batch, in the versions \
                 0.2.0-draft and 0.2.0-draft2; build it against one of these"
            );
        }
        let capability = match interface.split('/').next() {
            Some("wasi:http") => Some("http"),
            Some("wasi:blobstore") => Some("files"),
            _ => None,
        };
        if let Some(capability) = capability {
            return format!(
                "it imports `{name}` (capability {capability}), which this host does not support yet: leave it out of \
                 the world it is built against"
            );
        }
        if PACKAGE.imports.contains_key(interface) {
            return format!("it imports `{name}`: this host has version {VERSION}, build it against that");
        }
        format!("it imports `{name}`, which this host does not know: leave it out, or stub it when building")
    }

    fn check_types(&self, types: TypesRef<'_>, problems: &mut Problems) {
        let item = types.component_item_for_import(&self.name).map(|item| item.ty);
        let (Some(ComponentEntityType::Instance(instance)), Some(ours)) =
            (item, PACKAGE.imports.get(unversioned(&self.name)))
        else {
            return;
        };
        for (function, signature) in functions(types, instance) {
            let name = quoted(&self.name);
            match ours.get(&function) {
                Some(ours) if *ours == signature => {}
                Some(_) => problems.push(other_type("import", &name, &quoted(&function))),
                None => problems.push(format!(
                    "its import `{name}` has function `{}`, which this host's does not have: build it against this \
                     host's WIT package",
                    quoted(&function)
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &[&str]) {
        let problems = inspect(bytes).expect_err("it is bad");
        for expected in expected {
            assert!(problems.iter().any(|problem| problem.0.contains(expected)), "{expected}: {problems:#?}");
        }
        let unexpected = |problem: &&Problem| !expected.iter().any(|expected| problem.0.contains(expected));
        assert_eq!(problems.iter().find(unexpected), None);
    }

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(format!("(component {text})")).unwrap()
    }

    const NO_EXPORTS: [&str; 2] =
        ["does not export `flowstone:asset/definitions@0.1.0`", "does not export `flowstone:asset/materializer@0.1.0`"];

    fn check_component(text: &str, expected: &[&str]) {
        check(&component(text), &[expected, &NO_EXPORTS].concat());
    }

    #[test]
    fn what_is_no_component_is_told_from_what_it_is() {
        check(b"", &["it is empty"]);
        check(b"GIF89a", &["not WebAssembly"]);
        check(b"\0as", &["cut off"]);
        check(b"\0asm\x0d", &["cut off"]);
        check(&wat::parse_str("(module)").unwrap(), &["core module, not a component: build it for wasm32-wasip2"]);
        check(b"\x7fELF\x02\x01\x01", &["already compiled"]);
        check(&vec![0; COMPONENT_BYTES_MAX + 1], &["more than 134217728"]);
    }

    #[test]
    fn a_truncated_component_is_cut_off_wherever_it_is_cut() {
        let whole = component("(core module (memory 1) (func (export \"f\")))");
        for length in 9..whole.len() {
            let problems = inspect(&whole[..length]).expect_err("it is cut off");
            let told = problems.iter().all(|problem| {
                problem.0.contains("cut off") || NO_EXPORTS.iter().any(|missing| problem.0.contains(missing))
            });
            assert!(told, "{length}: {problems:?}");
        }
    }

    #[test]
    fn garbage_is_not_valid() {
        let mut bytes = component("");
        bytes.extend([0x7f, 1, 0]);
        check(&bytes, &["not valid WebAssembly"]);
    }

    #[test]
    fn missing_exports_are_both_named() {
        check_component("", &[]);
    }

    #[test]
    fn unknown_imports_are_all_named_with_what_to_do() {
        check_component(
            r#"(import "wasi:http/incoming-handler@0.2.9" (instance))
               (import "wasi:cli/run@0.3.0" (instance))
               (import "flowstone:asset/log@0.2.0" (instance))
               (import "wasi:config/store@0.2.0" (instance))
               (import "acme:thing/api@1.0.0" (instance))
               (import "f" (func))"#,
            &[
                "capability http",
                "WASI 0.2, build it",
                "has version 0.1.0",
                "this host has wasi:config/store@0.2.0-rc.1 and wasi:config/store@0.2.0-draft",
                "`acme:thing/api@1.0.0`",
                "`f`, which is not",
            ],
        );
    }

    #[test]
    fn async_features_name_the_flag_that_turns_them_off() {
        check_component("(core func (canon backpressure.inc))", &["componentize-qjs --sync"]);
    }

    #[test]
    fn other_features_are_named() {
        check_component("(core module (memory i64 1))", &["a feature that this host does not run: memory64"]);
        check_component("(core module (memory 1 1 shared))", &["threads"]);
        check_component("(core module (type (struct)))", &["gc"]);
        check_component("(core module (tag))", &["exceptions"]);
    }

    #[test]
    fn absurd_memories_and_tables_are_refused() {
        check_component("(core module (memory 40000)) (core module (memory 40000))", &["its memories begin with"]);
        check_component("(core module (table 100001 funcref))", &["one of its tables begins with 100001"]);
        check_component("(core module (memory 1) (memory 1) (memory 1))", &["3 memories"]);
    }

    #[test]
    fn more_code_than_a_compiler_should_have_to_read_is_refused() {
        let locals = |count: u64| format!("(core module (func {}))", "(local i32)".repeat(count as usize));
        check_component(&locals(LOCALS_MAX), &[]);
        check_component(&locals(LOCALS_MAX + 1), &["10001 locals, more than 10000"]);
        let code = |bytes: usize| format!("(core module (func {}))", "nop ".repeat(bytes));
        check_component(&code(FUNCTION_BYTES_MAX), &["bytes of code, more than 2097152"]);
        check_component(&code(FUNCTION_BYTES_MAX - 100), &[]);
        let half = "(func)".repeat(FUNCTIONS_MAX / 2);
        check_component(&format!("(core module {half}) (core module {half})"), &[]);
        check_component(&format!("(core module {half}) (core module {half} (func))"), &["100001 functions"]);
        let globals = |count: u64| "(global i32 (i32.const 0))".repeat(count as usize);
        let (half, more) = (globals(GLOBALS_MAX / 2), globals(GLOBALS_MAX / 2 + 1));
        check_component(&format!("(core module {half}) (core module {half})"), &[]);
        check_component(&format!("(core module {half}) (core module {more})"), &["100001 globals, more than 100000"]);
        let nested = |depth: usize| format!("(core module (func {} {}))", "block ".repeat(depth), "end ".repeat(depth));
        check_component(&nested(NESTING_MAX), &[]);
        check_component(&nested(NESTING_MAX + 1), &["5001 blocks within each other"]);
    }

    #[test]
    fn functions_with_other_types_are_refused() {
        check_component(
            r#"(import "flowstone:asset/context@0.1.0" (instance (export "current" (func (result u32)))))
               (import "flowstone:asset/log@0.1.0" (instance (export "shout" (func (param "x" string)))))"#,
            &["`current` with other types", "`shout`, which this host's does not have"],
        );
    }

    #[test]
    fn a_type_without_end_is_not_written_out() {
        // Each type holds the one before it twice: a small binary, and a text of two to the 17th parts.
        let mut types = String::from("(type $t0 (tuple u8 u8))");
        for n in 1..17 {
            types += &format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1);
        }
        let text = format!(
            r#"(import "flowstone:asset/context@0.1.0" (instance {types} (export "current" (func (result $t16)))))"#
        );
        check_component(&text, &["`current` with other types"]);
    }

    #[test]
    fn names_in_messages_cannot_steer_a_terminal() {
        let unknown = RawImport { name: "a\u{1b}[2J".into(), is_interface: true }.unknown();
        assert!(!unknown.contains('\u{1b}'), "{unknown}");
    }
}
