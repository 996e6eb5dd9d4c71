//! Who connects to what, and the packets of it: to the frontends of a cluster, and to what is nearly one.
//!
//! Must not know: what becomes of them.

use std::net::{IpAddr, SocketAddr};

use pagurus_agent_core::addr::{Family, Protocol};
use pagurus_agent_core::services::kube_proxy::{Cluster, Connection};
use pagurus_ebpf_abi::programs;
use pagurus_tests::packet::{Packet, SENDER, port_unreachable, sctp, tcp, time_exceeded, too_big, udp};

use crate::packets::random::{self, NODE, PODS, PROTOCOLS, Random};

/// The ports that clients send from: those the kernel gives to sockets.
const FIRST_PORT: usize = 32_768;
const PORTS: usize = 28_000;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// A pod of this node.
    Pod,
    /// This node itself.
    Node,
    /// Anybody else, pods of other nodes among them.
    Outside,
    /// A pod of this node, at the uplink.
    Leaving,
}

/// A connection that somebody begins.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) client: Client,
    pub(super) connection: Connection,
    /// The client's port: no two attempts have the same.
    pub(super) port: u16,
}

/// Whether an address is a pod's.
pub(super) fn is_in_cluster(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..2] == [10, 244],
        IpAddr::V6(ip) => ip.segments()[..2] == [0xfd10, 0x244],
    }
}

fn is_pod_here(ip: &IpAddr) -> bool {
    (0..PODS).any(|number| *ip == random::pod(ip.is_ipv6(), number))
}

/// Any connection: mostly to what a Service has, often nearly.
pub(super) fn any(random: &mut Random, cluster: &Cluster, number: usize) -> Attempt {
    let v6 = random.once_in(2);
    let mut all = frontends(cluster, v6);
    all.push((random::pod(v6, 0), 8000, Protocol::Tcp));
    let (mut destination, mut port, mut protocol) = random.one(&all);
    if random.once_in(5) {
        match random.below(3) {
            0 => port += 1,
            1 => protocol = random.one(&PROTOCOLS),
            _ => destination = other(random, cluster, v6),
        }
    }
    let client = random.one(&[
        Client::Pod,
        Client::Pod,
        Client::Outside,
        Client::Outside,
        Client::Node,
        Client::Leaving,
    ]);
    let number_of_pod = random.below(PODS.into()) as u8;
    let source = match client {
        Client::Pod | Client::Leaving => random::pod(v6, number_of_pod),
        Client::Node => NODE[usize::from(v6)].parse().unwrap_or(destination),
        Client::Outside if random.once_in(4) => random::remote_pod(v6, number_of_pod),
        Client::Outside => random::client(random, v6),
    };
    let is_inside = client != Client::Outside;
    let connection = Connection { is_inside, source, destination, port, protocol };
    Attempt { client, connection, port: (FIRST_PORT + number % PORTS) as u16 }
}

/// Every address and port of a cluster's Services and host ports in one family.
fn frontends(cluster: &Cluster, v6: bool) -> Vec<(IpAddr, u16, Protocol)> {
    let family = if v6 { Family::V6 } else { Family::V4 };
    let nodes: Vec<IpAddr> = cluster.nodes.keys().copied().collect();
    let mut all = Vec::new();
    for service in &cluster.services {
        for port in &service.ports {
            let own =
                service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
            all.extend(own.map(|ip| (*ip, port.port, port.protocol)));
            if let Some(node_port) = port.node_port {
                all.extend(nodes.iter().map(|ip| (*ip, node_port, port.protocol)));
            }
        }
    }
    for host_port in &cluster.host_ports {
        all.extend(nodes.iter().map(|ip| (*ip, host_port.port, host_port.protocol)));
    }
    all.retain(|(ip, ..)| Family::of(ip) == family);
    all
}

/// Some other address.
fn other(random: &mut Random, cluster: &Cluster, v6: bool) -> IpAddr {
    let number = random.below(PODS.into()) as u8;
    let nodes: Vec<IpAddr> = cluster.nodes.keys().copied().filter(|ip| ip.is_ipv6() == v6).collect();
    match random.below(4) {
        0 => random::pod(v6, number),
        1 => random::remote_pod(v6, number),
        2 => random::client(random, v6),
        _ => random.one(&nodes),
    }
}

impl Attempt {
    /// Who sends.
    pub(super) fn from(&self) -> SocketAddr {
        SocketAddr::new(self.connection.source, self.port)
    }

    /// Where to.
    pub(super) fn to(&self) -> SocketAddr {
        SocketAddr::new(self.connection.destination, self.connection.port)
    }

