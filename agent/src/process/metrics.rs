//! The process's metrics: one registry, handed down, in which each subsystem registers under a prefix of its own; and
//! the metrics of the process itself. There are no global metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Handle of the registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        Self { registry: Arc::new(Mutex::new(registry)) }
    }
}

impl Metrics {
    /// Lets a subsystem register its metrics below `pagurus_agent_<prefix>_`.
    pub fn register(&self, prefix: &str, register: impl FnOnce(&mut Registry)) {
        register(self.registry.lock().sub_registry_with_prefix(format!("pagurus_agent_{prefix}")));
    }

    /// Lets a subsystem register metrics whose whole names are fixed by what others expect (`kubelet_...`).
    pub fn register_unprefixed(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        match prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()) {
            Ok(()) => text,
            Err(error) => {
                text.clear();
                // A formatter error from a String cannot happen but through a collector; say it where it is read.
                let _ = writeln!(text, "# encoding failed: {error}");
                text
            }
        }
    }
}

/// `process_*`, read from `/proc/self` when asked.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(process) = ProcessFigures::read() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_resident_memory_bytes", "Resident memory size", process.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Virtual memory size", process.virtual_bytes)?;
        gauge(
            "process_start_time_seconds",
            "Start time of the process since the epoch",
            process.start_seconds,
        )?;
        gauge("process_open_fds", "Open file descriptors", process.open_fds)?;
        gauge("process_threads", "Threads of the process", process.threads)?;
        let cpu = ConstCounter::new(process.cpu_seconds);
        let help = "User and system CPU time spent";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)
    }
}

#[derive(Debug, PartialEq)]
struct ProcessFigures {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    threads: f64,
    start_seconds: f64,
    open_fds: f64,
}

impl ProcessFigures {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let open_fds = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Self::parse(&stat, boot, open_fds, ticks as f64, page as f64)
    }

    /// Takes the figures from the text of `/proc/self/stat`.
    fn parse(stat: &str, boot: f64, open_fds: usize, ticks: f64, page: f64) -> Option<Self> {
        // The name of the process is in parentheses and may contain anything; the fields after it are numbered from 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            threads: field(20)?,
            start_seconds: boot + field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
            open_fds: open_fds as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_an_odd_name() {
        let stat =
            "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1000 8192 25 18446744073709551615";
        assert_eq!(
            ProcessFigures::parse(stat, 5000.0, 9, 100.0, 4096.0),
            Some(ProcessFigures {
                cpu_seconds: 2.0,
                resident_bytes: 102_400.0,
                virtual_bytes: 8192.0,
                threads: 3.0,
                start_seconds: 5010.0,
                open_fds: 9.0,
            })
        );
        assert_eq!(ProcessFigures::parse("nonsense", 0.0, 0, 1.0, 1.0), None);
    }

    #[test]
    fn text_has_process_and_subsystem_metrics() {
        let metrics = Metrics::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        metrics
            .register("events", |registry| registry.register("dropped", "Events dropped", counter.clone()));
        counter.inc();
        let text = metrics.encode();
        assert!(text.contains("pagurus_agent_events_dropped_total 1"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
