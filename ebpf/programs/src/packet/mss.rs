//! The largest segment that the ends of a TCP connection tell each other.
//!
//! Must not know: why it is to be smaller.

use super::{Packet, checksum::Sum};
use crate::work::{PARSED_V6, Parsed};

/// The option's kind and length.
const MAXIMUM_SEGMENT_SIZE: [u8; 2] = [2, 4];

/// Makes the largest segment in a SYN or SYN-ACK fit into packets of `mtu` bytes, if it is the first of the options, where every
/// system has it. False: the packet cannot be written.
#[inline(always)]
pub(crate) fn clamp<P: Packet>(packet: &P, parsed: &Parsed, mtu: u32) -> bool {
    let headers = if parsed.is(PARSED_V6) { 60 } else { 40 };
    if mtu <= headers || parsed.l4 + 24 > parsed.end {
        return true;
    }
    let largest = (mtu - headers) as u16;
    let at = parsed.l4 + 20;
    if packet.read::<[u8; 2]>(at) != Some(MAXIMUM_SEGMENT_SIZE) {
        return true;
    }
    let Some(old) = packet.read::<u16>(at + 2) else { return true };
    if u16::from_be(old) <= largest {
        return true;
    }
    let new = largest.to_be();
    let difference = Sum::new().minus(u32::from(old)).plus(u32::from(new)).fold();
    packet.replace_checksum(parsed.l4 + 16, 0, difference, false) && packet.write(at + 2, &new, false)
}
