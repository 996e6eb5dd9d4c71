//! What the documentation says becomes of a connection, for tests: kube-proxy's rules in plain Rust.
//!
//! Written from the reference of Service ("Virtual IPs and Service Proxies", "Service internal traffic policy", "Topology aware
//! routing", "Traffic distribution"), of EndpointSlice (conditions, hints), and from KEP-1669, KEP-2086, KEP-2433, KEP-3015 and
//! KEP-4444. Must not know: how Services are compiled, maps, programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Backend, Family, Protocol};
use crate::services::{Algorithm, Endpoint, Forwarding, HostPort, NodeAddress, Service, ServicePort, Slice};

/// What becomes of a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is none of our business.
    Elsewhere,
    /// It goes to one of these.
    To(BTreeSet<Backend>),
    /// The client is told at once that nobody is there.
    Refused,
    /// It is dropped.
    Dropped(Why),
}

/// Why a connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client is in none of `loadBalancerSourceRanges`.
    SourceRange,
    /// A `Local` policy, and the endpoints are all elsewhere.
    NoLocalEndpoint,
}

/// Who connects, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// A pod of this node, or the node itself.
    pub is_inside: bool,
    /// The client's address.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// Port there.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The cluster as this node (`here`) sees it. At most one slice of a Service and family names an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Services with addresses.
    pub services: Vec<Service>,
    /// Their EndpointSlices.
    pub slices: Vec<Slice>,
    /// Ports of this node that lead to its pods.
    pub host_ports: Vec<HostPort>,
    /// Addresses of all nodes.
    pub nodes: BTreeMap<IpAddr, NodeAddress>,
    /// This node's zone.
    pub zone: Option<Arc<str>>,
}

/// By what kind of address a Service is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Its cluster IP.
    ClusterIp,
    /// An address of its load balancer.
    LoadBalancer,
    /// One of its external IPs.
    External,
    /// A port of every node.
    NodePort,
}

/// Who has an address and port.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// A port of a Service, and by which kind of address it is meant.
    Service(&'a Service, &'a ServicePort, Way),
    /// A host port.
    HostPort(&'a HostPort),
}

/// What hints call this node.
const HERE: &str = "here";

impl Cluster {
    /// The documentation's answer.
    pub fn verdict(&self, connection: &Connection) -> Verdict {
        let (service, port, way) = match self.holder(connection) {
            None => return Verdict::Elsewhere,
            Some(Holder::HostPort(host_port)) => {
                let HostPort { target_ip: ip, target_port: port, protocol, .. } = *host_port;
                return Verdict::To(BTreeSet::from([Backend { ip, port, protocol }]));
            }
            Some(Holder::Service(service, port, way)) => (service, port, way),
        };
        let is_direct = is_direct(service, way) && !connection.is_inside;
        let is_other_node = way == Way::NodePort && self.is_foreign(&connection.destination);
        if is_other_node && (service.external_local || (!connection.is_inside && !is_direct)) {
            // That node decides; unless it has, and handed the connection on to be answered directly.
            return Verdict::Elsewhere;
        }
        if way == Way::LoadBalancer && !is_admitted(service, connection) {
            return Verdict::Dropped(Why::SourceRange);
        }
        let endpoints = self.endpoints(service, port, Family::of(&connection.destination));
        let is_local = match way {
            Way::ClusterIp => service.internal_local,
            _ => service.external_local && !connection.is_inside,
        };
        if is_local {
            let local = usable(endpoints.iter().filter(|(_, e)| e.local));
            if !local.is_empty() {
                return Verdict::To(local);
            }
            return if usable(endpoints.iter()).is_empty() {
                Verdict::Refused
            } else {
                Verdict::Dropped(Why::NoLocalEndpoint)
            };
        }
        // Direct answers: every node must choose from the same endpoints, so hints cannot count.
        let near = if is_direct { None } else { self.near(&endpoints) };
        match near.unwrap_or_else(|| usable(endpoints.iter())) {
            all if all.is_empty() => Verdict::Refused,
            all => Verdict::To(all),
        }
    }

