//! The packet programs with maps of our own filling: loaded from the object, run on single packets or attached to devices.
//!
//! Must not know: what is tested; how the agent fills the maps.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray, lpm_trie};
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use pagurus_ebpf_abi::{
    Address, Announced, AnnouncedKey, BACKEND_LOCAL, Backend, DROP_NAMES, DROP_REASONS, Endpoint, Extent,
    FlowState, FlowTuple, HOPS_PER_CPU, NETWORKS, NODE_ADDRESS_LOCAL, NODE_ADDRESS_NODE_PORTS, Network,
    NodeConfig, Port, ServiceKey, ServiceStats, ServiceValue, SourceRange, WARM_BELIEVED, WARM_LEFT, WARM_V6,
    WarmBucket, WarmFlow, maps, programs,
};
use pagurus_tests::packet::Packet;
pub(super) use pagurus_tests::test_run::Ran;
use pagurus_tests::test_run::{run, run_early, timed};

/// `BPF_F_NO_PREALLOC`, `BPF_F_MMAPABLE | BPF_F_INNER_MAP`.
const SPARSE: u32 = 1;
const SHARED: u32 = 0x400 | 0x1000;

/// How many buckets of flows each CPU has.
const WARM_BUCKETS: u32 = 1024;
/// Jiffies of a tick of those flows, as a power of two: at most half a second with any kernel.
const WARM_TICK: u32 = 5;

/// What tcx programs answer.
pub(super) const PASS: u32 = u32::MAX;
pub(super) const DROP: u32 = 2;
pub(super) const REDIRECT: u32 = 7;

/// Loaded programs and their maps.
pub(super) struct Programs {
    ebpf: Ebpf,
    services: HashMap<MapData, ServiceKey, ServiceValue>,
    slots: Array<MapData, u32>,
    backends: Array<MapData, Backend>,
    backend_stats: Array<MapData, u64>,
    service_stats: Array<MapData, ServiceStats>,
    conntrack: HashMap<MapData, FlowTuple, FlowState>,
    config: NodeConfig,
    next_slot: u32,
    next_backend: u32,
    next_service: u32,
    next_generation: u32,
    /// How long clients stay with their endpoint, of Services that are written from now on and whose flags say that they do.
    pub(super) affinity_seconds: u32,
}

/// A Service to be written: what its clients on this node and those elsewhere are given.
#[derive(Clone, Default)]
pub(super) struct Service<'a> {
    /// `SERVICE_*`.
    pub(super) flags: u32,
    /// Places in `backends` of clients on this node.
    pub(super) inside: &'a [u32],
    /// Places in `backends` of others.
    pub(super) outside: &'a [u32],
}

pub(super) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::from_octets(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => Address::from_octets(ip.octets()),
    }
}

/// `10.0.0.1:80` as the two halves of a key.
fn place(text: &str) -> (Address, Port) {
    let at: SocketAddr = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    (address(at.ip()), Port::new(at.port()))
}

pub(super) fn flow(source: &str, destination: &str, protocol: u8) -> FlowTuple {
    let ((source, source_port), (destination, destination_port)) = (place(source), place(destination));
    FlowTuple { source, destination, source_port, destination_port, protocol, reserved: [0; 3] }
}

fn network(address_text: &str, bits: u32) -> Network {
    let ip: IpAddr = address_text.parse().unwrap_or_else(|error| panic!("{address_text}: {error}"));
    let bits = if ip.is_ipv4() { bits + 96 } else { bits };
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    Network { address: address(ip), mask: Address::from_octets(mask.to_be_bytes()) }
}

