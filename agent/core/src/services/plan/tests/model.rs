//! What the documentation says becomes of a connection, and what the maps say: they must agree.
//!
//! The model knows nothing of how Services are compiled. It is written from the reference of Service ("Virtual IPs and Service
//! Proxies", "Service internal traffic policy", "Topology aware routing", "Traffic distribution"), of EndpointSlice (conditions,
//! hints), and from KEP-1669, KEP-2086, KEP-2433, KEP-3015 and KEP-4444.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::sequences;
use crate::addr::{Backend, Family, Frontend, Protocol, ServiceIp};
use crate::services::plan::memory::Memory;
use crate::services::plan::{Capacity, Flags, Observed, Table};
use crate::services::{Desired, Endpoint, NodeAddress, Service, Slice};

/// What becomes of a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is none of our business.
    Elsewhere,
    /// It goes to one of these.
    To(BTreeSet<Backend>),
    /// The client is told at once that nobody is there.
    Refused,
    /// It is dropped.
    Dropped,
}

/// Who connects, and to what.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// A pod of this node, or the node itself.
    is_inside: bool,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    protocol: Protocol,
}

/// The cluster as this node (`here`, in zone `a`) sees it.
struct Cluster {
    services: Vec<Service>,
    slices: Vec<Slice>,
    nodes: BTreeMap<IpAddr, NodeAddress>,
    zone: Option<&'static str>,
}

/// By what kind of address a Service is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ClusterIp,
    LoadBalancer,
    External,
    NodePort,
}

impl Cluster {
    /// The documentation's answer.
    fn verdict(&self, connection: &Connection) -> Verdict {
        let Some((service, port, target, way)) = self.meant(connection) else { return Verdict::Elsewhere };
        let address = self.nodes.get(&connection.destination);
        let is_other_node = way == Way::NodePort && address.is_some_and(|address| !address.local);
        if is_other_node && (!connection.is_inside || service.external_local) {
            // That node decides.
            return Verdict::Elsewhere;
        }
        if way == Way::LoadBalancer {
            let ranges = service.source_ranges.iter();
            let mut ranges =
                ranges.filter(|range| range.addr().is_ipv4() == connection.destination.is_ipv4()).peekable();
            if ranges.peek().is_some() && !ranges.any(|range| range.contains(&connection.source)) {
                return Verdict::Dropped;
            }
        }
        let family = Family::of(&target);
        let endpoints: Vec<(Backend, &Endpoint)> = self
            .slices
            .iter()
            .filter(|slice| slice.service == service.name && slice.family == family)
            .flat_map(|slice| {
                let ports = slice.ports.iter().filter(|other| {
                    other.name == service.ports[port].name && other.protocol == connection.protocol
                });
                ports.flat_map(move |port| {
                    let backend =
                        |e: &Endpoint| Backend { ip: e.ip, port: port.port, protocol: port.protocol };
                    slice.endpoints.iter().map(move |e| (backend(e), e))
                })
            })
            .collect();
        let is_local = match way {
            Way::ClusterIp => service.internal_local,
            _ => service.external_local && !connection.is_inside,
        };
        if is_local {
            let local = usable(endpoints.iter().filter(|(_, e)| e.local));
            if !local.is_empty() {
                return Verdict::To(local);
            }
            return if usable(endpoints.iter()).is_empty() { Verdict::Refused } else { Verdict::Dropped };
        }
        // Direct answers: every node must choose from the same endpoints, so hints cannot count.
        let is_direct = service.forwarding == crate::services::Forwarding::Dsr
            && service.algorithm == crate::services::Algorithm::Maglev
            && way != Way::ClusterIp
            && !connection.is_inside;
        let near = if is_direct { None } else { self.near(&endpoints) };
        match near.unwrap_or_else(|| usable(endpoints.iter())) {
            all if all.is_empty() => Verdict::Refused,
            all => Verdict::To(all),
        }
    }

