//! What the programs must know of their node, worked out from its configuration, its addresses and its kernel.
//!
//! Must not know: where these come from, maps.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pagurus_ebpf_abi::{
    Address, NETWORKS, NODE_DELIVER, NODE_FORWARD, NODE_MASQUERADE, Network, NodeConfig, WARM_BELIEVED,
};

/// Ports below are those of services of the machine.
const FIRST_PORT: u16 = 1024;

/// What it is worked out from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node's addresses, the primary one of each family first.
    pub node_ips: Vec<IpAddr>,
    /// NodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// `net.ipv4.ip_local_port_range`: the ports the kernel gives to sockets.
    pub local_ports: RangeInclusive<u16>,
    /// Ranges of the cluster's pods.
    pub cluster_networks: Vec<IpNet>,
    /// Ranges of the pods of each node; count if `cluster_networks` names none of their family.
    pub pod_ranges: Vec<IpNet>,
    /// Other networks that pods reach with their own address.
    pub exclusions: Vec<IpNet>,
    /// Whether pods' connections out of the cluster get the node's address.
    pub masquerade: bool,
    /// Whether this agent connects the pods: then packets to them need not go through the kernel's forwarding.
    pub own_network: bool,
    /// The overlay's device, and the largest packet through it.
    pub overlay: Option<(u32, u32)>,
    /// Idle seconds of TCP connections: not yet established, established, half closed, closed.
    pub tcp_seconds: [u32; 4],
    /// Idle seconds of datagrams: one-way, answered.
    pub udp_seconds: [u32; 2],
}

