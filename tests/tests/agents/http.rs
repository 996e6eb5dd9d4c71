//! What an agent answers over HTTP: load balancers' health checks, also while the API server is away, and metrics, each where the
//! configuration says.
//!
//! Must not know: what the figures are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use pagurus_tests::daemon::{Agent, PATIENCE, home};
use pagurus_tests::eventually::eventually;
use pagurus_tests::topology::Host;
use serde_json::{Value, json};

use super::{Cluster, with_cluster};

/// How long what is done may take to be seen.
const SOON: Duration = Duration::from_secs(20);
/// Where load balancers ask for the Service, and for the node.
const CHECK: u16 = 31_999;
const NODE: u16 = 10_256;

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// By name in small letters.
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Asks from a host.
fn get(host: &Host, ip: IpAddr, port: u16, path: &str) -> Result<Answer> {
    host.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Ok(Answer { status, headers, body: body.to_owned() })
    })
}

/// The answer to a load balancer about the Service is kube-proxy's, letter for letter of what is not free to be otherwise.
fn checked(cluster: &Cluster, endpoints: usize) -> Result<()> {
    let (client, node) = (&cluster.topology.client, &cluster.topology.nodes[0]);
    for ip in node.ips.both() {
        let answer = get(client, ip, CHECK, "/")?;
        let expected = json!({
            "service": {"namespace": "default", "name": "web"}, "localEndpoints": endpoints, "serviceProxyHealthy": true
        });
        ensure!(answer.json()? == expected, "{answer:?}");
        ensure!(answer.status == if endpoints > 0 { 200 } else { 503 }, "{answer:?}");
        ensure!(answer.header("content-type") == "application/json", "{answer:?}");
        ensure!(answer.header("x-content-type-options") == "nosniff", "{answer:?}");
        ensure!(answer.header("x-load-balancing-endpoint-weight") == endpoints.to_string(), "{answer:?}");
    }
    Ok(())
}

/// The node's own answers, as kube-proxy gives them.
fn node_is_well(host: &Host, ip: IpAddr, port: u16) -> Result<()> {
    for (path, fields) in [
        ("/healthz", &["currentTime", "lastUpdated", "nodeEligible"][..]),
        ("/livez", &["currentTime", "lastUpdated"]),
    ] {
        let answer = get(host, ip, port, path)?;
        ensure!(answer.status == 200, "{answer:?}");
        let object = answer.json()?;
        let names: Vec<&str> =
            object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        ensure!(names == fields, "{object}");
        ensure!(object["lastUpdated"].as_str() <= object["currentTime"].as_str(), "{object}");
    }
    Ok(())
}

#[test]
fn a_load_balancer_keeps_a_node_whose_agent_restarts_without_the_api_server() {
    let name = "agents::http::a_load_balancer_keeps_a_node_whose_agent_restarts_without_the_api_server";
    with_cluster(name, 2, |cluster| {
        cluster.create_service(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": CHECK
        }))?;
        let [own, other] = &cluster.topology.nodes[..] else { anyhow::bail!("two nodes") };
        cluster.set_endpoints(&[own, other])?;
        let (client, ip) = (cluster.topology.client.clone(), IpAddr::from(own.ips.v4));
        let asked = |cluster: &Cluster, endpoints| {
            eventually("the health checks are answered", SOON, || {
                checked(cluster, endpoints)?;
                node_is_well(&client, ip, NODE).map(Some)
            })
        };
        let mut agent = cluster.agent(0, &[])?;
        asked(cluster, 1)?;
        let kept = home(own).join("health-checks");
        eventually("it is kept on disk", SOON, || {
            Ok(fs::read_to_string(&kept)?.contains("\"endpoints\":1").then_some(()))
        })?;
        cluster.api.control.kill()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            agent.end(signal)?;
            ensure!(get(&client, ip, CHECK, "/").is_err(), "nobody is there");
            agent = Agent::start(&cluster.topology.nodes[0], &cluster.api.kubeconfig(), &[])?;
            asked(cluster, 1)?;
        }
        // Still the programs and maps of the first agent; now there is somebody to say what has changed.
        cluster.api.control.restart()?;
        agent.ready(PATIENCE)?;
        asked(cluster, 1)?;
        let other = &cluster.topology.nodes[1];
        cluster.set_endpoints(&[other])?;
        asked(cluster, 0)?;
        // The node's last agent: with it goes who holds its DNS sockets.
        drop(agent);
        Ok(())
    });
}

