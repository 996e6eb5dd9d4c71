//! Services from outside the cluster, on the cluster of the end-to-end suites: the fabric's namespace, where no agent runs, is the outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace, is_refused_at_once, spread};
use serde_json::{Value, json};

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const ECHO: &str = "pagurus.test/echo:1";
/// Addresses of the fabric, as nodes and pods see the outside.
const FABRIC: [&str; 2] = ["10.88.0.1", "fd88::1"];

/// The client program, run where no agent is.
fn outside(cluster: &Cluster, words: &[&str]) -> Result<String> {
    cluster.probe(&cluster.outside(), words)
}

/// An echo server on each of these nodes, ready.
fn servers(cluster: &Cluster, namespace: &str, nodes: &[String]) -> Result<()> {
    for node in nodes {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("echo-{node}"), "namespace": namespace, "labels": {"app": "echo"}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "echo", "image": ECHO, "ports": [{"containerPort": 8080, "name": "http"}]}
            ]}
        }))?;
    }
    for node in nodes {
        cluster.ready(namespace, &format!("echo-{node}"))?;
    }
    Ok(())
}

/// A Service of type NodePort or LoadBalancer before them; more of its spec in `extra`.
fn service(cluster: &Cluster, namespace: &str, kind: &str, extra: Value) -> Result<Value> {
    let mut spec = json!({"type": kind, "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "echo"}, "ports": [
        {"name": "http", "port": 80, "targetPort": "http"}, {"name": "udp", "protocol": "UDP", "port": 81, "targetPort": 8080}
    ]});
    for (name, value) in extra.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    cluster.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": namespace}, "spec": spec}),
    )?;
    cluster.get(&["-n", namespace, "service", "echo"])
}

fn node_port(service: &Value, name: &str) -> Result<String> {
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port = ports.iter().find(|p| p["name"] == name).and_then(|p| p["nodePort"].as_u64());
    Ok(port.with_context(|| format!("no node port {name}: {service}"))?.to_string())
}

/// Addresses of each node, of both families.
fn addresses(cluster: &Cluster) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    cluster.nodes()?.into_iter().map(|node| Ok((node.clone(), cluster.addresses(&node)?))).collect()
}

/// How many servers answer 60 requests.
fn answering(cluster: &Cluster, address: &str, port: &str) -> Result<usize> {
    Ok(spread(&outside(cluster, &["spread", "60", address, port])?)?.len())
}

#[test]
fn every_node_port_leads_to_every_server() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-node-port")?;
    let nodes = cluster.nodes()?;
    servers(&cluster, &ns.name, &nodes)?;
    let service = service(&cluster, &ns.name, "NodePort", json!({}))?;
    let (http, udp) = (node_port(&service, "http")?, node_port(&service, "udp")?);
    for (node, addresses) in addresses(&cluster)? {
        for ip in addresses {
            let address = &ip.to_string();
            cluster.wait(&format!("{node} answers at {address}:{http}"), 20, |c| {
                Ok(outside(c, &["get", address, &http]).is_ok())
            })?;
            assert_eq!(answering(&cluster, address, &http)?, nodes.len(), "{node} at {address}");
            for _ in 0..8 {
                let said = outside(&cluster, &["udp-to", address, &udp, "hello"])?;
                assert!(said.contains("hello") && said.contains(address), "from the address asked: {said}");
            }
            // The node itself reaches it as well.
            let url = format!("http://{}/", SocketAddr::new(ip, http.parse()?));
            let said = cluster.on_node(&node, &["curl", "-s", "--max-time", "3", &url])?;
            assert!(said.starts_with("echo-"), "{node} to itself: {said}");
        }
    }
    Ok(())
}

#[test]
fn local_policy_keeps_the_client_and_stays_on_the_node() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-local")?;
    let nodes = cluster.nodes()?;
    servers(&cluster, &ns.name, &nodes[..1])?;
    let service = service(&cluster, &ns.name, "LoadBalancer", json!({"externalTrafficPolicy": "Local"}))?;
    let http = node_port(&service, "http")?;
    let health = service["spec"]["healthCheckNodePort"].as_u64().context("no health check port")?.to_string();
    for (node, addresses) in addresses(&cluster)? {
        let here = node == nodes[0];
        for ip in addresses {
            let (address, fabric) = (&ip.to_string(), FABRIC[usize::from(ip.is_ipv6())]);
            if here {
                cluster.wait(&format!("{node} answers at {address}:{http}"), 20, |c| {
                    Ok(outside(c, &["get", address, &http]).is_ok())
                })?;
                let said = outside(&cluster, &["get", address, &http])?;
                assert!(said.contains(&format!(" {fabric} ")), "the server sees the client itself: {said}");
            } else {
                let said = outside(&cluster, &["get", address, &http]);
                assert!(said.is_err(), "{node} has no server: {said:?}");
            }
            cluster.wait(&format!("health of {node} at {address}"), 20, |c| {
                let said: Value = serde_json::from_str(&outside(c, &["get", address, &health])?)?;
                Ok(said["localEndpoints"] == u8::from(here))
            })?;
        }
    }
    Ok(())
}

