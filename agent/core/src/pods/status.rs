//! What the API server is told about a pod, and the smallest patch that tells it.
//! Must not know how a patch is sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use pagurus_controlplane_api::time;
use serde_json::{Map, Value, json};

use super::lifecycle::{Situation, Stage};
use super::observed::{ContainerState, Exit, ObservedContainer};
use super::plan::Waiting;
use super::resources;
use super::spec::{Container, ContainerKind, Pod, init_kind};

mod conditions;
mod patch;

pub use patch::patch;

/// What a status shows of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Addresses of the node, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Name of the runtime, such as `containerd`.
    pub runtime: String,
}

/// The reason of a pod that was active for too long.
const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// The status of a pod in this situation, as the API has it.
pub fn status(situation: &Situation<'_>, waiting: &BTreeMap<String, Waiting>, node: &NodeFacts) -> Value {
    let writer = Writer { s: situation, stage: situation.stage(), waiting, node };
    writer.status()
}

struct Writer<'a> {
    s: &'a Situation<'a>,
    stage: Stage,
    waiting: &'a BTreeMap<String, Waiting>,
    node: &'a NodeFacts,
}

impl Writer<'_> {
    fn status(&self) -> Value {
        let pod = self.s.pod;
        let spec = &pod.spec;
        let init = self.statuses(&spec.init_containers, init_kind);
        let app = self.statuses(&spec.containers, |_| ContainerKind::App);
        let ephemeral = self.statuses(&spec.ephemeral_containers, |_| ContainerKind::Ephemeral);
        let phase = self.phase(&app);
        let mut out = Map::new();
        out.insert("phase".into(), phase.into());
        self.reason(&mut out);
        out.insert("conditions".into(), conditions::all(self.s, phase, &init, &app));
        self.addresses(&mut out);
        let start = pod.status["startTime"].as_str().map_or_else(|| time::format(self.s.now), str::to_owned);
        out.insert("startTime".into(), start.into());
        let qos = pod.status["qosClass"].as_str().unwrap_or_else(|| resources::qos(pod).as_str());
        out.insert("qosClass".into(), qos.into());
        if let Some(generation) = pod.generation {
            out.insert("observedGeneration".into(), generation.into());
        }
        for (key, list) in [
            ("initContainerStatuses", init),
            ("containerStatuses", app),
            ("ephemeralContainerStatuses", ephemeral),
        ] {
            if !list.is_empty() {
                out.insert(key.into(), list.into());
            }
        }
        Value::Object(out)
    }

    fn phase(&self, app: &[Value]) -> &'static str {
        let reported = known_phase(self.s.pod.reported_phase());
        match self.stage {
            Stage::Terminal => reported.unwrap_or("Failed"),
            Stage::Overdue | Stage::Rejected | Stage::Finished { succeeded: false } => "Failed",
            Stage::Finished { succeeded: true } => "Succeeded",
            Stage::Deleted | Stage::Gone if self.all_stopped() => match reported {
                Some(end @ ("Succeeded" | "Failed")) => end,
                _ if self.all_succeeded() => "Succeeded",
                _ => "Failed",
            },
            Stage::Run | Stage::Deleted | Stage::Gone => {
                let never_ran = |status: &Value| {
                    status["state"]["waiting"].is_object() && !status["lastState"]["terminated"].is_object()
                };
                if reported == Some("Running") || (self.s.initialized() && !app.iter().any(never_ran)) {
                    "Running"
                } else {
                    "Pending"
                }
            }
        }
    }

    /// Nothing of the pod runs or is about to.
    fn all_stopped(&self) -> bool {
        self.s.observed.alive().next().is_none() && self.s.progress.in_flight.is_empty()
    }

    fn all_succeeded(&self) -> bool {
        let succeeded = |container: &Container| {
            let exit = self.s.observed.latest(&container.name).and_then(ObservedContainer::exit);
            exit.is_some_and(|exit| exit.code == 0)
        };
        self.s.pod.spec.containers.iter().all(succeeded)
    }

    fn reason(&self, out: &mut Map<String, Value>) {
        let reported = &self.s.pod.status;
        match self.stage {
            Stage::Overdue => {
                out.insert("reason".into(), DEADLINE_EXCEEDED.into());
                let message = "Pod was active on the node longer than the specified deadline";
                out.insert("message".into(), message.into());
            }
            Stage::Rejected => {
                if let Some(rejection) = &self.s.progress.rejected {
                    out.insert("reason".into(), rejection.reason.clone().into());
                    out.insert("message".into(), rejection.message.clone().into());
                }
            }
            Stage::Terminal | Stage::Deleted | Stage::Gone => {
                for key in ["reason", "message"] {
                    if let Some(text) = reported[key].as_str() {
                        out.insert(key.into(), text.into());
                    }
                }
            }
            Stage::Run | Stage::Finished { .. } => {}
        }
    }

    fn addresses(&self, out: &mut Map<String, Value>) {
        let pod = self.s.pod;
        let list = |ips: &[IpAddr]| ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>();
        if let Some(first) = self.node.host_ips.first() {
            out.insert("hostIP".into(), first.to_string().into());
            out.insert("hostIPs".into(), list(&self.node.host_ips).into());
        }
        let own = pod_ips(self.s, &self.node.host_ips);
        if let Some(first) = own.first() {
            out.insert("podIP".into(), first.to_string().into());
            out.insert("podIPs".into(), list(&own).into());
        } else {
            for key in ["podIP", "podIPs"] {
                if !pod.status[key].is_null() {
                    out.insert(key.into(), pod.status[key].clone());
                }
            }
        }
    }

    fn statuses(&self, containers: &[Container], kind: impl Fn(&Container) -> ContainerKind) -> Vec<Value> {
        // A pod that the node did not take has no containers, and none are on their way.
        let was_taken = |container: &&Container| {
            !matches!(self.stage, Stage::Rejected | Stage::Terminal)
                || self.s.observed.latest(&container.name).is_some()
                || reported(self.s.pod, &container.name).is_some()
        };
        containers
            .iter()
            .filter(was_taken)
            .map(|container| self.container(kind(container), container))
            .collect()
    }

    fn container(&self, kind: ContainerKind, container: &Container) -> Value {
        let name = &container.name;
        let latest = self.s.observed.latest(name);
        let reported = reported(self.s.pod, name);
        let (state, last) = match latest {
            None => return self.never_made(kind, container, reported),
            Some(found) => self.states(found),
        };
        let found = latest.expect("checked above");
        let mut out = self.head(kind, container, found.attempt);
        out["state"] = state;
        out["lastState"] = last;
        out["image"] = found.image.clone().into();
        out["imageID"] = found.image_id.clone().into();
        out["containerID"] = self.full_id(&found.id).into();
        out
    }

    fn head(&self, kind: ContainerKind, container: &Container, restarts: u32) -> Value {
        let through = self.s.observed.latest(&container.name).and_then(ObservedContainer::exit);
        let ready = match kind {
            ContainerKind::Init => through.is_some_and(|exit| exit.code == 0),
            ContainerKind::Ephemeral => false,
            ContainerKind::App | ContainerKind::Sidecar => self.s.ready(container),
        };
        let started = kind != ContainerKind::Ephemeral && self.s.started(container);
        json!({"name": container.name, "ready": ready, "started": started, "restartCount": restarts})
    }

    /// State and last state of a container that was made.
    fn states(&self, found: &ObservedContainer) -> (Value, Value) {
        let before = self.s.observed.named(&found.name).nth(1);
        let last = before.and_then(|c| Some(self.terminated(c, c.exit()?))).unwrap_or_else(|| json!({}));
        let waiting = self.waiting.get(&found.name);
        match &found.state {
            ContainerState::Running { .. } if self.s.progress.is_starting(&found.name) => {
                (waiting_state("ContainerCreating", ""), last)
            }
            ContainerState::Running { started } => {
                (json!({"running": {"startedAt": time::format(*started)}}), last)
            }
            ContainerState::Exited(exit) => {
                let end = self.terminated(found, exit);
                match waiting.filter(|_| self.stage.runs()) {
                    Some(waiting) => (waiting_state(&waiting.reason, &waiting.message), end),
                    None => (end, last),
                }
            }
            ContainerState::Created | ContainerState::Unknown => {
                let (reason, message) =
                    waiting.map_or(("ContainerCreating", ""), |w| (w.reason.as_str(), w.message.as_str()));
                (waiting_state(reason, message), last)
            }
        }
    }

    /// A container that the runtime does not have.
    fn never_made(&self, kind: ContainerKind, container: &Container, reported: Option<&Value>) -> Value {
        if let Some(reported) = reported
            && !self.stage.runs()
            && !reported["state"]["waiting"].is_object()
        {
            return lost(reported, self.s.now);
        }
        let (reason, message) = match self.waiting.get(&container.name) {
            Some(waiting) => (waiting.reason.as_str(), waiting.message.as_str()),
            None if !self.s.pod.spec.init_containers.is_empty() => ("PodInitializing", ""),
            None => ("ContainerCreating", ""),
        };
        let mut out = self.head(kind, container, self.s.reported_restarts(&container.name).unwrap_or(0));
        out["state"] = waiting_state(reason, message);
        out["lastState"] = json!({});
        out["image"] = container.image.clone().into();
        out["imageID"] = "".into();
        out
    }

    fn terminated(&self, container: &ObservedContainer, exit: &Exit) -> Value {
        let mut end = json!({
            "exitCode": exit.code,
            "reason": if exit.reason.is_empty() { "Error" } else { &exit.reason },
            "startedAt": exit.started.map(time::format),
            "finishedAt": time::format(exit.finished),
            "containerID": self.full_id(&container.id),
        });
        if exit.signal != 0 {
            end["signal"] = exit.signal.into();
        }
        if !exit.message.is_empty() {
            end["message"] = exit.message.clone().into();
        }
        json!({"terminated": end})
    }

    fn full_id(&self, id: &str) -> String {
        format!("{}://{id}", self.node.runtime)
    }
}

