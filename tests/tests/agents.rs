//! The agent as a process on the nodes of a topology, with an API server and without containers: what it says of itself to others than
//! the API server, also while that is away, and what it leaves behind.
//!
//! Must not know: how Services are balanced.

mod cleanup;
mod http;
mod told;

use std::net::SocketAddr;

use anyhow::Result;
use pagurus_tests::daemon::{Agent, ApiServer, NODES, SERVICES, SLICES, with_programs};
use pagurus_tests::netns::Sandbox;
use pagurus_tests::topology::{Node, Topology};
use serde_json::{Value, json};

/// Where the Service of these tests is reached.
const ADDRESS: &str = "10.96.77.7";
const PORT: u16 = 80;
/// Where its server listens.
const TARGET: u16 = 8080;

/// Nodes, and an API server that knows them.
struct Cluster {
    api: ApiServer,
    topology: Topology,
}

/// Runs a test isolated, if the programs are there.
fn with_cluster(name: &str, nodes: u8, body: impl FnOnce(&mut Cluster) -> Result<()>) {
    with_programs(name, |sandbox| body(&mut Cluster::start(sandbox, nodes)?));
}

impl Cluster {
    fn start(sandbox: &Sandbox, nodes: u8) -> Result<Self> {
        let topology = Topology::new(sandbox, nodes)?;
        // With ranges of pods that the topology does not use.
        let api = ApiServer::start_with(topology.nodes.iter().map(|node| {
            let [v4, v6] = [format!("10.245.{}.0/24", node.number), format!("fd10:245:{}::/64", node.number)];
            json!({"metadata": {"name": node.host.name}, "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]}})
        }))?;
        for node in &topology.nodes {
            let addresses = node.ips.both().map(|ip| json!({"type": "InternalIP", "address": ip}));
            let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""});
            let status = json!({"addresses": addresses, "conditions": [ready]});
            api.change_status(NODES, &node.host.name, &status)?;
        }
        Ok(Self { api, topology })
    }

    /// Makes the Service; what is in `spec` besides its port is its own.
    fn create_service(&self, spec: Value) -> Result<()> {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {
            "clusterIP": ADDRESS, "ports": [{"port": PORT, "targetPort": TARGET}]
        }});
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        self.api.create(SERVICES, &object).map(drop)
    }

    /// Its endpoints: one on each of these nodes, at the node's own address.
    fn set_endpoints(&self, nodes: &[&Node]) -> Result<()> {
        let endpoint = |node: &&Node| json!({"addresses": [node.ips.v4], "conditions": {"ready": true}, "nodeName": node.host.name});
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}],
            "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        });
        self.api.apply(SLICES, &object).map(drop)
    }

    /// An agent on a node, ready.
    fn agent(&self, node: usize, arguments: &[&str]) -> Result<Agent> {
        Agent::started(&self.topology.nodes[node], &self.api.kubeconfig(), arguments)
    }
}

fn service_address() -> Result<SocketAddr> {
    Ok(format!("{ADDRESS}:{PORT}").parse()?)
}
