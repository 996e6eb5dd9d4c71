//! SCTP's checksum after a change of ports.
//!
//! Must not know: why they change.

use pagurus_ebpf_abi::Port;

use super::Packet;

/// Updates the checksum of an SCTP packet of this length whose header is at `l4` for new ports (source, destination), which the
/// caller writes afterwards. False: the packet cannot be written.
#[inline(always)]
pub(crate) fn update<P: Packet>(
    _packet: &P,
    _l4: u32,
    _length: u32,
    _old: [Port; 2],
    _new: [Port; 2],
) -> bool {
    false
}
