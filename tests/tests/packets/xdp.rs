//! Packets that are sent on before they have an skb: single ones, compared with what `from_outside` makes of them.

mod driver;
mod taken_back;

use std::net::SocketAddr;

use super::node::INIT;
use super::programs::{Programs, Service};
use super::uplink::{self, GATEWAY, OWN};
use anyhow::{Context as _, Result, ensure};
use pagurus_ebpf_abi::{
    Backend, FlowState, FlowTuple, Port, SERVICE_AFFINITY, SERVICE_DSR, SERVICE_EXTERNAL, SERVICE_RANDOM,
    SERVICE_SOURCE_RANGES,
};
use pagurus_tests::netns::{ip, isolated};
use pagurus_tests::packet::{Packet, other, protocol, sctp, tcp, udp};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

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
        let uplink = uplink::make()?;
        programs.node(&[FAMILIES[0].node.parse()?, bare(FAMILIES[1].node).parse()?])?;
        Ok(Some(Self { programs, uplink }))
    }

    /// A Service with backends on other nodes; its number.
    fn serve(&mut self, vip: &str, protocol: u8, servers: &[&str], flags: u32) -> Result<u32> {
        let ids: Vec<u32> = servers
            .iter()
            .map(|server| self.programs.backend(server, protocol, false))
            .collect::<Result<_>>()?;
        let service = Service { flags: SERVICE_EXTERNAL | flags, inside: &ids, outside: &ids };
        self.programs.service(vip, protocol, &service)
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
                let seen = node.sent(&first)?;
                let port = seen.ports().context("no ports")?.0;
                let own = at(family.node, port);
                expect(&seen, &first, &own, &server)?;
                // The long way, then the short one.
                for round in 0..5 {
                    let packet = middle(protocol, &client, &vip, &vec![round; usize::from(round) * 101]);
                    expect(&node.sent(&packet)?, &packet, &own, &server)?;
                    let answer = middle(protocol, &server, &own, &vec![round; usize::from(round) * 77]);
                    expect(&node.sent(&answer)?, &answer, &vip, &client)?;
                }
            }
        }
        // Of both families and transports, there and back.
        ensure!(node.programs.warm()? == 8, "{}", node.programs.warm()?);
        Ok(())
    });
}

#[test]
fn datagrams_without_checksum_stay_without() {
    isolated("packets::xdp::datagrams_without_checksum_stay_without", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        node.service("198.51.100.7:53", protocol::UDP, "10.244.2.10:53", false, 0)?;
        let packet = udp().from("203.0.113.9:5").to("198.51.100.7:53").payload(b"q").without_checksum();
        let port = node.sent(&packet)?.ports().context("no ports")?.0;
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
            let first = tcp().from(&client).to(&vip).syn();
            expect(&node.sent(&first)?, &first, &client, &vip)?;
            for _ in 0..3 {
                let packet = middle(protocol::TCP, &client, &vip, b"data");
                expect(&node.sent(&packet)?, &packet, &client, &vip)?;
            }
        }
        Ok(())
    });
}

