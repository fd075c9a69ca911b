//! From bytes to a component that runs: compiling in a child, the compiled cache, and `describe`.

mod support;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use flowstone::{
    blob::{BlobError, Digest},
    engine::{DescribeFailure, Engine, EngineSettings, ImportClass, LoadError, Verdict},
    pipeline::asset::{AssetKind, Capability},
};
use support::{Guest, Host, load, settings};

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_component_is_compiled_once_however_many_ask_for_it() {
    let host = Host::new();
    let bytes = Guest::new("").build();
    let digest = Digest::of(&bytes);
    let asked = AtomicUsize::new(0);
    let load = || {
        host.engine.load("default", digest, || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BlobError>(bytes.clone())
        })
    };
    let (a, b, c) = tokio::join!(load(), load(), load());
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(std::sync::Arc::ptr_eq(&a, &b) && std::sync::Arc::ptr_eq(&b, &c));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_tenant_cannot_tell_by_the_time_what_another_has() {
    let host = Host::new();
    let bytes = Guest::new("").build();
    let digest = Digest::of(&bytes);
    let asked = AtomicUsize::new(0);
    let load = |tenant| {
        host.engine.load(tenant, digest, || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BlobError>(bytes.clone())
        })
    };
    load("a").await.unwrap();
    load("b").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the second compiles it too, and takes as long");
    load("a").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn another_engine_finds_what_was_compiled_and_mends_what_was_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("compiled");
    let bytes = Guest::new("").build();
    load(&Engine::new(settings(cache.clone())).unwrap(), bytes.clone()).await;
    let [compiled] = &files(&cache)[..] else { panic!("{:?}", files(&cache)) };
    let whole = fs::read(compiled).unwrap();

    // Found: its bytes are not asked for.
    let engine = Engine::new(settings(cache.clone())).unwrap();
    engine.load("default", Digest::of(&bytes), || async { panic!("it is compiled already") }).await.unwrap();

    // Truncated, foreign, or rubbish of the right length: compiled anew, from the bytes.
    let rubbish = vec![b'x'; whole.len()];
    let mut other_version = whole.clone();
    let at = whole.windows(10).position(|window| window == b"+flowstone").unwrap();
    other_version[at] = b'-';
    // One bit of the code itself, which nothing but the digest tells.
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &rubbish, &other_version, &altered] {
        fs::remove_file(compiled).unwrap();
        fs::write(compiled, damaged).unwrap();
        load(&Engine::new(settings(cache.clone())).unwrap(), bytes.clone()).await;
        assert_eq!(files(&cache), std::slice::from_ref(compiled));
        assert_eq!(fs::metadata(compiled).unwrap().size(), whole.len() as u64);
        assert!(fs::read(compiled).unwrap() == whole);
    }

    // As another version wrote it.
    fs::remove_file(compiled).unwrap();
    let name = format!("{}-{}", other_version.len(), Digest::of(&other_version));
    fs::write(compiled.with_file_name(name), &other_version).unwrap();
    load(&Engine::new(settings(cache.clone())).unwrap(), bytes.clone()).await;
    assert_eq!(files(&cache), std::slice::from_ref(compiled));
}

#[tokio::test]
async fn what_the_compiler_refuses_is_the_components_fault() {
    let host = Host::new();
    for bytes in [b"\0asm\x0d\0\x01\0rubbish".to_vec(), b"not wasm".to_vec(), vec![]] {
        let digest = Digest::of(&bytes);
        let refused = host.engine.load("default", digest, || async { Ok::<_, BlobError>(bytes) }).await.unwrap_err();
        assert!(refused.is_refused(), "{refused}");
    }
    assert_eq!(files(&host.folder.path().join("compiled")), [] as [PathBuf; 0], "nothing is left");
}

#[tokio::test]
async fn a_component_without_our_exports_is_refused_before_any_attempt() {
    let host = Host::new();
    let bytes = wat::parse_str("(component)").unwrap();
    let refused =
        host.engine.load("default", Digest::of(&bytes), || async { Ok::<_, BlobError>(bytes) }).await.unwrap_err();
    assert!(refused.is_refused() && refused.to_string().contains("flowstone:asset"), "{refused}");
}

