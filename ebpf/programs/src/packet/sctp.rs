//! SCTP's checksum after a change of ports.
//!
//! Must not know: why they change.

use pagurus_ebpf_abi::{Port, sctp_checksum_change};

use super::Packet;

/// Two ports as one word of the packet.
#[inline(always)]
fn word(ports: [Port; 2]) -> u32 {
    u32::from_ne_bytes([
        ports[0].0.to_ne_bytes()[0],
        ports[0].0.to_ne_bytes()[1],
        ports[1].0.to_ne_bytes()[0],
        ports[1].0.to_ne_bytes()[1],
    ])
}

/// The checksum of an SCTP packet of this length after a change of ports (source, destination).
#[inline(always)]
pub(crate) fn mended(checksum: u32, length: u32, old: [Port; 2], new: [Port; 2]) -> u32 {
    checksum ^ sctp_change(word(old) ^ word(new), length)
}

/// [`sctp_checksum_change`], as a function that the verifier looks at once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sctp_change(change: u32, length: u32) -> u32 {
    sctp_checksum_change(change, length)
}

/// Updates the checksum of an SCTP packet of this length whose header is at `l4` for new ports (source, destination), which the
/// caller writes afterwards. False: the packet cannot be written.
#[inline(always)]
pub(crate) fn update<P: Packet>(packet: &P, l4: u32, length: u32, old: [Port; 2], new: [Port; 2]) -> bool {
    let Some(checksum) = packet.read::<u32>(l4 + 8) else { return false };
    // Zero: the device is still to compute it, over the ports as they then are.
    if checksum == 0 {
        return true;
    }
    // No other checksum makes up for this one: it is as if the packet carried something else.
    packet.write(l4 + 8, &mended(checksum, length, old, new), true)
}
