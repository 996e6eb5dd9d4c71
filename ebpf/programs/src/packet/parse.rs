//! Reading the headers of a packet.
//!
//! Must not know: Services, flows.

use pagurus_ebpf_abi::{
    Address, FlowTuple, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, Port,
};

use super::{
    HEADERS, Packet,
    headers::{
        ETHERNET, ETHERTYPE_ARP, ETHERTYPE_V4, ETHERTYPE_V6, Ports, V4, V4_MORE, V4_PLACE, V4_WHOLE, V6,
        V6_FRAGMENT, V6_MORE, V6_PLACE, V6Fragment,
    },
};
use crate::work::{
    PARSED_DIVISIBLE, PARSED_FRAGMENT_FIRST, PARSED_FRAGMENT_LATER, PARSED_ICMP_ERROR, PARSED_PORTS,
    PARSED_V6, Parsed,
};

/// Most IPv6 extension headers before the transport's.
const EXTENSIONS: u32 = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv4 header without options.
const V4_HEADER: u32 = 20;
const V6_HEADER: u32 = 40;
/// A TCP header without options.
const TCP_HEADER: u32 = 20;
/// The most of other transports' headers that is looked at: SCTP's, and the type of its first chunk.
const OTHER_HEADER: u32 = 16;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const V6_ECHO_REQUEST: u8 = 128;
const V6_ECHO_REPLY: u8 = 129;
/// ICMPv6 neighbour solicitation.
const V6_SOLICITATION: u8 = 135;

/// What a packet is.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing that the programs look at.
    Other,
    /// ARP, or an IPv6 neighbour solicitation.
    Neighbour,
    /// IP; with ports in the tuple if it has [`PARSED_PORTS`].
    Ip,
    /// Its headers say more than there is.
    Malformed,
}

/// Reads the headers of a packet, from Ethernet on.
///
/// No more is made readable than is read: what a socket sends has its headers apart from its data, and to bring these together costs as
/// much as everything else that is done with it here (the kernel gives the packet memory of its own).
#[inline(always)]
pub(crate) fn packet<P: Packet>(packet: &P, parsed: &mut Parsed) -> Kind {
    packet.pull(ETHERNET + V4_HEADER);
    let Some(ethertype) = packet.read::<u16>(12) else { return Kind::Other };
    match ethertype {
        ETHERTYPE_V4 => v4(packet, parsed, ETHERNET),
        ETHERTYPE_V6 => v6(packet, parsed, ETHERNET),
        ETHERTYPE_ARP => Kind::Neighbour,
        _ => Kind::Other,
    }
}

/// Reads an IPv4 packet that begins at this offset: the packet itself, or one quoted in an ICMP error.
#[inline(always)]
pub(crate) fn v4<P: Packet>(packet: &P, parsed: &mut Parsed, l3: u32) -> Kind {
    let Some(header) = packet.read::<V4>(l3) else { return Kind::Malformed };
    let words = u32::from(header.version_ihl & 0xf);
    if header.version_ihl >> 4 != 4 || words < 5 {
        return Kind::Malformed;
    }
    parsed.l3 = l3;
    parsed.l4 = l3 + words * 4;
    parsed.end = l3 + u32::from(u16::from_be(header.length));
    parsed.ttl = header.tail.ttl;
    parsed.tos = header.tos;
    parsed.fragment = u32::from(header.id);
    parsed.flags = if header.fragment & V4_PLACE != 0 {
        PARSED_FRAGMENT_LATER
    } else if header.fragment & V4_MORE != 0 {
        PARSED_FRAGMENT_FIRST
    } else {
        0
    };
    if header.fragment & V4_WHOLE == 0 {
        parsed.flags |= PARSED_DIVISIBLE;
    }
    parsed.tuple = FlowTuple {
        source: Address::from_v4_word(header.tail.source),
        destination: Address::from_v4_word(header.tail.destination),
        source_port: Port(0),
        destination_port: Port(0),
        protocol: header.tail.protocol,
        reserved: [0; 3],
    };
    transport(packet, parsed)
}

/// Reads an IPv6 packet that begins at this offset: the packet itself, or one quoted in an ICMP error.
#[inline(always)]
pub(crate) fn v6<P: Packet>(packet: &P, parsed: &mut Parsed, l3: u32) -> Kind {
    packet.pull(l3 + V6_HEADER);
    let Some(header) = packet.read::<V6>(l3) else { return Kind::Malformed };
    parsed.l3 = l3;
    parsed.end = l3 + V6_HEADER + u32::from(u16::from_be(header.length));
    parsed.ttl = header.hops;
    parsed.tos = (u32::from_be(header.word) >> 20) as u8;
    parsed.flags = PARSED_V6;
    parsed.fragment = 0;
    parsed.tuple = FlowTuple {
        source: header.addresses.source,
        destination: header.addresses.destination,
        source_port: Port(0),
        destination_port: Port(0),
        protocol: header.next,
        reserved: [0; 3],
    };
    parsed.l4 = l3 + V6_HEADER;
    if matches!(header.next, HOP_BY_HOP | ROUTING | V6_FRAGMENT | DESTINATION_OPTIONS) {
        packet.pull(HEADERS);
        if !extensions(packet, parsed) {
            return Kind::Malformed;
        }
    }
    transport(packet, parsed)
}