#[tokio::test]
async fn bytes_with_another_digest_are_not_compiled() {
    let host = Host::new();
    let bytes = Guest::new("").build();
    let error =
        host.engine.load("default", Digest::of(b"another"), || async { Ok::<_, BlobError>(bytes) }).await.unwrap_err();
    assert!(matches!(error, LoadError::Bytes { source: BlobError::Corrupt { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_failed_load_is_not_remembered() {
    let host = Host::new();
    let bytes = Guest::new("").build();
    let digest = Digest::of(&bytes);
    let missing = host.engine.load("default", digest, || async { Err(BlobError::Missing { digest }) }).await;
    assert!(matches!(missing, Err(LoadError::Bytes { .. })));
    host.engine.load("default", digest, || async { Ok(bytes) }).await.unwrap();
}

#[tokio::test]
async fn a_compiler_that_does_not_work_is_our_fault() {
    let folder = tempfile::tempdir().unwrap();
    for compiler in ["/nonexistent/flowstone", "/bin/false"] {
        let settings = EngineSettings { compiler: compiler.into(), ..settings(folder.path().join("compiled")) };
        let engine = Engine::new(settings).unwrap();
        let bytes = Guest::new("").build();
        let error =
            engine.load("default", Digest::of(&bytes), || async { Ok::<_, BlobError>(bytes) }).await.unwrap_err();
        assert!(matches!(error, LoadError::Compiler { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_component_without_assets_describes_none() {
    let host = Host::new();
    let component = host.load(&Guest::new("")).await;
    assert_eq!(host.engine.describe(&component).await.unwrap(), []);
}

/// One asset, laid out as the canonical ABI lays it out: 68 bytes, of which the name and the media type are not empty.
fn one_asset(repeated: u32) -> Guest {
    let text = |at: u32, from: u32, length: u32| {
        format!(
            "(i32.store (i32.const {at}) (i32.const {from})) (i32.store (i32.const {}) (i32.const {length}))",
            at + 4
        )
    };
    Guest::new("").module("(data (i32.const 4096) \"weathertext/csv\")").describe(&format!(
        "{name} {media_type} {list} (i32.const 2048)",
        name = text(8192, 4096, 7),
        media_type = text(8192 + 8 + 8 + 4 + 24, 4103, 8),
        list = text(2048, 8192, repeated),
    ))
}

#[tokio::test]
async fn a_description_crosses_the_sandbox() {
    let host = Host::new();
    let component = host.load(&one_asset(1)).await;
    let described = host.engine.describe(&component).await.unwrap();
    assert_eq!((described[0].name.as_str(), described[0].media_type.as_str()), ("weather", "text/csv"));
    assert_eq!((described.len(), described[0].kind), (1, AssetKind::Plain));
}

#[tokio::test]
async fn describing_nonsense_is_refused() {
    let host = Host::new();
    // More assets than a component may have, all but the first empty.
    let component = host.load(&one_asset(1_500).memory("(memory (export \"memory\") 20)")).await;
    let failure = host.engine.describe(&component).await.unwrap_err();
    let DescribeFailure::OutOfBounds(problems) = failure else { panic!("{failure}") };
    assert_eq!(problems, ["the component has 1500 assets, more than 1024"]);

    // A list that ends outside the memory, and a kind that does not exist.
    for guest in [one_asset(0x0fff_ffff), one_asset(1).describe("(i32.store8 (i32.const 8208) (i32.const 9)) (i32.store (i32.const 2048) (i32.const 8192)) (i32.store (i32.const 2052) (i32.const 1)) (i32.const 2048)")] {
        let component = host.load(&guest).await;
        let failure = host.engine.describe(&component).await.unwrap_err();
        assert!(matches!(failure, DescribeFailure::Ended { verdict: Verdict::Trapped(_), .. }), "{failure}");
    }
}

#[tokio::test]
async fn describe_has_limits_of_its_own() {
    let host = Host::new();
    let check = async |body: &str, expected: Verdict| {
        let component = host.load(&Guest::new("").describe(body)).await;
        let failure = host.engine.describe(&component).await.unwrap_err();
        assert!(matches!(&failure, DescribeFailure::Ended { verdict, .. } if *verdict == expected), "{failure}");
    };
    check("(loop $again (br $again)) (i32.const 0)", Verdict::OutOfFuel).await;
    let hoard = "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) unreachable";
    check(hoard, Verdict::OutOfMemory).await;
}

#[tokio::test]
async fn describe_is_granted_nothing() {
    let host = Host::new();
    let guest = Guest::new("")
        .import("flowstone:asset/files", "open", "(param i32 i32 i32)")
        .describe("(call $open (i32.const 0) (i32.const 0) (i32.const 2048)) (i32.const 2048)");
    let component = host.load(&guest).await;
    let failure = host.engine.describe(&component).await.unwrap_err();
    assert!(matches!(&failure, DescribeFailure::Ended { verdict: Verdict::Denied, .. }), "{failure}");
}

#[tokio::test]
async fn an_inspection_lists_what_a_component_imports_and_exports() {
    let host = Host::new();
    let bytes = Guest::new("")
        .import("flowstone:asset/files", "open", "(param i32 i32 i32)")
        .import("wasi:random/random", "get-random-u64", "(result i64)")
        .build();
    let inspection = host.engine.inspect(&bytes).unwrap();
    let mut classes: Vec<_> = inspection.imports.iter().map(|import| (import.name.as_str(), import.class)).collect();
    classes.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(
        classes,
        [
            ("flowstone:asset/files@0.1.0", ImportClass::Capability(Capability::Files)),
            ("flowstone:asset/types@0.1.0", ImportClass::Ours),
            ("wasi:random/random@0.2.12", ImportClass::Baseline),
        ]
    );
    assert_eq!(inspection.exports, ["flowstone:asset/definitions@0.1.0", "flowstone:asset/materializer@0.1.0"]);
    assert_eq!((inspection.digest, inspection.size), (Digest::of(&bytes), bytes.len() as u64));
}

#[tokio::test]
async fn concurrent_writers_of_one_component_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("compiled");
    let bytes = Guest::new("").build();
    let engines: Vec<_> = (0..4).map(|_| Engine::new(settings(cache.clone())).unwrap()).collect();
    let loads = engines.iter().map(|engine| load(engine, bytes.clone()));
    futures_of(loads).await;
    assert_eq!(files(&cache).len(), 1);
}

/// Drives futures together, without a crate for it.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

proptest::proptest! {
    #[test]
    fn damaged_components_are_refused_or_read_and_never_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0_u8..), 1..8)
    ) {
        static GOOD: std::sync::LazyLock<(Vec<u8>, Host)> = std::sync::LazyLock::new(|| (one_asset(1).build(), Host::new()));
        let (good, host) = &*GOOD;
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        match host.engine.inspect(&bytes) {
            Ok(inspection) => proptest::prop_assert_eq!(inspection.exports.len(), 2),
            Err(problems) => proptest::prop_assert!(!problems.is_empty()),
        }
    }
}
