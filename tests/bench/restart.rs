//! Traffic at full speed through Services while the agent is restarted, killed, and its maps grow: what is lost.
//!
//! Must not know: how programs and maps are replaced.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Api, Client};
use nix::sys::signal::Signal;
use pagurus_tests::daemon::{Agent, ApiServer, SERVICE_PORT, TARGET};
use pagurus_tests::eventually::eventually;
use pagurus_tests::load::{Kind, Load, Report};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Topology, tcp_server, udp_server};
use serde_json::json;

use crate::Effort;
use crate::agent::PATIENCE;
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
    api.complete(grow(&api.client()))?;
    let frontends = f64::from(GROWTH) * f64::from(PORTS);
    for agent in &agents {
        eventually("all frontends are served", PATIENCE, || {
            Ok((agent.metric("pagurus_agent_services_frontends")? >= frontends).then_some(()))
        })?;
    }
    load.go_on(100)?;
    let note = format!(
        "{GROWTH} Services of {PORTS} ports more, {ENDPOINTS} endpoints each; places for frontends before {before}, after {}",
        capacity(&agents[0])?
    );
    rows.push(row("map growth under full load", &load.finish()?, &note, start));
    Ok(rows)
}

/// Creates the Services that are added, and their endpoints.
async fn grow(client: &Client) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    for number in 0..GROWTH {
        let (high, low) = ((number / 250) as u8, (number % 250) as u8);
        let name = format!("wide-{number}");
        let each =
            |port: u16| json!({"name": format!("p{port}"), "port": 1000 + port, "targetPort": 1000 + port});
        let service = json!({"metadata": {"name": name}, "spec": {
            "clusterIP": format!("10.96.{}.{}", 100 + high, 1 + low),
            "ports": (0..PORTS).map(each).collect::<Vec<_>>(),
        }});
        let endpoints: Vec<_> = (0..ENDPOINTS)
            .map(|place| json!({"addresses": [format!("11.{high}.{low}.{}", 1 + place)], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({
            "metadata": {"name": format!("{name}-1"), "labels": {
                "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench"}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": (0..PORTS).map(|port| json!({"name": format!("p{port}"), "port": 1000 + port, "protocol": "TCP"})).collect::<Vec<_>>(),
        });
        services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    }
    Ok(())
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
