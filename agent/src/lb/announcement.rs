//! The addresses this node announces: which they are, at which devices, and saying so when one is taken over.
//!
//! The programs answer who asks for an address; here it is only said unasked, and groups are joined so that questions arrive.
//! Must not know: how Services get addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use pagurus_agent_core::lb::announcer;
use pagurus_agent_datapath::handles::Announced;
use pagurus_cni::netlink::{Netlink as _, Socket};

use super::frames::{self, Frames};
use super::{Known, LOOK, services};
use crate::config::NodeContext;
use crate::index::node::Nodes;

/// An address taken over is said so often, at this distance: a frame may get lost.
const REPEATS: u8 = 3;
const DISTANCE: Duration = Duration::from_secs(1);

type Place = (IpAddr, u32);

/// Keeps the addresses this node announces.
pub(super) struct Announcer {
    map: Announced,
    frames: Frames,
    /// Holds the memberships in groups.
    groups: UdpSocket,
    joined: BTreeSet<(Ipv6Addr, u32)>,
    current: Option<BTreeMap<Place, [u8; 6]>>,
    /// How often an address is to be said yet.
    unsaid: BTreeMap<Place, u8>,
}

/// A device at which addresses can be announced.
struct Uplink {
    index: u32,
    mac: [u8; 6],
    networks: Vec<IpNet>,
}

impl Announcer {
    pub(super) fn new(map: Announced) -> anyhow::Result<Self> {
        Ok(Self {
            map,
            frames: Frames::open().context("open a packet socket for announcements")?,
            groups: UdpSocket::bind("[::]:0").context("open a socket for multicast groups")?,
            joined: BTreeSet::new(),
            current: None,
            unsaid: BTreeMap::new(),
        })
    }

    /// One comparison; when to come back at the latest.
    pub(super) fn pass(&mut self, context: &NodeContext, known: &Known, nodes: &Nodes) -> Duration {
        if let Err(error) = self.try_pass(context, known, nodes) {
            tracing::error!(
                error = format!("{error:#}"),
                "announce addresses of load balancers; trying again"
            );
        }
        if self.unsaid.is_empty() { LOOK } else { DISTANCE }
    }

    fn try_pass(&mut self, context: &NodeContext, known: &Known, nodes: &Nodes) -> anyhow::Result<()> {
        let ips = addresses(known, nodes, &context.node_name);
        let Some(ips) = ips else { return Ok(()) };
        let wanted =
            if ips.is_empty() { BTreeMap::new() } else { places(&ips, &uplinks(&context.node_ips)?) };
        self.map.replace(&wanted).context("write the announced addresses")?;
        self.join(&wanted);
        let before = self.current.replace(wanted.clone());
        for (place, mac) in &wanted {
            if before.as_ref().is_none_or(|before| before.get(place) != Some(mac)) {
                tracing::info!(address = %place.0, ifindex = place.1, "announced from this node");
                self.unsaid.insert(*place, REPEATS);
            }
        }
        self.unsaid.retain(|place, _| wanted.contains_key(place));
        for (place, left) in &mut self.unsaid {
            if let Some(mac) = wanted.get(place)
                && let Err(error) = self.frames.claim(place.1, *mac, place.0)
            {
                tracing::warn!(address = %place.0, ifindex = place.1, %error, "claim an address");
            }
            *left -= 1;
        }
        self.unsaid.retain(|_, left| *left > 0);
        Ok(())
    }

    /// Joins the groups at which is asked for these addresses, and leaves the others.
    fn join(&mut self, wanted: &BTreeMap<Place, [u8; 6]>) {
        let groups: BTreeSet<(Ipv6Addr, u32)> = wanted
            .keys()
            .filter_map(|(ip, index)| match ip {
                IpAddr::V6(ip) => Some((frames::solicited_group(*ip), *index)),
                IpAddr::V4(_) => None,
            })
            .collect();
        for (group, index) in groups.difference(&self.joined.clone()) {
            match self.groups.join_multicast_v6(group, *index) {
                Ok(()) => drop(self.joined.insert((*group, *index))),
                Err(error) => tracing::warn!(%group, ifindex = index, %error, "join the multicast group"),
            }
        }
        for (group, index) in self.joined.clone().difference(&groups) {
            // Of a device that has gone we are no member any more.
            let _ = self.groups.leave_multicast_v6(group, *index);
            self.joined.remove(&(*group, *index));
        }
    }
}

/// The addresses that fall to this node; none while that cannot be told.
fn addresses(known: &Known, nodes: &Nodes, own: &str) -> Option<BTreeSet<IpAddr>> {
    let mut mine = BTreeSet::new();
    for (name, service) in &known.services {
        let ips = services::addresses(service);
        let ips: Vec<IpAddr> =
            ips.into_iter().filter(|ip| known.pools.iter().any(|pool| pool.contains(*ip))).collect();
        if ips.is_empty() {
            continue;
        }
        let is_local = services::is_local(service);
        if is_local && !known.slices_complete {
            return None;
        }
        let slices = || known.slices.values().filter(|slice| slice.service == *name);
        let candidates: Vec<&str> = nodes
            .iter()
            .filter(|(node, net)| {
                net.ready && (!is_local || slices().any(|slice| slice.nodes.contains(*node)))
            })
            .map(|(node, _)| node.as_str())
            .collect();
        mine.extend(ips.into_iter().filter(|ip| announcer(*ip, candidates.iter().copied()) == Some(own)));
    }
    Some(mine)
}

