//! An API server that knows nodes, and a client of it for those who wait for its answers.
//!
//! Must not know: who else asks it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::{ControlPlane, PATIENCE};
use crate::eventually::eventually;
use crate::topology::{Node, Pod};

/// Where the API server has Services of the namespace `default`, its EndpointSlices and events.
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
/// See [`SERVICES`].
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// See [`SERVICES`].
pub const EVENTS: &str = "/api/v1/namespaces/default/events";
/// Where nodes are.
pub const NODES: &str = "/api/v1/nodes";
/// The port of Services made here, and where their pods listen.
pub const PORT: u16 = 80;
/// See [`PORT`].
pub const TARGET: u16 = 8080;

/// The control plane, and a client of it.
pub struct ApiServer {
    /// The process.
    pub control: ControlPlane,
    client: Client,
    runtime: Runtime,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("control", &self.control).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Starts one that knows these nodes. The bridge of their topology has to be there.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(nodes: &[Node]) -> Result<Self> {
        Self::start_with(nodes.iter().map(
            |node| json!({"metadata": {"name": node.host.name}, "spec": {"podCIDRs": node.pod_cidrs()}}),
        ))
    }

    /// As [`start`](Self::start), with these objects for its nodes.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(nodes: impl Iterator<Item = Value>) -> Result<Self> {
        let control = ControlPlane::start()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let client = runtime.block_on(control.client())?;
        let this = Self { control, client, runtime };
        for object in nodes {
            this.create(NODES, &object)?;
        }
        // The API server makes it a moment after its start.
        eventually("there is a Service kube-system/kube-dns", PATIENCE, || {
            this.get("/api/v1/namespaces/kube-system/services", "kube-dns").map(Some)
        })?;
        Ok(this)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control.kubeconfig()
    }

    /// Sends a request and waits for its answer.
    fn ask(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        self.runtime.block_on(self.asked(request))
    }

    async fn asked(&self, request: http::Request<Vec<u8>>) -> Result<Value> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        answer.with_context(|| format!("{what}: no answer in time"))?.context(what)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// It is refused.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.ask(creation(path, object)?)
    }

    /// Creates Services, each with its EndpointSlice after it, so many of them at once.
    ///
    /// # Errors
    /// One is refused.
    pub fn fill(&self, at_once: usize, objects: impl Iterator<Item = [Value; 2]>) -> Result<()> {
        let created = stream::iter(objects).map(|[service, slice]| async move {
            self.asked(creation(SERVICES, &service)?).await?;
            self.asked(creation(SLICES, &slice)?).await.map(drop)
        });
        self.runtime.block_on(created.buffer_unordered(at_once).try_collect::<()>())
    }

    /// An object.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, path: &str, name: &str) -> Result<Value> {
        self.ask(Request::new(path).get(name, &GetParams::default())?)
    }

    /// All objects of a kind.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        self.select(path, "")
    }

    /// The objects of a kind that a field selector finds.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn select(&self, path: &str, fields: &str) -> Result<Vec<Value>> {
        let list = self.ask(Request::new(path).list(&ListParams::default().fields(fields))?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Changes these fields of an object.
    ///
    /// # Errors
    /// It is refused.
    pub fn change(&self, path: &str, name: &str, fields: &Value) -> Result<Value> {
        self.ask(Request::new(path).patch(name, &PatchParams::default(), &Patch::Merge(fields))?)
    }

    /// Changes these fields of an object's status.
    ///
    /// # Errors
    /// It is refused.
    pub fn change_status(&self, path: &str, name: &str, status: &Value) -> Result<Value> {
        let fields = Patch::Merge(json!({"status": status}));
        self.ask(Request::new(path).patch_subresource("status", name, &PatchParams::default(), &fields)?)
    }

    /// Makes an object what this says, whether it is there or not.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let name = object["metadata"]["name"].as_str().context("an object needs a name")?;
        let force = PatchParams::apply("pagurus-tests").force();
        self.ask(Request::new(path).patch(name, &force, &Patch::Apply(object))?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// There is none.
    pub fn delete(&self, path: &str, name: &str) -> Result<Value> {
        self.ask(Request::new(path).delete(name, &DeleteParams::default())?)
    }

    /// Messages of the events about an object for this reason.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn told(&self, kind: &str, name: &str, reason: &str) -> Result<Vec<String>> {
        let is = |event: &Value| {
            let about = &event["involvedObject"];
            about["kind"] == kind && about["name"] == name && event["reason"] == reason
        };
        let events = self.list(EVENTS)?.into_iter().filter(is);
        Ok(events.filter_map(|event| event["message"].as_str().map(str::to_owned)).collect())
    }

    /// Creates a Service with [`PORT`] over TCP and UDP, and perhaps with a NodePort, that leads to [`TARGET`] of pods in the families of
    /// its addresses; more of its specification in `more`.
    ///
    /// # Errors
    /// It is refused.
    pub fn serve(
        &self,
        name: &str,
        ips: &[IpAddr],
        node_port: Option<u16>,
        more: &Value,
        pods: &[(&Node, &Pod)],
    ) -> Result<()> {
        let first = ips.first().context("a Service needs an address")?;
        let families: Vec<&str> = ips.iter().copied().map(family).collect();
        let port = |name: &str, protocol: &str| {
            let mut port = json!({"name": name, "protocol": protocol, "port": PORT, "targetPort": TARGET});
            if let Some(number) = node_port {
                port["nodePort"] = number.into();
            }
            port
        };
        let mut spec = json!({
            "type": if node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": first, "clusterIPs": ips, "ipFamilies": families,
            "ipFamilyPolicy": if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" },
            "ports": [port("t", "TCP"), port("u", "UDP")],
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        self.create(SERVICES, &json!({"metadata": {"name": name}, "spec": spec}))?;
        ips.iter().try_for_each(|ip| self.create(SLICES, &slice(name, *ip, pods)).map(drop))
    }

    /// Makes other pods the endpoints of a Service in the family of one of its addresses.
    ///
    /// # Errors
    /// It is refused.
    pub fn lead_to(&self, name: &str, ip: IpAddr, pods: &[(&Node, &Pod)]) -> Result<()> {
        let endpoints = json!({"endpoints": slice(name, ip, pods)["endpoints"]});
        self.change(SLICES, &slice_name(name, ip), &endpoints).map(drop)
    }
}

fn creation(path: &str, object: &Value) -> Result<http::Request<Vec<u8>>> {
    Ok(Request::new(path).create(&PostParams::default(), serde_json::to_vec(object)?)?)
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn slice_name(service: &str, ip: IpAddr) -> String {
    format!("{service}-{}", family(ip).to_lowercase())
}

/// The endpoints of a Service in the family of one of its addresses.
fn slice(service: &str, ip: IpAddr, pods: &[(&Node, &Pod)]) -> Value {
    let endpoint = |(node, pod): &(&Node, &Pod)| {
        let addresses = [pod.ips.like(ip)];
        json!({"addresses": addresses, "nodeName": node.host.name, "conditions": {"ready": true}})
    };
    json!({
        "metadata": {"name": slice_name(service, ip), "labels": {
            "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "pagurus-tests"}},
        "addressType": family(ip), "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "t", "port": TARGET, "protocol": "TCP"}, {"name": "u", "port": TARGET, "protocol": "UDP"}],
    })
}
