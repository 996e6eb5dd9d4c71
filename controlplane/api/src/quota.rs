//! What an object counts toward a ResourceQuota. The API server refuses by it, and a controller reports by it: they must
//! count alike, so both count here. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::{Format, Quantity};

/// Amounts by the names that quotas use.
pub type Usage = BTreeMap<String, Quantity>;

/// Resources of which a container's requests and limits are counted, without huge pages and extended ones.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn one() -> Quantity {
    Quantity::from_value(1, Format::DecimalSi)
}

fn at<'v>(object: &'v Value, pointer: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    object.pointer(pointer).unwrap_or(&NULL)
}

fn items<'v>(object: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    at(object, pointer).as_array().into_iter().flatten()
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    at(object, pointer).as_str().unwrap_or_default()
}

fn add(usage: &mut Usage, name: impl Into<String>, amount: Quantity) {
    let held = usage.entry(name.into()).or_default();
    *held = *held + amount;
}

/// The name under which objects of a resource are counted: `count/deployments.apps`, `count/pods`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// Which resource (group and plural) must be looked at to know how much is used of what a quota names.
pub fn resource_of(name: &str) -> (String, String) {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return (group.to_owned(), resource.to_owned());
    }
    let resource = match name {
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => name,
        "persistentvolumeclaims" | "requests.storage" => "persistentvolumeclaims",
        _ if name.contains(".storageclass.storage.k8s.io/") => "persistentvolumeclaims",
        _ if name == "services" || name.starts_with("services.") => "services",
        _ => "pods",
    };
    (String::new(), resource.to_owned())
}

/// What an object of a resource counts as.
pub fn usage(group: &str, resource: &str, object: &Value) -> Usage {
    let mut usage = Usage::from([(count_name(group, resource), one())]);
    if !group.is_empty() {
        return usage;
    }
    match resource {
        "pods" => pod(object, &mut usage),
        "services" => service(object, &mut usage),
        "persistentvolumeclaims" => claim(object, &mut usage),
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            add(&mut usage, resource, one());
        }
        _ => {}
    }
    usage
}

fn service(object: &Value, usage: &mut Usage) {
    add(usage, "services", one());
    let kind = text(object, "/spec/type");
    let ports = i64::try_from(items(object, "/spec/ports").count()).unwrap_or(i64::MAX);
    let ports = Quantity::from_value(ports, Format::DecimalSi);
    let none = Quantity::default();
    let balanced = kind == "LoadBalancer";
    let on_nodes = kind == "NodePort"
        || (balanced && at(object, "/spec/allocateLoadBalancerNodePorts") != &Value::Bool(false));
    add(usage, "services.nodeports", if on_nodes { ports } else { none });
    add(usage, "services.loadbalancers", if balanced { one() } else { none });
}

fn claim(object: &Value, usage: &mut Usage) {
    let size = Quantity::from_json(at(object, "/spec/resources/requests/storage")).unwrap_or_default();
    add(usage, "persistentvolumeclaims", one());
    add(usage, "requests.storage", size);
    let class = text(object, "/spec/storageClassName");
    if !class.is_empty() {
        add(usage, format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one());
        add(usage, format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
    }
}

/// Whether a pod has ended: then it uses nothing, and counts only as an object.
fn ended(object: &Value) -> bool {
    matches!(text(object, "/status/phase"), "Succeeded" | "Failed")
}

fn pod(object: &Value, usage: &mut Usage) {
    if ended(object) {
        return;
    }
    add(usage, "pods", one());
    for (name, amount) in total(object, "requests") {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            add(usage, name.clone(), amount);
        }
        add(usage, format!("requests.{name}"), amount);
    }
    for (name, amount) in total(object, "limits") {
        if COMPUTE.contains(&name.as_str()) {
            add(usage, format!("limits.{name}"), amount);
        }
    }
}

/// The requests or limits of a pod: those of its containers and sidecars together, or those of the greediest moment of
/// its initialization; then its overhead. What is given for the whole pod replaces the sums.
pub fn total(pod: &Value, part: &str) -> Usage {
    let of = |container: &Value| amounts(at(container, &format!("/resources/{part}")));
    let mut running = Usage::new();
    for container in items(pod, "/spec/containers") {
        merge(&mut running, &of(container), |a, b| a + b);
    }
    let (mut sidecars, mut initial) = (Usage::new(), Usage::new());
    for container in items(pod, "/spec/initContainers") {
        let own = of(container);
        let mut moment = sidecars.clone();
        merge(&mut moment, &own, |a, b| a + b);
        if text(container, "/restartPolicy") == "Always" {
            merge(&mut running, &own, |a, b| a + b);
            sidecars = moment.clone();
        }
        merge(&mut initial, &moment, Ord::max);
    }
    merge(&mut running, &initial, Ord::max);
    for (name, amount) in amounts(at(pod, &format!("/spec/resources/{part}"))) {
        running.insert(name, amount);
    }
    let overhead = amounts(at(pod, "/spec/overhead"));
    // A limit that is not there stays so.
    let counted = overhead.into_iter().filter(|(name, _)| part == "requests" || running.contains_key(name));
    let overhead: Usage = counted.collect();
    merge(&mut running, &overhead, |a, b| a + b);
    running
}