/// The addresses of the pod in this situation: the sandbox's, or the node's.
pub fn pod_ips(situation: &Situation<'_>, host_ips: &[IpAddr]) -> Vec<IpAddr> {
    match situation.observed.sandbox() {
        Some(sandbox) if sandbox.ready && situation.pod.spec.host_network => host_ips.to_vec(),
        Some(sandbox) if sandbox.ready => sandbox.ips.clone(),
        _ => Vec::new(),
    }
}

fn known_phase(phase: &str) -> Option<&'static str> {
    ["Pending", "Running", "Succeeded", "Failed", "Unknown"].into_iter().find(|known| *known == phase)
}

fn waiting_state(reason: &str, message: &str) -> Value {
    if message.is_empty() {
        json!({"waiting": {"reason": reason}})
    } else {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

/// What the API server has of this container.
fn reported<'a>(pod: &'a Pod, name: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut entries = lists.iter().filter_map(|list| pod.status[*list].as_array()).flatten();
    entries.find(|entry| entry["name"].as_str() == Some(name))
}

/// A container that was reported and is no longer there: its end as reported, or an end that nobody saw.
fn lost(reported: &Value, now: Timestamp) -> Value {
    let mut out = reported.clone();
    out["ready"] = false.into();
    out["started"] = false.into();
    if let Some(running) = reported["state"]["running"].as_object() {
        out["state"] = json!({"terminated": {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": running.get("startedAt"),
            "finishedAt": time::format(now),
        }});
    }
    out
}

#[cfg(test)]
mod tests;
