//! Usage of the node and its pods: `/stats/summary` and `/metrics/resource`, which autoscalers and `kubectl top` live on.
//! Looked up when asked; it must not keep anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use pagurus_agent_core::names::runtime;
use pagurus_cri_api::{Result, v1};
use serde_json::{Value, json};

use super::reply::Refusal;
use crate::config::NodeContext;
use crate::observe::machine;

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq)]
struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    /// Seconds since the epoch.
    started: f64,
    /// Milliseconds since the epoch.
    at: i64,
    cpu_seconds: f64,
    nano_cores: Option<u64>,
    working_set: u64,
    memory_usage: Option<u64>,
    disk: Option<u64>,
}

async fn usages(context: &NodeContext) -> Result<Vec<Usage>> {
    let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let filter = v1::ContainerFilter { state: Some(state), ..v1::ContainerFilter::default() };
    let (stats, running) = tokio::try_join!(
        context.runtime.list_container_stats(None),
        context.runtime.list_containers(Some(filter))
    )?;
    let started: BTreeMap<&str, i64> =
        running.iter().map(|container| (container.id.as_str(), container.created_at)).collect();
    let mut usages: Vec<Usage> = stats.into_iter().filter_map(|stats| usage(stats, &started)).collect();
    usages.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
    Ok(usages)
}

/// The usage of one container, if it runs and is a pod's.
fn usage(stats: v1::ContainerStats, started: &BTreeMap<&str, i64>) -> Option<Usage> {
    let attributes = stats.attributes?;
    let created = started.get(attributes.id.as_str())?;
    let label = |name: &str| attributes.labels.get(name).cloned();
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    let value = |value: &Option<v1::UInt64Value>| value.as_ref().map(|value| value.value);
    Some(Usage {
        namespace: label(runtime::POD_NAMESPACE)?,
        pod: label(runtime::POD_NAME)?,
        uid: label(runtime::POD_UID)?,
        container: label(runtime::CONTAINER_NAME)?,
        started: *created as f64 / 1e9,
        at: cpu.timestamp.max(memory.timestamp) / 1_000_000,
        cpu_seconds: value(&cpu.usage_core_nano_seconds).unwrap_or(0) as f64 / 1e9,
        nano_cores: value(&cpu.usage_nano_cores),
        working_set: value(&memory.working_set_bytes).unwrap_or(0),
        memory_usage: value(&memory.usage_bytes),
        disk: stats.writable_layer.as_ref().and_then(|layer| value(&layer.used_bytes)),
    })
}

/// What the node as a whole uses.
fn node_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    busy_ticks(&stat) as f64 / ticks as f64
}

/// All but idle time, of the first line of `/proc/stat`: user nice system idle iowait irq softirq steal.
fn busy_ticks(stat: &str) -> u64 {
    let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let numbers = numbers.enumerate().filter(|(field, _)| !matches!(field, 3 | 4));
    numbers.filter_map(|(_, number)| number.parse::<u64>().ok()).sum()
}

/// `/metrics/resource`: what the resource metrics pipeline scrapes.
pub(super) async fn resource_metrics(context: &NodeContext) -> String {
    let (usages, failed) = match usages(context).await {
        Ok(usages) => (usages, 0),
        Err(error) => {
            tracing::warn!(%error, "the runtime does not tell the containers' usage");
            (Vec::new(), 1)
        }
    };
    let memory = machine::MemInfo::read();
    let now = Timestamp::now().as_millisecond();
    let mut text = String::with_capacity(4096);
    let mut family = |name: &str, help: &str, kind: &str, lines: &mut dyn Iterator<Item = String>| {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for line in lines {
            let _ = writeln!(text, "{name}{line}");
        }
    };
    let of_container = |usage: &Usage, value: f64| {
        let Usage { namespace, pod, container, at, .. } = usage;
        format!("{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {value} {at}")
    };
    family(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
        "counter",
        &mut usages.iter().map(|usage| of_container(usage, usage.cpu_seconds)),
    );
    family(
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes",
        "gauge",
        &mut usages.iter().map(|usage| of_container(usage, usage.working_set as f64)),
    );
    family(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
        "gauge",
        &mut usages.iter().map(|usage| {
            let Usage { namespace, pod, container, started, .. } = usage;
            format!("{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} {started}")
        }),
    );
    family(
        "node_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the node in core-seconds",
        "counter",
        &mut std::iter::once(format!(" {} {now}", node_cpu_seconds())),
    );
    family(
        "node_memory_working_set_bytes",
        "Current working set of the node in bytes",
        "gauge",
        &mut std::iter::once(format!(" {} {now}", memory.total.saturating_sub(memory.available))),
    );
    let of_pod = |usage: &Usage, cpu: f64| {
        let Usage { namespace, pod, at, .. } = usage;
        format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}} {cpu} {at}")
    };
    let pods = by_pod(&usages);
    family(
        "pod_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the pod in core-seconds",
        "counter",
        &mut pods.iter().map(|pod| of_pod(pod[0], pod.iter().map(|usage| usage.cpu_seconds).sum())),
    );
    family(
        "pod_memory_working_set_bytes",
        "Current working set of the pod in bytes",
        "gauge",
        &mut pods.iter().map(|pod| of_pod(pod[0], pod.iter().map(|usage| usage.working_set as f64).sum())),
    );
    family(
        "resource_scrape_error",
        "1 if there was an error while getting container metrics, 0 otherwise",
        "gauge",
        &mut std::iter::once(format!(" {failed}")),
    );
    text
}

