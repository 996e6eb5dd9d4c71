//! A world in which plans are carried out, in any order and with losses: containers end, sandboxes are lost, the worker's
//! memory goes. Whatever happened, the pod comes to run, and once it is to end it ends and leaves nothing.

use proptest::prelude::*;

use super::*;
use crate::pods::observed::Exit;

struct World {
    case: Case,
    now: i64,
    next: u32,
}

/// Something that happens to a pod from outside.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// The container in this place ends so.
    Exit(usize, i32),
    /// The runtime loses this container.
    Lost(usize),
    /// The sandbox is no longer ready; its containers end.
    SandboxLost,
    /// The agent starts anew.
    Forget,
    /// Time passes.
    Later(i64),
}

impl World {
    fn new(spec: Value) -> Self {
        let case = case(spec, "").with(|c| c.progress = Progress::default());
        Self { case, now: NOW, next: 0 }
    }

    fn plan(&self) -> Plan {
        let Case { pod, gone, observed, progress } = &self.case;
        plan(&Situation { pod, gone: *gone, observed, progress, now: at(self.now) })
    }

    fn end(&mut self, place: usize, code: i32) {
        let count = self.case.observed.containers.len().max(1);
        let now = at(self.now);
        if let Some(found) = self.case.observed.containers.get_mut(place % count)
            && !matches!(found.state, ContainerState::Exited(_))
        {
            let exit = Exit { started: Some(found.created), finished: now, code, ..Exit::default() };
            found.state = ContainerState::Exited(exit);
        }
    }

    fn end_all_in(&mut self, sandbox: &str) {
        for place in 0..self.case.observed.containers.len() {
            if self.case.observed.containers[place].sandbox == sandbox {
                self.end(place, 137);
            }
        }
    }

