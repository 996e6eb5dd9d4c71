//! Services and their endpoints: the desired state of the load-balancing maps.
//!
//! [`Desired`] is filled from watches and compiled, Service by Service, into a [`Compiled`] one; [`plan::Table`] turns those
//! into map operations. Must not know: API objects, maps as the kernel has them, time.

pub mod claims;
pub mod compile;
#[cfg(any(test, feature = "fake"))]
pub mod kube_proxy;
pub mod maglev;
pub mod plan;
pub mod select;

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::{Family, Protocol};
use crate::hash::HashMap;

pub use compile::{Compiled, Member, Route};

use claims::{Claims, Rank};
use names::Names;

/// Namespace and name of a Service. Host ports have no namespace, and their key as their name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ServiceName {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// What a host port is called among the Services.
    pub fn of_host_port(key: &str) -> Self {
        Self::new("", key)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "host port {}", self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// How backends are chosen for connections from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By a table that all nodes make alike.
    #[default]
    Maglev,
    /// At random.
    Random,
}

/// How connections from outside get to backends of other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// With this node's address as the source; answers come back the same way.
    #[default]
    Snat,
    /// As they are; the backend's node answers the client itself.
    Dsr,
}

/// When a Service was made: the older one has an address that more than one claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Created {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Decides between those of the same second.
    pub uid: Arc<str>,
}

impl Default for Created {
    fn default() -> Self {
        Self { seconds: 0, uid: Arc::from("") }
    }
}

/// A Service that has addresses (headless ones never get here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Cluster IPs, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` of those that lead here (not of mode `Proxy`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may use the load balancer's addresses; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`: clients at the cluster IP reach only endpoints of their own node.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`: clients from outside reach only endpoints of the node they come to.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`: for so many seconds a client stays with its backend. 0: it does not.
    pub affinity: u32,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// How backends are chosen for connections from outside.
    pub algorithm: Algorithm,
    /// How connections from outside get to backends of other nodes.
    pub forwarding: Forwarding,
    /// When it was made.
    pub created: Created,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it is the only one.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port at the Service's addresses.
    pub port: u16,
    /// Port at every node, if any.
    pub node_port: Option<u16>,
}

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to.
    pub service: ServiceName,
    /// Family of its addresses.
    pub family: Family,
    /// Its ports, by name as the Service has them.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice: where the Service port of that name is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service port.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Target port.
    pub port: u16,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Able to serve, also while it terminates.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// Runs on this node.
    pub local: bool,
    /// `hints.forZones`: the zones whose nodes should use it.
    pub for_zones: Box<[Arc<str>]>,
    /// `hints.forNodes`: the nodes that should use it.
    pub for_nodes: Box<[Arc<str>]>,
}

/// A port of this node that leads to one of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The only address of the node it is reached at; none: at all of them.
    pub ip: Option<IpAddr>,
    /// Port of the node.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The pod's address.
    pub target_ip: IpAddr,
    /// The pod's port.
    pub target_port: u16,
}

/// This node's own answers to DNS queries, in the place of a Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDns {
    /// The Service whose ports 53 lead to this node.
    pub service: ServiceName,
    /// Where this node answers (port 53), at most one address of each family.
    pub ips: Vec<IpAddr>,
}

/// What an address of a node is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeAddress {
    /// It is this node's.
    pub local: bool,
    /// NodePorts are reached at it.
    pub node_ports: bool,
}

/// All Services, EndpointSlices and host ports, as last seen, and what is known of this node.
#[derive(Debug, Default)]
pub struct Desired {
    node_name: Arc<str>,
    zone: Option<Arc<str>>,
    addresses: BTreeMap<IpAddr, NodeAddress>,
    services: HashMap<ServiceName, Service>,
    /// By name of the slice, in order.
    slices: HashMap<ServiceName, Vec<(Arc<str>, Slice)>>,
    /// Which Service a slice was last seen with: a change of that label must clean the old Service.
    slice_owner: HashMap<(Arc<str>, Arc<str>), ServiceName>,
    host_ports: BTreeMap<Arc<str>, HostPort>,
    local_dns: Option<LocalDns>,
    claims: Claims,
    names: Names,
    /// Services that were given a frontend: to be written before those that lost it.
    gained: BTreeSet<ServiceName>,
    /// Other Services whose compiled form may have changed.
    dirty: BTreeSet<ServiceName>,
}

impl Desired {
    /// This node's name and zone, which topology hints name.
    pub fn set_node(&mut self, name: &str, zone: Option<&str>) {
        if *self.node_name == *name && self.zone.as_deref() == zone {
            return;
        }
        self.node_name = name.into();
        self.zone = zone.map(Arc::from);
        let hinted = |slice: &Slice| {
            slice.endpoints.iter().any(|e| !e.for_zones.is_empty() || !e.for_nodes.is_empty())
        };
        for (name, slices) in &self.slices {
            if slices.iter().any(|(_, slice)| hinted(slice)) {
                self.dirty.insert(name.clone());
            }
        }
    }

    /// The addresses of all nodes.
    pub fn set_addresses(&mut self, addresses: BTreeMap<IpAddr, NodeAddress>) {
        if self.addresses == addresses {
            return;
        }
        self.addresses = addresses;
        for key in self.host_ports.keys().cloned().collect::<Vec<_>>() {
            self.claim_host_port(&key);
        }
    }

    /// The addresses of all nodes, as last told.
    pub fn addresses(&self) -> &BTreeMap<IpAddr, NodeAddress> {
        &self.addresses
    }

