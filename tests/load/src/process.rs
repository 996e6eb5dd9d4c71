//! What processes take of the machine: CPU time, memory; and how busy the machine is with others.
//!
//! Must not know: what the processes are.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// CPU seconds that processes have used, all their threads, those that have ended included.
///
/// # Errors
/// One of them does not run.
pub fn cpu(pids: &[i32]) -> Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let mut clock = 0;
        // SAFETY: both calls only write to the places given.
        let time = unsafe {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            if libc::clock_getcpuclockid(*pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0
            {
                bail!("process {pid} does not run any more");
            }
            time
        };
        sum += time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    }
    Ok(sum)
}

/// Resident megabytes (10^6 bytes) of processes.
///
/// # Errors
/// One of them does not run.
pub fn resident(pids: &[i32]) -> Result<f64> {
    field(pids, "VmRSS:")
}

/// The most resident megabytes that processes had since [`forget_peak`].
///
/// # Errors
/// One of them does not run.
pub fn peak(pids: &[i32]) -> Result<f64> {
    field(pids, "VmHWM:")
}

/// Has [`peak`] begin anew.
///
/// # Errors
/// One of them does not run, or is not ours to change.
pub fn forget_peak(pids: &[i32]) -> Result<()> {
    for pid in pids {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")
            .with_context(|| format!("cannot reset the peak of process {pid}"))?;
    }
    Ok(())
}

fn field(pids: &[i32], name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("cannot read the memory of process {pid}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        sum += kib * 1024.0 / 1e6;
    }
    Ok(sum)
}

/// What was used from some time on.
pub struct Meter {
    pids: Vec<i32>,
    start: Instant,
    theirs: f64,
    own: f64,
    all: f64,
}

/// What was used in a time.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Seconds.
    pub wall: f64,
    /// CPU seconds of the processes measured.
    pub cpu: f64,
    /// CPU seconds of this process.
    pub own: f64,
    /// How many of the machine's cores all other processes used on average.
    pub others: f64,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// A process does not run.
    pub fn start(pids: &[i32]) -> Result<Self> {
        Ok(Self {
            pids: pids.to_vec(),
            start: Instant::now(),
            theirs: cpu(pids)?,
            own: cpu(&[std::process::id() as i32])?,
            all: busy()?,
        })
    }

    /// What was used since the start.
    ///
    /// # Errors
    /// A process does not run any more.
    pub fn read(&self) -> Result<Used> {
        let wall = self.start.elapsed().as_secs_f64();
        let cpu_used = cpu(&self.pids)? - self.theirs;
        let own = cpu(&[std::process::id() as i32])? - self.own;
        let others = (busy()? - self.all - cpu_used - own).max(0.0) / wall;
        Ok(Used { wall, cpu: cpu_used, own, others })
    }
}

/// CPU seconds that the machine has been busy.
fn busy() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy =
        ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, t)| t).sum::<f64>();
    Ok(busy / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_counted() {
        let me = [std::process::id() as i32];
        let meter = Meter::start(&me).expect("this process runs");
        let mut sum = 0u64;
        while meter.start.elapsed().as_millis() < 50 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let used = meter.read().expect("this process runs");
        assert!(used.cpu > 0.005 && used.wall >= 0.05, "{used:?}");
        assert!(resident(&me).expect("this process runs") > 0.1);
        assert!(cpu(&[4_194_303]).is_err());
    }
}
