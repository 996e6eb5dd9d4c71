//! Packets to bytes: lengths and checksums follow from the rest.
//!
//! Must not know: reading.

use super::checksum::{crc32c, internet, pseudo};
use super::{Body, Fragment, Packet, Sctp, decode, protocol};
use std::net::IpAddr;

impl Sctp {
    /// The bytes, without an IP header.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.chunks);
        if self.checksum {
            let checksum = crc32c(&bytes).to_le_bytes();
            bytes[8..12].copy_from_slice(&checksum);
        }
        bytes
    }
}

impl Packet {
    /// The bytes.
    ///
    /// # Panics
    /// Addresses of different families, options of an impossible length: a mistake in the test.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(ethernet) = &self.ethernet {
            bytes.extend(ethernet.destination);
            bytes.extend(ethernet.source);
            bytes.extend(if self.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        }
        let body = self.body();
        bytes.extend(self.header(self.said.unwrap_or(body.len())));
        bytes.extend(body);
        bytes
    }

    /// The IP header with everything before a body of this length.
    fn header(&self, body: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                assert!(
                    self.options.len().is_multiple_of(4) && self.options.len() <= 40,
                    "IPv4 options: {:?}",
                    self.options
                );
                assert!(self.extensions.is_empty(), "IPv4 has no extension headers");
                let length = 20 + self.options.len();
                let mut bytes = vec![0x40 | (length / 4) as u8, self.tos];
                bytes.extend(((length + body) as u16).to_be_bytes());
                bytes.extend((self.id as u16).to_be_bytes());
                let place = self.fragment.unwrap_or(Fragment { offset: 0, more: false });
                let bits = (place.offset / 8)
                    | (u16::from(place.more) << 13)
                    | (u16::from(self.dont_fragment) << 14);
                bytes.extend(bits.to_be_bytes());
                bytes.extend([self.ttl, self.protocol(), 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.options);
                let checksum = internet(&[&bytes]).to_be_bytes();
                bytes[10..12].copy_from_slice(&checksum);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                assert!(
                    self.options.is_empty() && !self.dont_fragment,
                    "IPv6 has no options and no such flag"
                );
                let extensions = self.extension_headers();
                let first = self.extensions.first().map(|e| e.kind).unwrap_or(self.behind_extensions());
                let word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label;
                let mut bytes = word.to_be_bytes().to_vec();
                bytes.extend(((extensions.len() + body) as u16).to_be_bytes());
                bytes.extend([first, self.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(extensions);
                bytes
            }
            (source, destination) => panic!("{source} and {destination} are of different families"),
        }
    }

    /// The header that follows the last of `extensions`.
    fn behind_extensions(&self) -> u8 {
        if self.fragment.is_some() { decode::FRAGMENT_HEADER } else { self.protocol() }
    }

    fn extension_headers(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, extension) in self.extensions.iter().enumerate() {
            assert!((extension.data.len() + 2).is_multiple_of(8), "extension header: {extension:?}");
            let next = self.extensions.get(at + 1).map(|e| e.kind).unwrap_or(self.behind_extensions());
            bytes.extend([next, ((extension.data.len() + 2) / 8 - 1) as u8]);
            bytes.extend(&extension.data);
        }
        if let Some(place) = self.fragment {
            bytes.extend([self.protocol(), 0]);
            bytes.extend((place.offset | u16::from(place.more)).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
        }
        bytes
    }

    /// IP protocol number of the body.
    pub fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp(_) => protocol::TCP,
            Body::Udp(_) => protocol::UDP,
            Body::Sctp(_) => protocol::SCTP,
            Body::Icmp(_) | Body::IcmpError(_) if self.is_v4() => protocol::ICMP,
            Body::Icmp(_) | Body::IcmpError(_) => protocol::ICMPV6,
            Body::Cut { protocol, .. } | Body::Other { protocol, .. } => *protocol,
        }
    }

    /// The bytes of the body, checksum included.
    fn body(&self) -> Vec<u8> {
        let ports = self
            .ports()
            .map(|(source, destination)| [source.to_be_bytes(), destination.to_be_bytes()].concat());
        let mut bytes = ports.unwrap_or_default();
        match &self.body {
            Body::Tcp(tcp) => {
                assert!(
                    tcp.options.len().is_multiple_of(4) && tcp.options.len() <= 40,
                    "TCP options: {:?}",
                    tcp.options
                );
                bytes.extend(tcp.sequence.to_be_bytes());
                bytes.extend(tcp.acknowledgement.to_be_bytes());
                bytes.extend([(((20 + tcp.options.len()) / 4) << 4) as u8, tcp.flags]);
                bytes.extend(tcp.window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(&tcp.options);
                bytes.extend(&tcp.payload);
                let checksum = self.with_pseudo(&bytes).to_be_bytes();
                bytes[16..18].copy_from_slice(&checksum);
            }
            Body::Udp(udp) => {
                bytes.extend(((8 + udp.payload.len()) as u16).to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(&udp.payload);
                if udp.checksum {
                    // Zero means that there is none.
                    let checksum = match self.with_pseudo(&bytes) {
                        0 => u16::MAX,
                        other => other,
                    };
                    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
                }
            }
            Body::Sctp(sctp) => bytes = sctp.build(),
            Body::Icmp(icmp) => {
                bytes = self.icmp(self.echo_kind(icmp.kind), icmp.code, icmp.rest, &icmp.payload);
            }
            Body::IcmpError(error) => {
                bytes = self.icmp(error.kind, error.code, error.rest, &error.inner.build());
            }
            Body::Cut { rest, .. } => bytes.extend(rest),
            Body::Other { bytes: all, .. } => bytes.extend(all),
        }
        bytes
    }

    /// ICMPv6 has other numbers for echoes; those of ICMP (0 and 8) mean nothing there.
    fn echo_kind(&self, kind: u8) -> u8 {
        match (self.is_v4(), kind) {
            (false, 8) => 128,
            (false, 0) => 129,
            (_, kind) => kind,
        }
    }

    fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest);
        bytes.extend(payload);
        let checksum = if self.is_v4() { internet(&[&bytes]) } else { self.with_pseudo(&bytes) };
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The checksum over the pseudo header and a body.
    pub(super) fn with_pseudo(&self, body: &[u8]) -> u16 {
        internet(&[&pseudo(self.source, self.destination, self.protocol(), body.len()), body])
    }

    /// This packet with only so many bytes of its body, as an ICMP error shows it.
    pub(super) fn cut(&self, bytes: usize) -> Self {
        let whole = self.body();
        if bytes >= whole.len() {
            return self.clone();
        }
        let said = Some(self.said.unwrap_or(whole.len()));
        Self { said, body: decode::beginning(self.protocol(), &whole[..bytes]), ..self.clone() }
    }

    /// The packet in fragments of at most `size` bytes of body each (a multiple of eight).
    ///
    /// # Panics
    /// `size` is none, or this is a fragment already.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        assert!(size > 0 && size.is_multiple_of(8), "fragments of {size} bytes");
        assert!(self.fragment.is_none(), "a fragment already");
        let whole = self.body();
        let parts = whole.chunks(size).enumerate().map(|(at, bytes)| {
            let offset = (at * size) as u16;
            let more = at * size + bytes.len() < whole.len();
            let body = if at == 0 {
                decode::beginning(self.protocol(), bytes)
            } else {
                Body::Other { protocol: self.protocol(), bytes: bytes.to_vec() }
            };
            Self { fragment: Some(Fragment { offset, more }), body, ..self.clone() }
        });
        parts.collect()
    }
}
