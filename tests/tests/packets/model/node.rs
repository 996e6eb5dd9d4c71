//! A node with the agent's own maps and programs, filled by the agent's own compiler, that packets are handed to by hand.
//!
//! Must not know: what should become of the packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use pagurus_agent_core::conntrack::Timeouts;
use pagurus_agent_core::services::Desired;
use pagurus_agent_core::services::kube_proxy::Cluster;
use pagurus_agent_core::services::plan::{QUARANTINE, Table};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_agent_datapath::devices::PacketPrograms;
use pagurus_agent_datapath::handles::LocalPod;
use pagurus_agent_datapath::names::Names;
use pagurus_agent_datapath::reading::Reader;
use pagurus_agent_datapath::{Config, Datapath, LIMITS, ServiceMaps as _};
use pagurus_ebpf_abi::{ClientKey, ClientValue, LAYOUT_VERSION, maps, programs};
use pagurus_tests::dataplane;
use pagurus_tests::netns::Sandbox;
use pagurus_tests::packet::Packet;
use pagurus_tests::test_run::{Ran, run, run_early};

use crate::packets::random::{self, NODE, PODS};
use crate::packets::uplink;

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

impl Node {
    /// Nothing if this build has no programs.
    pub(super) fn new(sandbox: &Sandbox) -> Result<Option<Self>> {
        if !Datapath::is_built() {
            println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
            return Ok(None);
        }
        let uplink = uplink::make()?;
        ["192.168.7.2", "fd77::2"].into_iter().try_for_each(uplink::is_at_the_gateway)?;
        let config = dataplane::config(&sandbox.cgroup, &sandbox.bpffs);
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
        random::want(&mut self.desired, cluster, &[]);
        self.write()?;
        self.forget_clients()?;
        self.forget_flows()
    }

    fn configure(&mut self, own_network: bool, masquerade: bool) -> Result<()> {
        let node_ips = NODE.iter().map(|ip| ip.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
        let facts = dataplane::node_config(&node_ips, masquerade, own_network)?;
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
