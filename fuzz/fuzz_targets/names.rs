//! Fuzzes names, addresses and networks: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("names"), |data: &[u8]| pagurus_fuzz::run(data));
