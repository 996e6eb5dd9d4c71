//! Fuzzes YAML documents: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("yaml"), |data: &[u8]| pagurus_fuzz::run(data));