fn amounts(map: &Value) -> Usage {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

fn merge(into: &mut Usage, other: &Usage, op: fn(Quantity, Quantity) -> Quantity) {
    for (name, amount) in other {
        let held = into.entry(name.clone()).or_default();
        *held = op(*held, *amount);
    }
}

/// Adds up.
pub fn sum(into: &mut Usage, other: &Usage) {
    merge(into, other, |a, b| a + b);
}

/// Whether a quota is about an object: all its scopes must fit. Scopes speak of pods only.
pub fn applies(quota: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let plain = items(quota, "/spec/scopes").filter_map(Value::as_str).map(|scope| (scope, "Exists", None));
    let selected = items(quota, "/spec/scopeSelector/matchExpressions")
        .map(|rule| (text(rule, "/scopeName"), text(rule, "/operator"), at(rule, "/values").as_array()));
    let mut scopes = plain.chain(selected).peekable();
    if scopes.peek().is_none() {
        return true;
    }
    let is_pod = group.is_empty() && resource == "pods";
    is_pod && scopes.all(|(scope, operator, values)| fits(scope, operator, values, object))
}

fn fits(scope: &str, operator: &str, values: Option<&Vec<Value>>, pod: &Value) -> bool {
    let limited = at(pod, "/spec/activeDeadlineSeconds").as_i64().is_some();
    match scope {
        "Terminating" => limited,
        "NotTerminating" => !limited,
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "PriorityClass" => {
            let class = text(pod, "/spec/priorityClassName");
            let listed = values.into_iter().flatten().any(|v| v.as_str() == Some(class));
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn best_effort(pod: &Value) -> bool {
    let asks = |container: &Value| {
        ["requests", "limits"].iter().any(|part| {
            let amounts = amounts(at(container, &format!("/resources/{part}")));
            ["cpu", "memory"].iter().any(|name| amounts.get(*name).is_some_and(|a| a.sign() > 0))
        })
    };
    !items(pod, "/spec/containers").chain(items(pod, "/spec/initContainers")).any(asks)
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        items(term, "/namespaces").next().is_some() || !at(term, "/namespaceSelector").is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let base = format!("/spec/affinity/{kind}");
        items(pod, &format!("{base}/requiredDuringSchedulingIgnoredDuringExecution")).any(crosses)
            || items(pod, &format!("{base}/preferredDuringSchedulingIgnoredDuringExecution"))
                .any(|weighted| crosses(at(weighted, "/podAffinityTerm")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(usage: &Usage) -> String {
        usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_counts() {
        let pod = json!({"spec": {
            "containers": [
                {"resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
                {"resources": {"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "2"}}}],
            "overhead": {"cpu": "10m"}}});
        let mut ended = pod.clone();
        ended["status"] = json!({"phase": "Failed"});
        let ports = json!([{"port": 1}, {"port": 2}]);
        for (group, resource, object, expected) in [
            (
                "",
                "pods",
                pod,
                "count/pods=1,cpu=2010m,limits.cpu=1510m,memory=1Gi,pods=1,requests.cpu=2010m,requests.memory=1Gi",
            ),
            ("", "pods", ended, "count/pods=1"),
            ("apps", "deployments", json!({}), "count/deployments.apps=1"),
            ("", "configmaps", json!({}), "configmaps=1,count/configmaps=1"),
            (
                "",
                "services",
                json!({"spec": {"type": "LoadBalancer", "ports": ports}}),
                "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
            ),
            (
                "",
                "services",
                json!({"spec": {"type": "ClusterIP", "ports": ports}}),
                "count/services=1,services=1,services.loadbalancers=0,services.nodeports=0",
            ),
            (
                "",
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}}),
                "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
                 fast.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi",
            ),
        ] {
            assert_eq!(shown(&usage(group, resource, &object)), expected);
        }
    }

    #[test]
    fn where_to_look() {
        for (name, group, resource) in [
            ("pods", "", "pods"),
            ("limits.cpu", "", "pods"),
            ("requests.hugepages-2Mi", "", "pods"),
            ("requests.example.com/gpu", "", "pods"),
            ("requests.storage", "", "persistentvolumeclaims"),
            ("x.storageclass.storage.k8s.io/requests.storage", "", "persistentvolumeclaims"),
            ("services.nodeports", "", "services"),
            ("secrets", "", "secrets"),
            ("count/deployments.apps", "apps", "deployments"),
            ("count/pods", "", "pods"),
        ] {
            assert_eq!(resource_of(name), (group.to_owned(), resource.to_owned()), "{name}");
        }
    }

    #[test]
    fn scopes() {
        let plain = json!({"spec": {"containers": [{}]}});
        let asking = json!({"spec": {"containers": [{"resources": {"limits": {"memory": "1Gi"}}}]}});
        let limited = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}});
        let scope = |name: &str| json!({"spec": {"scopes": [name]}});
        let class = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
        for (quota, pod, expected) in [
            (json!({"spec": {}}), &plain, true),
            (scope("BestEffort"), &plain, true),
            (scope("BestEffort"), &asking, false),
            (scope("NotBestEffort"), &asking, true),
            (scope("Terminating"), &plain, false),
            (scope("Terminating"), &limited, true),
            (scope("NotTerminating"), &limited, false),
            (class.clone(), &limited, true),
            (class, &plain, false),
        ] {
            assert_eq!(applies(&quota, "", "pods", pod), expected, "{quota} {pod}");
        }
        assert!(!applies(&scope("NotTerminating"), "", "services", &json!({})));
    }
}
