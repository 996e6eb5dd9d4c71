//! Short connections through Services: direct to the pod, through kube-proxy's rules in both modes, and through ours.
//!
//! Each has a node of its own with the same pods; they are measured in turn. Must not know: how programs and rules are made.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::devices::Early;
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_tests::dataplane::{Options, Plane, Target, With as _, service, slices};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Host, Node, Pair, Pod, Topology};

use crate::Effort;
use crate::bpf::attach_verdict;
use crate::load::{LONG, serve_long, serve_short, short_connections};
use crate::rivals::{self, Service, service_address};
use crate::row::{Row, Series, alternate};

/// Where pods serve short connections.
const SHORT: u16 = 8080;
/// The NodePort of the Service of short connections.
const NODE_PORT: u16 = 30_080;
/// Clients at once: enough that no processor waits.
const AT_ONCE: usize = 4;
/// Endpoints of each Service.
const ENDPOINTS: usize = 2;
/// Services, in the first row and in the second.
const FEW: u32 = 10;
const MANY: u32 = 50_000;

/// One way to a server.
pub struct Way {
    /// What it is called in notes.
    pub name: &'static str,
    /// Who asks.
    pub client: Host,
    /// Where.
    pub to: SocketAddr,
}

/// A node's client and the endpoints of the Services that are measured.
pub struct Pods {
    /// The client.
    pub client: Pod,
    /// The endpoints.
    pub servers: Vec<Pod>,
}

impl Pods {
    /// On a node; the servers serve.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn new(node: &mut Node) -> Result<Self> {
        let client = node.pod()?;
        let mut servers = Vec::new();
        for _ in 0..ENDPOINTS {
            let pod = node.pod()?;
            serve_short(&pod.host, IpAddr::V4(pod.ips.v4), SHORT)?;
            serve_long(&pod.host, IpAddr::V4(pod.ips.v4), LONG)?;
            servers.push(pod);
        }
        Ok(Self { client, servers })
    }
}

/// So many Services. The one that is measured stands in the middle: rules are walked through from the first to the last.
fn services(count: u32, pods: &Pods) -> Vec<Service> {
    let service = |number: u32| {
        let is_measured = number == count / 2;
        let endpoints = if is_measured {
            pods.servers.iter().map(|pod| SocketAddrV4::new(pod.ips.v4, SHORT)).collect()
        } else {
            // Nobody goes there.
            let ip = |place: usize| (0x0b00_0000 + number * ENDPOINTS as u32 + place as u32).into();
            (0..ENDPOINTS).map(|place| SocketAddrV4::new(ip(place), SHORT)).collect()
        };
        let node_port = is_measured.then_some(NODE_PORT);
        Service { number, address: service_address(number), node_port, endpoints }
    };
    (0..count).map(service).collect()
}

/// The address of the Service that is measured.
fn measured(count: u32) -> SocketAddr {
    service_address(count / 2).into()
}

/// Our dataplane on a node, with so many Services, as many of them real as are measured.
///
/// # Errors
/// The kernel refused something.
pub fn ours(node: &Node, pods: &Pods, count: u32, early: Early) -> Result<Plane> {
    let options = Options { own_network: true, early, ..Options::default() };
    let mut plane = Plane::start(node, &options, &node.ips.both())?;
    plane.add_pod(&pods.client)?;
    for pod in &pods.servers {
        plane.add_pod(pod)?;
    }
    let local: Vec<IpAddr> = pods.servers.iter().map(|pod| pod.ips.v4.into()).collect();
    plane.change(|desired| {
        for rival in services(count, pods) {
            let name = format!("service-{}", rival.number);
            let mut made = service(&name, &[&rival.address.ip().to_string()]).port("http", Protocol::Tcp, 80);
            if let Some(port) = rival.node_port {
                made = made.node_port(port);
            }
            let targets: Vec<Target> = rival.endpoints.iter().map(|at| target(*at)).collect();
            for (name, slice) in slices(&made, &targets, |ip| local.contains(&ip)) {
                desired.set_slice(&name, slice);
            }
            desired.set_service(made);
        }
    })?;
    Ok(plane)
}

