//! Services: from API objects to what the load balancer needs of them.
//!
//! Must not know: maps. What makes no sense is left out with a warning; it disturbs no other Service.

use std::net::IpAddr;

use ipnet::IpNet;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::{Algorithm, Created, Forwarding, Service, ServiceName, ServicePort};

use crate::index::wire::{self, Text};

/// `snat` or `dsr`.
const MODE: &str = "service.pagurus.dev/load-balancer-mode";
/// `maglev` or `random`.
const ALGORITHM: &str = "service.pagurus.dev/load-balancer-algorithm";

/// Seconds of session affinity where nothing else is said.
const AFFINITY: i32 = 10_800;

/// What holds for Services that say nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    /// How backends are chosen for connections from outside.
    pub algorithm: Algorithm,
    /// How connections from outside get to backends of other nodes.
    pub forwarding: Forwarding,
}

/// What makes no sense in an object, for people to read.
pub type Problems = Vec<String>;

/// The Service, if it has addresses of its own that are ours to serve.
pub fn service(object: &wire::Service<'_>, defaults: &Defaults, problems: &mut Problems) -> Option<Service> {
    let metadata = &object.metadata;
    let spec = object.spec.as_ref()?;
    let kind = spec.kind.as_deref().unwrap_or("ClusterIP");
    let is_others =
        |labels: &wire::ServiceLabels<'_>| labels.other_proxy.is_some() || labels.headless.is_some();
    if kind == "ExternalName" || metadata.labels.as_ref().is_some_and(is_others) {
        return None;
    }
    let name = ServiceName::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let listed = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.as_slice(),
        _ => spec.cluster_ip.as_slice(),
    };
    let cluster_ips = addresses("cluster IP", listed, problems);
    if cluster_ips.is_empty() {
        return None;
    }
    let external_ips = addresses("external IP", spec.external_ips.as_deref().unwrap_or_default(), problems);
    let is_load_balancer = kind == "LoadBalancer";
    let has_node_ports = is_load_balancer || kind == "NodePort";
    // Only where somebody comes from outside does the policy for that mean something.
    let external_local = (has_node_ports || !external_ips.is_empty())
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let ports = spec.ports.iter().flatten();
    let check = spec.health_check_node_port.and_then(number);
    Some(Service {
        name,
        cluster_ips,
        load_balancer_ips: if is_load_balancer { ingress(object, problems) } else { Vec::new() },
        source_ranges: if is_load_balancer { source_ranges(object, spec, problems) } else { Vec::new() },
        external_ips,
        ports: ports.filter_map(|port| self::port(port, has_node_ports, problems)).collect(),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        affinity: affinity(spec),
        health_check_node_port: check.filter(|_| is_load_balancer && external_local),
        algorithm: chosen(
            (ALGORITHM, annotation(object, |all| all.algorithm.as_ref())),
            &[("maglev", Algorithm::Maglev), ("random", Algorithm::Random)],
            problems,
        )
        .unwrap_or(defaults.algorithm),
        forwarding: chosen(
            (MODE, annotation(object, |all| all.mode.as_ref())),
            &[("snat", Forwarding::Snat), ("dsr", Forwarding::Dsr)],
            problems,
        )
        .unwrap_or(defaults.forwarding),
        created: Created {
            seconds: metadata.creation_timestamp.as_deref().map_or(0, seconds),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
        },
    })
}

/// Seconds since 1970; 0 if it is no time.
fn seconds(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

/// For how many seconds a client stays with its backend; 0 if it does not.
fn affinity(spec: &wire::ServiceSpec<'_>) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY);
    u32::try_from(seconds).unwrap_or(0)
}

/// Addresses out of texts; a headless Service has `None` in the place of one.
fn addresses(what: &str, texts: &[Text<'_>], problems: &mut Problems) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::with_capacity(texts.len());
    for text in texts.iter().filter(|text| !matches!(&***text, "" | "None")) {
        match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() => {
                problems.push(format!("{what} {ip} cannot be a Service's; not served"));
            }
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(_) => problems.push(format!("{what} {:?} is no address; not served", &**text)),
        }
    }
    ips
}

/// The load balancer's addresses that lead to the nodes as they are.
fn ingress(object: &wire::Service<'_>, problems: &mut Problems) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let texts: Vec<Text<'_>> = entries
        // The others end at the load balancer, and clients in the cluster have to go there, too.
        .filter(|entry| entry.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|entry| entry.ip.clone())
        .collect();
    addresses("load balancer address", &texts, problems)
}

/// Who may use the load balancer's addresses; empty: everybody.
fn source_ranges(
    object: &wire::Service<'_>,
    spec: &wire::ServiceSpec<'_>,
    problems: &mut Problems,
) -> Vec<IpNet> {
    let listed: Vec<&str> = match &spec.load_balancer_source_ranges {
        Some(ranges) if !ranges.is_empty() => ranges.iter().map(|range| &**range).collect(),
        // From the time before that field.
        _ => annotation(object, |all| all.source_ranges.as_ref())
            .into_iter()
            .flat_map(|text| text.split(','))
            .collect(),
    };
    let mut ranges = Vec::new();
    for text in listed.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        match text.parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => problems.push(format!("source range {text:?} is no network; nobody is let in by it")),
        }
    }
    ranges.sort();
    ranges.dedup();
    ranges
}

