//! What the programs would do with a packet, step by step, from what is in the maps now: the same decisions in the same order as
//! theirs, in plain Rust. For people who ask why a connection goes where it goes; no packet is sent.
//!
//! Must not know: how maps are read. A change of the programs' decisions belongs here, too.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use pagurus_ebpf_abi::{
    Address, BACKEND_DRAINING, BACKEND_LOCAL, Backend, ClientKey, ClientValue, Endpoint, Extent, FLOW_DSR,
    FLOW_FIN, FLOW_MASQUERADE, FLOW_OUTSIDE, FLOW_REPLY, FLOW_RESET, FLOW_SNAT, FlowState, FlowTuple,
    NODE_ADDRESS_LOCAL, NODE_ADDRESS_NODE_PORTS, NODE_DELIVER, NODE_FORWARD, NODE_MASQUERADE, NodeConfig,
    Port, SERVICE_AFFINITY, SERVICE_DSR, SERVICE_EXTERNAL, SERVICE_HAS_ENDPOINTS, SERVICE_HOST_PORT,
    SERVICE_INSIDE_LOCAL, SERVICE_OUTSIDE_LOCAL, SERVICE_RANDOM, SERVICE_SOURCE_RANGES, ServiceKey,
    ServiceValue, client_hash, flow_hash, place,
};

use crate::addr::Protocol;

/// The port a client is taken to send from, if none is given: the first the kernel gives out.
pub const SOURCE_PORT: u16 = 32_768;

const NANOSECONDS: u64 = 1_000_000_000;

/// The maps, to be read.
pub trait Maps {
    /// What is known of the node.
    fn config(&self) -> Option<NodeConfig>;
    /// What is behind exactly this key.
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue>;
    /// A place of the flat table.
    fn slot(&self, place: u32) -> Option<u32>;
    /// A backend by its id.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Flags of an address of a node.
    fn node(&self, address: &Address) -> Option<u32>;
    /// What becomes of the packets of a flow.
    fn flow(&self, tuple: &FlowTuple) -> Option<FlowState>;
    /// Whether a client is in a Service's source ranges.
    fn allows(&self, service: u32, client: &Address) -> bool;
    /// The endpoint a client was given last.
    fn client(&self, key: &ClientKey) -> Option<ClientValue>;
    /// A pod of this node.
    fn pod(&self, address: &Address) -> Option<Endpoint>;
    /// Now, in nanoseconds since the machine was started, as the maps have times.
    fn now(&self) -> u64;
    /// Name of a Service.
    fn name(&self, service: u32) -> Option<String>;
}

/// Which packet.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Who sends it; none: a pod of this node, or this node itself.
    pub from: Option<IpAddr>,
    /// From which port.
    pub from_port: u16,
    /// Where to.
    pub to: SocketAddr,
    /// How.
    pub protocol: Protocol,
    /// Whether a client on this node asks with a socket, whose programs come first; not so for raw sockets, and for those in another
    /// network namespace than their pod's.
    pub socket: bool,
    /// Whether it is the first packet of its connection (TCP: a SYN).
    pub first: bool,
}

/// One step: which program, and what it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The program.
    pub program: &'static str,
    /// What it finds, or decides.
    pub text: String,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The programs do nothing with it.
    Untouched,
    /// It goes to this backend.
    Backend(SocketAddr),
    /// It goes to one of so many backends, chosen at random.
    AnyOf(u32),
    /// The client is told at once that nobody is there.
    Refused,
    /// It is dropped.
    Dropped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untouched => f.write_str("left to the kernel as it is"),
            Self::Backend(to) => write!(f, "to {to}"),
            Self::AnyOf(count) => write!(f, "to one of {count} backends"),
            Self::Refused => f.write_str("refused"),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// How it ends.
    pub outcome: Outcome,
}

/// Follows a packet.
pub fn trace(maps: &impl Maps, question: &Question) -> Trace {
    let mut follower = Follower { maps, question, steps: Vec::new(), program: "node" };
    let outcome = follower.follow();
    Trace { steps: follower.steps, outcome }
}

struct Follower<'a, M> {
    maps: &'a M,
    question: &'a Question,
    steps: Vec<Step>,
    program: &'static str,
}

