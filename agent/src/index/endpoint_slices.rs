//! EndpointSlices: from API objects to endpoints and their ports.
//!
//! Must not know: Services, maps. What makes no sense is left out with a warning.

use std::net::IpAddr;

use pagurus_agent_core::addr::{Family, Protocol};
use pagurus_agent_core::services::{Endpoint, ServiceName, Slice, SlicePort};

use crate::index::services::Problems;
use crate::index::wire;

/// The slice, if it belongs to a Service and holds addresses. `node_name` is this node.
pub fn slice(object: &wire::EndpointSlice<'_>, node_name: &str, problems: &mut Problems) -> Option<Slice> {
    let metadata = &object.metadata;
    let labels = metadata.labels.as_ref()?;
    let service = labels.service_name.as_ref().filter(|name| !name.is_empty())?;
    if labels.other_proxy.is_some() || labels.headless.is_some() {
        return None;
    }
    let service = ServiceName::new(metadata.namespace.as_deref()?, service);
    let family = match object.address_type.as_deref()? {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    let ports = object.ports.iter().flatten().filter_map(|port| self::port(port, problems)).collect();
    let endpoints = object
        .endpoints
        .iter()
        .flatten()
        .filter_map(|endpoint| self::endpoint(family, endpoint, node_name, problems))
        .collect();
    Some(Slice { service, family, ports, endpoints })
}

fn port(port: &wire::EndpointPort<'_>, problems: &mut Problems) -> Option<SlicePort> {
    // Without a number it stands for every port, which is for others than load balancers.
    let number = port.port?;
    let parsed =
        Protocol::parse(port.protocol.as_deref()).zip(u16::try_from(number).ok().filter(|n| *n != 0));
    let Some((protocol, number)) = parsed else {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        problems.push(format!("endpoint port {number}/{protocol} makes no sense; not served"));
        return None;
    };
    Some(SlicePort { name: port.name.as_deref().unwrap_or_default().into(), protocol, port: number })
}

fn endpoint(
    family: Family,
    endpoint: &wire::Endpoint<'_>,
    node_name: &str,
    problems: &mut Problems,
) -> Option<Endpoint> {
    let text = endpoint.addresses.as_ref()?.0.as_deref()?;
    let ip = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let Some(ip) = ip.filter(|ip| Family::of(ip) == family && can_be_reached(ip)) else {
        problems.push(format!("endpoint address {text:?} cannot be that of an endpoint; not served"));
        return None;
    };
    let conditions = endpoint.conditions.as_ref();
    // What is not said: ready, and serving if ready, and not terminating.
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    let local = endpoint.node_name.as_deref() == Some(node_name);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
    Some(Endpoint {
        ip,
        ready,
        serving,
        terminating,
        local,
        for_zones: zones.map(|zone| (*zone.name).into()).collect(),
        for_nodes: nodes.map(|node| (*node.name).into()).collect(),
    })
}

/// Whether packets to this address get to one machine that is not the sender itself.
fn can_be_reached(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || link_local)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SERVICE_NAME: &str = "kubernetes.io/service-name";
    const HEADLESS: &str = "service.kubernetes.io/headless";

    /// Endpoints as text: address and the letters of what they are.
    fn check(mut object: Value, expected: Option<&[&str]>) {
        object["metadata"]["namespace"] = "ns".into();
        let object = object.to_string();
        let object: wire::EndpointSlice<'_> = serde_json::from_str(&object).expect("an EndpointSlice");
        let slice = slice(&object, "here", &mut Vec::new());
        let text = slice.map(|slice| -> Vec<String> {
            let flag = |on, letter: &'static str| if on { letter } else { "" };
            slice
                .endpoints
                .iter()
                .map(|e| {
                    let state = [
                        flag(e.ready, "r"),
                        flag(e.serving, "s"),
                        flag(e.terminating, "t"),
                        flag(e.local, "l"),
                    ];
                    let hints: Vec<&str> =
                        e.for_zones.iter().chain(&e.for_nodes).map(|hint| &**hint).collect();
                    format!("{} {}{}", e.ip, state.concat(), hints.join(","))
                })
                .collect()
        });
        let text = text.as_ref().map(|text| text.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(text.as_deref(), expected);
    }

    #[test]
    fn endpoints_and_their_conditions() {
        let labels = json!({ "labels": { SERVICE_NAME: "web" } });
        check(
            json!({ "metadata": labels, "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [
                { "addresses": ["10.0.0.1"], "nodeName": "here" },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false }, "nodeName": "there" },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
                { "addresses": ["10.0.0.4"], "conditions": { "ready": true, "serving": true, "terminating": false } },
                { "addresses": [] }, { "addresses": ["fd00::1"] }, { "addresses": ["nonsense"] },
                { "addresses": ["0.0.0.0"] }, { "addresses": ["127.0.0.1"] }, { "addresses": ["169.254.0.1"] },
                { "addresses": ["10.0.0.5"], "hints": { "forZones": [{ "name": "z1" }, { "name": "z2" }],
                                                        "forNodes": [{ "name": "n1" }] } }
            ] }),
            Some(&["10.0.0.1 rsl", "10.0.0.2 ", "10.0.0.3 st", "10.0.0.4 rs", "10.0.0.5 rsz1,z2,n1"]),
        );
        let other = json!({ "labels": { SERVICE_NAME: "web", HEADLESS: "" } });
        check(json!({ "metadata": other, "addressType": "IPv4", "endpoints": [] }), None);
        check(json!({ "metadata": labels, "addressType": "FQDN", "endpoints": [] }), None);
        check(json!({ "metadata": {}, "addressType": "IPv4", "endpoints": [] }), None);
    }

    #[test]
    fn ports() {
        let object = json!({
            "metadata": { "namespace": "ns", "labels": { SERVICE_NAME: "web" } }, "addressType": "IPv6",
            "endpoints": [], "ports": [{ "name": "a", "port": 80 }, { "name": "b" }, { "port": 99999 },
                { "name": "c", "port": 53, "protocol": "UDP" }]
        })
        .to_string();
        let object: wire::EndpointSlice<'_> = serde_json::from_str(&object).expect("an EndpointSlice");
        let slice = slice(&object, "here", &mut Vec::new()).expect("a slice");
        let ports: Vec<String> =
            slice.ports.iter().map(|port| format!("{}:{}/{}", port.name, port.port, port.protocol)).collect();
        assert_eq!(ports, ["a:80/TCP", "c:53/UDP"]);
    }
}
