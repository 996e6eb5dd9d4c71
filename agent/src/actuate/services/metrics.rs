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
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use pagurus_agent_core::services::plan::{Grown, Table};
use pagurus_agent_datapath::Datapath;

use super::balancer::Balancer;
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
pub(super) fn register_counters(metrics: &Metrics, balancer: &Arc<Mutex<Balancer<Datapath>>>) {
    let collector = Counted { balancer: balancer.clone() };
    metrics.register("datapath", |registry| registry.register_collector(Box::new(collector)));
}

struct Counted {
    balancer: Arc<Mutex<Balancer<Datapath>>>,
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
        let counts = Counts::read(&mut self.balancer.lock());
        for (name, value) in counts.programs {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(
                name,
                "Counted by the socket programs",
                None,
                kind,
            )?)?;
        }
        for (name, help, rows) in [
            ("drops", "Packets dropped or refused, by reason", counts.drops),
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
        Ok(())
    }
}

/// What the maps say. Services and endpoints of which nothing was counted are left out: most are, on most nodes.
#[derive(Default)]
struct Counts {
    programs: Vec<(&'static str, u64)>,
    drops: Vec<Row>,
    connections: Vec<Row>,
    refused: Vec<Row>,
    dropped: Vec<Row>,
    backends: Vec<Row>,
}

impl Counts {
    fn read(balancer: &mut Balancer<Datapath>) -> Self {
        let mut counts = Self { programs: balancer.maps.counters().unwrap_or_default(), ..Self::default() };
        let drops = balancer.maps.drops().unwrap_or_default();
        counts.drops =
            drops.into_iter().map(|(reason, count)| (vec![("reason", reason.to_owned())], count)).collect();
        let maps = balancer.maps.services();
        for (number, name) in balancer.table.numbers() {
            let service = maps.service_counts(number);
            if service.connections + service.refused + service.dropped == 0 {
                continue;
            }
            let labels =
                || vec![("namespace", name.namespace.to_string()), ("service", name.name.to_string())];
            for (rows, count) in [
                (&mut counts.connections, service.connections),
                (&mut counts.refused, service.refused),
                (&mut counts.dropped, service.dropped),
            ] {
                if count > 0 {
                    rows.push((labels(), count));
                }
            }
            for (id, backend) in balancer.table.members(name) {
                let count = maps.backend_connections(id);
                if count > 0 {
                    let mut labels = labels();
                    labels.push(("backend", backend.to_string()));
                    counts.backends.push((labels, count));
                }
            }
        }
        counts
    }
}
