//! Traffic that never rests while the agent goes and comes back, while another one takes over with other programs and maps, and while maps
//! grow: no connection fails, no datagram is lost.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::{Build, Datapath, MapCapacity};
use pagurus_ebpf_abi::maps;
use pagurus_tests::cluster::{Cluster, Namespace, spread};
use pagurus_tests::dataplane::{self, Attached, Options, Target, With as _, service};
use pagurus_tests::load::{Kind, Load, Place};
use pagurus_tests::netns::{Sandbox, isolated};
use pagurus_tests::object::rewritten;
use pagurus_tests::topology::{Host, Node, Server, tcp_server, udp_server};
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
                Ok(spread(&c.probe(place, &["spread", "40", &ip, &port])?)?.len() == nodes.len())
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

/// The addresses of the Service of all.
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];

/// Two nodes that serve, and clients of all kinds at every place.
struct Busy {
    cluster: dataplane::Cluster,
    targets: Vec<Target>,
    /// A pod whose sockets the socket programs see, and one whose they do not: in one pod, a port that the one has just used for a Service
    /// may be used by the other for the endpoint itself.
    pods: [Host; 2],
    load: Load,
    _servers: Vec<Server>,
}

impl Busy {
    fn new(sandbox: &Sandbox, options: &Options) -> Result<Self> {
        let mut cluster = dataplane::Cluster::new(sandbox, 2, options)?;
        let pods = [cluster.pod(0)?.host, cluster.pod(0)?.host.unhooked()];
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
        let web = service("web", &CLUSTER_IPS)
            .port("web", Protocol::Tcp, 80)
            .node_port(30_080)
            .port("dns", Protocol::Udp, 53)
            .node_port(30_053);
        cluster.serve(&web, &targets)?;
        let mut busy = Self { cluster, targets, pods, load: Load::default(), _servers: servers };
        busy.clients_in_pods(2)?;
        for ip in busy.cluster.topology.nodes[0].ips.both() {
            let outside = busy.cluster.topology.client.clone();
            busy.clients(&outside, ip, 30_080, 30_053)?;
        }
        busy.load.go_on(20)?;
        Ok(busy)
    }

    /// More clients of all kinds.
    fn clients(&mut self, host: &Host, ip: IpAddr, tcp: u16, udp: u16) -> Result<()> {
        KINDS.into_iter().try_for_each(|kind| {
            let port = if kind == Kind::Datagrams { udp } else { tcp };
            self.load.add(host, kind, SocketAddr::new(ip, port), Duration::from_millis(3))
        })
    }

    /// More of them in the first pods.
    fn clients_in_pods(&mut self, count: usize) -> Result<()> {
        for pod in self.pods.clone().iter().take(count) {
            for ip in CLUSTER_IPS {
                self.clients(pod, ip.parse()?, 80, 53)?;
            }
        }
        Ok(())
    }

    /// Agents of another build take over, one after the other; which programs are then in the links of the first node.
    fn upgrade(&mut self, options: &Options, build: &Build<'_>) -> Result<BTreeMap<String, Attached>> {
        for (plane, node) in self.cluster.planes.iter_mut().zip(&self.cluster.topology.nodes) {
            plane.upgrade(node, options, build)?;
            self.load.go_on(20)?;
        }
        dataplane::attached(&self.cluster.topology.nodes[0])
    }

    /// Ends the traffic: nothing was lost.
    fn finish(&mut self) -> Result<()> {
        let report = std::mem::take(&mut self.load).finish()?;
        println!("{report}");
        report.nothing_lost().with_context(|| self.cluster.said())
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
        let mut busy = Busy::new(sandbox, &options(0))?;
        for round in 1..=4 {
            busy.upgrade(&options(round), &Build::own())?;
        }
        let before = busy.cluster.planes[0].capacity();
        let mut number = 0u16;
        let grown = |now: pagurus_agent_core::services::plan::Capacity| {
            now.services > before.services
                && now.slots > before.slots
                && now.backends > before.backends
                && now.numbers > before.numbers
        };
        while !grown(busy.cluster.planes[0].capacity()) {
            number += 1;
            ensure!(number < 500, "maps do not grow: {:?}, {before:?}", busy.cluster.planes[0].capacity());
            let [high, low] = number.to_be_bytes();
            let other = service(&format!("other-{number}"), &[&format!("10.97.{high}.{low}")]);
            busy.cluster.serve(&other.port("web", Protocol::Tcp, 80), &busy.targets)?;
        }
        busy.load.go_on(20)?;
        println!("{number} more Services: {before:?}, then {:?}", busy.cluster.planes[0].capacity());
        busy.finish()
    });
}

