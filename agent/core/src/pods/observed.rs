//! What the runtime says about a pod, in our words. Must not know what is wanted.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::names::PodName;

/// All that the runtime has of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    /// Sandboxes, youngest first.
    pub sandboxes: Vec<ObservedSandbox>,
    /// Containers, youngest first.
    pub containers: Vec<ObservedContainer>,
}

/// A sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedSandbox {
    /// The runtime's name of it.
    pub id: String,
    /// The pod it was made for.
    pub pod: PodName,
    /// How many the pod had before.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its addresses, the first one is the pod's. Empty on the node's network.
    pub ips: Vec<IpAddr>,
}

/// A container.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// The runtime's name of it.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// Its name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// How many of these restarts count for the back-off.
    pub backoff_step: u32,
    /// When it was made.
    pub created: Timestamp,
    /// Its state.
    pub state: ContainerState,
    /// The image that the pod wanted when it was made; empty if that is not known.
    pub wanted_image: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image as the runtime names it.
    pub image_id: String,
    /// Path of its log file.
    pub log_path: String,
    /// The settings of its end, as it was made with.
    pub stop: StopSettings,
}

/// How a container wants to be ended, as it was made with: known even if the API has forgotten the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StopSettings {
    /// Seconds.
    pub grace: Option<i64>,
    /// The preStop handler as JSON.
    pub pre_stop: Option<String>,
}

/// The state of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Ended.
    Exited(Exit),
    /// The runtime has lost it.
    Unknown,
}

/// The end of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exit {
    /// When it was started, if it was.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// Its exit code.
    pub code: i32,
    /// The signal that ended it, if the runtime tells.
    pub signal: i32,
    /// Brief word: Completed, Error, OOMKilled, StartError ...
    pub reason: String,
    /// Last words.
    pub message: String,
}

impl ObservedPod {
    /// The sandbox that counts.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first()
    }

    /// The sandbox that counts, if containers can run in it.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandbox().filter(|sandbox| sandbox.ready)
    }

    /// All containers of this name, youngest first.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    /// The youngest container of this name.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The containers that may have processes.
    pub fn alive(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|container| container.is_alive())
    }

    /// Nothing of the pod is in the runtime.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Puts the youngest first, which everything here relies on.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| (b.attempt, b.created, &b.id).cmp(&(a.attempt, a.created, &a.id)));
        self.containers.sort_by(|a, b| (b.attempt, b.created, &b.id).cmp(&(a.attempt, a.created, &a.id)));
    }
}

impl ObservedContainer {
    /// It may have processes.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. } | ContainerState::Unknown)
    }

    /// It runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// Its end, if it has ended.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}
