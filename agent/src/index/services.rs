//! Services: from API objects to what the load balancer needs of them.
//!
//! Must not know: maps. What makes no sense is left out with a warning; it disturbs no other Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::{Algorithm, Created, Forwarding, Service, ServiceName, ServicePort};

/// Label that hands a Service to another load balancer.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Seconds of session affinity where nothing else is said.
const AFFINITY: i32 = 10_800;

/// The Service, if it has addresses of its own that are ours to serve.
pub fn service(object: &api::Service) -> Option<Service> {
    let metadata = &object.metadata;
    let spec = object.spec.as_ref()?;
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    let is_other = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
    if is_external || is_other {
        return None;
    }
    let name = ServiceName::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let cluster_ips = cluster_ips(&name, spec);
    if cluster_ips.is_empty() {
        return None;
    }
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let ports =
        spec.ports.iter().flatten().filter_map(|port| self::port(&name, port, has_node_ports)).collect();
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    Some(Service {
        name,
        cluster_ips,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports,
        internal_local,
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity: affinity(spec),
        health_check_node_port: None,
        algorithm: Algorithm::default(),
        forwarding: Forwarding::default(),
        created: Created::default(),
    })
}

/// For how many seconds a client stays with its backend; 0 if it does not.
fn affinity(spec: &api::ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY);
    u32::try_from(seconds).unwrap_or(0)
}

/// The cluster IPs; none for a headless Service.
fn cluster_ips(name: &ServiceName, spec: &api::ServiceSpec) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.iter().flatten();
    let texts: Vec<&String> = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => listed.collect(),
        _ => spec.cluster_ip.iter().collect(),
    };
    let mut ips = Vec::new();
    for text in texts.into_iter().filter(|text| !matches!(text.as_str(), "" | "None")) {
        match text.parse::<IpAddr>() {
            Ok(ip) => ips.push(ip.to_canonical()),
            Err(_) => tracing::warn!(service = %name, ip = text, "cluster IP is no address; not served"),
        }
    }
    ips
}

fn port(name: &ServiceName, port: &api::ServicePort, has_node_ports: bool) -> Option<ServicePort> {
    let number = |value: i32| u16::try_from(value).ok().filter(|number| *number != 0);
    let parsed = Protocol::parse(port.protocol.as_deref()).zip(number(port.port));
    let Some((protocol, own)) = parsed else {
        tracing::warn!(service = %name, port = port.port, protocol = ?port.protocol, "port makes no sense; not served");
        return None;
    };
    Some(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol,
        port: own,
        node_port: port.node_port.filter(|_| has_node_ports).and_then(number),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The Service as text: addresses, then ports as `name:port[/node port]/protocol`.
    fn check(spec: Value, labels: Value, expected: Option<&str>) {
        let object: api::Service = serde_json::from_value(json!({
            "metadata": { "namespace": "ns", "name": "web", "labels": labels }, "spec": spec
        }))
        .expect("a Service");
        let text = service(&object).map(|service| {
            let ips: Vec<String> = service.cluster_ips.iter().map(ToString::to_string).collect();
            let ports: Vec<String> = service
                .ports
                .iter()
                .map(|port| {
                    let node_port = port.node_port.map_or(String::new(), |port| format!("/{port}"));
                    format!("{}:{}{node_port}/{}", port.name, port.port, port.protocol)
                })
                .collect();
            let local = if service.internal_local { " local" } else { "" };
            let sticky = if service.affinity > 0 { format!(" {}s", service.affinity) } else { String::new() };
            format!("{} {}{local}{sticky}", ips.join(","), ports.join(","))
        });
        assert_eq!(text.as_deref(), expected);
    }

    #[test]
    fn services() {
        check(
            json!({ "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                    "ports": [{ "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }] }),
            json!({}),
            Some("10.96.0.1,fd00::1 :80/TCP,dns:53/UDP"),
        );
        check(
            json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80, "nodePort": 30080 }] }),
            json!({}),
            Some("10.96.0.1 :80/TCP"),
        );
        check(
            json!({ "type": "NodePort", "clusterIP": "10.96.0.1", "internalTrafficPolicy": "Local",
                    "ports": [{ "port": 80, "nodePort": 30080 }] }),
            json!({}),
            Some("10.96.0.1 :80/30080/TCP local"),
        );
        check(
            json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80 }] }),
            json!({}),
            None,
        );
        check(
            json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" }),
            json!({}),
            Some("10.96.0.1 :80/TCP 10800s"),
        );
        check(
            json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 5 } } }),
            json!({}),
            Some("10.96.0.1 :80/TCP 5s"),
        );
        check(json!({ "type": "ExternalName", "externalName": "example.org" }), json!({}), None);
        check(json!({ "clusterIP": "10.96.0.1" }), json!({ OTHER_PROXY: "mine" }), None);
        // One bad port or address does not take the rest along.
        check(
            json!({ "clusterIPs": ["nonsense", "10.96.0.1"],
                    "ports": [{ "port": 70000 }, { "port": 1, "protocol": "ICMP" }, { "port": 443 }] }),
            json!({}),
            Some("10.96.0.1 :443/TCP"),
        );
    }
}
