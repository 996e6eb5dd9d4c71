//! What `xdp_outside` remembers of the flows it saw within the last seconds, in order that a busy flow costs one cache line.
//!
//! Must not know: how a flow came to be; it is copied from `CONNTRACK` and soon forgotten.

use crate::Address;

/// A flow of IPv4 packets and what becomes of them. Each processor has its own part of `WARM`, so nobody else writes here meanwhile.
/// All of the packet is as it lies on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmFlow {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Source and destination port.
    pub ports: u32,
    /// The new source address.
    pub new_source: u32,
    /// The new destination address.
    pub new_destination: u32,
    /// The new ports.
    pub new_ports: u32,
    /// When this was found, on the clock of flows: its ticks and [`WARM_TAKEN_BACK`]s.
    pub stamp: u32,
    /// Place of the next hop in this processor's part of `HOPS`; [`WARM_LEFT`]: the packets are left to the other programs.
    pub hop: u16,
    /// IP protocol number; 0: nothing is here. Numbers from [`WARM_V6`] on: all of the bucket is a [`WarmV6`].
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
}

/// [`WarmFlow::hop`]: nothing is done with the packets here.
pub const WARM_LEFT: u16 = u16::MAX;

/// A flow of IPv6 packets, in place of the two flows of a bucket. One of its four addresses need not be here: where a source is
/// replaced by the node's own address, that is the new source of one direction, and the destination in the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmV6 {
    /// Source address.
    pub source: Address,
    /// Source and destination port.
    pub ports: u32,
    /// The new ports.
    pub new_ports: u32,
    /// As [`WarmFlow::stamp`].
    pub stamp: u32,
    /// As [`WarmFlow::hop`].
    pub hop: u16,
    /// `WARM_V6_*`.
    pub kind: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The Service's address: the destination, and in [`WARM_V6_REPLY`] the new source.
    pub service: Address,
    /// The new destination address.
    pub new_destination: Address,
}

/// The first [`WarmV6::kind`]; what comes before it is an IPv4 flow's protocol.
pub const WARM_V6: u8 = 0x80;
/// [`WarmV6::kind`]: the addresses stay as they are.
pub const WARM_V6_SAME: u8 = WARM_V6;
/// [`WarmV6::kind`]: the source becomes this node.
pub const WARM_V6_FORWARD: u8 = WARM_V6 + 1;
/// [`WarmV6::kind`]: the destination is this node.
pub const WARM_V6_REPLY: u8 = WARM_V6 + 2;

/// A place of `WARM`: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmBucket {
    /// The flows; the first is the one that came last.
    pub flows: [WarmFlow; 2],
}

/// How many next hops each processor knows: a power of two.
pub const HOPS_PER_CPU: u32 = 256;

/// For at most so many ticks of their clock flows are believed. The clock goes on about four times in a second.
pub const WARM_BELIEVED: u32 = 16;

/// So far the clock of flows is put forward when user space takes something back: no flow is believed that was noted before that. (A
/// processor that sees a flow again only after three days and 4,095 such times would believe it once more.)
pub const WARM_TAKEN_BACK: u32 = 1 << 20;

/// A next hop on the device that its packets came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The next hop's hardware address, then the device's own.
    pub macs: [u16; 6],
    /// When a flow was last given this hop, as [`WarmFlow::stamp`]. It is not believed for longer than this tick and the next: then some
    /// packet asks for its way again, for all flows that go there.
    pub stamp: u32,
    /// The device; 0: nothing is here.
    pub ifindex: u32,
    /// Largest IP packet on the way.
    pub mtu: u32,
    /// Always 0.
    pub reserved: [u32; 2],
}

const _: () = assert!(size_of::<WarmBucket>() == 64);
const _: () = assert!(size_of::<WarmV6>() == size_of::<WarmBucket>());
const _: () = assert!(core::mem::offset_of!(WarmV6, kind) == core::mem::offset_of!(WarmFlow, protocol));
const _: () = assert!(core::mem::offset_of!(WarmV6, stamp) == core::mem::offset_of!(WarmFlow, stamp));
const _: () = assert!(core::mem::offset_of!(WarmV6, hop) == core::mem::offset_of!(WarmFlow, hop));
const _: () = assert!(size_of::<Hop>() == 32);
