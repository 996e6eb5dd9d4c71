//! What programs tell user space of single packets, and how often they tell what.
//!
//! Must not know: who reads it.

use crate::FlowTuple;

/// A packet that was dropped or refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// Nanoseconds since the machine was started.
    pub time: u64,
    /// The packet's flow, as it came.
    pub tuple: FlowTuple,
    /// `DROP_*`.
    pub reason: u32,
    /// The device it came from.
    pub ifindex: u32,
    /// [`ServiceValue::service`](crate::ServiceValue::service), or 0.
    pub service: u32,
    /// Length of the packet in bytes.
    pub length: u32,
}

/// No endpoint: refused.
pub const DROP_NO_ENDPOINT: u32 = 0;
/// A `Local` policy and no endpoint on this node.
pub const DROP_NO_LOCAL_ENDPOINT: u32 = 1;
/// The client is not in `loadBalancerSourceRanges`.
pub const DROP_SOURCE_RANGE: u32 = 2;
/// No free port for a connection whose source must be replaced.
pub const DROP_NO_NAT_PORT: u32 = 3;
/// The table of connections is full, and the packet cannot go on without an entry.
pub const DROP_CONNTRACK_FULL: u32 = 4;
/// A fragment whose first one was not seen.
pub const DROP_FRAGMENT: u32 = 5;
/// The packet cannot be understood: its headers say more than there is.
pub const DROP_MALFORMED: u32 = 6;
/// The connection's backend is gone.
pub const DROP_BACKEND_GONE: u32 = 7;
/// The kernel knows no way to the backend.
pub const DROP_NO_ROUTE: u32 = 8;
/// The packet could not be rewritten.
pub const DROP_REWRITE: u32 = 9;
/// Its time to live was used up.
pub const DROP_TTL: u32 = 10;
/// Too long for the way to the backend's node; the sender was told.
pub const DROP_TOO_LONG: u32 = 11;
/// The middle of a connection of which nothing is known here, though nothing is to be done with it without that.
pub const DROP_UNKNOWN_CONNECTION: u32 = 12;
/// How many reasons there are.
pub const DROP_REASONS: u32 = 13;

/// Name of each reason, by number.
pub const DROP_NAMES: [&str; DROP_REASONS as usize] = [
    "no_endpoint",
    "no_local_endpoint",
    "source_range",
    "no_nat_port",
    "conntrack_full",
    "fragment",
    "malformed",
    "backend_gone",
    "no_route",
    "rewrite",
    "ttl",
    "too_long",
    "unknown_connection",
];

const _: () = assert!(size_of::<DropEvent>() == 64);