/// The value of the map, and what is not as it should be.
pub fn node_config(facts: &Facts) -> (NodeConfig, Vec<String>) {
    let mut problems = Vec::new();
    let mut flags = 0;
    let mut set = |flag, on| flags |= if on { flag } else { 0 };
    set(NODE_MASQUERADE, facts.masquerade);
    set(NODE_DELIVER, facts.own_network);
    set(NODE_FORWARD, facts.own_network);
    let nat = nat_ports(&facts.node_ports, &facts.local_ports).unwrap_or_else(|| {
        problems.push(format!(
            "NodePorts {}-{} and net.ipv4.ip_local_port_range {}-{} leave no ports for connections whose source address is \
             replaced; make one of them smaller",
            facts.node_ports.start(),
            facts.node_ports.end(),
            facts.local_ports.start(),
            facts.local_ports.end()
        ));
        // What sockets use is looked at for each port, so this is slower and not wrong.
        FIRST_PORT..=u16::MAX
    });
    let wanted = networks(facts);
    let packed = pack(&wanted, NETWORKS);
    if packed.len() < wanted.len() && !covers_exactly(&packed, &wanted) {
        problems.push(format!(
            "pods' networks are too many to be told apart ({}): connections of pods to everything in {} keep the pods' \
             addresses; give --cluster-cidr",
            wanted.len(),
            packed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    let mut networks = [Network { address: Address::ANY_V6, mask: Address::ANY_V6 }; NETWORKS];
    for (place, network) in networks.iter_mut().zip(&packed) {
        *place = as_network(network);
    }
    let of = |v4: bool| facts.node_ips.iter().find(|ip| ip.is_ipv4() == v4);
    let config = NodeConfig {
        flags,
        node_port_first: *facts.node_ports.start(),
        node_port_last: *facts.node_ports.end(),
        nat_port_first: *nat.start(),
        nat_port_last: *nat.end(),
        overlay_ifindex: facts.overlay.map_or(0, |(ifindex, _)| ifindex),
        node_v4: of(true).map_or(Address::ANY_V4, address),
        node_v6: of(false).map_or(Address::ANY_V6, address),
        tcp_seconds: facts.tcp_seconds,
        udp_seconds: facts.udp_seconds,
        networks_len: u32::try_from(packed.len()).unwrap_or(0),
        mtu: facts.overlay.map_or(0, |(_, mtu)| mtu),
        zero: 0,
        warm_ticks: warm_ticks(facts),
        reserved: [0; 2],
        networks,
    };
    (config, problems)
}

/// For how many ticks, of which there are four in a second, XDP believes what it noted of an established flow: for a quarter of any time
/// after which it may be forgotten.
fn warm_ticks(facts: &Facts) -> u32 {
    let [_, established, ..] = facts.tcp_seconds;
    let [one_way, answered] = facts.udp_seconds;
    established.min(one_way).min(answered).min(WARM_BELIEVED)
}

/// The longest range of ports that neither NodePorts nor the kernel's own choice are in.
fn nat_ports(
    node_ports: &RangeInclusive<u16>,
    local_ports: &RangeInclusive<u16>,
) -> Option<RangeInclusive<u16>> {
    let mut taken = [node_ports, local_ports];
    taken.sort_by_key(|range| *range.start());
    let mut gaps = Vec::new();
    let mut from = u32::from(FIRST_PORT);
    for range in taken {
        gaps.push((from, u32::from(*range.start())));
        from = from.max(u32::from(*range.end()) + 1);
    }
    gaps.push((from, 1 << 16));
    let (first, end) = gaps.into_iter().max_by_key(|(first, end)| end.saturating_sub(*first))?;
    // A few dozen ports are as good as none.
    (end >= first + 256).then(|| Some(u16::try_from(first).ok()?..=u16::try_from(end - 1).ok()?))?
}

/// The networks pods reach with their own address.
fn networks(facts: &Facts) -> Vec<IpNet> {
    let mut wanted: BTreeSet<IpNet> =
        facts.cluster_networks.iter().chain(&facts.exclusions).map(IpNet::trunc).collect();
    let is_told = |range: &IpNet| {
        facts.cluster_networks.iter().any(|network| network.addr().is_ipv4() == range.addr().is_ipv4())
    };
    wanted.extend(facts.pod_ranges.iter().filter(|range| !is_told(range)).map(IpNet::trunc));
    IpNet::aggregate(&wanted.into_iter().collect())
}

/// At most so many networks that hold all these: neighbours become one, those that are closest first.
fn pack(wanted: &[IpNet], most: usize) -> Vec<IpNet> {
    let mut packed = wanted.to_vec();
    packed.sort();
    while packed.len() > most {
        let joint = |pair: &[IpNet]| join(&pair[0], &pair[1]);
        let best = packed
            .windows(2)
            .enumerate()
            .filter_map(|(place, pair)| Some((place, joint(pair)?)))
            // Least widened: the longest prefix, counted from the end of the address.
            .min_by_key(|(_, network)| network.max_prefix_len() - network.prefix_len());
        let Some((place, network)) = best else { break };
        packed.splice(place..place + 2, [network]);
    }
    packed
}

/// The smallest network that holds both; none if they are of different families.
fn join(a: &IpNet, b: &IpNet) -> Option<IpNet> {
    let mut length = a.prefix_len().min(b.prefix_len());
    loop {
        let network = IpNet::new(a.addr(), length).ok()?.trunc();
        if network.contains(b) && network.contains(a) {
            return Some(network);
        }
        length = length.checked_sub(1)?;
    }
}

/// Whether the packed networks hold nothing but the wanted ones.
fn covers_exactly(packed: &[IpNet], wanted: &[IpNet]) -> bool {
    packed.iter().all(|network| {
        let inside = wanted.iter().filter(|other| network.contains(*other));
        let share = |other: &IpNet| (-f64::from(other.prefix_len() - network.prefix_len())).exp2();
        inside.map(share).sum::<f64>() >= 1.0
    })
}

/// An address as it lies in maps.
fn address(ip: &IpAddr) -> Address {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    Address::from_octets(octets)
}

fn as_network(network: &IpNet) -> Network {
    let mask: IpAddr = match network {
        IpNet::V4(network) => Ipv4Net::netmask(network).into(),
        IpNet::V6(network) => Ipv6Net::netmask(network).into(),
    };
    let mask = match mask {
        // The first 96 bits of every IPv4 address are the same.
        IpAddr::V4(mask) => v4_mask(mask),
        IpAddr::V6(mask) => Address::from_octets(mask.octets()),
    };
    Network { address: address(&network.trunc().addr()), mask }
}

fn v4_mask(mask: Ipv4Addr) -> Address {
    let ones = u128::MAX << 32;
    Address::from_octets(Ipv6Addr::from(ones | u128::from(mask.to_bits())).octets())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            node_ips: vec!["192.168.0.1".parse().expect("an address")],
            node_ports: 30_000..=32_767,
            local_ports: 32_768..=60_999,
            cluster_networks: Vec::new(),
            pod_ranges: Vec::new(),
            exclusions: Vec::new(),
            masquerade: false,
            own_network: false,
            overlay: None,
            tcp_seconds: [1, 2, 3, 4],
            udp_seconds: [5, 6],
        }
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn figures_and_flags() {
        let (config, problems) = node_config(&facts());
        assert_eq!((config.flags, problems), (0, Vec::new()));
        assert_eq!((config.nat_port_first, config.nat_port_last), (1024, 29_999));
        assert_eq!(config.node_v4.octets()[12..], [192, 168, 0, 1]);
        assert_eq!((config.node_v6, config.networks_len, config.zero), (Address::ANY_V6, 0, 0));
        let all = Facts {
            node_ips: vec!["fd77::1".parse().expect("an address")],
            masquerade: true,
            own_network: true,
            overlay: Some((7, 1450)),
            ..facts()
        };
        let (config, _) = node_config(&all);
        assert_eq!(config.flags, NODE_MASQUERADE | NODE_DELIVER | NODE_FORWARD);
        assert_eq!((config.overlay_ifindex, config.mtu, config.node_v4), (7, 1450, Address::ANY_V4));
    }

    #[test]
    fn ports_for_replaced_sources() {
        let check = |node: RangeInclusive<u16>, local: RangeInclusive<u16>, expected: Option<(u16, u16)>| {
            let found = nat_ports(&node, &local).map(|range| (*range.start(), *range.end()));
            assert_eq!(found, expected, "{node:?} {local:?}");
        };
        check(30_000..=32_767, 32_768..=60_999, Some((1024, 29_999)));
        check(30_000..=32_767, 1024..=65_535, None);
        check(30_000..=32_767, 10_000..=29_999, Some((32_768, 65_535)));
        check(1024..=32_767, 32_768..=60_999, Some((61_000, 65_535)));
        check(1..=500, 400..=1023, Some((1024, 65_535)));
        // One inside the other.
        check(40_000..=41_000, 32_768..=60_999, Some((1024, 32_767)));
        let narrow = Facts { local_ports: 1024..=65_535, ..facts() };
        let (config, problems) = node_config(&narrow);
        assert_eq!((config.nat_port_first, problems.len()), (1024, 1));
    }

    #[test]
    fn networks_of_the_cluster() {
        let check = |cluster: &[&str], pods: &[&str], exclusions: &[&str], expected: &[&str]| {
            let facts = Facts {
                cluster_networks: nets(cluster),
                pod_ranges: nets(pods),
                exclusions: nets(exclusions),
                ..facts()
            };
            let found: Vec<String> = networks(&facts).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        };
        check(&["10.244.0.0/16"], &["10.244.1.0/24"], &[], &["10.244.0.0/16"]);
        check(&[], &["10.244.0.0/24", "10.244.1.0/24"], &["10.0.0.0/8"], &["10.0.0.0/8"]);
        check(&[], &["10.244.0.0/24", "10.244.1.0/24"], &[], &["10.244.0.0/23"]);
        check(&["10.244.0.0/16"], &["fd00:1::/64"], &[], &["10.244.0.0/16", "fd00:1::/64"]);
    }

    #[test]
    fn too_many_networks_become_fewer() {
        let ranges: Vec<String> = (0..40).map(|n| format!("10.244.{}.0/24", n * 2)).collect();
        let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
        let mut both = nets(&ranges);
        both.push("fd00::/64".parse().expect("a network"));
        let packed = pack(&both, 16);
        assert_eq!(packed.len(), 16);
        assert!(both.iter().all(|range| packed.iter().any(|network| network.contains(range))));
        assert!(packed.iter().all(|network| network.prefix_len() >= 20), "{packed:?}");
        let (config, problems) = node_config(&Facts { pod_ranges: both, ..facts() });
        assert_eq!((config.networks_len, problems.len()), (16, 1));
        assert!(covers_exactly(&nets(&["10.0.0.0/23"]), &nets(&["10.0.0.0/24", "10.0.1.0/24"])));
    }

    #[test]
    fn masks() {
        let network = as_network(&"10.244.0.0/16".parse().expect("a network"));
        assert_eq!(network.mask.octets()[10..], [0xff, 0xff, 0xff, 0xff, 0, 0]);
        assert_eq!(network.address.octets()[10..], [0xff, 0xff, 10, 244, 0, 0]);
        let network = as_network(&"fd00:1::/32".parse().expect("a network"));
        assert_eq!(network.mask.octets()[..5], [0xff, 0xff, 0xff, 0xff, 0]);
    }
}
