//! Addresses of pods: taken from the node's ranges, kept on disk until given back.
//!
//! Must not know: how a pod is wired.

pub mod host_port;
pub mod range;
pub mod store;

pub use host_port::HostPort;
pub use store::{Attachment, Key, PodName, Store};