/// The numbers of the maps that are pinned for a layout, by name.
fn pinned(node: &Node, layout: u32) -> Result<BTreeMap<String, u32>> {
    let folder = node.bpffs.join(format!("pagurus/maps-v{layout}"));
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let map = |entry: std::io::Result<fs::DirEntry>| -> Result<(String, u32)> {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, MapInfo::from_pin(&path)?.id()))
    };
    entries.map(map).collect()
}

/// Every link has another program than before, of other instructions or the same.
fn check_others(
    before: &BTreeMap<String, Attached>,
    after: &BTreeMap<String, Attached>,
    same_tags: bool,
) -> Result<()> {
    ensure!(before.keys().eq(after.keys()) && before.len() > 8, "{before:?}, then {after:?}");
    for (link, (program, tag)) in after {
        let (old_program, old_tag) = before[link];
        ensure!(*program != old_program, "{link} has the same program: {before:?}, then {after:?}");
        ensure!((*tag == old_tag) == same_tags, "{link}: tag {old_tag:x}, then {tag:x}");
    }
    Ok(())
}

/// Maps that an agent makes for itself: nobody else's entries are in them.
const OWN_MAPS: [&str; 4] = [maps::CONFIG, maps::COUNTERS, maps::DROPS, maps::EVENTS];

#[test]
fn other_programs_and_layouts_take_over_under_traffic() {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated("upgrade::other_programs_and_layouts_take_over_under_traffic", |sandbox| {
        let options = Options { own_network: true, ..Options::default() };
        let mut busy = Busy::new(sandbox, &options)?;
        let first = dataplane::attached(&busy.cluster.topology.nodes[0])?;
        let own = Build::own();
        let object = rewritten(own.object)?;
        let other = Build { object: &object, ..own };
        // Programs of other instructions, over the same maps.
        let begin = pinned(&busy.cluster.topology.nodes[0], own.layout)?;
        let second = busy.upgrade(&options, &other)?;
        check_others(&first, &second, false)?;
        let is_kept = |before: &BTreeMap<String, u32>, after: &BTreeMap<String, u32>| {
            let mut all = before.iter().filter(|(name, _)| !OWN_MAPS.contains(&name.as_str()));
            all.all(|(name, id)| after.get(name) == Some(id)) && before.len() > OWN_MAPS.len()
        };
        let now = pinned(&busy.cluster.topology.nodes[0], own.layout)?;
        ensure!(is_kept(&begin, &now), "{begin:?}, then {now:?}");
        // A layout in which every entry means the same: the maps only have another name.
        let next = Build { layout: own.layout + 1, ..own };
        let third = busy.upgrade(&options, &next)?;
        check_others(&second, &third, false)?;
        check_others(&first, &third, true)?;
        for node in &busy.cluster.topology.nodes {
            ensure!(pinned(node, own.layout).is_err(), "the old layout's names are still there");
        }
        let now = pinned(&busy.cluster.topology.nodes[0], next.layout)?;
        ensure!(is_kept(&begin, &now), "{begin:?}, then {now:?}");
        busy.finish()?;
        // A layout that has only what sockets noted in common with the one before: what it means to packets that the table of
        // connections is another one is not looked at.
        busy.clients_in_pods(1)?;
        busy.load.go_on(20)?;
        for node in &busy.cluster.topology.nodes {
            let root = node.bpffs.join("pagurus");
            fs::rename(root.join(format!("maps-v{}", next.layout)), root.join("maps-v1"))?;
        }
        let fourth = busy.upgrade(&options, &other)?;
        check_others(&third, &fourth, false)?;
        let last = pinned(&busy.cluster.topology.nodes[0], own.layout)?;
        let common: Vec<_> = last.iter().filter(|(name, id)| now.get(*name) == Some(*id)).collect();
        ensure!(common == [(&maps::REVERSE.to_owned(), &now[maps::REVERSE])], "{now:?}, then {last:?}");
        busy.finish()
    });
}
