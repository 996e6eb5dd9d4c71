//! What the balancer listens to: watches of the API server and what other parts of the agent say, into the desired state.
//!
//! Must not know: maps, plans.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use pagurus_agent_core::services::{Desired, LocalDns, NodeAddress, ServiceName};
use tokio::sync::watch;
use tokio::time::Instant;

use super::host_ports;
use super::told::Told;
use crate::actuate::network::PodsHere;
use crate::config::ServiceConfig;
use crate::dns;
use crate::index::balanced::{Service, Slice};
use crate::index::feed::{Change, Feed};
use crate::index::node::{Nodes, Published};
use crate::index::service_links::ServiceLinks;
use crate::observe::devices::Seen;

/// What other parts of the agent say. Each is the whole of it, whenever it changes.
pub struct Sources {
    /// The nodes.
    pub nodes: watch::Receiver<Published>,
    /// The devices of this node and their addresses.
    pub devices: watch::Receiver<Arc<Seen>>,
    /// The pods connected on this node.
    pub pods: watch::Receiver<PodsHere>,
    /// What this node's DNS is told, and where it is reached.
    pub dns: Option<(dns::Table, Vec<IpAddr>)>,
    /// What pods are told of Services, if this node has pods of its own.
    pub links: Option<ServiceLinks>,
}

/// What is listened to.
pub(super) struct Feeds {
    pub(super) services: Feed<Service>,
    pub(super) slices: Feed<Slice>,
    pub(super) sources: Sources,
    pub(super) node_name: String,
    pub(super) told: Told,
    pub(super) services_complete: bool,
    pub(super) slices_complete: bool,
    /// Uids of the pods connected here, by namespace and name.
    pub(super) pod_uids: BTreeMap<(String, String), String>,
    /// The nodes are known: without them NodePorts would be nobody's.
    pub(super) nodes_known: bool,
    /// The pods connected here are known, or nobody connects any.
    pub(super) pods_known: bool,
    /// This node's own addresses at which NodePorts are reached.
    pub(super) node_port_addresses: BTreeSet<IpAddr>,
    /// Nodes, devices or addresses are not as they were.
    pub(super) addresses_changed: bool,
}

/// Something new.
pub(super) enum News {
    Service(Box<Change<Service>>),
    Slice(Box<Change<Slice>>),
    /// Nodes, or this node's own addresses.
    Addresses,
    Pods,
}

impl Feeds {
    pub(super) async fn next(&mut self) -> News {
        let sources = &mut self.sources;
        tokio::select! {
            change = self.services.next() => News::Service(Box::new(change)),
            change = self.slices.next() => News::Slice(Box::new(change)),
            // Each sender lives as long as its part of the agent; after that nothing changes any more.
            Ok(()) = sources.nodes.changed() => News::Addresses,
            Ok(()) = sources.devices.changed() => News::Addresses,
            Ok(()) = sources.pods.changed() => News::Pods,
        }
    }

    /// Whether everything there is has been told.
    pub(super) fn is_complete(&self) -> bool {
        self.services_complete && self.slices_complete && self.nodes_known && self.pods_known
    }

    /// When this change came, which `next` has just answered.
    pub(super) fn arrived(&self, news: &News) -> Instant {
        match news {
            News::Service(_) => self.services.arrived(),
            News::Slice(_) => self.slices.arrived(),
            News::Addresses | News::Pods => Instant::now(),
        }
    }

    /// Takes a change over into what is wanted.
    pub(super) fn take(&mut self, desired: &mut Desired, config: &ServiceConfig, news: News) {
        match news {
            News::Service(change) => match *change {
                Change::Set(object) => self.set_service(desired, object),
                Change::Gone((namespace, name)) => {
                    if let Some(names) = self.names() {
                        names.remove_service(&namespace, &name);
                    }
                    if let Some(links) = &self.sources.links {
                        links.set(&namespace, &name, None);
                    }
                    self.told.forget("Service", &namespace, &name);
                    desired.remove_service(&ServiceName::new(&namespace, &name));
                }
                Change::Complete => {
                    self.services_complete = true;
                    if let Some(links) = &self.sources.links {
                        links.set_complete();
                    }
                }
            },
            News::Slice(change) => match *change {
                Change::Set(object) => self.set_slice(desired, object),
                Change::Gone((namespace, name)) => {
                    if let Some(names) = self.names() {
                        names.remove_slice(&namespace, &name);
                    }
                    self.told.forget("EndpointSlice", &namespace, &name);
                    desired.remove_slice(&namespace, &name);
                }
                Change::Complete => self.slices_complete = true,
            },
            News::Addresses => self.set_addresses(desired, config),
            News::Pods => {
                let pods = self.sources.pods.borrow_and_update().clone();
                if let Some(pods) = pods {
                    self.pod_uids = host_ports::uids(&pods);
                    host_ports::set(desired, &pods);
                    self.pods_known = true;
                }
            }
        }
        if let (Some((names, _)), true, true) =
            (&self.sources.dns, self.services_complete, self.slices_complete)
        {
            names.set_complete();
        }
    }

    /// The Service whose queries this node answers itself, if it does.
    pub(super) fn local_dns(&self) -> Option<LocalDns> {
        let (_, ips) = self.sources.dns.as_ref()?;
        let service = ServiceName::new(dns::SERVICE.0, dns::SERVICE.1);
        Some(LocalDns { service, ips: ips.clone() })
    }

    /// Where names go, if this node answers for them: they are told before the balancer is.
    fn names(&self) -> Option<&dns::Table> {
        self.sources.dns.as_ref().map(|(names, _)| names)
    }

