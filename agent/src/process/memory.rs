//! Keeps the allocator from hoarding: a node agent lives for months beside other people's pods.

/// Limits the number of the allocator's arenas, before any thread exists. Each arena keeps freed memory of its own; by
/// default there are eight per core.
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Give freed memory at the top of the heap back from 256 kB on.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
    }
}
