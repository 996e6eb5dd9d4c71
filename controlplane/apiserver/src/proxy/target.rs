//! Where a proxied request goes. Pure, but for reading the pod or service asked for.

use std::net::IpAddr;

use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::GroupVersionResource;
use pagurus_controlplane_api::status::{ApiError, Reason};
use serde_json::Value;

use super::text;
use crate::engine::Engine;
use crate::objects::Objects;
use crate::request::{Call, Query};

const KUBELET_PORT: u16 = 10250;
/// The parameters of a log that the node takes.
const LOG_PARAMETERS: [&str; 9] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
    "insecureSkipTLSVerifyBackend",
];

/// An address and what to ask there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Whether TLS is spoken there.
    pub(super) tls: bool,
    /// Whether it is a node's own API, to which the server shows its certificate.
    pub(super) node_api: bool,
    pub(super) host: IpAddr,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

/// The node API's address for a stream of a pod; none if the pod has no node and the stream is its log.
pub(super) fn of_stream(
    objects: &dyn Objects,
    pod: &Value,
    sub: &str,
    query: &Query,
) -> Result<Option<Target>, ApiError> {
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    if sub == "log" {
        check_log_options(query, name)?;
    }
    let container = if sub == "portforward" { None } else { Some(container(pod, query)?) };
    let node = text(pod, "/spec/nodeName");
    if node.is_empty() {
        if sub == "log" {
            return Ok(None);
        }
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let word = match sub {
        "log" => "containerLogs",
        "portforward" => "portForward",
        other => other,
    };
    let mut path = format!("/{word}/{}/{}", encode(namespace), encode(name));
    if let Some(container) = container {
        path = format!("{path}/{}", encode(&container));
    }
    path.push_str(&node_query(sub, query));
    let (host, port) = node_address(objects, node)?;
    Ok(Some(Target { tls: true, node_api: true, host, port, path }))
}

/// The container asked for, or the only one.
fn container(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let name = text(pod, "/metadata/name");
    let names = |field: &str| -> Vec<String> {
        let containers =
            pod.pointer(&format!("/spec/{field}")).and_then(Value::as_array).into_iter().flatten();
        containers.map(|container| text(container, "/name").to_owned()).collect()
    };
    let (usual, initial) = (names("containers"), names("initContainers"));
    match query.get("container").filter(|container| !container.is_empty()) {
        Some(asked) => {
            let known = [&usual, &initial, &names("ephemeralContainers")];
            if known.into_iter().flatten().any(|container| container == asked) {
                return Ok(asked.to_owned());
            }
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
        }
        None => match usual.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
            several => {
                let mut message = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    several.join(" ")
                );
                if !initial.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", initial.join(" ")));
                }
                Err(ApiError::bad_request(message))
            }
        },
    }
}

fn check_log_options(query: &Query, pod: &str) -> Result<(), ApiError> {
    let number = |name: &str| query.get(name).map(|value| value.parse::<i64>().unwrap_or(i64::MIN));
    let mut errors = Vec::new();
    for (name, least, what) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        match number(name) {
            Some(i64::MIN) => {
                let value = query.get(name).unwrap_or_default();
                return Err(ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing \"{value}\": invalid syntax"
                )));
            }
            Some(value) if value < least => errors.push(FieldError::invalid(name, value, what)),
            _ => {}
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors
            .push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", pod, errors)) }
}

/// The query in the node's words.
fn node_query(sub: &str, query: &Query) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    match sub {
        "log" => {
            let known = query.pairs().iter().filter(|(name, _)| LOG_PARAMETERS.contains(&name.as_str()));
            pairs.extend(known.cloned());
        }
        "portforward" => {
            let ports = query.all("ports").chain(query.all("port"));
            let ports = ports.flat_map(|value| value.split(',')).filter(|port| !port.is_empty());
            pairs.extend(ports.map(|port| ("port".to_owned(), port.to_owned())));
        }
        _ => {
            for (given, told) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if query.flag(given) {
                    pairs.push((told.to_owned(), "1".to_owned()));
                }
            }
            pairs.extend(query.all("command").map(|word| ("command".to_owned(), word.to_owned())));
        }
    }
    let words: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    if words.is_empty() { String::new() } else { format!("?{}", words.join("&")) }
}

