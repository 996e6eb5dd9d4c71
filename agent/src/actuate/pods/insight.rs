//! What the pods' subsystem tells of itself: metrics under the names that tools expect of a kubelet, and the state for
//! `/debug/state`. Must not change anything.

use std::collections::BTreeMap;

use pagurus_agent_core::pods::ContainerState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};

use crate::observe::pods::{PodTable, PodView};
use crate::process::metrics::Metrics;

/// Seconds that tell a good start from a bad one.
const BUCKETS: [f64; 12] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 10.0, 60.0];

/// What workers measure.
#[derive(Clone)]
pub struct Insight {
    /// Seconds from first sight of a pod to all its containers running.
    pub(super) start: Histogram,
}

impl Default for Insight {
    fn default() -> Self {
        Self { start: Histogram::new(BUCKETS) }
    }
}

impl Insight {
    /// What workers measure, registered together with what the table shows.
    pub fn register(metrics: &Metrics, table: &PodTable) -> Self {
        let this = Self::default();
        metrics.register_unprefixed(|registry| {
            let help = "Time from first sight of a pod to all its containers running";
            registry.register("kubelet_pod_start_duration_seconds", help, this.start.clone());
            registry.register_collector(Box::new(Counts { table: table.clone() }));
        });
        this
    }
}

#[derive(Debug)]
struct Counts {
    table: PodTable,
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let pods = self.table.all();
        let mut states: BTreeMap<&str, i64> =
            BTreeMap::from([("created", 0), ("running", 0), ("exited", 0), ("unknown", 0)]);
        for container in pods.iter().flat_map(|view| &view.observed.containers) {
            *states.entry(state(&container.state)).or_default() += 1;
        }
        let running = pods.iter().filter(|view| view.observed.ready_sandbox().is_some()).count();
        let gauge = ConstGauge::new(i64::try_from(running).unwrap_or(i64::MAX));
        let help = "Number of pods that have a running sandbox";
        gauge.encode(encoder.encode_descriptor(
            "kubelet_running_pods",
            help,
            None,
            gauge.metric_type(),
        )?)?;
        let kind = ConstGauge::new(0_i64).metric_type();
        let help = "Number of containers by state";
        let mut family = encoder.encode_descriptor("kubelet_running_containers", help, None, kind)?;
        for (state, count) in states {
            let labels = [("container_state", state)];
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn state(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited(_) => "exited",
        ContainerState::Unknown => "unknown",
    }
}

/// All pods, for `/debug/state`.
pub(super) fn debug_state(table: &PodTable) -> Value {
    table
        .all()
        .iter()
        .map(|view| (view.pod.name.to_string(), of_pod(view)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn of_pod(view: &PodView) -> Value {
    let containers = view.observed.containers.iter().map(|found| {
        json!({"id": found.id, "name": found.name, "attempt": found.attempt, "state": state(&found.state)})
    });
    let sandboxes = view.observed.sandboxes.iter().map(|found| json!({"id": found.id, "ready": found.ready}));
    json!({
        "desired": {
            "uid": view.pod.uid.as_str(),
            "resourceVersion": view.pod.resource_version,
            "terminating": view.pod.is_terminating(),
            "containers": view.pod.containers().map(|(_, container)| &*container.name).collect::<Vec<_>>(),
        },
        "observed": {"sandboxes": sandboxes.collect::<Vec<_>>(), "containers": containers.collect::<Vec<_>>()},
        "pending": view.pending,
    })
}
