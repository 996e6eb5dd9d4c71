//! The table of connections under real traffic: it grows while connections come and go, and when it is full, what lives goes on, and so
//! does what needs no entry.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::conntrack::{Timeouts, wanted_capacity};
use pagurus_agent_core::services::{Forwarding, Service};
use pagurus_agent_datapath::conntrack::Conntrack;
use pagurus_agent_datapath::{Datapath, MapCapacity};
use pagurus_tests::dataplane::{Cluster, Options, Plane, Target, With as _, service};
use pagurus_tests::eventually::eventually;
use pagurus_tests::load::{Kind, Load};
use pagurus_tests::netns::{Sandbox, isolated};
use pagurus_tests::topology::{Server, tcp_ask, tcp_connect, tcp_server, udp_server};

const KINDS: [Kind; 3] = [Kind::Connections, Kind::Stream, Kind::Datagrams];
/// Cluster IPs of Services, which say that they have both families.
const FIRST: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const SECOND: [&str; 2] = ["10.96.0.11", "fd00:96::11"];
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes with a server on each but the first, and a table of connections of this size.
struct Ground {
    cluster: Cluster,
    targets: Vec<Target>,
    _servers: Vec<Server>,
}

impl Ground {
    fn new(sandbox: &Sandbox, nodes: u8, entries: u32) -> Result<Self> {
        let capacity = MapCapacity { conntrack: entries, ..MapCapacity::default() };
        let first = Options { own_network: true, capacity, ..Options::default() };
        let others = Options { capacity: MapCapacity::default(), ..first };
        let options = [&[first][..], &vec![others; usize::from(nodes) - 1]].concat();
        let mut cluster = Cluster::of(sandbox, &options)?;
        let (mut servers, mut targets) = (Vec::new(), Vec::new());
        for node in 1..options.len() {
            let pod = cluster.pod(node)?;
            for ip in pod.ips.both() {
                servers.push(tcp_server(&pod.host, ip, 8080, &pod.host.name)?);
                servers.push(udp_server(&pod.host, ip, 8080, &pod.host.name)?);
            }
            targets.push(Target::new(pod.ips, &[("web", 8080), ("dns", 8080)]));
        }
        Ok(Self { cluster, targets, _servers: servers })
    }

    /// Makes a Service lead to all servers.
    fn serve(&mut self, ips: [&str; 2], node_ports: [u16; 2], forwarding: Forwarding) -> Result<()> {
        let [tcp, udp] = node_ports;
        let made = service(&format!("web-{tcp}"), &ips)
            .port("web", Protocol::Tcp, 80)
            .node_port(tcp)
            .port("dns", Protocol::Udp, 53)
            .node_port(udp);
        self.cluster.serve(&Service { forwarding, ..made }, &self.targets).map(drop)
    }

    fn ips(&self) -> [IpAddr; 2] {
        self.cluster.topology.nodes[0].ips.both()
    }

    /// Clients of these kinds, from outside, at the first node.
    fn load(&self, kinds: &[Kind], node_ports: [u16; 2], pause: Duration) -> Result<Load> {
        let mut load = Load::default();
        for ip in self.ips() {
            for kind in kinds {
                let port = node_ports[usize::from(*kind == Kind::Datagrams)];
                load.add(&self.cluster.topology.client, *kind, SocketAddr::new(ip, port), pause)?;
            }
        }
        load.go_on(10)?;
        Ok(load)
    }

    fn plane(&mut self) -> &mut Plane {
        &mut self.cluster.planes[0]
    }
}

fn with_programs(name: &str, body: impl FnOnce(&Sandbox) -> Result<()>) {
    if !Datapath::is_built() {
        println!("SKIPPED: built without BPF programs (`cargo xtask build` makes them)");
        return;
    }
    isolated(name, body);
}

/// What the agent does all the time: looks at a slice, and makes the table larger when it fills. How large it is then.
fn keep(table: &mut Conntrack, limit: u32) -> Result<u32> {
    if table.is_copying() {
        table.copy(128)?;
        return Ok(table.capacity());
    }
    let slice = table.expire(128, Conntrack::now(), &Timeouts::default())?;
    if let Some(capacity) = wanted_capacity(slice.estimate, table.capacity(), limit) {
        table.grow(capacity)?;
    }
    Ok(table.capacity())
}

#[test]
fn the_table_grows_while_connections_come_and_go() {
    with_programs("connections::the_table_grows_while_connections_come_and_go", |sandbox| {
        const BEGIN: u32 = 1024;
        const END: u32 = 4 * BEGIN;
        let mut ground = Ground::new(sandbox, 2, BEGIN)?;
        ground.serve(FIRST, [30_080, 30_053], Forwarding::Snat)?;
        let mut table = ground.plane().datapath.take_conntrack().context("the table of connections")?;
        ensure!(table.capacity() == BEGIN, "{} entries at first", table.capacity());
        let load = ground.load(&KINDS, [30_080, 30_053], Duration::from_millis(8))?;
        let begun = Instant::now();
        // Not by `eventually`: it must not fill up between two looks.
        while keep(&mut table, END)? < END || table.is_copying() {
            ensure!(begun.elapsed() < PATIENCE, "{} entries after {PATIENCE:?}", table.capacity());
        }
        load.go_on(10)?;
        let report = load.finish()?;
        println!("{BEGIN} entries, then {END} after {:?}\n{report}", begun.elapsed());
        report.nothing_lost().with_context(|| ground.cluster.said())
    });
}

#[test]
fn in_a_full_table_connections_live_and_the_hash_decides() {
    with_programs("connections::in_a_full_table_connections_live_and_the_hash_decides", |sandbox| {
        let mut ground = Ground::new(sandbox, 3, 64)?;
        ground.serve(FIRST, [30_080, 30_053], Forwarding::Snat)?;
        ground.serve(SECOND, [30_081, 30_054], Forwarding::Dsr)?;
        // Each of these has its two entries.
        let living = ground.load(&[Kind::Stream], [30_080, 30_053], Duration::from_millis(5))?;
        // None of these needs one: their endpoints' nodes answer themselves.
        let stateless = ground.load(&KINDS, [30_081, 30_054], Duration::from_millis(5))?;
        eventually("the table is full", PATIENCE, || {
            let counters = ground.cluster.planes[0].datapath.counters()?;
            Ok(counters.iter().any(|(name, count)| *name == "table_full" && *count > 0).then_some(()))
        })?;
        for _ in 0..5 {
            stateless.go_on(20)?;
            living.go_on(20)?;
        }
        // A new connection that needs an entry is not begun with half of it.
        for ip in ground.ips() {
            let to = SocketAddr::new(ip, 30_080);
            let begun = ground.cluster.topology.client.run(|| Ok(tcp_connect(to).is_ok()))?;
            ensure!(!begun, "{to}: a connection without an entry");
        }
        ensure!(ground.plane().drops("conntrack_full")? > 0, "{}", ground.cluster.said());
        for (what, load) in [("with entries", living), ("without", stateless)] {
            let report = load.finish()?;
            println!("{what}:\n{report}");
            report.nothing_lost().with_context(|| ground.cluster.said())?;
        }
        // There is room again when connections are over.
        let mut table = ground.plane().datapath.take_conntrack().context("the table of connections")?;
        let none =
            Timeouts { opening: 0, established: 0, half_closed: 0, closed: 0, one_way: 0, answered: 0 };
        while !table.expire(64, Conntrack::now() + 1, &none)?.is_end {}
        for ip in ground.ips() {
            tcp_ask(&ground.cluster.topology.client, SocketAddr::new(ip, 30_080))?;
        }
        Ok(())
    });
}
