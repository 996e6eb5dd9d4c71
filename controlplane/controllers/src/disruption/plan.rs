//! The arithmetic of a budget. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::runtime::object::{
    Matcher, active, after_seconds, controller_of, deleting, name, ready, scaled, time,
};

const ALLOWED: &str = "DisruptionAllowed";
/// An eviction that was allowed must be seen within this time, else it did not happen.
const EVICTION_SECONDS: i64 = 120;

/// The status, and what to do beside writing it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) status: PodDisruptionBudgetStatus,
    pub(super) error: Option<String>,
    pub(super) again: Option<Duration>,
}

/// Which pods a budget is about: none if it has no selector.
pub(super) fn selector(budget: &PodDisruptionBudget) -> Option<Matcher> {
    Matcher::new(budget.spec.as_ref()?.selector.as_ref()?)
}

/// Whether two states of a pod count the same.
pub(super) fn alike(one: &Pod, other: &Pod) -> bool {
    one.metadata.labels == other.metadata.labels
        && ready(one) == ready(other)
        && active(one) == active(other)
        && one.metadata.owner_references == other.metadata.owner_references
}

/// Empty maps as the server shows them: absent.
pub(super) fn tidy(mut status: PodDisruptionBudgetStatus) -> PodDisruptionBudgetStatus {
    status.disrupted_pods = status.disrupted_pods.filter(|p| !p.is_empty());
    status
}