/// Walks over the extension headers. False: the packet ends in one, or there are too many.
#[inline(always)]
fn extensions<P: Packet>(packet: &P, parsed: &mut Parsed) -> bool {
    for _ in 0..EXTENSIONS {
        match parsed.tuple.protocol {
            V6_FRAGMENT => {
                let Some(header) = packet.read::<V6Fragment>(parsed.l4) else { return false };
                if header.offset & V6_PLACE != 0 {
                    parsed.flags |= PARSED_FRAGMENT_LATER;
                } else if header.offset & V6_MORE != 0 {
                    parsed.flags |= PARSED_FRAGMENT_FIRST;
                }
                parsed.fragment = header.id;
                parsed.tuple.protocol = header.next;
                parsed.l4 += 8;
                if header.offset & V6_PLACE != 0 {
                    return true;
                }
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let Some([next, length]) = packet.read::<[u8; 2]>(parsed.l4) else { return false };
                parsed.tuple.protocol = next;
                parsed.l4 += (u32::from(length) + 1) * 8;
            }
            _ => return true,
        }
    }
    !matches!(parsed.tuple.protocol, HOP_BY_HOP | ROUTING | V6_FRAGMENT | DESTINATION_OPTIONS)
}

/// Reads the transport's header.
#[inline(always)]
fn transport<P: Packet>(packet: &P, parsed: &mut Parsed) -> Kind {
    parsed.kind = 0;
    parsed.reserved = 0;
    if parsed.is(PARSED_FRAGMENT_LATER) {
        return Kind::Ip;
    }
    let l4 = parsed.l4;
    packet.pull(l4 + if parsed.tuple.protocol == PROTOCOL_TCP { TCP_HEADER } else { OTHER_HEADER });
    match parsed.tuple.protocol {
        PROTOCOL_TCP => {
            let Some(flags) = packet.read::<u8>(l4 + 13) else { return Kind::Malformed };
            parsed.kind = flags;
        }
        PROTOCOL_UDP => {}
        PROTOCOL_SCTP => {
            // A packet without a chunk has nothing to say; it is told apart by type 0 (DATA), which changes no state.
            parsed.kind = packet.read::<u8>(l4 + 12).unwrap_or(0);
        }
        PROTOCOL_ICMP => return icmp(packet, parsed, matches_v4),
        PROTOCOL_ICMPV6 => return icmp(packet, parsed, matches_v6),
        _ => return Kind::Ip,
    }
    let Some(ports) = packet.read::<Ports>(l4) else { return Kind::Malformed };
    parsed.tuple.source_port = ports.source;
    parsed.tuple.destination_port = ports.destination;
    parsed.flags |= PARSED_PORTS;
    Kind::Ip
}

/// What an ICMP message is.
enum Message {
    Echo,
    Error,
    Neighbour,
    Other,
}

#[inline(always)]
fn matches_v4(kind: u8) -> Message {
    match kind {
        ECHO_REPLY | ECHO_REQUEST => Message::Echo,
        // Unreachable, time exceeded, parameter problem.
        3 | 11 | 12 => Message::Error,
        _ => Message::Other,
    }
}

#[inline(always)]
fn matches_v6(kind: u8) -> Message {
    match kind {
        V6_ECHO_REQUEST | V6_ECHO_REPLY => Message::Echo,
        // Unreachable, too big, time exceeded, parameter problem.
        1..=4 => Message::Error,
        V6_SOLICITATION => Message::Neighbour,
        _ => Message::Other,
    }
}

#[inline(always)]
fn icmp<P: Packet>(packet: &P, parsed: &mut Parsed, message: impl Fn(u8) -> Message) -> Kind {
    let Some([kind, _]) = packet.read::<[u8; 2]>(parsed.l4) else { return Kind::Malformed };
    parsed.kind = kind;
    match message(kind) {
        Message::Echo => {
            let Some(identifier) = packet.read::<u16>(parsed.l4 + 4) else { return Kind::Malformed };
            parsed.tuple.source_port = Port(identifier);
            parsed.tuple.destination_port = Port(identifier);
            parsed.flags |= PARSED_PORTS;
            Kind::Ip
        }
        Message::Error => {
            parsed.flags |= PARSED_ICMP_ERROR;
            Kind::Ip
        }
        Message::Neighbour => Kind::Neighbour,
        Message::Other => Kind::Ip,
    }
}
