//! Which nodes get a pod and which pods go: presence first, then the rolling update. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fit::{Fit, fit};
use super::pods::target;
use crate::runtime::object::{
    available_at, created, deleting, key_of, label, name, node_name, phase, scaled,
};
use crate::runtime::recorder::Note;
use crate::runtime::revisions::REVISION_HASH;

/// All that a plan looks at.
pub(super) struct Observed<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) pods: &'a [Arc<Pod>],
    /// The hash of the present template.
    pub(super) hash: &'a str,
    /// How long a node must still wait for the replacement of a failed pod.
    pub(super) rest: &'a dyn Fn(&str) -> Option<Duration>,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Nodes whose failed pod is replaced.
    pub(super) failed_on: Vec<String>,
    pub(super) notes: Vec<Note>,
    pub(super) again: Option<Duration>,
}

/// Pods by the node they are on or wait for, oldest first.
pub(super) fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut map: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        map.entry(target(pod).unwrap_or_default()).or_default().push(pod);
    }
    for pods in map.values_mut() {
        // A bound pod counts before one that waits.
        pods.sort_by_key(|p| (node_name(p).is_empty(), created(&p.metadata), name(&p.metadata).to_owned()));
    }
    map
}

/// How many pods more, and how many available pods less, an update may have.
fn bounds(set: &DaemonSet, desired: i32) -> (i32, i32) {
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let of = |value: Option<&IntOrString>, default| {
        value.map_or(Some(default), |v| scaled(v, desired, true)).unwrap_or(default).max(0)
    };
    let surge = of(rolling.and_then(|r| r.max_surge.as_ref()), 0);
    let unavailable = of(rolling.and_then(|r| r.max_unavailable.as_ref()), i32::from(surge == 0));
    (surge, unavailable)
}

/// Plans one pass.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    let by_node = by_node(observed.pods);
    let fits: BTreeMap<&str, Fit> =
        observed.nodes.iter().map(|n| (name(&n.metadata), fit(observed.set, n))).collect();
    let desired = i32::try_from(fits.values().filter(|f| f.run).count()).unwrap_or(i32::MAX);
    let (surge, unavailable) = bounds(observed.set, desired);
    let rolling =
        observed.set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    for (node, fit) in &fits {
        let pods = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        presence(observed, node, *fit, pods, rolling && surge > 0, &mut plan);
    }
    for (node, pods) in &by_node {
        if !fits.contains_key(node) {
            // Nobody will ever start a pod that waits for a node that is not there.
            let waiting = pods.iter().filter(|p| node_name(p).is_empty() && !deleting(&p.metadata));
            plan.delete.extend(waiting.map(|p| (*p).clone()));
        }
    }
    if rolling {
        let update = Update { observed, by_node: &by_node, fits: &fits };
        if surge > 0 { update.with_surge(surge, &mut plan) } else { update.in_place(unavailable, &mut plan) }
    }
    plan
}

fn presence(
    observed: &Observed<'_>,
    node: &str,
    fit: Fit,
    pods: &[&Arc<Pod>],
    surging: bool,
    plan: &mut Plan,
) {
    if !fit.stay {
        plan.delete.extend(pods.iter().filter(|p| !deleting(&p.metadata)).map(|p| (*p).clone()));
        return;
    }
    if pods.is_empty() {
        if fit.run {
            match (observed.rest)(node) {
                None => plan.create.push(node.to_owned()),
                Some(rest) => plan.again = Some(plan.again.map_or(rest, |a| a.min(rest))),
            }
        }
        return;
    }
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods.iter().filter(|p| !deleting(&p.metadata)) {
        let (reason, way) = match phase(pod) {
            "Failed" => ("FailedDaemonPod", "failed"),
            "Succeeded" => ("SucceededDaemonPod", "succeeded"),
            _ => {
                running.push(pod);
                continue;
            }
        };
        let text = format!("Found {way} daemon pod {} on node {node}, will try to ", key_of(&pod.metadata));
        plan.notes.push(if way == "failed" {
            Note::warning(reason, text + "kill it")
        } else {
            Note::normal(reason, text + "delete it")
        });
        plan.failed_on.push(node.to_owned());
        plan.delete.push((*pod).clone());
    }
    let is_new = |pod: &Arc<Pod>| label(&pod.metadata, REVISION_HASH) == Some(observed.hash);
    if surging {
        // One old and one new pod may stand side by side.
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| is_new(p));
        plan.delete.extend(old.into_iter().skip(1).chain(new.into_iter().skip(1)).cloned());
    } else {
        plan.delete.extend(running.into_iter().skip(1).cloned());
    }
}

struct Update<'a> {
    observed: &'a Observed<'a>,
    by_node: &'a BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
    fits: &'a BTreeMap<&'a str, Fit>,
}

impl Update<'_> {
    fn available(&self, pod: &Pod) -> bool {
        let wait = self.observed.set.spec.min_ready_seconds.unwrap_or(0);
        available_at(pod, wait).is_some_and(|at| at <= self.observed.now)
    }

    /// The old and the new pod of each node that should run one, if there is at most one of each and none is ending.
    fn pairs(&self) -> impl Iterator<Item = (&str, Option<Pair<'_>>)> {
        self.fits.iter().filter(|(_, fit)| fit.run).map(|(node, _)| {
            let pods = self.by_node.get(node).map(Vec::as_slice).unwrap_or_default();
            let alive = pods.iter().copied().filter(|p| !deleting(&p.metadata));
            let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
                alive.partition(|p| label(&p.metadata, REVISION_HASH) == Some(self.observed.hash));
            let pair = Pair { old: old.first().copied(), new: new.first().copied() };
            (*node, (old.len() <= 1 && new.len() <= 1).then_some(pair))
        })
    }

    /// Old pods go before new ones come, so many at a time that not too few are available. Those that are not
    /// available anyway go at once.
    fn in_place(&self, max_unavailable: i32, plan: &mut Plan) {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        let mut broken = Vec::new();
        for (_, pair) in self.pairs() {
            match pair {
                None | Some(Pair { old: None, new: None } | Pair { old: Some(_), new: Some(_) }) => {
                    unavailable += 1
                }
                Some(Pair { old: None, new: Some(new) }) => unavailable += i32::from(!self.available(new)),
                Some(Pair { old: Some(old), new: None }) if self.available(old) => {
                    candidates.push(old.clone())
                }
                Some(Pair { old: Some(old), new: None }) => {
                    unavailable += 1;
                    broken.push(old.clone());
                }
            }
        }
        let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
        let doomed = broken.into_iter().chain(candidates.into_iter().take(room));
        let chosen: Vec<_> =
            doomed.filter(|p| !plan.delete.iter().any(|d| d.metadata.uid == p.metadata.uid)).collect();
        plan.delete.extend(chosen);
    }

    /// New pods come beside the old ones, which go when the new are available.
    fn with_surge(&self, max_surge: i32, plan: &mut Plan) {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for (node, pair) in self.pairs() {
            match pair {
                Some(Pair { old: Some(old), new: Some(new) }) => {
                    if self.available(new) {
                        plan.delete.push(old.clone());
                    }
                    surging += 1;
                }
                Some(Pair { old: Some(old), new: None }) if self.available(old) => {
                    candidates.push(node.to_owned())
                }
                // A broken old pod makes room for a new one without costing anything.
                Some(Pair { old: Some(_), new: None }) => plan.create.push(node.to_owned()),
                _ => {}
            }
        }
        let room = usize::try_from(max_surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
    }
}

struct Pair<'p> {
    old: Option<&'p Arc<Pod>>,
    new: Option<&'p Arc<Pod>>,
}
