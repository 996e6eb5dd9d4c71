//! What to do about one Deployment: a list of actions. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::rollout::{Rollout, recreates};
use super::{conditions, history, status};
use crate::runtime::object::deleting;
use crate::runtime::recorder::Note;

/// All that a plan looks at.
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Deployment,
    /// Its ReplicaSets.
    pub(super) sets: &'a [Arc<ReplicaSet>],
    /// Whether a ReplicaSet has pods that are not finished.
    pub(super) running: &'a dyn Fn(&ReplicaSet) -> bool,
    pub(super) now: Timestamp,
}

/// One write, or one event.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Create(Box<ReplicaSet>),
    Update(Box<ReplicaSet>),
    Delete(Arc<ReplicaSet>),
    /// Reports the status, with the annotations that go with it if they change. Annotations travel with the status because
    /// otherwise they would count as a new generation of the Deployment.
    Report {
        status: Box<DeploymentStatus>,
        annotations: Option<BTreeMap<String, String>>,
    },
    Tell(Note),
}

/// The actions in their order, and when to plan again although nothing happens.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) again: Option<Duration>,
}

/// Plans one pass.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let deployment = observed.deployment;
    let mut rollout = Rollout::new(observed);
    if deleting(&deployment.metadata) {
        let status = status::plain(&rollout);
        return finish(observed, rollout, status, None);
    }
    conditions::pause(&mut rollout);
    let paused = deployment.spec.paused == Some(true);
    if paused || rollout.scaling() {
        rollout.adopt_newest();
        rollout.scale();
        if paused {
            rollout.clean_up = true;
        }
        let status = status::plain(&rollout);
        return finish(observed, rollout, status, None);
    }
    if recreates(deployment) {
        rollout.recreate();
    } else {
        rollout.roll();
    }
    if status::complete(deployment, &status::plain(&rollout)) {
        rollout.clean_up = true;
    }
    let (status, again) = status::rolling(&rollout);
    finish(observed, rollout, status, again)
}

fn finish(
    observed: &Observed<'_>,
    rollout: Rollout<'_>,
    status: DeploymentStatus,
    again: Option<Duration>,
) -> Plan {
    let mut actions = Vec::new();
    for set in &rollout.sets {
        match &set.before {
            None => actions.push(Action::Create(Box::new(set.now.clone()))),
            Some(before) if before.spec != set.now.spec || before.metadata != set.now.metadata => {
                actions.push(Action::Update(Box::new(set.now.clone())));
            }
            Some(_) => {}
        }
    }
    actions.extend(rollout.notes.iter().cloned().map(Action::Tell));
    let newest = rollout.newest().filter(|_| !deleting(&observed.deployment.metadata));
    let annotations =
        newest.and_then(|newest| history::deployment_annotations(observed.deployment, &newest.now));
    if rollout.clean_up {
        let old = rollout.old().filter_map(|set| set.before.as_deref());
        for gone in history::surplus(observed.deployment, old) {
            let gone = observed.sets.iter().find(|s| s.metadata.uid == gone.metadata.uid);
            actions.extend(gone.cloned().map(Action::Delete));
        }
    }
    let reported = status::tidy(observed.deployment.status.clone().unwrap_or_default());
    if annotations.is_some() || status != reported {
        actions.push(Action::Report { status: Box::new(status), annotations });
    }
    Plan { actions, again }
}