impl<M: Maps> Follower<'_, M> {
    fn say(&mut self, text: impl Into<String>) {
        self.steps.push(Step { program: self.program, text: text.into() });
    }

    fn follow(&mut self) -> Outcome {
        let Some(config) = self.maps.config() else {
            self.say("CONFIG is empty: no agent has been here");
            return Outcome::Untouched;
        };
        let client = self.question.from.map(|ip| address(&ip));
        let is_inside = client.is_none_or(|client| {
            self.maps.pod(&client).is_some()
                || self.maps.node(&client).is_some_and(|flags| flags & NODE_ADDRESS_LOCAL != 0)
        });
        let key = key(self.question);
        if !is_inside {
            self.program = "from_outside";
            self.say("the client is neither a pod of this node nor this node: its packets come in at an uplink or the overlay");
            return self.packet(&config, &key, client.unwrap_or(Address::ANY_V6), false);
        }
        // The kernel has no hook for sockets of SCTP. Sockets are asked when a connection begins, and then no more.
        if self.question.socket && self.question.first && self.question.protocol != Protocol::Sctp {
            self.program = if self.question.to.is_ipv4() { "connect4" } else { "connect6" };
            if let Some(outcome) = self.socket(&config, &key) {
                return outcome;
            }
        }
        match client {
            Some(client) => {
                self.program = if self.maps.pod(&client).is_some() { "from_pod" } else { "to_outside" };
                self.packet(&config, &key, client, true)
            }
            None => {
                self.program = "from_pod";
                self.say("what the packet programs decide depends on the client: give --from");
                Outcome::Untouched
            }
        }
    }

    /// At the socket; none if it is decided on at the packets.
    fn socket(&mut self, config: &NodeConfig, key: &ServiceKey) -> Option<Outcome> {
        let service = self.service(config, key, true)?;
        if service.flags & SERVICE_SOURCE_RANGES != 0 {
            self.say("has source ranges: left to the packet programs, which know the client's address");
            return None;
        }
        let count = service.inside.count;
        if count == 0 {
            self.say("no backend for clients on this node: connect fails with ECONNREFUSED");
            return Some(Outcome::Refused);
        }
        if service.flags & SERVICE_AFFINITY != 0 {
            self.say(format!(
                "session affinity: a client stays with its endpoint for {} s (CLIENTS); one that asks for the first time gets any",
                service.affinity_seconds
            ));
        }
        self.list(&service.inside, "for clients on this node, one at random of");
        Some(match (count, self.at(&service.inside, 0)) {
            (1, Some((_, backend))) => Outcome::Backend(socket_address(&backend)),
            _ => Outcome::AnyOf(count),
        })
    }

    /// At the packets.
    fn packet(&mut self, config: &NodeConfig, key: &ServiceKey, client: Address, is_inside: bool) -> Outcome {
        let tuple = FlowTuple {
            source: client,
            destination: key.address,
            source_port: Port::new(self.question.from_port),
            destination_port: key.port,
            protocol: key.protocol,
            reserved: [0; 3],
        };
        let known = self.maps.flow(&tuple);
        match &known {
            Some(state) => {
                if let Some(outcome) = self.known(&tuple, state) {
                    return outcome;
                }
            }
            None => {
                self.say(format!(
                    "CONNTRACK: no connection from port {}: a new one",
                    self.question.from_port
                ));
            }
        }
        let Some(service) = self.service(config, key, is_inside) else {
            if known.is_some() {
                self.say("its Service is gone, too: the client is told (backend_gone)");
                return Outcome::Refused;
            }
            return self.no_service(config, &tuple, is_inside);
        };
        self.choose(config, &tuple, &service, is_inside)
    }

    /// A connection that is in the table; none if it is chosen anew.
    fn known(&mut self, tuple: &FlowTuple, state: &FlowState) -> Option<Outcome> {
        let to = SocketAddr::new(ip(&state.destination), state.destination_port.number());
        if state.flags & FLOW_REPLY != 0 {
            self.say(format!("CONNTRACK: an answer; its destination becomes {to}"));
            return Some(Outcome::Backend(to));
        }
        let is_first = self.question.first && tuple.protocol == Protocol::Tcp.number();
        let ended = FLOW_FIN | FLOW_RESET;
        let other = || self.maps.flow(&state.other(tuple.protocol)).map_or(0, |other| other.flags);
        if is_first && (state.flags | other()) & ended != 0 {
            self.say(format!("CONNTRACK: a connection to {to} from the same port has ended: a new one"));
            return None;
        }
        if state.backend != 0 {
            let backend = self.maps.backend(state.backend).filter(|backend| {
                backend.protocol != 0
                    && backend.address == state.destination
                    && backend.port == state.destination_port
            });
            let has_connections = tuple.protocol != Protocol::Udp.number();
            match backend {
                Some(backend) if backend.flags & BACKEND_DRAINING == 0 => {
                    if !has_connections && !self.keeps(tuple, state) {
                        self.say(format!(
                            "CONNTRACK: its Service no longer leads this client to {to}: chosen anew"
                        ));
                        return None;
                    }
                }
                _ if is_first || !has_connections => {
                    self.say(format!("CONNTRACK: its backend {to} takes nothing new: chosen anew"));
                    return None;
                }
                Some(_) => self.say("the backend is draining: this connection goes on"),
                None => {
                    self.say(format!("CONNTRACK: its backend {to} is gone: the client is told"));
                    return Some(Outcome::Refused);
                }
            }
        }
        let how = if state.flags & FLOW_DSR != 0 {
            "handed as it is to the node of"
        } else if state.flags & FLOW_MASQUERADE != 0 {
            "with this node's address to"
        } else if state.flags & FLOW_SNAT != 0 {
            "with this node's address, which its answers come back to, to"
        } else {
            "to"
        };
        self.say(format!("CONNTRACK: a known connection (backend {}): {how} {to}", state.backend));
        Some(Outcome::Backend(to))
    }

    /// The Service of a destination.
    fn service(&mut self, config: &NodeConfig, key: &ServiceKey, is_inside: bool) -> Option<ServiceValue> {
        if let Some(service) = self.maps.service(key) {
            self.found("SERVICES: this address and port are", &service);
            return Some(service);
        }
        let number = key.port.number();
        if number < config.node_port_first || number > config.node_port_last {
            self.say(format!(
                "SERVICES: nothing at this address and port, and {number} is no NodePort ({}-{})",
                config.node_port_first, config.node_port_last
            ));
            return None;
        }
        let Some(flags) = self.maps.node(&key.address).filter(|flags| flags & NODE_ADDRESS_NODE_PORTS != 0)
        else {
            self.say("SERVICES: nothing at this address and port; NODES: NodePorts are not reached at this address");
            return None;
        };
        let address = if key.address.is_v4() { Address::ANY_V4 } else { Address::ANY_V6 };
        let Some(found) = self.maps.service(&ServiceKey { address, ..*key }) else {
            self.say(format!("SERVICES: no Service has the NodePort {number} in this family and protocol"));
            return None;
        };
        self.found("SERVICES: this NodePort is", &found);
        let is_local = flags & NODE_ADDRESS_LOCAL != 0;
        if !is_local && found.flags & SERVICE_OUTSIDE_LOCAL != 0 {
            self.say("the address is another node's, which chooses from its own endpoints (externalTrafficPolicy: Local)");
            return None;
        }
        if !is_local && !is_inside && found.flags & SERVICE_DSR == 0 {
            self.say("the address is another node's");
            return None;
        }
        Some(found)
    }

    fn found(&mut self, what: &str, service: &ServiceValue) {
        let name = self.maps.name(service.service).unwrap_or_else(|| "unnamed".to_owned());
        let flags = [
            (SERVICE_EXTERNAL, "external"),
            (SERVICE_OUTSIDE_LOCAL, "externalTrafficPolicy: Local"),
            (SERVICE_INSIDE_LOCAL, "internalTrafficPolicy: Local"),
            (SERVICE_AFFINITY, "session affinity"),
            (SERVICE_SOURCE_RANGES, "source ranges"),
            (SERVICE_DSR, "direct server return"),
            (SERVICE_RANDOM, "random"),
            (SERVICE_HOST_PORT, "hostPort"),
        ];
        let names: Vec<&str> =
            flags.iter().filter(|(flag, _)| service.flags & flag != 0).map(|(_, name)| *name).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        self.say(format!(
            "{what} Service {} {name}{names}, generation {}",
            service.service, service.generation
        ));
    }

    fn no_service(&mut self, config: &NodeConfig, tuple: &FlowTuple, is_inside: bool) -> Outcome {
        if let Some(pod) = self.maps.pod(&tuple.destination).filter(|_| config.flags & NODE_DELIVER != 0) {
            self.say(format!("ENDPOINTS: a pod of this node: straight to device {}", pod.ifindex));
            return Outcome::Untouched;
        }
        if !is_inside || self.maps.pod(&tuple.source).is_none() {
            return Outcome::Untouched;
        }
        let is_answer = tuple.protocol == Protocol::Tcp.number() && !self.question.first;
        if config.flags & NODE_MASQUERADE != 0
            && !is_in_networks(config, &tuple.destination)
            && self.maps.node(&tuple.destination).is_none()
            && !is_answer
        {
            self.program = "to_outside";
            self.say("neither in the cluster's networks nor a node: leaves with this node's address");
        } else if config.flags & NODE_FORWARD != 0 {
            self.say("sent on with the pod's own address");
        }
        Outcome::Untouched
    }

    /// Whether a Service still gives the client of a flow of datagrams its backend.
    fn keeps(&self, tuple: &FlowTuple, state: &FlowState) -> bool {
        let (address, port, protocol) = (tuple.destination, tuple.destination_port, tuple.protocol);
        let exact = ServiceKey { address, port, protocol, reserved: 0 };
        let any = if address.is_v4() { Address::ANY_V4 } else { Address::ANY_V6 };
        let found =
            self.maps.service(&exact).or_else(|| self.maps.service(&ServiceKey { address: any, ..exact }));
        let Some(service) = found else { return false };
        if service.generation as u16 == state.generation() {
            return true;
        }
        let is_allowed =
            service.flags & SERVICE_SOURCE_RANGES == 0 || self.maps.allows(service.service, &tuple.source);
        let extent = if state.flags & FLOW_OUTSIDE != 0 { service.outside } else { service.inside };
        let is_its = |(_, backend): (u32, Backend)| {
            backend.address == state.destination && backend.port == state.destination_port
        };
        service.service == state.service
            && is_allowed
            && (0..extent.count).any(|place| self.at(&extent, place).is_some_and(is_its))
    }

    /// A new connection to a Service.
    fn choose(
        &mut self,
        config: &NodeConfig,
        tuple: &FlowTuple,
        service: &ServiceValue,
        is_inside: bool,
    ) -> Outcome {
        if service.flags & SERVICE_SOURCE_RANGES != 0 {
            if !self.maps.allows(service.service, &tuple.source) {
                self.say("SOURCE_RANGES: the client is in none of them: dropped (source_range)");
                return Outcome::Dropped;
            }
            self.say("SOURCE_RANGES: the client may use it");
        }
        let (extent, local) = if is_inside {
            (service.inside, SERVICE_INSIDE_LOCAL)
        } else {
            // A cluster IP has one policy for everybody.
            (service.outside, SERVICE_OUTSIDE_LOCAL | SERVICE_INSIDE_LOCAL)
        };
        if extent.count == 0 {
            if service.flags & local != 0 && service.flags & SERVICE_HAS_ENDPOINTS != 0 {
                self.say("a Local policy, and no endpoint on this node: dropped (no_local_endpoint)");
                return Outcome::Dropped;
            }
            self.say("no endpoint: TCP reset or ICMP port unreachable (no_endpoint)");
            return Outcome::Refused;
        }
        let remembers = !hands_on(service.flags) || is_inside;
        let chosen = if remembers { self.remembered(service, &extent, tuple) } else { None };
        let is_random = service.flags & (SERVICE_RANDOM | SERVICE_AFFINITY) == SERVICE_RANDOM && !is_inside;
        if chosen.is_none() && is_random {
            self.list(&extent, "one at random of");
            return Outcome::AnyOf(extent.count);
        }
        let Some((id, backend)) = chosen.or_else(|| self.by_hash(service, &extent, tuple, is_inside)) else {
            self.say("SLOTS: the place names no backend: refused");
            return Outcome::Refused;
        };
        self.forward(config, tuple, service, (id, &backend), is_inside)
    }

    /// The endpoint that a client stays with.
    fn remembered(
        &mut self,
        service: &ServiceValue,
        extent: &Extent,
        tuple: &FlowTuple,
    ) -> Option<(u32, Backend)> {
        if service.flags & SERVICE_AFFINITY == 0 {
            return None;
        }
        let known =
            self.maps.client(&ClientKey { client: tuple.source, service: service.service, reserved: 0 });
        let lasts = u64::from(service.affinity_seconds) * NANOSECONDS;
        let is_over = known.is_some_and(|known| self.maps.now().saturating_sub(known.last) > lasts);
        let found = known.filter(|_| !is_over).and_then(|known| {
            (0..extent.count)
                .filter_map(|at| self.at(extent, at))
                .find(|(_, backend)| backend.address == known.address)
        });
        match (&known, &found) {
            (Some(known), Some(_)) => {
                self.say(format!("CLIENTS: the client had {} last and stays there", ip(&known.address)));
            }
            (Some(known), None) if is_over => {
                self.say(format!("CLIENTS: the client had {}, too long ago", ip(&known.address)));
            }
            (Some(known), None) => self
                .say(format!("CLIENTS: the client had {}, which is no backend any more", ip(&known.address))),
            (None, _) => self.say("CLIENTS: the client asks for the first time"),
        }
        found
    }

    fn by_hash(
        &mut self,
        service: &ServiceValue,
        extent: &Extent,
        tuple: &FlowTuple,
        is_inside: bool,
    ) -> Option<(u32, Backend)> {
        let has_affinity = service.flags & SERVICE_AFFINITY != 0;
        let hash = if has_affinity { client_hash(&tuple.source) } else { flow_hash(tuple) };
        let by_maglev = !is_inside && service.maglev.count != 0;
        let table = if by_maglev { service.maglev } else { *extent };
        let at = place(hash, table.count);
        let found = self.at(&table, at)?;
        let (what, of) =
            if by_maglev { ("the Maglev table", extent.count) } else { ("the list", table.count) };
        self.say(format!(
            "SLOTS: hash {hash:#010x} of the {} is place {at} of {} in {what}: backend {} of {of}",
            if has_affinity { "client" } else { "connection" },
            table.count,
            found.0,
        ));
        Some(found)
    }

    fn forward(
        &mut self,
        config: &NodeConfig,
        tuple: &FlowTuple,
        service: &ServiceValue,
        (id, backend): (u32, &Backend),
        is_inside: bool,
    ) -> Outcome {
        let to = socket_address(backend);
        let is_local = backend.flags & BACKEND_LOCAL != 0;
        let (is_replaced, way) = if self.program == "from_pod" && backend.address == tuple.source {
            (true, "the client itself: with this node's address as the source (hairpin)")
        } else if is_local {
            (false, "on this node: the client's address is kept")
        } else if !is_inside && hands_on(service.flags) {
            (
                false,
                "on another node: handed there as it is, that node answers the client (direct server return)",
            )
        } else if !is_inside {
            (true, "on another node: with this node's address as the source")
        } else if config.flags & NODE_MASQUERADE != 0
            && self.program == "from_pod"
            && !is_in_networks(config, &backend.address)
            && self.maps.node(&backend.address).is_none()
        {
            (true, "outside of the cluster's networks: with this node's address as the source")
        } else {
            (false, "on another node: the client's address is kept")
        };
        self.say(format!("BACKENDS: {id} is {to}, {way}"));
        let is_own = self.maps.node(&backend.address).is_some_and(|flags| flags & NODE_ADDRESS_LOCAL != 0);
        if self.program == "to_outside" && is_own {
            self.say("this node's own, which answers by no device with programs: refused (no_route)");
            return Outcome::Refused;
        }
        if is_replaced && !self.question.first && tuple.protocol == Protocol::Tcp.number() {
            self.say("the port that the backend knows this connection by is lost: the client is told (unknown_connection)");
            return Outcome::Refused;
        }
        Outcome::Backend(to)
    }

    fn at(&self, extent: &Extent, place: u32) -> Option<(u32, Backend)> {
        let id = self.maps.slot(extent.first.wrapping_add(place))?;
        let backend = self.maps.backend(id).filter(|backend| backend.protocol != 0)?;
        Some((id, backend))
    }

    /// Names the first backends of a list.
    fn list(&mut self, extent: &Extent, what: &str) {
        const SHOWN: u32 = 8;
        let names: Vec<String> = (0..extent.count.min(SHOWN))
            .filter_map(|at| self.at(extent, at))
            .map(|(_, backend)| socket_address(&backend).to_string())
            .collect();
        let more =
            if extent.count > SHOWN { format!(" and {} more", extent.count - SHOWN) } else { String::new() };
        self.say(format!("{what} {}{more}", names.join(", ")));
    }
}

fn key(question: &Question) -> ServiceKey {
    ServiceKey {
        address: address(&question.to.ip()),
        port: Port::new(question.to.port()),
        protocol: question.protocol.number(),
        reserved: 0,
    }
}

/// Whether the nodes of a Service's backends answer clients outside themselves.
fn hands_on(flags: u32) -> bool {
    flags & SERVICE_DSR != 0 && flags & (SERVICE_RANDOM | SERVICE_AFFINITY) != SERVICE_RANDOM
}

fn is_in_networks(config: &NodeConfig, address: &Address) -> bool {
    let filled = config.networks.iter().take(config.networks_len as usize);
    let masked = |network: &pagurus_ebpf_abi::Network| {
        let words = address.words.iter().zip(network.mask.words).zip(network.address.words);
        words.into_iter().all(|((word, mask), wanted)| word & mask == wanted)
    };
    filled.into_iter().any(masked)
}

fn address(ip: &IpAddr) -> Address {
    Address::from_octets(match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

fn ip(address: &Address) -> IpAddr {
    IpAddr::from(address.octets()).to_canonical()
}

fn socket_address(backend: &Backend) -> SocketAddr {
    SocketAddr::new(ip(&backend.address), backend.port.number())
}

#[cfg(test)]
mod tests;
