//! Fuzzes paths and query strings: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("request"), |data: &[u8]| pagurus_fuzz::run(data));
