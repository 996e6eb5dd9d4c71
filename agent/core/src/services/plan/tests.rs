//! Plans against a model of the maps: after every single operation no connection meets half a Service, after every
//! plan the maps say what a naive reading of the desired state says, whatever was interrupted before.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::addr::{Family, Protocol, ServiceIp};
use crate::services::{Desired, Endpoint, Scope, Service, ServicePort, Slice, SlicePort};

const ROOMY: Capacity = Capacity { services: 1 << 16, slots: 1 << 16, backends: 1 << 16 };

/// The maps as the kernel has them.
#[derive(Clone, Default)]
struct Maps {
    services: BTreeMap<Frontend, (PoolId, Spread)>,
    slots: BTreeMap<(PoolId, u32), BackendId>,
    backends: BTreeMap<BackendId, Backend>,
}

impl Maps {
    fn apply(&mut self, op: &MapOp) {
        match *op {
            MapOp::PutBackend(id, backend) => drop(self.backends.insert(id, backend)),
            MapOp::PutSlot(pool, slot, id) => drop(self.slots.insert((pool, slot), id)),
            MapOp::PutService(frontend, pool, spread) => drop(self.services.insert(frontend, (pool, spread))),
            MapOp::DeleteService(frontend) => assert!(self.services.remove(&frontend).is_some()),
            MapOp::DeleteSlot(pool, slot) => assert!(self.slots.remove(&(pool, slot)).is_some()),
            MapOp::DeleteBackend(id) => assert!(self.backends.remove(&id).is_some()),
            MapOp::PutNode(..) | MapOp::DeleteNode(_) => panic!("no nodes here"),
        }
    }

    fn observed(&self) -> Observed {
        Observed {
            services: self.services.iter().map(|(f, (pool, spread))| (*f, *pool, *spread)).collect(),
            slots: self.slots.iter().map(|((pool, slot), id)| (*pool, *slot, *id)).collect(),
            backends: self.backends.iter().map(|(id, backend)| (*id, *backend)).collect(),
            nodes: Vec::new(),
        }
    }

    /// Where each frontend leads; panics where a connection would meet half a Service.
    fn routes(&self) -> BTreeMap<Frontend, BTreeSet<Backend>> {
        let route = |pool, count| {
            (0..count).map(|slot| self.backends[&self.slots[&(pool, slot)]]).collect::<BTreeSet<_>>()
        };
        self.services
            .iter()
            .map(|(frontend, (pool, spread))| (*frontend, route(*pool, spread.slots)))
            .collect()
    }
}

/// Where each frontend should lead, read off the desired state without any cleverness.
fn oracle(desired: &Desired) -> BTreeMap<Frontend, BTreeSet<Backend>> {
    let mut routes = BTreeMap::new();
    for name in desired.service_names() {
        for pool in desired.compile(name) {
            for frontend in pool.frontends {
                routes.insert(frontend, pool.backends.iter().copied().collect());
            }
        }
    }
    routes
}

/// Carries out a plan, or its first `limit` operations, looking at the maps after each.
fn carry_out(
    table: &mut Table,
    maps: &mut Maps,
    ops: &[MapOp],
    limit: usize,
    new: &BTreeMap<Frontend, BTreeSet<Backend>>,
) {
    let old = maps.routes();
    for op in ops.iter().take(limit) {
        maps.apply(op);
        table.record(op);
        for (frontend, backends) in maps.routes() {
            for backend in backends {
                let known = |routes: &BTreeMap<Frontend, BTreeSet<Backend>>| {
                    routes.get(&frontend).is_some_and(|backends| backends.contains(&backend))
                };
                assert!(known(&old) || known(new), "{frontend} leads to a stranger {backend} after {op:?}");
            }
        }
    }
}

