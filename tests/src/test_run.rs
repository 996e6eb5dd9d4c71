//! A loaded program run on a packet by `BPF_PROG_TEST_RUN`: no device need have sent it.
//!
//! Must not know: what the program does, what is in the packet.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::libc;

/// `BPF_PROG_TEST_RUN`.
const TEST_RUN: libc::c_long = 10;

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it returned.
    pub code: u32,
    /// The frame as it then was; what is behind the end of the IP packet is cut off.
    pub bytes: Vec<u8>,
}

/// The attributes of the system call.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    returned: u32,
    length_in: u32,
    length_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_length: u32,
    context_out_length: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// Runs a tc program on a frame that comes to the loopback device, whose hardware address is all zeros.
///
/// # Errors
/// The kernel refuses it.
pub fn run(program: BorrowedFd<'_>, frame: &[u8]) -> Result<Ran> {
    run_with(program, frame, &[])
}

/// Runs an XDP program on a frame that comes to this device.
///
/// # Errors
/// The kernel refuses it.
pub fn run_early(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> Result<Ran> {
    // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let length = u32::try_from(frame.len()).context("the length of a frame")?;
    let context: Vec<u8> = [0, length, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    run_with(program, frame, &context)
}

fn run_with(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> Result<Ran> {
    // Room for what a program puts before or behind what came.
    let mut out = vec![0; frame.len() + 256];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).context("the length of a frame");
    let mut attributes = Attributes {
        program: u32::try_from(program.as_raw_fd()).context("a program's descriptor")?,
        length_in: length(frame)?,
        length_out: length(&out)?,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        context_in_length: length(context)?,
        context_in: if context.is_empty() { 0 } else { context.as_ptr() as u64 },
        ..Attributes::default()
    };
    // SAFETY: the kernel reads and writes the structure, whose size is given, and the buffers in it, whose lengths are in it; all of
    // them outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, TEST_RUN, std::ptr::from_mut(&mut attributes), size_of::<Attributes>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("run a program on a packet");
    }
    out.truncate(attributes.length_out as usize);
    trim(&mut out);
    Ok(Ran { code: attributes.returned, bytes: out })
}

/// Cuts off what is behind the end of an IP packet.
fn trim(bytes: &mut Vec<u8>) {
    let word =
        |at: usize| bytes.get(at..at + 2).map(|pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
    let end = match word(12) {
        Some(0x0800) => word(16).map(|length| 14 + length),
        Some(0x86dd) => word(18).map(|length| 54 + length),
        _ => None,
    };
    if let Some(end) = end {
        bytes.truncate(end);
    }
}
