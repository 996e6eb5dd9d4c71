//! OUT: runs plans. Retry and back-off live here only.

pub mod probes;

pub mod cgroups;
pub mod log_rotation;
pub mod pods;
pub mod volumes;
pub mod dataplane;
pub mod network;
pub mod services;
