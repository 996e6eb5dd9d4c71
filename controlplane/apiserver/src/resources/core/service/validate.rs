//! The rules for Services.

use std::collections::HashSet;
use std::net::IpAddr;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::{is_external, needs_cluster_ip, needs_health_port};
use crate::resources::fields::Fields;
use crate::resources::internal::{SERVICE_PORT, shown};
use crate::resources::rules::{
    Errors, cidr, ip, labels_map, names, one_of, optional_one_of, port_or_name, required, required_one_of,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
/// The port of the node agent's API.
const AGENT_PORT: i64 = 10250;

fn is_headless(service: &Value) -> bool {
    service.texts("spec.clusterIPs").next() == Some("None")
}

/// What is wrong with a Service.
pub(super) fn service(service: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = service.at("spec");
    let kind = spec.text("type");
    if spec.items("ports").is_empty() && !is_headless(service) && kind != "ExternalName" {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
    by_type(&mut errors, &path, service);
    ports(&mut errors, &path.child("ports"), service);
    labels_map(&mut errors, &path.child("selector"), spec.at("selector"));
    affinity(&mut errors, &path, spec);
    addresses(&mut errors, &path, service);
    for (i, text) in spec.texts("externalIPs").enumerate() {
        let path = path.child("externalIPs").index(i);
        ip(&mut errors, &path, text);
        if let Some(address) = labels::parse_ip(text) {
            ordinary(&mut errors, &path, text, address);
        }
    }
    required_one_of(&mut errors, &path.child("type"), kind, &TYPES);
    load_balancer(&mut errors, &path, spec);
    annotated_ranges(&mut errors, service);
    traffic(&mut errors, &path, service);
    errors
}

fn by_type(errors: &mut Errors, path: &Path, service: &Value) {
    let spec = service.at("spec");
    match spec.text("type") {
        kind @ ("LoadBalancer" | "NodePort") => {
            if kind == "LoadBalancer" {
                for (i, port) in spec.items("ports").iter().enumerate() {
                    if port.int("port") == AGENT_PORT {
                        let text = format!(
                            "may not expose port {AGENT_PORT} externally since it is used by kubelet"
                        );
                        errors.push(FieldError::invalid(path.child("ports").index(i), AGENT_PORT, text));
                    }
                }
            }
            if is_headless(service) {
                let text = format!("may not be set to 'None' for {kind} services");
                errors.push(FieldError::invalid(path.child("clusterIPs").index(0), "None", text));
            }
        }
        "ExternalName" => {
            for (field, there) in [
                ("clusterIPs", !spec.items("clusterIPs").is_empty()),
                ("ipFamilies", !spec.items("ipFamilies").is_empty()),
                ("ipFamilyPolicy", spec.has("ipFamilyPolicy")),
            ] {
                if there {
                    let text = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(path.child(field), text));
                }
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if required(errors, &path.child("externalName"), name) {
                names(errors, &path.child("externalName"), name, labels::dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn ports(errors: &mut Errors, path: &Path, service: &Value) {
    let spec = service.at("spec");
    let list = spec.items("ports");
    let (mut by_name, mut by_number, mut by_node) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in list.iter().enumerate() {
        let path = path.index(i);
        let (name, protocol, number) = (port.text("name"), port.text("protocol"), port.int("port"));
        if name.is_empty() {
            if list.len() > 1 {
                errors.push(FieldError::required(path.child("name"), ""));
            }
        } else {
            names(errors, &path.child("name"), name, labels::dns_label(name));
            if !by_name.insert(name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
        }
        for complaint in labels::port_number(number) {
            errors.push(FieldError::invalid(path.child("port"), number, complaint));
        }
        required_one_of(errors, &path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        port_or_name(errors, &path.child("targetPort"), port.at("targetPort"));
        if let Some(application) = port.some_text("appProtocol") {
            names(errors, &path.child("appProtocol"), application, labels::qualified_name(application));
        }
        if !by_number.insert((protocol, number)) {
            let key = serde_json::json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(&path, shown(&key, SERVICE_PORT)));
        }
        let node_port = port.int("nodePort");
        if node_port != 0 {
            let path = path.child("nodePort");
            if !matches!(spec.text("type"), "NodePort" | "LoadBalancer") {
                let text = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(path, text));
            } else if !by_node.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(path, node_port));
            }
        }
    }
}

fn affinity(errors: &mut Errors, path: &Path, spec: &Value) {
    let kind = spec.text("sessionAffinity");
    required_one_of(errors, &path.child("sessionAffinity"), kind, &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    let config = spec.at("sessionAffinityConfig");
    match kind {
        "ClientIP" => match config.some_int("clientIP.timeoutSeconds") {
            None => {
                let text = "when session affinity type is ClientIP";
                errors.push(FieldError::required(path, text));
            }
            Some(seconds) if seconds <= 0 || seconds > 86400 => {
                let text = "must be greater than 0 and less than 86400";
                errors.push(FieldError::invalid(path.child("clientIP.timeoutSeconds"), seconds, text));
            }
            Some(_) => {}
        },
        "None" if !config.is_null() => {
            let text = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden(path, text));
        }
        _ => {}
    }
}

/// The Service's own addresses and their families.
fn addresses(errors: &mut Errors, path: &Path, service: &Value) {
    if !needs_cluster_ip(service) {
        return;
    }
    let spec = service.at("spec");
    let ips: Vec<&str> = spec.texts("clusterIPs").collect();
    let all = path.child("clusterIPs");
    let (first, shown) = (spec.text("clusterIP"), || spec.at("clusterIPs").clone());
    if !ips.is_empty() && ips[0] != first {
        errors.push(FieldError::invalid(&all, shown(), "first value must match `clusterIP`"));
    }
    let families: Vec<&str> = spec.texts("ipFamilies").collect();
    let mut seen = HashSet::new();
    for (i, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        one_of(errors, &path, family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(&path, *family));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    optional_one_of(errors, &path.child("ipFamilyPolicy"), spec.some_text("ipFamilyPolicy"), &policies);
    if ips.len() > 2 {
        errors.push(FieldError::invalid(&all, shown(), "may only hold up to 2 values"));
    }
    for (i, text) in ips.iter().enumerate() {
        if *text == "None" {
            if ips.len() > 1 {
                let text = "'None' must be the first and only value";
                errors.push(FieldError::invalid(all.index(i), "None", text));
            }
            continue;
        }
        ip(errors, &all.index(i), text);
        let family = labels::parse_ip(text).map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" });
        if let (Some(have), Some(want)) = (family, families.get(i))
            && have != *want
            && matches!(*want, "IPv4" | "IPv6")
        {
            let complaint = format!("expected an {want} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(all.index(i), *text, complaint));
        }
    }
    let kinds: Vec<bool> = ips.iter().filter_map(|t| labels::parse_ip(t)).map(|ip| ip.is_ipv4()).collect();
    if kinds.len() == 2 && kinds[0] == kinds[1] {
        let text = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(&all, shown(), text));
    }
}

/// What is wrong with the ways in from outside that a write of the status tells.
pub(super) fn status(service: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("status.loadBalancer.ingress");
    let ingress = service.items("status.loadBalancer.ingress");
    if service.text("spec.type") != "LoadBalancer" && !ingress.is_empty() {
        errors.push(FieldError::forbidden(path, "may only be used when `spec.type` is LoadBalancer"));
        return errors;
    }
    for (i, way) in ingress.iter().enumerate() {
        let path = path.index(i);
        let (address, host, mode) = (way.text("ip"), way.text("hostname"), path.child("ipMode"));
        if !address.is_empty() {
            ip(&mut errors, &path.child("ip"), address);
        }
        match (address.is_empty(), way.some_text("ipMode")) {
            (true, None) => {}
            (true, Some(_)) => {
                errors.push(FieldError::forbidden(mode, "may not be specified when `ip` is not set"));
            }
            (false, None) => errors.push(FieldError::required(mode, "must be specified when `ip` is set")),
            (false, Some(text)) => one_of(&mut errors, &mode, text, &["Proxy", "VIP"]),
        }
        if !host.is_empty() {
            let path = path.child("hostname");
            names(&mut errors, &path, host, labels::dns_subdomain(host));
            if labels::parse_ip(host).is_some() {
                errors.push(FieldError::invalid(path, host, "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}

fn load_balancer(errors: &mut Errors, path: &Path, spec: &Value) {
    let balanced = spec.text("type") == "LoadBalancer";
    let ranges = path.child("LoadBalancerSourceRanges");
    if !spec.items("loadBalancerSourceRanges").is_empty() && !balanced {
        errors.push(FieldError::forbidden(&ranges, ONLY_LOAD_BALANCER));
    }
    for (i, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
        cidr(errors, &ranges.index(i), range.trim());
    }
    if spec.has("allocateLoadBalancerNodePorts") && !balanced {
        errors.push(FieldError::forbidden(path.child("allocateLoadBalancerNodePorts"), ONLY_LOAD_BALANCER));
    }
    if let Some(class) = spec.some_text("loadBalancerClass") {
        let path = path.child("loadBalancerClass");
        if balanced {
            names(errors, &path, class, labels::qualified_name(class));
        } else {
            errors.push(FieldError::forbidden(path, ONLY_LOAD_BALANCER));
        }
    }
}

/// The ranges in the annotation that came before their field.
fn annotated_ranges(errors: &mut Errors, service: &Value) {
    let key = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let Some(ranges) = labels::annotation(service, key) else { return };
    if !service.items("spec.loadBalancerSourceRanges").is_empty() {
        return;
    }
    let path = Path::new("metadata.annotations").key(key);
    if service.text("spec.type") != "LoadBalancer" {
        errors.push(FieldError::forbidden(&path, ONLY_LOAD_BALANCER));
    }
    for range in ranges.split(',').filter(|_| !ranges.trim().is_empty()) {
        cidr(errors, &path, range.trim());
    }
}

fn traffic(errors: &mut Errors, path: &Path, service: &Value) {
    let spec = service.at("spec");
    let policy = spec.text("externalTrafficPolicy");
    let policy_path = path.child("externalTrafficPolicy");
    if is_external(service) {
        one_of(errors, &policy_path, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        let text = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(policy_path, policy, text));
    }
    let health = spec.int("healthCheckNodePort");
    let health_path = path.child("healthCheckNodePort");
    if health < 0 {
        let text = labels::range_message(1, 65535);
        errors.push(FieldError::invalid(&health_path, health, text));
    }
    if health > 0 && !needs_health_port(service) {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(&health_path, health, text));
    }
    let internal = path.child("internalTrafficPolicy");
    match spec.some_text("internalTrafficPolicy") {
        None if matches!(spec.text("type"), "ClusterIP" | "NodePort" | "LoadBalancer") => {
            errors.push(FieldError::required(internal, ""));
        }
        other => optional_one_of(errors, &internal, other, &["Cluster", "Local"]),
    }
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = spec.some_text("trafficDistribution");
    optional_one_of(errors, &path.child("trafficDistribution"), distribution, &known);
}

/// An address that can belong to somebody: not unspecified, loopback, link-local or multicast.
pub(crate) fn ordinary(errors: &mut Errors, path: &Path, text: &str, address: IpAddr) {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] == 0xff02,
    };
    for (bad, complaint) in [
        (address.is_unspecified(), format!("may not be unspecified ({text})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if bad {
            errors.push(FieldError::invalid(path, text, complaint));
        }
    }
}

/// What may not change: the first address and family, and the class of the load balancer.
pub(super) fn change(service: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let once_set = "may not change once set";
    if needs_cluster_ip(service) && needs_cluster_ip(old) && !(is_headless(service) && is_headless(old)) {
        for field in ["clusterIPs", "ipFamilies"] {
            let [now, before] = [service, old].map(|s| s.at("spec").texts(field).collect::<Vec<_>>());
            for (i, _) in now.iter().zip(&before).enumerate().filter(|(_, (now, before))| now != before) {
                let value = service.at("spec").at(field).clone();
                errors.push(FieldError::invalid(path.child(field).index(i), value, once_set));
            }
        }
    }
    let both = [service, old].iter().all(|s| s.text("spec.type") == "LoadBalancer");
    let class = |s: &Value| s.some_text("spec.loadBalancerClass").map(str::to_owned);
    if both && class(service) != class(old) {
        let now = class(service).map_or(Value::Null, Value::from);
        errors.push(FieldError::invalid(path.child("loadBalancerClass"), now, once_set));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ways_in_from_outside() {
        let text = |kind: &str, ingress: Value| {
            let service = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
            status(&service).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let good = json!({"ip": "1.2.3.4", "ipMode": "VIP"});
        assert_eq!(text("LoadBalancer", good.clone()), "");
        assert_eq!(
            text("ClusterIP", good),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is LoadBalancer"
        );
        let at = "status.loadBalancer.ingress[0]";
        assert_eq!(
            text("LoadBalancer", json!({"hostname": "1.2.3.4"})),
            format!("{at}.hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address")
        );
        assert_eq!(
            text("LoadBalancer", json!({"ip": "1.2.3.4", "ipMode": "x"})),
            format!("{at}.ipMode: Unsupported value: \"x\": supported values: \"Proxy\", \"VIP\"")
        );
    }
}
