//! Ports of the node that lead to a container.
//!
//! Must not know: who carries packets there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A port of the node that leads to a port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// The only address of the node it is reached at; none: at all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// Port of the node.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(ip) => write!(f, "{}/{}", SocketAddr::new(ip, self.host_port), self.protocol),
            None => write!(f, "{}/{}", self.host_port, self.protocol),
        }
    }
}

impl HostPort {
    /// Whether a packet could be meant for either.
    pub fn clashes(&self, other: &Self) -> bool {
        let apart = matches!((self.host_ip, other.host_ip), (Some(a), Some(b)) if a != b);
        self.host_port == other.host_port && self.protocol == other.protocol && !apart
    }
}

/// The capability argument `portMappings` of the runtime; entries without a host port ask for nothing.
pub fn read(mappings: &Value) -> Result<Vec<HostPort>, String> {
    let entries = match mappings {
        Value::Null => return Ok(Vec::new()),
        Value::Array(entries) => entries,
        other => return Err(format!("portMappings is no list: {other}")),
    };
    let mut ports: Vec<HostPort> = Vec::with_capacity(entries.len());
    for entry in entries {
        let field = |name: &str| field(entry, name);
        let port = |name: &str| {
            let number = field(name).and_then(Value::as_u64).unwrap_or_default();
            u16::try_from(number).map_err(|_| format!("{name} {number} of portMappings is no port"))
        };
        let (host_port, container_port) = (port("hostPort")?, port("containerPort")?);
        if host_port == 0 {
            continue;
        }
        if container_port == 0 {
            return Err(format!("host port {host_port} of portMappings has no containerPort"));
        }
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
        let protocol = match text("protocol").to_ascii_lowercase().as_str() {
            "" => "tcp".to_owned(),
            known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
            other => return Err(format!("protocol {other:?} of host port {host_port} is not known")),
        };
        let host_ip: Option<IpAddr> = match text("hostIP") {
            "" => None,
            ip => Some(
                ip.parse().map_err(|_| format!("hostIP {ip:?} of host port {host_port} is no address"))?,
            ),
        };
        let new = HostPort {
            host_ip: host_ip.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified()),
            host_port,
            container_port,
            protocol,
        };
        if !ports.contains(&new) {
            ports.push(new);
        }
    }
    Ok(ports)
}

/// A field in any case: containerd writes `HostPort`, others `hostPort` as the specification has it.
fn field<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = entry.as_object()?;
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mappings_of_runtimes() {
        let check = |mappings: Value, expected: Result<&[&str], &str>| {
            let shown =
                read(&mappings).map(|ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected =
                expected.map(|ports| ports.iter().map(|&port| port.to_owned()).collect::<Vec<_>>());
            assert_eq!(shown, expected.map_err(str::to_owned), "{mappings}");
        };
        check(Value::Null, Ok(&[]));
        check(
            json!([
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
                { "hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "0.0.0.0" },
                { "hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "fd77::1" },
                { "hostPort": 0, "containerPort": 81 },
            ]),
            Ok(&["8080/tcp", "[fd77::1]:53/udp"]),
        );
        check(
            json!([{ "HostPort": 18080, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": "" }]),
            Ok(&["18080/tcp"]),
        );
        check(json!({}), Err("portMappings is no list: {}"));
        check(
            json!([{ "hostPort": 70000, "containerPort": 80 }]),
            Err("hostPort 70000 of portMappings is no port"),
        );
        check(json!([{ "hostPort": 8080 }]), Err("host port 8080 of portMappings has no containerPort"));
        check(
            json!([{ "hostPort": 1, "containerPort": 1, "protocol": "icmp" }]),
            Err("protocol \"icmp\" of host port 1 is not known"),
        );
        check(
            json!([{ "hostPort": 1, "containerPort": 1, "hostIP": "here" }]),
            Err("hostIP \"here\" of host port 1 is no address"),
        );
    }
}
