//! Feeds `flowstone_fuzz::manifest` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flowstone_fuzz::manifest::check(input));
