//! Fuzzes server-side apply: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("apply"), |data: &[u8]| pagurus_fuzz::run(data));
