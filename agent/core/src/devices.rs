//! Which devices get packet programs, and which ones: by what the kernel says of each device, or by what was asked for.
//!
//! Must not know: netlink, how a program is attached.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// A network device as the kernel tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it (`veth`, `bridge`, `vxlan`); empty for hardware.
    pub kind: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether its packets have Ethernet headers.
    pub ethernet: bool,
    /// The device it is a port of; 0 if it is none.
    pub master: u32,
    /// Largest packet.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a device leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// The rest of the world: other nodes, clients outside.
    Uplink,
    /// One pod, or several (a bridge).
    Pod,
    /// Pods of other nodes, through a tunnel.
    Overlay,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uplink => "uplink",
            Self::Pod => "pod",
            Self::Overlay => "overlay",
        })
    }
}

/// A device that gets programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it leads to.
    pub kind: DeviceKind,
}

/// What decides, beside the devices themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Patterns of the names of uplinks; empty: they are found out.
    pub uplinks: Vec<String>,
    /// Patterns of the names of pods' devices; empty: they are found out.
    pub pods: Vec<String>,
    /// Addresses of this node.
    pub node_ips: Vec<IpAddr>,
    /// Devices that default routes lead through.
    pub default_routes: BTreeSet<u32>,
}

/// Kinds of devices whose ports count as one: packets are seen at the device itself.
const GATHERING: [&str; 5] = ["bridge", "bond", "team", "openvswitch", "hsr"];
/// Kinds of tunnels with Ethernet inside: other nodes' pods are behind them.
const TUNNELS: [&str; 3] = ["vxlan", "geneve", "gretap"];
/// Kinds of devices that lead nowhere, or into a namespace from which the node cannot be reached through them.
const DEAD_ENDS: [&str; 9] =
    ["dummy", "ifb", "macvlan", "macvtap", "ipvlan", "ipvtap", "nlmon", "netdevsim", "vrf"];

/// The devices that get programs, by number. Every other one is left alone.
pub fn classify(links: &[Link], rules: &Rules) -> Vec<Device> {
    let mut devices: Vec<Device> =
        links.iter().filter_map(|link| Some(device(link, kind(link, links, rules)?))).collect();
    devices.sort();
    devices
}

fn device(link: &Link, kind: DeviceKind) -> Device {
    Device { ifindex: link.index, name: link.name.clone(), kind }
}

/// What a device leads to; none if it gets no programs.
fn kind(link: &Link, links: &[Link], rules: &Rules) -> Option<DeviceKind> {
    if !link.up || !link.ethernet {
        return None;
    }
    let named = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &link.name));
    // What was asked for by name is not second-guessed.
    if named(&rules.uplinks) {
        return Some(DeviceKind::Uplink);
    }
    if named(&rules.pods) {
        return Some(DeviceKind::Pod);
    }
    if TUNNELS.contains(&link.kind.as_str()) {
        return Some(DeviceKind::Overlay);
    }
    let gathered =
        links.iter().any(|master| master.index == link.master && GATHERING.contains(&master.kind.as_str()));
    if gathered || DEAD_ENDS.contains(&link.kind.as_str()) {
        return None;
    }
    let is_hardware = link.kind.is_empty();
    let leads_outside = rules.default_routes.contains(&link.index)
        || link.addresses.iter().any(|address| rules.node_ips.contains(address))
        // A second network card that clients may come through.
        || (is_hardware && !link.addresses.is_empty());
    if leads_outside {
        return rules.uplinks.is_empty().then_some(DeviceKind::Uplink);
    }
    (rules.pods.is_empty() && !is_hardware).then_some(DeviceKind::Pod)
}