#[test]
fn what_begins_or_ends_a_connection_makes_it_cold() {
    isolated("packets::xdp::what_begins_or_ends_a_connection_makes_it_cold", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 443));
            node.service(&vip, protocol::TCP, &at(family.server, 8080), false, 0)?;
            let packet = tcp().from(&client).to(&vip);
            for turn in [packet.clone().fin().ack(), packet.clone().rst(), packet.clone().syn()] {
                node.sent(&packet.clone().syn())?;
                for _ in 0..2 {
                    node.sent(&packet.clone().ack())?;
                    ensure!(node.programs.warm()? == 1, "{}", node.programs.warm()?);
                }
                node.sent(&turn)?;
                ensure!(node.programs.warm()? == 0, "{}", node.programs.warm()?);
            }
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
            node.service(&local, protocol::TCP, &at(family.pod, 8080), true, 0)?;
            let packet = middle(protocol::TCP, &client, &vip, b"data");
            node.sent(&tcp().from(&client).to(&vip).syn())?;
            node.sent(&packet)?;
            // To this node's own pod (new, known, and known to be left), to nobody's Service, of another transport, at its last hop, in
            // fragments.
            let first = tcp().from(&client).to(&local).syn();
            node.is_left(&first)?;
            node.programs.run("from_outside", &first)?;
            let before = node.programs.states().len();
            for _ in 0..2 {
                node.is_left(&middle(protocol::TCP, &client, &local, b"data"))?;
                node.is_left(&middle(protocol::TCP, &client, &at(family.vip, 444), b"data"))?;
            }
            ensure!(node.programs.states().len() == before, "what is left made an entry");
            node.is_left(&other(89, b"hello").from(bare(family.client)).to(bare(family.vip)))?;
            node.is_left(&packet.clone().ttl(1))?;
            for fragment in packet.clone().id(7).payload(&[1; 200]).fragments(64) {
                node.is_left(&fragment)?;
            }
            // What everybody gets, and what is overheard.
            for mac in [[0xff; 6], [2, 0, 0, 0, 7, 2]] {
                let other = packet.clone().from(&at(family.client, 4002));
                for packet in [packet.clone(), other.clone(), other.syn()] {
                    let bytes = packet.macs(GATEWAY, mac).build();
                    let ran = node.programs.run_early(node.uplink, &bytes)?;
                    ensure!(ran.code == XDP_PASS && ran.bytes == bytes, "{mac:?}: {}", ran.code);
                }
            }
            // Longer than the way is wide.
            let other = at(family.client, 4001);
            node.sent(&tcp().from(&other).to(&vip).syn())?;
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
        for family in &FAMILIES {
            let (client, vip) = (at(family.client, 4000), at(family.vip, 443));
            let id = node.service(&vip, protocol::TCP, &at(family.server, 8080), false, 0)?;
            node.sent(&tcp().from(&client).to(&vip).syn())?;
            let gone = Backend { protocol: 0, ..node.programs.get_backend(id)? };
            node.programs.set_backend(id, gone)?;
            let answer = node.answered(&middle(protocol::TCP, &client, &vip, b"data"))?;
            expect(&answer, &tcp().rst().numbers(9, 0).window(0), &vip, &client)?;
        }
        Ok(())
    });
}

/// A client's address and port, a Service's, its backend's.
struct Way {
    client: String,
    vip: String,
    server: String,
    node: String,
}

/// A packet of a conversation: from the client to the Service, or from the backend to whom it was asked by.
enum Step {
    Ask(Packet),
    Answer(Packet),
}

/// Whole conversations, by transport.
fn conversations(way: &Way) -> Vec<(&'static str, u8, Vec<Step>)> {
    let ask = |packet: Packet| Step::Ask(packet.from(&way.client).to(&way.vip));
    let answer = |packet: Packet| Step::Answer(packet.from(&way.server).to(&way.node));
    let chunk = |kind: u8| sctp().tag(9).payload(&[kind, 0, 0, 4]);
    vec![
        (
            "TCP",
            protocol::TCP,
            vec![
                ask(tcp().syn().mss(8960)),
                answer(tcp().syn().ack().mss(8960)),
                ask(tcp().ack()),
                ask(tcp().ack().payload(b"question")),
                answer(tcp().ack().payload(b"answer")),
                ask(tcp().fin().ack()),
                answer(tcp().fin().ack()),
                ask(tcp().ack()),
                // Again, from the same port.
                ask(tcp().syn()),
                answer(tcp().syn().ack()),
                ask(tcp().ack()),
                answer(tcp().rst()),
            ],
        ),
        (
            "UDP",
            protocol::UDP,
            vec![
                ask(udp().payload(b"question")),
                answer(udp().payload(b"answer")),
                ask(udp().payload(b"another")),
                ask(udp().payload(b"third")),
                answer(udp().payload(b"answers")),
            ],
        ),
        (
            "SCTP",
            protocol::SCTP,
            vec![
                ask(sctp().tag(0).payload(&INIT)),
                answer(chunk(2)),
                ask(chunk(10)),
                answer(chunk(11)),
                ask(chunk(7)),
                answer(chunk(8)),
                ask(chunk(14)),
            ],
        ),
    ]
}

