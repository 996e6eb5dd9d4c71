//! Cases for the plan of a pod: a situation in a few words, the operations that must come of it.

use serde_json::{Value, json};

use super::*;
use crate::pods::observed::{ObservedContainer, ObservedPod, ObservedSandbox};
use crate::pods::probes::ProbeResults;
use crate::pods::progress::Failure;
use crate::pods::scenes::{NOW, at, observed};
use crate::pods::{Pod, Progress};

mod convergence;

/// Operations in words.
fn words(plan: &Plan) -> String {
    let word = |op: &PodOp| match op {
        PodOp::PrepareVolumes => "prepare".to_owned(),
        PodOp::TearDownVolumes => "tear-down".to_owned(),
        PodOp::CreateSandbox { attempt } => format!("sandbox#{attempt}"),
        PodOp::StopSandbox { id } => format!("stop-sandbox:{id}"),
        PodOp::RemoveSandbox { id } => format!("remove-sandbox:{id}"),
        PodOp::Start { container, attempt, replace, .. } => {
            let replace = replace.as_ref().map(|id| format!("/{id}")).unwrap_or_default();
            format!("start:{container}#{}{replace}", attempt.number)
        }
        PodOp::Stop { id, deadline, .. } => format!("stop:{id}@{}", deadline.as_second() - NOW),
        PodOp::Remove { id } => format!("remove:{id}"),
        PodOp::Cancel(slot) => format!("cancel:{slot:?}"),
        PodOp::DeletePod => "delete".to_owned(),
        PodOp::CleanUp => "clean-up".to_owned(),
    };
    let mut all: Vec<String> = plan.ops.iter().map(word).collect();
    all.extend(plan.done.then(|| "done".to_owned()));
    all.join(" ")
}

/// A pod whose volumes are ready and whose sandboxes that are not ready were stopped.
struct Case {
    pod: Pod,
    gone: bool,
    observed: ObservedPod,
    progress: Progress,
}

fn case(spec: Value, there: &str) -> Case {
    let pod =
        Pod::decode(json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}, "spec": spec})).unwrap();
    let observed = observed(there);
    let stopped = observed.sandboxes.iter().filter(|s| !s.ready).map(|s| s.id.clone()).collect();
    let progress = Progress { volumes: Volumes::Ready, stopped, ..Progress::default() };
    Case { pod, gone: false, observed, progress }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Somebody asked for the pod's end, so many seconds ago, with this grace.
    fn deleted(self, ago: i64, grace: i64) -> Self {
        self.with(|case| {
            case.pod.deletion = Some(at(NOW));
            case.pod.deletion_grace = Some(grace);
            case.progress.ending_since = Some(at(NOW - ago));
        })
    }

    fn plan(&self) -> Plan {
        let Self { pod, gone, observed, progress } = self;
        plan(&Situation { pod, gone: *gone, observed, progress, now: at(NOW) })
    }

    #[track_caller]
    fn expect(&self, expected: &str) {
        assert_eq!(words(&self.plan()), expected);
    }
}

fn one() -> Value {
    json!({"containers": [{"name": "a"}]})
}

fn two_of(policy: &str) -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}], "restartPolicy": policy})
}

fn with_init() -> Value {
    json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}], "containers": [{"name": "a"}]})
}

#[test]
fn a_new_pod() {
    case(one(), "").with(|c| c.progress.volumes = Volumes::Unknown).expect("prepare sandbox#0");
    case(one(), "S").with(|c| c.progress.volumes = Volumes::Unknown).expect("prepare");
    case(one(), "S").expect("start:a#0");
    case(one(), "S").with(|c| c.progress.volumes = Volumes::Stale).expect("prepare start:a#0");
    case(one(), "S a:run").expect("");
    case(two_of("Always"), "S").expect("start:a#0");
    case(two_of("Always"), "S a:run").expect("start:b#0");
    let busy = |c: &mut Case| {
        c.progress.in_flight.insert(Slot::Container("a".into()), InFlight::Start);
    };
    case(two_of("Always"), "S").with(busy).expect("");
    case(two_of("Always"), "S a:run").with(busy).expect("");
}