    /// Who is meant.
    pub fn holder(&self, connection: &Connection) -> Option<Holder<'_>> {
        let node = self.nodes.get(&connection.destination);
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
                let ways = [
                    (Way::ClusterIp, is_port && *own == connection.destination),
                    (Way::External, is_own(&service.external_ips)),
                    (Way::LoadBalancer, is_own(&service.load_balancer_ips)),
                    (
                        Way::NodePort,
                        node.is_some_and(|node| node.node_ports) && port.node_port == Some(connection.port),
                    ),
                ];
                found.extend(ways.into_iter().filter(|(_, is)| *is).map(|(way, _)| (service, place, way)));
            }
        }
        // A cluster IP is nobody else's; of the others the oldest Service has it. An address of the Service itself comes before a
        // node's; the same address given twice is an external one.
        let best = found.into_iter().min_by_key(|(service, place, way)| {
            let is_node = *way == Way::NodePort;
            let is_guarded = *way == Way::LoadBalancer;
            let class = *way != Way::ClusterIp;
            (is_node, class, service.created.clone(), service.name.clone(), *place, is_guarded)
        });
        // A host port comes after every Service but for those that are meant by the node's address alone.
        let own = best.filter(|(_, _, way)| *way != Way::NodePort);
        if let Some((service, place, way)) = own {
            return Some(Holder::Service(service, &service.ports[place], way));
        }
        let is_own_node = node.is_some_and(|node| node.local);
        let host_port = self.host_ports.iter().find(|host_port| {
            host_port.port == connection.port
                && host_port.protocol == connection.protocol
                && Family::of(&host_port.target_ip) == Family::of(&connection.destination)
                && host_port
                    .ip
                    .filter(|ip| !ip.is_unspecified())
                    .map_or(is_own_node, |ip| ip == connection.destination)
        });
        if let Some(host_port) = host_port {
            return Some(Holder::HostPort(host_port));
        }
        best.map(|(service, place, way)| Holder::Service(service, &service.ports[place], way))
    }

    /// Whether an address is another node's.
    fn is_foreign(&self, ip: &IpAddr) -> bool {
        self.nodes.get(ip).is_some_and(|address| !address.local)
    }

    /// The endpoints of a port of a Service in one family.
    fn endpoints(&self, service: &Service, port: &ServicePort, family: Family) -> Vec<(Backend, &Endpoint)> {
        let slices = self.slices.iter().filter(|slice| slice.service == service.name);
        let of = |slice: &'_ Slice| -> Vec<u16> {
            let ports = slice.ports.iter();
            ports
                .filter(|other| other.name == port.name && other.protocol == port.protocol)
                .map(|other| other.port)
                .collect()
        };
        let mut found = Vec::new();
        for slice in slices.filter(|slice| slice.family == family) {
            for number in of(slice) {
                let backend = |e: &Endpoint| Backend { ip: e.ip, port: number, protocol: port.protocol };
                found.extend(slice.endpoints.iter().map(|endpoint| (backend(endpoint), endpoint)));
            }
        }
        found
    }

    /// Whether an endpoint is on this node.
    pub fn is_local(&self, backend: &Backend) -> bool {
        let mut endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.any(|endpoint| endpoint.ip == backend.ip && endpoint.local)
            || self.host_ports.iter().any(|host_port| host_port.target_ip == backend.ip)
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
        let text = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        pick(&|e| text(&e.for_nodes), HERE).or_else(|| pick(&|e| text(&e.for_zones), self.zone.as_deref()?))
    }
}

/// Whether endpoints of other nodes answer clients outside themselves.
pub fn is_direct(service: &Service, way: Way) -> bool {
    service.forwarding == Forwarding::Dsr
        && service.algorithm == Algorithm::Maglev
        && !service.external_local
        && way != Way::ClusterIp
}

/// Whether a client may use the load balancer's addresses.
fn is_admitted(service: &Service, connection: &Connection) -> bool {
    let ranges = service.source_ranges.iter();
    let mut own =
        ranges.filter(|range| range.addr().is_ipv4() == connection.destination.is_ipv4()).peekable();
    own.peek().is_none() || own.any(|range| range.contains(&connection.source))
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
