//! Random sequences of changes, failures and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::addr::{Backend, Family, Frontend, Protocol};
use crate::services::plan::memory::Memory;
use crate::services::plan::{Capacity, Flags, Held, MapOp, QUARANTINE, Table, Value};
use crate::services::{
    Algorithm, Compiled, Created, Desired, Endpoint, Forwarding, HostPort, NodeAddress, Service, ServiceName,
    ServicePort, Slice, SlicePort,
};

const SMALL: Capacity = Capacity { services: 8, slots: 16, backends: 8, numbers: 4 };
const LIMITS: Capacity = Capacity { services: 1 << 12, slots: 1 << 18, backends: 1 << 12, numbers: 1 << 10 };

/// What a frontend says: flags, affinity, and the backends inside and outside with the shape of the Maglev table.
type Meaning = (Flags, u32, Vec<Backend>, Vec<Backend>, Vec<Backend>);

/// Where a value leads; panics where a connection would meet half a Service.
fn meaning(memory: &Memory, value: &Value) -> Meaning {
    let backends = |held: Vec<Held>| held.into_iter().map(|held| held.backend).collect::<Vec<_>>();
    let [inside, outside, maglev] = memory.backends_of(value).unwrap().map(backends);
    (value.flags, value.affinity, inside, outside, maglev)
}

/// Where each frontend leads.
fn meanings(memory: &Memory) -> BTreeMap<Frontend, Meaning> {
    memory.services.iter().map(|(frontend, value)| (*frontend, meaning(memory, value))).collect()
}

/// Where each frontend should lead, read off the compiled Services.
fn oracle(desired: &Desired) -> BTreeMap<Frontend, Meaning> {
    let mut all = BTreeMap::new();
    for name in desired.service_names() {
        let compiled: Compiled = desired.compile(&name);
        for route in &compiled.routes {
            let list = |list| compiled.backends(list).collect::<Vec<Backend>>();
            let (inside, outside) = (list(route.inside), list(route.outside));
            let maglev = if route.maglev {
                crate::services::maglev::table(&outside)
                    .into_iter()
                    .map(|place| outside[place as usize])
                    .collect()
            } else {
                Vec::new()
            };
            let old = all.insert(route.frontend, (route.flags, route.affinity, inside, outside, maglev));
            assert!(old.is_none(), "{} is given to two", route.frontend);
        }
    }
    all
}

/// An agent with its maps.
struct World {
    desired: Desired,
    memory: Memory,
    table: Table,
    now: u64,
    /// When each place of the flat table was last led to by a frontend that then changed.
    left: BTreeMap<u32, u64>,
}

impl World {
    fn new() -> Self {
        let mut desired = Desired::default();
        desired.set_node("here", Some("a"));
        let memory = Memory::new(SMALL);
        let table = Table::new(memory.observed(), LIMITS, 0);
        let mut this = Self { desired, memory, table, now: 0, left: BTreeMap::new() };
        this.sweep();
        this
    }

    fn led_to(&self) -> BTreeSet<u32> {
        let extents = self.memory.services.values().flat_map(Value::extents);
        extents.flat_map(|extent| extent.first..extent.first + extent.count).collect()
    }

    /// Places of a value that nothing leads to any more.
    fn leave(&mut self, value: &Value) {
        let in_use: BTreeSet<_> = self.memory.services.values().flat_map(Value::extents).collect();
        for extent in value.extents().filter(|extent| !in_use.contains(extent)) {
            self.left.extend((extent.first..extent.first + extent.count).map(|place| (place, self.now)));
        }
    }

