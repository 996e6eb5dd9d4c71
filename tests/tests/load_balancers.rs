//! Services of type LoadBalancer without a load balancer: addresses out of pools, announced on the nodes' network; ports of nodes
//! that lead to one pod. The fabric's namespace, where no agent runs, is the outside.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use pagurus_tests::cluster::{Cluster, Namespace, items};
use serde_json::{Value, json};

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const ECHO: &str = "pagurus.test/echo:1";

/// Runs a program where no agent is.
fn outside(cluster: &Cluster, program: &str, words: &[&str]) -> Result<String> {
    let out = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", cluster.fabric()))
        .arg(program)
        .args(words)
        .output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program} {}: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The client program, run where no agent is.
fn probe(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let binaries = std::env::var("PAGURUS_BINARIES").context("PAGURUS_BINARIES is not set")?;
    outside(cluster, &format!("{binaries}/../images/probe"), words)
}

/// Pools for Services of one namespace, on the network of the nodes. Goes with the test.
struct Pools<'a>(&'a Cluster);

impl<'a> Pools<'a> {
    fn new(cluster: &'a Cluster, namespace: &str, ranges: &[&str]) -> Result<Self> {
        let pools = json!([{ "name": namespace, "ranges": ranges, "namespaces": [namespace] }]);
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pagurus-load-balancer", "namespace": "kube-system"},
            "data": {"pools": pools.to_string()}
        }))?;
        Ok(Self(cluster))
    }
}

impl Drop for Pools<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.ok(&["-n", "kube-system", "delete", "configmap", "pagurus-load-balancer"])
        {
            eprintln!("{error:#}");
        }
    }
}

/// A Service of this type before pods `app: echo`; more of its spec in `extra`.
fn balancer(namespace: &str, name: &str, annotations: &Value, extra: &Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "echo"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}]
    });
    for (name, value) in extra.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations}
    })
}

fn ingress(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<String>> {
    let service = cluster.get(&["-n", namespace, "service", name])?;
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    Ok(ingress.iter().filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect())
}

fn wait_for(cluster: &Cluster, namespace: &str, name: &str, expected: &[&str]) -> Result<()> {
    cluster.wait(&format!("Service {name} has {expected:?}"), 30, |c| {
        Ok(ingress(c, namespace, name)? == expected)
    })
}

#[test]
fn addresses_come_from_pools_and_go_back() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "lb-pools")?;
    let name = ns.name.as_str();
    let _pools = Pools::new(&cluster, name, &["10.88.0.240-10.88.0.241", "fd88::f0-fd88::f1"])?;
    let none = json!({});
    cluster.apply(&balancer(name, "a", &none, &json!({"allocateLoadBalancerNodePorts": false})))?;
    wait_for(&cluster, name, "a", &["10.88.0.240", "fd88::f0"])?;
    let service = cluster.get(&["-n", name, "service", "a"])?;
    assert_eq!(service["spec"]["ports"][0].get("nodePort"), None, "no node port was asked for");
    let wish = json!({"service.pagurus.dev/load-balancer-ips": "10.88.0.241,fd88::f1"});
    cluster.apply(&balancer(name, "b", &wish, &none))?;
    wait_for(&cluster, name, "b", &["10.88.0.241", "fd88::f1"])?;
    // Of another class: not ours.
    cluster.apply(&balancer(name, "other", &none, &json!({"loadBalancerClass": "example.com/other"})))?;
    // Nothing is left, which is said.
    cluster.apply(&balancer(name, "c", &none, &none))?;
    cluster.wait("the want of an address is told", 30, |c| {
        let service = c.get(&["-n", name, "service", "c"])?;
        let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let events = c.get(&["-n", name, "events", "--field-selector", "reason=NoLoadBalancerAddress"])?;
        Ok(conditions.iter().any(|one| one["reason"] == "NoAddress") && !items(&events).is_empty())
    })?;
    assert!(ingress(&cluster, name, "other")?.is_empty());
    // One gives its addresses back, the other gets them.
    cluster.ok(&["-n", name, "patch", "service", "a", "-p", r#"{"spec":{"type":"ClusterIP"}}"#])?;
    wait_for(&cluster, name, "c", &["10.88.0.240", "fd88::f0"])?;
    wait_for(&cluster, name, "a", &[])?;
    wait_for(&cluster, name, "b", &["10.88.0.241", "fd88::f1"])?;
    // Two Services with other ports may have one address.
    let shared = json!({"service.pagurus.dev/load-balancer-sharing-key": "k"});
    cluster.ok(&["-n", name, "delete", "service", "c", "b"])?;
    cluster.apply(&balancer(name, "s1", &shared, &none))?;
    wait_for(&cluster, name, "s1", &["10.88.0.240", "fd88::f0"])?;
    let port = json!({"ports": [{"name": "https", "port": 443, "targetPort": 8080}]});
    cluster.apply(&balancer(name, "s2", &shared, &port))?;
    wait_for(&cluster, name, "s2", &["10.88.0.240", "fd88::f0"])
}

#[test]
fn an_address_is_announced_by_one_node_and_moves_when_that_is_left_out() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "lb-announced")?;
    let name = ns.name.as_str();
    let _pools = Pools::new(&cluster, name, &["10.88.0.245", "fd88::f5"])?;
    let nodes = cluster.nodes()?;
    for node in &nodes {
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("echo-{node}"), "namespace": name, "labels": {"app": "echo"}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "echo", "image": ECHO}]}
        }))?;
    }
    for node in &nodes {
        cluster.ready(name, &format!("echo-{node}"))?;
    }
    cluster.apply(&balancer(name, "web", &json!({}), &json!({})))?;
    let addresses = ["10.88.0.245", "fd88::f5"];
    wait_for(&cluster, name, "web", &addresses)?;
    // Whose hardware address the outside has learnt.
    let holder = |address: &str| -> Result<String> {
        probe(&cluster, &["get", address, "80"])?;
        let neighbour = outside(&cluster, "ip", &["neigh", "show", address])?;
        let words: Vec<&str> = neighbour.split_whitespace().collect();
        let place = words.iter().position(|word| *word == "lladdr").context("no hardware address")?;
        let mac = words.get(place + 1).context("no hardware address")?;
        for node in &nodes {
            if cluster.on_node(node, &["cat", "/sys/class/net/eth0/address"])?.trim() == *mac {
                return Ok(node.clone());
            }
        }
        anyhow::bail!("{address} is at {mac}, which is no node's")
    };
    for address in addresses {
        cluster.wait(&format!("{address} answers"), 30, |c| Ok(probe(c, &["get", address, "80"]).is_ok()))?;
        let first = holder(address)?;
        if nodes.len() > 1 {
            let label = "node.kubernetes.io/exclude-from-external-load-balancers";
            cluster.ok(&["label", "node", &first, &format!("{label}=true")])?;
            let moved = cluster.wait("another node has it", 30, |_| Ok(holder(address)? != first));
            cluster.ok(&["label", "node", &first, &format!("{label}-")])?;
            moved?;
            cluster.wait("it comes back", 30, |_| Ok(holder(address)? == first))?;
        }
    }
    Ok(())
}

