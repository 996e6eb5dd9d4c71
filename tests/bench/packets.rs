//! What a packet costs in the programs, and how many of them a node takes per second: by test runs of the programs with varied packets,
//! and by a generator behind the node's uplink. Beside it what the machine's memory costs, which many flows cannot do without.
//!
//! Must not know: sockets.

use std::alloc::Layout;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::MapCapacity;
use pagurus_agent_datapath::devices::{Early, PacketPrograms};
use pagurus_cni::netlink::{Netlink as _, Socket};
use pagurus_tests::bpf::Kind;
use pagurus_tests::dataplane::{Options, Plane, Target, With as _, service, slices};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::packet::{SENDER, tcp};
use pagurus_tests::topology::{Node, Pair, ROUTER, Topology};

use crate::Effort;
use crate::bpf::{Generator, Varied, Vary, attach_verdict};
use crate::row::{Row, Series, alternate};

/// What XDP programs say when they send a packet on themselves.
const XDP_SENT: [u32; 2] = [3, 4];
/// What an XDP program says to drop and to let on.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
/// Services: as many as there are numbers for in 16 bits.
const SERVICES: u32 = 1 << 16;
/// Connections: as many as there are numbers for in 19 bits.
const CONNECTION_BITS: u32 = 19;
/// Services of the nodes whose packets are counted: their backends have ports for all connections that are begun.
const FEWER_SERVICES: u32 = 1 << 12;
/// Flows at hand early, on both CPUs together.
const WARM: u32 = 4 << CONNECTION_BITS;
/// The first Service's external address, and the first backend's: beyond the nodes' router.
const FIRST_SERVICE: [u8; 4] = [100, 64, 0, 0];
const FIRST_BACKEND: [u8; 4] = [11, 0, 0, 0];
/// The loopback device, where test runs of programs take place, has no other.
const NOBODY: [u8; 6] = [0; 6];

/// An address some numbers behind another.
fn behind(first: [u8; 4], number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from_be_bytes(first) + number)
}

/// A node with many Services, each with one endpoint beyond the router.
fn loaded(node: &Node, count: u32, capacity: MapCapacity, early: Early) -> Result<Plane> {
    let options = Options { own_network: true, early, capacity, ..Options::default() };
    let via = ROUTER.v4.to_string();
    node.host.ip(&[
        "neigh",
        "replace",
        &via,
        "lladdr",
        "02:00:00:00:00:02",
        "dev",
        "eth0",
        "nud",
        "permanent",
    ])?;
    let mut plane = Plane::start(node, &options, &node.ips.both())?;
    plane.change(|desired| {
        for number in 0..count {
            let cluster_ip = behind([10, 100, 0, 0], number);
            let mut made = service(&format!("service-{number}"), &[&cluster_ip.to_string()]);
            made = made.port("http", Protocol::Tcp, 80);
            made.external_ips = vec![behind(FIRST_SERVICE, number).into()];
            let ips = Pair { v4: behind(FIRST_BACKEND, number), v6: Ipv6Addr::UNSPECIFIED };
            let targets = [Target::new(ips, &[("http", 8080)])];
            for (name, slice) in slices(&made, &targets, |_| false).into_iter().take(1) {
                desired.set_slice(&name, slice);
            }
            desired.set_service(made);
        }
    })?;
    Ok(plane)
}

fn vary(source: [u8; 4], source_bits: u32, destination: [u8; 4], destination_bits: u32) -> Vary {
    Vary { source, source_bits, destination, destination_bits, ports: [4000, 80], in_order: false }
}

/// The number and hardware address of a device of the calling thread's namespace.
fn device(name: &str) -> Result<(u32, [u8; 6])> {
    let link = Socket::open()?.link(name)?.with_context(|| format!("link {name}"))?;
    Ok((link.index, link.mac.map(|mac| mac.0).unwrap_or_default()))
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let topology = Topology::new(sandbox, 3)?;
    let [warm, early, late] = topology.nodes.as_slice() else { unreachable!("three nodes were asked for") };
    let repeat = if effort.rounds > 2 { 4_000_000 } else { 1_000_000 };
    let mut rows = Vec::new();
    // Memory for twice the connections on each CPU: then hardly three of them want one cache line.
    let capacity =
        MapCapacity { conntrack: 1 << 21, services: 1 << 17, warm: WARM, ..MapCapacity::default() };
    let mut plane = loaded(warm, SERVICES, capacity, Early::Native)?;
    let programs = plane.datapath.packet_programs(true)?;
    let found = warm.host.run(|| {
        let mut rows = xdp(&programs, repeat, effort)?;
        rows.push(first_packet(&programs, effort)?);
        Ok(rows)
    });
    rows.extend(found?);
    rows.extend(per_second(early, late, effort)?);
    Ok(rows)
}

