//! Fuzzes resource quantities: see `controlplane/invariants`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pagurus_fuzz::begin("quantity"), |data: &[u8]| pagurus_fuzz::run(data));
