//! Short connections and requests through a ClusterIP: direct to the pod, through kube-proxy's rules in both modes, and through ours.
//!
//! Each has a node of its own with the same pods; they are measured in turn. Must not know: how programs and rules are made.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use anyhow::Result;
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Host, Node, Topology};

use crate::Effort;
use crate::load::{requests, serve_long, serve_short, short_connections};
use crate::rivals::{self, Service, service_address};
use crate::row::{Row, Series, alternate};

/// Where pods serve short connections.
const SHORT: u16 = 8080;
/// Where they serve long ones.
const LONG: u16 = 8081;
/// Clients at once: enough that no processor waits.
const AT_ONCE: usize = 4;
/// Endpoints of each Service.
const ENDPOINTS: usize = 2;

/// One way to a pod.
struct Way {
    name: &'static str,
    client: Host,
    short: SocketAddr,
    long: SocketAddr,
}

/// A node's client and the endpoints of the Services that are measured: of short connections and of long ones.
struct Pods {
    client: Host,
    short: Vec<SocketAddrV4>,
    long: Vec<SocketAddrV4>,
}

fn pods(node: &mut Node) -> Result<Pods> {
    let client = node.pod()?.host;
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for _ in 0..ENDPOINTS {
        let pod = node.pod()?;
        serve_short(&pod.host, IpAddr::V4(pod.ips.v4), SHORT)?;
        serve_long(&pod.host, IpAddr::V4(pod.ips.v4), LONG)?;
        short.push(SocketAddrV4::new(pod.ips.v4, SHORT));
        long.push(SocketAddrV4::new(pod.ips.v4, LONG));
    }
    Ok(Pods { client, short, long })
}

/// So many Services. The two that are measured stand in the middle: rules are walked through from the first to the last.
fn services(count: u32, pods: &Pods) -> Vec<Service> {
    let service = |number: u32| {
        let endpoints = if number == count / 2 {
            pods.short.clone()
        } else if number == count / 2 + 1 {
            pods.long.clone()
        } else {
            // Nobody goes there.
            let ip = |place: usize| (0x0af6_0000 + number * ENDPOINTS as u32 + place as u32).into();
            (0..ENDPOINTS).map(|place| SocketAddrV4::new(ip(place), SHORT)).collect()
        };
        Service { number, address: service_address(number), node_port: None, endpoints }
    };
    (0..count).map(service).collect()
}

/// The addresses of the Services that are measured.
fn measured(count: u32) -> [SocketAddr; 2] {
    [service_address(count / 2).into(), service_address(count / 2 + 1).into()]
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    const FEW: u32 = 10;
    let mut topology = Topology::new(sandbox, 3)?;
    let [direct, iptables, nftables] = topology.nodes.as_mut_slice() else {
        unreachable!("three nodes were asked for")
    };
    let mut ways = Vec::new();
    let pods_here = pods(direct)?;
    ways.push(Way {
        name: "direct",
        client: pods_here.client,
        short: pods_here.short[0].into(),
        long: pods_here.long[0].into(),
    });
    let [short, long] = measured(FEW);
    let pods_here = pods(iptables)?;
    rivals::install_iptables(&iptables.host, &services(FEW, &pods_here))?;
    ways.push(Way { name: "iptables", client: pods_here.client, short, long });
    let pods_here = pods(nftables)?;
    rivals::install_nftables(&nftables.host, &services(FEW, &pods_here), nftables.ips.v4)?;
    ways.push(Way { name: "nftables", client: pods_here.client, short, long });

    let mut rows = Vec::new();
    let measure = |way: &Way| short_connections(&way.client, way.short, AT_ONCE, effort.time);
    let series = alternate(&ways, effort.rounds, measure)?;
    rows.push(row("short connections/s", &ways, &series));
    for at_once in [1, 32] {
        let measure = |way: &Way| requests(&way.client, way.long, at_once, effort.time);
        let series = alternate(&ways, effort.rounds, measure)?;
        rows.push(row(&format!("requests/s over {at_once}"), &ways, &series));
    }
    Ok(rows)
}

fn row(name: &str, ways: &[Way], series: &[Series]) -> Row {
    let said = ways.iter().zip(series).map(|(way, own)| {
        format!("{} {} = {:.3} of direct", way.name, own.said(0), own.over(&series[0]).median())
    });
    let said: Vec<String> = said.collect();
    Row {
        name: name.to_owned(),
        value: Ok(series[0].median()),
        unit: "/s",
        target: 0.0,
        higher: true,
        against: None,
        note: said.join(", "),
    }
}
