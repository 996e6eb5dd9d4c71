//! How headers lie in a packet.
//!
//! Must not know: what is read from them, who reads them.
//!
//! Words are in network byte order. IP and transport headers are aligned to words, counted from the IP header on; what stands before
//! it is not, so Ethernet's addresses are halves of words.

use pagurus_ebpf_abi::{Address, Port};

/// Length of an Ethernet header.
pub(crate) const ETHERNET: u32 = 14;
/// `ETH_P_IP`, as it lies in the packet.
pub(crate) const ETHERTYPE_V4: u16 = 0x0800u16.to_be();
/// `ETH_P_IPV6`.
pub(crate) const ETHERTYPE_V6: u16 = 0x86ddu16.to_be();
/// `ETH_P_ARP`.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806u16.to_be();

/// An Ethernet header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    /// Who gets it.
    pub(crate) destination: [u16; 3],
    /// Who sent it.
    pub(crate) source: [u16; 3],
    /// `ETHERTYPE_*`.
    pub(crate) kind: u16,
}

/// An IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct V4 {
    /// Version, and length in words.
    pub(crate) version_ihl: u8,
    /// Type of service.
    pub(crate) tos: u8,
    /// Length of the packet.
    pub(crate) length: u16,
    /// Identification of a datagram that comes in fragments.
    pub(crate) id: u16,
    /// Flags, and the fragment's place.
    pub(crate) fragment: u16,
    /// What a forwarded packet changes.
    pub(crate) tail: V4Tail,
}

/// Length of an IPv4 header before its [`V4Tail`].
pub(crate) const V4_TAIL: u32 = 8;

/// The last twelve bytes of an IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct V4Tail {
    /// Time to live.
    pub(crate) ttl: u8,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Checksum of the header.
    pub(crate) checksum: u16,
    /// Source address.
    pub(crate) source: u32,
    /// Destination address.
    pub(crate) destination: u32,
}

/// Place bits of [`V4::fragment`]: other than 0, the transport's header is not in this packet.
pub(crate) const V4_PLACE: u16 = 0x1fffu16.to_be();
/// "More fragments".
pub(crate) const V4_MORE: u16 = 0x2000u16.to_be();
/// "Do not fragment".
pub(crate) const V4_WHOLE: u16 = 0x4000u16.to_be();

/// An IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct V6 {
    /// Version, traffic class, flow label.
    pub(crate) word: u32,
    /// Length of what follows.
    pub(crate) length: u16,
    /// Type of what follows.
    pub(crate) next: u8,
    /// Hop limit.
    pub(crate) hops: u8,
    /// Source and destination.
    pub(crate) addresses: V6Addresses,
}

/// Length of an IPv6 header before its [`V6Addresses`].
pub(crate) const V6_ADDRESSES: u32 = 8;

/// Source and destination of an IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct V6Addresses {
    /// Source address.
    pub(crate) source: Address,
    /// Destination address.
    pub(crate) destination: Address,
}

/// Type of the IPv6 fragment header.
pub(crate) const V6_FRAGMENT: u8 = 44;

/// An IPv6 fragment header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct V6Fragment {
    /// Type of what follows.
    pub(crate) next: u8,
    /// Nothing.
    pub(crate) reserved: u8,
    /// The fragment's place, and whether more follow.
    pub(crate) offset: u16,
    /// Identification of the datagram.
    pub(crate) id: u32,
}

/// Place bits of [`V6Fragment::offset`].
pub(crate) const V6_PLACE: u16 = 0xfff8u16.to_be();
/// "More fragments".
pub(crate) const V6_MORE: u16 = 1u16.to_be();

/// What the headers of TCP, UDP and SCTP begin with.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// Source port.
    pub(crate) source: Port,
    /// Destination port.
    pub(crate) destination: Port,
}

/// A TCP header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    /// Source and destination port.
    pub(crate) ports: Ports,
    /// Sequence number.
    pub(crate) sequence: u32,
    /// Acknowledgement number.
    pub(crate) acknowledged: u32,
    /// Length of the header in words (the highest four bits), and flags.
    pub(crate) bits: u16,
    /// Window.
    pub(crate) window: u16,
    /// Checksum.
    pub(crate) checksum: u16,
    /// Urgent pointer.
    pub(crate) urgent: u16,
}

const _: () = assert!(size_of::<Ethernet>() == ETHERNET as usize);
const _: () = assert!(size_of::<V4>() == 20 && size_of::<V4Tail>() == 20 - V4_TAIL as usize);
const _: () = assert!(size_of::<V6>() == 40 && size_of::<V6Addresses>() == 40 - V6_ADDRESSES as usize);
const _: () = assert!(size_of::<V6Fragment>() == 8);
const _: () = assert!(size_of::<Tcp>() == 20);
