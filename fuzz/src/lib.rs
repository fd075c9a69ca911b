//! What strangers can send to FlowStone, and what must hold of all of it: one module for each way in.
//!
//! Each has one function, `check`, which is given any bytes, makes of them what a stranger would send, and panics when
//! the host breaks a promise: it panics itself, outlives a limit, refuses what it accepted, or lets through what an
//! independent reading of the same text does not. The programs in `fuzz_targets` feed them from libFuzzer (scripts/fuzz);
//! the test below, from the seeds.

pub mod manifest;
pub mod partition;
pub mod policy;
pub mod response;
#[cfg(feature = "libfuzzer")]
pub mod upload;

/// The lines of an input, however many are asked for: those that are missing are empty.
fn lines<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut lines = input.split(|byte| *byte == b'\n');
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

/// As text, or not at all.
fn text(line: &[u8]) -> &str {
    std::str::from_utf8(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    fn files(folder: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn every_seed_holds_what_is_promised() {
        each("manifest", super::manifest::check);
        each("partition", super::partition::check);
        each("policy", super::policy::check);
        each("response", super::response::check);
    }

    fn each(target: &str, check: impl Fn(&[u8])) {
        let seeds = files(&format!("seeds/{target}"));
        assert!(seeds.len() > 2, "{target}");
        seeds.iter().for_each(|seed| check(seed));
    }
}
