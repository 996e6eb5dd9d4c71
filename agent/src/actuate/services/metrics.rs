//! Figures of the Service maps.
//!
//! Must not know: watches.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use pagurus_agent_core::addr::BackendId;
use pagurus_agent_core::services::plan::{Grown, ServiceNumber, Table};
use pagurus_agent_datapath::load::Counts;
use pagurus_agent_datapath::services::{KernelMaps, ServiceCounts, Stats};

use super::balancer::{Balancer, Owner};
use crate::process::metrics::Metrics;

/// Seconds; close together up to 5 ms, which a change may take at most.
const BUCKETS: [f64; 26] = [
    0.000_05, 0.000_1, 0.000_15, 0.000_2, 0.000_25, 0.000_3, 0.000_4, 0.000_5, 0.000_75, 0.001, 0.001_25,
    0.001_5, 0.002, 0.002_5, 0.003, 0.003_5, 0.004, 0.004_5, 0.005, 0.006, 0.008, 0.01, 0.02, 0.05, 0.2, 1.0,
];

/// What is counted in user space.
#[derive(Clone, Debug)]
pub(super) struct ServiceMetrics {
    /// From the arrival of a change, before it is decoded, until the maps are written.
    pub(super) event_to_maps: Histogram,
    /// Map operations carried out.
    pub(super) operations: Counter,
    /// Services or node addresses that could not be written.
    pub(super) failures: Counter,
    frontends: Gauge,
    slots: Gauge,
    backends: Gauge,
    unwritten: Gauge,
    fill: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
}

impl ServiceMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register_unprefixed(|registry| {
            registry.register(
                "pagurus_dataplane_sync_duration_seconds",
                "From the arrival of a change of a Service or EndpointSlice until its last map entry is written",
                this.event_to_maps.clone(),
            );
        });
        metrics.register("services", |registry| {
            registry.register("map_operations", "Map operations carried out", this.operations.clone());
            registry.register("failures", "Services that could not be written", this.failures.clone());
            registry.register("frontends", "Entries of the services map", this.frontends.clone());
            registry.register("slots", "Entries of the slots map", this.slots.clone());
            registry.register("backends", "Entries of the backends map", this.backends.clone());
            registry.register(
                "map_fill",
                "How full each map is, from 0 to 1; it grows before it is full",
                this.fill.clone(),
            );
            registry.register("unwritten", "Services that wait to be written again", this.unwritten.clone());
        });
        this
    }

    /// Takes over the fill of the maps.
    pub(super) fn observe_table(&self, table: &Table, unwritten: usize) {
        let used = table.used();
        let set = |gauge: &Gauge, value: u32| gauge.set(i64::from(value));
        set(&self.frontends, used.services);
        set(&self.slots, used.slots);
        set(&self.backends, used.backends);
        set(&self.unwritten, u32::try_from(unwritten).unwrap_or(u32::MAX));
        let capacity = table.capacity();
        for map in Grown::ALL {
            let fill = f64::from(used.of(map)) / f64::from(capacity.of(map).max(1));
            self.fill.get_or_create(&[("map", map.name())]).set(fill);
        }
    }
}

impl Default for ServiceMetrics {
    fn default() -> Self {
        Self {
            event_to_maps: Histogram::new(BUCKETS),
            operations: Counter::default(),
            failures: Counter::default(),
            frontends: Gauge::default(),
            slots: Gauge::default(),
            backends: Gauge::default(),
            unwritten: Gauge::default(),
            fill: Family::default(),
        }
    }
}

/// Shows what the programs count, whenever the metrics are asked for.
pub(super) fn register_counters(
    metrics: &Metrics,
    balancer: &Arc<Mutex<Balancer<KernelMaps>>>,
    programs: Counts,
) {
    let collector = Counted { balancer: balancer.clone(), programs };
    metrics.register("datapath", |registry| registry.register_collector(Box::new(collector)));
}

struct Counted {
    balancer: Arc<Mutex<Balancer<KernelMaps>>>,
    programs: Counts,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted").finish_non_exhaustive()
    }
}

/// Something with labels, and how often it was counted.
type Row = (Vec<(&'static str, String)>, u64);

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.balancer.lock().maps.stats();
        let counts = Counted::read(&stats, |asked| self.balancer.lock().owners(asked));
        for (name, value) in or_told("the counters of the socket programs", self.programs.counters()) {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(
                name,
                "Counted by the socket programs",
                None,
                kind,
            )?)?;
        }
        let drops = or_told("the counters of drops", self.programs.drops()).into_iter();
        let drops = drops.map(|(reason, count)| (vec![("reason", reason.to_owned())], count)).collect();
        for (name, help, rows) in [
            ("drops", "Packets dropped or refused, by reason", drops),
            ("service_connections", "Connections, and flows of datagrams, by Service", counts.connections),
            ("service_refused", "Connections refused for want of an endpoint, by Service", counts.refused),
            ("service_dropped", "Connections dropped for a policy, by Service", counts.dropped),
            ("backend_connections", "Connections, and flows of datagrams, by endpoint", counts.backends),
        ] {
            let kind = ConstCounter::new(0u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, value) in &rows {
                ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
            }
        }
        let fills = self.fills();
        for (name, help, of) in [
            ("map_entries", "Entries of each map; of those that are written all the time about", 0),
            (
                "map_capacity",
                "Entries that each map has room for; those of Services grow before they are full",
                1,
            ),
        ] {
            let kind = ConstGauge::new(0u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (map, fill) in &fills {
                ConstGauge::new(fill[of]).encode(family.encode_family(&[("map", *map)])?)?;
            }
        }
        let warm = self.programs.warm();
        for (name, help, value) in [
            (
                "warm_fill",
                "How full the table of flows that XDP has at hand is, from 0 to 1: those of about the last second, by a sample; when it is \
                 full, flows drive each other out and take the longer way",
                or_told("the flows that XDP has at hand", warm.fill().map(Some)).unwrap_or(f64::NAN),
            ),
            ("warm_capacity", "Flows that it has room for", warm.capacity() as f64),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let bytes = ConstGauge::new(map_bytes());
        let help = "Memory of the kernel in the maps that this agent holds";
        bytes.encode(encoder.encode_descriptor("map_bytes", help, None, bytes.metric_type())?)
    }
}

/// What could be read; what could not is told.
fn or_told<T: Default>(what: &str, read: Result<T, impl std::error::Error + 'static>) -> T {
    read.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "{what} cannot be read for the metrics");
        T::default()
    })
}