    /// The program that sees its packets.
    pub(super) fn program(&self) -> &'static str {
        match self.client {
            Client::Pod => programs::FROM_POD,
            Client::Outside => programs::FROM_OUTSIDE,
            Client::Node | Client::Leaving => programs::TO_OUTSIDE,
        }
    }

    /// The program that sees the answers of a server; none if they do not pass any.
    pub(super) fn program_of_answers(&self, server: &IpAddr) -> Option<&'static str> {
        let is_this_node = NODE.iter().any(|ip| ip.parse() == Ok(*server));
        match self.client {
            _ if is_pod_here(server) => Some(programs::FROM_POD),
            Client::Pod if is_this_node => Some(programs::TO_POD),
            Client::Outside if is_this_node => Some(programs::TO_OUTSIDE),
            Client::Node | Client::Leaving if is_this_node => None,
            _ => Some(programs::FROM_OUTSIDE),
        }
    }

    /// Whether a packet is the first of its connection, as far as its transport says.
    pub(super) fn begins(&self, packet: &Packet) -> bool {
        use pagurus_tests::packet::{Body, flag};
        match &packet.body {
            Body::Tcp(tcp) => tcp.flags & (flag::SYN | flag::ACK) == flag::SYN,
            _ => true,
        }
    }

    /// The first packet: now and then of a connection that is older than all that is known of it.
    pub(super) fn first(&self, random: &mut Random) -> Packet {
        let packet = match (self.connection.protocol, random.below(12)) {
            (Protocol::Tcp, 0) => tcp().ack().numbers(7, 9).payload(&random.bytes(9)),
            (Protocol::Tcp, 1) => tcp().rst().numbers(7, 9),
            (Protocol::Tcp, _) => return self.syn(random),
            (Protocol::Sctp, _) => {
                let init = [&[1, 0, 0, 20][..], &0xdead_beef_u32.to_be_bytes(), &[0; 12]].concat();
                sctp().payload(&init)
            }
            (Protocol::Udp, _) => return self.next(random),
        };
        shaped(random, between(packet, self.from(), self.to()))
    }

    /// A SYN.
    pub(super) fn syn(&self, random: &mut Random) -> Packet {
        let packet = tcp().syn().numbers(random.below(1 << 32) as u32, 0).mss(1460);
        shaped(random, between(packet, self.from(), self.to()))
    }

    /// A RST of a connection that is known.
    pub(super) fn reset(&self) -> Packet {
        received(between(tcp().rst().numbers(7, 9), self.from(), self.to()))
    }

    /// A datagram in the middle of the connection that is too long for one packet.
    pub(super) fn long(&self, random: &mut Random, id: u32) -> Packet {
        long(random, self.from(), self.to(), id)
    }

    /// A packet in the middle of the connection.
    pub(super) fn next(&self, random: &mut Random) -> Packet {
        let packet = middle(random, self.connection.protocol);
        shaped(random, between(packet, self.from(), self.to()))
    }
}

/// What a server answers, first and later.
pub(super) fn answer(
    random: &mut Random,
    from: SocketAddr,
    to: SocketAddr,
    attempt: &Attempt,
    turn: usize,
) -> Packet {
    let packet = match (attempt.connection.protocol, turn) {
        (Protocol::Tcp, 0) => tcp().syn().ack().numbers(100, 8).mss(1400),
        (protocol, _) => middle(random, protocol),
    };
    shaped(random, between(packet, from, to))
}

/// A datagram between these that has to go in fragments.
pub(super) fn long(random: &mut Random, from: SocketAddr, to: SocketAddr, id: u32) -> Packet {
    let length = 200 + random.below(1000);
    received(between(udp().payload(&random.bytes(length)), from, to)).id(id)
}

fn middle(random: &mut Random, protocol: Protocol) -> Packet {
    let length = random.one(&[0, 1, 2, 7, 64, 501, 1200]);
    let bytes = random.bytes(length);
    match protocol {
        Protocol::Tcp => tcp().ack().numbers(7, 9).payload(&bytes),
        Protocol::Udp if random.once_in(6) => udp().without_checksum().payload(&bytes),
        Protocol::Udp => udp().payload(&bytes),
        // A DATA chunk.
        Protocol::Sctp => {
            let data = [&[0, 3, 0, 16][..], &random.bytes(12)].concat();
            sctp().tag(99).payload(&data)
        }
    }
}

/// The packet between these; IPv6 always has a checksum.
fn between(packet: Packet, from: SocketAddr, to: SocketAddr) -> Packet {
    use pagurus_tests::packet::Body;
    let mut packet = packet.from(&from.to_string()).to(&to.to_string());
    if let (Body::Udp(udp), true) = (&mut packet.body, to.is_ipv6()) {
        udp.checksum = true;
    }
    packet
}

/// As it comes to the loopback device.
fn received(packet: Packet) -> Packet {
    packet.macs(SENDER, [0; 6])
}

/// With something in its IP header that need not be there, now and then.
fn shaped(random: &mut Random, packet: Packet) -> Packet {
    let packet = received(packet).tos(random.one(&[0, 0, 0x10, 0xb8]));
    match (random.below(12), packet.is_v4()) {
        (0, true) => packet.options(&[1, 1, 1, 1]),
        (0, false) => packet.extension(60, &[1, 4, 0, 0, 0, 0]),
        (1, true) => packet.dont_fragment().id(random.below(1 << 16) as u32),
        _ => packet,
    }
}

/// An error about a packet that goes to a server, as this program sees it; and whether the server itself sends it, not a router
/// before it.
pub(super) fn error(random: &mut Random, about: &Packet, program: &str) -> Option<(Packet, bool)> {
    // What is behind extension headers is not looked for in errors.
    if !about.extensions.is_empty() {
        return None;
    }
    let is_servers = program != programs::FROM_OUTSIDE;
    let (error, router) = match (is_servers, random.once_in(2)) {
        (true, _) => (port_unreachable(about), about.destination),
        (false, first) => {
            let router = if about.is_v4() { "198.51.100.77" } else { "2001:db8:77::1" };
            let error = if first { too_big(1400, about) } else { time_exceeded(about) };
            (error, router.parse().unwrap_or(about.destination))
        }
    };
    let mut error = received(error);
    (error.source, error.destination) = (router, about.source);
    Some((error, is_servers))
}
