//! Services through our own BPF programs: every backend gets its share, from every node, over both families; none is a refusal at once.

use anyhow::{Context, Result};
use pagurus_tests::cluster::{Cluster, Namespace, is_refused_at_once, items, spread};
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
            let counts = spread(&counts)?;
            assert_eq!(counts.len(), 3, "every server answers: {counts:?}");
            assert!(counts.values().all(|share| *share >= 10), "90 requests over 3 servers: {counts:?}");
            assert!(exec(&["udp", address, "81", "hello"])?.trim().ends_with("hello"));
            let url = if address.contains(':') {
                format!("http://[{address}]/")
            } else {
                format!("http://{address}/")
            };
            let page = cluster.ok(&["-n", &ns.name, "exec", client, "--", "wget", "-q", "-O", "-", &url])?;
            assert!(page.starts_with("echo-"), "a stock client gets an answer too: {page}");
            let from = exec(&["udp-to", address, "81", "hello"])?;
            assert!(from.contains(address), "the answer comes from the Service's address: {from}");
        }
    }
    for node in cluster.nodes()? {
        no_rules(&cluster, &node)?;
    }
    Ok(())
}

/// No packet filter has a rule on a node. Programs that the machine lacks are left out: the kernel's own lists are always looked at.
fn no_rules(cluster: &Cluster, node: &str) -> Result<()> {
    let mut looked = Vec::new();
    for list in
        [&["iptables-save"][..], &["ip6tables-save"], &["iptables-legacy-save"], &["nft", "list", "ruleset"]]
    {
        if cluster.on_node(node, &["which", list[0]]).is_err() {
            continue;
        }
        let rules = cluster.on_node(node, list)?;
        // A rule of iptables begins with -A; a set of rules of nftables that is not empty has a table.
        assert!(
            !rules.lines().any(|line| line.starts_with("-A") || line.starts_with("table")),
            "{node}: {rules}"
        );
        looked.push(list[0]);
    }
    let tables = cluster.on_node(
        node,
        &["/bin/sh", "-c", "cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null; true"],
    )?;
    assert!(
        looked.contains(&"iptables-legacy-save") || tables.trim().is_empty(),
        "{node} has the tables {tables}"
    );
    println!(
        "{node}: no rule in {}",
        if looked.is_empty() { "the kernel's tables".to_owned() } else { looked.join(", ") }
    );
    Ok(())
}

#[test]
fn a_client_stays_where_the_service_says_so() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "services-affinity")?;
    let (addresses, clients) = setting(&cluster, &ns.name, 3)?;
    let affinity = |kind: &str| {
        let patch = json!({"spec": {"sessionAffinity": kind}}).to_string();
        cluster.ok(&["-n", &ns.name, "patch", "service", "echo", "-p", &patch])
    };
    let servers = |client: &str, address: &str| -> Result<usize> {
        let words = ["-n", &ns.name, "exec", client, "--", "/probe", "spread", "60", address, "80"];
        Ok(spread(&cluster.ok(&words)?)?.len())
    };
    affinity("ClientIP")?;
    for (client, address) in clients.iter().flat_map(|c| addresses.iter().map(move |a| (c, a))) {
        cluster.wait("one server answers this client", 20, |_| Ok(servers(client, address)? == 1))?;
        assert_eq!(servers(client, address)?, 1);
    }
    affinity("None")?;
    for (client, address) in clients.iter().flat_map(|c| addresses.iter().map(move |a| (c, a))) {
        cluster.wait("all servers answer this client", 20, |_| Ok(servers(client, address)? == 3))?;
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
        cluster.wait("connects fail", 10, |_| Ok(get(client, address).is_err()))?;
        // Timed inside the pod: the way there takes longer than the refusal.
        let words = ["-n", &ns.name, "exec", client, "--", "/probe", "refusal", address, "80"];
        let said = cluster.ok(&words)?;
        println!("{client} to {address} without servers: {}", said.trim());
        assert!(is_refused_at_once(&said)?, "{said}");
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