/// An endpoint at an IPv4 address.
pub fn target(at: SocketAddrV4) -> Target {
    Target::new(Pair { v4: *at.ip(), v6: at.ip().to_ipv6_mapped() }, &[("http", at.port())])
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let mut topology = Topology::new(sandbox, 7)?;
    let client = topology.client.clone();
    let all: Vec<Pods> = topology.nodes.iter_mut().map(Pods::new).collect::<Result<_>>()?;
    let [on_direct, on_iptables, on_nftables, on_few, on_many, on_early, on_passing] = all.as_slice() else {
        unreachable!("each node has pods")
    };
    let [_, iptables, nftables, few, many, early, passing] = topology.nodes.as_slice() else {
        unreachable!("seven nodes were asked for")
    };
    rivals::install_iptables(&iptables.host, &services(FEW, on_iptables))?;
    rivals::install_nftables(&nftables.host, &services(FEW, on_nftables), nftables.ips.v4)?;
    rivals::install_nftables(&passing.host, &services(FEW, on_passing), passing.ips.v4)?;
    let _few = ours(few, on_few, FEW, Early::Off)?;
    let _many = ours(many, on_many, MANY, Early::Off)?;
    let way = |name, pods: &Pods, to: SocketAddr| Way { name, client: pods.client.host.clone(), to };

    let ways = [
        way("direct", on_direct, SocketAddr::new(on_direct.servers[0].ips.v4.into(), SHORT)),
        way("iptables", on_iptables, measured(FEW)),
        way("nftables", on_nftables, measured(FEW)),
        way("ours", on_few, measured(FEW)),
        way("ours with 50,000 Services", on_many, measured(MANY)),
    ];
    let measure = |way: &Way| short_connections(&way.client, way.to, AT_ONCE, effort.time);
    let series = alternate(&ways, effort.rounds * 2 + 1, measure)?;
    let note = said(&ways, &series);
    let rival = |of: usize| series[1].over(&series[of]).median().max(series[2].over(&series[of]).median());
    let ratio = |ours: usize, of: usize| series[ours].over(&series[of]).median();
    let mut rows = vec![
        Row::ratio("short connections/s through a ClusterIP, 10 Services: of direct", ratio(3, 0), 0.98)
            .against(rival(0))
            .noted(&note),
        Row::ratio("the same: of the better of iptables and nftables", ratio(3, 1).min(ratio(3, 2)), 1.0)
            .noted(&note),
        Row::ratio("the same at 50,000 Services: of its own at 10", ratio(4, 3), 0.97).noted(&note),
    ];
    let here = Early::Native;
    rows.extend(from_outside(&client, [nftables, few, early, passing], on_early, here, effort)?);
    Ok(rows)
}

/// Short connections from outside to a NodePort, beside kube-proxy's.
fn from_outside(
    client: &Host,
    [nftables, late, early, passing]: [&Node; 4],
    on_early: &Pods,
    mode: Early,
    effort: Effort,
) -> Result<Vec<Row>> {
    let way = |name, node: &Node| Way {
        name,
        client: client.clone(),
        to: SocketAddr::new(node.ips.v4.into(), NODE_PORT),
    };
    let _plane = ours(early, on_early, FEW, mode)?;
    // What the node's driver sends back is dropped by a veth whose other end has no such program, and needs its checksums.
    let port = Socket::open()?.link(&format!("p-{}", early.host.name))?.context("the node's port")?.index;
    let _pass = attach_verdict(port, 2)?;
    // What it costs that a driver of this kind has a program at all: of what sockets send it makes other packets first.
    let _passing = passing.host.run(|| {
        let uplink = Socket::open()?.link("eth0")?.context("the node's uplink")?.index;
        attach_verdict(uplink, 2)
    })?;
    let ways = [
        way("nftables", nftables),
        way("ours, tcx", late),
        way("ours, XDP", early),
        way("nftables behind an XDP program that passes everything", passing),
    ];
    let measure = |way: &Way| short_connections(&way.client, way.to, AT_ONCE, effort.time);
    let series = alternate(&ways, effort.rounds * 2 + 1, measure)?;
    let note = said(&ways, &series);
    let ratio = |ours: usize| series[ours].over(&series[0]).median();
    Ok(vec![
        Row::ratio("NodePort from outside, short connections/s, tcx: of nftables", ratio(1), 1.0)
            .noted(&note),
        Row::ratio("NodePort from outside, short connections/s, XDP: of nftables", ratio(2), 1.0)
            .against(ratio(3))
            .noted(&note),
    ])
}

/// What each way did, and how much of the first that is.
pub fn said(ways: &[Way], series: &[Series]) -> String {
    let said = ways
        .iter()
        .zip(series)
        .map(|(way, own)| format!("{} {}/s = {:.3}", way.name, own.said(0), own.over(&series[0]).median()));
    said.collect::<Vec<_>>().join(", ")
}
