//! A loaded program run on a packet by `BPF_PROG_TEST_RUN`: no device need have sent it.
//!
//! Must not know: what the program does.

use std::os::fd::BorrowedFd;

use anyhow::{Context as _, Result};
use nix::libc;

use crate::bpf::{call, number};
use crate::packet::Packet;

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

impl Ran {
    /// The packet; every checksum in it is right.
    ///
    /// # Panics
    /// It is none, or one is not.
    pub fn packet(&self) -> Packet {
        Packet::parse(&self.bytes).unwrap_or_else(|error| panic!("{error:?} in {:02x?}", self.bytes))
    }
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

impl Attributes {
    /// For a frame that comes as this context says; nothing is wanted back. Both must live while they are used.
    fn new(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> Result<Self> {
        Ok(Self {
            program: number(program),
            length_in: length(frame)?,
            data_in: frame.as_ptr() as u64,
            context_in_length: length(context)?,
            context_in: if context.is_empty() { 0 } else { context.as_ptr() as u64 },
            ..Self::default()
        })
    }
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
    run_with(program, frame, &xdp_context(ifindex, frame)?)
}

fn run_with(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> Result<Ran> {
    // Room for what a program puts before or behind what came.
    let mut out = vec![0; frame.len() + 256];
    let mut attributes = Attributes::new(program, frame, context)?;
    attributes.length_out = length(&out)?;
    attributes.data_out = out.as_mut_ptr() as u64;
    call(TEST_RUN, &mut attributes).context("run a program on a packet")?;
    out.truncate(attributes.length_out as usize);
    trim(&mut out);
    Ok(Ran { code: attributes.returned, bytes: out })
}

/// Nanoseconds of one of so many runs, and what the last one returned. The frame comes to this device (XDP), or to loopback if it is 0.
///
/// # Errors
/// The kernel refuses it.
pub fn timed(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], repeat: u32) -> Result<(u32, u32)> {
    let context = if ifindex == 0 { Vec::new() } else { xdp_context(ifindex, frame)? };
    let mut attributes = Attributes::new(program, frame, &context)?;
    attributes.repeat = repeat;
    call(TEST_RUN, &mut attributes).context("run a program on a packet")?;
    Ok((attributes.duration, attributes.returned))
}

/// Runs an XDP program on so many copies of a frame, which then go where it says, as those of a driver do.
///
/// # Errors
/// The kernel refuses it.
pub fn send(program: BorrowedFd<'_>, frame: &[u8], count: u32) -> Result<()> {
    /// `BPF_F_TEST_XDP_LIVE_FRAMES`.
    const LIVE_FRAMES: u32 = 1 << 1;
    let mut attributes = Attributes::new(program, frame, &[])?;
    (attributes.repeat, attributes.flags, attributes.batch) = (count, LIVE_FRAMES, 64);
    call(TEST_RUN, &mut attributes).context("send packets").map(drop)
}

fn length(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).context("the length of a frame")
}

/// `xdp_md` of a frame: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(ifindex: u32, frame: &[u8]) -> Result<Vec<u8>> {
    Ok([0, length(frame)?, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect())
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