/// Whether a name matches a pattern, in which `*` stands for any letters and `?` for any one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when it does not fit: behind the last star, one letter later than before.
    let mut again = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, at)) = again else { return false };
                again = Some((star, at + 1));
                (p, n) = (star + 1, at + 1);
            }
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, master: u32, addresses: &[&str]) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.to_owned(),
            up: true,
            ethernet: true,
            master,
            mtu: 1500,
            addresses: addresses.iter().map(|ip| ip.parse().expect("an address")).collect(),
        }
    }

    fn check(links: &[Link], rules: &Rules, expected: &[&str]) {
        let found: Vec<String> = classify(links, rules)
            .into_iter()
            .map(|device| format!("{} {} {}", device.ifindex, device.name, device.kind))
            .collect();
        assert_eq!(found, expected);
    }

    fn rules() -> Rules {
        Rules {
            node_ips: vec!["192.168.0.1".parse().expect("an address")],
            default_routes: BTreeSet::from([2]),
            ..Rules::default()
        }
    }

    #[test]
    fn devices_by_what_they_are() {
        let loopback = Link { ethernet: false, ..link(1, "lo", "", 0, &["127.0.0.1"]) };
        let tunnel = Link { ethernet: false, ..link(9, "wg0", "wireguard", 0, &["10.1.1.1"]) };
        let off = Link { up: false, ..link(10, "veth9", "veth", 0, &[]) };
        let links = [
            loopback,
            link(2, "eth0", "", 0, &["192.168.0.1"]),
            link(3, "pgr1a2b", "veth", 0, &[]),
            link(4, "eth1", "", 0, &["172.16.0.9"]),
            link(5, "eth2", "", 0, &[]),
            link(6, "pgr_vxlan", "vxlan", 0, &[]),
            link(7, "kube-ipvs0", "dummy", 0, &["10.96.0.1"]),
            tunnel,
            off,
        ];
        check(&links, &rules(), &["2 eth0 uplink", "3 pgr1a2b pod", "4 eth1 uplink", "6 pgr_vxlan overlay"]);
    }

    #[test]
    fn ports_of_a_bridge_are_the_bridge() {
        check(
            &[
                link(2, "eth0", "", 0, &["192.168.0.1"]),
                link(3, "cni0", "bridge", 0, &["10.244.0.1"]),
                link(4, "veth1", "veth", 3, &[]),
                link(5, "veth2", "veth", 3, &[]),
            ],
            &rules(),
            &["2 eth0 uplink", "3 cni0 pod"],
        );
        // The node's address is on a bond, a pod's device in a VRF is one of its own.
        check(
            &[
                link(2, "bond0", "bond", 0, &["192.168.0.1"]),
                link(3, "eth0", "", 2, &[]),
                link(4, "blue", "vrf", 0, &[]),
                link(5, "veth1", "veth", 4, &[]),
            ],
            &Rules { default_routes: BTreeSet::new(), ..rules() },
            &["2 bond0 uplink", "5 veth1 pod"],
        );
        // A node whose uplink is a pair itself, as in a container.
        check(
            &[link(2, "eth0", "veth", 0, &["192.168.0.1"]), link(3, "a", "veth", 0, &[])],
            &rules(),
            &["2 eth0 uplink", "3 a pod"],
        );
    }

    #[test]
    fn names_that_were_given() {
        let links = [
            link(2, "eth0", "", 0, &["192.168.0.1"]),
            link(3, "eth1", "", 0, &["172.16.0.9"]),
            link(4, "cali12", "veth", 0, &[]),
            link(5, "docker0", "bridge", 0, &["172.17.0.1"]),
        ];
        let one = |name: &str| vec![name.to_owned()];
        let given = Rules { uplinks: one("eth1"), ..rules() };
        check(&links, &given, &["3 eth1 uplink", "4 cali12 pod", "5 docker0 pod"]);
        let given = Rules { pods: one("cali*"), ..rules() };
        check(&links, &given, &["2 eth0 uplink", "3 eth1 uplink", "4 cali12 pod"]);
        let given = Rules { uplinks: one("eth?"), pods: one("none"), ..rules() };
        check(&links, &given, &["2 eth0 uplink", "3 eth1 uplink"]);
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, name: &str, fits: bool| {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}")
        };
        check("eth0", "eth0", true);
        check("eth0", "eth01", false);
        check("eth*", "eth", true);
        check("eth*", "eth10", true);
        check("*", "anything", true);
        check("*th?", "eth0", true);
        check("*0*1", "a01b1", true);
        check("*0*1", "a01b", false);
        check("?", "", false);
        check("", "", true);
    }
}
