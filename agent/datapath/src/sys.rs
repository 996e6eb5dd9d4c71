//! The few commands of bpf(2) that aya has no call for: opening a pinned link, asking what it is attached to, and
//! replacing its program.
//!
//! Must not know: which programs or links there are.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `bpf_link_info.type` of a cgroup link.
const LINK_TYPE_CGROUP: u32 = 3;

#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
    path_fd: i32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// The head of `struct bpf_link_info` and its cgroup variant.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    cgroup: u64,
    attach_type: u32,
    padding: u32,
}

pub(crate) fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: `attributes` is a `repr(C)` prefix of `union bpf_attr` for this command, and its size is given; pointers
    // in it point to live memory of the caller.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>()) };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes { path: path.as_ptr() as u64, ..Default::default() };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The id of the cgroup (its directory's inode) a link is attached to; none if it is not a cgroup link, or its cgroup
/// is gone.
pub(crate) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut info = CgroupLinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: descriptor(link),
        length: u32::try_from(size_of::<CgroupLinkInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(Some(info.cgroup).filter(|cgroup| info.kind == LINK_TYPE_CGROUP && *cgroup != 0))
}

/// Replaces the program of a link; every call sees either the old or the new one.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes =
        UpdateAttributes { link: descriptor(link), program: descriptor(program), ..Default::default() };
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

pub(crate) fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}