    /// The Service, its port, an address of the family that serves it, and by what it is meant.
    fn meant(&self, connection: &Connection) -> Option<(&Service, usize, IpAddr, Way)> {
        let mut found = Vec::new();
        for service in &self.services {
            for (place, port) in service.ports.iter().enumerate() {
                if port.protocol != connection.protocol {
                    continue;
                }
                // A family is served if there is a cluster IP of it.
                let family = Family::of(&connection.destination);
                let Some(own) = service.cluster_ips.iter().find(|ip| Family::of(ip) == family) else {
                    continue;
                };
                let is_port = port.port == connection.port;
                let is_own = |ips: &[IpAddr]| is_port && ips.contains(&connection.destination);
                let node = self.nodes.get(&connection.destination);
                let is_node = node.is_some_and(|node| node.node_ports);
                let ways = [
                    (Way::ClusterIp, is_port && *own == connection.destination),
                    (Way::External, is_own(&service.external_ips)),
                    (Way::LoadBalancer, is_own(&service.load_balancer_ips)),
                    (Way::NodePort, is_node && port.node_port == Some(connection.port)),
                ];
                found.extend(
                    ways.into_iter().filter(|(_, is)| *is).map(|(way, _)| (service, place, *own, way)),
                );
            }
        }
        // A cluster IP is nobody else's; of the others the oldest Service has it. An address of the Service itself comes before a
        // node's; the same address given twice is an external one.
        found.into_iter().min_by_key(|(service, place, _, way)| {
            let is_node = *way == Way::NodePort;
            let is_guarded = *way == Way::LoadBalancer;
            let class = *way != Way::ClusterIp;
            (is_node, class, service.created.clone(), service.name.clone(), *place, is_guarded)
        })
    }

    /// The endpoints that are meant for this node or zone, if hints count.
    fn near(&self, endpoints: &[(Backend, &Endpoint)]) -> Option<BTreeSet<Backend>> {
        let ready: Vec<_> = endpoints.iter().filter(|(_, e)| e.ready).collect();
        let pick = |names: &dyn Fn(&Endpoint) -> Vec<String>, own: &str| {
            let hinted = ready.iter().all(|(_, e)| !names(e).is_empty());
            let near = ready.iter().filter(|(_, e)| names(e).iter().any(|name| name == own));
            let near: BTreeSet<Backend> = near.map(|(backend, _)| *backend).collect();
            (hinted && !near.is_empty()).then_some(near)
        };
        let text = |names: &[std::sync::Arc<str>]| names.iter().map(ToString::to_string).collect();
        pick(&|e| text(&e.for_nodes), "here").or_else(|| pick(&|e| text(&e.for_zones), self.zone?))
    }
}

/// Those that are ready; if nobody is, those that serve while they terminate.
fn usable<'a>(endpoints: impl Iterator<Item = &'a (Backend, &'a Endpoint)> + Clone) -> BTreeSet<Backend> {
    let ready: BTreeSet<Backend> =
        endpoints.clone().filter(|(_, e)| e.ready).map(|(backend, _)| *backend).collect();
    if !ready.is_empty() {
        return ready;
    }
    endpoints.filter(|(_, e)| e.serving && e.terminating).map(|(backend, _)| *backend).collect()
}

/// The maps' answer, read as the programs read them.
fn answer(memory: &Memory, connection: &Connection) -> Verdict {
    let frontend = |ip| Frontend { ip, port: connection.port, protocol: connection.protocol };
    let own = memory.services.get(&frontend(ServiceIp::Own(connection.destination)));
    let node = memory.nodes.get(&connection.destination).filter(|node| node.node_ports);
    let nodes = || {
        let node = node?;
        let family = Family::of(&connection.destination);
        let value = memory.services.get(&frontend(ServiceIp::Nodes(family)))?;
        let is_theirs = !node.local && (value.flags.has(Flags::OUTSIDE_LOCAL) || !connection.is_inside);
        (!is_theirs).then_some(value)
    };
    let Some(value) = own.or_else(nodes) else { return Verdict::Elsewhere };
    let mut ranges = memory.ranges.iter();
    let mut is_in_range =
        |number| ranges.any(|(own, range)| *own == number && range.contains(&connection.source));
    if value.flags.has(Flags::SOURCE_RANGES) && !is_in_range(value.service) {
        return Verdict::Dropped;
    }
    let [inside, outside, maglev] = memory.backends_of(value).unwrap();
    let list = if connection.is_inside { inside } else { outside };
    let list: BTreeSet<Backend> = list.iter().map(|held| held.backend).collect();
    let table: BTreeSet<Backend> = maglev.iter().map(|held| held.backend).collect();
    assert!(connection.is_inside || table.is_empty() || table == list, "the table has others");
    match list {
        list if !list.is_empty() => Verdict::To(list),
        _ if value.flags.has(Flags::HAS_ENDPOINTS) => Verdict::Dropped,
        _ => Verdict::Refused,
    }
}

