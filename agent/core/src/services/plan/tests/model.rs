//! What the documentation says becomes of a connection ([`kube_proxy`](crate::services::kube_proxy)), and what the maps say: they
//! must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::sequences;
use crate::addr::{Backend, Family, Frontend, Protocol, ServiceIp};
use crate::services::kube_proxy::{Cluster, Connection, Verdict, Why};
use crate::services::plan::memory::Memory;
use crate::services::plan::{Capacity, Flags, Observed, Table};
use crate::services::{Desired, NodeAddress, Service, Slice};

/// The maps' answer, read as the programs read them.
fn answer(memory: &Memory, connection: &Connection) -> Verdict {
    let frontend = |ip| Frontend { ip, port: connection.port, protocol: connection.protocol };
    let own = memory.services.get(&frontend(ServiceIp::Own(connection.destination)));
    let node = memory.nodes.get(&connection.destination).filter(|node| node.node_ports);
    let nodes = || {
        let node = node?;
        let family = Family::of(&connection.destination);
        let value = memory.services.get(&frontend(ServiceIp::Nodes(family)))?;
        let is_handed_on = connection.is_inside || value.flags.has(Flags::DSR);
        let is_theirs = !node.local && (value.flags.has(Flags::OUTSIDE_LOCAL) || !is_handed_on);
        (!is_theirs).then_some(value)
    };
    let Some(value) = own.or_else(nodes) else { return Verdict::Elsewhere };
    let mut ranges = memory.ranges.iter();
    let mut is_in_range =
        |number| ranges.any(|(own, range)| *own == number && range.contains(&connection.source));
    if value.flags.has(Flags::SOURCE_RANGES) && !is_in_range(value.service) {
        return Verdict::Dropped(Why::SourceRange);
    }
    let [inside, outside, maglev] = memory.backends_of(value).unwrap();
    let list = if connection.is_inside { inside } else { outside };
    let list: BTreeSet<Backend> = list.iter().map(|held| held.backend).collect();
    let table: BTreeSet<Backend> = maglev.iter().map(|held| held.backend).collect();
    assert!(connection.is_inside || table.is_empty() || table == list, "the table has others");
    let is_local = value.flags.has(Flags::INSIDE_LOCAL)
        || (!connection.is_inside && value.flags.has(Flags::OUTSIDE_LOCAL));
    match list {
        list if !list.is_empty() => Verdict::To(list),
        _ if is_local && value.flags.has(Flags::HAS_ENDPOINTS) => Verdict::Dropped(Why::NoLocalEndpoint),
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
        zone: zone.map(Into::into),
        ..Cluster::default()
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
