//! Cases for the status of a pod.

use serde_json::{Value, json};

use super::*;
use crate::pods::observed::ObservedPod;
use crate::pods::plan::plan;
use crate::pods::probes::{ProbeKind, Verdict};
use crate::pods::progress::{Failure, InFlight, Slot, Volumes};
use crate::pods::scenes::{NOW, at, observed};
use crate::pods::{Pod, Progress};

struct Case {
    pod: Pod,
    gone: bool,
    observed: ObservedPod,
    progress: Progress,
}

fn case(spec: Value, reported: Value, there: &str) -> Case {
    let pod = Pod::decode(json!({
        "metadata": {"namespace": "n", "name": "p", "uid": "u", "generation": 3}, "spec": spec, "status": reported,
    }))
    .unwrap();
    let progress = Progress { volumes: Volumes::Ready, ..Progress::default() };
    let mut observed = observed(there);
    for sandbox in &mut observed.sandboxes {
        sandbox.ips = vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    }
    Case { pod, gone: false, observed, progress }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn status(&self) -> Value {
        let Self { pod, gone, observed, progress } = self;
        let situation = Situation { pod, gone: *gone, observed, progress, now: at(NOW) };
        let node = NodeFacts { host_ips: vec!["192.0.2.1".parse().unwrap()], runtime: "containerd".into() };
        super::status(&situation, &plan(&situation).waiting, &node)
    }

    /// Phase, conditions that are true, and `NAME=STATE` of each container.
    fn summary(&self) -> String {
        let status = self.status();
        let conditions = status["conditions"].as_array().unwrap();
        let short = |kind: &str| match kind {
            "PodReadyToStartContainers" => "N".to_owned(),
            "ContainersReady" => "C".to_owned(),
            "PodScheduled" => "S".to_owned(),
            other => other[..1].to_owned(),
        };
        let held: String = conditions
            .iter()
            .filter(|condition| condition["status"] == "True")
            .map(|condition| short(condition["type"].as_str().unwrap()))
            .collect();
        let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
        let containers =
            lists.iter().filter_map(|list| status[*list].as_array()).flatten().map(|container| {
                let state = &container["state"];
                let state = if state["running"].is_object() {
                    "run".to_owned()
                } else if state["terminated"].is_object() {
                    format!("exit{}", state["terminated"]["exitCode"])
                } else {
                    state["waiting"]["reason"].as_str().unwrap().to_owned()
                };
                let ready = if container["ready"] == true { "+" } else { "" };
                format!("{}={state}{ready}", container["name"].as_str().unwrap())
            });
        let containers: Vec<String> = containers.collect();
        format!("{} {held} {}", status["phase"].as_str().unwrap(), containers.join(" "))
    }

    #[track_caller]
    fn expect(&self, expected: &str) {
        assert_eq!(self.summary(), expected);
    }
}

fn two(policy: &str) -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}], "restartPolicy": policy})
}

fn with_init() -> Value {
    json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]})
}

fn nothing() -> Value {
    json!({})
}

#[test]
fn on_the_way_to_running() {
    case(two("Always"), nothing(), "").expect("Pending IS a=ContainerCreating b=ContainerCreating");
    case(two("Always"), nothing(), "S").expect("Pending NIS a=ContainerCreating b=ContainerCreating");
    case(two("Always"), nothing(), "S a:run").expect("Pending NIS a=run+ b=ContainerCreating");
    case(two("Always"), nothing(), "S a:run b:run").expect("Running NIRCS a=run+ b=run+");
    case(with_init(), nothing(), "S")
        .expect("Pending NS i=PodInitializing s=PodInitializing a=PodInitializing");
    case(with_init(), nothing(), "S i:run").expect("Pending NS i=run s=PodInitializing a=PodInitializing");
    case(with_init(), nothing(), "S i:exit=0")
        .expect("Pending NS i=exit0+ s=PodInitializing a=PodInitializing");
    case(with_init(), nothing(), "S i:exit=0 s:run").expect("Pending NIS i=exit0+ s=run+ a=PodInitializing");
    case(with_init(), nothing(), "S i:exit=0 s:run a:run").expect("Running NIRCS i=exit0+ s=run+ a=run+");
    // Its start hook is not through.
    let starting = |c: &mut Case| {
        c.progress.in_flight.insert(Slot::Container("b".into()), InFlight::Start);
    };
    case(two("Always"), nothing(), "S a:run b:run")
        .with(starting)
        .expect("Pending NIS a=run+ b=ContainerCreating");
}

