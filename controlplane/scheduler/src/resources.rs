//! Amounts of resources: what pods ask for and what nodes have. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use pagurus_controlplane_api::quantity::Quantity;

/// What a container without requests counts as in scores, so that such pods spread too.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts. CPU in thousandths, the rest in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    /// Extended resources and huge pages by name.
    pub(crate) other: BTreeMap<String, i64>,
}

type List = BTreeMap<String, ApiQuantity>;

fn amount(name: &str, quantity: &ApiQuantity) -> i64 {
    let Ok(quantity) = quantity.0.parse::<Quantity>() else { return 0 };
    if name == "cpu" { i64::try_from(quantity.milli_value()).unwrap_or(i64::MAX) } else { quantity.value() }
}

impl Resources {
    /// From an API list.
    pub(crate) fn of(list: Option<&List>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            resources.set(name, amount(name, quantity));
        }
        resources
    }

    fn set(&mut self, name: &str, amount: i64) {
        match name {
            "cpu" => self.milli_cpu = amount,
            "memory" => self.memory = amount,
            "ephemeral-storage" => self.ephemeral = amount,
            "pods" => {}
            _ => {
                self.other.insert(name.to_owned(), amount);
            }
        }
    }

    /// Applies `op` to each pair of amounts.
    fn merge(&mut self, other: &Self, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral = op(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.other {
            match self.other.get_mut(name) {
                Some(own) => *own = op(*own, *amount),
                None => {
                    self.other.insert(name.clone(), op(0, *amount));
                }
            }
        }
    }

    /// Adds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// Takes away.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.merge(other, i64::saturating_sub);
    }

    /// The larger of each.
    fn maximum(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }
}

/// The number of pods a node takes.
pub(crate) fn pod_limit(list: Option<&List>) -> i64 {
    list.and_then(|l| l.get("pods")).map_or(0, |q| amount("pods", q))
}

/// What a pod asks for: exactly, and for scores.
pub(crate) fn requests(pod: &Pod) -> (Resources, Resources) {
    let allocated = |container: &Container| {
        let status = pod.status.as_ref()?;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        all.filter(|s| s.name == container.name).find_map(|s| s.allocated_resources.as_ref())
    };
    let exact = |container: &Container| {
        let mut own = Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        // While a container is being resized it has what it had.
        own.maximum(&Resources::of(allocated(container)));
        own
    };
    let scored = |container: &Container| {
        let mut own = exact(container);
        let given = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        if !given.is_some_and(|g| g.contains_key("cpu")) {
            own.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !given.is_some_and(|g| g.contains_key("memory")) {
            own.memory = DEFAULT_MEMORY;
        }
        own
    };
    (total(pod, &exact), total(pod, &scored))
}

/// Containers and sidecars together, or the greediest moment of initialization, whichever is more; then overhead.
fn total(pod: &Pod, of: &dyn Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut initial = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&moment);
            sidecars.add(&moment);
            initial.maximum(&sidecars);
        } else {
            moment.add(&sidecars);
            initial.maximum(&moment);
        }
    }
    running.maximum(&initial);
    // Amounts given for the whole pod replace the sums.
    for (name, quantity) in
        spec.resources.iter().flat_map(|r| r.requests.iter().flatten()).filter(|(n, _)| pod_level(n))
    {
        running.set(name, amount(name, quantity));
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

fn pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, milli_cpu: i64, memory: i64) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let (exact, _) = requests(&pod);
        assert_eq!((exact.milli_cpu, exact.memory), (milli_cpu, memory), "{spec}");
    }

    fn container(cpu: &str, memory: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn containers_and_init_containers() {
        let mut sidecar = container("100m", "8Mi");
        sidecar["restartPolicy"] = json!("Always");
        check(
            json!({"containers": [container("250m", "64Mi"), container("1", "1k")]}),
            1250,
            (64 << 20) + 1000,
        );
        check(
            json!({"containers": [container("250m", "64Mi")], "initContainers": [container("2", "1Mi")]}),
            2000,
            64 << 20,
        );
        check(
            json!({"containers": [container("250m", "64Mi")], "initContainers": [sidecar, container("300m", "1Mi")]}),
            400,
            72 << 20,
        );
        check(
            json!({"containers": [container("1", "1Mi")], "overhead": {"cpu": "5m"},
                   "resources": {"requests": {"cpu": "100m"}}}),
            105,
            1 << 20,
        );
    }

    #[test]
    fn pods_without_requests_count_in_scores() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        let (exact, scored) = requests(&pod);
        assert_eq!(exact, Resources::default());
        assert_eq!((scored.milli_cpu, scored.memory), (100, 200 << 20));
    }
}
