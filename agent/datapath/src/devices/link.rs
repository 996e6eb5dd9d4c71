//! Links of programs to network devices: where at a device, and whether a link is there.
//!
//! Must not know: which programs or devices there are, where links are pinned, how bpf(2) is called.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys;

/// `bpf_link_info.type` of links to devices.
const LINK_TYPE_XDP: u32 = 6;
const LINK_TYPE_TCX: u32 = 11;
/// `XDP_FLAGS_*`.
const XDP_SKB_MODE: u32 = 1 << 1;
const XDP_DRV_MODE: u32 = 1 << 2;

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
    sys::create_link(program, ifindex, hook as u32, flags)
}

/// Whether a link is attached here: to this device of this network namespace, in this place.
pub(super) fn is_at(link: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<bool> {
    let info = sys::device_link(link)?;
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
    Ok(sys::links_at(ifindex, hook as u32)?.contains(&info.id))
}
