//! Flows of packets: connection tracking with the translation of addresses in it, fragments, the pods of this node.
//!
//! Must not know: when an entry is made, how long it lives.

use crate::{Address, Port};

/// A flow in one direction, as its packets look where they enter this node. For ICMP echo both ports are the identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowTuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// What becomes of the packets of a [`FlowTuple`]. Each connection has two entries, one for each direction; the key of the other is
/// [`FlowState::other`] of this one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowState {
    /// The new source address.
    pub source: Address,
    /// The new destination address.
    pub destination: Address,
    /// The new source port.
    pub source_port: Port,
    /// The new destination port.
    pub destination_port: Port,
    /// When the last packet came, in seconds since the machine was started.
    pub last: u32,
    /// `FLOW_*`.
    pub flags: u32,
    /// The backend's id; 0 if the flow goes through no Service.
    pub backend: u32,
    /// [`ServiceValue::service`](crate::ServiceValue::service); 0 if the flow goes through none.
    pub service: u32,
    /// When the first packet came, in seconds since the machine was started.
    pub since: u32,
}

/// [`FlowState::flags`]: from the server to the client.
pub const FLOW_REPLY: u32 = 1 << 0;
/// [`FlowState::flags`]: the source was replaced by an address of this node (NodePort to another node, hairpin).
pub const FLOW_SNAT: u32 = 1 << 1;
/// [`FlowState::flags`]: a pod's connection to a place outside the cluster.
pub const FLOW_MASQUERADE: u32 = 1 << 2;
/// [`FlowState::flags`]: handed to the backend's node as it is (direct server return): nothing is rewritten here.
pub const FLOW_DSR: u32 = 1 << 3;
/// [`FlowState::flags`]: came from outside the cluster.
pub const FLOW_OUTSIDE: u32 = 1 << 4;
/// [`FlowState::flags`]: through no Service: only the source port was replaced, because another flow of the client has it to the same
/// place.
pub const FLOW_APART: u32 = 1 << 5;
/// [`FlowState::flags`]: TCP: a packet without SYN was seen in this direction; others: more than one packet was seen.
pub const FLOW_ESTABLISHED: u32 = 1 << 8;
/// [`FlowState::flags`]: TCP FIN or SCTP SHUTDOWN was seen in this direction.
pub const FLOW_FIN: u32 = 1 << 9;
/// [`FlowState::flags`]: TCP RST or SCTP ABORT was seen in this direction.
pub const FLOW_RESET: u32 = 1 << 10;

/// [`FlowState::flags`]: the bits from here on are the low half of the Service's generation at which the backend was chosen, or found
/// to be one of the Service's still.
pub const FLOW_GENERATION: u32 = 16;

impl FlowState {
    /// The low half of the generation of its Service that it was last compared with.
    #[inline(always)]
    pub const fn generation(&self) -> u16 {
        (self.flags >> FLOW_GENERATION) as u16
    }

    /// Notes with which generation of its Service it was compared.
    #[inline(always)]
    pub const fn set_generation(&mut self, generation: u32) {
        self.flags = self.flags & ((1 << FLOW_GENERATION) - 1) | generation << FLOW_GENERATION;
    }

    /// The key of the entry of the other direction, for packets of this protocol.
    #[inline(always)]
    pub const fn other(&self, protocol: u8) -> FlowTuple {
        FlowTuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol,
            reserved: [0; 3],
        }
    }
}

/// A datagram that came in fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The datagram's identification, in network byte order (IPv4: 16 bits).
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// The ports of a fragmented datagram: only its first fragment has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentValue {
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
}

/// A pod of this node: how packets get to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host's end of the pod's veth pair.
    pub ifindex: u32,
    /// Always 0.
    pub flags: u32,
    /// The pod's hardware address.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// Always 0.
    pub reserved: u32,
}

/// An address that this node announces at one of its devices.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnnouncedKey {
    /// The address.
    pub address: Address,
    /// The device at which it is asked for.
    pub ifindex: u32,
}

/// How an address is announced.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Announced {
    /// The device's hardware address.
    pub mac: [u8; 6],
    /// Always 0.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<AnnouncedKey>() == 20);
const _: () = assert!(size_of::<Announced>() == 8);
const _: () = assert!(size_of::<FlowTuple>() == 40);
const _: () = assert!(size_of::<FlowState>() == 56);
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentValue>() == 4);
const _: () = assert!(size_of::<Endpoint>() == 24);
