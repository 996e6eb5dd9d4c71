//! The ways to the pods of other nodes: through the node's address where that is on a link of ours, else through a VXLAN
//! device.
//!
//! Every node can say what every other node's end of the overlay looks like: its hardware address follows from the node's
//! name, its addresses from the node's ranges. So nothing is asked, learnt or flooded: neighbours and forwarding entries
//! are all written here. [`plan`] is pure; [`reconcile`] observes, plans and applies. Must not know: Node objects, BPF.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::netlink::{self, Link, Mac, Netlink, Route, Tunnel, Vxlan};
use crate::routes::{self, Hop};
use crate::sysctl;

/// Name of the device.
pub const DEVICE: &str = "pgr_vxlan";
/// The network's number unless told otherwise.
pub const DEFAULT_ID: u32 = 118;
/// The port that IANA has given to VXLAN.
pub const DEFAULT_PORT: u16 = 4789;
/// Least MTU with which the kernel speaks IPv6 on a device.
const IPV6_MTU: u32 = 1280;

/// How packets get to pods of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Through the address of the other node, which must be on a link of this one.
    Direct,
    /// Through the overlay.
    Vxlan,
    /// Direct to nodes that are on a link of this one, through the overlay to others. Two nodes agree on it: each is on a
    /// link of the other, or neither is.
    #[default]
    Auto,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How.
    pub mode: Mode,
    /// The overlay's number (VNI).
    pub id: u32,
    /// The overlay's UDP port.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::default(), id: DEFAULT_ID, port: DEFAULT_PORT }
    }
}

/// A node, as far as ways to it go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The ranges of its pods, at most one of each family.
    pub ranges: Vec<IpNet>,
}

impl Node {
    fn ip_in_family_of(&self, other: &IpAddr) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv4() == other.is_ipv4())
    }

    /// Hardware address of its end of the overlay.
    pub fn mac(&self) -> Mac {
        // FNV-1a, 64 bits.
        let hash = self.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [a, b, c, d, e, ..] = (hash ^ (hash >> 40)).to_le_bytes();
        // Locally administered.
        Mac([0x02, a, b, c, d, e])
    }

    /// The next hop in the overlay to one of its ranges: the range's own address, which no pod gets; for IPv6 the
    /// link-local address that the kernel makes of the hardware address.
    fn hop(&self, range: &IpNet) -> IpAddr {
        match range {
            IpNet::V4(range) => range.network().into(),
            IpNet::V6(_) => {
                let Mac([a, b, c, d, e, f]) = self.mac();
                let id = [a ^ 0x02, b, c, 0xff, 0xfe, d, e, f];
                Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(u64::from_be_bytes(id))).into()
            }
        }
    }

    /// The addresses of its end of the overlay: the source of what the node itself sends to pods through it, so that answers
    /// come back the same way.
    fn overlay_addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ranges.iter().map(|range| IpNet::from(range.network()))
    }
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The overlay's device.
    pub device: Option<Link>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its forwarding entries.
    pub forwarding: Vec<(Mac, IpAddr)>,
    /// Its fixed neighbours.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// All routes.
    pub routes: Vec<Route>,
    /// Largest packet on the way to other nodes.
    pub uplink_mtu: u32,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove the overlay's device and all that hangs on it.
    DeleteDevice,
    /// Make it; the rest of the plan can only be made when it is there.
    CreateDevice(Mac, Tunnel, u32, Vec<IpNet>),
    /// Set its MTU.
    SetMtu(u32, u32),
    /// Send frames to a hardware address to a node.
    Forward(u32, Mac, IpAddr),
    /// Not any more.
    Unforward(u32, Mac, IpAddr),
    /// Fix a neighbour.
    SetNeighbour(u32, IpAddr, Mac),
    /// Remove a neighbour.
    DeleteNeighbour(u32, IpAddr),
    /// Make or replace a route.
    SetRoute(Route),
    /// Remove a route.
    DeleteRoute(Route),
}

/// The changes to be made, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Ranges that cannot be reached, and why.
    pub problems: Vec<String>,
    /// Largest packet of pods.
    pub mtu: u32,
}

/// Which ranges of others go which way.
struct Ways<'a> {
    direct: BTreeMap<IpNet, Hop>,
    overlaid: Vec<(&'a Node, IpNet)>,
}

fn ways<'a>(others: &'a [Node], mode: Mode, routes: &[Route]) -> Ways<'a> {
    let mut ways = Ways { direct: BTreeMap::new(), overlaid: Vec::new() };
    for node in others {
        for range in &node.ranges {
            let ip = node.ip_in_family_of(&range.addr());
            let direct = match mode {
                Mode::Direct => ip,
                Mode::Vxlan => None,
                Mode::Auto => ip.filter(|ip| routes::is_on_link(ip, routes)),
            };
            match direct {
                Some(ip) => drop(ways.direct.insert(*range, ip.into())),
                None if mode == Mode::Direct => {}
                None => ways.overlaid.push((node, *range)),
            }
        }
    }
    ways
}

