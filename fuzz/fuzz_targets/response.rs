//! Feeds `flowstone_fuzz::response` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flowstone_fuzz::response::check(input));
