//! One node, its pods and those around it, for single packets of both families.
//!
//! Must not know: what is tested.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{Endpoint, NODE_DELIVER};
use pagurus_tests::packet::{Packet, protocol, sctp, tcp, udp};

use super::programs::Programs;

/// SCTP chunk that begins an association: its header, initiate tag, and what else it must have.
pub(super) const INIT: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 5];

/// Addresses of one family, as they stand before a port.
pub(super) struct Family {
    /// The node's.
    pub(super) node: &'static str,
    /// A pod's of the node.
    pub(super) pod: &'static str,
    /// Another's.
    pub(super) other_pod: &'static str,
    /// A pod's of another node.
    pub(super) remote: &'static str,
    /// Of somebody outside the cluster.
    pub(super) client: &'static str,
    /// Of a router between the client and the node.
    pub(super) router: &'static str,
    /// A Service's.
    pub(super) vip: &'static str,
}

/// IPv4 and IPv6.
pub(super) const FAMILIES: [Family; 2] = [
    Family {
        node: "192.168.7.1",
        pod: "10.244.1.10",
        other_pod: "10.244.1.11",
        remote: "10.244.2.10",
        client: "203.0.113.9",
        router: "172.16.5.1",
        vip: "10.96.0.10",
    },
    Family {
        node: "[fd77::1]",
        pod: "[fd10::1:10]",
        other_pod: "[fd10::1:11]",
        remote: "[fd10::2:10]",
        client: "[2001:db8::9]",
        router: "[2001:db8:5::1]",
        vip: "[fd96::10]",
    },
];

/// The first packets of the transports with ports, from one place to another.
pub(super) fn transports(from: &str, to: &str) -> [(u8, Packet); 3] {
    [
        (protocol::TCP, tcp().from(from).to(to).syn()),
        (protocol::UDP, udp().from(from).to(to).payload(b"question")),
        (protocol::SCTP, sctp().from(from).to(to).tag(7).payload(&INIT)),
    ]
}

/// A place, as packets have it.
pub(super) fn at(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// An address without the brackets that it has before a port.
pub(super) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// An address.
pub(super) fn ip(host: &str) -> Result<IpAddr> {
    bare(host).parse().with_context(|| host.to_owned())
}

/// The programs of a node that has no pods.
pub(super) fn bare_node() -> Result<Option<Programs>> {
    let Some(mut programs) = Programs::load()? else { return Ok(None) };
    programs.node(&[ip(FAMILIES[0].node)?, ip(FAMILIES[1].node)?])?;
    Ok(Some(programs))
}

/// The programs of a node whose pods they deliver to.
pub(super) fn ready() -> Result<Option<Programs>> {
    let Some(mut programs) = bare_node()? else { return Ok(None) };
    for family in &FAMILIES {
        for (index, pod) in [family.pod, family.other_pod].into_iter().enumerate() {
            let endpoint = Endpoint {
                ifindex: 70 + index as u32,
                flags: 0,
                mac: [2, 0, 0, 0, 1, index as u8],
                host_mac: [2, 0, 0, 0, 2, index as u8],
                reserved: 0,
            };
            programs.endpoint(ip(pod)?, endpoint)?;
        }
    }
    programs.configure(|config| config.flags = NODE_DELIVER)?;
    Ok(Some(programs))
}

/// Expects addresses and ports.
pub(super) fn expect(what: &str, packet: &Packet, from: &str, to: &str) -> Result<()> {
    let wanted = packet.clone().from(from).to(to);
    ensure!(
        (packet.source, packet.destination, packet.ports())
            == (wanted.source, wanted.destination, wanted.ports()),
        "{what}: {packet:?} is not from {from} to {to}"
    );
    Ok(())
}
