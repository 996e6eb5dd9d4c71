//! Ports and endpoints as bytes in one piece: a cluster has hundreds of thousands of them, and DNS looks at few.
//!
//! Must not know: what they are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Endpoint, Port};
use crate::addr::Protocol;

const READY: u8 = 1;
const V6: u8 = 2;

/// A list of ports, then a list of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

/// A port in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedPort<'a> {
    pub(super) name: &'a [u8],
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// An endpoint in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedEndpoint<'a> {
    pub(super) ip: IpAddr,
    pub(super) ready: bool,
    /// Empty if it has none.
    pub(super) hostname: &'a [u8],
}

impl Packed {
    /// Packs. Names longer than DNS allows are as good as none.
    pub(super) fn new(ports: &[Port], endpoints: &[Endpoint]) -> Self {
        let mut bytes = Vec::with_capacity(1 + ports.len() * 8 + endpoints.len() * 6);
        // The API allows no more than 100 ports in a slice; of a Service, those beyond 255 have no names of their own.
        let named = || ports.iter().filter(|port| !port.name.is_empty()).take(255);
        bytes.push(u8::try_from(named().count()).unwrap_or(u8::MAX));
        for port in named() {
            bytes.push(port.protocol.number());
            bytes.extend(port.port.to_be_bytes());
            push_text(&mut bytes, &port.name);
        }
        for endpoint in endpoints {
            let ready = if endpoint.ready { READY } else { 0 };
            match endpoint.ip {
                IpAddr::V4(ip) => {
                    bytes.push(ready);
                    bytes.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(ready | V6);
                    bytes.extend(ip.octets());
                }
            }
            push_text(&mut bytes, endpoint.hostname.as_deref().unwrap_or_default());
        }
        Self(bytes.into_boxed_slice())
    }

    /// As they lie there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// From what lay somewhere; what makes no sense in it is as good as not there.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = PackedPort<'_>> {
        self.split().0.into_iter()
    }

    pub(super) fn endpoints(&self) -> Endpoints<'_> {
        Endpoints(self.split().1)
    }

    fn split(&self) -> (Vec<PackedPort<'_>>, &[u8]) {
        let Some((count, mut rest)) = self.0.split_first() else { return (Vec::new(), &[]) };
        let mut ports = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let Some((port, after)) = read_port(rest) else { break };
            ports.push(port);
            rest = after;
        }
        (ports, rest)
    }
}

/// The endpoints of a list.
pub(super) struct Endpoints<'a>(&'a [u8]);

impl<'a> Iterator for Endpoints<'a> {
    type Item = PackedEndpoint<'a>;

    fn next(&mut self) -> Option<PackedEndpoint<'a>> {
        let (flags, rest) = self.0.split_first()?;
        let (ip, rest): (IpAddr, _) = if flags & V6 == 0 {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*octets).into(), rest)
        } else {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*octets).into(), rest)
        };
        let (hostname, rest) = read_text(rest)?;
        self.0 = rest;
        Some(PackedEndpoint { ip, ready: flags & READY != 0, hostname })
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let text = if text.len() > 63 { "" } else { text };
    bytes.push(u8::try_from(text.len()).unwrap_or(0));
    bytes.extend(text.bytes());
}

fn read_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn read_port(bytes: &[u8]) -> Option<(PackedPort<'_>, &[u8])> {
    let ([protocol, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (name, rest) = read_text(rest)?;
    let port = PackedPort {
        name,
        protocol: Protocol::from_number(*protocol)?,
        port: u16::from_be_bytes([*high, *low]),
    };
    Some((port, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out() {
        let port = |name: &str, protocol, port| Port { name: name.into(), protocol, port };
        let endpoint = |ip: &str, ready, hostname: Option<&str>| Endpoint {
            ip: ip.parse().unwrap(),
            ready,
            hostname: hostname.map(str::to_owned),
        };
        let ports =
            [port("http", Protocol::Tcp, 8080), port("", Protocol::Udp, 53), port("s", Protocol::Sctp, 1)];
        let endpoints = [endpoint("10.0.0.1", true, None), endpoint("fd00::1", false, Some("db-0"))];
        let packed = Packed::new(&ports, &endpoints);
        let names: Vec<_> = packed.ports().map(|port| (port.name, port.protocol, port.port)).collect();
        assert_eq!(names, [(&b"http"[..], Protocol::Tcp, 8080), (b"s", Protocol::Sctp, 1)]);
        let seen: Vec<_> = packed.endpoints().map(|one| (one.ip, one.ready, one.hostname)).collect();
        assert_eq!(seen, [(endpoints[0].ip, true, &b""[..]), (endpoints[1].ip, false, b"db-0")]);
        assert_eq!(Packed::default().endpoints().count() + Packed::default().ports().count(), 0);
        assert_eq!(Packed::new(&[], &endpoints[..1]).0.len(), 7);
    }
}
