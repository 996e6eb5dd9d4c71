//! The ways of packets: what each packet program does.
//!
//! Must not know: how headers lie in a packet.

use crate::{
    drop,
    maps::config,
    packet::{Packet, Verdict, neighbour, parse},
    work::{Work, work},
};
use pagurus_ebpf_abi::DROP_MALFORMED;

/// Packets that pods send.
#[inline(always)]
pub(crate) fn from_pod<P: Packet>(packet: &P) -> Verdict {
    begin(packet, false)
}

/// Packets to pods that come through the kernel's forwarding or from the node itself.
#[inline(always)]
pub(crate) fn to_pod<P: Packet>(packet: &P) -> Verdict {
    begin(packet, false)
}

/// Packets from outside.
#[inline(always)]
pub(crate) fn from_outside<P: Packet>(packet: &P) -> Verdict {
    begin(packet, true)
}

/// Packets to the outside.
#[inline(always)]
pub(crate) fn to_outside<P: Packet>(packet: &P) -> Verdict {
    begin(packet, false)
}

#[inline(always)]
fn begin<P: Packet>(packet: &P, answers: bool) -> Verdict {
    let (Some(work), Some(_)) = (work(), config()) else { return Verdict::Pass };
    match parse::packet(packet, &mut work.parsed) {
        parse::Kind::Other => Verdict::Pass,
        parse::Kind::Neighbour if answers => neighbour::answer(packet),
        parse::Kind::Neighbour => Verdict::Pass,
        parse::Kind::Malformed => malformed(packet, work),
        parse::Kind::Ip => Verdict::Pass,
    }
}

#[inline(always)]
fn malformed<P: Packet>(packet: &P, work: &mut Work) -> Verdict {
    work.tuple = work.parsed.tuple;
    drop::packet(packet, work, DROP_MALFORMED)
}
