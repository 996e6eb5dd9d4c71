//! Limits and requests of containers: what the kernel is told, the quality of service that follows from them, and the
//! values that environment and files can show. Must not know cgroups' files.

use std::collections::BTreeMap;

use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use super::spec::{Container, Pod, ResourceReference, Resources};

/// The quality of service of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some container has a limit or request.
    Burstable,
    /// None has.
    BestEffort,
}

impl Qos {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// What one container asks of CPU (thousandths) and memory (bytes). `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Promised CPU.
    pub cpu_request: Option<i64>,
    /// Most CPU.
    pub cpu_limit: Option<i64>,
    /// Promised memory.
    pub memory_request: Option<i64>,
    /// Most memory.
    pub memory_limit: Option<i64>,
}

/// What the kernel is told about one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLimits {
    /// Weight.
    pub cpu_shares: i64,
    /// Microseconds per period; 0 is without limit.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Bytes; 0 is without limit.
    pub memory_limit: i64,
    /// Who dies first when memory is short.
    pub oom_score_adj: i64,
}

const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1_000;

fn quantity(values: &BTreeMap<String, Value>, name: &str) -> Option<Quantity> {
    Quantity::from_json(values.get(name)?).ok()
}

fn milli(values: &BTreeMap<String, Value>, name: &str) -> Option<i64> {
    quantity(values, name).map(|found| i64::try_from(found.milli_value()).unwrap_or(i64::MAX))
}

fn whole(values: &BTreeMap<String, Value>, name: &str) -> Option<i64> {
    quantity(values, name).map(|found| found.value())
}

/// What these resources ask for; a request that is not given equals the limit.
pub fn ask(resources: &Resources) -> Ask {
    let cpu_limit = milli(&resources.limits, "cpu").filter(|v| *v > 0);
    let memory_limit = whole(&resources.limits, "memory").filter(|v| *v > 0);
    Ask {
        cpu_request: milli(&resources.requests, "cpu").or(cpu_limit),
        cpu_limit,
        memory_request: whole(&resources.requests, "memory").or(memory_limit),
        memory_limit,
    }
}

/// The quality of service of a pod.
pub fn qos(pod: &Pod) -> Qos {
    let own = !pod.spec.resources.limits.is_empty() || !pod.spec.resources.requests.is_empty();
    let asks: Vec<Ask> = if own {
        vec![ask(&pod.spec.resources)]
    } else {
        pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|c| ask(&c.resources)).collect()
    };
    let positive = |value: Option<i64>| value.filter(|v| *v > 0);
    let nothing = |a: &Ask| {
        let all = [a.cpu_request, a.cpu_limit, a.memory_request, a.memory_limit];
        all.into_iter().all(|value| positive(value).is_none())
    };
    let full = |a: &Ask| {
        a.cpu_limit.is_some()
            && a.memory_limit.is_some()
            && a.cpu_limit == a.cpu_request
            && a.memory_limit == a.memory_request
    };
    if asks.iter().all(nothing) {
        Qos::BestEffort
    } else if asks.iter().all(full) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What the kernel is told about this container on a node with so many bytes of memory.
pub fn kernel_limits(pod: &Pod, container: &Container, node_memory: i64) -> KernelLimits {
    let asked = ask(&container.resources);
    KernelLimits {
        cpu_shares: asked.cpu_request.map_or(MIN_SHARES, shares),
        cpu_quota: asked.cpu_limit.map_or(0, |limit| (limit.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA)),
        cpu_period: PERIOD,
        memory_limit: asked.memory_limit.unwrap_or(0),
        oom_score_adj: oom_score(pod, &asked, node_memory),
    }
}

/// What the kernel is told about a pod as a whole. `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// Weight.
    pub cpu_shares: i64,
    /// Microseconds per [`PodLimits::cpu_period`].
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: i64,
    /// Bytes.
    pub memory_limit: Option<i64>,
}

/// What the kernel is told about this pod as a whole.
pub fn pod_limits(pod: &Pod) -> PodLimits {
    let asked = pod_ask(pod);
    let quality = qos(pod);
    PodLimits {
        cpu_shares: if quality == Qos::BestEffort {
            MIN_SHARES
        } else {
            shares(asked.cpu_request.unwrap_or(0))
        },
        cpu_quota: asked.cpu_limit.map(|limit| (limit.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA)),
        cpu_period: PERIOD,
        memory_limit: asked.memory_limit,
    }
}

