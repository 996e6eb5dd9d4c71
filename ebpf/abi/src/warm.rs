//! What `xdp_outside` remembers of the flows it saw within the last second or so, in order that a busy flow costs one cache line.
//!
//! Must not know: how a flow came to be; it is copied from `CONNTRACK` and soon forgotten.

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
    /// When this was copied, in [`WARM_TICK`]s.
    pub stamp: u32,
    /// Place of the next hop in this processor's part of `HOPS`.
    pub hop: u16,
    /// IP protocol number; 0: nothing is here.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
}

/// A place of `WARM`: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmBucket {
    /// The flows; the first is the one that came last.
    pub flows: [WarmFlow; 2],
}

/// How many next hops each processor knows: a power of two.
pub const HOPS_PER_CPU: u32 = 256;

/// How many of the kernel's timer ticks (jiffies) time is counted in here, as a power of two: between a quarter of a second and two
/// and a half, depending on the kernel. A flow is believed for at most two of these.
pub const WARM_TICK: u32 = 8;

/// A next hop on the device that its packets came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The next hop's hardware address, then the device's own.
    pub macs: [u16; 6],
    /// When a flow was last given this hop, in [`WARM_TICK`]s.
    pub stamp: u32,
    /// The device; 0: nothing is here.
    pub ifindex: u32,
    /// Largest IP packet on the way.
    pub mtu: u32,
    /// Always 0.
    pub reserved: [u32; 2],
}

const _: () = assert!(size_of::<WarmBucket>() == 64);
const _: () = assert!(size_of::<Hop>() == 32);