/// Counts. `scale_of` says what stands behind a pod and how many pods that wants.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale_of: &dyn Fn(&Pod) -> Option<(String, i32)>,
    now: Timestamp,
) -> Plan {
    let before = budget.status.clone().unwrap_or_default();
    let (disrupted, again) = disrupted(&before, pods, now);
    let alive: Vec<&Arc<Pod>> = pods.iter().filter(|p| active(p)).collect();
    let healthy = alive.iter().filter(|p| ready(p) && !disrupted.contains_key(name(&p.metadata))).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    let (expected, desired, error) = match wanted(budget, &alive, scale_of) {
        Ok((expected, desired)) => (expected, desired, None),
        // What cannot be counted allows nothing.
        Err(error) => (before.expected_pods.unwrap_or(0), before.desired_healthy.unwrap_or(0), Some(error)),
    };
    let allowed = if expected > 0 && error.is_none() { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        conditions: before.conditions,
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    let (state, reason) = match (&error, allowed > 0) {
        (Some(_), _) => ("False", "SyncFailed"),
        (None, true) => ("True", "SufficientPods"),
        (None, false) => ("False", "InsufficientPods"),
    };
    let generation = budget.metadata.generation;
    set(&mut status, state, reason, error.clone().unwrap_or_default(), generation, now);
    Plan { status: tidy(status), error, again }
}

/// Evictions that were allowed and whose pods are still there, and when to look whether they went.
fn disrupted(
    before: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut again: Option<Duration> = None;
    for (pod_name, since) in before.disrupted_pods.iter().flatten() {
        let there = pods.iter().any(|p| name(&p.metadata) == pod_name && !deleting(&p.metadata));
        let due = after_seconds(since.0, EVICTION_SECONDS);
        if there && due > now {
            kept.insert(pod_name.clone(), since.clone());
            let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            again = Some(again.map_or(wait, |a| a.min(wait)));
        }
    }
    (kept, again)
}

/// How many pods there should be, and how many of them healthy.
fn wanted(
    budget: &PodDisruptionBudget,
    pods: &[&Arc<Pod>],
    scale_of: &dyn Fn(&Pod) -> Option<(String, i32)>,
) -> Result<(i32, i32), String> {
    let spec = budget.spec.as_ref();
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let by_scale = || -> Result<i32, String> {
        let mut scales = BTreeMap::new();
        // Nobody wants a number of pods that nobody controls.
        for pod in pods.iter().filter(|pod| controller_of(&pod.metadata).is_some()) {
            let (uid, replicas) = scale_of(pod)
                .ok_or_else(|| format!("found no controllers for pod {:?}", name(&pod.metadata)))?;
            scales.insert(uid, replicas);
        }
        Ok(scales.values().sum())
    };
    let share = |value: &IntOrString, total: i32| {
        scaled(value, total, true).ok_or_else(|| format!("invalid value {value:?}"))
    };
    if let Some(max) = spec.and_then(|s| s.max_unavailable.as_ref()) {
        let expected = by_scale()?;
        return Ok((expected, (expected - share(max, expected)?).max(0)));
    }
    match spec.and_then(|s| s.min_available.as_ref()) {
        Some(IntOrString::Int(min)) => Ok((count, *min)),
        Some(percent) => {
            let expected = by_scale()?;
            Ok((expected, share(percent, expected)?))
        }
        None => Ok((count, 0)),
    }
}

fn set(
    status: &mut PodDisruptionBudgetStatus,
    state: &str,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let held = conditions.iter().position(|c| c.type_ == ALLOWED);
    let since = held
        .filter(|i| conditions[*i].status == state)
        .map_or_else(|| time(now), |i| conditions[i].last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match held {
        Some(index) => conditions[index] = new,
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "ownerReferences": [
                    {"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
            }))
            .unwrap(),
        )
    }

    fn check(spec: Value, ready: usize, unready: usize, expected: [i32; 4]) {
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": {"generation": 1}, "spec": spec})).unwrap();
        let pods: Vec<_> = (0..ready + unready).map(|i| pod(&format!("p{i}"), i < ready)).collect();
        let scale = |_: &Pod| Some(("d".to_owned(), 10));
        let s = plan(&budget, &pods, &scale, Timestamp::UNIX_EPOCH).status;
        let counts = [s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed];
        assert_eq!(counts.map(Option::unwrap), expected, "{spec}");
    }

    #[test]
    fn allowances() {
        check(json!({"minAvailable": 2}), 3, 0, [3, 2, 3, 1]);
        check(json!({"minAvailable": 2}), 1, 2, [3, 2, 1, 0]);
        check(json!({"minAvailable": "50%"}), 8, 0, [10, 5, 8, 3]);
        check(json!({"maxUnavailable": 1}), 10, 0, [10, 9, 10, 1]);
        check(json!({"maxUnavailable": "25%"}), 9, 0, [10, 7, 9, 2]);
        check(json!({"maxUnavailable": 1}), 0, 0, [0, 0, 0, 0]);
    }

    #[test]
    fn evictions_under_way_count() {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {}, "spec": {"minAvailable": 1},
            "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
                       "disruptedPods": {"p0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"}},
        }))
        .unwrap();
        let pods = [pod("p0", true), pod("p1", true)];
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let early = plan(&budget, &pods, &|_| None, at(60));
        assert_eq!((early.status.current_healthy, early.status.disruptions_allowed), (Some(1), Some(0)));
        assert_eq!(early.status.disrupted_pods.unwrap().len(), 1);
        assert_eq!(early.again, Some(Duration::from_secs(60)));
        assert_eq!(plan(&budget, &pods, &|_| None, at(121)).status.disruptions_allowed, Some(1));
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": {}, "spec": {"maxUnavailable": 1}})).unwrap();
        let plan = plan(&budget, &[pod("p", true)], &|_| None, Timestamp::UNIX_EPOCH);
        assert_eq!(plan.status.disruptions_allowed, Some(0));
        assert_eq!(plan.error.as_deref(), Some("found no controllers for pod \"p\""));
    }

    #[test]
    fn pods_of_nobody_have_no_scale() {
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": {}, "spec": {"maxUnavailable": 1}})).unwrap();
        let mut bare = (*pod("bare", true)).clone();
        bare.metadata.owner_references = None;
        let pods = [pod("a", true), pod("b", true), Arc::new(bare)];
        let scale = |pod: &Pod| controller_of(&pod.metadata).map(|o| (o.uid.clone(), 2));
        let plan = plan(&budget, &pods, &scale, Timestamp::UNIX_EPOCH);
        assert_eq!((plan.status.expected_pods, plan.error), (Some(2), None));
        assert_eq!(plan.status.disruptions_allowed, Some(2));
    }
}
