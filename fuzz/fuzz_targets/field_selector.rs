//! Fuzzes field selectors: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("field_selector"), |data: &[u8]| pagurus_fuzz::run(data));