/// Connections to everything there is, and to some that is not.
fn connections(cluster: &Cluster) -> Vec<Connection> {
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut ips: BTreeSet<IpAddr> = cluster.nodes.keys().copied().collect();
    let mut ports = BTreeSet::from([80, 81, 9]);
    for service in &cluster.services {
        ips.extend(service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips));
        ports.extend(service.ports.iter().flat_map(|port| [Some(port.port), port.node_port]).flatten());
    }
    let mut all = Vec::new();
    for destination in ips {
        let sources: &[&str] = match destination {
            IpAddr::V4(_) => &["10.1.2.3", "192.168.1.1", "203.0.113.9"],
            IpAddr::V6(_) => &["fd00::5", "2001:db8::9"],
        };
        for source in sources {
            for is_inside in [true, false] {
                for port in &ports {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let (source, port) = (parse(source), *port);
                        all.push(Connection { is_inside, source, destination, port, protocol });
                    }
                }
            }
        }
    }
    all
}

type Slices = Vec<(u8, u8, Vec<u8>, bool)>;

fn cluster(services: &[(u8, u8, u16)], slices: &Slices, zone: Option<&'static str>) -> Cluster {
    let mut own: BTreeMap<_, Slice> = BTreeMap::new();
    for (service, number, hosts, v6) in slices {
        let mut slice = sequences::slice(*service, hosts, *v6);
        // What one of the two slices with the same endpoint says is another matter (`select`).
        slice.endpoints.sort_by_key(|e| e.ip);
        slice.endpoints.dedup_by_key(|e| e.ip);
        own.insert((*service, *number, *v6), slice);
    }
    let address = |local| NodeAddress { local, node_ports: true };
    let nodes = BTreeMap::from([
        ("192.0.3.1".parse().unwrap(), address(true)),
        ("192.0.3.2".parse().unwrap(), address(false)),
        ("fd02::1".parse().unwrap(), address(true)),
        ("192.0.3.3".parse().unwrap(), NodeAddress { local: true, node_ports: false }),
    ]);
    Cluster {
        services: (0u8..)
            .zip(services)
            // Each has a cluster IP of its own, as the API server sees to.
            .map(|(index, (ports, ip, kind))| Service {
                cluster_ips: sequences::service(index, 1, 100 + index, *kind).cluster_ips,
                ..sequences::service(index, *ports, *ip, *kind)
            })
            .collect(),
        slices: own.into_values().collect(),
        nodes,
        zone,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn connections_go_where_the_documentation_says(
        services in prop::collection::vec((0u8..4, 0u8..4, any::<u16>()), 1..4),
        slices in prop::collection::vec((0u8..4, 0u8..1, prop::collection::vec(1u8..20, 0..8), any::<bool>()), 0..8),
        zone in prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))],
    ) {
        let cluster = cluster(&services, &slices, zone);
        let mut desired = Desired::default();
        desired.set_node("here", zone);
        desired.set_addresses(cluster.nodes.clone());
        cluster.services.iter().for_each(|service| desired.set_service(service.clone()));
        for (number, slice) in cluster.slices.iter().enumerate() {
            desired.set_slice(&format!("slice-{number}"), slice.clone());
        }
        let room = Capacity { services: 1024, slots: 1 << 16, backends: 1024, numbers: 64 };
        let mut memory = Memory::new(room);
        let mut table = Table::new(Observed { capacity: room, ..Observed::default() }, room, 0);
        let mut ops = table.plan_nodes(desired.addresses());
        for name in desired.take_dirty() {
            ops.extend(table.plan(&name, &desired.compile(&name), desired.claims()).unwrap());
        }
        ops.iter().for_each(|op| memory.apply(op).unwrap());
        table.commit(&ops, ops.len(), 0);
        for connection in connections(&cluster) {
            prop_assert_eq!(answer(&memory, &connection), cluster.verdict(&connection), "{:?}", connection);
        }
    }
}