#[test]
fn ends() {
    case(two("Never"), nothing(), "S a:exit=0 b:run").expect("Running NIS a=exit0 b=run+");
    case(two("Never"), nothing(), "S a:exit=0 b:exit=0").expect("Succeeded NIS a=exit0 b=exit0");
    case(two("Never"), nothing(), "S a:exit=0 b:exit=2").expect("Failed NIS a=exit0 b=exit2");
    case(two("OnFailure"), nothing(), "S a:exit=0 b:exit=0").expect("Succeeded NIS a=exit0 b=exit0");
    case(two("OnFailure"), nothing(), "S a:exit=0 b:exit=1").expect("Running NIS a=exit0 b=exit1");
    let status = case(two("Never"), nothing(), "S a:exit=0 b:exit=0").status();
    let reason = |kind: &str| {
        let all = status["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == kind).unwrap()["reason"].clone()
    };
    assert_eq!((reason("Ready"), reason("Initialized")), (json!("PodCompleted"), json!("PodCompleted")));
    // A failed init container.
    let mut spec = with_init();
    spec["restartPolicy"] = "Never".into();
    case(spec, nothing(), "S i:exit=1").expect("Failed NS i=exit1 s=PodInitializing a=PodInitializing");
    // What was reported as ended stays so, whatever there is.
    case(two("Always"), json!({"phase": "Failed", "reason": "Evicted"}), "S a:run b:run")
        .expect("Failed NIS a=run+ b=run+");
}

#[test]
fn back_off() {
    let status = case(two("Always"), nothing(), "S a:exit=1@4#3 b:run");
    status.expect("Running NIS a=CrashLoopBackOff b=run+");
    let a = status.status()["containerStatuses"][0].clone();
    assert_eq!(a["restartCount"], 3);
    assert_eq!(a["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(a["lastState"]["terminated"]["containerID"], "containerd://a3");
    // The one before is the last state of one that runs.
    let status = case(two("Always"), nothing(), "S a:exit=7#0 a:run#1 b:run").status();
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
}

#[test]
fn failed_starts() {
    let failed = |reason: &'static str, ago: i64| {
        move |c: &mut Case| {
            let failure = Failure {
                reason: reason.into(),
                message: "why".into(),
                at: at(NOW - ago),
                count: 1,
                retry: at(NOW + 9),
            };
            c.progress.failures.insert(Slot::Container("a".into()), failure);
        }
    };
    for (reason, ago, expected) in [
        ("ErrImagePull", 0, "ErrImagePull"),
        ("ErrImagePull", 2, "ImagePullBackOff"),
        ("CreateContainerConfigError", 2, "CreateContainerConfigError"),
        ("RunContainerError", 2, "RunContainerError"),
    ] {
        let case = case(two("Always"), nothing(), "S b:run").with(failed(reason, ago));
        case.expect(&format!("Pending NIS a={expected} b=run+"));
        let message = case.status()["containerStatuses"][0]["state"]["waiting"]["message"].clone();
        assert!(message.as_str().unwrap().contains("why"));
    }
}

#[test]
fn probes_decide_readiness() {
    let spec =
        json!({"containers": [{"name": "a", "readinessProbe": {}, "startupProbe": {}}, {"name": "b"}]});
    let found = |verdicts: &'static [(ProbeKind, Verdict)]| {
        move |c: &mut Case| {
            verdicts.iter().for_each(|(kind, verdict)| c.progress.probes.set("a0", *kind, *verdict))
        }
    };
    use ProbeKind::{Readiness, Startup};
    use Verdict::{Failure, Success};
    let there = "S a:run b:run";
    case(spec.clone(), nothing(), there).expect("Running NIS a=run b=run+");
    case(spec.clone(), nothing(), there)
        .with(found(&[(Readiness, Success)]))
        .expect("Running NIS a=run b=run+");
    let both = found(&[(Startup, Success), (Readiness, Success)]);
    case(spec.clone(), nothing(), there).with(both).expect("Running NIRCS a=run+ b=run+");
    // A new agent goes by what was reported of the same container, until a probe says otherwise.
    let reported = |id: &str| json!({"containerStatuses": [{"name": "a", "containerID": id, "ready": true, "started": true}]});
    case(spec.clone(), reported("containerd://a0"), there).expect("Running NIRCS a=run+ b=run+");
    case(spec.clone(), reported("containerd://other"), there).expect("Running NIS a=run b=run+");
    let failed = found(&[(Readiness, Failure)]);
    case(spec, reported("containerd://a0"), there).with(failed).expect("Running NIS a=run b=run+");
}

#[test]
fn readiness_gates() {
    let spec = json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "g"}]});
    let reported = |status: &str| json!({"conditions": [{"type": "g", "status": status}]});
    let message = |case: &Case| {
        let status = case.status();
        let all = status["conditions"].as_array().unwrap().clone();
        let ready = all.iter().find(|c| c["type"] == "Ready").unwrap().clone();
        (ready["reason"].clone(), ready["message"].clone())
    };
    let absent = case(spec.clone(), nothing(), "S a:run");
    absent.expect("Running NICS a=run+");
    assert_eq!(
        message(&absent),
        (
            json!("ReadinessGatesNotReady"),
            json!("corresponding condition of pod readiness gate \"g\" does not exist.")
        )
    );
    let no = case(spec.clone(), reported("False"), "S a:run");
    assert_eq!(message(&no).1, "the status of pod readiness gate \"g\" is not \"True\", but False");
    case(spec, reported("True"), "S a:run").expect("Running gNIRCS a=run+");
}

