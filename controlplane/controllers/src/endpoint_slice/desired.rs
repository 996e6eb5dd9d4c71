//! From a Service and its pods to endpoints, grouped by address family and ports. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::runtime::object::{deleting, finished, node_name, ready};

/// What all endpoints of a slice share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    /// `IPv4` or `IPv6`.
    pub(crate) family: &'static str,
    /// Sorted by name.
    pub(crate) ports: Vec<Port>,
}

/// A port of an endpoint, in an order of our own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) number: Option<i32>,
    pub(crate) app_protocol: Option<String>,
}

impl Port {
    /// As the API writes it.
    pub(crate) fn to_api(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            port: self.number,
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }

    /// From the API's form.
    pub(crate) fn of(port: &EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            number: port.port,
            app_protocol: port.app_protocol.clone(),
        }
    }
}

/// The families a Service has addresses in.
pub(crate) fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let listed: Vec<&'static str> = (spec.iter())
        .flat_map(|s| s.ip_families.iter().flatten())
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !listed.is_empty() {
        return listed;
    }
    match spec.and_then(|s| s.cluster_ip.as_deref()).and_then(|ip| ip.parse::<IpAddr>().ok()) {
        Some(IpAddr::V4(_)) => vec!["IPv4"],
        Some(IpAddr::V6(_)) => vec!["IPv6"],
        None => vec!["IPv4", "IPv6"],
    }
}

/// All endpoints of a Service. A group without endpoints stands for a family without any pod.
pub(crate) fn endpoints(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &BTreeMap<String, Option<String>>,
) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let families = families(service);
    for pod in pods.iter().filter(|pod| !finished(pod)) {
        for &family in &families {
            let Some(address) = address(pod, family) else { continue };
            let group = Group { family, ports: ports(service, pod) };
            groups.entry(group).or_default().push(endpoint(service, pod, address, zones));
        }
    }
    for family in families {
        if !groups.keys().any(|g| g.family == family) {
            groups.insert(Group { family, ports: Vec::new() }, Vec::new());
        }
    }
    groups
}

/// The pod's address in a family.
pub(crate) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    all.filter(|text| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    })
    .map(str::to_owned)
    .next()
}

/// The ports of a Service on this pod. A named target port that the pod lacks is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let mut ports: Vec<Port> = (service.spec.iter())
        .flat_map(|s| s.ports.iter().flatten())
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol.to_owned(),
                number: Some(target(port, protocol, pod)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn target(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Sidecars are init containers that stay: their ports count too.
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| {
                    p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|p| p.container_port)
        }
    }
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zones: &BTreeMap<String, Option<String>>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (ready(pod), deleting(&pod.metadata));
    let node = Some(node_name(pod)).filter(|n| !n.is_empty()).map(str::to_owned);
    let zone = node.as_ref().and_then(|n| zones.get(n).cloned().flatten());
    let usable = publish || (serving && !terminating);
    // The annotation comes first, whether it can be met or not.
    let preference = spec.and_then(|s| s.traffic_distribution.as_deref());
    let preference = preference.filter(|_| !super::topology::is_auto(service));
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(usable),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints(preference, node.as_deref(), zone.as_deref()),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        deprecated_topology: None,
    }
}

/// A pod that asks for a name of its own under this headless Service gets it.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let host = spec.hostname.clone().filter(|h| !h.is_empty())?;
    let same = spec.subdomain.as_deref() == service.metadata.name.as_deref()
        && pod.metadata.namespace == service.metadata.namespace;
    same.then_some(host)
}

/// Where traffic for an endpoint should come from, if the Service has a preference.
fn hints(preference: Option<&str>, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let for_zones = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    match preference? {
        "PreferClose" | "PreferSameZone" => {
            for_zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        "PreferSameNode" => {
            let node = node?;
            Some(EndpointHints { for_zones, for_nodes: Some(vec![ForNode { name: node.to_owned() }]) })
        }
        _ => None,
    }
}
