//! The node API on port 10250: what `kubectl logs`, `exec`, `attach` and `port-forward` end at, and what monitoring
//! reads. It must not know how pods come to be; it asks a [`PodDirectory`].

use std::path::PathBuf;
use std::sync::Arc;

use pagurus_agent_core::pods::Pod;

mod auth;
mod logs;
mod query;
mod reply;
mod spdy;
mod tls;

/// What the node API must know of this node's pods. The pods' side implements it; calls are frequent and must be quick.
pub trait PodDirectory: Send + Sync + 'static {
    /// The pods of this node with what the runtime has of them.
    fn pods(&self) -> Vec<PodEntry>;

    /// The pod of this name, with what the runtime has of it.
    fn find(&self, namespace: &str, name: &str) -> Option<PodEntry>;
}

/// A pod and what the runtime has of it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    /// The pod as the API server told it.
    pub pod: Arc<Pod>,
    /// The sandbox that is ready, if there is one.
    pub sandbox_id: Option<String>,
    /// Every container of the pod's spec, init and ephemeral ones among them.
    pub containers: Vec<ContainerEntry>,
}

/// A container of a pod's spec.
#[derive(Clone, Debug)]
pub struct ContainerEntry {
    /// Its name in the spec.
    pub name: String,
    /// The newest instance the runtime has, running or not.
    pub current: Option<Instance>,
    /// The one before it.
    pub previous: Option<Instance>,
    /// Why there is no instance, in the words of the container's status (`ContainerCreating`, `ImagePullBackOff`).
    pub waiting: Option<String>,
}

/// One life of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The runtime's id, without scheme.
    pub id: String,
    /// Its log file.
    pub log_path: PathBuf,
    /// Whether it runs.
    pub running: bool,
}
