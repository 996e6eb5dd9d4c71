//! Packets for tests, as values: made with the words people use, turned into bytes with every checksum right, and read back from bytes
//! with every checksum verified. The same type on both sides, so what comes out of a program is compared with what should.
//!
//! ```text
//! tcp().from("10.0.0.1:4000").to("10.96.0.1:80").syn().build()        Packet::parse(&bytes)? == tcp().from(..).to(..).syn()
//! ```
//!
//! Must not know: what the packets are for, how they get anywhere.

mod arp;
mod checksum;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use arp::Arp;
pub use checksum::{crc32c, internet};
pub use decode::joined;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IP protocol numbers.
pub mod protocol {
    #![allow(missing_docs, reason = "names say it")]
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// TCP's flags.
pub mod flag {
    #![allow(missing_docs, reason = "names say it")]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// Hardware address of senders that say none.
pub const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Hardware address of receivers that say none.
pub const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The Ethernet header but for its type, which follows from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// From.
    pub source: [u8; 6],
    /// To.
    pub destination: [u8; 6],
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes, a multiple of eight.
    pub offset: u16,
    /// There are further ones.
    pub more: bool,
}

/// An IPv6 extension header other than the fragment header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its number as "next header": 0 hop-by-hop, 43 routing, 60 destination options.
    pub kind: u8,
    /// What follows its first two bytes: 6, 14, 22 ... bytes.
    pub data: Vec<u8>,
}

/// An IP packet with what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// None inside of ICMP errors and for devices without.
    pub ethernet: Option<Ethernet>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address; of the same family.
    pub destination: IpAddr,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Type of service, traffic class.
    pub tos: u8,
    /// IPv6 only.
    pub flow_label: u32,
    /// Identification; with IPv6 only fragments have one.
    pub id: u32,
    /// IPv4 only.
    pub dont_fragment: bool,
    /// For fragments.
    pub fragment: Option<Fragment>,
    /// IPv4's options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6's extension headers.
    pub extensions: Vec<Extension>,
    /// For packets of which the end is cut off (inside ICMP errors): how long the body is by what the IP header says.
    pub said: Option<usize>,
    /// What it carries.
    pub body: Body,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An SCTP packet.
    Sctp(Sctp),
    /// ICMP and ICMPv6 but errors.
    Icmp(Icmp),
    /// An ICMP or ICMPv6 error.
    IcmpError(IcmpError),
    /// The beginning of something with ports: a first fragment, or what an ICMP error shows. Its checksum cannot be verified.
    Cut {
        /// IP protocol number.
        protocol: u8,
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// What follows the ports.
        rest: Vec<u8>,
    },
    /// Anything else: other protocols, later fragments.
    Other {
        /// IP protocol number.
        protocol: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header's own names")]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    pub window: u16,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header's own names")]
pub struct Udp {
    pub source_port: u16,
    pub destination_port: u16,
    /// False: the checksum is zero (allowed with IPv4).
    pub checksum: bool,
    pub payload: Vec<u8>,
}

/// An SCTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header's own names")]
pub struct Sctp {
    pub source_port: u16,
    pub destination_port: u16,
    pub tag: u32,
    /// False: the checksum is zero, as long as it is left to a device.
    pub checksum: bool,
    /// The chunks as they are on the wire.
    pub chunks: Vec<u8>,
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header's own names")]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// The second word of the header: identifier and sequence number of an echo.
    pub rest: [u8; 4],
    pub payload: Vec<u8>,
}

/// An ICMP or ICMPv6 error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header's own names")]
pub struct IcmpError {
    pub kind: u8,
    pub code: u8,
    /// The second word of the header: the MTU for "too big".
    pub rest: [u8; 4],
    /// The packet in question, or its beginning.
    pub inner: Box<Packet>,
}

/// A packet with this body and nothing special.
fn packet(body: Body) -> Packet {
    Packet {
        ethernet: Some(Ethernet { source: SENDER, destination: RECEIVER }),
        source: Ipv4Addr::UNSPECIFIED.into(),
        destination: Ipv4Addr::UNSPECIFIED.into(),
        ttl: 64,
        tos: 0,
        flow_label: 0,
        id: 0,
        dont_fragment: false,
        fragment: None,
        options: Vec::new(),
        extensions: Vec::new(),
        said: None,
        body,
    }
}

/// A TCP segment without flags.
pub fn tcp() -> Packet {
    packet(Body::Tcp(Tcp {
        source_port: 0,
        destination_port: 0,
        sequence: 0,
        acknowledgement: 0,
        flags: 0,
        window: 65_535,
        options: Vec::new(),
        payload: Vec::new(),
    }))
}

/// An empty UDP datagram.
pub fn udp() -> Packet {
    packet(Body::Udp(Udp { source_port: 0, destination_port: 0, checksum: true, payload: Vec::new() }))
}

/// An SCTP packet without chunks.
pub fn sctp() -> Packet {
    packet(Body::Sctp(Sctp {
        source_port: 0,
        destination_port: 0,
        tag: 0,
        checksum: true,
        chunks: Vec::new(),
    }))
}

/// Anything else.
pub fn other(protocol: u8, bytes: &[u8]) -> Packet {
    packet(Body::Other { protocol, bytes: bytes.to_vec() })
}

/// An echo request; which ICMP it is follows from the addresses.
pub fn echo_request(id: u16, sequence: u16) -> Packet {
    icmp(8, 0, echo_rest(id, sequence))
}

/// An echo reply.
pub fn echo_reply(id: u16, sequence: u16) -> Packet {
    icmp(0, 0, echo_rest(id, sequence))
}

fn echo_rest(id: u16, sequence: u16) -> [u8; 4] {
    let (id, sequence) = (id.to_be_bytes(), sequence.to_be_bytes());
    [id[0], id[1], sequence[0], sequence[1]]
}

/// Any ICMP message that is no error.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4]) -> Packet {
    packet(Body::Icmp(Icmp { kind, code, rest, payload: Vec::new() }))
}

