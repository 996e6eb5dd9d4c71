//! Connections that go on before their packets have an skb.

use super::programs::{Programs, Service};
use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{Backend, SERVICE_DSR, SERVICE_EXTERNAL};
use pagurus_tests::netns::{ip, isolated};
use pagurus_tests::packet::{Packet, other, protocol, sctp, tcp, udp};

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// The uplink's own hardware address, and that of everybody else on its network.
const OWN: [u8; 6] = [2, 0, 0, 0, 7, 1];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 7, 0xfe];

/// Addresses of one family.
struct Family {
    node: &'static str,
    pod: &'static str,
    server: &'static str,
    client: &'static str,
    vip: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        node: "192.168.7.1",
        pod: "10.244.1.10",
        server: "10.244.2.10",
        client: "203.0.113.9",
        vip: "198.51.100.7",
    },
    Family {
        node: "[fd77::1]",
        pod: "[fd10::1:10]",
        server: "[fd10::2:10]",
        client: "[2001:db8::9]",
        vip: "[2001:db8:7::7]",
    },
];

fn at(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// Programs, and a node with one uplink whose routes all lead to one gateway.
struct Node {
    programs: Programs,
    uplink: u32,
}

impl Node {
    fn new() -> Result<Option<Self>> {
        let Some(mut programs) = Programs::load()? else { return Ok(None) };
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "up0", "address", "02:00:00:00:07:01", "type", "veth", "peer", "name", "up0-p"])?;
        for device in ["up0", "up0-p"] {
            ip(&["link", "set", "dev", device, "up"])?;
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        for (address, gateway) in [("192.168.7.1/24", "192.168.7.254"), ("fd77::1/64", "fd77::fe")] {
            ip(&["address", "add", address, "dev", "up0", "nodad"])
                .or_else(|_| ip(&["address", "add", address, "dev", "up0"]))?;
            ip(&["neigh", "add", gateway, "lladdr", "02:00:00:00:07:fe", "dev", "up0", "nud", "permanent"])?;
            ip(&["route", "add", "default", "via", gateway, "dev", "up0"])?;
        }
        programs.node(&[FAMILIES[0].node.parse()?, bare(FAMILIES[1].node).parse()?])?;
        let uplink = nix::net::if_::if_nametoindex("up0").context("find up0")?;
        Ok(Some(Self { programs, uplink }))
    }

    /// A Service with one backend; its id.
    fn service(&mut self, vip: &str, protocol: u8, server: &str, is_local: bool, flags: u32) -> Result<u32> {
        let id = self.programs.backend(server, protocol, is_local)?;
        let service = Service { flags: SERVICE_EXTERNAL | flags, inside: &[id], outside: &[id] };
        self.programs.service(vip, protocol, &service)?;
        Ok(id)
    }

    /// The packet that is sent back out of the uplink in the place of this one.
    fn sent(&self, packet: &Packet) -> Result<Packet> {
        let packet = packet.clone().macs(GATEWAY, OWN);
        let ran = self.programs.run_early(self.uplink, &packet.build())?;
        ensure!(ran.code == XDP_TX, "{}: {packet:?}", ran.code);
        let sent = ran.packet();
        let wanted = packet.clone().macs(OWN, GATEWAY).ethernet;
        ensure!(sent.ethernet == wanted && sent.ttl == packet.ttl - 1, "{sent:?}");
        Ok(sent)
    }

    /// The packet goes on as it came.
    fn is_left(&self, packet: &Packet) -> Result<()> {
        let bytes = packet.clone().macs(GATEWAY, OWN).build();
        let ran = self.programs.run_early(self.uplink, &bytes)?;
        ensure!(ran.code == XDP_PASS && ran.bytes == bytes, "{}: {packet:?}", ran.code);
        Ok(())
    }
}

/// The middle of a connection.
fn middle(protocol: u8, from: &str, to: &str, payload: &[u8]) -> Packet {
    match protocol {
        protocol::TCP => tcp().from(from).to(to).ack().numbers(7, 9).payload(payload),
        _ => udp().from(from).to(to).payload(payload),
    }
}

/// What a packet is like but for where it is from and to.
fn expect(sent: &Packet, like: &Packet, from: &str, to: &str) -> Result<()> {
    let wanted = like.clone().from(from).to(to);
    ensure!(
        (sent.source, sent.destination, &sent.body) == (wanted.source, wanted.destination, &wanted.body),
        "{sent:?} is not {wanted:?}"
    );
    Ok(())
}

#[test]
fn connections_to_other_nodes_go_on() {
    isolated("packets::xdp::connections_to_other_nodes_go_on", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, server) =
                (at(family.client, 4000), at(family.vip, 443), at(family.server, 8080));
            for protocol in [protocol::TCP, protocol::UDP] {
                node.service(&vip, protocol, &server, false, 0)?;
                let first = match protocol {
                    protocol::TCP => tcp().from(&client).to(&vip).syn(),
                    _ => middle(protocol, &client, &vip, b"first"),
                };
                // Nobody knows it yet: it is for the next program.
                node.is_left(&first)?;
                let seen = node.programs.run("from_outside", &first)?.packet();
                let port = seen.ports().context("no ports")?.0;
                let own = at(family.node, port);
                // The long way, then the short one.
                for round in 0..5 {
                    let packet = middle(protocol, &client, &vip, &vec![round; usize::from(round) * 101]);
                    expect(&node.sent(&packet)?, &packet, &own, &server)?;
                    let answer = middle(protocol, &server, &own, &vec![round; usize::from(round) * 77]);
                    expect(&node.sent(&answer)?, &answer, &vip, &client)?;
                }
            }
        }
        // Those of IPv4, there and back.
        ensure!(node.programs.warm()? == 4, "{}", node.programs.warm()?);
        Ok(())
    });
}

