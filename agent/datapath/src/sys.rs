//! The few commands of bpf(2) that aya has no call for, with their attributes, which are nowhere else: making a link, opening a
//! pinned one, asking what it is attached to, replacing its program; making a map of any kind, and many of its entries at once.
//!
//! Must not know: which programs, links or maps there are.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use aya::Pod;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
#[cfg(any(test, feature = "fake"))]
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// `BPF_MAP_TYPE_HASH`.
const TYPE_HASH: u32 = 1;
/// `BPF_MAP_TYPE_LPM_TRIE`.
const TYPE_LPM_TRIE: u32 = 11;
/// `BPF_MAP_TYPE_ARRAY`.
const TYPE_ARRAY: u32 = 2;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// `bpf_link_info.type` of a cgroup link.
const LINK_TYPE_CGROUP: u32 = 3;
/// Links at one place of a device that are looked through.
const MOST_LINKS: usize = 64;

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
struct LinkAttributes {
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

#[cfg(any(test, feature = "fake"))]
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

/// The head of `struct bpf_link_info` and its variant for devices.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct DeviceLinkInfo {
    /// `BPF_LINK_TYPE_*`.
    pub(crate) kind: u32,
    pub(crate) id: u32,
    program: u32,
    reserved: u32,
    /// 0 once the device has gone.
    pub(crate) ifindex: u32,
    /// Where at the device.
    pub(crate) attach_type: u32,
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

fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
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

/// Pins an object, so that it outlives this process.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        ObjectAttributes { path: path.as_ptr() as u64, fd: descriptor(object), ..Default::default() };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Asks what the kernel knows of an object.
///
/// # Safety
/// `T` is the head of the kernel's structure for objects of this kind: any bytes are a value of it.
unsafe fn info<T: Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = InfoAttributes {
        fd: descriptor(object),
        length: size(size_of::<T>()),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// The id of the cgroup (its directory's inode) a link is attached to; none if it is not a cgroup link, or its cgroup
/// is gone.
pub(crate) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    // SAFETY: the head of `struct bpf_link_info`, whose fields are all numbers.
    let info: CgroupLinkInfo = unsafe { info(link)? };
    Ok(Some(info.cgroup).filter(|cgroup| info.kind == LINK_TYPE_CGROUP && *cgroup != 0))
}

/// What a link to a device is attached to.
pub(crate) fn device_link(link: BorrowedFd<'_>) -> io::Result<DeviceLinkInfo> {
    // SAFETY: as above.
    unsafe { info(link) }
}

/// Attaches a program to a device, behind others.
pub(crate) fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = LinkAttributes {
        program: descriptor(program),
        target: ifindex,
        attach_type,
        flags,
        ..Default::default()
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids of the links at a device, in the order in which their programs run.
pub(crate) fn links_at(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0u32; MOST_LINKS];
    let mut links = [0u32; MOST_LINKS];
    let mut attributes = QueryAttributes {
        target: ifindex,
        attach_type,
        program_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: size(MOST_LINKS),
        ..Default::default()
    };
    match bpf(BPF_PROG_QUERY, &mut attributes) {
        Ok(_) => Ok(links[..(attributes.count as usize).min(MOST_LINKS)].to_vec()),
        // Nothing was ever attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Loads a program of these instructions.
#[cfg(any(test, feature = "fake"))]
pub(crate) fn load_program(kind: u32, code: &[u64], license: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let mut attributes = LoadAttributes {
        kind,
        instructions: size(code.len()),
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// What a map is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapShape {
    /// `BPF_MAP_TYPE_*`.
    pub(crate) kind: u32,
    /// Size of a key in bytes.
    pub(crate) key: u32,
    /// Size of a value in bytes.
    pub(crate) value: u32,
    /// `BPF_F_*`.
    pub(crate) flags: u32,
}

impl MapShape {
    /// A hash map whose entries are allocated as they come.
    pub(crate) fn hash<K: Pod, V: Pod>() -> Self {
        Self { kind: TYPE_HASH, key: size(size_of::<K>()), value: size(size_of::<V>()), flags: NO_PREALLOC }
    }

    /// A trie of prefixes of so many bytes.
    pub(crate) fn trie(prefix: usize, value: usize) -> Self {
        let key = size(size_of::<u32>() + prefix);
        Self { kind: TYPE_LPM_TRIE, key, value: size(value), flags: NO_PREALLOC }
    }

    /// An array of values of this size.
    pub(crate) fn array(value: usize, flags: u32) -> Self {
        Self { kind: TYPE_ARRAY, key: size(size_of::<u32>()), value: size(value), flags }
    }
}

/// A size as the kernel counts it.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[repr(C)]
#[derive(Default)]
struct CreateAttributes {
    kind: u32,
    key: u32,
    value: u32,
    capacity: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Makes a map.
pub(crate) fn create_map(shape: &MapShape, capacity: u32, name: &str) -> io::Result<OwnedFd> {
    let mut attributes = CreateAttributes {
        kind: shape.kind,
        key: shape.key,
        value: shape.value,
        capacity,
        flags: shape.flags,
        ..Default::default()
    };
    for (place, letter) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *place = letter;
    }
    let fd = bpf(BPF_MAP_CREATE, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The value of a key, if there is one.
pub(crate) fn look_up<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::uninit();
    let mut attributes = ElementAttributes {
        map: descriptor(map),
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        ..Default::default()
    };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        // SAFETY: the kernel has written the whole value; the map's sizes are those of the types.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an entry.
pub(crate) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V, flags: u64) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map: descriptor(map),
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags,
        ..Default::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Removes an entry; that it has gone already is as good.
pub(crate) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attributes =
        ElementAttributes { map: descriptor(map), key: std::ptr::from_ref(key) as u64, ..Default::default() };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attributes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    position: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes entries, over what is there; on failure, how many have been written.
pub(crate) fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    let count = keys.len().min(values.len());
    let mut attributes = BatchAttributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map: descriptor(map),
        ..Default::default()
    };
    // The kernel counts what it has done; before it begins it may fail without saying so.
    match bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) {
        Ok(_) => Ok(()),
        Err(error) => {
            let done = attributes.count as usize;
            Err((if done >= count { 0 } else { done }, error))
        }
    }
}

/// Removes entries that are there; how many before the first that is not.
pub(crate) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), (usize, io::Error)> {
    let mut attributes = BatchAttributes {
        keys: keys.as_ptr() as u64,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: descriptor(map),
        ..Default::default()
    };
    match bpf(BPF_MAP_DELETE_BATCH, &mut attributes) {
        Ok(_) => Ok(()),
        Err(error) => {
            let done = attributes.count as usize;
            Err((if done >= keys.len() { 0 } else { done }, error))
        }
    }
}

/// Reads a hash map in slices.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Where the kernel goes on: the number of the bucket, in the first of two words.
    position: Option<[u32; 2]>,
    is_at_end: bool,
}

