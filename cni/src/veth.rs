//! Wiring a pod: a veth pair, the pod's addresses, and routes on both sides; no bridge and no address resolution.
//!
//! The pod reaches everything through a gateway address that exists nowhere (169.254.1.1, fe80::1): a fixed neighbour
//! entry points it at the host's end of the pair. The host reaches the pod by a route for its address alone. Must not
//! know: CNI, where addresses come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::netlink::{self, Link, Mac, Netlink, ROUTE_PROTOCOL, Route, Veth};
use crate::sysctl;

/// The pod's IPv4 gateway.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pod's IPv6 gateway.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Hardware address of the host's end of every pair: each pair is a network of its own.
const HOST_MAC: Mac = Mac([0x0a, 0x58, 169, 254, 1, 1]);

/// Why a pod could not be wired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A setting could not be made.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// A device that was just made is not there.
    #[error("link {0} has gone")]
    Gone(String),
}

/// How a pod is to be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Name of the host's end.
    pub host_link: String,
    /// Name of the pod's end.
    pub pod_link: String,
    /// Addresses of the pod, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// Addresses of the node: source of what the host itself sends to the pod.
    pub node_ips: Vec<IpAddr>,
    /// Largest packet.
    pub mtu: u32,
}

impl Wiring {
    /// Hardware address of the pod's end, made from its first address.
    pub fn pod_mac(&self) -> Mac {
        let mut mac = Mac([0x0a, 0x58, 0, 0, 0, 0]);
        match self.ips.first() {
            Some(IpAddr::V4(ip)) => mac.0[2..].copy_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => mac.0[2..].copy_from_slice(&ip.octets()[12..]),
            None => {}
        }
        mac
    }

    /// Hardware address of the host's end.
    pub fn host_mac(&self) -> Mac {
        HOST_MAC
    }

    /// Makes the pair, in place of an earlier one of the same name. To be called in the host's namespace.
    pub fn create(&self, host: &mut dyn Netlink, pod: BorrowedFd<'_>) -> Result<(), Error> {
        host.delete_link(&self.host_link)?;
        host.add_veth(&Veth {
            name: &self.host_link,
            mac: HOST_MAC,
            peer: &self.pod_link,
            peer_mac: self.pod_mac(),
            peer_netns: pod,
            mtu: self.mtu,
        })?;
        Ok(())
    }

    /// Makes the host's side whole; can be repeated. To be called in the host's namespace.
    pub fn connect_host(&self, host: &mut dyn Netlink) -> Result<(), Error> {
        let link = find(host, &self.host_link)?;
        // The host's end only forwards: it asks nobody for addresses.
        sysctl::set(&format!("ipv6/conf/{}/accept_ra", self.host_link), "0")?;
        sysctl::set(&format!("ipv6/conf/{}/accept_dad", self.host_link), "0")?;
        if !link.up {
            host.set_up(link.index)?;
        }
        for ip in &self.ips {
            host.replace_neighbour(link.index, *ip, self.pod_mac())?;
            let source = self.node_ips.iter().find(|node| node.is_ipv4() == ip.is_ipv4()).copied();
            let route = Route {
                destination: IpNet::from(*ip),
                gateway: None,
                device: Some(link.index),
                source,
                protocol: ROUTE_PROTOCOL,
                onlink: false,
            };
            replace_route(host, route)?;
        }
        Ok(())
    }

    /// Makes the pod's side whole; can be repeated. To be called in the pod's namespace.
    pub fn connect_pod(&self, pod: &mut dyn Netlink) -> Result<(), Error> {
        if let Some(lo) = pod.link("lo")? {
            pod.set_up(lo.index)?;
        }
        let link = find(pod, &self.pod_link)?;
        if self.ips.iter().any(IpAddr::is_ipv6) {
            sysctl::set(&format!("ipv6/conf/{}/disable_ipv6", self.pod_link), "0")?;
            sysctl::set(&format!("ipv6/conf/{}/accept_ra", self.pod_link), "0")?;
            sysctl::set(&format!("ipv6/conf/{}/accept_dad", self.pod_link), "0")?;
        }
        for ip in &self.ips {
            pod.add_address(link.index, IpNet::from(*ip))?;
        }
        pod.set_up(link.index)?;
        for ip in &self.ips {
            let gateway = gateway(ip);
            pod.replace_neighbour(link.index, gateway, HOST_MAC)?;
            let via = |destination, gateway| Route {
                destination,
                gateway,
                device: Some(link.index),
                source: None,
                protocol: ROUTE_PROTOCOL,
                onlink: false,
            };
            if gateway.is_ipv4() {
                pod.replace_route(&via(IpNet::from(gateway), None))?;
            }
            pod.replace_route(&via(default_route(ip), Some(gateway)))?;
        }
        Ok(())
    }

    /// Whether the largest packet is another than it should be. To be called in the host's namespace.
    pub fn has_other_mtu(&self, host: &mut dyn Netlink) -> Result<bool, Error> {
        Ok(host.link(&self.host_link)?.is_some_and(|link| link.mtu != self.mtu))
    }

    /// Sets the largest packet of one end. The host's end goes last: it tells whether the change is whole.
    pub fn set_mtu(&self, name: &str, netlink: &mut dyn Netlink) -> Result<(), Error> {
        let link = find(netlink, name)?;
        Ok(netlink.set_mtu(link.index, self.mtu)?)
    }

