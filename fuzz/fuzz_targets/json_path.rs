//! Fuzzes json_paths (CEL): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("json_path"), |data: &[u8]| pagurus_fuzz::run(data));
