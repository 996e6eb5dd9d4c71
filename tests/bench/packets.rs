//! What a packet costs in the programs, and how many of them a node takes per second: by test runs of the programs with varied packets,
//! and by a generator behind the node's uplink.
//!
//! Must not know: sockets.

use anyhow::{Context as _, Result};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::packet::{RECEIVER, SENDER, tcp};
use pagurus_tests::topology::Topology;
use std::os::fd::AsFd as _;

use crate::Effort;
use crate::bpf::{Generator, Kind, Varied, Vary, attach_verdict, drop_everything};
use crate::row::Row;

/// Measures.
pub fn run(sandbox: &Sandbox, _effort: Effort) -> Result<Vec<Row>> {
    let topology = Topology::new(sandbox, 1)?;
    let vary = Vary {
        source: [10, 128, 0, 0],
        source_bits: 19,
        destination: [100, 64, 0, 0],
        destination_bits: 16,
        ports: [4000, 80],
        in_order: false,
    };
    let packet = tcp().from("10.128.0.0:4000").to("100.64.0.0:80").ack().build();
    for kind in [Kind::Xdp, Kind::Tc] {
        let varied = Varied::new(kind, &vary, &[SENDER, RECEIVER])?;
        let nothing = drop_everything(kind)?;
        eprintln!("{kind:?} {:.1} ns", varied.measure(nothing.as_fd(), &packet, 1_000_000)?);
    }
    let port = Socket::open()?.link("p-node1")?.context("port")?.index;
    let eth0 = topology.nodes[0].host.run(|| Ok(Socket::open()?.link("eth0")?.context("eth0")?.index))?;
    let _sink = topology.nodes[0].host.run(|| attach_verdict(eth0, 1))?;
    let generator = Generator::new(port, &vary, &[SENDER, RECEIVER])?;
    for _ in 0..3 {
        eprintln!("{:.0}", generator.send(&packet, 1_000_000)?);
    }
    Ok(Vec::new())
}