#[test]
fn leftovers_of_an_interrupted_start() {
    case(one(), "S a:made").expect("start:a#0/a0");
    case(one(), "S a:lost").expect("start:a#1/a0");
}

#[test]
fn init_containers() {
    case(with_init(), "S").expect("start:i#0");
    case(with_init(), "S i:run").expect("");
    case(with_init(), "S i:exit=0").expect("start:s#0");
    case(with_init(), "S i:exit=1").expect("start:i#1");
    case(with_init(), "S i:exit=0 s:run").expect("start:j#0");
    case(with_init(), "S i:exit=0 s:run j:exit=0").expect("start:a#0");
    case(with_init(), "S i:exit=0 s:exit=0 j:exit=0 a:run").expect("start:s#1");
    // Once an ordinary container was made in the sandbox, the init containers are through, whatever is left of them.
    case(with_init(), "S a:run").expect("start:s#0");
    // In a new sandbox they run again.
    case(with_init(), "s i:exit=0 s:exit=137 j:exit=0 a:exit=137 S").expect("start:i#1");
    let probed = json!({"initContainers": [{"name": "s", "restartPolicy": "Always", "startupProbe": {}}], "containers": [{"name": "a"}]});
    case(probed.clone(), "S s:run").expect("");
    let started = |c: &mut Case| {
        let mut results = ProbeResults::default();
        results.set("s0", ProbeKind::Startup, Verdict::Success);
        c.progress.probes = results;
    };
    case(probed, "S s:run").with(started).expect("start:a#0");
}

#[test]
fn restarts() {
    case(two_of("Always"), "S a:exit=0 b:run").expect("start:a#1");
    case(two_of("OnFailure"), "S a:exit=0 b:run").expect("");
    case(two_of("OnFailure"), "S a:exit=1 b:run").expect("start:a#1");
    case(two_of("Never"), "S a:exit=1 b:run").expect("");
    let waits = case(two_of("Always"), "S a:exit=1@4#3 b:run");
    waits.expect("");
    let plan = waits.plan();
    assert_eq!(plan.wake, Some(at(NOW - 4 + 40)));
    assert_eq!(plan.waiting["a"].message, "back-off 40s restarting failed container=a pod=p_n(u)");
    // One that waits does not hold the next one up.
    case(two_of("Always"), "S a:exit=1@4#3").expect("start:b#0");
    case(two_of("Always"), "S a:exit=1#2 a:exit=1#1 a:exit=1#0 a:run#3 b:run").expect("remove:a1 remove:a0");
}

#[test]
fn failures_are_waited_out() {
    let failed = |c: &mut Case| {
        let failure = Failure {
            reason: "ErrImagePull".into(),
            message: "no".into(),
            at: at(NOW - 5),
            count: 1,
            retry: at(NOW + 5),
        };
        c.progress.failures.insert(Slot::Container("a".into()), failure);
    };
    let waits = case(two_of("Always"), "S").with(failed);
    waits.expect("start:b#0");
    let plan = waits.plan();
    assert_eq!(plan.wake, Some(at(NOW + 5)));
    assert_eq!(plan.waiting["a"].reason, "ImagePullBackOff");
}