#[test]
fn external_addresses_and_source_ranges() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-addresses")?;
    let nodes = cluster.nodes()?;
    servers(&cluster, &ns.name, &nodes)?;
    let (external, balanced) = ("192.0.2.10", "192.0.2.20");
    service(&cluster, &ns.name, "LoadBalancer", json!({"externalIPs": [external]}))?;
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": balanced, "ipMode": "VIP"}]}}}).to_string();
    cluster.ok(&[
        "-n",
        &ns.name,
        "patch",
        "service",
        "echo",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ])?;
    // The outside's router sends them to the first node.
    let first = cluster.addresses(&nodes[0])?.first().context("an address")?.to_string();
    let route = |verb: &str| -> Result<()> {
        for address in [external, balanced] {
            pagurus_tests::netns::ip(&["-n", &cluster.fabric(), "route", verb, address, "via", &first])?;
        }
        Ok(())
    };
    route("replace")?;
    let checked = (|| -> Result<()> {
        for address in [external, balanced] {
            cluster.wait(&format!("{address} answers"), 20, |c| {
                Ok(outside(c, &["get", address, "80"]).is_ok())
            })?;
            assert_eq!(answering(&cluster, address, "80")?, nodes.len());
        }
        let ranges = |ranges: Value| {
            let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}}).to_string();
            cluster.ok(&["-n", &ns.name, "patch", "service", "echo", "--type=merge", "-p", &patch])
        };
        ranges(json!(["10.99.0.0/16"]))?;
        cluster.wait("clients not in the ranges are cut off", 20, |c| {
            Ok(outside(c, &["get", balanced, "80"]).is_err())
        })?;
        assert!(
            outside(&cluster, &["get", external, "80"]).is_ok(),
            "the ranges are for load balancer addresses alone"
        );
        ranges(json!(["10.99.0.0/16", "10.88.0.0/24"]))?;
        cluster.wait("clients in the ranges are served", 20, |c| {
            Ok(outside(c, &["get", balanced, "80"]).is_ok())
        })
    })();
    route("delete")?;
    checked
}

#[test]
fn no_endpoint_is_a_refusal_from_outside_too() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-zero")?;
    let service = service(&cluster, &ns.name, "NodePort", json!({}))?;
    let http = node_port(&service, "http")?;
    for (node, addresses) in addresses(&cluster)? {
        for ip in addresses {
            cluster.wait(&format!("{node} refuses at {ip} port {http}"), 20, |c| {
                is_refused_at_once(&outside(c, &["refusal", &ip.to_string(), &http])?)
            })?;
        }
    }
    Ok(())
}

#[test]
fn pods_reach_the_outside_by_their_nodes_address() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-masquerade")?;
    let echo = pagurus_tests::daemon::program("../images/echo")?;
    let mut server = cluster
        .outside()
        .command(&echo.display().to_string())?
        .arg("8099")
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let checked = (|| -> Result<()> {
        for (node, addresses) in addresses(&cluster)? {
            let name = format!("client-{node}");
            cluster.apply(&json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns.name},
                "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
            }))?;
            cluster.ready(&ns.name, &name)?;
            for (fabric, own) in FABRIC.into_iter().zip(addresses) {
                let said =
                    cluster.ok(&["-n", &ns.name, "exec", &name, "--", "/probe", "get", fabric, "8099"])?;
                assert!(said.contains(&format!(" {own} ")), "the outside sees the node: {said}");
                let said = cluster
                    .ok(&["-n", &ns.name, "exec", &name, "--", "/probe", "udp", fabric, "8099", "hello"])?;
                assert!(said.contains("hello"), "{said}");
            }
        }
        Ok(())
    })();
    server.kill()?;
    server.wait()?;
    checked
}
