//! A Service as the maps will hold it: its frontends, and which of its endpoints each leads to.
//!
//! Must not know: ids, places in maps. What is decided here is what kube-proxy decides (see [`select`](super::select)):
//!
//! | frontend | clients on this node | others |
//! |---|---|---|
//! | cluster IP | internalTrafficPolicy | the same |
//! | NodePort, external and load balancer's address | all endpoints | externalTrafficPolicy |
//!
//! A Service serves a family if it has a cluster IP of it; addresses of another are left out. `loadBalancerSourceRanges` hold
//! for the load balancer's addresses only, in each family for itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Backend, Family, Frontend, Protocol, ServiceIp};
use crate::services::claims::Rank;
use crate::services::plan::Flags;
use crate::services::select::{self, Here};
use crate::services::{Algorithm, Desired, Forwarding, HostPort, NodeAddress, Service, ServiceName};

/// The port of DNS.
const DNS: u16 = 53;

/// An endpoint of a Service at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Where it is.
    pub backend: Backend,
    /// Runs on this node.
    pub local: bool,
    /// No frontend leads to it: it takes no new connections.
    pub draining: bool,
}

/// A frontend and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What clients connect to.
    pub frontend: Frontend,
    /// How it behaves.
    pub flags: Flags,
    /// For so many seconds a client stays with its backend; 0: it does not.
    pub affinity: u32,
    /// The list for clients on this node: a place in [`Compiled::lists`].
    pub inside: usize,
    /// The list for others.
    pub outside: usize,
    /// Whether others choose by a Maglev table.
    pub maglev: bool,
}

/// A Service as the maps will hold it; empty if it is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Every endpoint in any of its slices, in order.
    pub members: Vec<Member>,
    /// Lists of places in `members`, in order; none twice.
    pub lists: Vec<Vec<u32>>,
    /// Its frontends; those that another Service has are not among them.
    pub routes: Vec<Route>,
    /// Who may use frontends with [`Flags::SOURCE_RANGES`]; in order.
    pub ranges: Vec<IpNet>,
}

impl Compiled {
    /// The backends of a list.
    pub fn backends(&self, list: usize) -> impl Iterator<Item = Backend> {
        let places = self.lists.get(list).into_iter().flatten();
        places.filter_map(|place| Some(self.members.get(*place as usize)?.backend))
    }
}

impl Desired {
    /// A Service, or a host port, as the maps should hold it; empty if it is gone.
    pub fn compile(&self, name: &ServiceName) -> Compiled {
        let mut draft = Draft::default();
        if let Some(service) = self.services.get(name) {
            self.compile_service(service, &mut draft);
        } else if let Some(host_port) = self.host_ports.get(&name.name).filter(|_| name.namespace.is_empty())
        {
            let backend = Backend {
                ip: host_port.target_ip,
                port: host_port.target_port,
                protocol: host_port.protocol,
            };
            let list = draft.list(vec![backend]);
            draft.members.push(Member { backend, local: true, draining: false });
            let flags = Flags::EXTERNAL | Flags::HOST_PORT | Flags::HAS_ENDPOINTS;
            for frontend in host_port_frontends(host_port, &self.addresses) {
                draft.routes.push(Route {
                    frontend,
                    flags,
                    affinity: 0,
                    inside: list,
                    outside: list,
                    maglev: false,
                });
            }
        }
        draft.routes.retain(|route| self.claims.holder(&route.frontend).is_none_or(|holder| holder == name));
        draft.finish()
    }

