//! The objects that depend on how this server was started.

use std::net::IpAddr;

use pagurus_controlplane_api::time;
use serde_json::{Value, json};
use tracing::warn;

use super::Settings;

/// A namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The way to this server, and what extension servers need to trust it.
pub(super) fn objects(settings: &Settings) -> Vec<Value> {
    let mut objects = vec![service_cidr(settings), authentication(settings), service(settings)];
    objects.extend(dns_service(settings));
    if settings.advertise.is_loopback() {
        warn!(
            address = %settings.advertise,
            "the advertise address is a loopback one: the Service \"kubernetes\" gets no endpoints; set --advertise-address"
        );
    } else {
        objects.extend([endpoints(settings), endpoint_slice(settings)]);
    }
    objects
}

fn service(settings: &Settings) -> Value {
    let address = settings.service_ranges.first().map(super::first_address);
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": settings.port}],
        },
    })
}

/// The Service by which pods find the cluster's DNS, at the address where everybody looks for it. It has no selector: each
/// node's agent answers its own pods. Who brings DNS servers in pods gives it a selector, and that stays.
fn dns_service(settings: &Settings) -> Option<Value> {
    let address = super::dns_address(settings.service_ranges.first()?)?.to_string();
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
            ],
        },
    }))
}

/// Whether this is a Service that does with any address if somebody has taken its own.
pub(super) fn may_move(object: &Value) -> bool {
    object["kind"] == "Service" && object["metadata"]["name"] == "kube-dns"
}

/// The Service without the wish for an address.
pub(super) fn at_any_address(service: &Value) -> Value {
    let mut service = service.clone();
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    service
}

fn endpoints(settings: &Settings) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": settings.advertise.to_string()}],
            "ports": [{"name": "https", "port": settings.port, "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(settings: &Settings) -> Value {
    let family = match settings.advertise {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": [{"addresses": [settings.advertise.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": settings.port, "protocol": "TCP"}],
    })
}

fn service_cidr(settings: &Settings) -> Value {
    let ranges: Vec<String> = settings.service_ranges.iter().map(ToString::to_string).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ranges},
    })
}

fn authentication(settings: &Settings) -> Value {
    let list = |items: &[&str]| json!(items).to_string();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": settings.client_ca,
            "requestheader-allowed-names": list(&["front-proxy-client"]),
            "requestheader-client-ca-file": settings.front_proxy_ca,
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
        },
    })
}

/// The condition that a new object of some kinds has from the start.
pub(super) fn condition(object: &Value) -> Option<Value> {
    let condition = |kind: &str, status: &str, reason: &str, message: String| json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time::now_text()});
    match object.get("kind")?.as_str()? {
        "APIService" => {
            Some(condition("Available", "True", "Local", "Local APIServices are always available".to_owned()))
        }
        "ServiceCIDR" => Some(condition("Ready", "True", "", "Kubernetes Service CIDR is ready".to_owned())),
        _ => None,
    }
}