/// What the maps say. Services and endpoints of which nothing was counted are left out: most are, on most nodes.
#[derive(Debug, Default)]
struct ServiceRows {
    connections: Vec<Row>,
    refused: Vec<Row>,
    dropped: Vec<Row>,
    backends: Vec<Row>,
}

/// So many Services are asked about at once: the balancer is kept from its work for as long as it takes to answer that.
const TOGETHER: usize = 64;

impl Counted {
    /// Entries of each map, and how many it has room for.
    fn fills(&self) -> Vec<(&'static str, [u64; 2])> {
        let (used, capacity) = {
            let table = &self.balancer.lock().table;
            (table.used(), table.capacity())
        };
        let grown = Grown::ALL.map(|map| (map.name(), [used.of(map).into(), capacity.of(map).into()]));
        let fixed = self.programs.fills().into_iter().filter_map(|(map, fill)| {
            let fill = or_told(map, fill.map(Some))?;
            Some((map, [fill.entries, fill.capacity.into()]))
        });
        grown.into_iter().chain(fixed).collect()
    }

    /// Reads the counters without any lock; only whose they are is asked of the balancer, `owners`, for a few at a time.
    fn read(stats: &Stats, mut owners: impl FnMut(&[ServiceNumber]) -> Vec<Option<Owner>>) -> ServiceRows {
        let mut rows = ServiceRows::default();
        let counted: Vec<_> = stats.services().collect();
        for counted in counted.chunks(TOGETHER) {
            let numbers: Vec<ServiceNumber> = counted.iter().map(|(number, _)| *number).collect();
            for ((_, counts), owner) in counted.iter().zip(owners(&numbers)) {
                if let Some(owner) = owner {
                    rows.add(counts, &owner, |id| stats.backend(id));
                }
            }
        }
        rows
    }
}

impl ServiceRows {
    fn add(&mut self, counts: &ServiceCounts, owner: &Owner, of_backend: impl Fn(BackendId) -> u64) {
        let name = &owner.name;
        let labels = || vec![("namespace", name.namespace.to_string()), ("service", name.name.to_string())];
        for (rows, count) in [
            (&mut self.connections, counts.connections),
            (&mut self.refused, counts.refused),
            (&mut self.dropped, counts.dropped),
        ] {
            if count > 0 {
                rows.push((labels(), count));
            }
        }
        for (id, backend) in &owner.members {
            let count = of_backend(*id);
            if count > 0 {
                let mut labels = labels();
                labels.push(("backend", backend.to_string()));
                self.backends.push((labels, count));
            }
        }
    }
}

/// What the kernel says the maps behind this process's descriptors take.
fn map_bytes() -> f64 {
    let entries = or_told("the memory of maps", std::fs::read_dir("/proc/self/fdinfo").map(Some));
    let Some(entries) = entries else { return f64::NAN };
    // A descriptor that was closed meanwhile is none.
    sum_of_maps(entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok())) as f64
}

/// The bytes of all maps, each once, from what `/proc` says of descriptors.
fn sum_of_maps(texts: impl Iterator<Item = String>) -> u64 {
    let mut maps = std::collections::BTreeMap::new();
    for text in texts {
        let of = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            value.trim().parse::<u64>().ok()
        };
        if let Some((id, bytes)) = of("map_id").zip(of("memlock")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_map_is_counted_once() {
        let map = |id: u64, bytes: u64| format!("pos:\t0\nmap_type:\t1\nmemlock:\t{bytes}\nmap_id:\t{id}\n");
        let program = "prog_type:\t18\nmemlock:\t4096\nprog_id:\t7\n".to_owned();
        assert_eq!(sum_of_maps([map(1, 100), program, map(2, 20), map(1, 100)].into_iter()), 120);
        assert_eq!(sum_of_maps(std::iter::empty()), 0);
    }

    #[test]
    fn what_was_not_counted_is_not_shown() {
        let mut rows = ServiceRows::default();
        let backend = |last: u8| pagurus_agent_core::addr::Backend {
            ip: [10, 0, 0, last].into(),
            port: 80,
            protocol: pagurus_agent_core::addr::Protocol::Tcp,
        };
        let owner = Owner {
            name: pagurus_agent_core::services::ServiceName::new("ns", "web"),
            members: vec![(BackendId(1), backend(1)), (BackendId(2), backend(2))],
        };
        let counts = ServiceCounts { connections: 3, refused: 0, dropped: 1 };
        rows.add(&counts, &owner, |id| if id == BackendId(2) { 3 } else { 0 });
        assert_eq!((rows.connections.len(), rows.refused.len(), rows.dropped.len()), (1, 0, 1));
        let labels = [("namespace", "ns"), ("service", "web"), ("backend", "10.0.0.2:80/TCP")];
        let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
        assert_eq!(rows.backends, [(labels, 3)]);
    }
}