#[test]
fn sandboxes() {
    case(one(), "s a:exit=137").expect("sandbox#1");
    // What outlived it ends with its grace; what cannot be stopped ends with the sandbox.
    let orphaned = || case(one(), "s a:run").with(|c| c.progress.stopped.clear());
    orphaned().expect("stop:a0@30");
    let busy = |what| {
        move |c: &mut Case| {
            c.progress.in_flight.insert(Slot::Container("a".into()), what);
        }
    };
    orphaned().with(busy(InFlight::Start)).expect("cancel:Container(\"a\")");
    let stopping = InFlight::Stop { deadline: at(NOW + 20) };
    orphaned().with(busy(stopping)).expect("");
    let unstoppable = |c: &mut Case| {
        let limits = (SignedDuration::from_secs(5), SignedDuration::from_secs(5));
        let failure = Failure::after(None, "KillContainerError", String::new(), at(NOW), limits);
        c.progress.failures.insert(Slot::Container("a".into()), failure);
    };
    orphaned().with(unstoppable).expect("stop-sandbox:s0");
    case(one(), "s a:exit=137").with(|c| c.progress.stopped.clear()).expect("stop-sandbox:s0");
    case(one(), "s a:exit=137 S").expect("start:a#1");
    case(one(), "s a:exit=137#0 S a:run#1").expect("");
    case(one(), "s S a:run").expect("remove-sandbox:s0");
    // Nothing is left to run: no new sandbox.
    case(two_of("Never"), "s a:exit=137 b:exit=0").expect("tear-down");
}

#[test]
fn a_container_that_the_runtime_has_lost() {
    let reported = |id: &'static str| {
        move |c: &mut Case| {
            c.pod.status =
                json!({"containerStatuses": [{"name": "a", "containerID": id, "restartCount": 3}]});
        }
    };
    case(one(), "S").with(reported("containerd://x")).expect("start:a#4");
    case(one(), "S").with(reported("")).expect("start:a#0");
    case(one(), "S").expect("start:a#0");
}

#[test]
fn another_image() {
    let outdated = |c: &mut Case| c.observed.containers[0].wanted_image = "old".into();
    case(one(), "S a:run").with(outdated).expect("stop:a0@30");
    // It starts anew whatever the policy says, and at once.
    case(two_of("Never"), "S a:exit=0@0 b:run").expect("");
    let first = |c: &mut Case| {
        c.observed.containers.iter_mut().filter(|found| found.name == "a").for_each(|found| {
            found.wanted_image = "old".into();
            found.backoff_step = 5;
        });
    };
    case(two_of("Never"), "S a:exit=0@0 b:run").with(first).expect("start:a#1");
    case(two_of("Never"), "S a:exit=0@0 b:exit=0").with(first).expect("start:a#1");
    let same = |c: &mut Case| {
        c.pod.spec.containers[0].image = "old".into();
        outdated(c);
    };
    case(one(), "S a:run").with(same).expect("");
}

