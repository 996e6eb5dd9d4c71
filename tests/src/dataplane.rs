//! The dataplane on the nodes of a [`Topology`], without an agent: programs loaded, attached to the node's cgroup and devices, and the
//! tables written from Services and endpoints by the same pure code and in the same order as the agent does it.
//!
//! Must not know: the Kubernetes API.

mod service;

pub use service::{Target, With, service, slices};

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use pagurus_agent_core::devices::{Device, DeviceKind};
use pagurus_agent_core::node_config::{self, Facts};
use pagurus_agent_core::services::plan::{Capacity, Table};
use pagurus_agent_core::services::{Desired, NodeAddress, Service, ServiceName};
use pagurus_agent_datapath::devices::{Devices, Early};
use pagurus_agent_datapath::handles::{Endpoints, LocalPod};
use pagurus_agent_datapath::{Build, Config, Datapath, LIMITS, MapCapacity, ServiceMaps as _};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_ebpf_abi::NodeConfig;

use crate::netns::Sandbox;
use crate::topology::{Host, Node, Pod, Topology};

/// NodePorts.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// How a node's dataplane is to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Packets to pods and to other nodes are sent by the programs, not by the kernel's forwarding.
    pub own_network: bool,
    /// Pods' connections out of the cluster get the node's address.
    pub masquerade: bool,
    /// XDP at the uplinks.
    pub early: Early,
    /// How large the maps are at first.
    pub capacity: MapCapacity,
}

impl Default for Options {
    fn default() -> Self {
        Self { own_network: false, masquerade: true, early: Early::Off, capacity: MapCapacity::default() }
    }
}

/// The dataplane of one node.
pub struct Plane {
    /// The programs and maps.
    pub datapath: Datapath,
    devices: Devices,
    attached: Vec<Device>,
    endpoints: Endpoints,
    desired: Desired,
    table: Table,
    host: Host,
    started: Instant,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A program in a link of its own: number and tag, which is made of its instructions.
pub type Attached = (u32, u64);

/// The programs that are attached on a node, by their links.
///
/// # Errors
/// A link cannot be read, or has no program.
pub fn attached(node: &Node) -> Result<BTreeMap<String, Attached>> {
    let programs = loaded_programs().map(|program| program.map(|program| (program.id(), program.tag())));
    let tags = programs.collect::<Result<BTreeMap<u32, u64>, _>>()?;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(node.bpffs.join("pagurus/links"))? {
        let path = entry?.path();
        let program = FdLink::from(PinnedLink::from_pin(&path)?).info()?.program_id();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tag = tags.get(&program).with_context(|| format!("the program of {name} has gone"))?;
        all.insert(name, (program, *tag));
    }
    Ok(all)
}

/// Where programs find each other, with maps that are as large as they are by themselves.
pub fn config(cgroup_root: &Path, bpffs: &Path) -> Config {
    let (cgroup_root, bpffs) = (cgroup_root.to_owned(), bpffs.to_owned());
    Config { cgroup_root, bpffs, capacity: MapCapacity::default(), node_ports: NODE_PORTS }
}

/// As [`config`], of a node.
fn config_of(node: &Node, options: &Options) -> Config {
    Config { capacity: options.capacity, ..config(&node.cgroup, &node.bpffs) }
}

/// What programs know of their node, which has these addresses.
///
/// # Errors
/// It does not fit.
pub fn node_config(node_ips: &[IpAddr], masquerade: bool, own_network: bool) -> Result<NodeConfig> {
    let (config, problems) = node_config::node_config(&Facts {
        node_ips: node_ips.to_vec(),
        node_ports: NODE_PORTS,
        local_ports: 32_768..=60_999,
        cluster_networks: vec!["10.244.0.0/16".parse()?, "fd10:244::/32".parse()?],
        pod_ranges: Vec::new(),
        exclusions: Vec::new(),
        masquerade,
        own_network,
        overlay: None,
        tcp_seconds: [60, 21_600, 60, 10],
        udp_seconds: [30, 180],
    });
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(config)
}

impl Plane {
    /// Loads and attaches everything on a node, its uplink included; `addresses` are those of all nodes.
    ///
    /// # Errors
    /// Something is refused.
    pub fn start(node: &Node, options: &Options, addresses: &[IpAddr]) -> Result<Self> {
        let config = config_of(node, options);
        let facts = node_config(&node.ips.both(), options.masquerade, options.own_network)?;
        node.host.run(|| {
            let mut datapath = Datapath::load(&config)?;
            datapath.set_node_config(&facts)?;
            let table = Table::new(datapath.observe()?, LIMITS, 0);
            datapath.attach()?;
            let endpoints = datapath.endpoints()?;
            let programs = datapath.packet_programs(options.early != Early::Off)?;
            let devices = Devices::new(&config, programs, options.early)?;
            let ifindex = Socket::open()?.link("eth0")?.context("the uplink")?.index;
            let uplink = Device { ifindex, name: "eth0".into(), kind: DeviceKind::Uplink };
            let (desired, started) = (Desired::default(), Instant::now());
            let (host, attached) = (node.host.clone(), vec![uplink]);
            let mut plane = Self { datapath, devices, attached, endpoints, desired, table, host, started };
            plane.desired.set_node(&node.host.name, None);
            let own = node.ips.both();
            let address = |ip: &IpAddr| NodeAddress { local: own.contains(ip), node_ports: true };
            let addresses: BTreeMap<_, _> = addresses.iter().map(|ip| (*ip, address(ip))).collect();
            plane.desired.set_addresses(addresses.clone());
            let ops = plane.table.plan_nodes(&addresses);
            plane.datapath.apply(&ops)?;
            plane.table.commit(&ops, ops.len(), 0);
            plane.sync()?;
            Ok(plane)
        })
    }

