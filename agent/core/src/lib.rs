//! The agent's decisions: same input, same plan; no I/O.

pub mod addr;
pub mod services;
