//! Routes to the pods of other nodes: each node's ranges through a next hop, and nothing else of ours.
//!
//! Must not know: Node objects; it is handed ranges and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{Error, Netlink, ROUTE_PROTOCOL, Route};

/// The way to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The next hop.
    pub gateway: IpAddr,
    /// The device, if it is an overlay; otherwise the kernel finds it by the next hop.
    pub overlay: Option<u32>,
}

impl From<IpAddr> for Hop {
    fn from(gateway: IpAddr) -> Self {
        Self { gateway, overlay: None }
    }
}

/// What to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Routes to make or to replace.
    pub set: Vec<Route>,
    /// Routes to remove.
    pub delete: Vec<Route>,
}

/// The changes that make our routes to other nodes these. Routes of others, and ours to pods of this node (which have no
/// gateway), are left alone. `device` is the overlay's, if it is there: a route through it is no direct one.
pub fn plan(wanted: &BTreeMap<IpNet, Hop>, present: &[Route], device: Option<u32>) -> Plan {
    let ours = present.iter().filter(|route| route.protocol == ROUTE_PROTOCOL && route.gateway.is_some());
    let mut plan = Plan::default();
    let mut right = Vec::new();
    for route in ours {
        let overlay = route.device.filter(|index| Some(*index) == device);
        match wanted.get(&route.destination) {
            Some(hop) if route.gateway == Some(hop.gateway) && overlay == hop.overlay => {
                right.push(route.destination);
            }
            // One to the same destination is replaced in one step.
            Some(_) => {}
            None => plan.delete.push(route.clone()),
        }
    }
    let missing = wanted.iter().filter(|(destination, _)| !right.contains(destination));
    plan.set = missing
        .map(|(destination, hop)| Route {
            destination: *destination,
            gateway: Some(hop.gateway),
            device: hop.overlay,
            source: None,
            protocol: ROUTE_PROTOCOL,
            onlink: hop.overlay.is_some(),
        })
        .collect();
    plan
}

/// Whether an address is on a link of this machine: the most specific route to it has no next hop. Ours to pods say
/// nothing of nodes, and a default route says nothing at all.
pub fn is_on_link(ip: &IpAddr, present: &[Route]) -> bool {
    let others = present.iter().filter(|route| route.protocol != ROUTE_PROTOCOL);
    let best = others
        .filter(|route| route.destination.contains(ip))
        .max_by_key(|route| route.destination.prefix_len());
    best.is_some_and(|route| route.gateway.is_none() && route.destination.prefix_len() > 0)
}

/// Carries out a plan as far as possible; what failed is returned.
pub fn apply(plan: &Plan, netlink: &mut dyn Netlink) -> Vec<Error> {
    let deleted: Vec<_> = plan.delete.iter().map(|route| netlink.delete_route(route)).collect();
    let set = plan.set.iter().map(|route| netlink.replace_route(route));
    deleted.into_iter().chain(set).filter_map(Result::err).collect()
}

/// Largest packet on the way to other nodes: that of the device of the default route, or the smallest of the devices
/// that have one of these addresses; 1500 if there is neither.
pub fn mtu(netlink: &mut dyn Netlink, node_ips: &[IpAddr]) -> Result<u32, Error> {
    let links = netlink.links()?;
    let mut mtu = None;
    for link in links.iter().filter(|link| link.name != "lo") {
        let addresses = netlink.addresses(link.index)?;
        if addresses.iter().any(|address| node_ips.contains(&address.addr())) {
            mtu = Some(mtu.map_or(link.mtu, |other: u32| other.min(link.mtu)));
        }
    }
    if mtu.is_none() {
        let default = netlink.routes()?.into_iter().find(|route| route.destination.prefix_len() == 0);
        let device = default.and_then(|route| route.device);
        mtu = links.iter().find(|link| Some(link.index) == device).map(|link| link.mtu);
    }
    Ok(mtu.unwrap_or(1500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: Option<&str>, device: Option<u32>, protocol: u8) -> Route {
        Route {
            destination: destination.parse().expect("a range"),
            gateway: gateway.map(|ip| ip.parse().expect("an address")),
            device,
            source: None,
            protocol,
            onlink: false,
        }
    }

    const OVERLAY: u32 = 9;

    fn check(wanted: &[(&str, &str, Option<u32>)], present: &[Route], set: &[&str], delete: &[&str]) {
        let wanted = wanted
            .iter()
            .map(|(range, gateway, overlay)| {
                let gateway = gateway.parse().expect("an address");
                (range.parse().expect("a range"), Hop { gateway, overlay: *overlay })
            })
            .collect();
        let plan = plan(&wanted, present, Some(OVERLAY));
        let text = |routes: &[Route]| -> Vec<String> {
            routes.iter().map(|route| route.destination.to_string()).collect()
        };
        assert_eq!(text(&plan.set), set);
        assert_eq!(text(&plan.delete), delete);
    }

    #[test]
    fn only_differences_are_planned() {
        let ours = ROUTE_PROTOCOL;
        let direct = |range, via| route(range, Some(via), Some(2), ours);
        let overlaid = |range, via| route(range, Some(via), Some(OVERLAY), ours);
        check(&[], &[], &[], &[]);
        check(&[("10.244.1.0/24", "192.168.0.2", None)], &[], &["10.244.1.0/24"], &[]);
        check(
            &[("10.244.1.0/24", "192.168.0.2", None), ("fd00:1::/64", "fd00::2", None)],
            &[
                direct("10.244.1.0/24", "192.168.0.2"),
                direct("fd00:1::/64", "fd00::3"),
                direct("10.244.9.0/24", "192.168.0.9"),
            ],
            &["fd00:1::/64"],
            &["10.244.9.0/24"],
        );
        // From one way to the other.
        check(
            &[("10.244.1.0/24", "10.244.1.0", Some(OVERLAY)), ("10.244.2.0/24", "192.168.0.3", None)],
            &[direct("10.244.1.0/24", "192.168.0.2"), overlaid("10.244.2.0/24", "10.244.2.0")],
            &["10.244.1.0/24", "10.244.2.0/24"],
            &[],
        );
        check(
            &[("10.244.1.0/24", "10.244.1.0", Some(OVERLAY))],
            &[overlaid("10.244.1.0/24", "10.244.1.0")],
            &[],
            &[],
        );
        // A pod of this node, and a route of somebody else.
        check(
            &[],
            &[
                route("10.244.0.5/32", None, Some(5), ours),
                route("10.9.0.0/16", Some("192.168.0.2"), Some(2), 4),
            ],
            &[],
            &[],
        );
    }

    #[test]
    fn addresses_on_a_link() {
        let kernel = 2;
        let present = [
            route("0.0.0.0/0", Some("192.168.0.254"), Some(2), 3),
            route("192.168.0.0/24", None, Some(2), kernel),
            route("192.168.0.128/25", Some("192.168.0.5"), Some(2), 4),
            route("10.244.0.7/32", None, Some(5), ROUTE_PROTOCOL),
            route("fd77::/64", None, Some(2), kernel),
        ];
        let check = |ip: &str, expected: bool| {
            assert_eq!(is_on_link(&ip.parse().expect("an address"), &present), expected, "{ip}");
        };
        check("192.168.0.2", true);
        check("192.168.0.200", false);
        check("192.168.1.2", false);
        check("10.244.0.7", false);
        check("fd77::2", true);
        check("fd78::2", false);
        let everything = [route("0.0.0.0/0", None, Some(2), 3)];
        assert!(!is_on_link(&"192.168.0.2".parse().expect("an address"), &everything));
    }
}
