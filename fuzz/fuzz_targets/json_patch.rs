//! Fuzzes JSON patches (RFC 6902): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("json_patch"), |data: &[u8]| pagurus_fuzz::run(data));
