//! ICMP errors about translated flows: the packet they quote becomes what its sender sent, and the error goes to that sender.
//!
//! Must not know: how flows come about.

use pagurus_ebpf_abi::{
    Address, FLOW_DSR, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, Port,
};

use super::{
    Packet,
    checksum::{self, Sum},
    headers::{
        Ports, V4, V4_PLACE, V4_TAIL, V4Tail, V6, V6_ADDRESSES, V6_FRAGMENT, V6_PLACE, V6Addresses,
        V6Fragment,
    },
    rewrite, sctp,
};
use crate::conntrack;
use crate::maps::QUOTED;
use crate::work::{PARSED_V6, Work};

/// What became of an ICMP error.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translation {
    /// It is about none of our flows: it is as it was.
    None,
    /// It is about a flow that is handed on to its backend's node as it is: so is the error. `work.state` has the flow.
    HandOn,
    /// It was translated: `work.parsed.tuple` has its new addresses.
    Done,
    /// It was, and could not be written: it is to be dropped.
    Failed,
}

/// An ICMP header, before the packet that it quotes.
const ICMP: u32 = 8;
/// How much of an error is looked at: its headers, and those of the packet in it.
const REACH: u32 = 192;
/// What is known of the quoted packet; in memory, for each CPU (see `work`).
#[repr(C)]
pub(crate) struct Quoted {
    /// Where its IP header begins.
    l3: u32,
    /// Where its transport's header begins.
    l4: u32,
    /// Length of what it carried, all of which need not be there.
    length: u32,
    /// What other addresses change in a checksum.
    addresses: u32,
    /// What other ports change in one.
    ports: u32,
    /// What all that was replaced changes in the error's own.
    change: u32,
}

/// Translates an ICMP error (`work.parsed` has [`PARSED_ICMP_ERROR`](crate::work::PARSED_ICMP_ERROR)). The quoted packet went the
/// other way: the flow is found by its tuple turned round.
#[inline(always)]
pub(crate) fn translate<P: Packet>(packet: &P, work: &mut Work) -> Translation {
    let Some(quoted) = QUOTED.get_ptr_mut(0) else { return Translation::None };
    // SAFETY: a place in an array that lives as long as the program; nothing else uses it while the program runs.
    let quoted = unsafe { &mut *quoted };
    packet.pull(REACH);
    if !read(packet, work, quoted) {
        return Translation::None;
    }
    let Some(found) = conntrack::find(&work.other_key) else { return Translation::None };
    work.state = *found;
    if work.state.flags & FLOW_DSR != 0 {
        return Translation::HandOn;
    }
    if !restore_addresses(packet, work, quoted)
        || !restore_checksum(packet, work, quoted)
        || !restore_ports(packet, work, quoted)
        || !packet.replace_checksum(work.parsed.l4 + 2, 0, quoted.change, false)
    {
        return Translation::Failed;
    }
    // Whoever it comes from: the one the flow goes to has another name for the other side; anybody between has no other.
    if work.parsed.tuple.source != work.other_key.source {
        work.state.source = work.parsed.tuple.source;
    }
    work.state.source_port = work.parsed.tuple.source_port;
    work.state.destination_port = work.parsed.tuple.destination_port;
    if rewrite::apply(packet, &mut work.parsed, &work.state) {
        Translation::Done
    } else {
        Translation::Failed
    }
}

/// Reads the quoted packet: `work.other_key` becomes the tuple of the packets that went the other way. False: it is of no flow.
#[inline(always)]
fn read<P: Packet>(packet: &P, work: &mut Work, quoted: &mut Quoted) -> bool {
    let l3 = work.parsed.l4 + ICMP;
    quoted.l3 = l3;
    let key = &mut work.other_key;
    key.reserved = [0; 3];
    if work.parsed.is(PARSED_V6) {
        let Some(ip) = packet.read::<V6>(l3) else { return false };
        key.source = ip.addresses.destination;
        key.destination = ip.addresses.source;
        key.protocol = ip.next;
        quoted.l4 = l3 + 40;
        quoted.length = u32::from(u16::from_be(ip.length));
        if ip.next == V6_FRAGMENT {
            let Some(fragment) = packet.read::<V6Fragment>(l3 + 40) else { return false };
            if fragment.offset & V6_PLACE != 0 {
                return false;
            }
            key.protocol = fragment.next;
            quoted.l4 = l3 + 48;
        }
    } else {
        let Some(ip) = packet.read::<V4>(l3) else { return false };
        let header = u32::from(ip.version_ihl & 0xf) * 4;
        if header < 20 || ip.fragment & V4_PLACE != 0 {
            return false;
        }
        key.source = Address::from_v4_word(ip.tail.destination);
        key.destination = Address::from_v4_word(ip.tail.source);
        key.protocol = ip.tail.protocol;
        quoted.l4 = l3 + header;
        quoted.length = u32::from(u16::from_be(ip.length)).wrapping_sub(header);
    }
    if is_echo(key.protocol) {
        // Errors about errors do not exist, and of others than echoes no flow has an identifier like theirs.
        let Some(identifier) = packet.read::<u16>(quoted.l4 + 4) else { return false };
        key.source_port = Port(identifier);
        key.destination_port = Port(identifier);
        return true;
    }
    let Some(ports) = packet.read::<Ports>(quoted.l4) else { return false };
    key.source_port = ports.destination;
    key.destination_port = ports.source;
    matches!(key.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
}

#[inline(always)]
fn is_echo(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6)
}

