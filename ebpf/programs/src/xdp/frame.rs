//! The packets of which most are: Ethernet, IP without options or extensions, TCP or UDP. Read and rewritten in place, by constant
//! offsets.
//!
//! Must not know: where a packet is to go, how flows are remembered.

use pagurus_ebpf_abi::{Address, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::packet::{
    Packet, Xdp,
    checksum::{self, Sum},
    headers::{ETHERNET, V4, V4_MORE, V4_PLACE, V6},
};
use crate::work::{TCP_FIN, TCP_RST, TCP_SYN};

/// Version 4, five words.
const PLAIN: u8 = 0x45;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_LENGTH: usize = 20;
const UDP_CHECKSUM: usize = 6;
const UDP_LENGTH: usize = 8;

/// The hardware addresses: of who gets the packet, then of who sent it.
pub(crate) type Macs = [u16; 6];

/// A packet's IP header, of either family.
pub(crate) trait Ip: Sized + 'static {
    /// How the family names a source and a destination.
    type Address: Copy + PartialEq;

    /// Whether nothing but a transport's header follows, and the packet may be sent on.
    fn is_plain(&self) -> bool;
    /// IP protocol number of what follows.
    fn protocol(&self) -> u8;
    /// Length of the packet.
    fn length(&self) -> u32;
    /// Source and destination.
    fn addresses(&self) -> [Self::Address; 2];
    /// Replaces them and takes one from the time to live; the difference that makes in the transport's checksum.
    fn replace(&mut self, new: [Self::Address; 2]) -> Sum;
}

impl Ip for V4 {
    type Address = u32;

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version_ihl == PLAIN && self.fragment & (V4_PLACE | V4_MORE) == 0 && self.tail.ttl > 1
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.tail.protocol
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        u32::from(u16::from_be(self.length))
    }

    #[inline(always)]
    fn addresses(&self) -> [u32; 2] {
        [self.tail.source, self.tail.destination]
    }

    #[inline(always)]
    fn replace(&mut self, [source, destination]: [u32; 2]) -> Sum {
        let tail = &mut self.tail;
        let addresses = Sum::new().minus(tail.source).plus(source).minus(tail.destination).plus(destination);
        tail.checksum = checksum::replace(tail.checksum, addresses.minus(u32::from(1u16.to_le())).fold());
        tail.ttl -= 1;
        tail.source = source;
        tail.destination = destination;
        addresses
    }
}

impl Ip for V6 {
    type Address = Address;

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.hops > 1
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        u32::from(u16::from_be(self.length)) + size_of::<Self>() as u32
    }

    #[inline(always)]
    fn addresses(&self) -> [Address; 2] {
        [self.addresses.source, self.addresses.destination]
    }

    #[inline(always)]
    fn replace(&mut self, [source, destination]: [Address; 2]) -> Sum {
        let old = &mut self.addresses;
        let addresses =
            Sum::new().address(&old.source, &source, true).address(&old.destination, &destination, true);
        self.hops -= 1;
        old.source = source;
        old.destination = destination;
        addresses
    }
}

/// A packet of that kind.
pub(crate) struct Frame<I: Ip> {
    /// Where it comes from and goes to.
    pub(crate) macs: &'static mut Macs,
    /// Its IP header.
    pub(crate) ip: &'static mut I,
    /// Its ports.
    pub(crate) ports: &'static mut u32,
    /// The transport's checksum.
    checksum: &'static mut u16,
    /// Whether it begins or ends a connection.
    pub(crate) is_turn: bool,
}

/// The ethertype of a packet; 0 if it has none.
#[inline(always)]
pub(crate) fn ethertype(packet: &Xdp) -> u16 {
    packet.read::<u16>(ETHERNET - 2).unwrap_or(0)
}

impl<I: Ip> Frame<I> {
    /// Reads a packet of this family, if it is of that kind.
    #[inline(always)]
    pub(crate) fn read(packet: &Xdp) -> Option<Self> {
        let (start, end) = (packet.start(), packet.end());
        let l3 = start + ETHERNET as usize;
        let l4 = l3 + size_of::<I>();
        if l4 + UDP_LENGTH > end {
            return None;
        }
        // SAFETY: that many bytes are there, and ours to write; every bit pattern is a value of an integer; the IP header, and what
        // follows, is aligned where the processor needs it. The three do not overlap.
        let (macs, ip, ports) =
            unsafe { (&mut *(start as *mut Macs), &mut *(l3 as *mut I), &mut *(l4 as *mut u32)) };
        // Broadcast and multicast are not ours.
        if macs[0].to_ne_bytes()[0] & 1 != 0 || !ip.is_plain() {
            return None;
        }
        let (place, is_turn) = match ip.protocol() {
            PROTOCOL_TCP => {
                if l4 + TCP_LENGTH > end {
                    return None;
                }
                // SAFETY: within what was just checked.
                let flags = unsafe { *((l4 + TCP_FLAGS) as *const u8) };
                (l4 + TCP_CHECKSUM, flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0)
            }
            PROTOCOL_UDP => (l4 + UDP_CHECKSUM, false),
            _ => return None,
        };
        // SAFETY: within what was checked, and no part of the others.
        let checksum = unsafe { &mut *(place as *mut u16) };
        Some(Self { macs, ip, ports, checksum, is_turn })
    }

    /// Gives it other addresses and ports, and sends it one hop on.
    #[inline(always)]
    pub(crate) fn become_flow(self, addresses: [I::Address; 2], ports: u32, macs: &Macs) {
        let protocol = self.ip.protocol();
        let difference = self.ip.replace(addresses);
        let old = *self.checksum;
        if protocol == PROTOCOL_TCP || old != 0 {
            let new = checksum::replace(old, difference.minus(*self.ports).plus(ports).fold());
            *self.checksum = if protocol == PROTOCOL_UDP && new == 0 { 0xffff } else { new };
        }
        *self.ports = ports;
        *self.macs = *macs;
    }
}
