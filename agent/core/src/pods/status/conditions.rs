//! The conditions of a pod's status: ours computed, those of others kept. Must not look at the runtime itself.

use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use crate::pods::lifecycle::Situation;
use crate::pods::spec::{ContainerKind, init_kind};

/// The types that we write.
pub(super) const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason, message }
    }
}

/// All conditions: those of others as reported, then ours.
pub(super) fn all(situation: &Situation<'_>, phase: &str, init: &[Value], app: &[Value]) -> Value {
    let reported = situation.pod.status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let is_ours = |condition: &&Value| OURS.iter().any(|kind| condition["type"] == *kind);
    let mut out: Vec<Value> = reported.iter().filter(|condition| !is_ours(condition)).cloned().collect();
    let containers_ready = containers_ready(situation, phase, init, app);
    let ready = ready(situation, &containers_ready);
    let sandbox = situation.observed.ready_sandbox();
    let network =
        |ready: &&crate::pods::ObservedSandbox| situation.pod.spec.host_network || !ready.ips.is_empty();
    let verdicts = [
        match sandbox.filter(network) {
            Some(_) => Verdict::yes(),
            None => Verdict::no("", String::new()),
        },
        initialized(situation, phase, init),
        ready,
        containers_ready,
        Verdict::yes(),
    ];
    for (kind, verdict) in OURS.into_iter().zip(verdicts) {
        let before = reported.iter().find(|condition| condition["type"] == kind);
        if kind == "PodScheduled"
            && let Some(before) = before
        {
            out.push(before.clone());
            continue;
        }
        out.push(condition(situation, kind, &verdict, before));
    }
    out.into()
}

fn condition(situation: &Situation<'_>, kind: &str, verdict: &Verdict, before: Option<&Value>) -> Value {
    let status = if verdict.holds { "True" } else { "False" };
    let kept =
        before.filter(|before| before["status"] == status).and_then(|b| b["lastTransitionTime"].as_str());
    let since = kept.map_or_else(|| time::format(situation.now), str::to_owned);
    let mut out = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
    if !verdict.reason.is_empty() {
        out["reason"] = verdict.reason.into();
    }
    if !verdict.message.is_empty() {
        out["message"] = verdict.message.clone().into();
    }
    if let Some(generation) = situation.pod.generation {
        out["observedGeneration"] = generation.into();
    }
    out
}

fn names(statuses: &[&Value]) -> String {
    let names: Vec<&str> = statuses.iter().filter_map(|status| status["name"].as_str()).collect();
    format!("[{}]", names.join(" "))
}

fn initialized(situation: &Situation<'_>, phase: &str, init: &[Value]) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { holds: true, reason: "PodCompleted", message: String::new() };
    }
    let spec = &situation.pod.spec;
    if spec.init_containers.is_empty() || situation.initialized() {
        return Verdict::yes();
    }
    let sandbox = situation.observed.sandbox().map_or("", |sandbox| sandbox.id.as_str());
    let open: Vec<&Value> = spec
        .init_containers
        .iter()
        .zip(init)
        .filter(|(container, _)| !situation.init_done(sandbox, container))
        .map(|(_, status)| status)
        .collect();
    if open.is_empty() {
        return Verdict::yes();
    }
    Verdict::no("ContainersNotInitialized", format!("containers with incomplete status: {}", names(&open)))
}

fn containers_ready(situation: &Situation<'_>, phase: &str, init: &[Value], app: &[Value]) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = situation.pod.spec.init_containers.iter().zip(init);
    let sidecars = sidecars.filter(|(container, _)| init_kind(container) == ContainerKind::Sidecar);
    let all = sidecars.map(|(_, status)| status).chain(app);
    let unready: Vec<&Value> = all.filter(|status| status["ready"] != true).collect();
    if unready.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotReady", format!("containers with unready status: {}", names(&unready)))
    }
}

fn ready(situation: &Situation<'_>, containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict::no(containers.reason, containers.message.clone());
    }
    let reported = situation.pod.status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let mut open = Vec::new();
    for gate in &situation.pod.spec.readiness_gates {
        let kind = &gate.condition_type;
        match reported.iter().find(|condition| condition["type"] == kind.as_str()) {
            None => {
                open.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
            }
            Some(condition) if condition["status"] != "True" => {
                let status = condition["status"].as_str().unwrap_or("Unknown");
                open.push(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"
                ));
            }
            Some(_) => {}
        }
    }
    if open.is_empty() { Verdict::yes() } else { Verdict::no("ReadinessGatesNotReady", open.join(", ")) }
}