#[test]
fn probes() {
    let spec = json!({"containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 7}}], "terminationGracePeriodSeconds": 3});
    let failed = |kind| {
        move |c: &mut Case| {
            c.progress.probes.set("a0", kind, Verdict::Failure);
        }
    };
    case(spec.clone(), "S a:run").with(failed(ProbeKind::Liveness)).expect("stop:a0@7");
    case(spec.clone(), "S a:run").with(failed(ProbeKind::Startup)).expect("stop:a0@3");
    case(spec.clone(), "S a:run").with(failed(ProbeKind::Readiness)).expect("");
    // The verdict on a container is not one on its successor.
    case(spec, "S a:exit=1#0 a:run#1").with(failed(ProbeKind::Liveness)).expect("");
}

#[test]
fn a_pod_that_came_to_its_end() {
    case(two_of("Never"), "S a:exit=0 b:exit=1").expect("stop-sandbox:s0");
    let stopped = |c: &mut Case| {
        c.progress.stopped.insert("s0".into());
    };
    case(two_of("Never"), "S a:exit=0 b:exit=1").with(stopped).expect("tear-down");
    case(two_of("Never"), "s a:exit=0 b:exit=1").with(|c| c.progress.volumes = Volumes::TornDown).expect("");
    // What the API server has as ended never runs again, even if nothing is left of it.
    let reported = |c: &mut Case| c.pod.status = json!({"phase": "Succeeded"});
    case(one(), "").with(reported).expect("tear-down");
    case(one(), "S a:run").with(reported).expect("stop:a0@30");
}

#[test]
fn a_rejected_pod_never_runs() {
    let rejected = |c: &mut Case| {
        c.progress.rejected =
            Some(crate::pods::admit::Rejection { reason: "OutOfcpu".into(), message: String::new() });
    };
    case(one(), "").with(rejected).expect("tear-down");
    case(one(), "").with(rejected).with(|c| c.progress.volumes = Volumes::TornDown).expect("");
}

#[test]
fn deadlines() {
    let spec = json!({"containers": [{"name": "a"}], "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5});
    let since = |ago: i64| move |c: &mut Case| c.pod.status = json!({"startTime": at(NOW - ago).to_string()});
    let early = case(spec.clone(), "S a:run").with(since(59));
    early.expect("");
    assert_eq!(early.plan().wake, Some(at(NOW + 1)));
    case(spec, "S a:run").with(since(60)).expect("stop:a0@5");
}

#[test]
fn deletion() {
    case(two_of("Always"), "S a:run b:run").deleted(0, 30).expect("stop:b0@30 stop:a0@30");
    case(two_of("Always"), "S a:run b:run").deleted(10, 30).expect("stop:b0@20 stop:a0@20");
    // No grace is still a second.
    case(two_of("Always"), "S a:run").deleted(0, 0).expect("stop:a0@1");
    // Containers of a spec that is not this one are stopped too.
    case(one(), "S x:run").deleted(0, 5).expect("stop:x0@5");
    case(with_init(), "S i:exit=0 s:run a:run").deleted(0, 5).expect("stop:a0@5");
    case(with_init(), "S i:exit=0 s:run a:exit=0").deleted(0, 5).expect("stop:s0@5");
    case(one(), "S a:exit=0").deleted(0, 5).expect("stop-sandbox:s0");
    case(one(), "s a:exit=0").deleted(0, 5).expect("tear-down");
    let torn = |c: &mut Case| c.progress.volumes = Volumes::TornDown;
    case(one(), "s a:exit=0").with(torn).deleted(0, 5).expect("");
    case(one(), "s a:exit=0").with(torn).with(|c| c.progress.reported = true).deleted(0, 5).expect("delete");
    // Nothing was ever there.
    case(one(), "").with(torn).with(|c| c.progress.reported = true).deleted(0, 5).expect("delete");
}

#[test]
fn deletion_while_something_is_under_way() {
    let busy = |slot: Slot, what: InFlight| {
        move |c: &mut Case| {
            c.progress.in_flight.insert(slot, what);
        }
    };
    let a = || Slot::Container("a".into());
    case(one(), "S").with(busy(a(), InFlight::Start)).deleted(0, 5).expect("cancel:Container(\"a\")");
    case(one(), "").with(busy(Slot::Sandbox, InFlight::Other)).deleted(0, 5).expect("");
    case(one(), "").with(busy(Slot::Sandbox, InFlight::Other)).deleted(25, 5).expect("cancel:Sandbox");
    let stopping = |deadline: i64| busy(a(), InFlight::Stop { deadline: at(NOW + deadline) });
    case(one(), "S a:run").with(stopping(5)).deleted(0, 5).expect("");
    // A shorter grace than the one under way.
    case(one(), "S a:run").with(stopping(500)).deleted(0, 5).expect("cancel:Container(\"a\")");
}

#[test]
fn a_forgotten_pod() {
    let gone = |c: &mut Case| {
        c.gone = true;
        c.progress.ending_since = Some(at(NOW));
        c.progress.volumes = Volumes::TornDown;
    };
    case(one(), "S a:run").with(gone).expect("stop:a0@30");
    case(one(), "S a:exit=0").with(gone).expect("stop-sandbox:s0");
    case(one(), "s a:exit=0#0 a:exit=0#1").with(gone).expect("remove:a1 remove:a0");
    case(one(), "s").with(gone).expect("remove-sandbox:s0");
    case(one(), "").with(gone).expect("clean-up");
    case(one(), "").with(gone).with(|c| c.progress.cleaned = true).expect("done");
}

#[test]
fn ephemeral_containers() {
    let spec = json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "e"}]});
    case(spec.clone(), "S a:run").expect("start:e#0");
    case(spec.clone(), "S a:run e:run").expect("");
    case(spec, "S a:run e:exit=1").expect("");
}

