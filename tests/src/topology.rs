//! Several nodes on one network, without containers: each a network namespace with its own uplink, pod networks, cgroup and BPF file
//! system; pods as further namespaces; a client outside, and a world behind a router that knows no pod. For tests with real sockets.
//!
//! ```text
//!             world 192.168.77.254, 203.0.113.1          client 192.168.77.100
//!                            \                             /
//!                             bridge (the test's namespace)
//!                            /              |              \
//!          node 1 192.168.77.1    node 2 192.168.77.2    node 3 192.168.77.3
//!            10.244.1.0/24          10.244.2.0/24          10.244.3.0/24
//! ```
//!
//! Everything has both families (`fd77::1`, `fd10:244:1::/64`, `2001:db8:113::1`). Made inside of [`isolated`](crate::netns::isolated),
//! with whose end it goes. Must not know: Services, programs.

mod host;
mod servers;

pub use host::Host;
pub use servers::{
    Answer, PATIENCE, Server, tcp_ask, tcp_ask_on, tcp_connect, tcp_connect_from, tcp_server, udp_ask,
    udp_server, udp_socket,
};
pub(crate) use servers::{ask_on, serve_streams};

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_cni::{sysctl, veth};

use crate::netns::{Sandbox, ip};

/// What the nodes' default route points at: beyond it is a world that knows nothing of pods.
pub const ROUTER: Pair =
    Pair { v4: Ipv4Addr::new(192, 168, 77, 254), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0xfe) };
/// A host in that world.
pub const WORLD: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 1), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1) };
/// The client on the nodes' network.
pub const CLIENT: Pair =
    Pair { v4: Ipv4Addr::new(192, 168, 77, 100), v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x64) };

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first.
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The one of the same family as another address.
    pub fn like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }
}

/// Nodes, a client and a world, connected.
#[derive(Debug)]
pub struct Topology {
    /// Node 1 first.
    pub nodes: Vec<Node>,
    /// A host on the nodes' network that is none of them.
    pub client: Host,
    /// The router, with the world behind it.
    pub world: Host,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its namespace, with everything that runs in its cgroup.
    pub host: Host,
    /// From 1 on.
    pub number: u8,
    /// Its addresses.
    pub ips: Pair,
    /// Its cgroup2 directory: threads of [`Host::run`] on it and its pods are there.
    pub cgroup: PathBuf,
    /// Its BPF file system.
    pub bpffs: PathBuf,
    pods: u8,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace, with everything that runs in its node's cgroup.
    pub host: Host,
    /// Its addresses.
    pub ips: Pair,
    /// The host's end of its pair.
    pub device: String,
    /// The number of that device.
    pub ifindex: u32,
    /// The pod's hardware address.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
}

impl Topology {
    /// So many nodes (at most nine) with routes to each other's pods.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn new(sandbox: &Sandbox, nodes: u8) -> Result<Self> {
        ensure!((1..10).contains(&nodes), "{nodes} nodes");
        ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["link", "set", "br0", "up"])?;
        let client = connected("client", CLIENT, None)?;
        let world = connected("world", ROUTER, None)?;
        world.run(|| Ok(sysctl::route_packets()?))?;
        for address in WORLD.both() {
            world.ip(&["addr", "add", &address.to_string(), "dev", "lo"])?;
        }
        let nodes: Vec<Node> = (1..=nodes).map(|number| node(sandbox, number)).collect::<Result<_>>()?;
        for node in &nodes {
            for other in nodes.iter().filter(|other| other.number != node.number) {
                for (cidr, via) in other.pod_cidrs().iter().zip(other.ips.both()) {
                    node.host.ip(&["route", "add", cidr, "via", &via.to_string(), "dev", "eth0"])?;
                }
            }
        }
        Ok(Self { nodes, client, world })
    }
}

/// A namespace with an `eth0` on the bridge.
fn connected(name: &str, ips: Pair, cgroup: Option<PathBuf>) -> Result<Host> {
    let host = Host::new(name, cgroup)?;
    let port = format!("p-{name}");
    ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    ip(&["link", "set", &port, "master", "br0", "up"])?;
    host.ip(&["addr", "add", &format!("{}/24", ips.v4), "dev", "eth0"])?;
    host.ip(&["addr", "add", &format!("{}/64", ips.v6), "dev", "eth0", "nodad"])?;
    host.ip(&["link", "set", "eth0", "up"])?;
    Ok(host)
}

