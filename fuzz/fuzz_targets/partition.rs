//! Feeds `flowstone_fuzz::partition` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flowstone_fuzz::partition::check(input));
