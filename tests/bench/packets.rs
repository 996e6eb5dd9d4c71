//! What a packet costs in the programs, and how many of them a node takes per second: by test runs of the programs with varied packets,
//! and by a generator behind the node's uplink.
//!
//! Must not know: sockets.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::MapCapacity;
use pagurus_agent_datapath::devices::{Early, PacketPrograms};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_tests::dataplane::{Options, Plane, Target, With as _, service, slices};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::packet::{SENDER, tcp};
use pagurus_tests::topology::{Node, Pair, ROUTER, Topology};

use crate::Effort;
use crate::bpf::{Generator, Kind, Varied, Vary, attach_verdict};
use crate::row::{Row, Series, alternate};

/// What XDP programs say when they send a packet on themselves.
const XDP_SENT: [u32; 2] = [3, 4];
/// What an XDP program says to drop and to let on.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
/// Services: as many as there are numbers for in 16 bits.
const SERVICES: u32 = 1 << 16;
/// Connections: as many as there are numbers for in 19 bits.
const CONNECTION_BITS: u32 = 19;
/// The first Service's external address, and the first backend's: beyond the nodes' router.
const FIRST_SERVICE: [u8; 4] = [100, 64, 0, 0];
const FIRST_BACKEND: [u8; 4] = [11, 0, 0, 0];
/// The loopback device, where test runs of programs take place, has no other.
const NOBODY: [u8; 6] = [0; 6];

/// An address some numbers behind another.
fn behind(first: [u8; 4], number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from_be_bytes(first) + number)
}

/// A node with many Services, each with one endpoint beyond the router.
fn loaded(node: &Node, count: u32, early: Early) -> Result<Plane> {
    let capacity = MapCapacity { conntrack: 1 << 21, services: 1 << 17, ..MapCapacity::default() };
    let options = Options { own_network: true, early, capacity, ..Options::default() };
    let via = ROUTER.v4.to_string();
    node.host.ip(&[
        "neigh",
        "replace",
        &via,
        "lladdr",
        "02:00:00:00:00:02",
        "dev",
        "eth0",
        "nud",
        "permanent",
    ])?;
    let mut plane = Plane::start(node, &options, &node.ips.both())?;
    plane.change(|desired| {
        for number in 0..count {
            let cluster_ip = behind([10, 100, 0, 0], number);
            let mut made = service(&format!("service-{number}"), &[&cluster_ip.to_string()]);
            made = made.port("http", Protocol::Tcp, 80);
            made.external_ips = vec![behind(FIRST_SERVICE, number).into()];
            let ips = Pair { v4: behind(FIRST_BACKEND, number), v6: Ipv6Addr::UNSPECIFIED };
            let targets = [Target::new(ips, &[("http", 8080)])];
            for (name, slice) in slices(&made, &targets, |_| false).into_iter().take(1) {
                desired.set_slice(&name, slice);
            }
            desired.set_service(made);
        }
    })?;
    Ok(plane)
}

fn vary(source: [u8; 4], source_bits: u32, destination: [u8; 4], destination_bits: u32) -> Vary {
    Vary { source, source_bits, destination, destination_bits, ports: [4000, 80], in_order: false }
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let topology = Topology::new(sandbox, 2)?;
    let [warm, plain] = topology.nodes.as_slice() else { unreachable!("two nodes were asked for") };
    let repeat = if effort.rounds > 2 { 4_000_000 } else { 1_000_000 };
    let mut rows = Vec::new();
    let mut plane = loaded(warm, SERVICES, Early::Native)?;
    let programs = plane.datapath.packet_programs(true)?;
    let found = warm.host.run(|| {
        let mut rows = xdp(&programs, repeat, effort)?;
        rows.push(first_packet(&programs, effort)?);
        Ok(rows)
    });
    rows.extend(found?);
    rows.push(per_second(warm, plain, effort)?);
    Ok(rows)
}

