//! The CNI plugin and pod network wiring.
//!
//! The plugin binary is thin: it hands the runtime's command to the agent over a unix socket. The agent holds a
//! [`Network`] and carries commands out with it. Invariant: ADD is undone by DEL, and both can be repeated. Must not
//! know: the Kubernetes API, BPF.

pub mod client;
pub mod commands;
pub mod ipam;
pub mod loopback;
pub mod netlink;
pub mod netns;
pub mod overlay;
pub mod request;
pub mod routes;
pub mod spec;
pub mod sysctl;
pub mod veth;

pub use commands::Network;
