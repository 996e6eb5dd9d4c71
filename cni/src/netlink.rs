//! The seam to the kernel's network configuration: what wiring a pod and routing between nodes need, and nothing more.
//!
//! An implementation works in the network namespace it was opened in. Must not know: pods, CNI.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;

mod addr;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod link;
mod neighbour;
mod route;
mod socket;

pub use socket::Socket;

/// The `proto` of every route we make (`ip route show proto 118`): how ours are told from others'.
pub const ROUTE_PROTOCOL: u8 = 118;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}")]
pub struct Error {
    operation: &'static str,
    object: String,
    #[source]
    source: io::Error,
}

impl Error {
    pub(crate) fn new(operation: &'static str, object: impl fmt::Display, source: io::Error) -> Self {
        Self { operation, object: object.to_string(), source }
    }

    /// What the kernel said.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Whether it is switched on.
    pub up: bool,
    /// Largest packet.
    pub mtu: u32,
    /// If it is a VXLAN device that does not learn: its settings.
    pub tunnel: Option<Tunnel>,
}

/// Settings of a VXLAN device. It has no group and learns nothing: where frames go is told by forwarding entries alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The network's number (VNI).
    pub id: u32,
    /// UDP port, of this and all other ends.
    pub port: u16,
    /// Source address of packets; its family is that of all packets.
    pub local: IpAddr,
}

/// A VXLAN device to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Largest packet within.
    pub mtu: u32,
    /// Its settings.
    pub tunnel: Tunnel,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// Next hop; without one the destination is on the device's link.
    pub gateway: Option<IpAddr>,
    /// The device; without one the kernel finds it by the gateway.
    pub device: Option<u32>,
    /// Source address of packets this machine sends there.
    pub source: Option<IpAddr>,
    /// Who made it.
    pub protocol: u8,
    /// The next hop is on the device's link though no address says so.
    pub onlink: bool,
}

/// A veth pair to be made: one end here, one in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// Hardware address of the end here.
    pub mac: Mac,
    /// Name of the other end.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub peer_mac: Mac,
    /// Namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
    /// Largest packet, of both ends.
    pub mtu: u32,
}

/// The kernel's network configuration of one namespace.
pub trait Netlink {
    /// The device of this name.
    fn link(&mut self, name: &str) -> Result<Option<Link>, Error>;
    /// All devices.
    fn links(&mut self) -> Result<Vec<Link>, Error>;
    /// Makes a veth pair.
    fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error>;
    /// Makes a VXLAN device.
    fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), Error>;
    /// Removes a device, and the other end of a veth with it; that it has gone already is as good.
    fn delete_link(&mut self, name: &str) -> Result<(), Error>;
    /// Switches a device on.
    fn set_up(&mut self, index: u32) -> Result<(), Error>;
    /// Sets a device's largest packet.
    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error>;
    /// Gives a device an address, usable at once; that it has it already is as good.
    fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), Error>;
    /// Takes an address from a device; that it has gone already is as good.
    fn delete_address(&mut self, index: u32, address: IpNet) -> Result<(), Error>;
    /// Addresses of a device.
    fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error>;
    /// Makes a route, in place of one to the same destination.
    fn replace_route(&mut self, route: &Route) -> Result<(), Error>;
    /// Removes a route; that it has gone already is as good.
    fn delete_route(&mut self, route: &Route) -> Result<(), Error>;
    /// The routes of the main table, both families.
    fn routes(&mut self) -> Result<Vec<Route>, Error>;
    /// Fixes the hardware address of a neighbour.
    fn replace_neighbour(&mut self, index: u32, ip: IpAddr, mac: Mac) -> Result<(), Error>;
    /// Removes a neighbour; that it has gone already is as good.
    fn delete_neighbour(&mut self, index: u32, ip: IpAddr) -> Result<(), Error>;
    /// The fixed neighbours of a device, both families.
    fn neighbours(&mut self, index: u32) -> Result<Vec<(IpAddr, Mac)>, Error>;
    /// Fixes where a VXLAN device sends frames to a hardware address.
    fn replace_forwarding(&mut self, index: u32, mac: Mac, remote: IpAddr) -> Result<(), Error>;
    /// Removes a forwarding entry; that it has gone already is as good.
    fn delete_forwarding(&mut self, index: u32, mac: Mac, remote: IpAddr) -> Result<(), Error>;
    /// The forwarding entries of a VXLAN device.
    fn forwarding(&mut self, index: u32) -> Result<Vec<(Mac, IpAddr)>, Error>;
}
