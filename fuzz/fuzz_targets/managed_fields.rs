//! Fuzzes field sets and `managedFields`: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("managed_fields"), |data: &[u8]| pagurus_fuzz::run(data));
