//! Links of programs to network devices, as bpf(2) makes and shows them.
//!
//! Must not know: which programs or devices there are, where links are pinned.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};

use crate::sys::{bpf, descriptor};

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;

/// `bpf_link_info.type` of links to devices.
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;
/// `XDP_FLAGS_*`.
const XDP_SKB_MODE: u32 = 1 << 1;
const XDP_DRV_MODE: u32 = 1 << 2;
/// Programs of others at one place that are looked through for ours.
const MOST_PROGRAMS: usize = 64;

/// Where at a device a program sits; the numbers are the kernel's attach types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hook {
    /// In the driver, or as early as the kernel can.
    Xdp = 37,
    /// On packets that came in.
    Ingress = 46,
    /// On packets that go out.
    Egress = 47,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XdpMode {
    /// In the driver.
    Native,
    /// Behind the driver: everywhere, not fast.
    Generic,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    padding: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info` and its variant for devices.
#[repr(C)]
#[derive(Default)]
struct DeviceLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// Attaches a program to a device, behind others.
pub(super) fn create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hook: Hook,
    mode: XdpMode,
) -> io::Result<OwnedFd> {
    let flags = match (hook, mode) {
        (Hook::Xdp, XdpMode::Native) => XDP_DRV_MODE,
        (Hook::Xdp, XdpMode::Generic) => XDP_SKB_MODE,
        _ => 0,
    };
    let mut attributes = CreateAttributes {
        program: descriptor(program),
        target: ifindex,
        attach_type: hook as u32,
        flags,
        ..Default::default()
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a link is attached here: to this device of this network namespace, in this place.
pub(super) fn is_at(link: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<bool> {
    let mut info = DeviceLinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: descriptor(link),
        length: u32::try_from(size_of::<DeviceLinkInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // A link whose device has gone names device 0.
    if info.ifindex != ifindex {
        return Ok(false);
    }
    if hook == Hook::Xdp {
        return Ok(info.kind == LINK_TYPE_XDP);
    }
    if info.kind != LINK_TYPE_TCX || info.attach_type != hook as u32 {
        return Ok(false);
    }
    // Devices of different namespaces have the same numbers: the device here must name the link, too.
    Ok(links_at(ifindex, hook)?.contains(&info.id))
}

/// Ids of the links at a device, in the order in which their programs run.
fn links_at(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut programs = [0u32; MOST_PROGRAMS];
    let mut links = [0u32; MOST_PROGRAMS];
    let mut attributes = QueryAttributes {
        target: ifindex,
        attach_type: hook as u32,
        program_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: u32::try_from(MOST_PROGRAMS).unwrap_or(0),
        ..Default::default()
    };
    match bpf(BPF_PROG_QUERY, &mut attributes) {
        Ok(_) => Ok(links[..(attributes.count as usize).min(MOST_PROGRAMS)].to_vec()),
        // Nothing was ever attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
