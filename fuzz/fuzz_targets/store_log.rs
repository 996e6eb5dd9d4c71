//! Fuzzes the store's log files: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("store_log"), |data: &[u8]| pagurus_fuzz::run(data));
