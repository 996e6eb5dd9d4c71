//! A library that a process loads before all others (`LD_PRELOAD`) and that moves its wall clock: by as many seconds as the file says that
//! `PAGURUS_CLOCK` names, eight bytes that may change at any time. The clock that only measures is left alone.
//!
//! It is compiled by itself when a test needs it (`pagurus_tests::clock`), and must not know who loads it.

use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// A point in time as the kernel writes it on 64-bit machines.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
const READ_ONLY: c_int = 0;
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        from: i64,
    ) -> *mut c_void;
}

/// The file in memory, once it has been asked for.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());

fn offset() -> i64 {
    let mut place = OFFSET.load(Ordering::Acquire);
    if place.is_null() {
        place = map();
        if place.is_null() {
            return 0;
        }
        OFFSET.store(place, Ordering::Release);
    }
    // SAFETY: the mapping is never taken back, and is eight aligned bytes.
    unsafe { (*place).load(Ordering::Relaxed) }
}

fn map() -> *mut AtomicI64 {
    // SAFETY: plain calls of the C library on texts that end in zero; what fails gives a null.
    unsafe {
        let path = getenv(c"PAGURUS_CLOCK".as_ptr());
        if path.is_null() {
            return ptr::null_mut();
        }
        let file = open(path, READ_ONLY);
        if file < 0 {
            return ptr::null_mut();
        }
        let place = mmap(ptr::null_mut(), 8, PROT_READ, MAP_SHARED, file, 0);
        if place as isize == -1 { ptr::null_mut() } else { place.cast() }
    }
}

/// The C library's function of this name, for all who call it in the process.
///
/// # Safety
/// `time` is a place for a point in time, as the C library's function wants it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the caller's place is handed on to the kernel, and changed only where the kernel has filled it in.
    unsafe {
        let told = syscall(CLOCK_GETTIME, clock as c_long, time) as c_int;
        if told == 0 && (clock == REALTIME || clock == REALTIME_COARSE) {
            (*time).seconds += offset();
        }
        told
    }
}
