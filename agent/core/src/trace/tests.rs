//! Traces over small maps.

use std::collections::BTreeMap;

use pagurus_ebpf_abi::{NETWORKS, Network};

use super::*;

#[derive(Default)]
struct Small {
    services: BTreeMap<ServiceKey, ServiceValue>,
    slots: Vec<u32>,
    backends: Vec<Backend>,
    nodes: BTreeMap<Address, u32>,
    flows: BTreeMap<FlowTuple, FlowState>,
    ranges: Vec<(u32, Address)>,
    clients: Vec<(ClientKey, ClientValue)>,
    pods: BTreeMap<Address, Endpoint>,
    flags: u32,
    now: u64,
}

impl Maps for Small {
    fn config(&self) -> Option<NodeConfig> {
        let mut networks = [Network { address: Address::ANY_V6, mask: Address::ANY_V6 }; NETWORKS];
        let mask = Address { words: [u32::MAX, u32::MAX, u32::MAX, 0xff00_0000_u32.to_be()] };
        networks[0] = Network { address: at("10.0.0.0"), mask };
        Some(NodeConfig {
            flags: self.flags,
            node_port_first: 30_000,
            node_port_last: 32_767,
            nat_port_first: 1024,
            nat_port_last: 29_999,
            overlay_ifindex: 0,
            node_v4: at("192.168.0.1"),
            node_v6: Address::ANY_V6,
            tcp_seconds: [0; 4],
            udp_seconds: [0; 2],
            networks_len: 1,
            mtu: 0,
            zero: 0,
            warm_ticks: 0,
            reserved: [0; 2],
            networks,
        })
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceValue> {
        self.services.get(key).copied()
    }

    fn slot(&self, place: u32) -> Option<u32> {
        self.slots.get(place as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(id as usize).copied()
    }

    fn node(&self, address: &Address) -> Option<u32> {
        self.nodes.get(address).copied()
    }

    fn flow(&self, tuple: &FlowTuple) -> Option<FlowState> {
        self.flows.get(tuple).copied()
    }

    fn allows(&self, service: u32, client: &Address) -> bool {
        self.ranges.contains(&(service, *client))
    }

    fn client(&self, key: &ClientKey) -> Option<ClientValue> {
        self.clients.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
    }

    fn pod(&self, address: &Address) -> Option<Endpoint> {
        self.pods.get(address).copied()
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn name(&self, service: u32) -> Option<String> {
        (service == 1).then(|| "ns/web".to_owned())
    }
}

fn at(text: &str) -> Address {
    address(&text.parse().expect("an address"))
}

fn backend(text: &str, flags: u32) -> Backend {
    let to: SocketAddr = text.parse().expect("address and port");
    Backend { address: address(&to.ip()), port: Port::new(to.port()), protocol: 6, reserved: 0, flags }
}

const EMPTY: Extent = Extent { first: 0, count: 0 };

fn service(flags: u32, inside: Extent, outside: Extent, maglev: Extent) -> ServiceValue {
    ServiceValue { service: 1, flags, affinity_seconds: 60, generation: 1, inside, outside, maglev }
}

/// 10.96.0.1:80 and NodePort 30080 with a local and a remote backend.
fn small(flags: u32) -> Small {
    let both = Extent { first: 1, count: 2 };
    let value = service(flags, both, both, Extent { first: 3, count: 5 });
    let tcp = |address, port| ServiceKey { address, port: Port::new(port), protocol: 6, reserved: 0 };
    Small {
        services: BTreeMap::from([
            (tcp(at("10.96.0.1"), 80), value),
            (tcp(Address::ANY_V4, 30_080), value),
            (tcp(at("10.96.0.2"), 80), service(0, EMPTY, EMPTY, EMPTY)),
        ]),
        slots: vec![0, 1, 2, 2, 2, 2, 2, 2],
        backends: vec![
            backend("0.0.0.0:0", 0),
            backend("10.1.0.1:8080", BACKEND_LOCAL),
            backend("10.2.0.1:8080", 0),
        ],
        nodes: BTreeMap::from([
            (at("192.168.0.1"), NODE_ADDRESS_LOCAL | NODE_ADDRESS_NODE_PORTS),
            (at("192.168.0.2"), NODE_ADDRESS_NODE_PORTS),
        ]),
        pods: BTreeMap::from([(
            at("10.1.0.1"),
            Endpoint { ifindex: 9, flags: 0, mac: [0; 6], host_mac: [0; 6], reserved: 0 },
        )]),
        ..Small::default()
    }
}

/// `from` (empty: none), `to`, the outcome, and words of the steps; for the first packet of a socket.
fn check(maps: &Small, from: &str, to: &str, protocol: Protocol, outcome: &str, words: &[&str]) {
    ask(maps, from, to, (protocol, true), outcome, words);
}

/// The same for a first packet, or a later one.
fn ask(
    maps: &Small,
    from: &str,
    to: &str,
    (protocol, first): (Protocol, bool),
    outcome: &str,
    words: &[&str],
) {
    let from = if from.is_empty() { None } else { Some(from.parse().expect("an address")) };
    let to = to.parse().expect("address and port");
    let found = trace(maps, &Question { from, from_port: SOURCE_PORT, to, protocol, socket: true, first });
    let text: Vec<String> =
        found.steps.iter().map(|step| format!("{}: {}", step.program, step.text)).collect();
    assert_eq!(found.outcome.to_string(), outcome, "{text:#?}");
    for word in words {
        assert!(text.iter().any(|line| line.contains(word)), "{word}: {text:#?}");
    }
}

#[test]
fn at_the_socket() {
    let maps = small(0);
    check(
        &maps,
        "",
        "10.96.0.1:80",
        Protocol::Tcp,
        "to one of 2 backends",
        &["connect4: SERVICES", "ns/web"],
    );
    check(&maps, "", "10.96.0.2:80", Protocol::Tcp, "refused", &["ECONNREFUSED"]);
    check(&maps, "", "192.168.0.2:30080", Protocol::Tcp, "to one of 2 backends", &["NodePort"]);
    check(&maps, "", "192.168.0.9:30080", Protocol::Tcp, "left to the kernel as it is", &["NODES", "--from"]);
    check(&maps, "", "10.96.0.1:81", Protocol::Tcp, "left to the kernel as it is", &["no NodePort"]);
    // Another node's own endpoints.
    check(
        &small(SERVICE_OUTSIDE_LOCAL),
        "10.1.0.1",
        "192.168.0.2:30080",
        Protocol::Tcp,
        "left to the kernel as it is",
        &["another node's"],
    );
}

#[test]
fn from_outside() {
    let maps = small(SERVICE_EXTERNAL);
    check(
        &maps,
        "203.0.113.1",
        "192.168.0.1:30080",
        Protocol::Tcp,
        "to 10.2.0.1:8080",
        &["from_outside: SLOTS: hash", "Maglev", "with this node's address"],
    );
    let dsr = small(SERVICE_EXTERNAL | SERVICE_DSR);
    check(
        &dsr,
        "203.0.113.1",
        "192.168.0.1:30080",
        Protocol::Tcp,
        "to 10.2.0.1:8080",
        &["direct server return"],
    );
    // The other node has handed it on.
    check(&dsr, "203.0.113.1", "192.168.0.2:30080", Protocol::Tcp, "to 10.2.0.1:8080", &[]);
    check(
        &maps,
        "203.0.113.1",
        "192.168.0.2:30080",
        Protocol::Tcp,
        "left to the kernel as it is",
        &["another node's"],
    );
    let random = small(SERVICE_EXTERNAL | SERVICE_RANDOM);
    check(&random, "203.0.113.1", "192.168.0.1:30080", Protocol::Tcp, "to one of 2 backends", &["random"]);
}

#[test]
fn who_may_and_who_stays() {
    let mut maps = small(SERVICE_EXTERNAL | SERVICE_SOURCE_RANGES | SERVICE_AFFINITY);
    check(&maps, "203.0.113.1", "10.96.0.1:80", Protocol::Tcp, "dropped", &["SOURCE_RANGES"]);
    maps.ranges.push((1, at("203.0.113.1")));
    maps.clients.push((
        ClientKey { client: at("203.0.113.1"), service: 1, reserved: 0 },
        ClientValue { last: 1, address: at("10.1.0.1") },
    ));
    check(&maps, "203.0.113.1", "10.96.0.1:80", Protocol::Tcp, "to 10.1.0.1:8080", &["CLIENTS", "kept"]);
    maps.now = 60_000_000_002;
    check(
        &maps,
        "203.0.113.1",
        "10.96.0.1:80",
        Protocol::Tcp,
        "to 10.2.0.1:8080",
        &["CLIENTS: the client had 10.1.0.1, too long ago"],
    );
    // From a pod the client's address is needed, which sockets do not tell.
    check(
        &maps,
        "10.1.0.1",
        "10.96.0.1:80",
        Protocol::Tcp,
        "dropped",
        &["connect4: has source ranges", "from_pod"],
    );
}

#[test]
fn local_policies() {
    let mut maps = small(0);
    let key = ServiceKey { address: at("10.96.0.3"), port: Port::new(80), protocol: 6, reserved: 0 };
    let flags = SERVICE_EXTERNAL | SERVICE_OUTSIDE_LOCAL | SERVICE_HAS_ENDPOINTS;
    maps.services.insert(key, service(flags, EMPTY, EMPTY, EMPTY));
    check(&maps, "203.0.113.1", "10.96.0.3:80", Protocol::Tcp, "dropped", &["no_local_endpoint"]);
    check(&maps, "203.0.113.1", "10.96.0.2:80", Protocol::Tcp, "refused", &["no_endpoint"]);
}

#[test]
fn known_connections() {
    let mut maps = small(0);
    let tuple = FlowTuple {
        source: at("203.0.113.1"),
        destination: at("192.168.0.1"),
        source_port: Port::new(SOURCE_PORT),
        destination_port: Port::new(30_080),
        protocol: 6,
        reserved: [0; 3],
    };
    let state = FlowState {
        source: at("192.168.0.1"),
        destination: at("10.1.0.1"),
        source_port: Port::new(2000),
        destination_port: Port::new(8080),
        last: 0,
        flags: FLOW_SNAT,
        backend: 1,
        service: 1,
        since: 0,
    };
    maps.flows.insert(tuple, state);
    check(
        &maps,
        "203.0.113.1",
        "192.168.0.1:30080",
        Protocol::Tcp,
        "to 10.1.0.1:8080",
        &["known connection"],
    );
    let next = (Protocol::Tcp, false);
    let check_next = |maps: &Small, outcome, word| {
        ask(maps, "203.0.113.1", "192.168.0.1:30080", next, outcome, &[word]);
    };
    let check_first = |maps: &Small, outcome, word| {
        ask(maps, "203.0.113.1", "192.168.0.1:30080", (Protocol::Tcp, true), outcome, &[word]);
    };
    maps.backends[1].flags |= BACKEND_DRAINING;
    check_next(&maps, "to 10.1.0.1:8080", "draining");
    check_first(&maps, "to 10.2.0.1:8080", "chosen anew");
    maps.backends[1].port = Port::new(9);
    check_next(&maps, "refused", "is gone");
    check_first(&maps, "to 10.2.0.1:8080", "chosen anew");
    // One that has ended, as its other direction knows.
    let reply = FlowState { flags: FLOW_REPLY | FLOW_FIN, ..state };
    maps.flows.insert(state.other(6), reply);
    check_next(&maps, "refused", "is gone");
    check_first(&maps, "to 10.2.0.1:8080", "has ended");
    maps.services.clear();
    check_first(&maps, "refused", "its Service is gone, too");
}

#[test]
fn what_is_no_service() {
    let mut maps = small(0);
    maps.flags = NODE_MASQUERADE | NODE_DELIVER;
    check(
        &maps,
        "10.1.0.1",
        "198.51.100.1:443",
        Protocol::Tcp,
        "left to the kernel as it is",
        &["this node's address"],
    );
    check(
        &maps,
        "203.0.113.1",
        "10.1.0.1:8080",
        Protocol::Tcp,
        "left to the kernel as it is",
        &["straight to device 9"],
    );
    check(&maps, "10.1.0.1", "10.9.0.1:443", Protocol::Sctp, "left to the kernel as it is", &["from_pod"]);
}
