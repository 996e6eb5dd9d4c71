//! Answers to ARP requests and neighbour solicitations for the addresses in `ANNOUNCED`.
//!
//! Must not know: whose addresses those are.
//!
//! Solicitations are answered whatever their ICMPv6 checksum is: one that came over a link with frame checks is right, and a wrong
//! answer could only name an address that is announced.

use pagurus_ebpf_abi::{Address, Announced, AnnouncedKey, PROTOCOL_ICMPV6};

use super::{
    HEADERS, Packet, Verdict,
    checksum::{self, Sum},
    headers::{ETHERNET, ETHERTYPE_ARP, ETHERTYPE_V6, Ethernet, V6, V6Addresses},
};
use crate::maps::ANNOUNCED;

/// ARP's packet for IPv4 on Ethernet; halves of words, because addresses in it are not aligned to more.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    hardware: u16,
    protocol: u16,
    /// Six bytes of hardware address, four of protocol address.
    lengths: u16,
    operation: u16,
    sender_mac: [u16; 3],
    sender: [u16; 2],
    target_mac: [u16; 3],
    target: [u16; 2],
}

const ARP_ETHERNET: u16 = 1u16.to_be();
const ARP_IPV4: u16 = 0x0800u16.to_be();
const ARP_LENGTHS: u16 = 0x0604u16.to_be();
const ARP_REQUEST: u16 = 1u16.to_be();
const ARP_REPLY: u16 = 2u16.to_be();

/// A neighbour solicitation without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Solicitation {
    kind: u8,
    code: u8,
    checksum: u16,
    reserved: u32,
    target: Address,
}

/// A neighbour advertisement with the target's hardware address, whole.
#[repr(C)]
#[derive(Clone, Copy)]
struct Advertisement {
    ip: V6,
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u32,
    target: Address,
    option: u16,
    mac: [u16; 3],
}

/// Neighbour messages that were forwarded, which they must not be, have less.
const HOPS: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The sender was asked.
const SOLICITED: u32 = 0x4000_0000u32.to_be();
/// Whatever was believed before is wrong: the address may have moved here from another node.
const OVERRIDE: u32 = 0x2000_0000u32.to_be();
/// Type 2 (target's hardware address), one unit of eight bytes.
const TARGET_MAC: u16 = 0x0201u16.to_be();
/// `ff02::1`.
const ALL_NODES: Address = Address::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// Where Ethernet carries that.
const ALL_NODES_MAC: [u16; 3] = [0x3333u16.to_be(), 0, 1u16.to_be()];

/// Lengths of the question's and of the answer's frame without padding.
const ARP_FRAME: u32 = ETHERNET + size_of::<Arp>() as u32;
const SOLICITATION_FRAME: u32 = ETHERNET + (size_of::<V6>() + size_of::<Solicitation>()) as u32;
const ADVERTISEMENT_FRAME: u32 = ETHERNET + size_of::<Advertisement>() as u32;
/// The shortest frame there is.
const SHORTEST_FRAME: u32 = 60;

/// Looks at an ARP packet or a neighbour solicitation; answers it if it asks for one of ours.
#[inline(always)]
pub(crate) fn answer<P: Packet>(packet: &P) -> Verdict {
    packet.pull(HEADERS);
    let Some(ethernet) = packet.read::<Ethernet>(0) else { return Verdict::Pass };
    match ethernet.kind {
        ETHERTYPE_ARP => arp(packet, &ethernet),
        ETHERTYPE_V6 => solicitation(packet, &ethernet),
        _ => Verdict::Pass,
    }
}

/// What is announced for an address at the device that the packet came from.
#[inline(always)]
fn announced<P: Packet>(packet: &P, address: Address) -> Option<Announced> {
    // SAFETY: the value is copied at once.
    unsafe { ANNOUNCED.get(AnnouncedKey { address, ifindex: packet.ifindex() }) }.copied()
}

/// The device's hardware address.
#[inline(always)]
fn own_mac(announced: &Announced) -> [u16; 3] {
    let mac = &announced.mac;
    [
        u16::from_ne_bytes([mac[0], mac[1]]),
        u16::from_ne_bytes([mac[2], mac[3]]),
        u16::from_ne_bytes([mac[4], mac[5]]),
    ]
}

