//! A Service's table row.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;

/// The cells of the row.
pub(super) fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = service.texts("spec.clusterIPs").next().unwrap_or_default();
    let ports: Vec<String> = service.items("spec.ports").iter().map(port).collect();
    vec![
        cells::name(service),
        service.text("spec.type").into(),
        cells::or_none(cluster_ip),
        external_ip(service).into(),
        cells::or_none(&ports.join(",")),
        cells::age(service, now),
        cells::label_map(service, "spec.selector").into(),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (port.int("port"), port.text("protocol"));
    match port.int("nodePort") {
        node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let external = cells::joined(service, "spec.externalIPs");
    match service.text("spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => cells::NONE.to_owned(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let mut addresses: Vec<&str> = service
                .items("status.loadBalancer.ingress")
                .iter()
                .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") })
                .filter(|address| !address.is_empty())
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            let given = addresses.join(",");
            match (given.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (true, false) => external,
                (false, true) => given,
                (false, false) => format!("{given},{external}"),
            }
        }
        "ExternalName" => service.text("spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let now = Timestamp::UNIX_EPOCH;
        for (service, expected) in [
            (
                json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "protocol": "TCP"}]}}),
                ["ClusterIP", "10.0.0.1", "<none>", "80/TCP", "<none>"],
            ),
            (
                json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"},
                    "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
                ["LoadBalancer", "10.0.0.1", "<pending>", "80:30080/TCP,53/UDP", "a=b"],
            ),
            (
                json!({"spec": {"type": "LoadBalancer"},
                    "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "1.a"}]}}}),
                ["LoadBalancer", "<none>", "1.a,2.2.2.2", "<none>", "<none>"],
            ),
            (
                json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
                ["ExternalName", "<none>", "a.b", "<none>", "<none>"],
            ),
        ] {
            let row = cells(&service, now);
            let row: Vec<&str> = [1, 2, 3, 4, 6].iter().filter_map(|i| row[*i].as_str()).collect();
            assert_eq!(row, expected);
        }
    }
}