/// What became of a conversation: its packets and the flows behind it, with a port that was made up given as 0.
#[derive(Debug, PartialEq)]
struct Became {
    packets: Vec<Packet>,
    flows: Vec<(FlowTuple, FlowState)>,
}

impl Node {
    /// The packet that is sent back to the client in the place of this one.
    fn answered(&self, packet: &Packet) -> Result<Packet> {
        let ran = self.programs.run_early(self.uplink, &packet.clone().macs(GATEWAY, OWN).build())?;
        ensure!(ran.code == XDP_TX, "{}: {packet:?}", ran.code);
        let sent = ran.packet();
        ensure!(sent.ethernet == packet.clone().macs(OWN, GATEWAY).ethernet, "{sent:?}");
        Ok(sent)
    }

    /// What a conversation becomes in the driver, or behind it.
    fn converse(&mut self, is_early: bool, steps: &[Step]) -> Result<Became> {
        self.programs.forget()?;
        self.programs.cool()?;
        let made_up = |port: Port| if (61_000..65_000).contains(&port.number()) { Port(0) } else { port };
        let (mut port, mut packets) = (0, Vec::new());
        for step in steps {
            let packet = match step {
                Step::Ask(packet) => packet.clone(),
                Step::Answer(packet) => {
                    let to = if packet.is_v4() { FAMILIES[0].node } else { FAMILIES[1].node };
                    packet.clone().to(&at(to, port))
                }
            };
            let seen = match is_early {
                true => self.sent(&packet)?,
                false => self.programs.run("from_outside", &packet)?.packet(),
            };
            if let Step::Ask(_) = step {
                port = seen.ports().context("no ports")?.0;
            }
            // The rest of the way is another thing.
            let (source, destination) = seen.ports().context("no ports")?;
            let names = (
                SocketAddr::new(seen.source, made_up(Port::new(source)).number()),
                SocketAddr::new(seen.destination, made_up(Port::new(destination)).number()),
            );
            packets.push(seen.without_ethernet().ttl(0).from(&names.0.to_string()).to(&names.1.to_string()));
        }
        let mut flows = self.programs.states();
        for (key, state) in &mut flows {
            (key.source_port, key.destination_port) =
                (made_up(key.source_port), made_up(key.destination_port));
            (state.source_port, state.destination_port) =
                (made_up(state.source_port), made_up(state.destination_port));
            (state.last, state.since) = (0, 0);
        }
        flows.sort_by_key(|(key, state)| (*key, state.flags));
        Ok(Became { packets, flows })
    }
}

