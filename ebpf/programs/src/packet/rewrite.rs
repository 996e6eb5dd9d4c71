//! Replacing addresses, ports and the time to live, with all checksums.
//!
//! Must not know: why.

use pagurus_ebpf_abi::{
    FlowState, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP,
};

use super::{
    Packet,
    checksum::{self, Sum},
    headers::{Ports, V4_TAIL, V4Tail, V6_ADDRESSES, V6Addresses},
    sctp,
};
use crate::work::{PARSED_FRAGMENT_FIRST, PARSED_FRAGMENT_LATER, PARSED_V6, Parsed};

/// Gives the packet the addresses and ports of a state, and says so in `parsed`. False: the packet cannot be written; it is to be
/// dropped.
#[inline(always)]
pub(crate) fn apply<P: Packet>(packet: &P, parsed: &mut Parsed, new: &FlowState) -> bool {
    let is_v6 = parsed.is(PARSED_V6);
    let addresses = Sum::new()
        .address(&parsed.tuple.source, &new.source, is_v6)
        .address(&parsed.tuple.destination, &new.destination, is_v6)
        .fold();
    if !write_addresses(packet, parsed, new, is_v6) {
        return false;
    }
    if !parsed.is(PARSED_FRAGMENT_LATER) && !write_ports(packet, parsed, new, addresses) {
        return false;
    }
    parsed.tuple.source = new.source;
    parsed.tuple.destination = new.destination;
    parsed.tuple.source_port = new.source_port;
    parsed.tuple.destination_port = new.destination_port;
    true
}

#[inline(always)]
fn write_addresses<P: Packet>(packet: &P, parsed: &Parsed, new: &FlowState, is_v6: bool) -> bool {
    if is_v6 {
        let addresses = V6Addresses { source: new.source, destination: new.destination };
        // There is no checksum in the header to make up for the difference.
        return packet.write(parsed.l3 + V6_ADDRESSES, &addresses, true);
    }
    let Some(old) = packet.read::<V4Tail>(parsed.l3 + V4_TAIL) else { return false };
    let (source, destination) = (new.source.v4_word(), new.destination.v4_word());
    let difference =
        Sum::new().minus(old.source).plus(source).minus(old.destination).plus(destination).fold();
    let tail = V4Tail { checksum: checksum::replace(old.checksum, difference), source, destination, ..old };
    packet.write(parsed.l3 + V4_TAIL, &tail, false)
}

#[inline(always)]
fn write_ports<P: Packet>(packet: &P, parsed: &Parsed, new: &FlowState, addresses: u32) -> bool {
    let old = &parsed.tuple;
    let ports =
        Sum::new().port(old.source_port, new.source_port).port(old.destination_port, new.destination_port);
    let both = Ports { source: new.source_port, destination: new.destination_port };
    let is_same = old.source_port.0 == new.source_port.0 && old.destination_port.0 == new.destination_port.0;
    let l4 = parsed.l4;
    match old.protocol {
        PROTOCOL_TCP => {
            packet.replace_checksum(l4 + 16, addresses, ports.fold(), false)
                && (is_same || packet.write(l4, &both, false))
        }
        PROTOCOL_UDP => {
            packet.replace_checksum(l4 + 6, addresses, ports.fold(), true)
                && (is_same || packet.write(l4, &both, false))
        }
        PROTOCOL_SCTP => {
            // The checksum is over the whole, whose length the first fragment does not tell.
            is_same
                || (!parsed.is(PARSED_FRAGMENT_FIRST)
                    && sctp::update(
                        packet,
                        l4,
                        parsed.end.wrapping_sub(l4),
                        [old.source_port, old.destination_port],
                        [both.source, both.destination],
                    )
                    && packet.write(l4, &both, true))
        }
        // The identifier is in both places of the tuple, and once in the packet.
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let addresses = if old.protocol == PROTOCOL_ICMPV6 { addresses } else { 0 };
            let identifier = Sum::new().port(old.source_port, new.source_port).fold();
            packet.replace_checksum(l4 + 2, addresses, identifier, false)
                && (is_same || packet.write(l4 + 4, &new.source_port, false))
        }
        _ => false,
    }
}

/// Takes one from the time to live. False: the packet cannot be written.
#[inline(always)]
pub(crate) fn hop<P: Packet>(packet: &P, parsed: &mut Parsed) -> bool {
    let ttl = parsed.ttl.wrapping_sub(1);
    parsed.ttl = ttl;
    if parsed.is(PARSED_V6) {
        return packet.write(parsed.l3 + 7, &ttl, true);
    }
    let Some(old) = packet.read::<[u16; 2]>(parsed.l3 + 8) else { return false };
    let [_, protocol] = old[0].to_ne_bytes();
    let word = u16::from_ne_bytes([ttl, protocol]);
    let difference = Sum::new().minus(u32::from(old[0])).plus(u32::from(word)).fold();
    packet.write(parsed.l3 + 8, &[word, checksum::replace(old[1], difference)], false)
}