    fn compile_service(&self, service: &Service, draft: &mut Draft) {
        let name = &service.name;
        let slices = self.slices.get(name);
        let here = Here { node: &self.node_name, zone: self.zone.as_deref() };
        for range in &service.source_ranges {
            draft.ranges.push(range.trunc());
        }
        for cluster_ip in &service.cluster_ips {
            let family = Family::of(cluster_ip);
            for port in &service.ports {
                let slices = slices.into_iter().flatten().map(|(_, slice)| slice);
                let candidates = select::candidates(slices, family, &port.name, port.protocol, here);
                draft.members.extend(candidates.iter().map(|candidate| Member {
                    backend: candidate.backend,
                    local: candidate.local,
                    draining: true,
                }));
                let choice = select::choose(&candidates);
                let pick = |places: &[usize]| places.iter().map(|place| candidates[*place].backend).collect();
                let mut port_draft = PortDraft {
                    service,
                    family,
                    protocol: port.protocol,
                    cluster: draft.list(pick(&choice.cluster)),
                    everywhere: draft.list(pick(&choice.everywhere)),
                    local: draft.list(pick(&choice.local)),
                    has_any: choice.has_any(),
                };
                if let Some(dns) = self.local_dns(service, family).filter(|_| port.port == DNS) {
                    let backend = Backend { ip: dns, port: DNS, protocol: port.protocol };
                    draft.members.push(Member { backend, local: true, draining: true });
                    let list = draft.list(vec![backend]);
                    (port_draft.cluster, port_draft.everywhere, port_draft.local) = (list, list, list);
                    port_draft.has_any = true;
                }
                port_draft.cluster_ip(draft, *cluster_ip, port.port);
                if let Some(node_port) = port.node_port {
                    port_draft.external(draft, ServiceIp::Nodes(family), node_port, Flags::NONE);
                }
                for ip in service.external_ips.iter().filter(|ip| Family::of(ip) == family) {
                    port_draft.external(draft, ServiceIp::Own(*ip), port.port, Flags::NONE);
                }
                let guard = source_range_flag(&service.source_ranges, family);
                for ip in service.load_balancer_ips.iter().filter(|ip| Family::of(ip) == family) {
                    port_draft.external(draft, ServiceIp::Own(*ip), port.port, guard);
                }
            }
        }
    }

    /// Where this node answers the queries to a Service itself.
    fn local_dns(&self, service: &Service, family: Family) -> Option<IpAddr> {
        let dns = self.local_dns.as_ref().filter(|dns| dns.service == service.name)?;
        dns.ips.iter().copied().find(|ip| Family::of(ip) == family)
    }
}

/// Whether anybody is kept out in this family.
fn source_range_flag(ranges: &[IpNet], family: Family) -> Flags {
    let mut own = ranges.iter().filter(|range| Family::of(&range.addr()) == family).peekable();
    if own.peek().is_none() || own.any(|range| range.prefix_len() == 0) {
        Flags::NONE
    } else {
        Flags::SOURCE_RANGES
    }
}

/// What a Service claims.
pub(super) fn claims(service: &Service) -> Vec<(Frontend, Rank)> {
    let mut claims = Vec::new();
    for cluster_ip in &service.cluster_ips {
        let family = Family::of(cluster_ip);
        for port in &service.ports {
            let own = |ip, port, protocol| Frontend { ip, port, protocol };
            let cluster_ip = own(ServiceIp::Own(*cluster_ip), port.port, port.protocol);
            claims.push((cluster_ip, Rank::cluster_ip(&service.created)));
            if let Some(node_port) = port.node_port {
                let nodes = own(ServiceIp::Nodes(family), node_port, port.protocol);
                claims.push((nodes, Rank::external(&service.created)));
            }
            let external = service.external_ips.iter().chain(&service.load_balancer_ips);
            for ip in external.filter(|ip| Family::of(ip) == family) {
                let external = own(ServiceIp::Own(*ip), port.port, port.protocol);
                claims.push((external, Rank::external(&service.created)));
            }
        }
    }
    claims
}

/// Where a host port is reached.
pub(super) fn host_port_frontends(
    host_port: &HostPort,
    addresses: &BTreeMap<IpAddr, NodeAddress>,
) -> Vec<Frontend> {
    let family = Family::of(&host_port.target_ip);
    let own = addresses.iter().filter(|(_, address)| address.local).map(|(ip, _)| *ip);
    let ips: Vec<IpAddr> = match host_port.ip {
        Some(ip) if ip.is_unspecified() => own.collect(),
        Some(ip) => vec![ip],
        None => own.collect(),
    };
    let ips = ips.into_iter().filter(|ip| Family::of(ip) == family);
    ips.map(|ip| Frontend { ip: ServiceIp::Own(ip), port: host_port.port, protocol: host_port.protocol })
        .collect()
}

/// The lists of one port in one family.
struct PortDraft<'a> {
    service: &'a Service,
    family: Family,
    protocol: Protocol,
    cluster: usize,
    everywhere: usize,
    local: usize,
    has_any: bool,
}

