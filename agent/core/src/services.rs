//! Services and their endpoints: the desired state of the load-balancing maps.
//!
//! [`Desired`] is filled from watches and compiled, Service by Service, into [`Pool`]s; [`plan::Table`] turns those
//! into map operations. Must not know: API objects, maps as the kernel has them, time.

pub mod plan;
pub mod select;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Backend, Family, Frontend, Protocol, ServiceIp};

/// Namespace and name of a Service.
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
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service that has addresses (headless ones never get here).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Cluster IPs, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`: clients at the cluster IP reach only endpoints of their own node.
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`: for so many seconds a client stays with its backend. 0: it does not.
    pub affinity: u32,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it is the only one.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port at the cluster IPs.
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
}

/// Which endpoints a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// Those on this node.
    Local,
}

/// Name of a list of backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The Service.
    pub service: ServiceName,
    /// Name of the Service port.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Family of the addresses.
    pub family: Family,
    /// Which endpoints.
    pub scope: Scope,
}

/// A list of backends and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub key: PoolKey,
    /// Where it is reached.
    pub frontends: Vec<Frontend>,
    /// In order, each once.
    pub backends: Vec<Backend>,
    /// For so many seconds a client stays with its backend; 0: it does not.
    pub affinity: u32,
}

/// All Services and EndpointSlices, as last seen.
#[derive(Debug, Default)]
pub struct Desired {
    services: HashMap<ServiceName, Service>,
    slices: HashMap<ServiceName, BTreeMap<Arc<str>, Slice>>,
    /// Which Service a slice was last seen with: a change of that label must clean the old Service.
    slice_owner: HashMap<(Arc<str>, Arc<str>), ServiceName>,
    /// Services whose compiled form may have changed.
    dirty: BTreeSet<ServiceName>,
}

impl Desired {
    /// A Service as it is now.
    pub fn set_service(&mut self, service: Service) {
        let name = service.name.clone();
        if self.services.get(&name) != Some(&service) {
            self.services.insert(name.clone(), service);
            self.dirty.insert(name);
        }
    }

    /// A Service is gone, or has no addresses any more.
    pub fn remove_service(&mut self, name: &ServiceName) {
        if self.services.remove(name).is_some() {
            self.dirty.insert(name.clone());
        }
    }

    /// An EndpointSlice as it is now.
    pub fn set_slice(&mut self, name: &str, slice: Slice) {
        let key = (slice.service.namespace.clone(), Arc::from(name));
        if self.slice_owner.get(&key).is_some_and(|owner| *owner != slice.service) {
            self.remove_slice(&key.0, name);
        }
        let slices = self.slices.entry(slice.service.clone()).or_default();
        if slices.get(name) == Some(&slice) {
            return;
        }
        self.dirty.insert(slice.service.clone());
        self.slice_owner.insert(key.clone(), slice.service.clone());
        slices.insert(key.1, slice);
    }

    /// An EndpointSlice is gone, or belongs to no Service any more.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(owner) = self.slice_owner.remove(&(Arc::from(namespace), Arc::from(name))) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.dirty.insert(owner);
    }

    /// Names of all Services with addresses.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Names of all EndpointSlices: namespace, name.
    pub fn slice_names(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.slice_owner.keys()
    }

    /// Takes the Services that may have changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.dirty)
    }

    /// Marks a Service to be looked at again.
    pub fn mark_dirty(&mut self, name: ServiceName) {
        self.dirty.insert(name);
    }

    /// The pools of a Service; none if it is gone.
    pub fn compile(&self, name: &ServiceName) -> Vec<Pool> {
        let Some(service) = self.services.get(name) else { return Vec::new() };
        let slices = self.slices.get(name);
        let mut pools = Vec::with_capacity(service.ports.len() * service.cluster_ips.len());
        for port in &service.ports {
            for ip in &service.cluster_ips {
                let family = Family::of(ip);
                let own = Frontend { ip: ServiceIp::Own(*ip), port: port.port, protocol: port.protocol };
                let nodes = port.node_port.map(|node_port| Frontend {
                    ip: ServiceIp::Nodes(family),
                    port: node_port,
                    protocol: port.protocol,
                });
                let pool = |scope, frontends| {
                    let key = PoolKey {
                        service: name.clone(),
                        port: port.name.clone(),
                        protocol: port.protocol,
                        family,
                        scope,
                    };
                    let backends =
                        slices.map_or_else(Vec::new, |slices| select::backends(&key, slices.values()));
                    Pool { key, frontends, backends, affinity: service.affinity }
                };
                if service.internal_local {
                    pools.push(pool(Scope::Local, vec![own]));
                    pools.extend(nodes.map(|nodes| pool(Scope::Cluster, vec![nodes])));
                } else {
                    pools.push(pool(Scope::Cluster, [own].into_iter().chain(nodes).collect()));
                }
            }
        }
        pools
    }
}

#[cfg(test)]
mod tests;