/// Keeps the calling thread on the CPU that it is on: each CPU remembers flows of its own.
fn stay() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(nix::sched::sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on a CPU")
}

/// Nanoseconds to read a cache line at random in so much memory, in pages of the smallest size, as maps have it: the best of some
/// times.
fn memory(bytes: usize, rounds: usize) -> Result<f64> {
    /// Reads of one round.
    const READS: u32 = 1_000_000;
    let layout = Layout::from_size_align(bytes, 1 << 21).context("memory")?;
    // SAFETY: the layout has a size.
    let start = unsafe { std::alloc::alloc(layout) };
    ensure!(!start.is_null(), "no memory");
    // SAFETY: advice about memory that was just given to us; it is filled, and only then read.
    let memory = unsafe {
        let done = nix::libc::madvise(start.cast(), bytes, nix::libc::MADV_NOHUGEPAGE);
        ensure!(done == 0, "ask for small pages: {}", std::io::Error::last_os_error());
        start.write_bytes(0, bytes);
        std::slice::from_raw_parts(start.cast::<u64>(), bytes / 8)
    };
    let mut best = f64::MAX;
    let (mut state, mut read) = (1u64, 0);
    for _ in 0..rounds {
        let begin = Instant::now();
        for _ in 0..READS {
            // Where is read next depends on what was read.
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1 + read);
            read = memory[(state >> 33) as usize % (bytes / 64) * 8];
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(READS));
    }
    std::hint::black_box(read);
    // SAFETY: of this layout, and nobody reads it any more.
    unsafe { std::alloc::dealloc(start, layout) };
    Ok(best)
}

/// The packets that go through the program that takes them early.
fn xdp(programs: &PacketPrograms, repeat: u32, effort: Effort) -> Result<Vec<Row>> {
    stay()?;
    let program = programs.get("xdp_outside").context("no program xdp_outside")?;
    let (uplink, mac) = device("eth0")?;
    let packet = |flags: u8| tcp().from("10.128.0.0:4000").to("100.64.0.0:80").flags(flags).build();
    let (syn, ack) = (packet(0x02), packet(0x10));
    let all = vary([10, 128, 0, 0], CONNECTION_BITS, FIRST_SERVICE, 16);
    let varied = |vary: Vary| Varied::at(uplink, Kind::Xdp, &vary, &[SENDER, mac]);
    let filling = varied(Vary { in_order: true, ..all })?;
    filling.lead_to(program)?;
    for packet in [&syn, &ack] {
        let (_, verdict) = filling.run(packet, 1 << CONNECTION_BITS)?;
        ensure!(XDP_SENT.contains(&verdict), "the program said {verdict} to a connection");
    }
    let few = vary([10, 128, 0, 0], 10, FIRST_SERVICE, 10);
    let one = vary([10, 128, 0, 7], 0, [100, 64, 0, 7], 0);
    let mut rows = Vec::new();
    for (name, vary, target) in [
        ("XDP load balancing, 64k Services, 512k connections, at random", all, 100.0),
        ("XDP load balancing, 64k Services, 1k connections, at random", few, 100.0),
        ("XDP load balancing, one warm flow", one, 35.0),
    ] {
        let varied = varied(vary)?;
        // What was seen a moment ago is not believed for long: once more, and then measured.
        varied.measure(program, &ack, repeat)?;
        let mut series = Series::default();
        for _ in 0..effort.rounds {
            series.0.push(varied.measure(program, &ack, repeat)?);
        }
        let (_, verdict) = varied.run(&ack, 1)?;
        ensure!(XDP_SENT.contains(&verdict), "{name}: the program said {verdict}");
        let read = memory(1 << (vary.source_bits + 6), effort.rounds)?;
        let note = format!(
            "the best round; {} in test runs, without what varying the packet costs; to read a random cache line in as much memory as \
             the flows have takes {read:.0} ns",
            series.said(0)
        );
        rows.push(Row::at_most(name, series.percentile(0.0), "ns", target).noted(&note));
    }
    Ok(rows)
}