fn service(index: u8, ports: u8, node_port: bool, local: bool, ip: u8) -> Service {
    let ips = [format!("10.96.0.{ip}"), format!("fd00::{ip:x}")];
    Service {
        name: ServiceName::new("ns", &format!("s{index}")),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: (0..ports)
            .map(|port| ServicePort {
                name: format!("p{port}").into(),
                protocol: Protocol::Tcp,
                port: 80 + u16::from(port),
                node_port: node_port.then_some(30_000 + u16::from(index) * 10 + u16::from(port)),
            })
            .collect(),
        internal_local: local,
        affinity: 0,
    }
}

fn slice(service: u8, hosts: &[u8], v6: bool) -> Slice {
    Slice {
        service: ServiceName::new("ns", &format!("s{service}")),
        family: if v6 { Family::V6 } else { Family::V4 },
        ports: (0..3)
            .map(|port| SlicePort {
                name: format!("p{port}").into(),
                protocol: Protocol::Tcp,
                port: 8080 + port,
            })
            .collect(),
        endpoints: hosts
            .iter()
            .map(|host| Endpoint {
                ip: if v6 { format!("fd01::{host:x}") } else { format!("10.0.0.{host}") }.parse().unwrap(),
                ready: host % 5 != 0,
                serving: true,
                terminating: host % 5 == 0,
                local: host % 2 == 0,
            })
            .collect(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Service {
        index: u8,
        ports: u8,
        node_port: bool,
        local: bool,
        ip: u8,
    },
    NoService(u8),
    Slice {
        service: u8,
        number: u8,
        hosts: Vec<u8>,
        v6: bool,
    },
    NoSlice {
        service: u8,
        number: u8,
    },
    /// The agent dies after so many operations of the next plan and starts again.
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    // A Service may come back with another address, which another one may have had before.
    let service = (0u8..4, 0u8..4, any::<bool>(), any::<bool>(), 0u8..3).prop_map(
        |(index, ports, node_port, local, ip)| Step::Service {
            index,
            ports,
            node_port,
            local,
            ip: index * 3 + ip,
        },
    );
    let slice = (0u8..4, 0u8..2, prop::collection::vec(1u8..12, 0..8), any::<bool>())
        .prop_map(|(service, number, hosts, v6)| Step::Slice { service, number, hosts, v6 });
    prop_oneof![
        3 => service,
        1 => (0u8..4).prop_map(Step::NoService),
        6 => slice,
        1 => (0u8..4, 0u8..2).prop_map(|(service, number)| Step::NoSlice { service, number }),
        1 => (0usize..12).prop_map(Step::Kill),
    ]
}

fn change(desired: &mut Desired, step: &Step) {
    match step {
        Step::Service { index, ports, node_port, local, ip } => {
            desired.set_service(service(*index, *ports, *node_port, *local, *ip));
        }
        Step::NoService(index) => desired.remove_service(&ServiceName::new("ns", &format!("s{index}"))),
        Step::Slice { service, number, hosts, v6 } => {
            desired.set_slice(&format!("s{service}-{number}"), slice(*service, hosts, *v6));
        }
        Step::NoSlice { service, number } => desired.remove_slice("ns", &format!("s{service}-{number}")),
        Step::Kill(_) => {}
    }
}

/// A new agent: reads the maps, plans everything, removes the rest.
fn restart(desired: &Desired, maps: &mut Maps) -> Table {
    let mut table = Table::new(&maps.observed(), ROOMY);
    let names: BTreeSet<_> = desired.service_names().cloned().collect();
    for name in names {
        let new = oracle(desired);
        let ops = table.plan(&name, &desired.compile(&name)).unwrap();
        carry_out(&mut table, maps, &ops, usize::MAX, &new);
    }
    let new = oracle(desired);
    let ops = table.sweep();
    carry_out(&mut table, maps, &ops, usize::MAX, &new);
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn maps_follow_the_desired_state(steps in prop::collection::vec(step(), 1..24)) {
        let mut desired = Desired::default();
        let mut maps = Maps::default();
        let mut table = Table::new(&Observed::default(), ROOMY);
        let mut kill = None;
        for step in &steps {
            change(&mut desired, step);
            if let Step::Kill(after) = step {
                kill = Some(*after);
                continue;
            }
            let new = oracle(&desired);
            for name in desired.take_dirty() {
                let ops = table.plan(&name, &desired.compile(&name)).unwrap();
                match kill.take() {
                    None => carry_out(&mut table, &mut maps, &ops, usize::MAX, &new),
                    Some(after) => {
                        carry_out(&mut table, &mut maps, &ops, after, &new);
                        table = restart(&desired, &mut maps);
                    }
                }
            }
            prop_assert_eq!(maps.routes(), new);
            prop_assert_eq!(table.mirror().contents(), maps.observed());
            // As much as a fresh start would write, and not an entry more.
            let mut fresh = Maps::default();
            restart(&desired, &mut fresh);
            prop_assert_eq!(fresh.services.len(), maps.services.len());
            prop_assert_eq!(fresh.slots.len(), maps.slots.len());
            prop_assert_eq!(fresh.backends.len(), maps.backends.len());
        }
    }
}

fn pool(name: &str, ip: &str, hosts: &[u8]) -> Pool {
    let frontend = Frontend { ip: ServiceIp::Own(ip.parse().unwrap()), port: 80, protocol: Protocol::Tcp };
    Pool {
        key: PoolKey {
            service: ServiceName::new("ns", name),
            port: "".into(),
            protocol: Protocol::Tcp,
            family: Family::V4,
            scope: Scope::Cluster,
        },
        frontends: vec![frontend],
        backends: hosts
            .iter()
            .map(|host| Backend { ip: [10, 0, 0, *host].into(), port: 80, protocol: Protocol::Tcp })
            .collect(),
        affinity: 0,
    }
}

fn run(table: &mut Table, pool: &Pool) -> Vec<MapOp> {
    let ops = table.plan(&pool.key.service, std::slice::from_ref(pool)).unwrap();
    for op in &ops {
        table.record(op);
    }
    ops
}

#[test]
fn one_endpoint_less_writes_its_slot_and_the_count() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    run(&mut table, &pool("web", "10.96.0.1", &[1, 2, 3]));
    let ops = run(&mut table, &pool("web", "10.96.0.1", &[2, 3]));
    let pool_id = PoolId(1);
    let frontend = pool("web", "10.96.0.1", &[]).frontends[0];
    assert_eq!(
        ops,
        [
            MapOp::PutSlot(pool_id, 0, BackendId(3)),
            MapOp::PutService(frontend, pool_id, Spread { slots: 2, affinity: 0 }),
            MapOp::DeleteSlot(pool_id, 2),
            MapOp::DeleteBackend(BackendId(1)),
        ]
    );
    assert_eq!(run(&mut table, &pool("web", "10.96.0.1", &[2, 3])), []);
}

#[test]
fn affinity_is_one_write() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    let plain = pool("web", "10.96.0.1", &[1, 2]);
    run(&mut table, &plain);
    let sticky = Pool { affinity: 10_800, ..plain.clone() };
    let put = |affinity| [MapOp::PutService(plain.frontends[0], PoolId(1), Spread { slots: 2, affinity })];
    assert_eq!(run(&mut table, &sticky), put(10_800));
    assert_eq!(run(&mut table, &sticky), []);
    let mut again = Table::new(&table.mirror().contents(), ROOMY);
    assert_eq!(run(&mut again, &sticky), [], "a restart writes nothing");
    assert_eq!(run(&mut again, &plain), put(0));
}

