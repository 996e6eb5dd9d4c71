//! Traffic that never rests while the agent goes and comes back, while another one takes over with other maps, and while maps grow:
//! no connection fails, no datagram is lost.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::{Datapath, MapCapacity};
use pagurus_tests::cluster::{Cluster, Namespace};
use pagurus_tests::dataplane::{self, Options, Target, With as _, service};
use pagurus_tests::load::{Kind, Load, Place};
use pagurus_tests::netns::isolated;
use pagurus_tests::topology::{Host, Server, tcp_server, udp_server};
use serde_json::json;

const KINDS: [Kind; 3] = [Kind::Connections, Kind::Stream, Kind::Datagrams];

/// A Service of echo servers, and where it is reached.
pub(crate) struct Served {
    /// Cluster IPs and the NodePorts at the first node, with the ports of TCP and UDP.
    pub(crate) inside: Vec<(IpAddr, u16, u16)>,
    pub(crate) outside: Vec<(IpAddr, u16, u16)>,
    /// A pod on the first node.
    pub(crate) client: Place,
}

/// An echo server on every node behind one Service, and a client pod on the first.
pub(crate) fn serve(cluster: &Cluster, namespace: &str) -> Result<Served> {
    let nodes = cluster.nodes()?;
    for node in &nodes {
        cluster.pod(namespace, &format!("echo-{node}"), "echo", node, "pagurus.test/echo:1")?;
    }
    cluster.pod(namespace, "client", "client", &nodes[0], "pagurus.test/toolbox:1")?;
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": namespace},
        "spec": {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "echo"}, "ports": [
            {"name": "http", "port": 80, "targetPort": 8080}, {"name": "udp", "protocol": "UDP", "port": 81, "targetPort": 8080}
        ]}
    }))?;
    for pod in nodes.iter().map(|node| format!("echo-{node}")).chain(["client".to_owned()]) {
        cluster.ready(namespace, &pod)?;
    }
    let object = cluster.get(&["-n", namespace, "service", "echo"])?;
    let ips: Vec<IpAddr> = serde_json::from_value(object["spec"]["clusterIPs"].clone())?;
    let port = |place: usize| -> Result<u16> {
        let port = object["spec"]["ports"][place]["nodePort"].as_u64().context("no node port")?;
        Ok(port.try_into()?)
    };
    let (tcp, udp) = (port(0)?, port(1)?);
    let outside = cluster.addresses(&nodes[0])?.into_iter().map(|ip| (ip, tcp, udp)).collect();
    let inside = ips.into_iter().map(|ip| (ip, 80, 81)).collect();
    let served = Served { inside, outside, client: cluster.in_pod(namespace, "client")? };
    for (place, to) in [(&cluster.outside(), &served.outside), (&served.client, &served.inside)] {
        for (ip, tcp, _) in to {
            let (ip, port) = (ip.to_string(), tcp.to_string());
            // Every server, so that changes of the Service are over when the traffic begins.
            cluster.wait(&format!("{ip} is served from {}", place.name), 30, |c| {
                Ok(c.probe(place, &["spread", "40", &ip, &port])?.lines().count() == nodes.len())
            })?;
        }
    }
    Ok(served)
}

/// All kinds of clients, from outside through NodePorts and from the pod through cluster IPs.
pub(crate) fn load(cluster: &Cluster, served: &Served) -> Result<Load> {
    let mut load = Load::default();
    let probe = cluster.probe_program()?;
    for (place, to) in [(&cluster.outside(), &served.outside), (&served.client, &served.inside)] {
        for (ip, tcp, udp) in to {
            for kind in KINDS {
                let port = if kind == Kind::Datagrams { *udp } else { *tcp };
                load.add_process(place, &probe, kind, SocketAddr::new(*ip, port), Duration::from_millis(2))?;
            }
        }
    }
    Ok(load)
}

#[test]
fn agents_end_and_start_under_traffic() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "upgrade-restart")?;
    let served = serve(&cluster, &ns.name)?;
    let load = load(&cluster, &served)?;
    for node in cluster.nodes()? {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let before = super::restart::process(&cluster, &node, "pagurus-agent")?;
            kill(Pid::from_raw(before), signal)?;
            cluster.wait(&format!("another agent serves on {node} after {signal}"), 60, |c| {
                let now = super::restart::process(c, &node, "pagurus-agent")?;
                ensure!(now != before, "the agent has not ended");
                let words = ["curl", "-sf", "--max-time", "3", "http://127.0.0.1:10248/readyz"];
                Ok(c.on_node(&node, &words).is_ok())
            })?;
        }
    }
    let report = load.finish()?;
    println!("{report}");
    report.nothing_lost()
}

