//! Fuzzes label selectors: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("label_selector"), |data: &[u8]| pagurus_fuzz::run(data));