/// What a pod asks for as a whole: its containers together with its sidecars, or what one of its init containers needs
/// beside the sidecars before it, whichever is more. A limit only if all containers have it.
pub fn pod_ask(pod: &Pod) -> Ask {
    let own = &pod.spec.resources;
    if !own.limits.is_empty() || !own.requests.is_empty() {
        return ask(own);
    }
    let mut sidecars = Ask { cpu_limit: Some(0), memory_limit: Some(0), ..Ask::default() };
    let mut most = Ask { cpu_limit: Some(0), memory_limit: Some(0), ..Ask::default() };
    for container in &pod.spec.init_containers {
        let asked = ask(&container.resources);
        let beside = sidecars.combine(&asked, |a, b| a.saturating_add(b));
        most = most.combine(&beside, i64::max);
        if super::spec::init_kind(container) == super::spec::ContainerKind::Sidecar {
            sidecars = beside;
        }
    }
    let all = pod.spec.containers.iter().map(|c| ask(&c.resources));
    let together = all.fold(sidecars, |sum, asked| sum.combine(&asked, |a, b| a.saturating_add(b)));
    let mut whole = together.combine(&most, i64::max);
    let overhead = |name| quantity(&pod.spec.overhead, name);
    if let Some(more) = overhead("cpu") {
        let more = i64::try_from(more.milli_value()).unwrap_or(i64::MAX);
        whole.cpu_request = Some(whole.cpu_request.unwrap_or(0).saturating_add(more));
        whole.cpu_limit = whole.cpu_limit.map(|limit| limit.saturating_add(more));
    }
    if let Some(more) = overhead("memory") {
        whole.memory_request = Some(whole.memory_request.unwrap_or(0).saturating_add(more.value()));
        whole.memory_limit = whole.memory_limit.map(|limit| limit.saturating_add(more.value()));
    }
    Ask {
        cpu_limit: whole.cpu_limit.filter(|v| *v > 0),
        memory_limit: whole.memory_limit.filter(|v| *v > 0),
        ..whole
    }
}

impl Ask {
    /// Requests that are missing count as nothing; a limit that is missing makes the result unlimited.
    fn combine(&self, other: &Self, with: impl Fn(i64, i64) -> i64) -> Self {
        let requests = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(with(a.unwrap_or(0), b.unwrap_or(0))),
        };
        let limits = |a: Option<i64>, b: Option<i64>| Some(with(a?, b?));
        Self {
            cpu_request: requests(self.cpu_request, other.cpu_request),
            cpu_limit: limits(self.cpu_limit, other.cpu_limit),
            memory_request: requests(self.memory_request, other.memory_request),
            memory_limit: limits(self.memory_limit, other.memory_limit),
        }
    }
}

/// The weight of so many thousandths of a CPU.
pub fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Never below 0: the agent may not be allowed to go there, and a guaranteed pod's -997 is still "last of all pods" as 0.
fn oom_score(pod: &Pod, asked: &Ask, node_memory: i64) -> i64 {
    match qos(pod) {
        Qos::Guaranteed => 0,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let memory = i128::from(asked.memory_request.unwrap_or(0));
            let part = memory * 1000 / i128::from(node_memory.max(1));
            i64::try_from(1000 - part).unwrap_or(0).clamp(3, 999)
        }
    }
}

/// Why a limit or request has no value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No such container.
    #[error("unable to find container {0}")]
    Container(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// The unit is not a quantity.
    #[error("divisor of {0} is not a quantity")]
    Divisor(String),
}

/// The value of a `resourceFieldRef`. A limit that is not set is what the node can give.
pub fn reference(
    pod: &Pod,
    own: Option<&Container>,
    reference: &ResourceReference,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, ReferenceError> {
    let container = match (reference.container_name.as_str(), own) {
        ("", Some(own)) => own,
        (name, _) => match pod.container(name) {
            Some((_, found)) => found,
            None => return Err(ReferenceError::Container(name.to_owned())),
        },
    };
    let unsupported = || ReferenceError::Resource(reference.resource.clone());
    let (side, name) = reference.resource.split_once('.').ok_or_else(unsupported)?;
    let values = match side {
        "limits" => &container.resources.limits,
        "requests" => &container.resources.requests,
        _ => return Err(unsupported()),
    };
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(unsupported());
    }
    let value = match (quantity(values, name), side) {
        (Some(value), _) if value.sign() > 0 => value,
        (_, "limits") => allocatable.get(name).cloned().unwrap_or_else(zero),
        _ => quantity(&container.resources.limits, name).unwrap_or_else(zero),
    };
    let divisor = match &reference.divisor {
        None => None,
        Some(given) => {
            let read = Quantity::from_json(given)
                .map_err(|_| ReferenceError::Divisor(reference.resource.clone()))?;
            Some(read).filter(|divisor| divisor.sign() > 0)
        }
    };
    Ok(divided(&value, divisor.as_ref(), name).to_string())
}

