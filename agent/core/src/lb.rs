//! Addresses of Services of type LoadBalancer: from which pool each gets them, and which node announces them.
//!
//! Pure: pools and Services go in, addresses come out. Must not know: who writes them, how an address is announced.

pub mod announce;
pub mod assign;
pub mod pools;

pub use announce::announcer;
pub use assign::{Assignment, LbService, assign};
pub use pools::{Pool, PoolSpec};

/// The class of Services that are meant for us.
pub const CLASS: &str = "pagurus.dev/l2";
/// Annotation: addresses that are asked for, with commas between them.
pub const REQUESTED: &str = "service.pagurus.dev/load-balancer-ips";
/// Annotation: Services of a namespace with the same value may have one address together, if no port is in two of them.
pub const SHARED: &str = "service.pagurus.dev/load-balancer-sharing-key";