#[test]
fn a_host_port_leads_to_its_pod() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "host-port")?;
    let nodes = cluster.nodes()?;
    let list = cluster.get(&["nodes"])?;
    let node = items(&list).iter().find(|node| node["metadata"]["name"] == nodes[0]).context("no node")?;
    let addresses: Vec<String> = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str().map(str::to_owned))
        .collect();
    let server = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns.name},
            "spec": {"nodeName": nodes[0], "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "echo", "image": ECHO, "ports": [{"containerPort": 8080, "hostPort": 18080}]}
            ]}
        })
    };
    cluster.apply(&server("server"))?;
    cluster.ready(&ns.name, "server")?;
    for node in &nodes {
        let client = format!("client-{node}");
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": client, "namespace": ns.name},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
        }))?;
        cluster.ready(&ns.name, &client)?;
    }
    for address in &addresses {
        for node in &nodes {
            let client = format!("client-{node}");
            cluster.wait(&format!("{client} reaches {address}"), 20, |c| {
                let words = ["-n", &ns.name, "exec", &client, "--", "/probe", "get", address, "18080"];
                Ok(c.ok(&words).is_ok())
            })?;
        }
        cluster.wait(&format!("the outside reaches {address}"), 20, |c| {
            Ok(probe(c, &["get", address, "18080"]).is_ok())
        })?;
    }
    // A second pod cannot have it; it is told why, and gets it when the first has gone.
    cluster.apply(&server("second"))?;
    cluster.wait("the clash is told", 30, |c| {
        let events = c.get(&["-n", &ns.name, "events", "--field-selector", "involvedObject.name=second"])?;
        let told = |event: &Value| {
            let message = event["message"].as_str().unwrap_or_default();
            message.contains("host port 18080/tcp is taken by pod") || message.contains("ports")
        };
        Ok(items(&events).iter().any(told))
    })?;
    cluster.ok(&["-n", &ns.name, "delete", "pod", "server"])?;
    Ok(())
}
