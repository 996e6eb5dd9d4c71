//! Requests over open connections: from a pod to a pod of another node through a Service, beside node to node, and beside the same pods
//! when the kernel alone forwards.
//!
//! Must not know: how programs and rules are made.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result};
use pagurus_agent_core::addr::Protocol;
use pagurus_agent_datapath::devices::Early;
use pagurus_tests::dataplane::{Plane, With as _, service, slices};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Node, Topology};

use crate::Effort;
use crate::connections::{Pods, Way, ours, said, target};
use crate::load::{LONG, requests, serve_long};
use crate::row::{Row, alternate};
use crate::times;

/// Services on our nodes.
const SERVICES: u32 = 10;
/// The Service that is asked.
const SERVICE: &str = "10.99.0.1";

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let mut topology = Topology::new(sandbox, 4)?;
    let [bare, far, here, there] = topology.nodes.as_mut_slice() else {
        unreachable!("four nodes were asked for")
    };
    let (on_bare, on_far) = (Pods::new(bare)?, Pods::new(far)?);
    let (on_here, on_there) = (Pods::new(here)?, Pods::new(there)?);
    serve_long(&far.host, far.ips.v4.into(), LONG)?;
    let at = SocketAddrV4::new(on_there.servers[0].ips.v4, LONG);
    let _planes = [with_service(here, &on_here, at)?, with_service(there, &on_there, at)?];
    let way = |name, client: &pagurus_tests::topology::Host, to| Way { name, client: client.clone(), to };
    let ways = [
        way("node to node", &bare.host.unhooked(), SocketAddr::new(far.ips.v4.into(), LONG)),
        way(
            "pod to pod by the kernel alone",
            &on_bare.client.host,
            SocketAddr::new(on_far.servers[0].ips.v4.into(), LONG),
        ),
        way("ours, pod to pod through a Service", &on_here.client.host, format!("{SERVICE}:80").parse()?),
    ];
    let mut rows = Vec::new();
    for (at_once, aim) in [(1, 0.98), (32, 0.93)] {
        let measure = |way: &Way| requests(&way.client, way.to, at_once, effort.time);
        let series = alternate(&ways, effort.rounds * 2 + 1, measure)?;
        let name = format!("requests/s over {at_once} at once: of node to node without us");
        let rival = series[1].over(&series[0]).median();
        let note = format!("{}; {}", said(&ways, &series), spent(&ways[2], at_once, effort)?);
        rows.push(Row::ratio(&name, series[2].over(&series[0]).median(), aim).against(rival).noted(&note));
    }
    Ok(rows)
}

/// Our dataplane on a node, with the Service.
fn with_service(node: &Node, pods: &Pods, at: SocketAddrV4) -> Result<Plane> {
    let mut plane = ours(node, pods, SERVICES, Early::Off)?;
    let asked = service("asked", &[SERVICE]).port("http", Protocol::Tcp, 80);
    let is_here = pods.servers.iter().any(|pod| pod.ips.v4 == *at.ip());
    plane.change(|desired| {
        for (name, slice) in slices(&asked, &[target(at)], |_| is_here) {
            desired.set_slice(&name, slice);
        }
        desired.set_service(asked.clone());
    })?;
    Ok(plane)
}

/// What each of our programs took for a packet, as the kernel counts it, in a run of its own: counting costs as well.
fn spent(way: &Way, at_once: usize, effort: Effort) -> Result<String> {
    let (count, times) = times::while_running(|| requests(&way.client, way.to, at_once, effort.time))?;
    let count = (count * effort.time.as_secs_f64()).max(1.0);
    let of = |name: &str| {
        let time = times.iter().find(|time| time.name == name).context(name.to_owned())?;
        Ok(format!("{name} {:.0} ns x {:.1}", time.nanoseconds / time.runs, time.runs / count))
    };
    let said: Vec<String> =
        ["from_pod", "to_outside", "from_outside"].into_iter().map(of).collect::<Result<_>>()?;
    Ok(format!("programs, each run, and runs of a request: {}", said.join(", ")))
}
