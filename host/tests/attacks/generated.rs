//! Uploads that are too large, too many or too damaged to be written as text: pathological modules, bombs of types,
//! bytes that were cut or changed.
//!
//! A pathological module is appended to a component that is honest otherwise, so that nothing else is a reason to refuse
//! it. The encodings are the binary format's, written by hand: a library would refuse to write most of them.

use crate::attack::{Attack, honest};

/// All of them.
pub fn attacks() -> Vec<Attack> {
    [features(), shapes(), compiled(), instances(), types(), damaged()].into_iter().flatten().collect()
}

/// An attack by one upload.
fn refused(name: &str, tries: &str, says: &str, make: impl Fn() -> Vec<u8> + 'static) -> Attack {
    Attack::refused(name, tries, says, move || vec![make()])
}

/// What this host does not run is refused by name, not by the compiler.
fn features() -> Vec<Attack> {
    let feature = |name: &str, tries: &str, says: &str, module: &'static str| {
        refused(&format!("uploads/{name}"), tries, says, move || with_module(&wat(module)))
    };
    vec![
        feature("threads", "Shares a memory between threads.", "threads", "(module (memory 1 1 shared))"),
        feature("memory64", "Has a memory of 2^48 pages.", "memory", "(module (memory i64 0x1000000000000))"),
        feature(
            "garbage-collection",
            "Allocates where the host's collector would have to look.",
            "gc",
            "(module (type (struct)))",
        ),
        feature("exceptions", "Throws exceptions.", "exceptions", "(module (tag))"),
        refused("uploads/async", "Counts on the host to schedule it.", "componentize-qjs --sync", || {
            wat("(component (core func (canon backpressure.inc)))")
        }),
    ]
}

/// What is no component, or says that it is more than it is.
fn shapes() -> Vec<Attack> {
    vec![
        refused("uploads/nothing", "Uploads nothing.", "it is empty", Vec::new),
        refused(
            "uploads/machine-code",
            "Uploads compiled code, to have it run without being compiled here.",
            "already compiled",
            || {
                let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
                elf.resize(4096, 0x90);
                elf
            },
        ),
        refused("uploads/core-module", "Uploads a core module.", "a core module, not a component", || wat("(module)")),
        refused("uploads/too-large", "Uploads more bytes than a component may have.", "more than 134217728", || {
            vec![0; (128 << 20) + 1]
        })
        .host(160 << 20),
        refused("uploads/section-that-lies", "Says that a section has four gigabytes.", "cut off", || {
            [&honest()[..], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]].concat()
        }),
        refused("uploads/count-that-lies", "Says that a list has four billion elements.", "not valid", || {
            with_module(&module(&[section(1, &[0xff, 0xff, 0xff, 0xff, 0x0f])]))
        }),
        refused(
            "uploads/number-without-end",
            "Writes a length in more bytes than a number may have.",
            "not valid",
            || with_module(&module(&[[vec![1], vec![0x80; 1000]].concat()])),
        ),
        refused("uploads/imports-without-end", "Imports 100,000 interfaces.", "count exceeds limit", || {
            // Each is an instance of the type that is empty.
            let import = |n: u32| [&[0][..], &name(n), &[5, 0]].concat();
            let imports: Vec<u8> = (0..100_000).flat_map(import).collect();
            [&COMPONENT[..], &section(7, &[1, 0x42, 0]), &section(10, &[number(100_000), imports].concat())].concat()
        }),
        refused("uploads/exports-without-end", "Exports 100,000 interfaces.", "count exceeds limit", || {
            let export = |n: u32| [&[0][..], &name(n), &[5, 0, 0]].concat();
            let exports: Vec<u8> = (0..100_000).flat_map(export).collect();
            [&COMPONENT[..], &section(5, &[1, 1, 0]), &section(11, &[number(100_000), exports].concat())].concat()
        }),
        refused("uploads/long-name", "Imports an interface whose name has 90 KB.", "it imports", || {
            wat(&format!("(component (import \"a:b/{}\" (instance)))", "x".repeat(90_000)))
        }),
        refused(
            "uploads/unknown-import",
            "Imports an interface of the host's machine that no host has.",
            "does not know",
            || wat("(component (import \"linux:kernel/syscall@6.0.0\" (instance)))"),
        ),
        refused(
            "uploads/our-functions-with-other-types",
            "Imports a function of ours with types that would read other memory.",
            "other types",
            || {
                wat(
                    r#"(component (import "flowstone:asset/output@0.1.0" (instance (export "write" (func (param "bytes" u32))))))"#,
                )
            },
        ),
    ]
}