    /// What is not as it should be on the host's side.
    pub fn check_host(&self, host: &mut dyn Netlink) -> Result<Vec<String>, Error> {
        let Some(link) = host.link(&self.host_link)? else {
            return Ok(vec![format!("link {} has gone", self.host_link)]);
        };
        let mut wrong = Vec::new();
        if !link.up {
            wrong.push(format!("link {} is down", self.host_link));
        }
        let routes = host.routes()?;
        for ip in &self.ips {
            let to = IpNet::from(*ip);
            if !routes.iter().any(|route| route.destination == to && route.device == Some(link.index)) {
                wrong.push(format!("there is no route to {ip} through {}", self.host_link));
            }
        }
        Ok(wrong)
    }

    /// What is not as it should be in the pod.
    pub fn check_pod(&self, pod: &mut dyn Netlink) -> Result<Vec<String>, Error> {
        let Some(link) = pod.link(&self.pod_link)? else {
            return Ok(vec![format!("link {} has gone", self.pod_link)]);
        };
        let mut wrong = Vec::new();
        if !link.up {
            wrong.push(format!("link {} is down", self.pod_link));
        }
        let addresses = pod.addresses(link.index)?;
        let routes = pod.routes()?;
        for ip in &self.ips {
            if !addresses.contains(&IpNet::from(*ip)) {
                wrong.push(format!("{} does not have address {ip}", self.pod_link));
            }
            let (default, gateway) = (default_route(ip), Some(gateway(ip)));
            if !routes.iter().any(|route| route.destination == default && route.gateway == gateway) {
                wrong.push(format!("there is no default route for {ip}"));
            }
        }
        Ok(wrong)
    }
}

/// The gateway of a pod's address.
pub fn gateway(ip: &IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

/// The default route's destination in the family of an address.
pub fn default_route(ip: &IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn find(netlink: &mut dyn Netlink, name: &str) -> Result<Link, Error> {
    netlink.link(name)?.ok_or_else(|| Error::Gone(name.to_owned()))
}

/// Makes a route; without its source address if that is not an address of this machine.
fn replace_route(netlink: &mut dyn Netlink, mut route: Route) -> Result<(), netlink::Error> {
    match netlink.replace_route(&route) {
        Err(error) if route.source.is_some() && error.io().raw_os_error() == Some(libc::EINVAL) => {
            route.source = None;
            netlink.replace_route(&route)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::netlink::fake::{Fake, State};

    fn wiring(ips: &[&str]) -> Wiring {
        Wiring {
            host_link: "pgrtest".into(),
            pod_link: "eth0".into(),
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            node_ips: vec!["192.168.0.1".parse().expect("an address")],
            mtu: 1400,
        }
    }

    fn connect(wiring: &Wiring, host: &mut Fake, pod: &mut Fake) {
        let file = File::open("/dev/null").expect("any file");
        wiring.create(host, file.as_fd()).expect("create");
        wiring.connect_pod(pod).expect("pod side");
        wiring.connect_host(host).expect("host side");
    }

    #[test]
    fn both_sides_know_each_other() {
        let wiring = wiring(&["10.244.0.7", "fd10:244::7"]);
        let (mut host, mut pod) = Fake::pair();
        connect(&wiring, &mut host, &mut pod);
        assert_eq!(wiring.check_host(&mut host).expect("check"), [""; 0]);
        assert_eq!(wiring.check_pod(&mut pod).expect("check"), [""; 0]);
        assert_eq!(wiring.pod_mac().to_string(), "0a:58:0a:f4:00:07");
        let neighbours: Vec<Mac> = host.state().neighbours.values().copied().collect();
        assert_eq!(neighbours, [wiring.pod_mac(); 2]);
        assert_eq!(host.state().routes[0].source, Some(wiring.node_ips[0]));
        assert_eq!(host.state().routes[1].source, None);
        let defaults = pod.state().routes.iter().filter(|route| route.destination.prefix_len() == 0).count();
        assert_eq!(defaults, 2);
    }

    #[test]
    fn repeating_changes_nothing_and_removal_leaves_nothing() {
        let wiring = wiring(&["10.244.0.7"]);
        let (mut host, mut pod) = Fake::pair();
        connect(&wiring, &mut host, &mut pod);
        let (before, inside) = (host.state().clone(), pod.state().clone());
        connect(&wiring, &mut host, &mut pod);
        assert_eq!((host.state().clone(), pod.state().clone()), (before, inside));
        host.delete_link("pgrtest").expect("delete");
        host.delete_link("pgrtest").expect("again");
        assert_eq!((host.state().clone(), pod.state().clone()), (State::default(), State::default()));
        assert_eq!(wiring.check_host(&mut host).expect("check"), ["link pgrtest has gone"]);
    }

    #[test]
    fn the_mtu_follows() {
        let mut wiring = wiring(&["10.244.0.7"]);
        let (mut host, mut pod) = Fake::pair();
        connect(&wiring, &mut host, &mut pod);
        assert!(!wiring.has_other_mtu(&mut host).expect("look"));
        wiring.mtu = 1350;
        assert!(wiring.has_other_mtu(&mut host).expect("look"));
        wiring.set_mtu("eth0", &mut pod).expect("the pod's end");
        wiring.set_mtu("pgrtest", &mut host).expect("the host's end");
        assert!(!wiring.has_other_mtu(&mut host).expect("look"));
        assert_eq!((host.state().links["pgrtest"].mtu, pod.state().links["eth0"].mtu), (1350, 1350));
    }

    #[test]
    fn a_lost_route_is_noticed_and_mended() {
        let wiring = wiring(&["10.244.0.7"]);
        let (mut host, mut pod) = Fake::pair();
        connect(&wiring, &mut host, &mut pod);
        host.state().routes.clear();
        assert_eq!(
            wiring.check_host(&mut host).expect("check"),
            ["there is no route to 10.244.0.7 through pgrtest"]
        );
        wiring.connect_host(&mut host).expect("mend");
        assert_eq!(wiring.check_host(&mut host).expect("check"), [""; 0]);
    }
}
