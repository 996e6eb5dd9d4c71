//! Traffic at full speed through Services while the agent is restarted, killed, and its maps grow: what is lost.
//!
//! Must not know: how programs and maps are replaced.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use pagurus_tests::daemon::{Agent, ApiServer, SERVICE_PORT, TARGET};
use pagurus_tests::load::{Kind, Load, Report};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Topology, tcp_server, udp_server};
use serde_json::json;

use crate::Effort;
use crate::agent::{PATIENCE, fill};
use crate::row::Row;

/// The address of the Service.
const ADDRESS: &str = "10.96.7.7";
/// Its NodePort.
const NODE_PORT: u16 = 30_080;
/// Services that are added so that every map grows several times.
const GROWTH: u32 = 20_000;

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let mut topology = Topology::new(sandbox, 2)?;
    let api = ApiServer::start(&topology.nodes)?;
    let mut pods = Vec::new();
    for node in &mut topology.nodes {
        pods.push(node.pod()?);
    }
    let caller = topology.nodes[0].pod()?;
    let mut servers = Vec::new();
    for pod in &pods {
        let ip = pod.ips.v4.into();
        servers.push(tcp_server(&pod.host, ip, TARGET, &pod.host.name)?);
        servers.push(udp_server(&pod.host, ip, TARGET, &pod.host.name)?);
    }
    let backends: Vec<_> = topology.nodes.iter().zip(&pods).collect();
    api.serve("web", &[ADDRESS.parse()?], Some(NODE_PORT), &json!({}), &backends)?;
    let mut agents = Vec::new();
    for node in &topology.nodes {
        let mut agent = Agent::start(node, &api.kubeconfig(), &[])?;
        agent.ready(PATIENCE)?;
        agents.push(agent);
    }
    let begin = || -> Result<Load> {
        let mut load = Load::default();
        let inside: SocketAddr = format!("{ADDRESS}:{SERVICE_PORT}").parse()?;
        let outside = SocketAddr::new(topology.nodes[0].ips.v4.into(), NODE_PORT);
        for kind in [Kind::Connections, Kind::Stream, Kind::Datagrams] {
            load.add(&caller.host, kind, inside, Duration::ZERO)?;
            load.add(&topology.client, kind, outside, Duration::ZERO)?;
        }
        load.go_on(100)?;
        Ok(load)
    };
    let mut rows = Vec::new();
    for (name, signal) in [
        ("agent restart (and upgrade: programs and links are replaced) under full load", Signal::SIGTERM),
        ("agent killed and started again under full load", Signal::SIGKILL),
    ] {
        let (load, times) = (begin()?, effort.rounds.min(5));
        let start = Instant::now();
        for _ in 0..times {
            for (agent, node) in agents.iter_mut().zip(&topology.nodes) {
                agent.end(signal)?;
                *agent = Agent::start(node, &api.kubeconfig(), &[])?;
                agent.ready(PATIENCE)?;
            }
            load.go_on(100)?;
        }
        rows.push(row(name, &load.finish()?, &format!("{times} times on both nodes"), start));
    }
    let (load, start) = (begin()?, Instant::now());
    let before = capacity(&agents[0])?;
    api.complete(fill(&api.client(), 0..GROWTH, |_| 4))?;
    load.go_on(100)?;
    let note = format!(
        "{GROWTH} Services more; places in the maps before {before}, after {}",
        capacity(&agents[0])?
    );
    rows.push(row("map growth under full load", &load.finish()?, &note, start));
    Ok(rows)
}

/// Frontends divided by the fill of their map: its places.
fn capacity(agent: &Agent) -> Result<String> {
    let frontends = agent.metric("pagurus_agent_services_frontends")?;
    let fill = agent.metric("pagurus_agent_services_map_fill{map=\"services\"}").context("map_fill")?;
    Ok(format!("{:.0}", frontends / fill))
}

fn row(name: &str, report: &Report, note: &str, start: Instant) -> Row {
    let name = format!("{name}: connections and datagrams lost");
    let said = report.to_string();
    let said: Vec<&str> = said.lines().collect();
    let elapsed = start.elapsed().as_secs_f64();
    Row::at_most(&name, report.failed() as f64, "", 0.0).noted(&format!(
        "{note}, {:.0}/s for {elapsed:.1} s, the longest answer {:.0} ms: {}",
        report.answered() as f64 / elapsed,
        report.longest().as_secs_f64() * 1e3,
        said.join("; ")
    ))
}
