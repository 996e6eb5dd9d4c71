//! The agent as a process on the nodes of a topology, with an API server and without containers: what it says of itself to others than
//! the API server, also while that is away, and what it leaves behind.
//!
//! Must not know: how Services are balanced.

mod cleanup;
mod http;
mod told;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Node as NodeObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pagurus_tests::daemon::{Agent, ControlPlane};
use pagurus_tests::netns::{Sandbox, isolated};
use pagurus_tests::topology::{Node, Topology};
use serde_json::{Value, json};

/// How long an agent may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the Service of these tests is reached.
const ADDRESS: &str = "10.96.77.7";
const PORT: u16 = 80;
/// Where its server listens.
const TARGET: u16 = 8080;

/// Nodes, and an API server that knows them.
struct Cluster {
    topology: Topology,
    control: ControlPlane,
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
}

/// Runs a test isolated, if the programs are there.
fn with_cluster(name: &str, nodes: u8, body: impl FnOnce(&mut Cluster) -> Result<()>) {
    if std::env::var_os("PAGURUS_BINARIES").is_none() {
        println!("SKIPPED: PAGURUS_BINARIES does not say where the programs are (cargo xtask test does)");
        return;
    }
    isolated(name, |sandbox| body(&mut Cluster::start(sandbox, nodes)?));
}

impl Cluster {
    fn start(sandbox: &Sandbox, nodes: u8) -> Result<Self> {
        let topology = Topology::new(sandbox, nodes)?;
        let control = ControlPlane::start()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(control.client())?;
        let this = Self { topology, control, runtime, client };
        for node in &this.topology.nodes {
            this.create_node(node)?;
        }
        Ok(this)
    }

    /// The Node, with ranges of pods that the topology does not use.
    fn create_node(&self, node: &Node) -> Result<()> {
        let [v4, v6] = [format!("10.245.{}.0/24", node.number), format!("fd10:245:{}::/64", node.number)];
        let addresses = node.ips.both().map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
        let object: NodeObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node.host.name},
            "spec": {"podCIDR": v4, "podCIDRs": [v4, v6]}
        }))?;
        let status = json!({"status": {
            "addresses": addresses, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
        }});
        let nodes: Api<NodeObject> = Api::all(self.client.clone());
        self.runtime.block_on(async {
            nodes.create(&PostParams::default(), &object).await?;
            nodes.patch_status(&node.host.name, &PatchParams::default(), &Patch::Merge(&status)).await
        })?;
        Ok(())
    }

    /// Makes the Service; what is in `spec` besides its port is its own.
    fn create_service(&self, spec: Value) -> Result<()> {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {
                "clusterIP": ADDRESS, "ports": [{"port": PORT, "targetPort": TARGET}]
            }
        });
        for (field, value) in spec.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), "default");
        let object = serde_json::from_value(object)?;
        self.runtime
            .block_on(services.create(&PostParams::default(), &object))
            .context("create the Service")?;
        Ok(())
    }

    /// Its endpoints: one on each of these nodes, at the node's own address.
    fn set_endpoints(&self, nodes: &[&Node]) -> Result<()> {
        let endpoints: Vec<Value> = nodes
            .iter()
            .map(|node| {
                json!({"addresses": [node.ips.v4], "conditions": {"ready": true}, "nodeName": node.host.name})
            })
            .collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}], "endpoints": endpoints
        });
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let (force, patch) = (PatchParams::apply("test").force(), Patch::Apply(&object));
        self.runtime.block_on(slices.patch("web-1", &force, &patch)).context("write the EndpointSlice")?;
        Ok(())
    }

    /// An agent on a node, ready.
    fn agent(&self, node: usize, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::start(&self.topology.nodes[node], &self.control.kubeconfig(), arguments)?;
        agent.ready(PATIENCE)?;
        Ok(agent)
    }
}

fn service_address() -> Result<SocketAddr> {
    Ok(format!("{ADDRESS}:{PORT}").parse()?)
}
