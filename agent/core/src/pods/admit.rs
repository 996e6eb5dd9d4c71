//! Whether this node takes a pod that was given to it. The scheduler decided so already; this guards against two deciders
//! who did not know of each other, and against pods given by hand. Must not know what runs: only what was promised.

use std::collections::BTreeMap;

use pagurus_controlplane_api::quantity::{Format, Quantity};
use serde_json::Value;

pub mod affinity;

use super::resources::pod_ask;
use super::spec::Pod;

/// Why a pod was not taken. It fails with these words and does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Brief word, such as `OutOfcpu`.
    pub reason: String,
    /// More words.
    pub message: String,
}

/// Whether the node takes this pod beside the others, which it has taken already and which have not ended.
pub fn admit<'a>(
    pod: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    allocatable: &BTreeMap<String, Quantity>,
) -> Option<Rejection> {
    let count = others.clone().count();
    let most = allocatable.get("pods").map(Quantity::value);
    if most.is_some_and(|most| i64::try_from(count).unwrap_or(i64::MAX) >= most) {
        return Some(out_of("pods", 1, i64::try_from(count).unwrap_or(i64::MAX), most.unwrap_or(0)));
    }
    if let Some(rejection) = ports(pod, others.clone()) {
        return Some(rejection);
    }
    for (name, capacity) in allocatable.iter().filter(|(name, _)| *name != "pods") {
        let wanted = requested(pod, name);
        if wanted == 0 {
            continue;
        }
        let used = others.clone().fold(0_i64, |sum, other| sum.saturating_add(requested(other, name)));
        let capacity = if name == "cpu" {
            i64::try_from(capacity.milli_value()).unwrap_or(i64::MAX)
        } else {
            capacity.value()
        };
        if used.saturating_add(wanted) > capacity {
            return Some(out_of(name, wanted, used, capacity));
        }
    }
    None
}

fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    Rejection {
        reason: format!("OutOf{name}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

/// What a pod was promised of a resource: thousandths of CPU, bytes, pieces.
fn requested(pod: &Pod, name: &str) -> i64 {
    match name {
        "cpu" => pod_ask(pod).cpu_request.unwrap_or(0),
        "memory" => pod_ask(pod).memory_request.unwrap_or(0),
        other => {
            let of = |values: &BTreeMap<String, Value>| {
                values.get(other).and_then(|v| Quantity::from_json(v).ok())
            };
            let sum = pod.spec.containers.iter().filter_map(|container| {
                of(&container.resources.requests).or_else(|| of(&container.resources.limits))
            });
            let zero = Quantity::from_value(0, Format::DecimalSi);
            let sum = sum.fold(zero, |sum, more| sum + more);
            let init =
                pod.spec.init_containers.iter().filter_map(|container| of(&container.resources.requests));
            init.fold(sum, Quantity::max).value()
        }
    }
}

/// A port of the node that somebody else has.
fn ports<'a>(pod: &Pod, mut others: impl Iterator<Item = &'a Pod>) -> Option<Rejection> {
    let wanted = host_ports(pod);
    let clash = |other: &Pod| {
        host_ports(other).iter().any(|theirs| {
            wanted.iter().any(|ours| {
                let same_ip = ours.0 == theirs.0 || [ours.0, theirs.0].contains(&"0.0.0.0");
                same_ip && (ours.1, ours.2) == (theirs.1, theirs.2)
            })
        })
    };
    let clashes = !wanted.is_empty() && others.any(clash);
    clashes.then(|| Rejection {
        reason: "NodePorts".into(),
        message: "Pod was rejected: Predicate NodePorts failed: \
                  node(s) didn't have free ports for the requested pod ports"
            .into(),
    })
}

/// Address, protocol and number of the node's ports that a pod takes.
fn host_ports(pod: &Pod) -> Vec<(&str, &str, i32)> {
    let ports =
        pod.containers().flat_map(|(_, container)| &container.ports).filter(|port| port.host_port > 0);
    ports
        .map(|port| {
            let ip = if port.host_ip.is_empty() { "0.0.0.0" } else { &*port.host_ip };
            let protocol = if port.protocol.is_empty() { "TCP" } else { &*port.protocol };
            (ip, protocol, port.host_port)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: Value) -> Pod {
        let object = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": {"containers": [container]}});
        Pod::decode(object).unwrap()
    }

    fn check(wanted: Value, there: &[Value], expected: Option<(&str, &str)>) {
        let text = format!("{wanted} {there:?}");
        let allocatable: BTreeMap<String, Quantity> =
            [("cpu", "2"), ("memory", "1Gi"), ("pods", "3"), ("example.com/x", "1")]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
                .collect();
        let others: Vec<Pod> = there.iter().cloned().map(pod).collect();
        let found = admit(&pod(wanted), others.iter(), &allocatable);
        let found = found.as_ref().map(|rejection| (&*rejection.reason, &*rejection.message));
        match (found, expected) {
            (None, None) => {}
            (Some((reason, message)), Some((wanted, part))) if reason == wanted && message.contains(part) => {
            }
            _ => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn resources() {
        let cpu = |value: &str| json!({"resources": {"requests": {"cpu": value}}});
        check(json!({}), &[], None);
        check(cpu("2"), &[], None);
        check(cpu("1"), &[cpu("1")], None);
        check(cpu("1001m"), &[cpu("1")], Some(("OutOfcpu", "requested: 1001, used: 1000, capacity: 2000")));
        check(json!({"resources": {"limits": {"memory": "2Gi"}}}), &[], Some(("OutOfmemory", "used: 0")));
        check(json!({}), &[json!({}), json!({})], None);
        check(
            json!({}),
            &[json!({}), json!({}), json!({})],
            Some(("OutOfpods", "requested: 1, used: 3, capacity: 3")),
        );
        let piece = |name: &str| json!({"resources": {"limits": {name: "1"}}});
        check(piece("example.com/x"), &[], None);
        check(piece("example.com/x"), &[piece("example.com/x")], Some(("OutOfexample.com/x", "used: 1")));
        // What the node has never heard of is the scheduler's business.
        check(piece("example.com/y"), &[piece("example.com/y")], None);
    }

    #[test]
    fn node_ports() {
        let port = |ip: &str, protocol: &str, number: i32| json!({"ports": [{"containerPort": 1, "hostPort": number, "protocol": protocol, "hostIP": ip}]});
        check(port("", "TCP", 80), &[port("", "UDP", 80), port("", "TCP", 81)], None);
        check(port("", "TCP", 80), &[port("", "", 80)], Some(("NodePorts", "free ports")));
        check(port("192.0.2.1", "TCP", 80), &[port("192.0.2.2", "TCP", 80)], None);
        check(port("192.0.2.1", "TCP", 80), &[port("0.0.0.0", "TCP", 80)], Some(("NodePorts", "free ports")));
    }
}
