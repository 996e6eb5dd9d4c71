//! Random clusters and packets, the same again for the same seed.
//!
//! Must not know: what becomes of the packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use pagurus_agent_core::addr::{Family, Protocol};
use pagurus_agent_core::services::kube_proxy::Cluster;
use pagurus_agent_core::services::{
    Algorithm, Created, Desired, Endpoint, Forwarding, HostPort, NodeAddress, Service, ServiceName,
    ServicePort, Slice, SlicePort,
};

/// Every transport.
pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// This node's addresses, by family.
pub(crate) const NODE: [&str; 2] = ["192.168.7.1", "fd77::1"];
/// Another node's.
const OTHER_NODE: [&str; 2] = ["192.168.7.2", "fd77::2"];
/// Another address of this node, at which there are no NodePorts.
const NO_NODE_PORTS: [&str; 2] = ["192.168.8.1", "fd78::1"];
/// How many pods this node has.
pub(crate) const PODS: u8 = 4;

/// Makes what a cluster has all that is wanted, but for the Services to be kept and for slices that are not of a cluster.
pub(crate) fn want(desired: &mut Desired, cluster: &Cluster, kept: &[ServiceName]) {
    desired.set_node("here", cluster.zone.as_deref());
    desired.set_addresses(cluster.nodes.clone());
    let is_old = |name: &ServiceName| {
        !name.namespace.is_empty()
            && !kept.contains(name)
            && cluster.services.iter().all(|service| service.name != *name)
    };
    for name in desired.service_names().filter(is_old).collect::<Vec<_>>() {
        desired.remove_service(&name);
    }
    for (namespace, slice) in desired.slice_names().cloned().collect::<Vec<_>>() {
        if slice.starts_with("slice-") {
            desired.remove_slice(&namespace, &slice);
        }
    }
    for key in desired.host_port_keys().cloned().collect::<Vec<_>>() {
        desired.remove_host_port(&key);
    }
    cluster.services.iter().for_each(|service| desired.set_service(service.clone()));
    for (number, slice) in cluster.slices.iter().enumerate() {
        desired.set_slice(&format!("slice-{number}"), slice.clone());
    }
    for (number, host_port) in cluster.host_ports.iter().enumerate() {
        desired.set_host_port(&format!("port-{number}"), host_port.clone());
    }
}

/// Numbers without any order (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A pod of this node, from 0 on.
pub(crate) fn pod(v6: bool, number: u8) -> IpAddr {
    if v6 { ip(&format!("fd10:244:0:1::{number:x}")) } else { ip(&format!("10.244.1.{}", 10 + number)) }
}

/// A pod of another node.
pub(crate) fn remote_pod(v6: bool, number: u8) -> IpAddr {
    if v6 { ip(&format!("fd10:244:0:2::{number:x}")) } else { ip(&format!("10.244.2.{}", 10 + number)) }
}

/// A server outside of the cluster.
fn stranger(v6: bool, number: u8) -> IpAddr {
    if v6 { ip(&format!("2001:db8:20::{number:x}")) } else { ip(&format!("172.20.0.{number}")) }
}

/// A client outside of the cluster; half of them are in the first source range.
pub(crate) fn client(random: &mut Random, v6: bool) -> IpAddr {
    let number = random.below(4) + 1;
    match (v6, random.once_in(2)) {
        (false, true) => ip(&format!("203.0.113.{number}")),
        (false, false) => ip(&format!("198.18.0.{number}")),
        (true, true) => ip(&format!("2001:db8:113::{number:x}")),
        (true, false) => ip(&format!("2001:db8:18::{number:x}")),
    }
}

/// The addresses of the nodes.
fn nodes() -> BTreeMap<IpAddr, NodeAddress> {
    let address = |local, node_ports| NodeAddress { local, node_ports };
    let all = [
        (NODE, address(true, true)),
        (OTHER_NODE, address(false, true)),
        (NO_NODE_PORTS, address(true, false)),
    ];
    all.into_iter().flat_map(|(ips, address)| ips.map(|text| (ip(text), address))).collect()
}

