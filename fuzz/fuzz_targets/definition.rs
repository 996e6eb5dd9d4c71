//! Fuzzes definitions (CEL): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("definition"), |data: &[u8]| pagurus_fuzz::run(data));
