//! Indices of the per-CPU counters.
//!
//! Must not know: who shows them.

/// TCP connects sent to a backend.
pub const COUNTER_CONNECT_TCP: u32 = 0;
/// UDP connects sent to a backend.
pub const COUNTER_CONNECT_UDP: u32 = 1;
/// Datagrams of unconnected sockets sent to a backend.
pub const COUNTER_SEND_UDP: u32 = 2;
/// Datagrams received whose source was turned back into the Service's address.
pub const COUNTER_REVERSE_UDP: u32 = 3;
/// Answers to `getpeername` turned back into the Service's address.
pub const COUNTER_PEERNAME: u32 = 4;
/// Connects and datagrams refused because the Service has no endpoint.
pub const COUNTER_NO_BACKEND: u32 = 5;
/// Reverse or flow entries that could not be written.
pub const COUNTER_TABLE_FULL: u32 = 6;
/// How many counters there are.
pub const COUNTERS: u32 = 7;

/// Name of each counter, by index.
pub const COUNTER_NAMES: [&str; COUNTERS as usize] =
    ["connect_tcp", "connect_udp", "send_udp", "reverse_udp", "peername", "no_backend", "table_full"];
