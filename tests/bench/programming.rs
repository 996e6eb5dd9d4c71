//! What a change of Services costs from the event to the kernel's maps, and all of them from nothing: by the agent's own pure code and
//! its map writers, without the watches.
//!
//! Must not know: packets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::{Desired, Service};
use pagurus_tests::dataplane::{Options, Plane, Target, With as _, service, slices};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Host, Pair, Topology};

use crate::Effort;
use crate::rivals::service_address;
use crate::row::{Row, Series, alternate};
use crate::times;

/// The load of the goals.
const SERVICES: u32 = 50_000;
/// Endpoints of each: a quarter of a million in all.
const ENDPOINTS: u32 = 5;

/// Where they listen.
const TARGET: u16 = 8080;

/// An endpoint's address.
fn backend(number: u32, endpoints: u32, place: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + number * endpoints + place)
}

/// A Service of a number, and its endpoints; `without` leaves one out.
fn made(number: u32, endpoints: u32, without: Option<u32>) -> (Service, Vec<Target>) {
    let address = service_address(number);
    let made = service(&format!("service-{number}"), &[&address.ip().to_string()]);
    let made = made.port("http", Protocol::Udp, 80);
    let places = (0..endpoints).filter(|place| Some(*place) != without);
    let target = |place: u32| {
        let v4 = backend(number, endpoints, place);
        Target::new(Pair { v4, v6: Ipv6Addr::UNSPECIFIED }, &[("http", TARGET)])
    };
    (made, places.map(target).collect())
}

fn set(desired: &mut Desired, number: u32, endpoints: u32, without: Option<u32>) {
    let (service, targets) = made(number, endpoints, without);
    // The family of the cluster IP alone.
    for (name, slice) in slices(&service, &targets, |_| false).into_iter().take(1) {
        desired.set_slice(&name, slice);
    }
    desired.set_service(service);
}

/// Bytes of resident memory of this process.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}

/// What connecting to a Service costs a pod more than connecting to a pod, in the program: all that is done for a Service is done there,
/// and each packet afterwards goes straight.
fn first_packet(pod: &Host, effort: Effort) -> Result<Row> {
    let number = |step: u32| step.wrapping_mul(7919) % SERVICES;
    let through: Vec<_> = (0..SERVICES).map(|step| SocketAddr::from(service_address(number(step)))).collect();
    let straight: Vec<_> = (0..SERVICES)
        .map(|step| SocketAddr::from((backend(number(step), ENDPOINTS, step % ENDPOINTS), TARGET)))
        .collect();
    let few: Vec<_> = through.iter().copied().take(100).cycle().take(SERVICES as usize).collect();
    let unhooked = pod.unhooked();
    let places = [(pod, &through), (pod, &straight), (pod, &few), (&unhooked, &straight)];
    let calls = alternate(&places, effort.rounds, |(host, addresses)| connect(host, addresses))?;
    let programs = alternate(&places[..3], effort.rounds, |(host, addresses)| {
        let (_, times) = times::while_running(|| connect(host, addresses))?;
        let time = times.iter().find(|time| time.name == "connect4").context("connect4 did not run")?;
        Ok(time.nanoseconds / time.runs)
    })?;
    let note = format!(
        "connect4 through a Service {}, straight {} ns of each run as the kernel counts it, over all Services in a random order; through \
         100 of them {}; the whole call of connect() {}, straight {}, through 100 {}, straight without programs {}",
        programs[0].said(0),
        programs[1].said(0),
        programs[2].said(0),
        calls[0].said(0),
        calls[1].said(0),
        calls[2].said(0),
        calls[3].said(0),
    );
    let name = "first packet of a pod's socket through a Service at 50,000 Services: more than direct, in the program";
    Ok(Row::at_most(name, programs[0].median() - programs[1].median(), "ns", 1000.0).noted(&note))
}

/// Nanoseconds of each connect() of a socket to these addresses, one after the other.
fn connect(host: &Host, addresses: &[SocketAddr]) -> Result<f64> {
    host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let start = Instant::now();
        for address in addresses {
            socket.connect(address).with_context(|| format!("connect to {address}"))?;
        }
        Ok(start.elapsed().as_nanos() as f64 / addresses.len() as f64)
    })
}

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let mut topology = Topology::new(sandbox, 2)?;
    let second = topology.nodes.pop().context("two nodes")?;
    let mut first = topology.nodes.pop().context("two nodes")?;
    let pod = first.pod()?;
    let start_of = |node| Plane::start(node, &Options::default(), &[]);
    let mut plane = start_of(&first)?;
    let (before, start) = (resident()?, Instant::now());
    plane.change(|desired| {
        for number in 0..SERVICES {
            set(desired, number, ENDPOINTS, None);
        }
    })?;
    let loaded = start.elapsed().as_secs_f64();
    let after = resident()?;
    let used = plane.used();
    let mut changes = Series::default();
    let count = (effort.rounds * 300) as u32;
    for step in 0..count {
        // Another Service each time, one endpoint gone; and back again in the next round.
        let number = step.wrapping_mul(7919) % SERVICES;
        let start = Instant::now();
        plane.change(|desired| set(desired, number, ENDPOINTS, Some(step % ENDPOINTS)))?;
        changes.0.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let first_packet = first_packet(&pod.host, effort)?;
    drop(plane);
    let mut plane = start_of(&second)?;
    let smaller_before = resident()?;
    plane.change(|desired| (0..30_000).for_each(|number| set(desired, number, 4, None)))?;
    let smaller = resident()? - smaller_before;
    let note = format!(
        "{} frontends, {} backends; in this process, whose objects are generated: the watches are not in it",
        used.services, used.backends
    );
    Ok(vec![
        first_packet,
        Row::at_most(
            "one EndpointSlice change at 50,000 Services / 250,000 endpoints, event to map commit, p99",
            changes.percentile(0.99),
            "ms",
            5.0,
        )
        .noted(&format!("p50 {:.3}, of {count}; {note}", changes.median())),
        Row::at_most("full load of those into empty maps", loaded, "s", 2.0).noted(&note),
        Row::at_most("what those take in memory", (after - before) / 1e6, "MB", 150.0).noted(&note),
        Row::at_most("what 30,000 Services x 4 take in memory", smaller / 1e6, "MB", 100.0)
            .noted("resident, with the maps that are written through memory; the maps themselves are in `bpftool map`"),
    ])
}