    /// Attaches the programs to the devices that are known, and only to them.
    fn sync(&mut self) -> Result<()> {
        let synced = self.devices.sync(&self.attached);
        ensure!(synced.problems.is_empty(), "{:?}", synced.problems);
        Ok(())
    }

    /// A pod has come.
    ///
    /// # Errors
    /// The programs cannot be attached to its device.
    pub fn add_pod(&mut self, pod: &Pod) -> Result<()> {
        self.attached.push(Device { ifindex: pod.ifindex, name: pod.device.clone(), kind: DeviceKind::Pod });
        let local = LocalPod { ifindex: pod.ifindex, mac: pod.mac, host_mac: pod.host_mac };
        for ip in pod.ips.both() {
            self.endpoints.set(ip, &local)?;
        }
        let host = self.host.clone();
        host.run(|| self.sync())
    }

    /// A device of pods that another plugin has connected.
    fn add_device(&mut self, pod: &Pod, name: &str) -> Result<()> {
        let device = Device { ifindex: pod.ifindex, name: name.to_owned(), kind: DeviceKind::Pod };
        if !self.attached.contains(&device) {
            self.attached.push(device);
        }
        let host = self.host.clone();
        host.run(|| self.sync())
    }

    /// Changes what is wanted and writes the tables; how many operations that took.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn change(&mut self, change: impl FnOnce(&mut Desired)) -> Result<usize> {
        change(&mut self.desired);
        let mut ops = Vec::new();
        for name in self.desired.take_dirty() {
            let compiled = self.desired.compile(&name);
            ops.extend(self.table.plan(&name, &compiled, self.desired.claims())?);
        }
        let now = self.started.elapsed().as_millis() as u64;
        ops.extend(self.table.release(now));
        let result = self.datapath.apply(&ops);
        let done = result.as_ref().map_or_else(|failed| failed.done, |()| ops.len());
        self.table.commit(&ops, done, now);
        result?;
        Ok(done)
    }

    /// Another agent takes over, with maps of other capacities perhaps: programs and maps are loaded anew and replace those that run.
    ///
    /// # Errors
    /// Something is refused.
    pub fn restart(&mut self, node: &Node, options: &Options) -> Result<()> {
        self.upgrade(node, options, &Build::own())
    }

    /// As [`restart`](Self::restart), by an agent of another build.
    ///
    /// # Errors
    /// Something is refused.
    pub fn upgrade(&mut self, node: &Node, options: &Options, build: &Build<'_>) -> Result<()> {
        let config = config_of(node, options);
        let host = self.host.clone();
        host.run(|| {
            let (facts, pods) = (self.datapath.node_config()?, self.endpoints.all()?);
            let mut datapath = Datapath::load_build(&config, build)?;
            datapath.set_node_config(&facts)?;
            self.table = Table::new(datapath.observe()?, LIMITS, 0);
            self.datapath = datapath;
            self.started = Instant::now();
            let ops = self.table.plan_nodes(self.desired.addresses());
            self.datapath.apply(&ops)?;
            self.table.commit(&ops, ops.len(), 0);
            let names: Vec<_> = self.desired.service_names().collect();
            self.change(|desired| names.into_iter().for_each(|name| desired.mark_dirty(name)))?;
            self.datapath.attach()?;
            self.endpoints = self.datapath.endpoints()?;
            self.endpoints.replace(&pods)?;
            let programs = self.datapath.packet_programs(options.early != Early::Off)?;
            self.devices = Devices::new(&config, programs, options.early)?;
            self.sync()
        })
    }