    fn set_service(&mut self, desired: &mut Desired, object: Service) {
        let Service { about, balanced, named, linked, problems } = object;
        if let Some(links) = &self.sources.links {
            links.set(&about.namespace, &about.name, linked.map(|linked| *linked));
        }
        match (self.names(), named) {
            (Some(names), Some(service)) => names.set_service(service),
            (Some(names), None) => names.remove_service(&about.namespace, &about.name),
            (None, _) => {}
        }
        match balanced {
            Some(service) => desired.set_service(service),
            None => desired.remove_service(&ServiceName::new(&about.namespace, &about.name)),
        }
        if !problems.is_empty() || !self.told.is_empty() {
            self.told.tell(&Told::about("Service", "v1", &about), "InvalidService", problems);
        }
    }

    fn set_slice(&mut self, desired: &mut Desired, object: Slice) {
        let Slice { about, balanced, named, problems, .. } = object;
        match (self.names(), named) {
            (Some(names), Some(slice)) => names.set_slice(&about.name, &slice),
            (Some(names), None) => names.remove_slice(&about.namespace, &about.name),
            (None, _) => {}
        }
        match balanced {
            Some(slice) => desired.set_slice(&about.name, slice),
            None => desired.remove_slice(&about.namespace, &about.name),
        }
        if !problems.is_empty() || !self.told.is_empty() {
            let about = Told::about("EndpointSlice", "discovery.k8s.io/v1", &about);
            self.told.tell(&about, "InvalidEndpoints", problems);
        }
    }

    fn set_addresses(&mut self, desired: &mut Desired, config: &ServiceConfig) {
        self.addresses_changed = true;
        let seen = self.sources.devices.borrow_and_update().clone();
        let Some(nodes) = self.sources.nodes.borrow_and_update().clone() else { return };
        self.nodes_known = true;
        let zone = nodes.get(&self.node_name).and_then(|node| node.zone.as_deref());
        desired.set_node(&self.node_name, zone);
        let addresses = addresses(&nodes, &self.node_name, &seen, config);
        self.node_port_addresses = with_node_ports(&addresses, &seen);
        desired.set_addresses(addresses);
    }
}

/// The addresses of all nodes. Of this node those of its devices, too.
fn addresses(nodes: &Nodes, own: &str, seen: &Seen, config: &ServiceConfig) -> BTreeMap<IpAddr, NodeAddress> {
    let mut addresses = BTreeMap::new();
    for ip in seen.links.iter().flat_map(|link| &link.addresses).filter(|ip| is_shared(ip)) {
        let node_ports = config.is_node_port_address(ip, false);
        addresses.insert(*ip, NodeAddress { local: true, node_ports });
    }
    for (name, node) in nodes {
        for ip in &node.ips {
            let node_ports = config.is_node_port_address(ip, true);
            addresses.insert(*ip, NodeAddress { local: name == own, node_ports });
        }
    }
    addresses
}

/// Those of this node's devices at which NodePorts are reached; the Node object may name others, of something before it.
fn with_node_ports(addresses: &BTreeMap<IpAddr, NodeAddress>, seen: &Seen) -> BTreeSet<IpAddr> {
    let here = seen.links.iter().flat_map(|link| &link.addresses);
    here.filter(|ip| addresses.get(ip).is_some_and(|address| address.node_ports)).copied().collect()
}

/// Whether an address means this node also for others: pods have loopback and link-local addresses of their own.
fn is_shared(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use pagurus_agent_core::devices::Link;

    use super::*;
    use crate::config::{NodePortAddresses, ServiceSettings};
    use crate::index::node::NodeNet;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().expect("an address")).collect()
    }

    #[test]
    fn where_node_ports_are_reached() {
        let file = crate::config::ConfigFiles::default().proxy;
        let mut config = ServiceConfig::new(ServiceSettings::default(), &file).expect("defaults");
        let node = |list: &[&str]| NodeNet { ips: ips(list), ..NodeNet::default() };
        let nodes = Nodes::from([
            ("a".to_owned(), node(&["192.168.0.1"])),
            ("b".to_owned(), node(&["192.168.0.2", "fd77::2"])),
        ]);
        let link = |list: &[&str]| Link { addresses: ips(list), ..Link::default() };
        let seen = Seen {
            routes: 0,
            links: vec![
                link(&["127.0.0.1", "::1", "169.254.53.53"]),
                link(&["192.168.0.1", "fe80::1", "203.0.113.1"]),
            ],
            ..Seen::default()
        };
        let check = |config: &ServiceConfig, expected: &[&str]| {
            let found: Vec<String> = addresses(&nodes, "a", &seen, config)
                .iter()
                .map(|(ip, address)| {
                    let local = if address.local { " local" } else { "" };
                    let ports = if address.node_ports { " ports" } else { "" };
                    format!("{ip}{local}{ports}")
                })
                .collect();
            assert_eq!(found, expected);
            let here: Vec<String> = with_node_ports(&addresses(&nodes, "a", &seen, config), &seen)
                .iter()
                .map(|ip| format!("{ip} local ports"))
                .collect();
            let expected: Vec<&str> =
                expected.iter().copied().filter(|text| text.ends_with(" local ports")).collect();
            assert_eq!(here, expected, "those of this node's devices");
        };
        check(
            &config,
            &["192.168.0.1 local ports", "192.168.0.2 ports", "203.0.113.1 local ports", "fd77::2 ports"],
        );
        config.node_port_addresses = NodePortAddresses::Primary;
        check(
            &config,
            &["192.168.0.1 local ports", "192.168.0.2 ports", "203.0.113.1 local", "fd77::2 ports"],
        );
        config.node_port_addresses =
            NodePortAddresses::Ranges(vec!["203.0.113.0/24".parse().expect("a network")]);
        check(&config, &["192.168.0.1 local", "192.168.0.2", "203.0.113.1 local ports", "fd77::2"]);
    }
}
