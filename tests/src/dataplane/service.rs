//! Services and endpoints in few words.
//!
//! Must not know: who serves them.

use std::net::IpAddr;
use std::sync::Arc;

use pagurus_agent_core::addr::{Family, Protocol};
use pagurus_agent_core::services::{
    Algorithm, Created, Endpoint, Forwarding, Service, ServiceName, ServicePort, Slice, SlicePort,
};

use crate::topology::Pair;

/// A Service without ports, with these cluster IPs, that does nothing special: fields are set as a test wants them.
///
/// # Panics
/// One of them is no address.
pub fn service(name: &str, cluster_ips: &[&str]) -> Service {
    let ip = |text: &&str| text.parse().unwrap_or_else(|_| panic!("{text:?} is no address"));
    Service {
        name: ServiceName::new("test", name),
        cluster_ips: cluster_ips.iter().map(ip).collect(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: Vec::new(),
        internal_local: false,
        external_local: false,
        affinity: 0,
        health_check_node_port: None,
        algorithm: Algorithm::Maglev,
        forwarding: Forwarding::Snat,
        created: Created::default(),
    }
}

/// What tests change of a Service.
pub trait With {
    /// Another port.
    #[must_use]
    fn port(self, name: &str, protocol: Protocol, port: u16) -> Self;
    /// A NodePort for the last port.
    ///
    /// # Panics
    /// There is no port yet.
    #[must_use]
    fn node_port(self, port: u16) -> Self;
}

impl With for Service {
    fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.ports.push(ServicePort { name: Arc::from(name), protocol, port, node_port: None });
        self
    }

    fn node_port(mut self, port: u16) -> Self {
        self.ports.last_mut().expect("a port comes first").node_port = Some(port);
        self
    }
}

/// An endpoint of a Service: an address of each family, and where each port of the Service is served.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its addresses.
    pub ips: Pair,
    /// Target ports by the name of the Service's port.
    pub ports: Vec<(&'static str, u16)>,
    /// Takes new connections.
    pub ready: bool,
    /// Able to serve, also while it terminates.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
}

impl Target {
    /// A ready one.
    pub fn new(ips: Pair, ports: &[(&'static str, u16)]) -> Self {
        Self { ips, ports: ports.to_vec(), ready: true, serving: true, terminating: false }
    }

    /// One on its way out that still serves.
    #[must_use]
    pub fn draining(self) -> Self {
        Self { ready: false, terminating: true, ..self }
    }
}

/// Names of the slices of a Service.
pub(super) fn slice_names(name: &ServiceName) -> [String; 2] {
    [format!("{}-v4", name.name), format!("{}-v6", name.name)]
}

/// The slices of a Service, one for each family; all targets have the same ports.
pub fn slices(
    service: &Service,
    targets: &[Target],
    is_local: impl Fn(IpAddr) -> bool,
) -> Vec<(String, Slice)> {
    let families = [Family::V4, Family::V6].into_iter().zip(slice_names(&service.name));
    let slice = |(family, name): (Family, String)| {
        let ports = service.ports.iter().filter_map(|port| {
            let served = targets.first()?.ports.iter().find(|(name, _)| **name == *port.name)?;
            Some(SlicePort { name: port.name.clone(), protocol: port.protocol, port: served.1 })
        });
        let endpoints = targets.iter().map(|target| {
            let [v4, v6] = target.ips.both();
            let ip = if family == Family::V4 { v4 } else { v6 };
            Endpoint {
                ip,
                ready: target.ready,
                serving: target.serving,
                terminating: target.terminating,
                local: is_local(ip),
                for_zones: Box::default(),
                for_nodes: Box::default(),
            }
        });
        let (ports, endpoints) = (ports.collect(), endpoints.collect());
        (name, Slice { service: service.name.clone(), family, ports, endpoints })
    };
    families.map(slice).collect()
}
