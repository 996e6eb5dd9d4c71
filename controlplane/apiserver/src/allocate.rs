//! What is unique in the cluster and handed out by the server: ClusterIPs and NodePorts.
//!
//! Everything is in memory, rebuilt from the stored Services at start; the stored object is the record. A reservation is taken
//! before the object is written and given back if it is not. It must not know how a Service asks for what.

mod cluster_ip;
mod node_port;

use std::net::IpAddr;
use std::sync::Arc;

pub use cluster_ip::{ClusterIps, IpError};
pub use node_port::{NodePorts, PortError, Protocol};

/// All allocators.
#[derive(Debug, Clone)]
pub struct Allocators {
    /// Addresses of Services.
    pub cluster_ips: Arc<ClusterIps>,
    /// Ports of Services on every node.
    pub node_ports: Arc<NodePorts>,
}

/// Something that was taken from an allocator.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Taken {
    Ip(IpAddr),
    Port(Protocol, u16),
}

/// What was taken for an object that is not stored yet, and what the object gives up when it is.
/// Dropped without [`Reservation::commit`], it gives back what it took.
#[derive(Debug, Default)]
pub struct Reservation {
    allocators: Option<(Arc<ClusterIps>, Arc<NodePorts>)>,
    taken: Vec<Taken>,
    given_up: Vec<Taken>,
}

impl Allocators {
    /// A reservation with nothing in it yet.
    pub fn reservation(&self) -> Reservation {
        Reservation {
            allocators: Some((self.cluster_ips.clone(), self.node_ports.clone())),
            taken: Vec::new(),
            given_up: Vec::new(),
        }
    }
}

impl Reservation {
    /// Takes that very address.
    pub fn take_ip(&mut self, ip: IpAddr) -> Result<(), IpError> {
        if let Some((ips, _)) = &self.allocators {
            ips.take(ip)?;
            self.taken.push(Taken::Ip(ip));
        }
        Ok(())
    }

    /// Takes any free address of the family.
    pub fn any_ip(&mut self, v6: bool) -> Result<IpAddr, IpError> {
        let Some((ips, _)) = &self.allocators else { return Err(IpError::Family { v6 }) };
        let ip = ips.any(v6)?;
        self.taken.push(Taken::Ip(ip));
        Ok(ip)
    }

    /// Takes that very port.
    pub fn take_port(&mut self, protocol: Protocol, port: u16) -> Result<(), PortError> {
        if let Some((_, ports)) = &self.allocators {
            ports.take(protocol, port)?;
            self.taken.push(Taken::Port(protocol, port));
        }
        Ok(())
    }

    /// Takes a port that is free for each of the protocols.
    pub fn any_port(&mut self, protocols: &[Protocol]) -> Result<u16, PortError> {
        let Some((_, ports)) = &self.allocators else { return Err(PortError::Full) };
        let port = ports.any(protocols)?;
        self.taken.extend(protocols.iter().map(|p| Taken::Port(*p, port)));
        Ok(port)
    }

    /// The address is free again once the object is stored.
    pub fn give_up_ip(&mut self, ip: IpAddr) {
        self.given_up.push(Taken::Ip(ip));
    }

    /// The port is free again once the object is stored.
    pub fn give_up_port(&mut self, protocol: Protocol, port: u16) {
        self.given_up.push(Taken::Port(protocol, port));
    }

    /// The object is stored: what was taken stays taken, what was given up is free.
    pub fn commit(mut self) {
        self.taken.clear();
        let given_up = std::mem::take(&mut self.given_up);
        self.free(&given_up);
    }

    fn free(&self, what: &[Taken]) {
        let Some((ips, ports)) = &self.allocators else { return };
        for taken in what {
            match taken {
                Taken::Ip(ip) => ips.free(*ip),
                Taken::Port(protocol, port) => ports.free(*protocol, *port),
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.free(&taken);
    }
}