fn service(random: &mut Random, index: usize) -> Service {
    let families: &[bool] = random.one(&[&[false][..], &[true], &[false, true], &[true, false]]);
    let own = |v6: bool| if v6 { format!("fd96::{}", 10 + index) } else { format!("10.96.0.{}", 10 + index) };
    // Few addresses, so that they are contested; some are a node's.
    let mut external = |often: usize| -> Vec<IpAddr> {
        let count = if random.once_in(often) { 1 + random.below(2) } else { 0 };
        let mut ips = Vec::new();
        for _ in 0..count {
            let number = random.below(4);
            ips.push(match (random.once_in(2), random.once_in(8)) {
                (false, false) => ip(&format!("192.0.2.{number}")),
                (true, false) => ip(&format!("2001:db8:2::{number}")),
                (false, true) => ip(NODE[0]),
                (true, true) => ip(NODE[1]),
            });
        }
        ips.dedup();
        ips
    };
    let (external_ips, load_balancer_ips) = (external(2), external(2));
    let ranges = ["203.0.113.0/24", "10.244.1.10/31", "2001:db8:113::/48", "fd10:244:0:1::/127", "0.0.0.0/0"];
    let mut source_ranges = Vec::new();
    for range in ranges {
        let often = if range.ends_with("/0") { 12 } else { 3 };
        if random.once_in(often) {
            source_ranges.push(range.parse().unwrap_or_else(|error| panic!("{range}: {error}")));
        }
    }
    let mut ports: Vec<ServicePort> = Vec::new();
    for number in 0..1 + random.below(3) {
        // The same number for two protocols now and then.
        let (protocol, port) = (random.one(&PROTOCOLS), 80 + random.below(3) as u16);
        if ports.iter().any(|other| (other.protocol, other.port) == (protocol, port)) {
            continue;
        }
        let node_port = random.once_in(2).then(|| 30_000 + (index * 3 + number) as u16);
        ports.push(ServicePort { name: format!("p{number}").into(), protocol, port, node_port });
    }
    Service {
        name: ServiceName::new("test", &format!("s{index}")),
        cluster_ips: families.iter().map(|v6| ip(&own(*v6))).collect(),
        external_ips,
        load_balancer_ips,
        source_ranges,
        ports,
        internal_local: random.once_in(4),
        external_local: random.once_in(3),
        affinity: if random.once_in(3) { 10_800 } else { 0 },
        health_check_node_port: None,
        algorithm: if random.once_in(4) { Algorithm::Random } else { Algorithm::Maglev },
        forwarding: if random.once_in(4) { Forwarding::Dsr } else { Forwarding::Snat },
        created: Created { seconds: random.below(3) as i64, uid: format!("{index}").into() },
    }
}

/// Where an endpoint may be, and whether that is this node.
fn place(random: &mut Random, v6: bool) -> (IpAddr, bool) {
    let (kind, number) = (random.below(12), random.below(PODS.into()) as u8);
    match kind {
        0 => (ip(NODE[usize::from(v6)]), true),
        1 => (ip(OTHER_NODE[usize::from(v6)]), false),
        2 => (stranger(v6, number + 1), false),
        3..=7 => (pod(v6, number), true),
        _ => (remote_pod(v6, number), false),
    }
}

/// The slices of a Service: each endpoint is in one of them.
fn slices(random: &mut Random, service: &Service) -> Vec<Slice> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let mut taken = Vec::new();
        let states: &[(bool, bool, bool)] = random.one(&[
            // Ready, serving, terminating.
            &[(true, true, false)][..],
            &[
                (true, true, false),
                (false, true, true),
                (false, false, false),
                (false, false, true),
                (true, true, true),
            ],
            &[(false, true, true), (false, false, true), (false, false, false)],
        ]);
        let (zoned, noded) = (random.once_in(4), random.once_in(8));
        for _ in 0..random.below(3) {
            let mut endpoints = Vec::new();
            for _ in 0..random.below(6) {
                let (ip, local) = place(random, v6);
                if taken.contains(&ip) {
                    continue;
                }
                taken.push(ip);
                let (ready, serving, terminating) = random.one(states);
                let mut hints = |is: bool, names: &[&'static str]| -> Box<[Arc<str>]> {
                    // Now and then one is forgotten, and then none counts.
                    if !is || random.once_in(12) {
                        return Box::default();
                    }
                    Box::new([Arc::from(random.one(names))])
                };
                let for_zones = hints(zoned, &["a", "b"]);
                let for_nodes = hints(noded, &["here", "there"]);
                endpoints.push(Endpoint { ip, ready, serving, terminating, local, for_zones, for_nodes });
            }
            let mut ports = Vec::new();
            for port in &service.ports {
                // A port that is not in the slice has no endpoints there.
                if !random.once_in(10) {
                    let target = 8000 + random.below(3) as u16;
                    ports.push(SlicePort { name: port.name.clone(), protocol: port.protocol, port: target });
                }
            }
            let family = if v6 { Family::V6 } else { Family::V4 };
            all.push(Slice { service: service.name.clone(), family, ports, endpoints });
        }
    }
    all
}

fn host_port(random: &mut Random) -> HostPort {
    let v6 = random.once_in(3);
    let own = ip(NODE[usize::from(v6)]);
    let every = ip(if v6 { "::" } else { "0.0.0.0" });
    HostPort {
        ip: random.one(&[None, Some(own), Some(every)]),
        port: random.one(&[80, 81, 9000, 30_001]),
        protocol: random.one(&PROTOCOLS),
        target_ip: pod(v6, random.below(PODS.into()) as u8),
        target_port: 8080,
    }
}

/// A cluster. No two host ports of it are the same port, as the scheduler sees to.
pub(crate) fn cluster(random: &mut Random) -> Cluster {
    let services: Vec<Service> = (0..1 + random.below(4)).map(|index| service(random, index)).collect();
    let slices = services.iter().flat_map(|service| slices(random, service)).collect();
    let mut host_ports: Vec<HostPort> = Vec::new();
    for _ in 0..random.below(3) {
        let new = host_port(random);
        if host_ports.iter().all(|other| (other.port, other.protocol) != (new.port, new.protocol)) {
            host_ports.push(new);
        }
    }
    let zone = random.one(&[None, Some("a"), Some("b")]).map(Arc::from);
    Cluster { services, slices, host_ports, nodes: nodes(), zone }
}
