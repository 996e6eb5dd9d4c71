//! Services and EndpointSlices: from API objects to what DNS needs of them.
//!
//! Must not know: names, answers. What makes no sense is left out; the load balancer's index tells of it.

use std::net::IpAddr;

use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::dns::{Endpoint, Kind, Port, Service, Slice};

use crate::index::wire::{self, Text};

/// Namespace and name of the Service at whose ClusterIP pods find DNS.
pub const SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// The Service, if there is anything to say about it.
pub fn service(object: &wire::Service<'_>) -> Option<Service> {
    let metadata = &object.metadata;
    let spec = object.spec.as_ref()?;
    let kind = if spec.kind.as_deref() == Some("ExternalName") {
        Kind::External(spec.external_name.as_ref().and_then(text)?)
    } else if spec.cluster_ip.as_deref() == Some("None") {
        Kind::Headless { not_ready_too: spec.publish_not_ready_addresses.unwrap_or(false) }
    } else {
        let listed = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let ips: Vec<IpAddr> = listed.filter_map(|text| text.parse().ok()).collect();
        let v4 = ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let v6 = ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        if ips.is_empty() {
            // It has not been given its address yet.
            return None;
        }
        Kind::ClusterIp(v4, v6)
    };
    let port =
        |port: &wire::ServicePort<'_>| port_of(port.name.as_deref(), port.protocol.as_deref(), port.port);
    Some(Service {
        namespace: metadata.namespace.as_deref()?.to_owned(),
        name: metadata.name.as_deref()?.to_owned(),
        kind,
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
    })
}

/// The slice, if it belongs to a Service and holds addresses.
pub fn slice(object: &wire::EndpointSlice<'_>) -> Option<Slice> {
    let metadata = &object.metadata;
    let service = metadata.labels.as_ref()?.service_name.as_ref().and_then(text)?;
    if object.address_type.as_deref() == Some("FQDN") {
        return None;
    }
    let port =
        |port: &wire::EndpointPort<'_>| port_of(port.name.as_deref(), port.protocol.as_deref(), port.port?);
    let endpoint = |endpoint: &wire::Endpoint<'_>| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        let ip = endpoint.addresses.as_ref()?.0.as_ref()?.parse::<IpAddr>().ok()?;
        Some(Endpoint { ip: ip.to_canonical(), ready, hostname: endpoint.hostname.as_ref().and_then(text) })
    };
    Some(Slice {
        namespace: metadata.namespace.as_deref()?.to_owned(),
        service,
        ports: object.ports.iter().flatten().filter_map(port).collect(),
        endpoints: object.endpoints.iter().flatten().filter_map(endpoint).collect(),
    })
}

/// A copy of a text, if there is anything in it.
fn text(text: &Text<'_>) -> Option<String> {
    Some(text.to_string()).filter(|text| !text.is_empty())
}

fn port_of(name: Option<&str>, protocol: Option<&str>, port: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_owned(),
        protocol: Protocol::parse(protocol)?,
        port: u16::try_from(port).ok().filter(|port| *port != 0)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SERVICE_NAME: &str = "kubernetes.io/service-name";

    #[test]
    fn kinds_of_services() {
        let check = |spec: Value, expected: Option<Kind>| {
            let metadata = json!({"namespace": "ns", "name": "web"});
            let object = json!({"metadata": metadata, "spec": spec}).to_string();
            let object: wire::Service<'_> = serde_json::from_str(&object).unwrap();
            assert_eq!(service(&object).map(|service| service.kind), expected, "{spec}");
        };
        let (v4, v6) = (Some([10, 0, 0, 1].into()), "fd00::1".parse().ok());
        check(json!({"clusterIP": "10.0.0.1"}), Some(Kind::ClusterIp(v4, None)));
        check(
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"]}),
            Some(Kind::ClusterIp(v4, v6)),
        );
        check(json!({"clusterIP": "None"}), Some(Kind::Headless { not_ready_too: false }));
        check(
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            Some(Kind::Headless { not_ready_too: true }),
        );
        check(json!({"type": "ExternalName", "externalName": "a.b"}), Some(Kind::External("a.b".to_owned())));
        check(json!({"type": "ExternalName"}), None);
        check(json!({"clusterIP": ""}), None);
        check(json!({"clusterIP": "x"}), None);
    }

    #[test]
    fn endpoints_of_slices() {
        let slice = |labels: Value, kind: &str| {
            let object = json!({
                "metadata": {"namespace": "ns", "name": "s", "labels": labels},
                "addressType": kind,
                "ports": [{"name": "http", "port": 8080}, {"name": "all"}, {"port": 0}],
                "endpoints": [
                    {"addresses": ["10.0.0.1", "10.0.0.2"], "hostname": "a", "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.3"], "hostname": ""},
                    {"addresses": ["bad"]},
                    {"addresses": []},
                ],
            })
            .to_string();
            slice(&serde_json::from_str(&object).unwrap())
        };
        let found = slice(json!({SERVICE_NAME: "web"}), "IPv4").unwrap();
        assert_eq!((found.service.as_str(), found.ports.len()), ("web", 1));
        let endpoint = |last: u8, ready, hostname: Option<&str>| Endpoint {
            ip: IpAddr::from([10, 0, 0, last]),
            ready,
            hostname: hostname.map(str::to_owned),
        };
        assert_eq!(found.endpoints, [endpoint(1, false, Some("a")), endpoint(3, true, None)]);
        assert_eq!(slice(json!({}), "IPv4"), None);
        assert_eq!(slice(json!({SERVICE_NAME: "web"}), "FQDN"), None);
    }
}