/// An error about `inner`: all of it. [`Packet::showing`] for less.
pub fn icmp_error(kind: u8, code: u8, rest: [u8; 4], inner: &Packet) -> Packet {
    let inner = Box::new(Packet { ethernet: None, ..inner.clone() });
    packet(Body::IcmpError(IcmpError { kind, code, rest, inner }))
}

/// "Port unreachable" about a packet, in its family.
pub fn port_unreachable(inner: &Packet) -> Packet {
    if inner.is_v4() { icmp_error(3, 3, [0; 4], inner) } else { icmp_error(1, 4, [0; 4], inner) }
}

/// "Fragmentation needed" or "packet too big" about a packet, in its family.
pub fn too_big(mtu: u16, inner: &Packet) -> Packet {
    let [high, low] = mtu.to_be_bytes();
    let (kind, code) = if inner.is_v4() { (3, 4) } else { (2, 0) };
    icmp_error(kind, code, [0, 0, high, low], inner)
}

/// "Time exceeded" about a packet, in its family.
pub fn time_exceeded(inner: &Packet) -> Packet {
    icmp_error(if inner.is_v4() { 11 } else { 3 }, 0, [0; 4], inner)
}

/// A neighbour solicitation as the kernel sends it: to the target's solicited-node group, with the sender's hardware address.
pub fn neighbour_solicitation(target: Ipv6Addr) -> Packet {
    let [.., a, b, c] = target.octets();
    let mut made = icmp(135, 0, [0; 4]).ttl(255).payload(&neighbour(target, 1, SENDER));
    made.destination =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), (u16::from(b) << 8) | u16::from(c))
            .into();
    made.macs(SENDER, [0x33, 0x33, 0xff, a, b, c])
}

/// A neighbour advertisement, solicited and overriding.
pub fn neighbour_advertisement(target: Ipv6Addr, mac: [u8; 6]) -> Packet {
    icmp(136, 0, [0x60, 0, 0, 0]).ttl(255).payload(&neighbour(target, 2, mac))
}

/// A target with its link-layer address option.
fn neighbour(target: Ipv6Addr, option: u8, mac: [u8; 6]) -> Vec<u8> {
    [&target.octets()[..], &[option, 1], &mac].concat()
}

/// Reads "10.0.0.1:80", "[fd00::1]:80" or an address alone.
fn place(text: &str) -> (IpAddr, Option<u16>) {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.ip(), Some(address.port()));
    }
    match text.parse() {
        Ok(ip) => (ip, None),
        Err(_) => panic!("{text:?} is no address, with or without port"),
    }
}