/// Modules that the compiler could be made to take any time and memory by.
fn compiled() -> Vec<Attack> {
    let compiled = |name: &str, tries: &str, make: fn() -> Vec<u8>| {
        refused(&format!("compiler/{name}"), tries, "", move || with_module(&make())).ends("succeeded").within(60)
    };
    vec![
        refused(
            "compiler/function-of-seven-megabytes",
            "Has one function of seven megabytes.",
            "bytes of code, more than",
            || with_module(&arithmetic(7_000_000)),
        ),
        compiled(
            "function-of-two-megabytes",
            "Has one function that is as large as may be, each step of which needs the one before.",
            || arithmetic(2_000_000),
        ),
        refused(
            "compiler/fifty-thousand-locals",
            "Has a function of 50,000 locals.",
            "50000 locals, more than",
            || with_module(&locals(50_000)),
        ),
        compiled(
            "ten-thousand-locals",
            "Has a function of as many locals as may be, each read and written in a loop.",
            || locals(10_000),
        ),
        refused("compiler/million-functions", "Has a million functions.", "functions, more than", || {
            with_module(&functions(1_000_000))
        }),
        refused(
            "compiler/million-nested-blocks",
            "Has a function of a million blocks within each other.",
            "bytes of code, more than",
            || with_module(&nested(1_000_000)),
        ),
        refused(
            "compiler/nested-blocks",
            "Has a function of 600,000 blocks within each other.",
            "600000 blocks within each other, more than",
            || with_module(&nested(600_000)),
        ),
        compiled(
            "five-thousand-nested-blocks",
            "Has a function of as many blocks within each other as may be.",
            || nested(5_000),
        ),
        compiled(
            "nested-branches",
            "Has 5,000 conditions within each other, over a hundred locals that each of them changes.",
            || {
                let mut body = Vec::new();
                for n in 0..5_000_u32 {
                    body.extend([0x20, 0x00, 0x04, 0x40, 0x20]);
                    body.extend(number(n % 100));
                    body.extend([0x41, 0x01, 0x6a, 0x21]);
                    body.extend(number((n + 1) % 100));
                }
                body.extend(vec![0x0b; 5_000]);
                function(&[(100, I32)], &body)
            },
        ),
        compiled("million-targets", "Has a jump table of a million targets.", || {
            let targets = 1_000_000;
            let mut body = vec![0x02, 0x40, 0x41, 0x00, 0x0e];
            body.extend(number(targets));
            body.extend(vec![0; targets as usize + 1]);
            body.push(0x0b);
            function(&[], &body)
        })
        .ends("refused"),
        compiled("giant-segment", "Has a segment of a hundred megabytes of data.", || {
            let data = [vec![1, 1], number(100 << 20), vec![7; 100 << 20]].concat();
            module(&[section(5, &[1, 0, 1]), section(11, &data)])
        })
        .host(700 << 20),
        compiled("hundred-thousand-segments", "Has 100,000 segments of data.", || {
            let data = [number(100_000), [1, 1, 7].repeat(100_000)].concat();
            module(&[section(5, &[1, 0, 1]), section(11, &data)])
        }),
        compiled("hundred-thousand-elements", "Has 100,000 elements for a table.", || {
            let elements = [vec![1, 1, 0], number(100_000), vec![0; 100_000]].concat();
            module(&[types_of_nothing(), section(3, &[1, 0]), section(9, &elements), section(10, &[1, 2, 0, 0x0b])])
        }),
        refused("compiler/million-globals", "Has a million globals.", "globals, more than", || {
            let globals = [number(1_000_000), [I32, 0, 0x41, 0, 0x0b].repeat(1_000_000)].concat();
            with_module(&module(&[section(6, &globals)]))
        }),
        compiled("hundred-thousand-exports", "Exports 100,000 functions.", || {
            let exports: Vec<u8> =
                (0..100_000).flat_map(|n| [&[6][..], format!("{n:06}").as_bytes(), &[0, 0]].concat()).collect();
            module(&[
                types_of_nothing(),
                section(3, &[1, 0]),
                section(7, &[number(100_000), exports].concat()),
                section(10, &[1, 2, 0, 0x0b]),
            ])
        }),
        compiled("million-names", "Names each of a million locals in its debug information.", || {
            let names: Vec<u8> = (0..1_000_000).flat_map(|n| [number(n), vec![1, b'x']].concat()).collect();
            let names = [number(1), number(0), number(1_000_000), names].concat();
            let custom = [&[4][..], b"name", &section(2, &names)].concat();
            module(&[types_of_nothing(), section(3, &[1, 0]), section(10, &[1, 2, 0, 0x0b]), section(0, &custom)])
        }),
    ]
}