impl Programs {
    /// Loads the object; nothing if it was not built.
    pub(super) fn load() -> Result<Option<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/pagurus-ebpf.o");
        if !path.exists() {
            println!("SKIPPED: {} was not built", path.display());
            return Ok(None);
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)? as u32;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::WARM, WARM_BUCKETS * cpus)
            .map_max_entries(maps::HOPS, HOPS_PER_CPU * cpus)
            .override_global(maps::WARM_BUCKETS, &WARM_BUCKETS, true)
            .override_global(maps::WARM_TICK, &WARM_TICK, true)
            .load_file(&path)
            .context("load the object")?;
        let services = HashMap::create(4096, SPARSE)?;
        let slots = Array::create(65536, SHARED)?;
        let backends = Array::create(4096, SHARED)?;
        let backend_stats = Array::create(4096, SHARED)?;
        let service_stats = Array::create(4096, SHARED)?;
        let conntrack = HashMap::create(4096, SPARSE)?;
        put(&mut ebpf, "SERVICES", &services)?;
        put(&mut ebpf, "SLOTS", &slots)?;
        put(&mut ebpf, "BACKENDS", &backends)?;
        put(&mut ebpf, "BACKEND_STATS", &backend_stats)?;
        put(&mut ebpf, "SERVICE_STATS", &service_stats)?;
        put(&mut ebpf, "CONNTRACK", &conntrack)?;
        for name in programs::PACKET {
            let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        let early: &mut Xdp =
            ebpf.program_mut(programs::XDP_OUTSIDE).context(programs::XDP_OUTSIDE)?.try_into()?;
        early.load().with_context(|| format!("load {}", programs::XDP_OUTSIDE))?;
        let config = NodeConfig {
            flags: 0,
            node_port_first: 30_000,
            node_port_last: 32_767,
            nat_port_first: 61_000,
            nat_port_last: 64_999,
            overlay_ifindex: 0,
            node_v4: Address::ANY_V4,
            node_v6: Address::ANY_V6,
            tcp_seconds: [60; 4],
            udp_seconds: [60; 2],
            networks_len: 0,
            mtu: 0,
            zero: 0,
            warm_ticks: WARM_BELIEVED,
            reserved: [0; 2],
            networks: [network("::", 0); NETWORKS],
        };
        let (next_slot, next_backend, next_service, next_generation) = (1, 1, 1, 1);
        let mut made = Self {
            ebpf,
            services,
            slots,
            backends,
            backend_stats,
            service_stats,
            conntrack,
            config,
            next_slot,
            next_backend,
            next_service,
            next_generation,
            affinity_seconds: 10_800,
        };
        made.configure(|_| {})?;
        Ok(Some(made))
    }

    /// A map of the object itself.
    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| name.to_owned())
    }

    /// Changes what the programs know of their node.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        change(&mut self.config);
        let map = self.ebpf.map_mut("CONFIG").context("CONFIG")?;
        Array::<_, NodeConfig>::try_from(map)?.set(0, self.config, 0)?;
        Ok(())
    }

    /// Says which addresses the node has, and that NodePorts are there.
    pub(super) fn node(&mut self, ips: &[IpAddr]) -> Result<()> {
        for ip in ips {
            self.node_address(*ip, NODE_ADDRESS_LOCAL | NODE_ADDRESS_NODE_PORTS)?;
        }
        let (v4, v6) = (ips.iter().find(|ip| ip.is_ipv4()), ips.iter().find(|ip| ip.is_ipv6()));
        self.configure(|config| {
            config.node_v4 = v4.map_or(Address::ANY_V4, |ip| address(*ip));
            config.node_v6 = v6.map_or(Address::ANY_V6, |ip| address(*ip));
        })
    }

    /// Says something of an address of any node.
    pub(super) fn node_address(&mut self, ip: IpAddr, flags: u32) -> Result<()> {
        let map = self.ebpf.map_mut("NODES").context("NODES")?;
        Ok(HashMap::<_, Address, u32>::try_from(map)?.insert(address(ip), flags, 0)?)
    }

    /// Networks that pods reach with their own address.
    pub(super) fn networks(&mut self, networks: &[(&str, u32)]) -> Result<()> {
        self.configure(|config| {
            for (to, (text, bits)) in config.networks.iter_mut().zip(networks) {
                *to = network(text, *bits);
            }
            config.networks_len = networks.len() as u32;
        })
    }

    /// A pod of this node.
    pub(super) fn endpoint(&mut self, ip: IpAddr, endpoint: Endpoint) -> Result<()> {
        let map = self.ebpf.map_mut("ENDPOINTS").context("ENDPOINTS")?;
        Ok(HashMap::<_, Address, Endpoint>::try_from(map)?.insert(address(ip), endpoint, 0)?)
    }

    /// Another backend; its id.
    pub(super) fn backend(&mut self, at: &str, protocol: u8, is_local: bool) -> Result<u32> {
        let id = self.next_backend;
        self.next_backend += 1;
        let (address, port) = place(at);
        let flags = if is_local { BACKEND_LOCAL } else { 0 };
        self.set_backend(id, Backend { address, port, protocol, reserved: 0, flags })?;
        Ok(id)
    }

    /// Replaces a backend.
    pub(super) fn set_backend(&mut self, id: u32, backend: Backend) -> Result<()> {
        Ok(self.backends.set(id, backend, 0)?)
    }

    /// A backend as it stands.
    pub(super) fn get_backend(&self, id: u32) -> Result<Backend> {
        Ok(self.backends.get(&id, 0)?)
    }

    fn extent(&mut self, ids: &[u32]) -> Result<Extent> {
        let first = self.next_slot;
        for id in ids {
            self.slots.set(self.next_slot, id, 0)?;
            self.next_slot += 1;
        }
        Ok(Extent { first, count: ids.len() as u32 })
    }

    /// Writes a Service under a frontend; its number. Its Maglev table is the list of its backends, which is as good for this.
    pub(super) fn service(&mut self, at: &str, protocol: u8, service: &Service<'_>) -> Result<u32> {
        let number = self.next_service;
        self.next_service += 1;
        self.change_service(at, protocol, number, service)?;
        Ok(number)
    }

    /// Writes a Service that is there already, under this frontend or another.
    pub(super) fn change_service(
        &mut self,
        at: &str,
        protocol: u8,
        number: u32,
        service: &Service<'_>,
    ) -> Result<()> {
        let generation = self.next_generation;
        self.next_generation += 1;
        let inside = self.extent(service.inside)?;
        let outside = self.extent(service.outside)?;
        let maglev = self.extent(service.outside)?;
        let (address, port) = place(at);
        let key = ServiceKey { address, port, protocol, reserved: 0 };
        let value = ServiceValue {
            service: number,
            flags: service.flags,
            affinity_seconds: self.affinity_seconds,
            generation,
            inside,
            outside,
            maglev,
        };
        Ok(self.services.insert(key, value, 0)?)
    }

    /// Lets a network use a Service with source ranges.
    pub(super) fn source_range(&mut self, service: u32, text: &str, bits: u32) -> Result<()> {
        let ip: IpAddr = text.parse()?;
        let bits = if ip.is_ipv4() { bits + 96 } else { bits };
        let key =
            lpm_trie::Key::new(32 + bits, SourceRange { service: service.to_be(), address: address(ip) });
        let map = self.ebpf.map_mut("SOURCE_RANGES").context("SOURCE_RANGES")?;
        Ok(lpm_trie::LpmTrie::<_, SourceRange, u32>::try_from(map)?.insert(&key, 1, 0)?)
    }

    /// An address that is announced at a device with this hardware address.
    pub(super) fn announce(&mut self, ip: IpAddr, ifindex: u32, mac: [u8; 6]) -> Result<()> {
        let map = self.ebpf.map_mut("ANNOUNCED").context("ANNOUNCED")?;
        let key = AnnouncedKey { address: address(ip), ifindex };
        let value = Announced { mac, reserved: [0; 2] };
        Ok(HashMap::<_, AnnouncedKey, Announced>::try_from(map)?.insert(key, value, 0)?)
    }

    /// What becomes of a flow.
    pub(super) fn state(&self, key: &FlowTuple) -> Option<FlowState> {
        self.conntrack.get(key, 0).ok()
    }

    /// Every flow.
    pub(super) fn states(&self) -> Vec<(FlowTuple, FlowState)> {
        self.conntrack.iter().filter_map(Result::ok).collect()
    }

    /// Puts an empty table of flows in place of the one there is, which is still to be copied.
    pub(super) fn grow(&mut self) -> Result<()> {
        let larger = HashMap::create(8192, SPARSE)?;
        put_at(&mut self.ebpf, "CONNTRACK", 1, &self.conntrack)?;
        put_at(&mut self.ebpf, "CONNTRACK", 0, &larger)?;
        self.conntrack = larger;
        Ok(())
    }

    /// Forgets every flow.
    pub(super) fn forget(&mut self) -> Result<()> {
        for key in self.conntrack.keys().collect::<Result<Vec<_>, _>>()? {
            self.conntrack.remove(&key)?;
        }
        Ok(())
    }

    /// Connections, refused, dropped.
    pub(super) fn counts(&self, service: u32) -> Result<(u64, u64, u64)> {
        let stats = self.service_stats.get(&service, 0)?;
        Ok((stats.connections, stats.refused, stats.dropped))
    }

    /// Connections of a backend.
    pub(super) fn connections(&self, backend: u32) -> Result<u64> {
        Ok(self.backend_stats.get(&backend, 0)?)
    }

    /// Drops that were counted, by name.
    pub(super) fn drops(&self) -> Result<Vec<(&'static str, u64)>> {
        let map = PerCpuArray::<_, u64>::try_from(self.ebpf.map("DROPS").context("DROPS")?)?;
        let mut found = Vec::new();
        for reason in 0..DROP_REASONS {
            let sum: u64 = map.get(&reason, 0)?.iter().sum();
            if sum != 0 {
                found.push((DROP_NAMES[reason as usize], sum));
            }
        }
        Ok(found)
    }

    /// Runs a program on a packet that comes to the loopback device.
    pub(super) fn run(&self, program: &str, packet: &Packet) -> Result<Ran> {
        let packet = packet.clone().macs([2, 0, 0, 0, 0, 1], [0; 6]);
        self.run_bytes(program, &packet.build())
    }

    /// Runs a program on bytes.
    pub(super) fn run_bytes(&self, program: &str, bytes: &[u8]) -> Result<Ran> {
        let loaded: &SchedClassifier = self.ebpf.program(program).context("no such program")?.try_into()?;
        run(loaded.fd()?.as_fd(), bytes)
    }

    /// Runs the XDP program on a packet that comes to a device.
    pub(super) fn run_early(&self, ifindex: u32, bytes: &[u8]) -> Result<Ran> {
        let loaded: &Xdp = self.ebpf.program(programs::XDP_OUTSIDE).context("no such program")?.try_into()?;
        run_early(loaded.fd()?.as_fd(), ifindex, bytes)
    }

    /// How many flows the CPUs remember from a moment ago, in order to send their packets on.
    pub(super) fn warm(&self) -> Result<usize> {
        let map = Array::<_, WarmBucket>::try_from(self.ebpf.map(maps::WARM).context(maps::WARM)?)?;
        let mut count = 0;
        for bucket in map.iter() {
            let flows = bucket?.flows;
            // One of IPv6 takes the place of two.
            let places = if flows[0].protocol >= WARM_V6 { 1 } else { 2 };
            let is_sent = |flow: &&WarmFlow| flow.protocol != 0 && flow.hop != WARM_LEFT;
            count += flows[..places].iter().filter(is_sent).count();
        }
        Ok(count)
    }

    /// Says that something was taken back that packets were sent by.
    pub(super) fn take_back(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut(maps::TAKEN_BACK).context(maps::TAKEN_BACK)?;
        let mut map = Array::<_, u32>::try_from(map)?;
        let count = map.get(&0, 0)?;
        Ok(map.set(0, count + 1, 0)?)
    }

    /// Forgets what the CPUs remember from a moment ago.
    pub(super) fn cool(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut(maps::WARM).context(maps::WARM)?;
        let mut map = Array::<_, WarmBucket>::try_from(map)?;
        for place in 0..map.len() {
            map.set(place, WarmBucket::default(), 0)?;
        }
        Ok(())
    }

    /// How long a program takes for a packet, in nanoseconds: the best of some long runs. The packet stays what the program made of
    /// it, so this is for packets that become themselves.
    pub(super) fn cost(&self, program: &str, packet: &Packet) -> Result<u32> {
        let bytes = packet.clone().macs([2, 0, 0, 0, 0, 1], [0; 6]).build();
        let loaded: &SchedClassifier = self.ebpf.program(program).context("no such program")?.try_into()?;
        let mut best = u32::MAX;
        for _ in 0..5 {
            best = best.min(timed(loaded.fd()?.as_fd(), 0, &bytes, 200_000)?.0);
        }
        Ok(best)
    }

    /// Attaches a program to a device of the namespace it is called in.
    pub(super) fn attach(&mut self, program: &str, device: &str) -> Result<()> {
        let side = match program {
            programs::TO_POD | programs::TO_OUTSIDE => TcAttachType::Egress,
            _ => TcAttachType::Ingress,
        };
        let loaded: &mut SchedClassifier =
            self.ebpf.program_mut(program).context("no such program")?.try_into()?;
        loaded.attach(device, side).with_context(|| format!("attach {program} to {device}"))?;
        Ok(())
    }

    /// Attaches the XDP program in the driver of a device of the namespace it is called in.
    pub(super) fn attach_early(&mut self, device: &str) -> Result<()> {
        let name = programs::XDP_OUTSIDE;
        let loaded: &mut Xdp = self.ebpf.program_mut(name).context(name)?.try_into()?;
        loaded.attach(device, XdpMode::Driver).with_context(|| format!("attach {name} to {device}"))?;
        Ok(())
    }

    /// What the verifier went through, by program.
    pub(super) fn verified(&self) -> Result<Vec<(&'static str, u32)>> {
        let mut found = Vec::new();
        for name in programs::PACKET {
            let program: &SchedClassifier = self.ebpf.program(name).context(name)?.try_into()?;
            let count = program.info()?.verified_instruction_count().context("the kernel does not say")?;
            found.push((name, count));
        }
        let early: &Xdp =
            self.ebpf.program(programs::XDP_OUTSIDE).context(programs::XDP_OUTSIDE)?.try_into()?;
        let count = early.info()?.verified_instruction_count().context("the kernel does not say")?;
        found.push((programs::XDP_OUTSIDE, count));
        Ok(found)
    }
}

/// Puts an inner map into its place.
fn put<M: aya::maps::InnerMap>(ebpf: &mut Ebpf, name: &str, inner: &M) -> Result<()> {
    put_at(ebpf, name, 0, inner)
}

fn put_at<M: aya::maps::InnerMap>(ebpf: &mut Ebpf, name: &str, place: u32, inner: &M) -> Result<()> {
    let outer = ebpf.map_mut(name).with_context(|| name.to_owned())?;
    ArrayOfMaps::<_, M>::try_from(outer)?.set(place, inner, 0).with_context(|| name.to_owned())
}
