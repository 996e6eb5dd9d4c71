//! Services: frontends, slots, backends, and what a socket remembers of them.
//!
//! Must not know: how backends are chosen or in which order maps are written.

use crate::{Address, Port};

/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = 132;

/// [`ServiceValue::flags`]: connections of one client go to one backend (`affinity_seconds`).
pub const SERVICE_AFFINITY: u32 = 1 << 0;

/// Flag in the `NODES` map: the address belongs to this node.
pub const NODE_ADDRESS_LOCAL: u32 = 1 << 0;

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
    /// 0: every client; other values are free for traffic policies.
    pub scope: u8,
}

/// What is behind a [`ServiceKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceValue {
    /// Names the slots: several keys (ClusterIP, NodePort) may share one id.
    pub id: u32,
    /// Slots 0..count are filled. 0: connects are refused at once.
    pub count: u32,
    /// `SERVICE_*`.
    pub flags: u32,
    /// How long a client stays with its backend, if [`SERVICE_AFFINITY`].
    pub affinity_seconds: u32,
}

/// One place of a Service's list of backends; the map's value is the backend's id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// [`ServiceValue::id`].
    pub service: u32,
    /// 0..count.
    pub slot: u32,
}

/// Where a connection really goes.
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
    /// Free for backend states.
    pub flags: u32,
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
    /// [`ServiceValue::id`] at that time.
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

/// The backend chosen for a [`FlowKey`]; valid while the slot still holds that backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowValue {
    /// [`ServiceValue::id`].
    pub service: u32,
    /// Slot the backend was found in.
    pub slot: u32,
    /// The backend's id.
    pub backend: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A client and a Service that wants it to stay with one backend ([`SERVICE_AFFINITY`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// The kernel's cookie of the client's network namespace: every pod has one, and so has the node itself.
    pub client: u64,
    /// [`ServiceValue::id`].
    pub service: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The backend a [`ClientKey`] was given last; valid while a slot of the Service still holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientValue {
    /// When, in nanoseconds since the machine was started.
    pub last: u64,
    /// The backend's id.
    pub backend: u32,
    /// Slot the backend was found in.
    pub slot: u32,
}

const _: () = assert!(size_of::<ClientKey>() == 16);
const _: () = assert!(size_of::<ClientValue>() == 16);
const _: () = assert!(size_of::<ServiceKey>() == 20);
const _: () = assert!(size_of::<ServiceValue>() == 16);
const _: () = assert!(size_of::<SlotKey>() == 8);
const _: () = assert!(size_of::<Backend>() == 24);
const _: () = assert!(size_of::<ReverseKey>() == 32);
const _: () = assert!(size_of::<ReverseValue>() == 24);
const _: () = assert!(size_of::<FlowKey>() == 32);
const _: () = assert!(size_of::<FlowValue>() == 16);

/// The types may be keys and values of maps: integers only, no padding (asserted above).
#[cfg(feature = "user")]
mod pod {
    use super::{
        Backend, ClientKey, ClientValue, FlowKey, FlowValue, ReverseKey, ReverseValue, ServiceKey,
        ServiceValue, SlotKey,
    };
    use crate::Address;

    // SAFETY: `repr(C)`, every byte belongs to an integer field, every bit pattern is a value.
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SlotKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Backend {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ReverseKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ReverseValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClientKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ClientValue {}
}