#[test]
fn one_endpoint_more_is_three_writes_at_any_size() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    let hosts: Vec<u8> = (1..=200).collect();
    run(&mut table, &pool("web", "10.96.0.1", &hosts));
    let hosts: Vec<u8> = (1..=201).collect();
    assert_eq!(run(&mut table, &pool("web", "10.96.0.1", &hosts)).len(), 3);
}

#[test]
fn a_restart_writes_nothing() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    run(&mut table, &pool("web", "10.96.0.1", &[1, 2]));
    run(&mut table, &pool("api", "10.96.0.2", &[2, 3]));
    let mut again = Table::new(&table.mirror().contents(), ROOMY);
    assert_eq!(run(&mut again, &pool("api", "10.96.0.2", &[3, 2])), []);
    assert_eq!(run(&mut again, &pool("web", "10.96.0.1", &[1, 2])), []);
    assert_eq!(again.sweep(), []);
}

#[test]
fn what_left_during_a_restart_is_swept() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    run(&mut table, &pool("web", "10.96.0.1", &[1, 2]));
    run(&mut table, &pool("old", "10.96.0.2", &[2, 3]));
    let mut again = Table::new(&table.mirror().contents(), ROOMY);
    run(&mut again, &pool("web", "10.96.0.1", &[1, 2]));
    for op in again.sweep() {
        again.record(&op);
    }
    assert_eq!(again.mirror().used(), Capacity { services: 1, slots: 2, backends: 2 });
}