    /// Carries out a plan, or its first `limit` operations, looking at the maps after each.
    fn carry_out(&mut self, ops: &[MapOp], limit: usize) {
        let (old, new) = (meanings(&self.memory), oracle(&self.desired));
        let done = ops.len().min(limit);
        for op in &ops[..done] {
            if let MapOp::WriteSlots(first, ids) = op {
                let end = first + u32::try_from(ids.len()).unwrap();
                for (place, at) in self.left.range(*first..end) {
                    assert!(at + QUARANTINE <= self.now, "place {place} is given out again too early");
                }
            }
            let changed = match op {
                MapOp::PutService(frontend, _) | MapOp::DeleteService(frontend) => Some(*frontend),
                _ => None,
            };
            let before = changed.and_then(|frontend| self.memory.services.get(&frontend).copied());
            self.memory.apply(op).unwrap();
            if let Some(before) = before {
                self.leave(&before);
            }
            // Only this one can lead elsewhere now: the places and backends of others stay as they are, which the maps in memory
            // insist on; the whole is looked at in the end.
            if let Some(frontend) = changed
                && let Some(value) = self.memory.services.get(&frontend)
            {
                let now = meaning(&self.memory, value);
                let known = old.get(&frontend) == Some(&now) || new.get(&frontend) == Some(&now);
                assert!(known, "{frontend} leads to {now:?} after {op:?}");
            }
            if let MapOp::Grow(..) | MapOp::FreeBackend(_) | MapOp::FreeSlots(_) = op {
                meanings(&self.memory);
            }
        }
        for (frontend, now) in meanings(&self.memory) {
            let known = old.get(&frontend) == Some(&now) || new.get(&frontend) == Some(&now);
            assert!(known, "{frontend} leads to {now:?}");
        }
        self.table.commit(ops, done, self.now);
    }

    fn plan(&mut self, name: &ServiceName) -> Vec<MapOp> {
        let compiled = self.desired.compile(name);
        self.table.plan(name, &compiled, self.desired.claims()).unwrap()
    }

    fn sweep(&mut self) {
        let ops = self.table.sweep();
        self.carry_out(&ops, usize::MAX);
        assert!(!self.table.needs_sweep());
    }

    /// A new agent: reads the maps, plans everything, removes the rest.
    fn restart(&mut self) {
        self.table = Table::new(self.memory.observed(), LIMITS, self.now);
        let names: Vec<ServiceName> = self.desired.service_names().collect();
        for name in names {
            let ops = self.plan(&name);
            self.carry_out(&ops, usize::MAX);
        }
        self.sweep();
        self.desired.take_dirty();
    }

    /// Lets time pass.
    fn pass(&mut self, time: u64) {
        self.now += time;
        while self.table.release_at().is_some_and(|at| at <= self.now) {
            let ops = self.table.release(self.now);
            self.carry_out(&ops, usize::MAX);
        }
    }

    fn check(&self) {
        assert_eq!(meanings(&self.memory), oracle(&self.desired));
        let mut ranges = BTreeSet::new();
        for name in self.desired.service_names() {
            let own = self.desired.compile(&name).ranges;
            ranges.extend(own.into_iter().map(|range| (self.table.number(&name).unwrap(), range)));
        }
        assert_eq!(self.memory.ranges, ranges);
    }

