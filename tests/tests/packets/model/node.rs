//! A node with the agent's own maps and programs, filled by the agent's own compiler, that packets are handed to by hand.
//!
//! Must not know: what should become of the packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use pagurus_agent_core::conntrack::Timeouts;
use pagurus_agent_core::node_config::{Facts, node_config};
use pagurus_agent_core::services::kube_proxy::Cluster;
use pagurus_agent_core::services::plan::{QUARANTINE, Table};
use pagurus_agent_core::services::{Desired, ServiceName};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_agent_datapath::devices::PacketPrograms;
use pagurus_agent_datapath::handles::LocalPod;
use pagurus_agent_datapath::names::Names;
use pagurus_agent_datapath::reading::Reader;
use pagurus_agent_datapath::{Config, Datapath, LIMITS, MapCapacity, ServiceMaps as _};
use pagurus_ebpf_abi::{ClientKey, ClientValue, LAYOUT_VERSION, maps, programs};
use pagurus_tests::dataplane::NODE_PORTS;
use pagurus_tests::netns::{Sandbox, ip};
use pagurus_tests::packet::Packet;
use pagurus_tests::test_run::{Ran, run, run_early};

use crate::packets::random::{self, NODE, PODS};

/// The uplink's hardware address, and that of everybody else on its network.
pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 7, 1];
pub(super) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 7, 0xfe];

/// The node.
pub(super) struct Node {
    datapath: Datapath,
    programs: PacketPrograms,
    config: Config,
    desired: Desired,
    table: Table,
    conntrack: Conntrack,
    /// Milliseconds, for the quarantine.
    now: u64,
    uplink: u32,
    /// What the programs were told last: pods' packets are sent on by them; pods' packets out of the cluster get the node's address.
    pub(super) masquerade: bool,
    /// The ports that connections with a replaced source get.
    pub(super) nat_ports: std::ops::RangeInclusive<u16>,
}

