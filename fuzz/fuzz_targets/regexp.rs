//! Fuzzes regexps (CEL): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("regexp"), |data: &[u8]| pagurus_fuzz::run(data));
