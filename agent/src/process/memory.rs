//! Keeps the allocator from hoarding: a node agent lives for months beside other people's pods.

/// Freed memory at the top of the heap is given back from so many bytes on.
const TRIM: i32 = 256 << 10;
/// What is larger than this is asked of the kernel, and given back to it, on its own (glibc's default).
const OWN_MAPPING: i32 = 128 << 10;
/// Both while lists are read: their pages come and go in quick succession, and each would be asked of the kernel anew.
const TRIM_IN_BURST: i32 = 64 << 20;
const OWN_MAPPING_IN_BURST: i32 = 8 << 20;

/// Limits the number of the allocator's arenas, before any thread exists. Each arena keeps freed memory of its own; by
/// default there are eight per core.
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
    keep(TRIM, OWN_MAPPING);
}

fn keep(trim: i32, own_mapping: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes the allocator's own lock, and only sets its parameters.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim);
        libc::mallopt(libc::M_MMAP_THRESHOLD, own_mapping);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (trim, own_mapping);
}

/// A time in which much memory is used for moments. At its end what was freed is given back.
#[derive(Debug)]
#[must_use]
pub struct Burst(());

impl Burst {
    /// It begins.
    pub fn begin() -> Self {
        keep(TRIM_IN_BURST, OWN_MAPPING_IN_BURST);
        Self(())
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        keep(TRIM, OWN_MAPPING);
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: it takes the allocator's own locks, as every allocation does.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
