//! Traffic at full speed through Services while the agent is restarted, killed, and its maps grow: what is lost.
//!
//! Must not know: how programs and maps are replaced.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use pagurus_tests::daemon::{Agent, Ground, PATIENCE, SERVICE_PORT, program};
use pagurus_tests::eventually::eventually;
use pagurus_tests::load::{Kind, Load, Report};
use pagurus_tests::netns::Sandbox;
use serde_json::{Value, json};

use crate::Effort;
use crate::row::Row;

/// The address of the Service.
const ADDRESS: &str = "10.96.7.7";
/// Its NodePort.
const NODE_PORT: u16 = 30_080;
/// Services that are added, each of so many ports, so that every map grows: more frontends than there are places for at first.
const GROWTH: u32 = 800;
const PORTS: u16 = 100;
/// Endpoints of each of them.
const ENDPOINTS: u8 = 4;

/// Measures.
pub fn run(sandbox: &Sandbox, effort: Effort) -> Result<Vec<Row>> {
    let address: IpAddr = ADDRESS.parse()?;
    let mut ground = Ground::new(sandbox, &[address], NODE_PORT)?;
    let begin = |ground: &Ground| -> Result<Load> {
        let mut load = Load::default();
        let inside = SocketAddr::new(address, SERVICE_PORT);
        let outside = SocketAddr::new(ground.topology.nodes[0].ips.v4.into(), NODE_PORT);
        for kind in [Kind::Connections, Kind::Stream, Kind::Datagrams] {
            load.add(&ground.caller.host, kind, inside, Duration::ZERO)?;
            load.add(&ground.topology.client, kind, outside, Duration::ZERO)?;
        }
        load.go_on(100)?;
        Ok(load)
    };
    let (mut rows, program) = (Vec::new(), program("pagurus-agent")?);
    for (name, signal) in [
        ("agent restart (and upgrade: programs and links are replaced) under full load", Signal::SIGTERM),
        ("agent killed and started again under full load", Signal::SIGKILL),
    ] {
        let (load, times) = (begin(&ground)?, effort.rounds.min(5));
        let start = Instant::now();
        for _ in 0..times {
            for node in 0..ground.agents.len() {
                ground.replace_agent(node, &program, signal)?;
                ground.agents[node].ready(PATIENCE)?;
            }
            load.go_on(100)?;
        }
        rows.push(row(name, &load.finish()?, &format!("{times} times on both nodes"), start));
    }
    let (load, start) = (begin(&ground)?, Instant::now());
    let before = capacity(&ground.agents[0])?;
    ground.api.fill(1, (0..GROWTH).map(wide))?;
    let frontends = f64::from(GROWTH) * f64::from(PORTS);
    for agent in &ground.agents {
        eventually("all frontends are served", PATIENCE, || {
            Ok((agent.metric("pagurus_agent_services_frontends")? >= frontends).then_some(()))
        })?;
    }
    load.go_on(100)?;
    let note = format!(
        "{GROWTH} Services of {PORTS} ports more, {ENDPOINTS} endpoints each; places for frontends before {before}, after {}",
        capacity(&ground.agents[0])?
    );
    rows.push(row("map growth under full load", &load.finish()?, &note, start));
    Ok(rows)
}

/// A Service of those that are added, and its endpoints.
fn wide(number: u32) -> [Value; 2] {
    let (high, low) = ((number / 250) as u8, (number % 250) as u8);
    let name = format!("wide-{number}");
    let port =
        |port: u16| json!({"name": format!("p{port}"), "port": 1000 + port, "targetPort": 1000 + port});
    let service = json!({"metadata": {"name": name}, "spec": {
        "clusterIP": format!("10.96.{}.{}", 100 + high, 1 + low),
        "ports": (0..PORTS).map(port).collect::<Vec<_>>(),
    }});
    let endpoint = |place: u8| {
        let addresses = [format!("11.{high}.{low}.{}", 1 + place)];
        json!({"addresses": addresses, "conditions": {"ready": true}})
    };
    let port = |port: u16| json!({"name": format!("p{port}"), "port": 1000 + port, "protocol": "TCP"});
    let slice = json!({
        "metadata": {"name": format!("{name}-1"), "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench"}},
        "addressType": "IPv4", "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
        "ports": (0..PORTS).map(port).collect::<Vec<_>>(),
    });
    [service, slice]
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