fn zero() -> Quantity {
    Quantity::from_value(0, pagurus_controlplane_api::quantity::Format::DecimalSi)
}

/// Rounded up, in units of the divisor (1 without one).
fn divided(value: &Quantity, divisor: Option<&Quantity>, name: &str) -> i128 {
    let unit = divisor.map_or(1000, |d| d.milli_value().max(1));
    let value = if name == "cpu" { value.milli_value() } else { i128::from(value.value()) * 1000 };
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(resources: Value) -> Container {
        Container {
            name: "c".into(),
            resources: serde_json::from_value(resources).unwrap(),
            ..Default::default()
        }
    }

    fn pod(containers: Vec<Container>) -> Pod {
        let mut pod = Pod::default();
        pod.spec.containers = containers;
        pod
    }

    #[test]
    fn qualities() {
        let both = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        for (resources, expected) in [
            (vec![json!({})], Qos::BestEffort),
            (vec![both.clone()], Qos::Guaranteed),
            (
                vec![
                    json!({"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": 1, "memory": "1024Mi"}}),
                ],
                Qos::Guaranteed,
            ),
            (vec![json!({"limits": {"cpu": "1"}})], Qos::Burstable),
            (vec![both.clone(), json!({})], Qos::Burstable),
            (vec![json!({"requests": {"memory": "1Mi"}})], Qos::Burstable),
            (vec![json!({"requests": {"cpu": "0"}})], Qos::BestEffort),
        ] {
            let text = format!("{resources:?}");
            assert_eq!(qos(&pod(resources.into_iter().map(container).collect())), expected, "{text}");
        }
    }

    #[test]
    fn kernel() {
        let c = container(
            json!({"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}}),
        );
        let limits = kernel_limits(&pod(vec![c.clone()]), &c, 1 << 30);
        let expected = KernelLimits {
            cpu_shares: 102,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory_limit: 64 << 20,
            oom_score_adj: 969,
        };
        assert_eq!(limits, expected);
        let none = container(json!({}));
        let limits = kernel_limits(&pod(vec![none.clone()]), &none, 1 << 30);
        assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.oom_score_adj), (2, 0, 1000));
    }

    #[test]
    fn pods_as_a_whole() {
        let full = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
        let check = |init: Vec<(Value, bool)>, app: Vec<Value>, expected: (i64, Option<i64>, Option<i64>)| {
            let text = format!("{init:?} {app:?}");
            let mut pod = pod(app.into_iter().map(container).collect());
            pod.spec.init_containers = init
                .into_iter()
                .map(|(resources, sidecar)| Container {
                    restart_policy: sidecar.then_some(crate::pods::spec::RestartPolicy::Always),
                    ..container(resources)
                })
                .collect();
            let limits = pod_limits(&pod);
            assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory_limit), expected, "{text}");
        };
        check(vec![], vec![json!({})], (2, None, None));
        check(vec![], vec![full("1", "1Gi"), full("500m", "1Gi")], (1536, Some(150_000), Some(2 << 30)));
        check(vec![], vec![full("1", "1Gi"), json!({})], (1024, None, None));
        check(vec![(full("2", "1Gi"), false)], vec![full("1", "2Gi")], (2048, Some(200_000), Some(2 << 30)));
        check(
            vec![(full("1", "1Gi"), true), (full("2", "1Gi"), false)],
            vec![full("1", "1Gi")],
            (3072, Some(300_000), Some(2 << 30)),
        );
    }

    #[test]
    fn references() {
        let c = container(json!({"limits": {"cpu": "1250m", "memory": "64Mi"}}));
        let pod = pod(vec![c.clone()]);
        let node = BTreeMap::from([("memory".to_owned(), "2Gi".parse().unwrap())]);
        let check = |resource: &str, divisor: Option<&str>, expected: Result<&str, &str>| {
            let wanted = ResourceReference {
                container_name: String::new(),
                resource: resource.into(),
                divisor: divisor.map(Value::from),
            };
            let found = reference(&pod, Some(&c), &wanted, &node).map_err(|e| e.to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{resource} {divisor:?}");
        };
        check("limits.cpu", None, Ok("2"));
        check("limits.cpu", Some("1m"), Ok("1250"));
        check("limits.memory", Some("1Mi"), Ok("64"));
        check("requests.memory", Some("0"), Ok("67108864"));
        check("limits.ephemeral-storage", None, Ok("0"));
        check("limits.pods", None, Err("unsupported container resource : limits.pods"));
    }
}
