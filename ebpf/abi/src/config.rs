//! What the programs must know of their node: one value, replaced as the node changes, no program is loaded again for it.
//!
//! Must not know: where the figures come from.

use crate::Address;

/// How many networks pods reach with their own address.
pub const NETWORKS: usize = 16;

/// A network: `address & mask`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    /// The network's address.
    pub address: Address,
    /// The mask; IPv4 networks have it in v4-mapped form (the first 96 bits set).
    pub mask: Address,
}

/// The only place of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `NODE_*`.
    pub flags: u32,
    /// First port of the NodePort range (host byte order).
    pub node_port_first: u16,
    /// Last port of the NodePort range (host byte order).
    pub node_port_last: u16,
    /// First of the ports that connections with a replaced source get (host byte order); outside what the kernel gives to sockets.
    pub nat_port_first: u16,
    /// Last of these.
    pub nat_port_last: u16,
    /// Device of the overlay; 0 if there is none.
    pub overlay_ifindex: u32,
    /// The node's IPv4 address; [`Address::ANY_V4`] if it has none.
    pub node_v4: Address,
    /// The node's IPv6 address; [`Address::ANY_V6`] if it has none.
    pub node_v6: Address,
    /// Seconds after which an idle TCP connection is forgotten: not yet established, established, half closed, closed.
    pub tcp_seconds: [u32; 4],
    /// Seconds after which idle datagrams are forgotten: one-way, answered.
    pub udp_seconds: [u32; 2],
    /// How many of `networks` are filled.
    pub networks_len: u32,
    /// Largest packet to other nodes; 0: as the device says.
    pub mtu: u32,
    /// Always 0, which the verifier does not know: a number with this added is any number to it, so that it need not walk through a
    /// loop once for each path that leads to each number.
    pub zero: u32,
    /// For how many ticks XDP believes what it noted of a flow: at most [`WARM_BELIEVED`](crate::WARM_BELIEVED), and always less than
    /// any of the times after which a connection is forgotten.
    pub warm_ticks: u32,
    /// Always 0.
    pub reserved: [u32; 2],
    /// Networks that pods reach with their own address (the cluster's, and the exclusions).
    pub networks: [Network; NETWORKS],
}

/// [`NodeConfig::flags`]: pods' connections to places outside `networks` get the node's address.
pub const NODE_MASQUERADE: u32 = 1 << 0;
/// [`NodeConfig::flags`]: packets to pods of this node go straight into their namespace.
pub const NODE_DELIVER: u32 = 1 << 1;
/// [`NodeConfig::flags`]: packets to other nodes are sent by the programs and not by the kernel's forwarding.
pub const NODE_FORWARD: u32 = 1 << 2;
/// [`NodeConfig::flags`]: somebody reads `EVENTS`.
pub const NODE_EVENTS: u32 = 1 << 4;

const _: () = assert!(size_of::<Network>() == 32);
const _: () = assert!(size_of::<NodeConfig>() == 96 + 32 * NETWORKS);