/// Where a node's own API is.
fn node_address(objects: &dyn Objects, name: &str) -> Result<(IpAddr, u16), ApiError> {
    let node =
        objects.get("", "nodes", "", name).ok_or_else(|| ApiError::not_found("", "nodes", name))?.value();
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let of_type = |kind: &str| {
        addresses
            .iter()
            .filter(|a| text(a, "/type") == kind)
            .find_map(|a| text(a, "/address").parse::<IpAddr>().ok())
    };
    let host = of_type("InternalIP").or_else(|| of_type("ExternalIP")).or_else(|| of_type("Hostname"));
    let host = host.ok_or_else(|| {
        ApiError::internal(format!(
            "no preferred addresses found; known addresses: node \"{name}\" has no IP address"
        ))
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    Ok((
        host,
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT),
    ))
}

/// `nodes/NAME/proxy/PATH`: the node's own API.
pub(super) fn of_node(objects: &dyn Objects, call: &Call) -> Result<Target, ApiError> {
    let asked = Asked::parse(call.info.name.as_deref().unwrap_or_default())
        .ok_or_else(|| invalid_name("node", call))?;
    let (host, kubelet) = node_address(objects, asked.name)?;
    let port = match asked.port {
        "" => kubelet,
        port => port.parse().map_err(|_| invalid_name("node", call))?,
    };
    let node_api = port == kubelet;
    Ok(Target { tls: node_api || asked.scheme == "https", node_api, host, port, path: rest(call) })
}

/// `pods/NAME/proxy/PATH`: a port of the pod, the first one of its containers unless told.
pub(super) async fn of_pod(engine: &Engine, call: &Call) -> Result<Target, ApiError> {
    let asked = Asked::parse(call.info.name.as_deref().unwrap_or_default())
        .ok_or_else(|| invalid_name("pod", call))?;
    let pods = GroupVersionResource::new("", "v1", "pods");
    let pod = engine.get(&pods, call.info.namespace.as_deref(), asked.name).await?;
    let host =
        text(&pod, "/status/podIP").parse().map_err(|_| ApiError::bad_request("address not allowed"))?;
    let port = match asked.port {
        "" => first_port(&pod).unwrap_or(if asked.scheme == "https" { 443 } else { 80 }),
        port => port.parse().map_err(|_| invalid_name("pod", call))?,
    };
    Ok(Target { tls: asked.scheme == "https", node_api: false, host, port, path: rest(call) })
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let mut ports = containers.filter_map(|c| c.get("ports").and_then(Value::as_array)).flatten();
    ports.next()?.get("containerPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
}

/// `services/NAME/proxy/PATH`: a ready endpoint of the service.
pub(super) fn of_service(objects: &dyn Objects, call: &Call) -> Result<Target, ApiError> {
    let asked = Asked::parse(call.info.name.as_deref().unwrap_or_default())
        .ok_or_else(|| invalid_name("service", call))?;
    let namespace = call.info.namespace.as_deref().unwrap_or_default();
    let service = objects.get("", "services", namespace, asked.name);
    let service = service.ok_or_else(|| ApiError::not_found("", "services", asked.name))?.value();
    let port_name = service_port(&service, asked.port).ok_or_else(|| {
        ApiError::service_unavailable(format!(
            "no service port \"{}\" found for service \"{}\"",
            asked.port, asked.name
        ))
    })?;
    let slices = objects.list("discovery.k8s.io", "endpointslices", namespace).into_iter().map(|s| s.value());
    let of_service = |slice: &Value| {
        slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str)
            == Some(asked.name)
    };
    let mut endpoints: Vec<(IpAddr, u16)> =
        slices.filter(of_service).flat_map(|slice| ready_endpoints(&slice, port_name)).collect();
    endpoints.sort_unstable();
    let at = if endpoints.is_empty() { 0 } else { rand::random_range(0..endpoints.len()) };
    let (host, port) = endpoints.get(at).copied().ok_or_else(|| {
        ApiError::service_unavailable(format!("no endpoints available for service \"{}\"", asked.name))
    })?;
    Ok(Target { tls: asked.scheme == "https", node_api: false, host, port, path: rest(call) })
}

/// The name of the port that is asked for by name or number; the only port has no need of asking.
fn service_port<'a>(service: &'a Value, asked: &str) -> Option<&'a str> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array)?;
    let port = match (asked, ports.as_slice()) {
        ("", [only]) => only,
        ("", many) => many.iter().find(|port| text(port, "/name").is_empty())?,
        (asked, many) => many.iter().find(|port| {
            text(port, "/name") == asked
                || port.get("port").and_then(Value::as_u64).is_some_and(|n| n.to_string() == asked)
        })?,
    };
    Some(text(port, "/name"))
}

