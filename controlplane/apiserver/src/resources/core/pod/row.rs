//! A Pod's table row: what its containers are up to, in one word.

use jiff::Timestamp;
use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::time;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::Fields;

/// The cells of the row.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, time::age(Some(last), now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = pod.items("status.podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        cells::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        cells::age(pod, now),
        cells::or_none(ip),
        cells::or_none(pod.text("spec.nodeName")),
        cells::or_none(pod.text("status.nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.items("spec.readinessGates");
    if gates.is_empty() {
        return cells::NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| conditions::is_true(pod, gate.text("conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[derive(Debug, Default, PartialEq)]
struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<&'a str>,
}

/// Whether an init container runs beside the others (a sidecar).
fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn later<'a>(a: Option<&'a str>, status: &'a Value) -> Option<&'a str> {
    // Whole seconds in UTC compare as text.
    a.max(status.some_text("lastState.terminated.finishedAt"))
}

fn summary(pod: &Value) -> Summary<'_> {
    let mut out = Summary { total: pod.items("spec.containers").len(), ..Summary::default() };
    let phase = pod.text("status.phase");
    out.reason = match pod.text("status.reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = conditions::get(pod, "PodScheduled").is_some_and(|c| c.text("reason") == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut out.reason);
    }
    let init_specs = pod.items("spec.initContainers");
    out.total += init_specs.iter().filter(|c| is_sidecar(c)).count();

    let mut sidecars = Summary::default();
    let initializing = init_containers(pod, &mut out, &mut sidecars);
    if !initializing || conditions::is_true(pod, "Initialized") {
        out.restarts = sidecars.restarts;
        out.last_restart = sidecars.last_restart;
        main_containers(pod, &mut out);
    }
    if pod.has("metadata.deletionTimestamp") {
        if pod.text("status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut out.reason);
        } else if !matches!(phase, "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut out.reason);
        }
    }
    out
}

/// Looks at the init containers in order; returns whether one of them is still to finish.
fn init_containers<'a>(pod: &'a Value, out: &mut Summary<'a>, sidecars: &mut Summary<'a>) -> bool {
    let specs = pod.items("spec.initContainers");
    for (i, status) in pod.items("status.initContainerStatuses").iter().enumerate() {
        let sidecar = specs.iter().any(|c| c.text("name") == status.text("name") && is_sidecar(c));
        out.restarts += status.int("restartCount");
        out.last_restart = later(out.last_restart, status);
        if sidecar {
            sidecars.restarts += status.int("restartCount");
            sidecars.last_restart = later(sidecars.last_restart, status);
        }
        let terminated = status.at("state.terminated");
        let waiting = status.text("state.waiting.reason");
        if !terminated.is_null() && terminated.int("exitCode") == 0 {
            continue;
        }
        if sidecar && status.flag("started") {
            out.ready += usize::from(status.flag("ready"));
            continue;
        }
        out.reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", specs.len())
        };
        return true;
    }
    false
}

/// Why a container ended, in one word.
fn ended(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal")) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn main_containers<'a>(pod: &'a Value, out: &mut Summary<'a>) {
    let mut running = false;
    for status in pod.items("status.containerStatuses").iter().rev() {
        out.restarts += status.int("restartCount");
        out.last_restart = later(out.last_restart, status);
        let waiting = status.text("state.waiting.reason");
        let terminated = status.at("state.terminated");
        if !waiting.is_empty() {
            waiting.clone_into(&mut out.reason);
        } else if !terminated.is_null() {
            out.reason = ended(terminated);
        } else if status.flag("ready") && status.has("state.running") {
            running = true;
            out.ready += 1;
        }
    }
    if out.reason == "Completed" && running {
        let ready = conditions::is_true(pod, "Ready");
        (if ready { "Running" } else { "NotReady" }).clone_into(&mut out.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reasons() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        let up = json!({"name": "a", "ready": true, "state": {"running": {}}});
        for (status, expected) in [
            (json!({"phase": "Pending"}), "0/2 Pending 0"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/2 Evicted 0"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                "0/2 Init:0/1 0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses":
                    [{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "0/2 Init:CrashLoopBackOff 2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses":
                    [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
                "0/2 Init:ExitCode:3 0",
            ),
            (json!({"phase": "Running", "containerStatuses": [up, up]}), "2/2 Running 0"),
            (
                json!({"phase": "Running", "containerStatuses":
                    [up, {"name": "b", "restartCount": 1, "state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                "1/2 ErrImagePull 1",
            ),
            (
                json!({"phase": "Running", "containerStatuses":
                    [{"name": "b", "state": {"terminated": {"reason": "Completed"}}}, up]}),
                "1/2 NotReady 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses":
                    [{"name": "b", "state": {"terminated": {"signal": 9, "exitCode": 137}}}]}),
                "0/2 Signal:9 0",
            ),
        ] {
            let pod = json!({"spec": two, "status": status});
            let s = summary(&pod);
            assert_eq!(format!("{}/{} {} {}", s.ready, s.total, s.reason, s.restarts), expected);
        }
        let pod =
            json!({"spec": two, "metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}});
        assert_eq!(summary(&pod).reason, "Terminating");
    }

    #[test]
    fn restarts_say_when() {
        let now = time::parse("2024-01-01T00:01:00Z").expect("a time");
        let pod = json!({"metadata": {"name": "p", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": "Running", "containerStatuses": [{"restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2024-01-01T00:00:50Z"}}}]}});
        assert_eq!(cells(&pod, now)[3], "2 (10s ago)");
    }
}