    /// A Service as it is now.
    pub fn set_service(&mut self, mut service: Service) {
        if self.services.get(&service.name) == Some(&service) {
            return;
        }
        service.name = self.names.service(&service.name);
        for port in &mut service.ports {
            port.name = self.names.get(&port.name);
        }
        let name = service.name.clone();
        self.claim(&name, compile::claims(&service));
        self.services.insert(name.clone(), service);
        self.dirty.insert(name);
    }

    /// A Service is gone, or has no addresses any more.
    pub fn remove_service(&mut self, name: &ServiceName) {
        if self.services.remove(name).is_some() {
            self.claim(name, Vec::new());
            self.dirty.insert(name.clone());
        }
    }

    /// A Service as last seen.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&mut self, name: &str, mut slice: Slice) {
        let key = (self.names.get(&slice.service.namespace), self.names.get(name));
        if self.slice_owner.get(&key).is_some_and(|owner| *owner != slice.service) {
            self.remove_slice(&key.0, name);
        }
        slice.service = self.names.service(&slice.service);
        for port in &mut slice.ports {
            port.name = self.names.get(&port.name);
        }
        for hint in slice.endpoints.iter_mut().flat_map(|e| e.for_zones.iter_mut().chain(&mut e.for_nodes)) {
            *hint = self.names.get(hint);
        }
        let slices = self.slices.entry(slice.service.clone()).or_insert_with(|| Vec::with_capacity(1));
        match slices.binary_search_by(|(other, _)| (**other).cmp(name)) {
            Ok(place) if slices[place].1 == slice => {}
            Ok(place) => {
                self.dirty.insert(slice.service.clone());
                slices[place].1 = slice;
            }
            Err(place) => {
                self.dirty.insert(slice.service.clone());
                self.slice_owner.insert(key.clone(), slice.service.clone());
                slices.insert(place, (key.1, slice));
            }
        }
    }

    /// An EndpointSlice is gone, or belongs to no Service any more.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(owner) = self.slice_owner.remove(&(Arc::from(namespace), Arc::from(name))) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.retain(|(other, _)| **other != *name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// A host port as it is now; `key` is any name that no other has.
    pub fn set_host_port(&mut self, key: &str, host_port: HostPort) {
        let key: Arc<str> = key.into();
        if self.host_ports.get(&key) == Some(&host_port) {
            return;
        }
        self.host_ports.insert(key.clone(), host_port);
        self.claim_host_port(&key);
    }

    /// A host port is gone.
    pub fn remove_host_port(&mut self, key: &str) {
        if self.host_ports.remove(key).is_some() {
            self.claim_host_port(key);
        }
    }

    /// Names of all host ports.
    pub fn host_port_keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.host_ports.keys()
    }

    /// The Service whose queries this node answers itself.
    pub fn set_local_dns(&mut self, local_dns: Option<LocalDns>) {
        if self.local_dns != local_dns {
            let old = std::mem::replace(&mut self.local_dns, local_dns);
            self.dirty.extend(old.into_iter().chain(self.local_dns.clone()).map(|dns| dns.service));
        }
    }

    /// Names of all Services with addresses, and of all host ports.
    pub fn service_names(&self) -> impl Iterator<Item = ServiceName> {
        let host_ports = self.host_ports.keys().map(|key| ServiceName::of_host_port(key));
        self.services.keys().cloned().chain(host_ports)
    }

    /// How many Services with addresses there are, and host ports.
    pub fn service_count(&self) -> usize {
        self.services.len() + self.host_ports.len()
    }

    /// Names of all EndpointSlices: namespace, name.
    pub fn slice_names(&self) -> impl ExactSizeIterator<Item = &(Arc<str>, Arc<str>)> {
        self.slice_owner.keys()
    }

    /// Who has which address and port, and who else wants them.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How many endpoints of this node are ready for a Service: what its health check answers. A pod with an address of each family
    /// counts once, as with kube-proxy, which looks at one family at a time.
    pub fn local_ready(&self, name: &ServiceName) -> usize {
        let slices = self.slices.get(name).into_iter().flatten();
        let endpoints = slices.flat_map(|(_, slice)| &slice.endpoints);
        let ready: BTreeSet<_> = endpoints.filter(|e| e.ready && e.local).map(|e| e.ip).collect();
        let v4 = ready.iter().filter(|ip| ip.is_ipv4()).count();
        v4.max(ready.len() - v4)
    }

    /// Takes the Services that may have changed since the last call, in the order in which they are to be written.
    pub fn take_dirty(&mut self) -> Vec<ServiceName> {
        let gained = std::mem::take(&mut self.gained);
        let dirty = std::mem::take(&mut self.dirty);
        let rest = dirty.into_iter().filter(|name| !gained.contains(name)).collect::<Vec<_>>();
        gained.into_iter().chain(rest).collect()
    }

    /// Marks a Service to be looked at again.
    pub fn mark_dirty(&mut self, name: ServiceName) {
        self.dirty.insert(name);
    }

    fn claim_host_port(&mut self, key: &str) {
        let name = ServiceName::of_host_port(key);
        let frontends = match self.host_ports.get(key) {
            Some(host_port) => compile::host_port_frontends(host_port, &self.addresses),
            None => Vec::new(),
        };
        let created = Created { seconds: 0, uid: key.into() };
        let claims = frontends.into_iter().map(|frontend| (frontend, Rank::host_port(&created))).collect();
        self.claim(&name, claims);
        self.dirty.insert(name);
    }

    fn claim(&mut self, name: &ServiceName, claims: Vec<(crate::addr::Frontend, Rank)>) {
        let changes = self.claims.replace(name, claims);
        self.dirty.extend(changes.lost);
        self.gained.extend(changes.gained.into_iter().filter(|gainer| gainer != name));
        if changes.took_over {
            self.gained.insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests;
