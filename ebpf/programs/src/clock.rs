//! Time, as the flows of packets have it.
//!
//! Must not know: what it is for.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;

/// Seconds since the machine was started (`CLOCK_MONOTONIC`). The clock is the coarse one, which is only as good as the timer's
/// tick and costs a tenth of the exact one.
#[inline(always)]
pub(crate) fn seconds() -> u32 {
    // SAFETY: plain helper.
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}