impl Packet {
    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.destination.is_ipv4()
    }

    /// Source address and port: "10.0.0.1:80", "[fd00::1]:80", or without a port.
    ///
    /// # Panics
    /// That is no address.
    #[must_use]
    pub fn from(mut self, text: &str) -> Self {
        let (ip, port) = place(text);
        self.source = ip;
        self.ports_mut().into_iter().zip(port).for_each(|((source, _), port)| *source = port);
        self
    }

    /// Destination address and port, as [`from`](Self::from).
    ///
    /// # Panics
    /// That is no address.
    #[must_use]
    pub fn to(mut self, text: &str) -> Self {
        let (ip, port) = place(text);
        self.destination = ip;
        self.ports_mut().into_iter().zip(port).for_each(|((_, destination), port)| *destination = port);
        self
    }

    /// The ports; none where there are none.
    pub fn ports(&self) -> Option<(u16, u16)> {
        self.clone().ports_mut().map(|(source, destination)| (*source, *destination))
    }

    fn ports_mut(&mut self) -> Option<(&mut u16, &mut u16)> {
        match &mut self.body {
            Body::Tcp(tcp) => Some((&mut tcp.source_port, &mut tcp.destination_port)),
            Body::Udp(udp) => Some((&mut udp.source_port, &mut udp.destination_port)),
            Body::Sctp(sctp) => Some((&mut sctp.source_port, &mut sctp.destination_port)),
            Body::Cut { source_port, destination_port, .. } => Some((source_port, destination_port)),
            Body::Icmp(_) | Body::IcmpError(_) | Body::Other { .. } => None,
        }
    }

    /// The same packet from the other side: addresses, ports and hardware addresses exchanged, and nothing else.
    #[must_use]
    pub fn turned(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        if let Some((source, destination)) = self.ports_mut() {
            std::mem::swap(source, destination);
        }
        self.ethernet = self.ethernet.map(|e| Ethernet { source: e.destination, destination: e.source });
        self
    }

    /// Adds TCP flags.
    ///
    /// # Panics
    /// This is no TCP segment.
    #[must_use]
    pub fn flags(self, flags: u8) -> Self {
        self.with_tcp(|tcp| tcp.flags |= flags)
    }

    /// A SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(flag::SYN)
    }

    /// An ACK.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flags(flag::ACK)
    }

    /// A FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(flag::FIN)
    }

    /// A RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(flag::RST)
    }

    /// TCP's sequence and acknowledgement numbers.
    #[must_use]
    pub fn numbers(self, sequence: u32, acknowledgement: u32) -> Self {
        self.with_tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (sequence, acknowledgement))
    }

    /// TCP's window.
    #[must_use]
    pub fn window(self, window: u16) -> Self {
        self.with_tcp(|tcp| tcp.window = window)
    }

    /// Adds TCP's option "maximum segment size".
    #[must_use]
    pub fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.tcp_options(&[2, 4, high, low])
    }

    /// Adds TCP options: a multiple of four bytes.
    #[must_use]
    pub fn tcp_options(self, options: &[u8]) -> Self {
        self.with_tcp(|tcp| tcp.options.extend(options))
    }

    fn with_tcp(mut self, change: impl FnOnce(&mut Tcp)) -> Self {
        match &mut self.body {
            Body::Tcp(tcp) => change(tcp),
            other => panic!("no TCP segment: {other:?}"),
        }
        self
    }

    /// What TCP, UDP, ICMP and others carry; SCTP's chunks.
    ///
    /// # Panics
    /// An ICMP error carries a packet.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        let place = match &mut self.body {
            Body::Tcp(tcp) => &mut tcp.payload,
            Body::Udp(udp) => &mut udp.payload,
            Body::Sctp(sctp) => &mut sctp.chunks,
            Body::Icmp(icmp) => &mut icmp.payload,
            Body::Other { bytes, .. } | Body::Cut { rest: bytes, .. } => bytes,
            Body::IcmpError(_) => panic!("an ICMP error carries a packet"),
        };
        *place = bytes.to_vec();
        self
    }

    /// SCTP's verification tag.
    ///
    /// # Panics
    /// This is no SCTP packet.
    #[must_use]
    pub fn tag(mut self, tag: u32) -> Self {
        match &mut self.body {
            Body::Sctp(sctp) => sctp.tag = tag,
            other => panic!("no SCTP packet: {other:?}"),
        }
        self
    }

    /// UDP and SCTP without checksum (zero).
    ///
    /// # Panics
    /// Others always have one.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        match &mut self.body {
            Body::Udp(udp) => udp.checksum = false,
            Body::Sctp(sctp) => sctp.checksum = false,
            other => panic!("always has a checksum: {other:?}"),
        }
        self
    }

    /// Time to live, hop limit.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// Type of service, traffic class.
    #[must_use]
    pub fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    /// Identification.
    #[must_use]
    pub fn id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// IPv4's "don't fragment".
    #[must_use]
    pub fn dont_fragment(self) -> Self {
        Self { dont_fragment: true, ..self }
    }

    /// IPv4's options: a multiple of four bytes.
    #[must_use]
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// Adds an IPv6 extension header: 6, 14, 22 ... bytes of data.
    #[must_use]
    pub fn extension(mut self, kind: u8, data: &[u8]) -> Self {
        self.extensions.push(Extension { kind, data: data.to_vec() });
        self
    }

    /// Hardware addresses, from and to.
    #[must_use]
    pub fn macs(self, source: [u8; 6], destination: [u8; 6]) -> Self {
        Self { ethernet: Some(Ethernet { source, destination }), ..self }
    }

    /// Without Ethernet header.
    #[must_use]
    pub fn without_ethernet(self) -> Self {
        Self { ethernet: None, ..self }
    }

    /// An ICMP error that shows only this many bytes of the packet in question, counted behind its IP header.
    ///
    /// # Panics
    /// This is no ICMP error.
    #[must_use]
    pub fn showing(mut self, bytes: usize) -> Self {
        match &mut self.body {
            Body::IcmpError(error) => *error.inner = error.inner.cut(bytes),
            other => panic!("no ICMP error: {other:?}"),
        }
        self
    }
}