// The quoted packet gets the addresses and ports that its sender gave it: the other way round they are those of `work.state`.

#[inline(always)]
fn restore_addresses<P: Packet>(packet: &P, work: &Work, quoted: &mut Quoted) -> bool {
    let (old, new) = (&work.other_key, &work.state);
    let is_v6 = work.parsed.is(PARSED_V6);
    quoted.addresses = Sum::new()
        .address(&old.source, &new.source, is_v6)
        .address(&old.destination, &new.destination, is_v6)
        .fold();
    let mut ports = Sum::new().port(old.destination_port, new.destination_port);
    if !is_echo(old.protocol) {
        ports = ports.port(old.source_port, new.source_port);
    }
    quoted.ports = ports.fold();
    quoted.change = checksum::add(quoted.addresses, quoted.ports);
    if is_v6 {
        let addresses = V6Addresses { source: new.destination, destination: new.source };
        return packet.write(quoted.l3 + V6_ADDRESSES, &addresses, false);
    }
    let Some(was) = packet.read::<V4Tail>(quoted.l3 + V4_TAIL) else { return false };
    let is = V4Tail {
        checksum: checksum::replace(was.checksum, quoted.addresses),
        source: new.destination.v4_word(),
        destination: new.source.v4_word(),
        ..was
    };
    replaced(quoted, u32::from(was.checksum), u32::from(is.checksum));
    packet.write(quoted.l3 + V4_TAIL, &is, false)
}

#[inline(always)]
fn restore_ports<P: Packet>(packet: &P, work: &Work, quoted: &Quoted) -> bool {
    let new = &work.state;
    if is_echo(work.other_key.protocol) {
        packet.write(quoted.l4 + 4, &new.destination_port, false)
    } else {
        packet.write(quoted.l4, &Ports { source: new.destination_port, destination: new.source_port }, false)
    }
}

/// Notes that a word of the error is replaced.
#[inline(always)]
fn replaced(quoted: &mut Quoted, old: u32, new: u32) {
    quoted.change = Sum::new().plus(quoted.change).minus(old).plus(new).fold();
}

/// A field of the packet, if all of it is there.
#[inline(always)]
fn field<P: Packet, T: Copy>(packet: &P, work: &Work, offset: u32) -> Option<T> {
    if offset + size_of::<T>() as u32 > work.parsed.end { None } else { packet.read(offset) }
}

/// The checksum of the quoted packet's transport, if that much of it is there. False: the packet cannot be written.
#[inline(always)]
fn restore_checksum<P: Packet>(packet: &P, work: &Work, quoted: &mut Quoted) -> bool {
    let protocol = work.other_key.protocol;
    if protocol == PROTOCOL_SCTP {
        return restore_sctp_checksum(packet, work, quoted);
    }
    let offset = match protocol {
        PROTOCOL_TCP => 16,
        PROTOCOL_UDP => 6,
        _ => 2,
    };
    let difference = match protocol {
        PROTOCOL_ICMP => quoted.ports,
        _ => checksum::add(quoted.addresses, quoted.ports),
    };
    let place = quoted.l4 + offset;
    let Some(old) = field::<P, u16>(packet, work, place) else { return true };
    if protocol == PROTOCOL_UDP && old == 0 {
        return true;
    }
    let new = checksum::replace(old, difference);
    let new = if protocol == PROTOCOL_UDP && new == 0 { 0xffff } else { new };
    replaced(quoted, u32::from(old), u32::from(new));
    packet.write(place, &new, false)
}

#[inline(always)]
fn restore_sctp_checksum<P: Packet>(packet: &P, work: &Work, quoted: &mut Quoted) -> bool {
    let (old, new) = (&work.other_key, &work.state);
    let Some(was) = field::<P, u32>(packet, work, quoted.l4 + 8) else { return true };
    if was == 0 {
        return true;
    }
    let is = sctp::mended(
        was,
        quoted.length,
        [old.destination_port, old.source_port],
        [new.destination_port, new.source_port],
    );
    replaced(quoted, was, is);
    packet.write(quoted.l4 + 8, &is, false)
}
