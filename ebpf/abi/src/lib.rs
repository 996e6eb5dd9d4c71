//! The contract between the BPF programs and user space: every key and value of every map, every counter and
//! every flag.
//!
//! Must not know: BPF helpers, aya's loader, Kubernetes. Invariants: `repr(C)`, only integers (no bool, no enum),
//! no implicit padding, sizes asserted at compile time, byte order fixed by the type. IPv4 addresses travel as
//! v4-mapped IPv6 addresses, so that one code path serves both families.
#![no_std]

mod address;
mod counter;
mod service;

pub use address::{Address, Port};
pub use counter::{
    COUNTER_CONNECT_TCP, COUNTER_CONNECT_UDP, COUNTER_NAMES, COUNTER_NO_BACKEND, COUNTER_PEERNAME,
    COUNTER_RETRY, COUNTER_REVERSE_UDP, COUNTER_SEND_UDP, COUNTER_TABLE_FULL, COUNTERS,
};
pub use service::{
    Backend, ClientKey, ClientValue, FlowKey, FlowValue, NODE_ADDRESS_LOCAL, PROTOCOL_SCTP, PROTOCOL_TCP,
    PROTOCOL_UDP, ReverseKey, ReverseValue, SERVICE_AFFINITY, ServiceKey, ServiceValue, SlotKey,
};

/// Version of the layout of every map here. A change of any type above raises it; pins of another version are
/// never reused.
pub const LAYOUT_VERSION: u32 = 1;

/// Names of the maps, as the programs declare them and as user space looks them up and pins them.
pub mod maps {
    /// [`ServiceKey`](crate::ServiceKey) to [`ServiceValue`](crate::ServiceValue).
    pub const SERVICES: &str = "SERVICES";
    /// [`SlotKey`](crate::SlotKey) to backend id (`u32`).
    pub const SLOTS: &str = "SLOTS";
    /// Backend id (`u32`) to [`Backend`](crate::Backend).
    pub const BACKENDS: &str = "BACKENDS";
    /// [`Address`](crate::Address) of any node to flags (`u32`).
    pub const NODES: &str = "NODES";
    /// [`ReverseKey`](crate::ReverseKey) to [`ReverseValue`](crate::ReverseValue), least recently used out first.
    pub const REVERSE: &str = "REVERSE";
    /// [`FlowKey`](crate::FlowKey) to [`FlowValue`](crate::FlowValue), least recently used out first.
    pub const FLOWS: &str = "FLOWS";
    /// [`ClientKey`](crate::ClientKey) to [`ClientValue`](crate::ClientValue), least recently used out first.
    pub const CLIENTS: &str = "CLIENTS";
    /// Counter index to `u64`, one per CPU.
    pub const COUNTERS: &str = "COUNTERS";
}

/// Names of the programs, as the object file has them.
pub mod programs {
    /// Every socket program: name in the object, the kernel's hook of the same name.
    pub const SOCKET: [&str; 8] = [
        "connect4",
        "connect6",
        "sendmsg4",
        "sendmsg6",
        "recvmsg4",
        "recvmsg6",
        "getpeername4",
        "getpeername6",
    ];
    /// Read-only global: the first port of the NodePort range (host byte order, `u16`).
    pub const NODE_PORT_FIRST: &str = "NODE_PORT_FIRST";
    /// Read-only global: the last port of the NodePort range (host byte order, `u16`).
    pub const NODE_PORT_LAST: &str = "NODE_PORT_LAST";
}
