//! Nodes on which everything runs that a Service takes: an API server, an agent and a server on each node, and somebody to ask.
//!
//! Must not know: what becomes of them.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Agent, ApiServer, PATIENCE, TARGET};
use crate::netns::Sandbox;
use crate::topology::{Node, Pod, Server, Topology, tcp_server, udp_server};

/// Two nodes with an agent and a server on each, and the Service `web` of both.
pub struct Ground {
    _servers: Vec<Server>,
    /// The agents, in the order of the nodes.
    pub agents: Vec<Agent>,
    /// The API server.
    pub api: ApiServer,
    /// The pods in which the servers are, in the order of the nodes; each server says its pod's name.
    pub pods: Vec<Pod>,
    /// Another pod, on the first node.
    pub caller: Pod,
    /// What all are on. Behind them, so that it goes after them.
    pub topology: Topology,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("topology", &self.topology).finish_non_exhaustive()
    }
}

impl Ground {
    /// With agents that are ready; the Service has these addresses and this NodePort.
    ///
    /// # Errors
    /// Something does not start.
    pub fn new(sandbox: &Sandbox, ips: &[IpAddr], node_port: u16) -> Result<Self> {
        let mut topology = Topology::new(sandbox, 2)?;
        let api = ApiServer::start(&topology.nodes)?;
        let pods = topology.nodes.iter_mut().map(Node::pod).collect::<Result<Vec<_>>>()?;
        let caller = topology.nodes[0].pod()?;
        let mut servers = Vec::new();
        for pod in &pods {
            for ip in pod.ips.both() {
                servers.push(tcp_server(&pod.host, ip, TARGET, &pod.host.name)?);
                servers.push(udp_server(&pod.host, ip, TARGET, &pod.host.name)?);
            }
        }
        let agents = topology.nodes.iter().map(|node| Agent::start(node, &api.kubeconfig(), &[]));
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let mut ground = Self { _servers: servers, agents, api, pods, caller, topology };
        ground.api.serve("web", ips, Some(node_port), &json!({}), &ground.endpoints())?;
        ground.agents.iter_mut().try_for_each(|agent| agent.ready(PATIENCE))?;
        Ok(ground)
    }

    /// All nodes with their servers.
    pub fn endpoints(&self) -> Vec<(&Node, &Pod)> {
        self.topology.nodes.iter().zip(&self.pods).collect()
    }

    /// Ends a node's agent (from 0 on) and starts another one, of this program file.
    ///
    /// # Errors
    /// The one does not end, or the other does not start.
    pub fn replace_agent(&mut self, node: usize, program: &Path, signal: Signal) -> Result<()> {
        self.agents[node].end(signal)?;
        let (on, kubeconfig) = (&self.topology.nodes[node], self.api.kubeconfig());
        self.agents[node] = Agent::start_program(program, on, &kubeconfig, &[])?;
        Ok(())
    }

    /// The ends of the agents' logs, for messages about what went wrong.
    pub fn said(&self) -> String {
        self.agents.iter().map(Agent::log_end).collect()
    }
}
