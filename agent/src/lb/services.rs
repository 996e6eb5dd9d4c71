//! Services of type LoadBalancer and where their endpoints are: from API objects to what decisions need.
//!
//! Must not know: what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pagurus_agent_core::lb::{CLASS, LbService, REQUESTED, SHARED};

/// Namespace and name.
pub(super) fn name(metadata: &ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Whether we give it addresses: it is of the type and of our class, or of none if those are ours too.
pub(super) fn is_ours(service: &Service, unclassed: bool) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer")
        && service.metadata.deletion_timestamp.is_none()
        && class.map_or(unclassed, |class| class == CLASS)
}

/// Whether only nodes with endpoints take its traffic from outside.
pub(super) fn is_local(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

/// The addresses it has.
pub(super) fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

/// What the plan needs to know of it.
pub(super) fn read(service: &Service) -> LbService {
    let (namespace, name) = name(&service.metadata);
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let annotations = service.metadata.annotations.clone().unwrap_or_default();
    let wishes = annotations.get(REQUESTED).map(String::as_str).unwrap_or_default();
    let wishes = wishes.split(',').map(str::trim).chain(spec.load_balancer_ip.as_deref());
    let families = spec.ip_families.as_deref().unwrap_or_default().iter().map(|family| family == "IPv4");
    let ports = spec.ports.iter().flatten();
    LbService {
        labels: service.metadata.labels.clone().unwrap_or_default(),
        created: service
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.to_string())
            .unwrap_or_default(),
        families: families.collect(),
        requested: wishes.filter_map(|ip| ip.parse().ok()).collect(),
        sharing_key: annotations.get(SHARED).filter(|key| !key.is_empty()).cloned(),
        ports: ports
            .map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port))
            .collect(),
        local: is_local(service),
        current: addresses(service),
        namespace,
        name,
    }
}

/// The nodes with ready endpoints of one slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LocalNodes {
    /// Its Service: namespace and name.
    pub(super) service: (String, String),
    /// The nodes.
    pub(super) nodes: BTreeSet<String>,
}

impl LocalNodes {
    pub(super) fn read(slice: &EndpointSlice) -> Self {
        let (namespace, _) = name(&slice.metadata);
        let labels: Option<&BTreeMap<String, String>> = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name")).cloned();
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
        });
        Self {
            service: (namespace, service.unwrap_or_default()),
            nodes: ready.filter_map(|endpoint| endpoint.node_name.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "ns", "name": "web",
                "annotations": { REQUESTED: "fd00::9, nonsense", SHARED: "k" }
            },
            "spec": spec,
            "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }, { "hostname": "x" }] } }
        }))
        .expect("a Service")
    }

    #[test]
    fn whose_services_they_are() {
        let check = |spec: Value, with: bool, without: bool| {
            let service = service(spec);
            assert_eq!((is_ours(&service, true), is_ours(&service, false)), (with, without));
        };
        check(json!({ "type": "LoadBalancer" }), true, false);
        check(json!({ "type": "LoadBalancer", "loadBalancerClass": CLASS }), true, true);
        check(json!({ "type": "LoadBalancer", "loadBalancerClass": "example.com/x" }), false, false);
        check(json!({ "type": "ClusterIP" }), false, false);
    }

    #[test]
    fn what_the_plan_needs() {
        let read = read(&service(json!({
            "type": "LoadBalancer", "ipFamilies": ["IPv6", "IPv4"], "loadBalancerIP": "10.0.0.7",
            "externalTrafficPolicy": "Local",
            "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }]
        })));
        assert_eq!(read.families, [false, true]);
        assert_eq!(read.requested.len(), 2);
        assert_eq!(read.sharing_key.as_deref(), Some("k"));
        assert_eq!(read.current.len(), 1);
        assert!(read.local && read.ports.contains(&("UDP".to_owned(), 53)));
    }

    #[test]
    fn nodes_with_ready_endpoints() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": { "namespace": "ns", "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.0.0.1"], "nodeName": "a" },
                { "addresses": ["10.0.0.2"], "nodeName": "b", "conditions": { "ready": false } }
            ]
        }))
        .expect("a slice");
        let read = LocalNodes::read(&slice);
        assert_eq!(read.service, ("ns".to_owned(), "web".to_owned()));
        assert_eq!(read.nodes, BTreeSet::from(["a".to_owned()]));
    }
}
