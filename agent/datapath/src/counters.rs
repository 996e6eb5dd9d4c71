//! The programs' counters.
//!
//! Must not know: who shows them.

use aya::maps::{MapData, MapError, PerCpuArray};

/// Each counter's sum over all CPUs.
pub(crate) fn read(
    counters: &PerCpuArray<MapData, u64>,
    names: &[&'static str],
) -> Result<Vec<(&'static str, u64)>, MapError> {
    let sum = |(index, name): (u32, &&'static str)| Ok((*name, counters.get(&index, 0)?.iter().sum()));
    (0u32..).zip(names).map(sum).collect()
}
