//! OUT: runs plans. Retry and back-off live here only.

pub mod probes;

pub mod pods;
pub mod volumes;
