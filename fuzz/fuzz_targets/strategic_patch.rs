//! Fuzzes strategic merge patches: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("strategic_patch"), |data: &[u8]| pagurus_fuzz::run(data));