#[test]
fn a_claimed_frontend_goes_to_the_one_who_waits() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    run(&mut table, &pool("first", "10.96.0.1", &[1]));
    run(&mut table, &Pool { affinity: 60, ..pool("second", "10.96.0.1", &[2]) });
    assert_eq!(table.contested().count(), 1);
    let frontend = pool("first", "10.96.0.1", &[]).frontends[0];
    assert_eq!(table.mirror().service(&frontend).unwrap().pool, PoolId(1));
    let ops = table.plan(&ServiceName::new("ns", "first"), &[]).unwrap();
    assert!(ops.contains(&MapOp::PutService(frontend, PoolId(2), Spread { slots: 1, affinity: 60 })));
    for op in &ops {
        table.record(op);
    }
    assert_eq!(table.contested().count(), 0);
    assert_eq!(table.mirror().used(), Capacity { services: 1, slots: 1, backends: 1 });
    table.plan(&ServiceName::new("ns", "second"), &[]).unwrap().iter().for_each(|op| table.record(op));
    assert_eq!(table.mirror().used(), Capacity { services: 0, slots: 0, backends: 0 });
}

#[test]
fn a_service_that_does_not_fit_is_refused_whole() {
    let small = Capacity { services: 8, slots: 3, backends: 8 };
    let mut table = Table::new(&Observed::default(), small);
    run(&mut table, &pool("web", "10.96.0.1", &[1, 2]));
    let big = pool("big", "10.96.0.2", &[1, 2, 3]);
    let planned = table.plan(&big.key.service, std::slice::from_ref(&big));
    assert_eq!(planned, Err(Full { map: "slots", capacity: 3 }));
    assert_eq!(run(&mut table, &pool("web", "10.96.0.1", &[1, 3])).len(), 3);
    // Room again.
    let ops = table.plan(&ServiceName::new("ns", "web"), &[]).unwrap();
    ops.iter().for_each(|op| table.record(op));
    assert!(!run(&mut table, &big).is_empty());
}

#[test]
fn node_addresses_are_a_diff() {
    let mut table = Table::new(&Observed::default(), ROOMY);
    let ip = |host: u8| std::net::IpAddr::from([192, 168, 0, host]);
    let ops = table.plan_nodes(&BTreeMap::from([(ip(1), true), (ip(2), false)]));
    assert_eq!(ops, [MapOp::PutNode(ip(1), true), MapOp::PutNode(ip(2), false)]);
    ops.iter().for_each(|op| table.record(op));
    let ops = table.plan_nodes(&BTreeMap::from([(ip(1), true), (ip(3), false)]));
    assert_eq!(ops, [MapOp::PutNode(ip(3), false), MapOp::DeleteNode(ip(2))]);
}
