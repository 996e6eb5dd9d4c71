//! The agent's decisions: same input, same plan; no I/O.

pub mod addr;
pub mod conntrack;
pub mod devices;
pub mod dns;
pub mod hash;
pub mod lb;
pub mod names;
pub mod node;
pub mod node_config;
pub mod pods;
pub mod services;
pub mod trace;
pub mod volumes;