    fn suffer(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Exit(place, code) => self.end(place, code),
            Mishap::Lost(place) => {
                let count = self.case.observed.containers.len().max(1);
                if let Some(found) = self.case.observed.containers.get_mut(place % count)
                    && found.is_running()
                {
                    found.state = ContainerState::Unknown;
                }
            }
            Mishap::SandboxLost => {
                if let Some(sandbox) = self.case.observed.sandboxes.first_mut() {
                    sandbox.ready = false;
                    let id = sandbox.id.clone();
                    self.end_all_in(&id);
                }
            }
            Mishap::Forget => self.case.progress = Progress::default(),
            Mishap::Later(seconds) => self.now += seconds,
        }
    }

    fn carry_out(&mut self, op: PodOp) {
        self.next += 1;
        let (id, now) = (format!("{}", self.next), at(self.now));
        let observed = &mut self.case.observed;
        match op {
            PodOp::PrepareVolumes => self.case.progress.volumes = Volumes::Ready,
            PodOp::TearDownVolumes => self.case.progress.volumes = Volumes::TornDown,
            PodOp::CreateSandbox { attempt } => {
                observed.sandboxes.push(ObservedSandbox {
                    id,
                    attempt,
                    ready: true,
                    created: now,
                    ..Default::default()
                });
            }
            PodOp::StopSandbox { id } => {
                observed.sandboxes.iter_mut().filter(|s| s.id == id).for_each(|s| s.ready = false);
                self.end_all_in(&id);
                self.case.progress.stopped.insert(id);
            }
            PodOp::RemoveSandbox { id } => {
                observed.containers.retain(|found| found.sandbox != id);
                observed.sandboxes.retain(|found| found.id != id);
            }
            PodOp::Start { container, sandbox, attempt, replace } => {
                observed.containers.retain(|found| Some(&found.id) != replace.as_ref());
                observed.containers.push(ObservedContainer {
                    id,
                    sandbox,
                    name: container,
                    attempt: attempt.number,
                    backoff_step: attempt.step,
                    created: now,
                    state: ContainerState::Running { started: now },
                    wanted_image: String::new(),
                    image: String::new(),
                    image_id: String::new(),
                    log_path: String::new(),
                    stop: Default::default(),
                });
            }
            PodOp::Stop { id, .. } => {
                let place = observed.containers.iter().position(|found| found.id == id);
                self.end(place.expect("a container that is there"), 143);
            }
            PodOp::Remove { id } => observed.containers.retain(|found| found.id != id),
            PodOp::Cancel(_) => {}
            PodOp::DeletePod => self.case.gone = true,
            PodOp::CleanUp => self.case.progress.cleaned = true,
        }
        self.case.observed.sort();
    }

    /// Carries out plans, one operation of each, until there is nothing to do and nothing to wait for.
    fn settle(&mut self, order: &mut impl Iterator<Item = usize>) -> Result<(), String> {
        for _ in 0..400 {
            self.case.progress.reported = true;
            if self.case.gone || self.case.pod.is_terminating() {
                self.case.progress.ending_since.get_or_insert(at(self.now));
            }
            let plan = self.plan();
            if plan.done {
                return Ok(());
            }
            if !plan.ops.is_empty() {
                let pick = order.next().unwrap_or(0) % plan.ops.len();
                self.carry_out(plan.ops[pick].clone());
            } else if let Some(wake) = plan.wake {
                if wake <= at(self.now) {
                    return Err(format!("wakes for nothing at {wake}"));
                }
                self.now = wake.as_second();
                // Init containers come to their end by themselves.
            } else if !self.end_init_containers() {
                return Ok(());
            }
        }
        Err(format!("does not settle: {:?} in {:?}", self.plan().ops, self.case.observed))
    }

    /// Ends the init containers that run; true if there were any.
    fn end_init_containers(&mut self) -> bool {
        let is_init = |name: &str| matches!(self.case.pod.container(name), Some((ContainerKind::Init, _)));
        let running = |found: &ObservedContainer| found.is_running() && is_init(&found.name);
        let place = self.case.observed.containers.iter().position(running);
        if let Some(place) = place {
            self.end(place, 0);
        }
        place.is_some()
    }
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        (0_usize..8, prop_oneof![Just(0), Just(1), Just(137)])
            .prop_map(|(place, code)| Mishap::Exit(place, code)),
        (0_usize..8).prop_map(Mishap::Lost),
        Just(Mishap::SandboxLost),
        Just(Mishap::Forget),
        (1_i64..700).prop_map(Mishap::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn comes_to_run_and_to_its_end(
        mishaps in prop::collection::vec((mishap(), 0_usize..12), 0..12),
        order in prop::collection::vec(0_usize..6, 0..64),
        policy in 0_usize..3,
        forgotten: bool,
    ) {
        let mut spec = with_init();
        spec["restartPolicy"] = json!(["Always", "OnFailure", "Never"][policy]);
        let mut world = World::new(spec);
        let mut order = order.into_iter().cycle();
        for (mishap, steps) in mishaps {
            for _ in 0..steps {
                if let Some(op) = world.plan().ops.first().cloned() {
                    world.carry_out(op);
                }
            }
            world.suffer(mishap);
        }
        world.settle(&mut order).map_err(TestCaseError::fail)?;
        let app = world.case.observed.latest("a");
        if policy == 0 {
            prop_assert!(app.is_some_and(ObservedContainer::is_running), "{:?}", world.case.observed);
            prop_assert!(world.case.observed.latest("s").is_some_and(ObservedContainer::is_running));
        }
        let names: std::collections::BTreeSet<_> = world.case.observed.alive().map(|c| &c.name).collect();
        prop_assert_eq!(names.len(), world.case.observed.alive().count(), "no container runs twice");
        if forgotten {
            world.case.gone = true;
        } else {
            world.case.pod.deletion = Some(at(world.now));
        }
        world.case.progress.ending_since = Some(at(world.now));
        world.settle(&mut order).map_err(TestCaseError::fail)?;
        prop_assert!(world.plan().done && world.case.observed.is_empty(), "{:?}", world.case.observed);
    }
}
