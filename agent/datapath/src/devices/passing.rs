//! Packet programs that pass every packet on, for tests of attaching.
//!
//! Must not know: what the real programs do.

use std::io;
use std::os::fd::OwnedFd;

use pagurus_ebpf_abi::programs;

use super::PacketPrograms;
use crate::sys;

const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
/// What the programs answer: to the next program; up to the kernel.
const TCX_NEXT: i32 = -1;
const XDP_PASS: i32 = 2;

/// One program for each name there is.
pub fn programs() -> io::Result<PacketPrograms> {
    let tcx = programs::PACKET.into_iter().map(|name| Ok((name, load(PROG_TYPE_SCHED_CLS, TCX_NEXT)?)));
    let xdp = [Ok((programs::XDP_OUTSIDE, load(PROG_TYPE_XDP, XDP_PASS)?))];
    Ok(PacketPrograms::new(tcx.chain(xdp).collect::<io::Result<Vec<_>>>()?))
}

/// Loads `return answer`.
fn load(kind: u32, answer: i32) -> io::Result<OwnedFd> {
    // `r0 = answer; exit`, as the instructions lie in memory.
    let code: [u64; 2] = [0xb7 | u64::from(answer.cast_unsigned()) << 32, 0x95];
    sys::load_program(kind, &code, c"Apache-2.0")
}
