//! OUT: runs plans. Retry and back-off live here only.

pub mod probes;

pub mod cgroups;
pub mod dataplane;
pub mod delivery;
pub mod devices;
pub mod log_rotation;
pub mod network;
pub mod pods;
pub mod services;
pub mod volumes;
