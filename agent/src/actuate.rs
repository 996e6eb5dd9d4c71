//! OUT: runs plans. Retry and back-off live here only.

pub mod probes;

pub mod cgroups;
pub mod pods;
pub mod volumes;
pub mod dataplane;
pub mod network;
pub mod services;