/// Devices with addresses: those of this node first.
fn uplinks(node_ips: &[IpAddr]) -> anyhow::Result<Vec<Uplink>> {
    let mut netlink = Socket::open()?;
    let mut uplinks = Vec::new();
    for link in netlink.links()?.into_iter().filter(|link| link.up && !link.name.starts_with("pgr")) {
        let Some(mac) = link.mac.filter(|mac| mac.0 != [0; 6]) else { continue };
        let networks = netlink.addresses(link.index)?;
        if !networks.is_empty() {
            uplinks.push(Uplink { index: link.index, mac: mac.0, networks });
        }
    }
    let is_of_node = |uplink: &Uplink| uplink.networks.iter().any(|net| node_ips.contains(&net.addr()));
    uplinks.sort_by_key(|uplink| (!is_of_node(uplink), uplink.index));
    Ok(uplinks)
}

/// Where addresses are announced: at the devices on whose network they are, or else at the first, which has the node's address.
fn places(ips: &BTreeSet<IpAddr>, uplinks: &[Uplink]) -> BTreeMap<Place, [u8; 6]> {
    let mut places = BTreeMap::new();
    for ip in ips {
        let on_link: Vec<&Uplink> =
            uplinks.iter().filter(|uplink| uplink.networks.iter().any(|net| net.contains(ip))).collect();
        let chosen = if on_link.is_empty() { uplinks.iter().take(1).collect() } else { on_link };
        places.extend(chosen.into_iter().map(|uplink| ((*ip, uplink.index), uplink.mac)));
    }
    places
}

#[cfg(test)]
mod tests {

    use pagurus_agent_core::lb::{Pool, PoolSpec};
    use serde_json::json;

    use super::*;
    use crate::index::feed::Change;
    use crate::index::node::NodeNet;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn devices_of_addresses() {
        let uplink = |index: u32, networks: &[&str]| Uplink {
            index,
            mac: [2, 0, 0, 0, 0, index as u8],
            networks: networks.iter().map(|net| net.parse().expect("a network")).collect(),
        };
        let uplinks = [uplink(3, &["192.168.0.1/24", "fd77::1/64"]), uplink(5, &["10.9.0.1/16"])];
        let check = |address: &str, expected: u32| {
            let places = places(&BTreeSet::from([ip(address)]), &uplinks);
            assert_eq!(places.into_keys().collect::<Vec<_>>(), [(ip(address), expected)]);
        };
        check("192.168.0.9", 3);
        check("10.9.7.7", 5);
        check("fd77::9", 3);
        check("203.0.113.1", 3);
        assert!(places(&BTreeSet::from([ip("10.0.0.1")]), &[]).is_empty());
    }

    #[test]
    fn every_address_falls_to_one_node_that_can_serve_it() {
        let service = |name: &str, address: &str, policy: &str| {
            serde_json::from_value(json!({
                "metadata": { "namespace": "ns", "name": name },
                "spec": { "type": "LoadBalancer", "externalTrafficPolicy": policy },
                "status": { "loadBalancer": { "ingress": [{ "ip": address }] } }
            }))
            .expect("a Service")
        };
        let ranges = vec!["10.0.0.0-10.0.0.255".to_owned()];
        let pool = PoolSpec { name: "p".into(), ranges, ..PoolSpec::default() };
        let mut known = Known { pools: vec![Pool::new(&pool).expect("a pool")], ..Known::default() };
        for number in 0..20 {
            known.take_service(Change::Set(service(
                &format!("s{number}"),
                &format!("10.0.0.{number}"),
                "Cluster",
            )));
        }
        known.take_service(Change::Set(service("elsewhere", "172.16.0.1", "Cluster")));
        let node = |ready| NodeNet { ready, ..NodeNet::default() };
        let nodes: Nodes = [("a", true), ("b", true), ("c", false)]
            .map(|(name, ready)| (name.to_owned(), node(ready)))
            .into();
        let of = |known: &Known, name: &str| addresses(known, &nodes, name).expect("known");
        let (a, b) = (of(&known, "a"), of(&known, "b"));
        assert!(a.is_disjoint(&b) && a.len() + b.len() == 20 && !a.is_empty() && !b.is_empty());
        assert!(of(&known, "c").is_empty(), "it is not ready");
        known.services.clear();
        known.take_service(Change::Set(service("local", "10.0.0.77", "Local")));
        assert_eq!(addresses(&known, &nodes, "a"), None, "not known yet");
        known.slices_complete = true;
        assert!(of(&known, "a").is_empty() && of(&known, "b").is_empty());
        let slice = services::LocalNodes {
            service: ("ns".into(), "local".into()),
            nodes: BTreeSet::from(["b".to_owned(), "c".to_owned()]),
        };
        known.slices.insert(("ns".into(), "local-1".into()), slice);
        assert_eq!((of(&known, "a").len(), of(&known, "b").len()), (0, 1));
    }
}
