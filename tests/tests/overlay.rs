//! A whole cluster whose nodes reach each other's pods through VXLAN: Services across nodes, both families, long answers; and Services
//! that keep to a zone or a node.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::cluster::{Cluster, Namespace, Own, spread};
use pagurus_tests::load::Place;
use serde_json::{Value, json};

use super::upgrade::serve;

/// Who answers at an address.
fn answering(cluster: &Cluster, place: &Place, ip: &str, port: &str) -> Result<BTreeSet<String>> {
    Ok(spread(&cluster.probe(place, &["spread", "60", ip, port])?)?.into_keys().collect())
}

fn patch(cluster: &Cluster, namespace: &str, spec: Value) -> Result<()> {
    let patch = json!({ "spec": spec }).to_string();
    cluster.ok(&["-n", namespace, "patch", "service", "echo", "--type=merge", "-p", &patch]).map(drop)
}

/// Bytes that a node has received through the tunnel.
fn tunnelled(cluster: &Cluster, node: &str) -> Result<u64> {
    let said = cluster.on_node(node, &["cat", "/sys/class/net/pgr_vxlan/statistics/rx_bytes"])?;
    said.trim().parse().with_context(|| format!("{said:?}"))
}

#[test]
fn services_through_vxlan_and_within_zones() -> Result<()> {
    let Some(own) = Own::up("e2e-overlay", 3, &["--routing=vxlan"])? else { return Ok(()) };
    let cluster: &Cluster = &own;
    let nodes = cluster.nodes()?;
    let ns = Namespace::new(cluster, "overlay")?;
    let name = ns.name.as_str();
    // Cluster IPs from a pod, and NodePorts from outside, lead to all nodes: seen there before it returns.
    let served = serve(cluster, name)?;
    let before = tunnelled(cluster, &nodes[1])?;
    let path = format!("/{}", "x".repeat(100_000));
    for (place, to) in [(&cluster.outside(), &served.outside), (&served.client, &served.inside)] {
        for (ip, tcp, udp) in to {
            let (ip, tcp, udp) = (ip.to_string(), tcp.to_string(), udp.to_string());
            for _ in 0..8 {
                let answer = cluster.probe(place, &["get", &ip, &tcp, &path])?;
                ensure!(answer.trim_end().ends_with(&path), "{} of {ip}", answer.len());
            }
            // Longer than the tunnel takes: the first one may be lost, for the client learns of it by an ICMP error.
            let long = "y".repeat(1900);
            for _ in 0..8 {
                cluster.wait("long datagrams are answered", 20, |c| {
                    let answer = c.probe(place, &["udp-to", &ip, &udp, &long])?;
                    Ok(answer.contains(&long) && answer.contains(&ip))
                })?;
            }
        }
    }
    let through = tunnelled(cluster, &nodes[1])? - before;
    ensure!(through > 500_000, "{through} bytes came through the tunnel");
    let mtu = cluster.ok(&["-n", name, "exec", "client", "--", "cat", "/sys/class/net/eth0/mtu"])?;
    ensure!(mtu.trim() == "1450", "pods have an MTU of {mtu}");
    // Local: the node asked answers itself, and sees the client.
    patch(cluster, name, json!({"externalTrafficPolicy": "Local"}))?;
    for (ip, tcp, _) in &served.outside {
        let (ip, port) = (ip.to_string(), tcp.to_string());
        cluster.wait("only the node's own server answers", 20, |c| {
            let seen = answering(c, &c.outside(), &ip, &port)?;
            Ok(seen == BTreeSet::from([format!("echo-{}", nodes[0])]))
        })?;
        let said = cluster.probe(&cluster.outside(), &["get", &ip, &port])?;
        ensure!([" 10.88.0.1 ", " fd88::1 "].iter().any(|client| said.contains(client)), "{said}");
    }
    zones(cluster, name, &nodes)
}

/// Two nodes in one zone, the third in another.
fn zones(cluster: &Cluster, namespace: &str, nodes: &[String]) -> Result<()> {
    for (node, zone) in nodes.iter().zip(["a", "a", "b"]) {
        cluster.ok(&["label", "node", node, &format!("topology.kubernetes.io/zone={zone}")])?;
    }
    for node in &nodes[1..] {
        cluster.pod(namespace, &format!("client-{node}"), "client", node, "pagurus.test/toolbox:1")?;
        cluster.ready(namespace, &format!("client-{node}"))?;
    }
    let clients = ["client".to_owned(), format!("client-{}", nodes[1]), format!("client-{}", nodes[2])];
    let object = cluster.get(&["-n", namespace, "service", "echo"])?;
    let ips: Vec<String> = serde_json::from_value(object["spec"]["clusterIPs"].clone())?;
    let expected: [(Value, [&[usize]; 3]); 3] = [
        (json!("PreferSameZone"), [&[0, 1], &[0, 1], &[2]]),
        (json!("PreferSameNode"), [&[0], &[1], &[2]]),
        (json!(null), [&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]),
    ];
    for (distribution, servers) in expected {
        patch(cluster, namespace, json!({ "trafficDistribution": distribution }))?;
        for (client, servers) in clients.iter().zip(servers) {
            let place = cluster.in_pod(namespace, client)?;
            let wanted: BTreeSet<String> = servers.iter().map(|n| format!("echo-{}", nodes[*n])).collect();
            for ip in &ips {
                cluster.wait(&format!("{distribution}: {client} reaches {wanted:?} at {ip}"), 30, |c| {
                    let seen = answering(c, &place, ip, "80")?;
                    ensure!(seen == wanted, "{seen:?}");
                    Ok(true)
                })?;
            }
        }
    }
    Ok(())
}