#[test]
fn health_checks_are_where_node_ports_are() {
    with_cluster("agents::http::health_checks_are_where_node_ports_are", 1, |cluster| {
        cluster.create_service(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": CHECK
        }))?;
        let node = &cluster.topology.nodes[0];
        cluster.set_endpoints(&[node])?;
        let (client, [v4, v6]) = (&cluster.topology.client, node.ips.both());
        let local = (node.host.unhooked(), IpAddr::from([127, 0, 0, 1]));
        let status = |host: &Host, ip| get(host, ip, CHECK, "/").map(|answer| answer.status);
        let range = format!("{v4}/32");
        let agent = cluster.agent(0, &["--nodeport-addresses", &range])?;
        eventually("the health check is answered", SOON, || Ok((status(client, v4)? == 200).then_some(())))?;
        ensure!(status(client, v6).is_err(), "nobody is to answer there");
        ensure!(status(&local.0, local.1).is_err(), "nor there");
        drop(agent);
        let agent = cluster.agent(0, &["--nodeport-addresses", "primary"])?;
        eventually("it is answered at all addresses of the Node", SOON, || {
            Ok((status(client, v4)? == 200 && status(client, v6)? == 200).then_some(()))
        })?;
        ensure!(status(&local.0, local.1).is_err(), "that is no address of the Node");
        drop(agent);
        let agent = cluster.agent(0, &[])?;
        eventually("it is answered everywhere", SOON, || {
            let all = [status(client, v4)?, status(client, v6)?, status(&local.0, local.1)?];
            Ok((all == [200; 3]).then_some(()))
        })?;
        drop(agent);
        Ok(())
    });
}

#[test]
fn metrics_and_health_are_where_the_configuration_says() {
    with_cluster("agents::http::metrics_and_health_are_where_the_configuration_says", 1, |cluster| {
        let node = &cluster.topology.nodes[0];
        fs::create_dir_all(home(node))?;
        let file = home(node).join("root.conf");
        let text = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "metricsBindAddress": "127.0.0.1:10349", "healthzBindAddress": "192.168.77.1:10356",
        });
        fs::write(&file, text.to_string())?;
        let agent = cluster.agent(0, &["--config", &file.display().to_string()])?;
        let (host, here) = (node.host.unhooked(), IpAddr::from([127, 0, 0, 1]));
        let metrics = get(&host, here, 10_349, "/metrics")?;
        ensure!(
            metrics.status == 200
                && metrics.header("content-type").starts_with("application/openmetrics-text")
        );
        for name in [
            "pagurus_dataplane_sync_duration_seconds_count",
            "pagurus_agent_services_map_fill{map=\"services\"}",
            "pagurus_agent_conntrack_fill",
            "pagurus_agent_datapath_map_entries{map=\"services\"}",
            "pagurus_agent_datapath_map_entries{map=\"source_ranges\"} 0",
            "pagurus_agent_datapath_map_entries{map=\"nodes\"} ",
            "pagurus_agent_datapath_map_capacity{map=\"nodes\"} 16384",
            "pagurus_agent_datapath_map_entries{map=\"fragments\"} 0",
            "pagurus_agent_datapath_drops_total{reason=",
            "process_resident_memory_bytes",
        ] {
            ensure!(metrics.body.lines().any(|line| line.starts_with(name)), "no {name} in {}", metrics.body);
        }
        ensure!(get(&host, here, 10_349, "/healthz")?.body == "ok");
        ensure!(get(&host, here, 10_349, "/debug/state")?.status == 404, "that is not for everybody");
        let own = IpAddr::from(node.ips.v4);
        node_is_well(&cluster.topology.client, own, 10_356)?;
        ensure!(get(&cluster.topology.client, own, 10_356, "/metrics")?.status == 404);
        for (ip, port) in [(own, 10_349), (here, 10_356), (here, NODE)] {
            ensure!(get(&host, ip, port, "/healthz").is_err(), "somebody answers at {ip} port {port}");
        }
        drop(agent);
        Ok(())
    });
}