#[test]
fn datagrams_without_checksum_stay_without() {
    isolated("packets::xdp::datagrams_without_checksum_stay_without", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        node.service("198.51.100.7:53", protocol::UDP, "10.244.2.10:53", false, 0)?;
        let packet = udp().from("203.0.113.9:5").to("198.51.100.7:53").payload(b"q").without_checksum();
        let port = node.programs.run("from_outside", &packet)?.packet().ports().context("no ports")?.0;
        for _ in 0..3 {
            expect(&node.sent(&packet)?, &packet, &at("192.168.7.1", port), "10.244.2.10:53")?;
        }
        Ok(())
    });
}

#[test]
fn what_is_handed_on_keeps_its_addresses() {
    isolated("packets::xdp::what_is_handed_on_keeps_its_addresses", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 443));
            node.service(&vip, protocol::TCP, &at(family.server, 8080), false, SERVICE_DSR)?;
            node.programs.run("from_outside", &tcp().from(&client).to(&vip).syn())?;
            for _ in 0..3 {
                let packet = middle(protocol::TCP, &client, &vip, b"data");
                expect(&node.sent(&packet)?, &packet, &client, &vip)?;
            }
        }
        Ok(())
    });
}

#[test]
fn what_begins_or_ends_a_connection_is_left_and_makes_it_cold() {
    isolated("packets::xdp::what_begins_or_ends_a_connection_is_left_and_makes_it_cold", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        let (client, vip) = ("203.0.113.9:4000", "198.51.100.7:443");
        node.service(vip, protocol::TCP, "10.244.2.10:8080", false, 0)?;
        let packet = tcp().from(client).to(vip);
        for turn in [packet.clone().fin().ack(), packet.clone().rst(), packet.clone().syn()] {
            node.programs.run("from_outside", &packet.clone().syn())?;
            node.sent(&packet.clone().ack())?;
            ensure!(node.programs.warm()? == 1, "{}", node.programs.warm()?);
            node.is_left(&turn)?;
            ensure!(node.programs.warm()? == 0, "{}", node.programs.warm()?);
        }
        Ok(())
    });
}

#[test]
fn anything_else_is_left() {
    isolated("packets::xdp::anything_else_is_left", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, local) = (at(family.client, 4000), at(family.vip, 443), at(family.vip, 80));
            node.service(&vip, protocol::TCP, &at(family.server, 8080), false, 0)?;
            node.service(&vip, protocol::SCTP, &at(family.server, 8080), false, 0)?;
            node.service(&local, protocol::TCP, &at(family.pod, 8080), true, 0)?;
            for vip in [&vip, &local] {
                node.programs.run("from_outside", &tcp().from(&client).to(vip).syn())?;
            }
            let packet = middle(protocol::TCP, &client, &vip, b"data");
            node.sent(&packet)?;
            // To this node's own pod, to nobody's Service, of another transport, at its last hop, in fragments.
            node.is_left(&middle(protocol::TCP, &client, &local, b"data"))?;
            node.is_left(&middle(protocol::TCP, &client, &at(family.vip, 444), b"data"))?;
            node.is_left(&sctp().from(&client).to(&vip).tag(7).payload(&[0; 16]))?;
            node.is_left(&other(89, b"hello").from(bare(family.client)).to(bare(family.vip)))?;
            node.is_left(&packet.clone().ttl(1))?;
            for fragment in packet.clone().id(7).payload(&[1; 200]).fragments(64) {
                node.is_left(&fragment)?;
            }
            // Overheard broadcasts.
            let bytes = packet.clone().macs(GATEWAY, [0xff; 6]).build();
            ensure!(node.programs.run_early(node.uplink, &bytes)?.code == XDP_PASS);
            // Longer than the way is wide.
            let other = at(family.client, 4001);
            node.programs.run("from_outside", &tcp().from(&other).to(&vip).syn())?;
            ip(&["link", "set", "dev", "up0", "mtu", "1400"])?;
            node.is_left(&packet.clone().from(&other).payload(&[0; 1400]))?;
            ip(&["link", "set", "dev", "up0", "mtu", "1500"])?;
        }
        // With options: by the long way.
        let packet =
            middle(protocol::TCP, "203.0.113.9:4000", "198.51.100.7:443", b"data").options(&[1, 1, 1, 1]);
        node.sent(&packet)?;
        Ok(())
    });
}

#[test]
fn a_backend_that_went_is_noticed_by_the_long_way() {
    isolated("packets::xdp::a_backend_that_went_is_noticed_by_the_long_way", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        let (client, vip) = ("[2001:db8::9]:4000", "[2001:db8:7::7]:443");
        let id = node.service(vip, protocol::TCP, "[fd10::2:10]:8080", false, 0)?;
        node.programs.run("from_outside", &tcp().from(client).to(vip).syn())?;
        let packet = middle(protocol::TCP, client, vip, b"data");
        node.sent(&packet)?;
        let gone = Backend { protocol: 0, ..node.programs.get_backend(id)? };
        node.programs.set_backend(id, gone)?;
        node.is_left(&packet)
    });
}