/// A node on the bridge.
fn node(sandbox: &Sandbox, number: u8) -> Result<Node> {
    let name = format!("node{number}");
    let cgroup = sandbox.cgroup.join(&name);
    fs::create_dir(&cgroup).with_context(|| format!("create {}", cgroup.display()))?;
    // Threads of one process can be in it.
    fs::write(cgroup.join("cgroup.type"), "threaded")
        .with_context(|| format!("{}: threaded", cgroup.display()))?;
    let bpffs = PathBuf::from(format!("/run/netns/bpf-{name}"));
    fs::create_dir(&bpffs).with_context(|| format!("create {}", bpffs.display()))?;
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a BPF file system at {}", bpffs.display()))?;
    let ips = Pair {
        v4: Ipv4Addr::new(192, 168, 77, number),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()),
    };
    let host = connected(&name, ips, Some(cgroup.clone()))?;
    host.run(|| Ok(sysctl::route_packets()?))?;
    for via in ROUTER.both() {
        let family = if via.is_ipv4() { "-4" } else { "-6" };
        host.ip(&[family, "route", "add", "default", "via", &via.to_string(), "dev", "eth0"])?;
    }
    Ok(Node { host, number, ips, cgroup, bpffs, pods: 0 })
}

impl Node {
    /// The ranges of its pods' addresses, IPv4 first.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.number), format!("fd10:244:{}::/64", self.number)]
    }

    /// The name and addresses of the next pod.
    fn next_pod(&mut self) -> (String, Pair) {
        self.pods += 1;
        let (node, pod) = (self.number, self.pods);
        let ips = Pair {
            v4: Ipv4Addr::new(10, 244, node, 9 + pod),
            v6: Ipv6Addr::new(0xfd10, 0x244, node.into(), 0, 0, 0, 0, (9 + pod).into()),
        };
        (format!("pod{node}-{pod}"), ips)
    }

    /// Another pod, wired as our own CNI plugin does it.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn pod(&mut self) -> Result<Pod> {
        let (name, ips) = self.next_pod();
        let host = Host::new(&name, Some(self.cgroup.clone()))?;
        let wiring = veth::Wiring {
            host_link: format!("pgr{}", self.pods),
            pod_link: "eth0".into(),
            ips: ips.both().to_vec(),
            node_ips: self.ips.both().to_vec(),
            mtu: 1500,
        };
        let ifindex = self.host.run(|| {
            let mut netlink = Socket::open()?;
            wiring.create(&mut netlink, host.netns().as_fd())?;
            wiring.connect_host(&mut netlink)?;
            netlink.link(&wiring.host_link)?.map(|link| link.index).context("the pair just made")
        })?;
        host.run(|| Ok(wiring.connect_pod(&mut Socket::open()?)?))?;
        let (mac, host_mac) = (wiring.pod_mac().0, wiring.host_mac().0);
        Ok(Pod { host, ips, device: wiring.host_link, ifindex, mac, host_mac })
    }

    /// Another pod, wired as many other CNI plugins do it: on a bridge `cbr0` of the node, which is its gateway.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn pod_on_bridge(&mut self) -> Result<Pod> {
        let gateways = [format!("10.244.{}.1", self.number), format!("fd10:244:{}::1", self.number)];
        if self.host.ip(&["link", "show", "cbr0"]).is_err() {
            self.host.ip(&["link", "add", "cbr0", "type", "bridge", "mcast_snooping", "0"])?;
            self.host.ip(&["addr", "add", &format!("{}/24", gateways[0]), "dev", "cbr0"])?;
            self.host.ip(&["addr", "add", &format!("{}/64", gateways[1]), "dev", "cbr0", "nodad"])?;
            self.host.ip(&["link", "set", "cbr0", "up"])?;
        }
        let (name, ips) = self.next_pod();
        let host = Host::new(&name, Some(self.cgroup.clone()))?;
        let device = format!("cni{}", self.pods);
        self.host.run(|| {
            ip(&["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["link", "set", &device, "master", "cbr0", "up"])
        })?;
        host.ip(&["addr", "add", &format!("{}/24", ips.v4), "dev", "eth0"])?;
        host.ip(&["addr", "add", &format!("{}/64", ips.v6), "dev", "eth0", "nodad"])?;
        host.ip(&["link", "set", "eth0", "up"])?;
        for gateway in &gateways {
            host.ip(&["route", "add", "default", "via", gateway])?;
        }
        let link = |name: &'static str| {
            move || -> Result<_> {
                let found = Socket::open()?.link(name)?.with_context(|| format!("link {name}"))?;
                Ok((found.index, found.mac.map(|mac| mac.0).unwrap_or_default()))
            }
        };
        let (_, mac) = host.run(link("eth0"))?;
        let (ifindex, host_mac) = self.host.run(link("cbr0"))?;
        Ok(Pod { host, ips, device, ifindex, mac, host_mac })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        remove_cgroup(&self.cgroup);
    }
}

/// Removes a cgroup; one in which a server's thread still runs goes with the process.
fn remove_cgroup(path: &Path) {
    // The isolation around removes what is left.
    let _ = fs::remove_dir(path);
}