/// Gives the packet its new length. It is made longer in any case, because that makes the kernel forget what sum the device made
/// over the bytes that came.
#[inline(always)]
fn resize<P: Packet>(packet: &P, shorter: u32, longer: u32) -> bool {
    packet.set_length(shorter) && packet.set_length(longer)
}

#[inline(always)]
fn arp<P: Packet>(packet: &P, ethernet: &Ethernet) -> Verdict {
    let Some(request) = packet.read::<Arp>(ETHERNET) else { return Verdict::Pass };
    if request.hardware != ARP_ETHERNET
        || request.protocol != ARP_IPV4
        || request.lengths != ARP_LENGTHS
        || request.operation != ARP_REQUEST
        // Another node announces it.
        || request.sender == request.target
    {
        return Verdict::Pass;
    }
    let word = u32::from(request.target[0]) | u32::from(request.target[1]) << 16;
    let Some(announced) = announced(packet, Address::from_v4_word(word.to_le())) else {
        return Verdict::Pass;
    };
    let mac = own_mac(&announced);
    let reply = Arp {
        operation: ARP_REPLY,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
        ..request
    };
    let header = Ethernet { destination: ethernet.source, source: mac, kind: ETHERTYPE_ARP };
    if resize(packet, ARP_FRAME, SHORTEST_FRAME)
        && packet.write(0, &header, false)
        && packet.write(ETHERNET, &reply, false)
    {
        return packet.answer();
    }
    Verdict::Drop
}

#[inline(always)]
fn solicitation<P: Packet>(packet: &P, ethernet: &Ethernet) -> Verdict {
    let Some(ip) = packet.read::<V6>(ETHERNET) else { return Verdict::Pass };
    let Some(asked) = packet.read::<Solicitation>(ETHERNET + size_of::<V6>() as u32) else {
        return Verdict::Pass;
    };
    if ip.next != PROTOCOL_ICMPV6 || ip.hops != HOPS || asked.kind != SOLICITATION || asked.code != 0 {
        return Verdict::Pass;
    }
    let Some(announced) = announced(packet, asked.target) else { return Verdict::Pass };
    let mac = own_mac(&announced);
    // Who has no address yet wants to know whether this one is free: all nodes are told that it is not.
    let is_probe = ip.addresses.source == Address::ANY_V6;
    let (destination, destination_mac, flags) = if is_probe {
        (ALL_NODES, ALL_NODES_MAC, OVERRIDE)
    } else {
        (ip.addresses.source, ethernet.source, SOLICITED | OVERRIDE)
    };
    let mut reply = Advertisement {
        ip: V6 {
            word: 0x6000_0000u32.to_be(),
            length: 32u16.to_be(),
            next: PROTOCOL_ICMPV6,
            hops: HOPS,
            addresses: V6Addresses { source: asked.target, destination },
        },
        kind: ADVERTISEMENT,
        code: 0,
        checksum: 0,
        flags,
        target: asked.target,
        option: TARGET_MAC,
        mac,
    };
    let sum = Sum::new()
        .plus_address(&asked.target)
        .plus_address(&destination)
        .plus(32u32.to_be())
        .plus(u32::from(PROTOCOL_ICMPV6).to_be())
        .plus(u32::from(u16::from_ne_bytes([ADVERTISEMENT, 0])))
        .plus(flags)
        .plus_address(&asked.target)
        .plus(u32::from(TARGET_MAC))
        .plus(u32::from(mac[0]))
        .plus(u32::from(mac[1]))
        .plus(u32::from(mac[2]));
    reply.checksum = checksum::finish(sum);
    let header = Ethernet { destination: destination_mac, source: mac, kind: ETHERTYPE_V6 };
    if resize(packet, SOLICITATION_FRAME, ADVERTISEMENT_FRAME)
        && packet.write(0, &header, false)
        && packet.write(ETHERNET, &reply, false)
    {
        return packet.answer();
    }
    Verdict::Drop
}