/// A function of about so many bytes that adds to its local, so that each step needs the one before.
fn arithmetic(bytes: usize) -> Vec<u8> {
    let step = [0x20, 0x00, 0x41, 0x01, 0x6a, 0x21, 0x00];
    function(&[(1, I32)], &step.repeat(bytes / step.len()))
}

/// A function that adds each of its locals to the one before, for ever.
fn locals(count: u32) -> Vec<u8> {
    let mut body = vec![0x03, 0x40];
    for local in 0..count - 1 {
        body.push(0x20);
        body.extend(number(local));
        body.push(0x20);
        body.extend(number(local + 1));
        body.extend([0x6a, 0x21]);
        body.extend(number(local));
    }
    body.extend([0x0c, 0x00, 0x0b]);
    function(&[(count, I32)], &body)
}

fn functions(count: usize) -> Vec<u8> {
    let bodies = [number(count as u32), [2, 0, 0x0b].repeat(count)].concat();
    module(&[types_of_nothing(), section(3, &[number(count as u32), vec![0; count]].concat()), section(10, &bodies)])
}

fn nested(blocks: usize) -> Vec<u8> {
    function(&[], &[[0x02, 0x40].repeat(blocks), vec![0x0b; blocks]].concat())
}

/// More of what an attempt may have than it may have.
fn instances() -> Vec<Attack> {
    let many = |name: &str, tries: &str, says: &str, text: &'static str, times: usize| {
        refused(&format!("instances/{name}"), tries, says, move || with_instances(&wat(text), times))
    };
    vec![
        many("too-many", "Makes 1,000 instances of an empty module.", "instances", "(module)", 1_000),
        many(
            "too-many-memories",
            "Makes 20 instances of a module with a memory.",
            "memories",
            "(module (memory 1))",
            20,
        ),
        many(
            "too-many-tables",
            "Makes 60 instances of a module with a table.",
            "tables",
            "(module (table 1 funcref))",
            60,
        ),
        many(
            "memories-together",
            "Makes six instances, each with a memory that is within the limit.",
            "",
            "(module (memory 1000))",
            6,
        )
        .ends("not-described out-of-memory"),
        many(
            "start-functions",
            "Makes a hundred instances, each with a start function that takes a second.",
            "while it was instantiated",
            STARTS,
            100,
        )
        .ends("not-described out-of-fuel")
        .within(20),
    ]
}

const STARTS: &str = "(module (func $start (local $n i32)
  (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100000000)))))
  (start $start))";

/// Types that are small to write and large to hold.
fn types() -> Vec<Attack> {
    let of_context = |types: String, last: usize| {
        wat(&format!(
            r#"(component (import "flowstone:asset/context@0.1.0" (instance {types} (export "current" (func (result $t{last}))))))"#
        ))
    };
    vec![
        refused(
            "types/doubling",
            "Has a type that holds the one before it twice, and so on, thirty times.",
            "",
            move || {
                let types: String = (1..30).map(|n| format!("(type $t{n} (tuple $t{0} $t{0}))", n - 1)).collect();
                of_context(format!("(type $t0 (tuple u8 u8)){types}"), 29)
            },
        ),
        refused("types/nesting", "Has an option of an option of an option, five thousand deep.", "", move || {
            let types: String = (1..5_000).map(|n| format!("(type $t{n} (option $t{}))", n - 1)).collect();
            of_context(format!("(type $t0 (option u8)){types}"), 4_999)
        }),
        refused("types/nested-components", "Has a component in a component, five thousand deep.", "", || {
            let mut size = COMPONENT.len() as u32;
            let mut heads = vec![COMPONENT.to_vec()];
            for _ in 0..5_000 {
                heads.push([&COMPONENT[..], &[4], &number(size)].concat());
                size += heads[heads.len() - 1].len() as u32;
            }
            let inner: Vec<u8> = heads.into_iter().rev().flatten().collect();
            [&honest()[..], &section(4, &inner)].concat()
        })
        .or_contained()
        .within(60)
        .host(700 << 20),
        refused("types/recursive", "Has a type that holds itself.", "gc", || {
            with_module(&wat("(module (rec (type $a (struct (field (ref null $a))))))"))
        }),
        refused("types/million", "Has a million types of functions with a hundred parameters.", "", || {
            let one = [vec![0x60, 100], vec![I32; 100], vec![0]].concat();
            with_module(&module(&[section(1, &[number(1_000_000), one.repeat(1_000_000)].concat())]))
        })
        .ends("succeeded")
        .within(60)
        .host(700 << 20),
        refused("types/wide", "Has a function of ten thousand parameters.", "", || {
            with_module(&module(&[section(1, &[vec![1, 0x60], number(10_000), vec![I32; 10_000], vec![0]].concat())]))
        }),
    ]
}

