//! Packet programs that pass every packet on, for tests of attaching.
//!
//! Must not know: what the real programs do.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use pagurus_ebpf_abi::programs;

use super::PacketPrograms;
use crate::sys::bpf;

const BPF_PROG_LOAD: libc::c_long = 5;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
/// What the programs answer: to the next program; up to the kernel.
const TCX_NEXT: i32 = -1;
const XDP_PASS: i32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

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
    let mut attributes = LoadAttributes {
        kind,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
