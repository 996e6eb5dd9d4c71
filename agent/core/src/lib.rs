//! The agent's decisions: same input, same plan; no I/O.

pub mod addr;
pub mod node;
pub mod services;
pub mod names;
pub mod pods;
pub mod volumes;