/// The packets that go through the program that takes them early.
fn xdp(programs: &PacketPrograms, repeat: u32, effort: Effort) -> Result<Vec<Row>> {
    let program = programs.get("xdp_outside").context("no program xdp_outside")?;
    let packet = |flags: u8| tcp().from("10.128.0.0:4000").to("100.64.0.0:80").flags(flags).build();
    let (syn, ack) = (packet(0x02), packet(0x10));
    let all = vary([10, 128, 0, 0], CONNECTION_BITS, FIRST_SERVICE, 16);
    let filling = Varied::new(Kind::Xdp, &Vary { in_order: true, ..all }, &[SENDER, NOBODY])?;
    filling.into_program(program)?;
    let (_, verdict) = filling.run(&syn, 1 << CONNECTION_BITS)?;
    ensure!(XDP_SENT.contains(&verdict), "the program said {verdict} to a new connection");
    let one = vary([10, 128, 0, 7], 0, FIRST_SERVICE, 0);
    let mut rows = Vec::new();
    for (name, vary, target) in [
        ("XDP load balancing, 64k Services, 512k connections, at random", all, 100.0),
        ("XDP load balancing, one warm flow", one, 35.0),
    ] {
        let varied = Varied::new(Kind::Xdp, &vary, &[SENDER, NOBODY])?;
        let mut series = Series::default();
        for _ in 0..effort.rounds {
            series.0.push(varied.measure(program, &ack, repeat)?);
        }
        let (_, verdict) = varied.run(&ack, 1)?;
        ensure!(XDP_SENT.contains(&verdict), "{name}: the program said {verdict}");
        let note = format!("{} in test runs, without what varying the packet costs", series.said(0));
        rows.push(Row::at_most(name, series.median(), "ns", target).noted(&note));
    }
    Ok(rows)
}

/// The first packet of a connection from a pod, through a Service and straight to a pod.
fn first_packet(programs: &PacketPrograms, effort: Effort) -> Result<Row> {
    let program = programs.get("from_pod").context("no program from_pod")?;
    let syn = tcp().from("10.244.1.10:4000").to("10.100.0.0:80").syn().build();
    let count = 1 << 17;
    let (mut through, mut straight) = (Series::default(), Series::default());
    for round in 0..effort.rounds as u8 {
        // Clients that have not been seen: each packet is the first of its connection.
        let source = [10, 200 + round, 0, 0];
        for (destination, series) in [([10, 100, 0, 0], &mut through), ([10, 244, 2, 10], &mut straight)] {
            let bits = if destination[1] == 100 { 15 } else { 0 };
            let vary = Vary { in_order: true, ..vary(source, 17, destination, bits) };
            let varied = Varied::new(Kind::Tc, &vary, &[SENDER, NOBODY])?;
            series.0.push(varied.measure(program, &syn, count)?);
        }
    }
    let note = format!(
        "through a Service {}, straight to a pod {} in test runs at {SERVICES} Services",
        through.said(0),
        straight.said(0)
    );
    let name = "first packet through a Service at 50,000 Services: more than direct";
    Ok(Row::at_most(name, through.median() - straight.median(), "ns", 1000.0).noted(&note))
}

/// Packets of warm connections that a node sends on to its backends.
fn per_second(early: &Node, late: &Node, effort: Effort) -> Result<Row> {
    let _plane = loaded(late, 16, Early::Off)?;
    let device = |name: String| {
        move || -> Result<_> {
            let link = Socket::open()?.link(&name)?.with_context(|| format!("link {name}"))?;
            Ok((link.index, link.mac.map(|mac| mac.0).unwrap_or_default()))
        }
    };
    // Without a program at the driver packets of the generator do not get in.
    let (uplink, _) = late.host.run(device("eth0".into()))?;
    let _let_in = late.host.run(|| attach_verdict(uplink, XDP_PASS))?;
    let packet = tcp().from("10.129.0.0:4000").to("100.64.0.0:80").ack().build();
    let mut ways = Vec::new();
    for node in [late, early] {
        let (port, _) = device(format!("p-{}", node.host.name))()?;
        let (_, mac) = node.host.run(device("eth0".into()))?;
        // What the node sends on ends there.
        let sink = attach_verdict(port, XDP_DROP)?;
        let vary = vary([10, 129, 0, 0], 10, FIRST_SERVICE, 4);
        ways.push((Generator::new(port, &vary, &[SENDER, mac])?, sink));
    }
    let count = if effort.rounds > 2 { 3_000_000 } else { 300_000 };
    let series = alternate(&ways, effort.rounds, |(generator, _)| generator.send(&packet, count))?;
    let note = format!("tcx {} packets/s, XDP {} packets/s", series[0].said(0), series[1].said(0));
    let ratio = series[1].over(&series[0]).median();
    Ok(Row::ratio("NodePort and others from outside, packets/s: XDP of tcx", ratio, 2.0).noted(&note))
}
