//! Fuzzes schedules (CEL): see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("schedule"), |data: &[u8]| pagurus_fuzz::run(data));