fn annotation<'o>(
    object: &'o wire::Service<'_>,
    which: impl for<'b, 'c> Fn(&'b wire::ServiceAnnotations<'c>) -> Option<&'b Text<'c>>,
) -> Option<&'o str> {
    which(object.metadata.annotations.as_ref()?).map(|text| text.trim()).filter(|text| !text.is_empty())
}

/// What an annotation of this name chooses; none if it is not there or means nothing.
fn chosen<T: Copy>(
    (key, text): (&str, Option<&str>),
    choices: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let text = text?;
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        problems.push(format!("annotation {key}: {text:?} is not one of {}; ignored", names.join(", ")));
    }
    found
}

fn number(value: i32) -> Option<u16> {
    u16::try_from(value).ok().filter(|number| *number != 0)
}

fn port(port: &wire::ServicePort<'_>, has_node_ports: bool, problems: &mut Problems) -> Option<ServicePort> {
    let parsed = Protocol::parse(port.protocol.as_deref()).zip(number(port.port));
    let Some((protocol, own)) = parsed else {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        problems.push(format!("port {}/{protocol} makes no sense; not served", port.port));
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

    const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
    const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

    /// The Service as text: addresses, then ports as `name:port[/node port]/protocol`.
    fn check(spec: Value, labels: Value, expected: Option<&str>) {
        let object = json!({
            "metadata": { "namespace": "ns", "name": "web", "labels": labels }, "spec": spec
        })
        .to_string();
        let object: wire::Service<'_> = serde_json::from_str(&object).expect("a Service");
        let text = service(&object, &Defaults::default(), &mut Vec::new()).map(|service| {
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

    fn read(object: Value) -> (Service, Problems) {
        let object = object.to_string();
        let object: wire::Service<'_> = serde_json::from_str(&object).expect("a Service");
        let mut problems = Vec::new();
        let service = service(&object, &Defaults::default(), &mut problems).expect("served");
        (service, problems)
    }

    #[test]
    fn what_comes_from_outside() {
        let (service, problems) = read(json!({
            "metadata": { "namespace": "ns", "name": "web", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:10Z",
                          "annotations": { MODE: "dsr", ALGORITHM: "random", SOURCE_RANGES: "1.0.0.0/8" } },
            "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["198.51.100.1", "198.51.100.1"],
                      "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "ports": [{ "port": 80 }],
                      "loadBalancerSourceRanges": ["203.0.113.7/24", " fd00::/8"] },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.1" }, { "ip": "192.0.2.2", "ipMode": "Proxy" }, { "ip": "192.0.2.3", "ipMode": "VIP" },
                { "hostname": "lb.example.org" } ] } }
        }));
        let texts = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(texts(&service.load_balancer_ips), ["192.0.2.1", "192.0.2.3"]);
        assert_eq!(texts(&service.external_ips), ["198.51.100.1"]);
        let ranges: Vec<String> = service.source_ranges.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["203.0.113.0/24", "fd00::/8"]);
        assert_eq!((service.external_local, service.health_check_node_port), (true, Some(31_000)));
        assert_eq!((service.algorithm, service.forwarding), (Algorithm::Random, Forwarding::Dsr));
        assert_eq!(service.created, Created { seconds: 1_767_225_610, uid: "u1".into() });
    }

    #[test]
    fn what_means_nothing_for_a_cluster_ip() {
        let (service, problems) = read(json!({
            "metadata": { "namespace": "ns", "name": "web", "annotations": { MODE: "both", SOURCE_RANGES: "x" } },
            "spec": { "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                      "externalIPs": ["nonsense", "0.0.0.0", "127.0.0.1"], "ports": [{ "port": 80, "nodePort": 30080 }],
                      "loadBalancerSourceRanges": ["1.2.3.0/24"] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } }
        }));
        assert!(service.load_balancer_ips.is_empty() && service.source_ranges.is_empty());
        assert!(service.external_ips.is_empty() && !service.external_local);
        assert_eq!((service.health_check_node_port, service.forwarding), (None, Forwarding::Snat));
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn the_old_annotation() {
        let (service, problems) = read(json!({
            "metadata": { "namespace": "ns", "name": "web", "annotations": { SOURCE_RANGES: "10.0.0.0/8, bad" } },
            "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [] }
        }));
        assert_eq!((service.source_ranges.len(), problems.len()), (1, 1));
    }
}