#[test]
fn a_pod_that_is_deleted() {
    let deleted = |c: &mut Case| c.pod.deletion = Some(at(NOW));
    let running = json!({"phase": "Running"});
    case(two("Always"), running.clone(), "S a:run b:run").with(deleted).expect("Running NIRCS a=run+ b=run+");
    case(two("Always"), running.clone(), "S a:exit=0 b:run")
        .with(deleted)
        .expect("Running NIS a=exit0 b=run+");
    case(two("Always"), running.clone(), "S a:exit=0 b:exit=0")
        .with(deleted)
        .expect("Succeeded NIS a=exit0 b=exit0");
    case(two("Always"), running, "S a:exit=0 b:exit=137")
        .with(deleted)
        .expect("Failed NIS a=exit0 b=exit137");
    // Never started.
    case(two("Always"), nothing(), "")
        .with(deleted)
        .expect("Failed IS a=ContainerCreating b=ContainerCreating");
    // Reported as running and no longer there.
    let reported = json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "state": {"running": {"startedAt": "2024-01-01T00:00:00Z"}}, "ready": true, "restartCount": 4},
        {"name": "b", "state": {"terminated": {"exitCode": 3}}, "restartCount": 1}]});
    let lost = case(two("Always"), reported, "").with(deleted);
    lost.expect("Failed IS a=exit137 b=exit3");
    let a = lost.status()["containerStatuses"][0].clone();
    assert_eq!(a["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(a["restartCount"], 4);
}

#[test]
fn overdue() {
    let mut spec = two("Always");
    spec["activeDeadlineSeconds"] = 10.into();
    let case =
        case(spec, json!({"phase": "Running", "startTime": at(NOW - 11).to_string()}), "S a:run b:run");
    case.expect("Failed NIS a=run+ b=run+");
    let status = case.status();
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(status["message"], "Pod was active on the node longer than the specified deadline");
}

#[test]
fn rejected() {
    let rejected = |c: &mut Case| {
        let (reason, message) = ("OutOfcpu".to_owned(), "why".to_owned());
        c.progress.rejected = Some(crate::pods::admit::Rejection { reason, message });
    };
    let case = case(two("Always"), nothing(), "").with(rejected);
    case.expect("Failed IS ");
    assert_eq!(case.status()["reason"], "OutOfcpu");
    assert_eq!(case.status()["message"], "why");
    // It stays so when that is told.
    let told = json!({"phase": "Failed", "reason": "OutOfcpu"});
    self::case(two("Always"), told, "").expect("Failed IS ");
}

#[test]
fn addresses_and_constants() {
    let status = case(two("Always"), nothing(), "S a:run b:run").status();
    assert_eq!(status["podIP"], "10.1.0.2");
    assert_eq!(status["podIPs"], json!([{"ip": "10.1.0.2"}, {"ip": "fd00::2"}]));
    assert_eq!(status["hostIPs"], json!([{"ip": "192.0.2.1"}]));
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["qosClass"], "BestEffort");
    let mut spec = two("Always");
    spec["hostNetwork"] = true.into();
    assert_eq!(case(spec, nothing(), "S").status()["podIP"], "192.0.2.1");
    // Kept while there is no sandbox to ask.
    let reported = json!({"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}], "startTime": "2024-01-01T00:00:00Z", "qosClass": "Guaranteed"});
    let status = case(two("Always"), reported, "s a:exit=1").status();
    assert_eq!(status["podIP"], "10.9.9.9");
    assert_eq!(status["startTime"], "2024-01-01T00:00:00Z");
    assert_eq!(status["qosClass"], "Guaranteed");
}

#[test]
fn a_condition_keeps_its_time_while_it_holds() {
    let before = json!({"conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"},
        {"type": "Ready", "status": "False", "lastTransitionTime": "2024-01-01T00:00:00Z"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2023-01-01T00:00:00Z"},
        {"type": "DisruptionTarget", "status": "True", "reason": "x"}]});
    let status = case(two("Always"), before, "S a:run b:run").status();
    let find = |kind: &str| {
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap().clone()
    };
    assert_eq!(find("Initialized")["lastTransitionTime"], "2024-01-01T00:00:00Z");
    assert_eq!(find("Ready")["lastTransitionTime"], time::format(at(NOW)));
    assert_eq!(find("PodScheduled")["lastTransitionTime"], "2023-01-01T00:00:00Z");
    assert_eq!(find("DisruptionTarget")["reason"], "x");
}

#[test]
fn once_told_there_is_nothing_to_tell() {
    for there in ["", "S", "S a:run", "S a:run b:run", "S a:exit=1@4#3 b:run", "s a:exit=0 b:exit=0"] {
        for policy in ["Always", "Never"] {
            let mut case = case(two(policy), nothing(), there);
            let first = case.status();
            assert!(patch(&nothing(), &first).is_some());
            case.pod.status = first;
            assert_eq!(patch(&case.pod.status, &case.status()), None, "{there} {policy}");
        }
    }
}
