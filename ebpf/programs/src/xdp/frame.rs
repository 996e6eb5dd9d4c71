//! The packets of which most are: Ethernet, IPv4 without options, TCP or UDP. Read and rewritten in place, by constant offsets.
//!
//! Must not know: where a packet is to go.

use pagurus_ebpf_abi::{Hop, PROTOCOL_TCP, PROTOCOL_UDP, WarmFlow};

use crate::packet::{
    Packet, Xdp,
    checksum::{self, Sum},
    headers::ETHERTYPE_V4,
};
use crate::work::{TCP_FIN, TCP_RST, TCP_SYN};

/// From Ethernet to the ports; halves of words, because nothing in it is aligned to more.
#[repr(C)]
struct Headers {
    macs: [u16; 6],
    ethertype: u16,
    version_ihl: u8,
    tos: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: [u16; 2],
    destination: [u16; 2],
    ports: [u16; 2],
}

/// Version 4, five words.
const PLAIN: u8 = 0x45;
/// "More fragments", and the place of a fragment.
const FRAGMENT: u16 = 0x3fffu16.to_be();
/// Where the transport's header begins.
const L4: usize = 34;
const TCP_FLAGS: usize = L4 + 13;
const TCP_CHECKSUM: usize = L4 + 16;
const TCP_END: usize = L4 + 20;
const UDP_CHECKSUM: usize = L4 + 6;
const UDP_END: usize = L4 + 8;

/// A packet of that kind.
pub(crate) struct Frame {
    headers: &'static mut Headers,
    /// The transport's checksum.
    checksum: &'static mut u16,
    /// Its flow, nothing being known yet of what becomes of it.
    pub(crate) flow: WarmFlow,
    /// Whether it begins or ends a connection.
    pub(crate) is_turn: bool,
}

#[inline(always)]
fn word(halves: [u16; 2]) -> u32 {
    u32::from(halves[0]) | u32::from(halves[1]) << 16
}

#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    [word as u16, (word >> 16) as u16]
}

impl Frame {
    /// Reads a packet, if it is of that kind and may be sent on.
    #[inline(always)]
    pub(crate) fn read(packet: &Xdp) -> Option<Self> {
        let (start, end) = (packet.start(), packet.end());
        if start + UDP_END > end {
            return None;
        }
        // SAFETY: that many bytes are there, and ours to write; every bit pattern is a value of an integer.
        let headers = unsafe { &mut *(start as *mut Headers) };
        if headers.ethertype != ETHERTYPE_V4
            || headers.version_ihl != PLAIN
            || headers.fragment & FRAGMENT != 0
            || headers.ttl <= 1
            // Broadcast and multicast.
            || headers.macs[0].to_ne_bytes()[0] & 1 != 0
        {
            return None;
        }
        let (place, is_turn) = match headers.protocol {
            PROTOCOL_TCP => {
                if start + TCP_END > end {
                    return None;
                }
                // SAFETY: within what was just checked.
                let flags = unsafe { *((start + TCP_FLAGS) as *const u8) };
                (start + TCP_CHECKSUM, flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0)
            }
            PROTOCOL_UDP => (start + UDP_CHECKSUM, false),
            _ => return None,
        };
        let flow = WarmFlow {
            source: word(headers.source),
            destination: word(headers.destination),
            ports: word(headers.ports),
            protocol: headers.protocol,
            ..WarmFlow::default()
        };
        // SAFETY: within what was checked, and no part of `headers`.
        let checksum = unsafe { &mut *(place as *mut u16) };
        Some(Self { headers, checksum, flow, is_turn })
    }

    /// Length of the IP packet.
    #[inline(always)]
    pub(crate) fn length(&self) -> u32 {
        u32::from(u16::from_be(self.headers.length))
    }

    /// Gives it the addresses and ports of a known flow, and sends it one hop on.
    #[inline(always)]
    pub(crate) fn become_flow(self, new: &WarmFlow, hop: &Hop) {
        let Self { headers, checksum, flow, .. } = self;
        let addresses = Sum::new()
            .minus(flow.source)
            .plus(new.new_source)
            .minus(flow.destination)
            .plus(new.new_destination);
        headers.checksum =
            checksum::replace(headers.checksum, addresses.minus(u32::from(1u16.to_le())).fold());
        let old = *checksum;
        if flow.protocol == PROTOCOL_TCP || old != 0 {
            let new = checksum::replace(old, addresses.minus(flow.ports).plus(new.new_ports).fold());
            *checksum = if flow.protocol == PROTOCOL_UDP && new == 0 { 0xffff } else { new };
        }
        headers.ttl -= 1;
        headers.macs = hop.macs;
        headers.source = halves(new.new_source);
        headers.destination = halves(new.new_destination);
        headers.ports = halves(new.new_ports);
    }
}
