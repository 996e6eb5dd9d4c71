//! The agent's decisions: same input, same plan; no I/O.

pub mod addr;
pub mod devices;
pub mod dns;
pub mod names;
pub mod node;
pub mod pods;
pub mod services;
pub mod volumes;
