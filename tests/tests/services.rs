//! Services through our own BPF programs: every backend gets its share, from every node, over both families; none is a refusal at once.

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace, items};
use serde_json::json;

const TOOLBOX: &str = "pagurus.test/toolbox:1";
const ECHO: &str = "pagurus.test/echo:1";

/// An echo Deployment behind a dual-stack Service, and a client pod on every node.
fn setting(cluster: &Cluster, namespace: &str, replicas: u32) -> Result<(Vec<String>, Vec<String>)> {
    cluster.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "echo", "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "echo"}},
            "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "echo", "image": ECHO, "ports": [{"containerPort": 8080, "name": "http"}], "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1}}]
            }}
        }
    }))?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": namespace},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "selector": {"app": "echo"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http"}, {"name": "udp", "protocol": "UDP", "port": 81, "targetPort": 8080}
        ]}
    }))?;
    let mut clients = Vec::new();
    for node in cluster.nodes()? {
        let name = format!("client-{node}");
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
        }))?;
        clients.push(name);
    }
    for client in &clients {
        cluster.ready(namespace, client)?;
    }
    let service = cluster.get(&["-n", namespace, "service", "echo"])?;
    let addresses =
        serde_json::from_value(service["spec"]["clusterIPs"].clone()).context("no cluster IPs")?;
    endpoints(cluster, namespace, replicas as usize)?;
    Ok((addresses, clients))
}

fn endpoints(cluster: &Cluster, namespace: &str, count: usize) -> Result<()> {
    cluster.wait(&format!("{count} endpoints of each family are ready"), 60, |c| {
        let slices = c.get(&["-n", namespace, "endpointslices", "-l", "kubernetes.io/service-name=echo"])?;
        let ready = |family: &str| -> usize {
            let slices = items(&slices).iter().filter(|s| s["addressType"] == family);
            slices
                .flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default())
                .filter(|e| e["conditions"]["ready"] == true)
                .count()
        };
        Ok(ready("IPv4") == count && ready("IPv6") == count)
    })
}

#[test]
fn a_service_spreads_over_all_backends_from_every_node() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "services-spread")?;
    let (addresses, clients) = setting(&cluster, &ns.name, 3)?;
    assert_eq!(addresses.len(), 2, "an address of each family: {addresses:?}");
    for client in &clients {
        for address in &addresses {
            let exec = |words: &[&str]| {
                let mut all = vec!["-n", &ns.name, "exec", client, "--", "/probe"];
                all.extend(words);
                cluster.ok(&all)
            };
            let counts = exec(&["spread", "90", address, "80"])?;
            println!("{client} to {address}:\n{counts}");
            assert_eq!(counts.lines().count(), 3, "every server answers: {counts}");
            for line in counts.lines() {
                let share: u32 = line.split(' ').next().unwrap_or_default().parse()?;
                assert!(share >= 10, "90 requests over 3 servers: {counts}");
            }
            assert!(exec(&["udp", address, "81", "hello"])?.trim().ends_with("hello"));
            let from = exec(&["udp-to", address, "81", "hello"])?;
            assert!(from.contains(address), "the answer comes from the Service's address: {from}");
        }
    }
    for node in cluster.nodes()? {
        for list in [&["iptables-save"][..], &["ip6tables-save"], &["nft", "list", "ruleset"]] {
            // A machine without the program has no rules of it either.
            if let Ok(rules) = cluster.on_node(&node, list) {
                assert!(!rules.contains("10.96.") && !rules.contains("fd10:96"), "{node}: {rules}");
            }
        }
    }
    Ok(())
}

#[test]
fn no_endpoints_is_a_refusal_at_once() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "services-zero")?;
    let (addresses, clients) = setting(&cluster, &ns.name, 2)?;
    let get = |client: &str, address: &str| {
        cluster.ok(&["-n", &ns.name, "exec", client, "--", "/probe", "get", address, "80"])
    };
    cluster.ok(&["-n", &ns.name, "scale", "deployment", "echo", "--replicas=0"])?;
    endpoints(&cluster, &ns.name, 0)?;
    for (client, address) in clients.iter().flat_map(|c| addresses.iter().map(move |a| (c, a))) {
        cluster.wait("connects are refused", 10, |_| Ok(get(client, address).is_err()))?;
        let start = std::time::Instant::now();
        let error = get(client, address).expect_err("nobody is there");
        // Refused, not timed out: the probe itself gives up only after three seconds.
        assert!(start.elapsed() < std::time::Duration::from_millis(2500), "{error:#}");
    }
    cluster.ok(&["-n", &ns.name, "scale", "deployment", "echo", "--replicas=2"])?;
    endpoints(&cluster, &ns.name, 2)?;
    for (client, address) in clients.iter().flat_map(|c| addresses.iter().map(move |a| (c, a))) {
        cluster.wait("connects work again", 20, |_| Ok(get(client, address).is_ok()))?;
    }
    Ok(())
}

#[test]
fn pods_reach_the_api_server_by_its_service() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "services-api")?;
    for node in cluster.nodes()? {
        let name = format!("client-{node}");
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns.name},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": TOOLBOX}]}
        }))?;
        cluster.ready(&ns.name, &name)?;
        // By name: the answer to a request without TLS is an HTTP error of the server's, which is an answer.
        let script = "nc -w 3 kubernetes.default 443 < /dev/null && cat /var/run/secrets/kubernetes.io/serviceaccount/token | head -c 3";
        let said = cluster.ok(&["-n", &ns.name, "exec", &name, "--", "/bin/sh", "-c", script])?;
        assert_eq!(said, "eyJ", "{name} connects, and has a token");
    }
    Ok(())
}
