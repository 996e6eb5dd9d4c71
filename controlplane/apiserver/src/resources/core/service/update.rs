//! What an update of a Service keeps of the old one: addresses and ports that were handed out, unless the new type has no use
//! for them. Clients send back what they know, which may be less than is there.

use serde_json::{Value, json};

use super::{is_external, needs_cluster_ip, needs_health_port, needs_node_ports};
use crate::resources::fields::{Fields, is_zero, items_mut, object_at, same, set};

/// Makes `clusterIP` and `clusterIPs` agree: the one follows the one that the client changed.
pub(super) fn normalize_addresses(service: &mut Value, old: Option<&Value>) {
    let first = service.text("spec.clusterIP").to_owned();
    let all = service.items("spec.clusterIPs").to_vec();
    let spec = object_at(service, "spec");
    let Some(old) = old else {
        if all.is_empty() && !first.is_empty() {
            spec["clusterIPs"] = json!([first]);
        }
        return;
    };
    let old_all = old.items("spec.clusterIPs");
    let old_first = old.text("spec.clusterIP");
    if first == old_first || all != old_all {
        if all.is_empty() && !first.is_empty() && first != old_first {
            spec["clusterIPs"] = json!([first]);
        }
        return;
    }
    // Only `clusterIP` changed.
    if first.is_empty() {
        set(spec, "clusterIPs", None);
    } else if old_first.is_empty() {
        spec["clusterIPs"] = json!([first]);
    } else if let Some(slot) = spec["clusterIPs"].get_mut(0) {
        *slot = first.into();
    }
}

/// Fills in addresses and ports that the client left out but that the old Service has.
pub(super) fn keep_allocated(service: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(service) {
        let spec = object_at(service, "spec");
        if spec.text("clusterIP").is_empty() && spec.items("clusterIPs").is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                let value = old.at("spec").at(field);
                set(spec, field, (!value.is_null()).then(|| value.clone()));
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(service) {
        keep_node_ports(service, old);
    }
    if needs_health_port(old) && needs_health_port(service) {
        let spec = object_at(service, "spec");
        if spec.int("healthCheckNodePort") == 0 && old.int("spec.healthCheckNodePort") != 0 {
            spec["healthCheckNodePort"] = old.at("spec.healthCheckNodePort").clone();
        }
    }
}

/// Ports of the same number and protocol keep their node port, unless another port of the new Service asks for it.
fn keep_node_ports(service: &mut Value, old: &Value) {
    let used: Vec<(String, i64)> = service
        .items("spec.ports")
        .iter()
        .filter(|p| p.int("nodePort") != 0)
        .map(|p| (p.text("protocol").to_owned(), p.int("nodePort")))
        .collect();
    for port in items_mut(service, "spec.ports").filter(|p| p.int("nodePort") == 0) {
        let found = old
            .items("spec.ports")
            .iter()
            .find(|o| o.int("port") == port.int("port") && o.text("protocol") == port.text("protocol"));
        if let Some(found) = found.filter(|o| o.int("nodePort") != 0)
            && !used.contains(&(found.text("protocol").to_owned(), found.int("nodePort")))
        {
            port["nodePort"] = found["nodePort"].clone();
        }
    }
}

/// Clears fields that the new type has no use for, if the client did not set them anew.
pub(super) fn drop_what_the_type_forbids(service: &mut Value, old: &Value) {
    let unchanged = |service: &Value, field: &str| same(service.at(field), old.at(field));
    let clear = |service: &mut Value, fields: &[&str]| {
        for field in fields {
            set(object_at(service, "spec"), field, None);
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(service) {
        let addresses = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];
        if unchanged(service, "spec.clusterIPs") && unchanged(service, "spec.clusterIP") {
            clear(service, &addresses[..2]);
        }
        if unchanged(service, "spec.ipFamilies") {
            clear(service, &["ipFamilies"]);
        }
        if unchanged(service, "spec.ipFamilyPolicy") {
            clear(service, &["ipFamilyPolicy"]);
        }
    }
    if needs_node_ports(old) && !needs_node_ports(service) && same_node_ports(service, old) {
        for port in items_mut(service, "spec.ports") {
            set(port, "nodePort", None);
        }
    }
    if needs_health_port(old) && !needs_health_port(service) && unchanged(service, "spec.healthCheckNodePort")
    {
        clear(service, &["healthCheckNodePort"]);
    }
    let (was, is) = (old.text("spec.type") == "LoadBalancer", service.text("spec.type") == "LoadBalancer");
    if was && !is {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(service.at("spec").at(field), old.at("spec").at(field)) {
                clear(service, &[field]);
            }
        }
    }
    if is_external(old) && !is_external(service) && unchanged(service, "spec.externalTrafficPolicy") {
        clear(service, &["externalTrafficPolicy"]);
    }
    if service.text("spec.type") == "ExternalName" && unchanged(service, "spec.internalTrafficPolicy") {
        clear(service, &["internalTrafficPolicy"]);
    }
}

fn same_node_ports(service: &Value, old: &Value) -> bool {
    let ports = |s: &Value| -> Vec<i64> {
        s.items("spec.ports")
            .iter()
            .filter(|p| !is_zero(p.at("nodePort")))
            .map(|p| p.int("nodePort"))
            .collect()
    };
    let before = ports(old);
    ports(service).iter().all(|p| before.contains(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_agree() {
        for (first, all, old_first, old_all, expected) in [
            ("a", json!(["a"]), "a", json!(["a"]), json!(["a"])),
            ("b", json!(["a"]), "a", json!(["a"]), json!(["b"])),
            ("", json!(["a"]), "a", json!(["a"]), json!(null)),
            ("b", json!(null), "a", json!(["a"]), json!(["b"])),
        ] {
            let old = json!({"spec": {"clusterIP": old_first, "clusterIPs": old_all}});
            let mut new = json!({"spec": {"clusterIP": first, "clusterIPs": all}});
            normalize_addresses(&mut new, Some(&old));
            assert_eq!(*new.at("spec.clusterIPs"), expected);
        }
    }

    #[test]
    fn node_ports_stay_or_go_with_the_type() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "a", "clusterIPs": ["a"],
            "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}]}});
        let mut same_type = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
        keep_allocated(&mut same_type, &old);
        assert_eq!(same_type["spec"]["ports"][0]["nodePort"], 30000);
        assert_eq!(same_type["spec"]["clusterIPs"], json!(["a"]));
        let mut other = old.clone();
        other["spec"]["type"] = "ClusterIP".into();
        drop_what_the_type_forbids(&mut other, &old);
        assert_eq!(other["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
        assert!(!other.has("spec.externalTrafficPolicy"));
    }
}