/// The first packet of a connection from a pod, through a Service and straight to a pod.
fn first_packet(programs: &PacketPrograms, effort: Effort) -> Result<Row> {
    let program = programs.get("from_pod").context("no program from_pod")?;
    // What is not addressed to the device is left alone.
    let syn = tcp().from("10.244.1.10:4000").to("10.100.0.0:80").syn().macs(SENDER, NOBODY).build();
    let count = 1 << 17;
    let (mut through, mut straight) = (Series::default(), Series::default());
    for round in 0..effort.rounds as u8 {
        // Clients that have not been seen: each packet is the first of its connection.
        let source = [10, 200 + round, 0, 0];
        for (destination, series) in [([10, 100, 0, 0], &mut through), ([10, 244, 2, 10], &mut straight)] {
            let bits = if destination[1] == 100 { 15 } else { 0 };
            let vary = Vary { in_order: true, ..vary(source, 17, destination, bits) };
            let varied = Varied::new(Kind::Tc, &vary, &[SENDER, NOBODY])?;
            series.0.push(varied.measure(program, &syn, count)?);
        }
    }
    let note = format!(
        "through a Service {}, straight to a pod {} in test runs at {SERVICES} Services",
        through.said(0),
        straight.said(0)
    );
    let name = "first packet of a client without socket programs through a Service: more than direct";
    Ok(Row::at_most(name, through.median() - straight.median(), "ns", 1000.0).noted(&note))
}

/// A generator behind a node's uplink, and what ends there.
struct Flood {
    begin: Generator,
    first: Generator,
    warm: Generator,
    _sink: OwnedFd,
}

impl Flood {
    fn new(node: &Node) -> Result<Self> {
        let (port, _) = device(&format!("p-{}", node.host.name))?;
        let (_, mac) = node.host.run(|| device("eth0"))?;
        let services = FEWER_SERVICES.ilog2();
        let warm = vary([10, 136, 0, 0], services, FIRST_SERVICE, services);
        let first = Vary { in_order: true, ..vary([10, 144, 0, 0], 20, FIRST_SERVICE, services) };
        let generator = |vary| Generator::new(port, &vary, &[SENDER, mac]);
        Ok(Self {
            begin: generator(Vary { in_order: true, ..warm })?,
            first: generator(first)?,
            warm: generator(warm)?,
            _sink: attach_verdict(port, XDP_DROP)?,
        })
    }
}

/// Packets that a node sends on to its backends: of warm connections, and the first ones of others.
fn per_second(early: &Node, late: &Node, effort: Effort) -> Result<Vec<Row>> {
    let _early = loaded(early, FEWER_SERVICES, MapCapacity::default(), Early::Native)?;
    let _late = loaded(late, FEWER_SERVICES, MapCapacity::default(), Early::Off)?;
    // Without a program at the driver packets of the generator do not get in.
    let (uplink, _) = late.host.run(|| device("eth0"))?;
    let _let_in = late.host.run(|| attach_verdict(uplink, XDP_PASS))?;
    let packet = |flags: u8| tcp().from("10.129.0.0:4000").to("100.64.0.0:80").flags(flags).build();
    let (syn, ack) = (packet(0x02), packet(0x10));
    let floods = [Flood::new(late)?, Flood::new(early)?];
    let name = "NodePort and others from outside, packets/s: XDP of tcx";
    let row = |name: &str, series: &[Series]| {
        let note = format!("tcx {} packets/s, XDP {} packets/s", series[0].said(0), series[1].said(0));
        Row::ratio(name, series[1].over(&series[0]).median(), 2.0).noted(&note)
    };
    let (many, few) = if effort.rounds > 2 { (3_000_000, 10_000) } else { (300_000, 10_000) };
    for flood in &floods {
        flood.begin.send(&syn, FEWER_SERVICES)?;
    }
    let warm = alternate(&floods, effort.rounds, |flood| flood.warm.send(&ack, many))?;
    let first = alternate(&floods, effort.rounds, |flood| flood.first.send(&syn, few))?;
    Ok(vec![row(name, &warm), row(&format!("{name}, first packets of connections"), &first)])
}