mod properties {
    //! Whatever is there, a plan is one that may be carried out.
    use proptest::prelude::*;

    use super::*;

    fn containers() -> impl Strategy<Value = String> {
        let state = prop_oneof![
            Just("run"),
            Just("made"),
            Just("lost"),
            Just("exit=0"),
            Just("exit=1"),
            Just("exit=1@1")
        ];
        let container = (prop_oneof![Just("i"), Just("s"), Just("j"), Just("a"), Just("x")], state, 0_u32..4)
            .prop_map(|(name, state, attempt)| format!("{name}:{state}#{attempt}"));
        let word = prop_oneof![3 => container, 1 => Just("S".to_owned()), 1 => Just("s".to_owned())];
        (prop_oneof![Just("S"), Just("s")], prop::collection::vec(word, 0..8)).prop_map(|(first, rest)| {
            // A name and attempt is there once.
            let mut seen = std::collections::BTreeSet::new();
            let key = |word: &str| {
                let (name, attempt) = (word.split(':').next(), word.split('#').nth(1));
                format!("{name:?}{attempt:?}")
            };
            let kept: Vec<String> =
                rest.into_iter().filter(|word| word.len() == 1 || seen.insert(key(word))).collect();
            format!("{first} {}", kept.join(" "))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn plans_are_sound(there in containers(), policy in 0_usize..3, deleted: bool, gone: bool, torn: bool, reported: bool) {
            let mut spec = with_init();
            spec["restartPolicy"] = json!(["Always", "OnFailure", "Never"][policy]);
            let case = case(spec, &there).with(|c| {
                c.gone = gone;
                c.progress.reported = reported;
                if torn { c.progress.volumes = Volumes::TornDown; }
            });
            let case = if deleted { case.deleted(1, 5) } else { case };
            let plan = case.plan();
            // The same situation, the same plan.
            prop_assert_eq!(&plan, &case.plan());
            // No two operations on one slot.
            let mut slots: Vec<Slot> = plan.ops.iter().map(PodOp::slot).collect();
            let count = slots.len();
            slots.sort();
            slots.dedup();
            prop_assert_eq!(count, slots.len(), "{:?}", plan.ops);
            let starts: Vec<_> = plan.ops.iter().filter(|op| matches!(op, PodOp::Start { .. } | PodOp::CreateSandbox { .. })).collect();
            prop_assert!(starts.len() <= 1);
            if deleted || gone {
                prop_assert!(starts.is_empty(), "an ending pod starts nothing: {:?}", starts);
            }
            for op in &plan.ops {
                match op {
                    PodOp::Start { sandbox, .. } => {
                        prop_assert!(case.observed.ready_sandbox().is_some_and(|ready| ready.id == *sandbox));
                    }
                    PodOp::Remove { id } => {
                        let found = case.observed.containers.iter().find(|found| found.id == *id);
                        prop_assert!(found.is_some_and(|found| !found.is_running()), "what runs is not removed");
                    }
                    PodOp::TearDownVolumes => prop_assert!(case.observed.alive().next().is_none(), "volumes in use stay"),
                    PodOp::DeletePod => prop_assert!(deleted && reported && case.observed.alive().next().is_none()),
                    _ => {}
                }
            }
            prop_assert!(!plan.done || (gone && case.observed.is_empty()));
        }
    }
}