#[test]
fn an_agent_that_starts_without_the_api_server_leaves_services_as_they_are() -> Result<()> {
    let Some(cluster) = Cluster::shared() else { return Ok(()) };
    let ns = Namespace::new(&cluster, "upgrade-alone")?;
    let served = serve(&cluster, &ns.name)?;
    let node = cluster.nodes()?.first().cloned().context("no nodes")?;
    let server = Pid::from_raw(super::restart::process(&cluster, "control-plane", "pagurus-controlplane")?);
    let load = load(&cluster, &served)?;
    let before = super::restart::process(&cluster, &node, "pagurus-agent")?;
    kill(server, Signal::SIGSTOP)?;
    let alone = (|| {
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        let start = std::time::Instant::now();
        // It tries to reach the API server meanwhile.
        cluster.wait("another agent has run for a while", 60, |c| {
            let now = super::restart::process(c, &node, "pagurus-agent")?;
            ensure!(now != before, "the agent has not ended");
            Ok(start.elapsed() > Duration::from_secs(12))
        })
    })();
    kill(server, Signal::SIGCONT)?;
    alone?;
    cluster.wait("the agent serves again", 60, |c| {
        let words = ["curl", "-sf", "--max-time", "3", "http://127.0.0.1:10248/readyz"];
        Ok(c.on_node(&node, &words).is_ok())
    })?;
    let report = load.finish()?;
    println!("{report}");
    report.nothing_lost()
}

/// Maps with little room, and with other capacities each time.
fn capacity(round: u32) -> MapCapacity {
    let some = |least: u32| least * (1 + round % 3);
    MapCapacity {
        services: 64,
        slots: 512,
        backends: 64,
        numbers: 16,
        reverse: some(8192),
        flows: some(4096),
        clients: some(4096),
        fragments: some(1024),
        warm: some(8192),
        source_ranges: some(256),
        ..MapCapacity::default()
    }
}

#[test]
fn programs_and_maps_are_replaced_and_grow_under_traffic() {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated("upgrade::programs_and_maps_are_replaced_and_grow_under_traffic", |sandbox| {
        let options = |round| Options { own_network: true, capacity: capacity(round), ..Options::default() };
        let mut cluster = dataplane::Cluster::new(sandbox, 2, &options(0))?;
        // Sockets that the socket programs see and such that they do not have pods of their own: in one pod, a port that the one has
        // just used for a Service may be used by the other for the endpoint itself.
        let (hooked, unhooked) = (cluster.pod(0)?.host, cluster.pod(0)?.host.unhooked());
        let mut servers: Vec<Server> = Vec::new();
        let mut targets = Vec::new();
        for node in 0..2 {
            let pod = cluster.pod(node)?;
            for ip in pod.ips.both() {
                servers.push(tcp_server(&pod.host, ip, 8080, &pod.host.name)?);
                servers.push(udp_server(&pod.host, ip, 8080, &pod.host.name)?);
            }
            targets.push(Target::new(pod.ips, &[("web", 8080), ("dns", 8080)]));
        }
        let ips = ["10.96.0.10", "fd00:96::10"];
        let web = service("web", &ips)
            .port("web", Protocol::Tcp, 80)
            .node_port(30_080)
            .port("dns", Protocol::Udp, 53)
            .node_port(30_053);
        cluster.serve(&web, &targets)?;
        let outside = cluster.topology.client.clone();
        let node = cluster.topology.nodes[0].ips;
        let mut load = Load::default();
        let mut add = |host: &Host, ip: IpAddr, tcp: u16, udp: u16| {
            KINDS.into_iter().try_for_each(|kind| {
                let port = if kind == Kind::Datagrams { udp } else { tcp };
                load.add(host, kind, SocketAddr::new(ip, port), Duration::from_millis(3))
            })
        };
        for ip in ips {
            let ip: IpAddr = ip.parse()?;
            add(&outside, node.like(ip), 30_080, 30_053)?;
            add(&hooked, ip, 80, 53)?;
            add(&unhooked, ip, 80, 53)?;
        }
        load.go_on(20)?;
        for round in 1..=4 {
            for place in 0..2 {
                let node = &cluster.topology.nodes[place];
                cluster.planes[place].restart(node, &options(round))?;
                load.go_on(20)?;
            }
        }
        let before = cluster.planes[0].capacity();
        let mut number = 0u16;
        let grown = |now: pagurus_agent_core::services::plan::Capacity| {
            now.services > before.services
                && now.slots > before.slots
                && now.backends > before.backends
                && now.numbers > before.numbers
        };
        while !grown(cluster.planes[0].capacity()) {
            number += 1;
            ensure!(number < 500, "maps do not grow: {:?}, {before:?}", cluster.planes[0].capacity());
            let [high, low] = number.to_be_bytes();
            let other = service(&format!("other-{number}"), &[&format!("10.97.{high}.{low}")]);
            cluster.serve(&other.port("web", Protocol::Tcp, 80), &targets)?;
        }
        load.go_on(20)?;
        let report = load.finish()?;
        println!("{number} more Services: {before:?}, then {:?}\n{report}", cluster.planes[0].capacity());
        report.nothing_lost().with_context(|| cluster.said())
    });
}
