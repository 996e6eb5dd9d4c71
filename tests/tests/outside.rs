//! Services from outside the cluster, on the cluster of the end-to-end suites: the fabric's namespace, where no agent runs, is the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pagurus_tests::cluster::{Cluster, Namespace, items};
use serde_json::{Value, json};

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const ECHO: &str = "pagurus.test/echo:1";
/// Addresses of the fabric, as nodes and pods see the outside.
const FABRIC: [&str; 2] = ["10.88.0.1", "fd88::1"];

/// The client program, run where no agent is.
fn outside(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
    let probe = std::path::Path::new(&binaries).join("../images/probe");
    let out = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", cluster.fabric()))
        .arg(&probe)
        .args(words)
        .output()?;
    ensure!(
        out.status.success(),
        "probe {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
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
fn addresses(cluster: &Cluster) -> Result<BTreeMap<String, Vec<String>>> {
    let list = cluster.get(&["nodes"])?;
    let of = |node: &Value| {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let addresses = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let internal = addresses.iter().filter(|a| a["type"] == "InternalIP");
        (name, internal.filter_map(|a| a["address"].as_str().map(str::to_owned)).collect())
    };
    Ok(items(&list).iter().map(of).collect())
}

/// Who answers `count` requests, by the server's name.
fn answering(cluster: &Cluster, count: u32, address: &str, port: &str) -> Result<BTreeSet<String>> {
    let said = outside(cluster, &["spread", &count.to_string(), address, port])?;
    Ok(said.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect())
}

fn same_family(a: &str, b: &str) -> bool {
    a.contains(':') == b.contains(':')
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
        for address in &addresses {
            cluster.wait(&format!("{node} answers at {address}:{http}"), 20, |c| {
                Ok(outside(c, &["get", address, &http]).is_ok())
            })?;
            let seen = answering(&cluster, 60, address, &http)?;
            assert_eq!(seen.len(), nodes.len(), "{node} at {address}: {seen:?}");
            for _ in 0..8 {
                let said = outside(&cluster, &["udp-to", address, &udp, "hello"])?;
                assert!(said.contains("hello") && said.contains(address), "from the address asked: {said}");
            }
            // The node itself reaches it as well.
            let url = if address.contains(':') {
                format!("http://[{address}]:{http}/")
            } else {
                format!("http://{address}:{http}/")
            };
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
        for address in &addresses {
            let fabric = FABRIC.iter().find(|own| same_family(own, address)).context("a family")?;
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
    let first =
        addresses(&cluster)?[&nodes[0]].iter().find(|a| !a.contains(':')).context("an IPv4 address")?.clone();
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
            assert_eq!(answering(&cluster, 60, address, "80")?.len(), nodes.len());
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
        for address in &addresses {
            cluster.wait(&format!("{node} refuses at {address}:{http}"), 20, |c| {
                let said = outside(c, &["refusal", address, &http])?;
                let milliseconds: f64 = said.split(' ').next().unwrap_or_default().parse()?;
                Ok(said.contains("refused") && milliseconds < 500.0)
            })?;
        }
    }
    Ok(())
}

#[test]
fn pods_reach_the_outside_by_their_nodes_address() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "outside-masquerade")?;
    let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
    let echo = std::path::Path::new(&binaries).join("../images/echo");
    let mut server = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", cluster.fabric()))
        .arg(&echo)
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
            for fabric in FABRIC {
                let own = addresses
                    .iter()
                    .find(|own| same_family(own, fabric))
                    .context("an address of the family")?;
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