fn ready_endpoints(slice: &Value, port_name: &str) -> Vec<(IpAddr, u16)> {
    let list = |field: &str| slice.get(field).and_then(Value::as_array).into_iter().flatten();
    let port =
        list("ports").find(|port| text(port, "/name") == port_name).and_then(|p| p.get("port")?.as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    list("endpoints")
        .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .filter_map(|endpoint| endpoint.get("addresses")?.get(0)?.as_str()?.parse().ok())
        .map(|address| (address, port))
        .collect()
}

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let asked = match text.split(':').collect::<Vec<_>>().as_slice() {
            [name] => Self { scheme: "", name, port: "" },
            [name, port] => Self { scheme: "", name, port },
            [scheme @ ("http" | "https" | ""), name, port] => Self { scheme, name, port },
            _ => return None,
        };
        (!asked.name.is_empty()).then_some(asked)
    }
}

fn invalid_name(kind: &str, call: &Call) -> ApiError {
    let name = call.info.name.as_deref().unwrap_or_default();
    ApiError::new(400, Reason::BadRequest, format!("invalid {kind} request \"{name}\""))
}

/// What follows `/proxy` in the address, as it came.
fn rest(call: &Call) -> String {
    // `/api/v1/namespaces/NS/pods/NAME/proxy/` or `/api/v1/nodes/NAME/proxy/`.
    let leading = if call.info.namespace.is_some() { 8 } else { 6 };
    let after = call.uri.path().splitn(leading + 1, '/').nth(leading).unwrap_or_default();
    let after = format!("/{after}");
    match call.uri.query() {
        Some(query) => format!("{after}?{query}"),
        None => after,
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::fake::FakeObjects;

    fn cluster() -> FakeObjects {
        let objects = FakeObjects::default();
        objects.put("/nodes", &json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.5"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }}));
        objects
    }

    #[test]
    fn streams() {
        let two = json!([{"name": "a"}, {"name": "b"}]);
        let pod = |containers: Value, node: &str| json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {"containers": containers, "nodeName": node}});
        let one = json!([{"name": "a"}]);
        let at = |path: &str| format!("192.0.2.5:10250{path}");
        let rows = [
            ("log", pod(one.clone(), "n"), "follow=true&container=a&pretty=1", at("/containerLogs/ns/p/a?follow=true")),
            ("log", pod(one.clone(), ""), "", "nowhere".to_owned()),
            ("log", pod(one.clone(), "n"), "tailLines=-1", "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0".to_owned()),
            ("exec", pod(one.clone(), ""), "", "pod p does not have a host assigned".to_owned()),
            ("exec", pod(one.clone(), "n"), "command=ls&command=-l&stdin=true&stdout=true&tty=true", at("/exec/ns/p/a?input=1&output=1&tty=1&command=ls&command=%2Dl")),
            ("exec", pod(two.clone(), "n"), "command=ls", "a container name must be specified for pod p, choose one of: [a b]".to_owned()),
            ("attach", pod(two, "n"), "container=c", "container c is not valid for pod p".to_owned()),
            ("portforward", pod(one.clone(), "n"), "ports=80,81", at("/portForward/ns/p?port=80&port=81")),
            ("portforward", pod(one, "lost"), "", "nodes \"lost\" not found".to_owned()),
        ];
        for (sub, pod, query, want) in rows {
            let got = match of_stream(&cluster(), &pod, sub, &Query::parse(query)) {
                Ok(Some(target)) => format!("{}:{}{}", target.host, target.port, target.path),
                Ok(None) => "nowhere".to_owned(),
                Err(error) => error.message,
            };
            assert_eq!(got, want, "{sub} {query}");
        }
    }

    #[test]
    fn names() {
        let rows = [
            ("web", Some(("", "web", ""))),
            ("web:80", Some(("", "web", "80"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("ftp:web:21", None),
            ("", None),
        ];
        for (text, want) in rows {
            assert_eq!(Asked::parse(text), want.map(|(scheme, name, port)| Asked { scheme, name, port }));
        }
    }

    #[test]
    fn endpoints() {
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                {"addresses": ["192.0.2.3"], "conditions": {}},
            ],
        });
        let hosts: Vec<String> =
            ready_endpoints(&slice, "http").iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        assert_eq!(hosts, ["192.0.2.1:8080", "192.0.2.3:8080"]);
        assert!(ready_endpoints(&slice, "other").is_empty());
        let service =
            json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(service_port(&service, "81"), Some("admin"));
        assert_eq!(service_port(&service, "http"), Some("http"));
        assert_eq!(service_port(&service, ""), None);
    }
}
