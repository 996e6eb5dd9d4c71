//! Fuzzes merge patches (RFC 7386): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("merge_patch"), |data: &[u8]| pagurus_fuzz::run(data));