    /// How much the tables have room for.
    pub fn capacity(&self) -> Capacity {
        self.table.capacity()
    }

    /// How many frontends, places, backends and Services the tables hold.
    pub fn used(&self) -> Capacity {
        self.table.used()
    }

    /// Packets dropped or refused for a reason, by its name.
    ///
    /// # Errors
    /// The maps cannot be read, or there is no such reason.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let drops = self.datapath.drops()?;
        let found = drops.iter().find(|(name, _)| *name == reason);
        found.map(|(_, count)| *count).with_context(|| format!("no reason {reason:?} in {drops:?}"))
    }

    /// What was counted, for messages about what went wrong.
    pub fn said(&self) -> String {
        let counted = |counts: Result<Vec<(&'static str, u64)>, _>| match counts {
            Ok(counts) => counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => format!("{error:?}"),
        };
        let counters = counted(self.datapath.counters());
        format!("{}: counters: {counters}; drops: {}", self.host.name, counted(self.datapath.drops()))
    }
}

/// A topology with a dataplane on each node.
#[derive(Debug)]
pub struct Cluster {
    /// The dataplanes, in the order of the nodes.
    pub planes: Vec<Plane>,
    /// What they are on. Behind them, so that it goes after them.
    pub topology: Topology,
}

impl Cluster {
    /// So many nodes, alike.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn new(sandbox: &Sandbox, nodes: u8, options: &Options) -> Result<Self> {
        Self::of(sandbox, &vec![*options; nodes.into()])
    }

    /// A node for each of these.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn of(sandbox: &Sandbox, options: &[Options]) -> Result<Self> {
        let topology = Topology::new(sandbox, u8::try_from(options.len())?)?;
        let addresses: Vec<IpAddr> = topology.nodes.iter().flat_map(|node| node.ips.both()).collect();
        let nodes = topology.nodes.iter().zip(options);
        let planes = nodes.map(|(node, options)| Plane::start(node, options, &addresses));
        let planes = planes.collect::<Result<Vec<_>>>()?;
        Ok(Self { planes, topology })
    }

    /// Another pod on a node (from 0 on).
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn pod(&mut self, node: usize) -> Result<Pod> {
        let pod = self.topology.nodes[node].pod()?;
        self.planes[node].add_pod(&pod)?;
        Ok(pod)
    }

    /// Another pod on a node, on a bridge, of which no agent knows more than the bridge.
    ///
    /// # Errors
    /// The kernel refused something.
    pub fn pod_on_bridge(&mut self, node: usize) -> Result<Pod> {
        let pod = self.topology.nodes[node].pod_on_bridge()?;
        self.planes[node].add_device(&pod, "cbr0")?;
        Ok(pod)
    }

    /// The node on which an address is, if any: its own or one of its pods'.
    fn node_of(&self, ip: IpAddr) -> Option<usize> {
        self.topology.nodes.iter().position(|node| {
            let is_pods = match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [10, 244, node.number],
                IpAddr::V6(ip) => ip.segments()[..3] == [0xfd10, 0x244, node.number.into()],
            };
            is_pods || node.ips.both().contains(&ip)
        })
    }

    /// Makes a Service lead to these endpoints, on every node; how many operations that took.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn serve(&mut self, service: &Service, targets: &[Target]) -> Result<usize> {
        let mut done = 0;
        for node in 0..self.planes.len() {
            let is_local = |ip: IpAddr| self.node_of(ip) == Some(node);
            let slices = service::slices(service, targets, is_local);
            done += self.planes[node].change(|desired| {
                desired.set_service(service.clone());
                for (name, slice) in slices {
                    desired.set_slice(&name, slice);
                }
            })?;
        }
        Ok(done)
    }

    /// Takes a Service away, from every node.
    ///
    /// # Errors
    /// The kernel refuses an operation.
    pub fn remove(&mut self, name: &ServiceName) -> Result<()> {
        for plane in &mut self.planes {
            plane.change(|desired| {
                desired.remove_service(name);
                for slice in service::slice_names(name) {
                    desired.remove_slice(&name.namespace, &slice);
                }
            })?;
        }
        Ok(())
    }

    /// What all nodes have counted, for messages about what went wrong.
    pub fn said(&self) -> String {
        self.planes.iter().map(Plane::said).collect::<Vec<_>>().join("\n")
    }
}