/// The changes that make the ways to the pods of these nodes right.
pub fn plan(options: &Options, own: &Node, others: &[Node], observed: &Observed) -> Plan {
    let Ways { direct, overlaid } = ways(others, options.mode, &observed.routes);
    let present = observed.device.as_ref();
    let mut plan = Plan { mtu: observed.uplink_mtu, ..Plan::default() };
    // IPv4 where the node has it: all ends of an overlay speak one family.
    let local = own.ips.iter().find(|ip| ip.is_ipv4()).or(own.ips.first());
    let mut wanted = direct;
    let tunnel = match local {
        _ if overlaid.is_empty() => None,
        None => {
            plan.problems.push(format!("node {} has no address for the overlay network", own.name));
            None
        }
        Some(local) => Some(Tunnel { id: options.id, port: options.port, local: *local }),
    };
    let mut entries = Entries::default();
    if let Some(tunnel) = tunnel {
        plan.mtu = overlay_mtu(observed.uplink_mtu, &tunnel.local);
        if plan.mtu < IPV6_MTU && own.ranges.iter().any(|range| range.addr().is_ipv6()) {
            plan.problems.push(format!(
                "packets of {} bytes are the largest that fit into the overlay, too small for IPv6; raise the MTU of the \
                 nodes' network",
                plan.mtu
            ));
        }
        let addresses: BTreeSet<IpNet> = own.overlay_addresses().collect();
        let Some(link) = present.filter(|link| is_right(link, own, &tunnel, &addresses, observed)) else {
            if present.is_some() {
                plan.actions.push(Action::DeleteDevice);
            }
            let addresses = addresses.into_iter().collect();
            plan.actions.push(Action::CreateDevice(own.mac(), tunnel, plan.mtu, addresses));
            return plan;
        };
        if link.mtu != plan.mtu {
            plan.actions.push(Action::SetMtu(link.index, plan.mtu));
        }
        for (node, range) in overlaid {
            match entries.add(node, &range, own, &tunnel.local) {
                Ok(gateway) => {
                    wanted.insert(range, Hop { gateway, overlay: Some(link.index) });
                }
                Err(problem) => plan.problems.push(problem),
            }
        }
    }
    let index = present.map(|link| link.index);
    let routes = routes::plan(&wanted, &observed.routes, index);
    // What a route needs comes before it, and goes after it.
    if let Some(index) = index.filter(|_| tunnel.is_some()) {
        entries.set(index, observed, &mut plan.actions);
    }
    plan.actions.extend(routes.set.into_iter().map(Action::SetRoute));
    plan.actions.extend(routes.delete.into_iter().map(Action::DeleteRoute));
    match index {
        Some(index) if tunnel.is_some() => entries.remove_others(index, observed, &mut plan.actions),
        Some(_) => plan.actions.push(Action::DeleteDevice),
        None => {}
    }
    plan
}

/// What fits into the overlay: outer IP header, UDP and VXLAN headers, inner Ethernet header taken off.
fn overlay_mtu(uplink: u32, local: &IpAddr) -> u32 {
    uplink.saturating_sub(if local.is_ipv4() { 50 } else { 70 })
}