/// A network namespace with an uplink, behind which is everything else.
fn network() -> Result<u32> {
    ip(&["link", "add", "up0", "address", "02:00:00:00:07:01", "type", "veth", "peer", "name", "up0-p"])?;
    for device in ["up0", "up0-p"] {
        ip(&["link", "set", "dev", device, "up"])?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    for (address, gateway) in [("192.168.7.1/24", "192.168.7.254"), ("fd77::1/64", "fd77::fe")] {
        ip(&["address", "add", address, "dev", "up0", "nodad"])
            .or_else(|_| ip(&["address", "add", address, "dev", "up0"]))?;
        ip(&["neigh", "add", gateway, "lladdr", "02:00:00:00:07:fe", "dev", "up0", "nud", "permanent"])?;
        ip(&["route", "add", "default", "via", gateway, "dev", "up0"])?;
    }
    for neighbour in ["192.168.7.2", "fd77::2"] {
        ip(&["neigh", "add", neighbour, "lladdr", "02:00:00:00:07:fe", "dev", "up0", "nud", "permanent"])?;
    }
    nix::net::if_::if_nametoindex("up0").context("find up0")
}

impl Node {
    /// Nothing if this build has no programs.
    pub(super) fn new(sandbox: &Sandbox) -> Result<Option<Self>> {
        if !Datapath::is_built() {
            println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
            return Ok(None);
        }
        let uplink = network()?;
        let config = Config {
            cgroup_root: sandbox.cgroup.clone(),
            bpffs: sandbox.bpffs.clone(),
            capacity: MapCapacity::default(),
            node_ports: NODE_PORTS,
        };
        let mut datapath = Datapath::load(&config)?;
        let table = Table::new(datapath.observe()?, LIMITS, 0);
        datapath.attach()?;
        Names::open(&config)?;
        let programs = datapath.packet_programs(true)?;
        let mut endpoints = datapath.endpoints()?;
        for v6 in [false, true] {
            for number in 0..PODS {
                let (mac, host_mac) = ([2, 0, 0, 0, 1, number], [2, 0, 0, 0, 2, number]);
                endpoints.set(random::pod(v6, number), &LocalPod { ifindex: 70, mac, host_mac })?;
            }
        }
        let (desired, conntrack) = (Desired::default(), datapath.take_conntrack().context("the flows")?);
        let (now, masquerade, nat_ports) = (0, false, 0..=0);
        Ok(Some(Self {
            datapath,
            programs,
            config,
            desired,
            table,
            conntrack,
            now,
            uplink,
            masquerade,
            nat_ports,
        }))
    }

    /// From now on it is this cluster's.
    pub(super) fn become_part_of(
        &mut self,
        cluster: &Cluster,
        own_network: bool,
        masquerade: bool,
    ) -> Result<()> {
        self.configure(own_network, masquerade)?;
        let desired = &mut self.desired;
        desired.set_node("here", cluster.zone.as_deref());
        desired.set_addresses(cluster.nodes.clone());
        let old: Vec<ServiceName> =
            desired.service_names().filter(|name| !name.namespace.is_empty()).collect();
        for name in old.iter().filter(|name| cluster.services.iter().all(|service| service.name != **name)) {
            desired.remove_service(name);
        }
        for (namespace, slice) in desired.slice_names().cloned().collect::<Vec<_>>() {
            desired.remove_slice(&namespace, &slice);
        }
        for key in desired.host_port_keys().cloned().collect::<Vec<_>>() {
            desired.remove_host_port(&key);
        }
        cluster.services.iter().for_each(|service| desired.set_service(service.clone()));
        for (number, slice) in cluster.slices.iter().enumerate() {
            desired.set_slice(&format!("slice-{number}"), slice.clone());
        }
        for (number, host_port) in cluster.host_ports.iter().enumerate() {
            desired.set_host_port(&format!("port-{number}"), host_port.clone());
        }
        self.write()?;
        self.forget_clients()?;
        self.forget_flows()
    }

    fn configure(&mut self, own_network: bool, masquerade: bool) -> Result<()> {
        let node_ips = NODE.iter().map(|ip| ip.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
        let (facts, problems) = node_config(&Facts {
            node_ips,
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
        self.masquerade = masquerade;
        self.nat_ports = facts.nat_port_first..=facts.nat_port_last;
        Ok(self.datapath.set_node_config(&facts)?)
    }

    /// Writes what is wanted, as the agent does.
    fn write(&mut self) -> Result<()> {
        self.now += 2 * QUARANTINE;
        let mut ops = self.table.plan_nodes(self.desired.addresses());
        for name in self.desired.take_dirty() {
            let compiled = self.desired.compile(&name);
            ops.extend(self.table.plan(&name, &compiled, self.desired.claims())?);
        }
        ops.extend(self.table.release(self.now));
        self.datapath.apply(&ops)?;
        self.table.commit(&ops, ops.len(), self.now);
        Ok(())
    }

    /// Numbers of Services are given out again: nobody has been here before.
    fn forget_clients(&self) -> Result<()> {
        let folder = self.config.bpffs.join(format!("pagurus/maps-v{LAYOUT_VERSION}"));
        let map = Map::LruHashMap(MapData::from_pin(folder.join(maps::CLIENTS))?);
        let mut clients = HashMap::<_, ClientKey, ClientValue>::try_from(map)?;
        for key in clients.keys().collect::<Result<Vec<_>, _>>()? {
            clients.remove(&key)?;
        }
        Ok(())
    }

    /// Ports of clients are given out again.
    fn forget_flows(&mut self) -> Result<()> {
        let timeouts =
            Timeouts { opening: 0, established: 0, half_closed: 0, closed: 0, one_way: 0, answered: 0 };
        let later = Conntrack::now() + 1000;
        while !self.conntrack.expire(65_536, later, &timeouts)?.is_end {}
        ensure!(self.conntrack.list(1)?.is_empty(), "flows are left");
        Ok(())
    }

    /// What is in the maps now.
    pub(super) fn reader(&self) -> Result<Reader> {
        Ok(Reader::open(&self.config.bpffs)?)
    }

    /// Packets that were dropped or refused, by reason; reasons without any are not there.
    pub(super) fn drops(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(self.datapath.drops()?.into_iter().filter(|(_, count)| *count != 0).collect())
    }

    /// Runs a tc program on a packet.
    pub(super) fn run(&self, program: &str, packet: &Packet) -> Result<Ran> {
        run(self.programs.get(program).with_context(|| program.to_owned())?, &packet.build())
    }

    /// Runs the XDP program on a packet that comes to the uplink.
    pub(super) fn run_early(&self, packet: &Packet) -> Result<Ran> {
        let program = self.programs.get(programs::XDP_OUTSIDE).context(programs::XDP_OUTSIDE)?;
        run_early(program, self.uplink, &packet.build())
    }
}
