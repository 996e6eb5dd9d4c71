//! Services: frontends, the flat table of backends' ids, backends, and what a socket or a client remembers of them.
//!
//! Must not know: how backends are chosen or in which order maps are written.

use crate::{Address, Port};

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// IP protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = 132;

/// [`ServiceValue::flags`]: connections of one client go to one endpoint ([`ServiceValue::affinity_seconds`]).
pub const SERVICE_AFFINITY: u32 = 1 << 0;
/// [`ServiceValue::flags`]: only clients in `SOURCE_RANGES` may use this frontend.
pub const SERVICE_SOURCE_RANGES: u32 = 1 << 1;
/// [`ServiceValue::flags`]: `externalTrafficPolicy: Local`: from outside only endpoints of this node, never with another source
/// address; without one packets are dropped and not refused.
pub const SERVICE_OUTSIDE_LOCAL: u32 = 1 << 2;
/// [`ServiceValue::flags`]: `internalTrafficPolicy: Local` for this frontend: without a local endpoint packets are dropped.
pub const SERVICE_INSIDE_LOCAL: u32 = 1 << 3;
/// [`ServiceValue::flags`]: a NodePort, LoadBalancer or external address: meant to be reached from outside.
pub const SERVICE_EXTERNAL: u32 = 1 << 4;
/// [`ServiceValue::flags`]: endpoints of other nodes answer the client themselves (direct server return).
pub const SERVICE_DSR: u32 = 1 << 5;
/// [`ServiceValue::flags`]: packets from outside choose at random instead of by the Maglev table.
pub const SERVICE_RANDOM: u32 = 1 << 6;
/// [`ServiceValue::flags`]: there are endpoints somewhere, though this frontend may use none of them (a `Local` policy): drop, do
/// not refuse.
pub const SERVICE_HAS_ENDPOINTS: u32 = 1 << 7;
/// [`ServiceValue::flags`]: a hostPort: the frontend of one pod of this node, under each of the node's own addresses.
pub const SERVICE_HOST_PORT: u32 = 1 << 8;

/// Flag in the `NODES` map: the address belongs to this node.
pub const NODE_ADDRESS_LOCAL: u32 = 1 << 0;
/// Flag in the `NODES` map: NodePorts are reached at this address.
pub const NODE_ADDRESS_NODE_PORTS: u32 = 1 << 1;

/// What a client connects to. For NodePorts the address is [`Address::ANY_V4`] or [`Address::ANY_V6`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The Service's address.
    pub address: Address,
    /// The Service's port.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
}

/// A range of `SLOTS`: places `first..first + count`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The first place.
    pub first: u32,
    /// How many places.
    pub count: u32,
}

/// What is behind a [`ServiceKey`]. Written whole: a program sees the old or the new value. The extents it names are complete
/// before it is written and stay as they are until some time after it was replaced.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceValue {
    /// Number of the Service: the same for all frontends and ports of one Service. Names it in statistics, events, source ranges
    /// and client affinity.
    pub service: u32,
    /// `SERVICE_*`.
    pub flags: u32,
    /// How long a client stays with its endpoint, if [`SERVICE_AFFINITY`].
    pub affinity_seconds: u32,
    /// Another number each time anything of this value or of its extents becomes different, from 1 on.
    pub generation: u32,
    /// Backends for clients in the cluster (pods of this node and the node itself), ordered by address and port. Empty: refused.
    pub inside: Extent,
    /// Backends for everybody else, ordered by address and port.
    pub outside: Extent,
    /// Maglev table over `outside`; empty where nobody comes from outside.
    pub maglev: Extent,
}

/// Where a connection really goes; place `id` of `BACKENDS`. Zeros: there is no such backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's address.
    pub address: Address,
    /// The endpoint's port.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
    /// `BACKEND_*`.
    pub flags: u32,
}

/// [`Backend::flags`]: the endpoint runs on this node.
pub const BACKEND_LOCAL: u32 = 1 << 0;
/// [`Backend::flags`]: takes no new connections; those it has go on.
pub const BACKEND_DRAINING: u32 = 1 << 1;

/// Key of `SOURCE_RANGES` behind the length of its prefix (in bits, counted from `service` on: 32 and more).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceRange {
    /// [`ServiceValue::service`], in network byte order because prefixes are counted in bits.
    pub service: u32,
    /// The client's address.
    pub address: Address,
}

/// A socket and the backend it talks to; finds the Service's address it believes to talk to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseKey {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The backend's address.
    pub address: Address,
    /// The backend's port.
    pub port: Port,
    /// Always 0.
    pub reserved: u16,
    /// IP protocol number.
    pub protocol: u32,
}

/// The Service's address as the socket was given it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseValue {
    /// The Service's address.
    pub address: Address,
    /// The Service's port.
    pub port: Port,
    /// Always 0.
    pub reserved: u16,
    /// [`ServiceValue::service`] at that time.
    pub service: u32,
}

/// An unconnected UDP socket and the Service it sends to: its datagrams stay with one backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The kernel's socket cookie.
    pub cookie: u64,
    /// The Service's address.
    pub address: Address,
    /// The Service's port.
    pub port: Port,
    /// Always 0.
    pub reserved: [u16; 3],
}

/// The backend chosen for a [`FlowKey`]; good while the Service is of the same generation, or still has this backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowValue {
    /// [`ServiceValue::service`].
    pub service: u32,
    /// [`ServiceValue::generation`] when the backend was last looked for among the Service's.
    pub generation: u32,
    /// The backend's address.
    pub address: Address,
    /// The backend's port.
    pub port: Port,
    /// Always 0.
    pub reserved: [u16; 3],
}

/// A client and a Service that wants it to stay with one endpoint ([`SERVICE_AFFINITY`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// The client's address; for sockets of this node's pods [`Address::of_namespace`] of their network namespace.
    pub client: Address,
    /// [`ServiceValue::service`].
    pub service: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The endpoint that a [`ClientKey`] was given last, whichever port of the Service it asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientValue {
    /// When, in nanoseconds since the machine was started.
    pub last: u64,
    /// The endpoint's address.
    pub address: Address,
}

/// Counts of one Service (place [`ServiceValue::service`] of `SERVICE_STATS`), added to atomically at new connections only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Connections, and flows of datagrams.
    pub connections: u64,
    /// Refused: there is no endpoint.
    pub refused: u64,
    /// Dropped: not in the source ranges, or no local endpoint where only those may be used.
    pub dropped: u64,
}

const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<ServiceValue>() == 40);
const _: () = assert!(size_of::<Backend>() == 24);
const _: () = assert!(size_of::<SourceRange>() == 20);
const _: () = assert!(size_of::<ReverseKey>() == 32);
const _: () = assert!(size_of::<ReverseValue>() == 24);
const _: () = assert!(size_of::<FlowKey>() == 32);
const _: () = assert!(size_of::<FlowValue>() == 32);
const _: () = assert!(size_of::<ClientKey>() == 24);
const _: () = assert!(size_of::<ClientValue>() == 24);
const _: () = assert!(size_of::<ServiceStats>() == 24);