impl Cursor {
    /// Whether everything has been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The bucket that is read next; 0 at the beginning.
    pub(crate) fn bucket(&self) -> u32 {
        self.position.map_or(0, |[bucket, _]| bucket)
    }

    /// The next entries, at most about `count`; nothing at the end. Entries that come meanwhile may be missed, those that go may be
    /// seen.
    pub(crate) fn next<K: Pod, V: Pod>(
        &mut self,
        map: BorrowedFd<'_>,
        count: usize,
        keys: &mut Vec<K>,
        values: &mut Vec<V>,
    ) -> io::Result<bool> {
        keys.clear();
        values.clear();
        let mut count = count;
        while !self.is_at_end {
            keys.reserve(count);
            values.reserve(count);
            let mut next = [0u32; 2];
            let mut attributes = BatchAttributes {
                position: self.position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64),
                next: std::ptr::from_mut(&mut next) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(count).unwrap_or(u32::MAX),
                map: descriptor(map),
                ..Default::default()
            };
            match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
                Ok(_) => self.position = Some(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.is_at_end = true,
                // One bucket alone has more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    count *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let filled = (attributes.count as usize).min(count);
            // SAFETY: there is room for `count` of each, the kernel has written `filled` of them, and every bit pattern is a value.
            unsafe {
                keys.set_len(filled);
                values.set_len(filled);
            }
            if filled > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A value from its bytes; none if there are too few.
pub(crate) fn read_plain<V: Pod>(bytes: &[u8]) -> Option<V> {
    if bytes.len() < size_of::<V>() {
        return None;
    }
    // SAFETY: as many bytes as the value has, and every bit pattern is one.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// The clock of `bpf_ktime_get_ns`: since the machine was started, without the time in which it slept.
fn clock() -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into `time`, which is ours; it cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time
}

/// The time between two of the kernel's timer ticks: what its coarse clocks go on by.
pub(crate) fn timer_tick() -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into `time`, which outlives the call.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let part = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    Ok(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
}

/// Seconds since the machine was started, as programs count them.
pub(crate) fn seconds() -> u32 {
    u32::try_from(clock().tv_sec).unwrap_or(0)
}

/// Nanoseconds since the machine was started, as programs count them.
pub(crate) fn nanoseconds() -> u64 {
    let time = clock();
    let part = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
