//! Feeds `flowstone_fuzz::upload` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flowstone_fuzz::upload::check(input));
