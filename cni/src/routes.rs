//! Routes to the pods of other nodes: each node's ranges through that node's address, and nothing else of ours.
//!
//! Must not know: Node objects; it is handed ranges and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{Error, Netlink, ROUTE_PROTOCOL, Route};

/// What to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Routes to make or to replace.
    pub set: Vec<Route>,
    /// Routes to remove.
    pub delete: Vec<Route>,
}

/// The changes that make our routes to other nodes these: range to next hop. Routes of others, and ours to pods of this
/// node (which have no gateway), are left alone.
pub fn plan(wanted: &BTreeMap<IpNet, IpAddr>, present: &[Route]) -> Plan {
    let ours = present.iter().filter(|route| route.protocol == ROUTE_PROTOCOL && route.gateway.is_some());
    let mut plan = Plan::default();
    let mut right = Vec::new();
    for route in ours {
        match wanted.get(&route.destination) {
            Some(gateway) if route.gateway == Some(*gateway) => right.push(route.destination),
            // One to the same destination is replaced in one step.
            Some(_) => {}
            None => plan.delete.push(route.clone()),
        }
    }
    let missing = wanted.iter().filter(|(destination, _)| !right.contains(destination));
    plan.set = missing
        .map(|(destination, gateway)| Route {
            destination: *destination,
            gateway: Some(*gateway),
            device: None,
            source: None,
            protocol: ROUTE_PROTOCOL,
        })
        .collect();
    plan
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

    fn route(destination: &str, gateway: Option<&str>, protocol: u8) -> Route {
        Route {
            destination: destination.parse().expect("a range"),
            gateway: gateway.map(|ip| ip.parse().expect("an address")),
            device: None,
            source: None,
            protocol,
        }
    }

    fn check(wanted: &[(&str, &str)], present: &[Route], set: &[&str], delete: &[&str]) {
        let wanted = wanted
            .iter()
            .map(|(range, via)| (range.parse().expect("a range"), via.parse().expect("an address")))
            .collect();
        let plan = plan(&wanted, present);
        let text = |routes: &[Route]| -> Vec<String> {
            routes.iter().map(|route| route.destination.to_string()).collect()
        };
        assert_eq!(text(&plan.set), set);
        assert_eq!(text(&plan.delete), delete);
    }

    #[test]
    fn only_differences_are_planned() {
        let ours = ROUTE_PROTOCOL;
        check(&[], &[], &[], &[]);
        check(&[("10.244.1.0/24", "192.168.0.2")], &[], &["10.244.1.0/24"], &[]);
        check(
            &[("10.244.1.0/24", "192.168.0.2"), ("fd00:1::/64", "fd00::2")],
            &[
                route("10.244.1.0/24", Some("192.168.0.2"), ours),
                route("fd00:1::/64", Some("fd00::3"), ours),
                route("10.244.9.0/24", Some("192.168.0.9"), ours),
            ],
            &["fd00:1::/64"],
            &["10.244.9.0/24"],
        );
        // A pod of this node, and a route of somebody else.
        check(
            &[],
            &[route("10.244.0.5/32", None, ours), route("10.9.0.0/16", Some("192.168.0.2"), 4)],
            &[],
            &[],
        );
    }
}
