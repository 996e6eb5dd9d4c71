//! Addresses with a meaning: what a client connects to, what is behind it, which family.
//!
//! Must not know: how they lie in kernel maps (`pagurus-ebpf-abi`) or in API objects.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in API objects; absent means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// From the IP protocol number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: &IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceIp {
    /// At an address of its own.
    Own(IpAddr),
    /// At every address of every node, in this family (NodePort).
    Nodes(Family),
}

impl fmt::Display for ServiceIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(ip) => ip.fmt(f),
            Self::Nodes(Family::V4) => f.write_str("nodes(v4)"),
            Self::Nodes(Family::V6) => f.write_str("nodes(v6)"),
        }
    }
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Where.
    pub ip: ServiceIp,
    /// Service port or NodePort.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            ServiceIp::Own(ip) => write!(f, "{}/{}", SocketAddr::new(ip, self.port), self.protocol),
            nodes @ ServiceIp::Nodes(_) => write!(f, "{nodes}:{}/{}", self.port, self.protocol),
        }
    }
}

/// Where a connection really goes: an endpoint's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The endpoint's address.
    pub ip: IpAddr,
    /// The endpoint's port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.ip, self.port), self.protocol)
    }
}

/// Name of a backend in the kernel maps; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(Protocol::parse(Some(&protocol.to_string())), Some(protocol));
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        assert_eq!(Protocol::parse(None), Some(Protocol::Tcp));
        assert_eq!(Protocol::parse(Some("ICMP")), None);
    }

    #[test]
    fn display() {
        let own = Frontend {
            ip: ServiceIp::Own("fd00::1".parse().expect("an address")),
            port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(own.to_string(), "[fd00::1]:80/TCP");
        let nodes = Frontend { ip: ServiceIp::Nodes(Family::V4), port: 30_080, protocol: Protocol::Udp };
        assert_eq!(nodes.to_string(), "nodes(v4):30080/UDP");
    }
}
