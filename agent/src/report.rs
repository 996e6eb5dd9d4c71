//! OUT: tells the API server what is. Compares before it writes; one writer per object.

pub mod dataplane;
pub mod events;
pub mod lease;
pub mod node_status;
pub mod pod_status;