    /// After the quarantine nothing is left but what is in use: as in maps filled anew.
    fn check_clean(&mut self) {
        self.pass(QUARANTINE);
        self.pass(QUARANTINE);
        self.check();
        let led_to = self.led_to();
        let filled = self.memory.slots.iter().enumerate().filter(|(_, id)| **id != 0);
        assert!(filled.map(|(place, _)| u32::try_from(place).unwrap()).eq(led_to), "places are left over");
        let mut fresh = BTreeSet::new();
        for name in self.desired.service_names() {
            for member in self.desired.compile(&name).members {
                let held = Held { backend: member.backend, local: member.local, draining: member.draining };
                fresh.insert((self.table.number(&name).unwrap(), held));
            }
        }
        assert_eq!(self.memory.backends.iter().flatten().count(), fresh.len(), "backends are left over");
        let observed: BTreeSet<Held> = self.memory.backends.iter().flatten().copied().collect();
        assert_eq!(observed, fresh.into_iter().map(|(_, held)| held).collect());
        assert_eq!(
            usize::try_from(self.table.used().backends).unwrap(),
            self.memory.backends.iter().flatten().count()
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Service {
        index: u8,
        ports: u8,
        ip: u8,
        kind: u16,
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
    Zone(u8),
    HostPort {
        key: u8,
        target: u8,
    },
    NoHostPort(u8),
    Nodes(u8),
    /// Time passes.
    Pass(u16),
    /// The next plan fails after so many operations and is made again.
    Fail(usize),
    /// The agent dies after so many operations of the next plan and starts again.
    Kill(usize),
    /// The next changes are planned together.
    Together,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        // A Service may come back with another address, which another one may have had before.
        4 => (0u8..4, 0u8..4, 0u8..6, any::<u16>())
            .prop_map(|(index, ports, ip, kind)| Step::Service { index, ports, ip, kind }),
        1 => (0u8..4).prop_map(Step::NoService),
        7 => (0u8..4, 0u8..2, prop::collection::vec(1u8..20, 0..10), any::<bool>())
            .prop_map(|(service, number, hosts, v6)| Step::Slice { service, number, hosts, v6 }),
        1 => (0u8..4, 0u8..2).prop_map(|(service, number)| Step::NoSlice { service, number }),
        1 => (0u8..3).prop_map(Step::Zone),
        1 => (0u8..3, 1u8..9).prop_map(|(key, target)| Step::HostPort { key, target }),
        1 => (0u8..3).prop_map(Step::NoHostPort),
        1 => (0u8..4).prop_map(Step::Nodes),
        3 => (0u16..5000).prop_map(Step::Pass),
        1 => (0usize..12).prop_map(Step::Fail),
        1 => (0usize..12).prop_map(Step::Kill),
        1 => Just(Step::Together),
    ]
}

pub(super) fn service(index: u8, ports: u8, ip: u8, kind: u16) -> Service {
    let has = |bit: u16| kind & 1 << bit != 0;
    let mut cluster_ips = vec![format!("10.96.0.{}", u16::from(ip))];
    cluster_ips.extend(has(0).then(|| format!("fd00::{ip:x}")));
    let parse = |text: String| text.parse().unwrap();
    // Few addresses, so that they are contested.
    let external = |bit| has(bit).then(|| format!("192.0.2.{}", ip / 2)).into_iter().map(parse).collect();
    let ranges = ["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"];
    Service {
        name: ServiceName::new("ns", &format!("s{index}")),
        cluster_ips: cluster_ips.into_iter().map(parse).collect(),
        external_ips: external(1),
        load_balancer_ips: external(2),
        source_ranges: (0..3)
            .filter(|n| has(3 + n))
            .map(|n| ranges[usize::from(n)].parse().unwrap())
            .collect(),
        ports: (0..ports)
            .map(|port| ServicePort {
                name: format!("p{port}").into(),
                protocol: if port == 2 { Protocol::Udp } else { Protocol::Tcp },
                port: 80 + u16::from(port),
                node_port: has(6).then_some(30_000 + u16::from(ip / 2) * 10 + u16::from(port)),
            })
            .collect(),
        internal_local: has(7),
        external_local: has(8),
        affinity: if has(9) { 5 } else { 0 },
        health_check_node_port: None,
        algorithm: if has(10) { Algorithm::Random } else { Algorithm::Maglev },
        forwarding: if has(11) { Forwarding::Dsr } else { Forwarding::Snat },
        created: Created { seconds: i64::from(kind >> 13), uid: format!("{index}").into() },
    }
}

pub(super) fn slice(service: u8, hosts: &[u8], v6: bool) -> Slice {
    let port = |port: u16| SlicePort {
        name: format!("p{port}").into(),
        protocol: if port == 2 { Protocol::Udp } else { Protocol::Tcp },
        port: 8080 + port,
    };
    let hint = |is_there, name: &str| -> Box<[Arc<str>]> {
        if is_there { Box::new([Arc::from(name)]) } else { Box::default() }
    };
    Slice {
        service: ServiceName::new("ns", &format!("s{service}")),
        family: if v6 { Family::V6 } else { Family::V4 },
        ports: (0..3).map(port).collect(),
        endpoints: hosts
            .iter()
            .map(|host| Endpoint {
                ip: if v6 { format!("fd01::{host:x}") } else { format!("10.0.0.{host}") }.parse().unwrap(),
                ready: host % 5 != 0,
                serving: host % 10 != 0,
                terminating: host % 5 == 0,
                local: host % 2 == 0,
                for_zones: hint(host % 7 != 0, ["a", "b"][usize::from(host % 2)]),
                for_nodes: hint(host % 3 == 0, "here"),
            })
            .collect(),
    }
}

fn change(desired: &mut Desired, step: &Step) {
    match step {
        Step::Service { index, ports, ip, kind } => desired.set_service(service(*index, *ports, *ip, *kind)),
        Step::NoService(index) => desired.remove_service(&ServiceName::new("ns", &format!("s{index}"))),
        Step::Slice { service, number, hosts, v6 } => {
            desired.set_slice(&format!("s{service}-{number}"), slice(*service, hosts, *v6));
        }
        Step::NoSlice { service, number } => desired.remove_slice("ns", &format!("s{service}-{number}")),
        Step::Zone(zone) => desired.set_node("here", ["a", "b"].get(usize::from(*zone)).copied()),
        Step::HostPort { key, target } => {
            let (own, v6) = (*key == 1, *target > 6);
            let host_port = HostPort {
                ip: own.then(|| "192.0.2.1".parse().unwrap()),
                port: 80,
                protocol: Protocol::Tcp,
                target_ip: if v6 { format!("fd01::{target:x}") } else { format!("10.0.0.{target}") }
                    .parse()
                    .unwrap(),
                target_port: 8080,
            };
            desired.set_host_port(&format!("h{key}"), host_port);
        }
        Step::NoHostPort(key) => desired.remove_host_port(&format!("h{key}")),
        Step::Nodes(last) => {
            let address = |local| NodeAddress { local, node_ports: true };
            let own =
                (0..*last).map(|last| (format!("192.0.2.{last}").parse().unwrap(), address(last % 2 == 1)));
            desired.set_addresses(own.collect());
        }
        Step::Pass(_) | Step::Fail(_) | Step::Kill(_) | Step::Together => {}
    }
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    let (mut fail, mut kill, mut together) = (None, None, false);
    for step in steps {
        change(&mut world.desired, step);
        match step {
            Step::Fail(after) => fail = Some(*after),
            Step::Kill(after) => kill = Some(*after),
            Step::Together => together = true,
            Step::Pass(time) => world.pass(u64::from(*time)),
            _ => {}
        }
        if together && world.desired.service_names().count() < 4 {
            continue;
        }
        let names = world.desired.take_dirty();
        let batches: Vec<Vec<ServiceName>> = if std::mem::take(&mut together) {
            vec![names]
        } else {
            names.into_iter().map(|name| vec![name]).collect()
        };
        for names in batches {
            let plan = |world: &mut World| -> Vec<MapOp> {
                names.iter().flat_map(|name| world.plan(name)).collect()
            };
            let ops = plan(&mut world);
            if let Some(after) = kill.take().filter(|_| !ops.is_empty()) {
                world.carry_out(&ops, after);
                world.restart();
            } else if let Some(after) = fail.take().filter(|_| !ops.is_empty()) {
                world.carry_out(&ops, after);
                let again = plan(&mut world);
                world.carry_out(&again, usize::MAX);
            } else {
                world.carry_out(&ops, usize::MAX);
            }
        }
        if !together {
            world.check();
        }
    }
    for name in world.desired.take_dirty() {
        let ops = world.plan(&name);
        world.carry_out(&ops, usize::MAX);
    }
    world.check_clean();
    // A restart finds everything as it should be.
    let before = world.memory.clone();
    world.restart();
    assert_eq!(world.memory, before, "a restart wrote something");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 4096, ..ProptestConfig::default() })]

    #[test]
    fn maps_follow_the_desired_state(steps in prop::collection::vec(step(), 1..24)) {
        run(&steps);
    }
}
