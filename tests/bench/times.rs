//! What the kernel counts of the BPF programs of this machine: how often each ran, and for how long.
//!
//! Must not know: what the programs are for.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use nix::libc;
use pagurus_tests::bpf::{call, make, number};

/// Commands of bpf(2).
const NEXT_ID: libc::c_long = 11;
const BY_ID: libc::c_long = 13;
const INFO: libc::c_long = 15;
const ENABLE_STATS: libc::c_long = 32;
/// Where `struct bpf_prog_info` (include/uapi/linux/bpf.h) has the name, the time and the runs, and its length up to there.
const NAME: std::ops::Range<usize> = 64..80;
const TIME: usize = 192;
const RUNS: usize = 200;
const LENGTH: usize = 208;

/// Runs of the programs of one name.
#[derive(Clone, Debug, Default)]
pub struct Time {
    /// Name of the programs, at most 15 bytes.
    pub name: String,
    /// All runs together.
    pub nanoseconds: f64,
    /// How many there were.
    pub runs: f64,
}

/// Does some work and tells what the programs of this machine took meanwhile. Counting adds some 20 ns to each run.
///
/// # Errors
/// The work fails, or the kernel does not count.
pub fn while_running<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Time>)> {
    // BPF_STATS_RUN_TIME: for as long as the descriptor is open.
    let _counting = make(ENABLE_STATS, &mut 0u32).context("have the kernel count runs of BPF programs")?;
    let before = programs()?;
    let result = work()?;
    let mut by_name: BTreeMap<String, Time> = BTreeMap::new();
    for (id, after) in programs()? {
        let then = before.get(&id).cloned().unwrap_or_default();
        let sum = by_name.entry(after.name.clone()).or_default();
        sum.name = after.name;
        sum.nanoseconds += after.nanoseconds - then.nanoseconds;
        sum.runs += after.runs - then.runs;
    }
    Ok((result, by_name.into_values().filter(|time| time.runs > 0.0).collect()))
}

/// Every program, by its id.
fn programs() -> Result<BTreeMap<u32, Time>> {
    let mut programs = BTreeMap::new();
    let mut last = 0;
    loop {
        #[repr(C)]
        struct Next {
            last: u32,
            next: u32,
            flags: u32,
        }
        let mut next = Next { last, next: 0, flags: 0 };
        if call(NEXT_ID, &mut next).is_err() {
            return Ok(programs);
        }
        last = next.next;
        // One that has gone meanwhile is not of interest.
        if let Some(time) = program(last)? {
            programs.insert(last, time);
        }
    }
}

fn program(id: u32) -> Result<Option<Time>> {
    #[repr(C)]
    struct Info {
        program: u32,
        length: u32,
        info: u64,
    }
    let Ok(program) = make(BY_ID, &mut [id, 0, 0]) else { return Ok(None) };
    let mut info = [0u8; LENGTH];
    let mut attr = Info { program: number(&program), length: LENGTH as u32, info: info.as_mut_ptr() as u64 };
    call(INFO, &mut attr).with_context(|| format!("ask about the program {id}"))?;
    let name = String::from_utf8_lossy(&info[NAME]).trim_end_matches('\0').to_owned();
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&info[at..at + 8]);
        u64::from_ne_bytes(word) as f64
    };
    Ok(Some(Time { name, nanoseconds: word(TIME), runs: word(RUNS) }))
}