/// Whether the device can stay. What of it cannot be changed is made anew; its MTU can be.
fn is_right(
    link: &Link,
    own: &Node,
    tunnel: &Tunnel,
    addresses: &BTreeSet<IpNet>,
    observed: &Observed,
) -> bool {
    let link_local =
        |address: &&IpNet| matches!(address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let present: BTreeSet<IpNet> =
        observed.addresses.iter().filter(|address| !link_local(address)).copied().collect();
    link.up && link.tunnel == Some(*tunnel) && link.mac == Some(own.mac()) && present == *addresses
}

/// Neighbours and forwarding entries of the overlay's device.
#[derive(Default)]
struct Entries {
    forwarding: BTreeMap<Mac, (IpAddr, String)>,
    neighbours: BTreeMap<IpAddr, Mac>,
}

impl Entries {
    /// Adds what a range of a node needs; its next hop.
    fn add(&mut self, node: &Node, range: &IpNet, own: &Node, local: &IpAddr) -> Result<IpAddr, String> {
        let Some(remote) = node.ip_in_family_of(local) else {
            return Err(format!(
                "podCIDR {range} of node {} cannot be reached: the overlay needs an address of the family of {local}, and \
                 the node has none",
                node.name
            ));
        };
        let mac = node.mac();
        let taken = self.forwarding.get(&mac).filter(|(_, name)| *name != node.name);
        let clash = taken.map(|(_, name)| name.as_str()).or((mac == own.mac()).then_some(own.name.as_str()));
        if let Some(other) = clash {
            return Err(format!(
                "podCIDR {range} of node {} cannot be reached: its name gives the same hardware address {mac} as that of \
                 node {other}; rename one of them",
                node.name
            ));
        }
        self.forwarding.insert(mac, (remote, node.name.clone()));
        let hop = node.hop(range);
        self.neighbours.insert(hop, mac);
        Ok(hop)
    }

    fn set(&self, index: u32, observed: &Observed, actions: &mut Vec<Action>) {
        for (mac, (remote, _)) in &self.forwarding {
            if !observed.forwarding.contains(&(*mac, *remote)) {
                actions.push(Action::Forward(index, *mac, *remote));
            }
        }
        for (ip, mac) in &self.neighbours {
            if !observed.neighbours.contains(&(*ip, *mac)) {
                actions.push(Action::SetNeighbour(index, *ip, *mac));
            }
        }
    }

    fn remove_others(&self, index: u32, observed: &Observed, actions: &mut Vec<Action>) {
        for (ip, _) in observed.neighbours.iter().filter(|(ip, _)| !self.neighbours.contains_key(ip)) {
            actions.push(Action::DeleteNeighbour(index, *ip));
        }
        for (mac, remote) in observed.forwarding.iter().filter(|(mac, _)| !self.forwarding.contains_key(mac))
        {
            actions.push(Action::Unforward(index, *mac, *remote));
        }
    }
}

/// What is there now.
pub fn observe(netlink: &mut dyn Netlink, node_ips: &[IpAddr]) -> Result<Observed, netlink::Error> {
    let device = netlink.link(DEVICE)?;
    let mut observed = Observed {
        routes: netlink.routes()?,
        uplink_mtu: routes::mtu(netlink, node_ips)?,
        ..Observed::default()
    };
    if let Some(link) = &device {
        observed.addresses = netlink.addresses(link.index)?;
        observed.forwarding = netlink.forwarding(link.index)?;
        observed.neighbours = netlink.neighbours(link.index)?;
    }
    observed.device = device;
    Ok(observed)
}

/// What [`reconcile`] left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is not as it should be.
    pub problems: Vec<String>,
    /// What is there now.
    pub observed: Observed,
    /// Largest packet of pods.
    pub mtu: u32,
}

/// Makes the ways right as far as possible.
pub fn reconcile(
    netlink: &mut dyn Netlink,
    options: &Options,
    own: &Node,
    others: &[Node],
) -> Result<Outcome, netlink::Error> {
    let mut outcome = Outcome::default();
    // A device that was just made is planned on once more.
    for _ in 0..2 {
        outcome.observed = observe(netlink, &own.ips)?;
        let plan = plan(options, own, others, &outcome.observed);
        outcome.problems = plan.problems;
        outcome.mtu = plan.mtu;
        let creates = plan.actions.iter().any(|action| matches!(action, Action::CreateDevice(..)));
        for action in &plan.actions {
            if let Err(error) = apply(action, netlink) {
                outcome.problems.push(error);
            }
        }
        if !creates {
            break;
        }
    }
    outcome.observed.device = netlink.link(DEVICE)?;
    Ok(outcome)
}

fn apply(action: &Action, netlink: &mut dyn Netlink) -> Result<(), String> {
    let done = match action {
        Action::DeleteDevice => netlink.delete_link(DEVICE),
        Action::CreateDevice(mac, tunnel, mtu, addresses) => {
            return create(netlink, *mac, *tunnel, *mtu, addresses).map_err(|error| text(&*error));
        }
        Action::SetMtu(index, mtu) => netlink.set_mtu(*index, *mtu),
        Action::Forward(index, mac, remote) => netlink.replace_forwarding(*index, *mac, *remote),
        Action::Unforward(index, mac, remote) => netlink.delete_forwarding(*index, *mac, *remote),
        Action::SetNeighbour(index, ip, mac) => netlink.replace_neighbour(*index, *ip, *mac),
        Action::DeleteNeighbour(index, ip) => netlink.delete_neighbour(*index, *ip),
        Action::SetRoute(route) => netlink.replace_route(route),
        Action::DeleteRoute(route) => netlink.delete_route(route),
    };
    done.map_err(|error| text(&error))
}

fn create(
    netlink: &mut dyn Netlink,
    mac: Mac,
    tunnel: Tunnel,
    mtu: u32,
    addresses: &[IpNet],
) -> Result<(), Box<dyn std::error::Error>> {
    netlink.add_vxlan(&Vxlan { name: DEVICE, mac, mtu, tunnel })?;
    let link = netlink.link(DEVICE)?.ok_or("the VXLAN device that was just made has gone")?;
    sysctl::set(&format!("ipv6/conf/{DEVICE}/accept_ra"), "0")?;
    sysctl::set(&format!("ipv6/conf/{DEVICE}/accept_dad"), "0")?;
    // What another node sends from its own address comes in here and is answered by the uplink: a strict check of source
    // addresses would drop it.
    sysctl::set(&format!("ipv4/conf/{DEVICE}/rp_filter"), "2")?;
    for address in addresses {
        netlink.add_address(link.index, *address)?;
    }
    netlink.set_up(link.index)?;
    Ok(())
}

fn text(error: &(impl std::error::Error + ?Sized)) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
