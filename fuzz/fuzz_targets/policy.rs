//! Feeds `flowstone_fuzz::policy` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flowstone_fuzz::policy::check(input));