/// The usages of each pod together; no group is empty.
fn by_pod(usages: &[Usage]) -> Vec<Vec<&Usage>> {
    let mut pods: BTreeMap<&str, Vec<&Usage>> = BTreeMap::new();
    for usage in usages {
        pods.entry(&usage.uid).or_default().push(usage);
    }
    pods.into_values().collect()
}

/// `/stats/summary`.
pub(super) async fn summary(context: &NodeContext) -> std::result::Result<Value, Refusal> {
    let usages = usages(context).await.map_err(|error| Refusal::internal(error.to_string()))?;
    let now = Timestamp::now().to_string();
    let memory = machine::MemInfo::read();
    let mut node = json!({
        "nodeName": context.node_name,
        "cpu": {"time": now, "usageCoreNanoSeconds": (node_cpu_seconds() * 1e9) as u64},
        "memory": {
            "time": now,
            "availableBytes": memory.available,
            "workingSetBytes": memory.total.saturating_sub(memory.available),
        },
    });
    if let Some(fs) = machine::filesystem(&context.config.root_dir) {
        node["fs"] = json!({
            "time": now, "capacityBytes": fs.bytes, "availableBytes": fs.available,
            "usedBytes": fs.bytes.saturating_sub(fs.available), "inodes": fs.inodes, "inodesFree": fs.inodes_free,
        });
    }
    let pods: Vec<Value> = by_pod(&usages).into_iter().map(|pod| pod_summary(&pod)).collect();
    Ok(json!({"node": node, "pods": pods}))
}

fn pod_summary(containers: &[&Usage]) -> Value {
    let first = containers[0];
    let (cpu, working_set) =
        containers.iter().fold((0.0, 0), |(cpu, memory), c| (cpu + c.cpu_seconds, memory + c.working_set));
    let at = time(first.at);
    let started = containers.iter().map(|container| container.started).fold(f64::INFINITY, f64::min);
    json!({
        "podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.uid},
        "startTime": time((started * 1e3) as i64),
        "containers": containers.iter().map(|container| container_summary(container)).collect::<Vec<_>>(),
        "cpu": {"time": at, "usageCoreNanoSeconds": (cpu * 1e9) as u64},
        "memory": {"time": at, "workingSetBytes": working_set},
    })
}

fn container_summary(usage: &Usage) -> Value {
    let at = time(usage.at);
    let mut summary = json!({
        "name": usage.container,
        "startTime": time((usage.started * 1e3) as i64),
        "cpu": {"time": at, "usageCoreNanoSeconds": (usage.cpu_seconds * 1e9) as u64},
        "memory": {"time": at, "workingSetBytes": usage.working_set},
    });
    if let Some(nano_cores) = usage.nano_cores {
        summary["cpu"]["usageNanoCores"] = nano_cores.into();
    }
    if let Some(bytes) = usage.memory_usage {
        summary["memory"]["usageBytes"] = bytes.into();
    }
    if let Some(bytes) = usage.disk {
        summary["rootfs"] = json!({"time": at, "usedBytes": bytes});
    }
    summary
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_all_but_idle() {
        assert_eq!(busy_ticks("cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 9 9 9\n"), 21);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn usages_of_running_containers_of_pods() {
        let labels = [
            (runtime::POD_NAMESPACE, "ns"),
            (runtime::POD_NAME, "p"),
            (runtime::POD_UID, "u"),
            (runtime::CONTAINER_NAME, "c"),
        ];
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let attributes =
            v1::ContainerAttributes { id: "id".to_owned(), labels, ..v1::ContainerAttributes::default() };
        let cpu = v1::CpuUsage {
            timestamp: 5_000_000_000,
            usage_core_nano_seconds: Some(v1::UInt64Value { value: 2_500_000_000 }),
            ..v1::CpuUsage::default()
        };
        let stats = v1::ContainerStats {
            attributes: Some(attributes),
            cpu: Some(cpu),
            ..v1::ContainerStats::default()
        };
        let found = usage(stats.clone(), &BTreeMap::from([("id", 3_000_000_000)])).expect("runs");
        assert_eq!((found.cpu_seconds, found.at, found.started), (2.5, 5000, 3.0));
        assert_eq!(found.container, "c");
        assert_eq!(usage(stats, &BTreeMap::new()), None, "does not run");
        let summary = pod_summary(&[&found, &found]);
        assert_eq!(summary["cpu"]["usageCoreNanoSeconds"], 5_000_000_000_u64);
        assert_eq!(summary["startTime"], "1970-01-01T00:00:03Z");
    }
}