impl PortDraft<'_> {
    /// What all frontends of the port have.
    fn flags(&self) -> Flags {
        let affinity = if self.service.affinity > 0 { Flags::AFFINITY } else { Flags::NONE };
        let any = if self.has_any { Flags::HAS_ENDPOINTS } else { Flags::NONE };
        affinity | any
    }

    fn cluster_ip(&self, draft: &mut Draft, ip: IpAddr, port: u16) {
        let local = self.service.internal_local;
        let list = if local { self.local } else { self.cluster };
        let policy = if local { Flags::INSIDE_LOCAL } else { Flags::NONE };
        let frontend = Frontend { ip: ServiceIp::Own(ip), port, protocol: self.protocol };
        draft.route(Route {
            frontend,
            flags: self.flags() | policy,
            affinity: self.service.affinity,
            inside: list,
            outside: list,
            maglev: false,
        });
    }

    fn external(&self, draft: &mut Draft, ip: ServiceIp, port: u16, guard: Flags) {
        debug_assert!(!matches!(ip, ServiceIp::Nodes(family) if family != self.family));
        let service = self.service;
        let is_random = service.algorithm == Algorithm::Random;
        // The backend's node must choose the same backend, by the same table.
        let is_dsr = service.forwarding == Forwarding::Dsr && !service.external_local && !is_random;
        let mut flags = self.flags() | Flags::EXTERNAL | guard;
        flags = if service.external_local { flags | Flags::OUTSIDE_LOCAL } else { flags };
        flags = if is_random { flags | Flags::RANDOM } else { flags };
        flags = if is_dsr { flags | Flags::DSR } else { flags };
        let outside = match (service.external_local, is_dsr) {
            (true, _) => self.local,
            (false, true) => self.everywhere,
            (false, false) => self.cluster,
        };
        draft.route(Route {
            frontend: Frontend { ip, port, protocol: self.protocol },
            flags,
            affinity: service.affinity,
            inside: self.cluster,
            outside,
            maglev: !is_random && draft.lists[outside].len() > 1,
        });
    }
}

/// A compiled Service in the making.
#[derive(Default)]
struct Draft {
    members: Vec<Member>,
    lists: Vec<Vec<Backend>>,
    routes: Vec<Route>,
    ranges: Vec<IpNet>,
}

impl Draft {
    /// The place of a list.
    fn list(&mut self, list: Vec<Backend>) -> usize {
        if let Some(place) = self.lists.iter().position(|known| *known == list) {
            return place;
        }
        self.lists.push(list);
        self.lists.len() - 1
    }

    /// The first of several ports with the same number counts.
    fn route(&mut self, route: Route) {
        if !self.routes.iter().any(|known| known.frontend == route.frontend) {
            self.routes.push(route);
        }
    }

    fn finish(mut self) -> Compiled {
        if self.routes.is_empty() {
            return Compiled::default();
        }
        self.members.sort_unstable();
        self.members.dedup_by(|later, kept| {
            let same = later.backend == kept.backend;
            kept.local |= same && later.local;
            same
        });
        // Lists that only routes of other Services would have used go.
        let mut used = vec![None; self.lists.len()];
        let mut lists = Vec::new();
        for route in &mut self.routes {
            for list in [&mut route.inside, &mut route.outside] {
                let place = *used[*list].get_or_insert_with(|| {
                    lists.push(std::mem::take(&mut self.lists[*list]));
                    lists.len() - 1
                });
                *list = place;
            }
        }
        let members = &mut self.members;
        let mut places = |list: Vec<Backend>| -> Vec<u32> {
            let place = |backend: Backend| {
                let place = members.binary_search_by_key(&backend, |member| member.backend).ok()?;
                members[place].draining = false;
                u32::try_from(place).ok()
            };
            list.into_iter().filter_map(place).collect()
        };
        let lists = lists.into_iter().map(&mut places).collect();
        self.ranges.sort_unstable();
        self.ranges.dedup();
        if !self.routes.iter().any(|route| route.flags.has(Flags::SOURCE_RANGES)) {
            self.ranges.clear();
        }
        Compiled { members: self.members, lists, routes: self.routes, ranges: self.ranges }
    }
}