/// Bytes that something happened to.
fn damaged() -> Vec<Attack> {
    vec![
        Attack::refused("damaged/truncated", "Ends too soon, at each of a hundred places.", "", || {
            let whole = honest();
            (0..100).map(|n| whole[..1 + n * (whole.len() - 2) / 100].to_vec()).collect()
        })
        .within(10),
        Attack::refused("damaged/bit-flipped", "Has one bit changed, at each of two hundred places.", "", || {
            let whole = honest();
            let flipped = |n: usize| {
                let mut bytes = whole.clone();
                bytes[n * (whole.len() - 1) / 199] ^= 1 << (n % 8);
                bytes
            };
            (0..200).map(flipped).collect()
        })
        .or_contained()
        .within(60),
        Attack::refused(
            "damaged/sections-in-another-order",
            "Has its sections in the order of a pack of cards.",
            "",
            || {
                let whole = honest();
                let sections = sections(&whole);
                (1..sections.len())
                    .map(|cut| [&whole[..8], &sections[cut..].concat(), &sections[..cut].concat()].concat())
                    .collect()
            },
        )
        .or_contained()
        .within(20),
        Attack::refused("damaged/one-section-twice", "Has each of its sections twice in turn.", "", || {
            let whole = honest();
            let sections = sections(&whole);
            let twice = |at: usize| [&whole[..8], &sections[..=at].concat(), &sections[at..].concat()].concat();
            (0..sections.len()).map(twice).collect()
        })
        .or_contained()
        .within(20),
    ]
}

const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const I32: u8 = 0x7f;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// LEB128.
fn number(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &number(content.len() as u32), content].concat()
}

fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [&b"\0asm\x01\0\0\0"[..], &sections.concat()].concat()
}

/// The name of an interface, with its length.
fn name(n: u32) -> Vec<u8> {
    let name = format!("a{n}:b/c");
    [number(name.len() as u32), name.into_bytes()].concat()
}

/// One type: a function of nothing to nothing.
fn types_of_nothing() -> Vec<u8> {
    section(1, &[1, 0x60, 0, 0])
}

/// A module of one function with these locals.
fn function(locals: &[(u32, u8)], body: &[u8]) -> Vec<u8> {
    let declared: Vec<u8> = locals.iter().flat_map(|(count, of)| [number(*count), vec![*of]].concat()).collect();
    let code = [number(locals.len() as u32), declared, body.to_vec(), vec![0x0b]].concat();
    module(&[
        types_of_nothing(),
        section(3, &[1, 0]),
        section(10, &[vec![1], number(code.len() as u32), code].concat()),
    ])
}

/// The honest component with a module that nobody instantiates: it is compiled like any other.
fn with_module(module: &[u8]) -> Vec<u8> {
    [&honest()[..], &section(1, module)].concat()
}

/// The honest component with so many instances of a module.
fn with_instances(module: &[u8], times: usize) -> Vec<u8> {
    let honest = honest();
    let index = number(sections(&honest).iter().filter(|section| section[0] == 1).count() as u32);
    let one = [&[0][..], &index, &[0]].concat();
    [&honest[..], &section(1, module), &section(2, &[number(times as u32), one.repeat(times)].concat())].concat()
}

/// The sections of a component, each with its head.
fn sections(component: &[u8]) -> Vec<&[u8]> {
    let mut rest = &component[8..];
    let mut sections = Vec::new();
    while !rest.is_empty() {
        let (mut length, mut at) = (0, 1);
        loop {
            length |= usize::from(rest[at] & 0x7f) << (7 * (at - 1));
            at += 1;
            if rest[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let (section, after) = rest.split_at(at + length);
        sections.push(section);
        rest = after;
    }
    sections
}