#[test]
fn conversations_are_the_same_in_the_driver_and_behind_it() {
    isolated("packets::xdp::conversations_are_the_same_in_the_driver_and_behind_it", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        // Narrower than the clients believe.
        node.programs.configure(|config| config.mtu = 1400)?;
        for family in &FAMILIES {
            for (name, flags) in [
                ("SNAT", 0),
                ("affinity", SERVICE_AFFINITY),
                ("random", SERVICE_RANDOM),
                ("ranges", SERVICE_SOURCE_RANGES),
            ] {
                let way = Way {
                    client: at(family.client, 4000),
                    vip: at(family.vip, 443),
                    server: at(family.server, 8080),
                    node: at(family.node, 1),
                };
                for (transport, protocol, steps) in conversations(&way) {
                    let what = format!("{transport} {name} {}", way.vip);
                    let number = node.serve(&way.vip, protocol, &[&way.server], flags)?;
                    if flags == SERVICE_SOURCE_RANGES {
                        node.programs.source_range(
                            number,
                            bare(family.client),
                            if way.vip.starts_with('[') { 64 } else { 24 },
                        )?;
                    }
                    let late = node.converse(false, &steps).with_context(|| format!("{what}, late"))?;
                    let counted = node.programs.counts(number)?;
                    let early = node.converse(true, &steps).with_context(|| format!("{what}, early"))?;
                    ensure!(late == early, "{what}: late {late:#?}\nearly {early:#?}");
                    ensure!(late.flows.len() >= 2, "{what}: {:?}", late.flows);
                    let twice = node.programs.counts(number)?;
                    ensure!(twice.0 == 2 * counted.0, "{what}: {counted:?}, then {twice:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn the_same_backends_are_chosen() {
    isolated("packets::xdp::the_same_backends_are_chosen", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let servers: Vec<String> = (0..4).map(|port| at(family.server, 8080 + port)).collect();
            let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
            let vip = at(family.vip, 443);
            node.serve(&vip, protocol::UDP, &servers, 0)?;
            let mut chosen = std::collections::BTreeSet::new();
            for port in 1..64 {
                let packet = udp().from(&at(family.client, port)).to(&vip).payload(b"question");
                let early = node.sent(&packet)?;
                node.programs.forget()?;
                let late = node.programs.run("from_outside", &packet)?.packet();
                node.programs.forget()?;
                let backends =
                    [&early, &late].map(|seen| (seen.destination, seen.ports().map(|ports| ports.1)));
                ensure!(backends[0] == backends[1], "{packet:?}: {backends:?}");
                chosen.insert(backends[0]);
            }
            ensure!(chosen.len() == servers.len(), "{chosen:?}");
        }
        Ok(())
    });
}

#[test]
fn nobody_there_is_said_early() {
    isolated("packets::xdp::nobody_there_is_said_early", |_| {
        let Some(mut node) = Node::new()? else { return Ok(()) };
        for family in &FAMILIES {
            let (client, vip, closed) = (at(family.client, 4000), at(family.vip, 443), at(family.vip, 444));
            for packet in [tcp().syn(), udp().payload(b"question"), sctp().tag(0).payload(&INIT)] {
                let packet = packet.from(&client).to(&vip);
                let protocol = packet.protocol();
                let number = node.serve(&vip, protocol, &[], 0)?;
                let early = node.answered(&packet)?;
                let late = node.programs.run("from_outside", &packet)?.packet();
                ensure!(
                    early.clone().without_ethernet() == late.clone().without_ethernet(),
                    "{early:?} is not {late:?}"
                );
                // What is overheard is not answered, nor counted.
                let overheard = packet.clone().macs(GATEWAY, [2, 0, 0, 0, 7, 2]).build();
                let ran = node.programs.run_early(node.uplink, &overheard)?;
                ensure!(ran.code == XDP_PASS && ran.bytes == overheard, "{}", ran.code);
                ensure!(node.programs.counts(number)? == (0, 2, 0), "{:?}", node.programs.counts(number)?);
                // Who may not, is not answered either.
                let packet = packet.to(&closed);
                let number =
                    node.serve(&closed, protocol, &[&at(family.server, 8080)], SERVICE_SOURCE_RANGES)?;
                let ran = node.programs.run_early(node.uplink, &packet.macs(GATEWAY, OWN).build())?;
                ensure!(ran.code == XDP_DROP, "{}", ran.code);
                ensure!(node.programs.counts(number)? == (0, 0, 1), "{:?}", node.programs.counts(number)?);
            }
        }
        let drops = node.programs.drops()?;
        ensure!(drops == [("no_endpoint", 12), ("source_range", 6)], "{drops:?}");
        Ok(())
    });
}
