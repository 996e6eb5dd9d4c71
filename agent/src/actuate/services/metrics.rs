//! Figures of the Service maps.
//!
//! Must not know: watches.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use pagurus_agent_core::services::plan::Table;

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
        }
    }
}

/// Shows the programs' own counters; `read` is called when the metrics are asked for.
pub(super) fn register_counters(
    metrics: &Metrics,
    read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
) {
    metrics.register("datapath", |registry| {
        registry.register_collector(Box::new(ProgramCounters { read: Box::new(read) }));
    });
}

type Read = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

struct ProgramCounters {
    read: Box<Read>,
}

impl std::fmt::Debug for ProgramCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgramCounters").finish_non_exhaustive()
    }
}

impl Collector for ProgramCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, value) in (self.read)() {
            let counter = ConstCounter::new(value);
            let descriptor = encoder.encode_descriptor(
                name,
                "Counted by the socket programs",
                None,
                counter.metric_type(),
            )?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}
