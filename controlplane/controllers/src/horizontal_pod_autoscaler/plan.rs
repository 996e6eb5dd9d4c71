//! What an autoscaler does and says. Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricTarget,
};

use crate::runtime::object::time;
use crate::runtime::recorder::Note;

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";

/// How many pods the target is told to have, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) wanted: i32,
    pub(super) actual: i32,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) status: HorizontalPodAutoscalerStatus,
    pub(super) notes: Vec<Note>,
    /// The size that the target shall have.
    pub(super) resize: Option<i32>,
    why: &'static str,
    /// Whether metrics must be asked for.
    pub(super) wants_metrics: bool,
}

impl Plan {
    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) {
        let generation = self.status.observed_generation;
        let conditions = self.status.conditions.get_or_insert_default();
        let status = if holds { "True" } else { "False" };
        let held = conditions.iter().position(|c| c.type_ == kind);
        let since = held.filter(|i| conditions[*i].status == status);
        let since = since.and_then(|i| conditions[i].last_transition_time.clone());
        let new = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or_else(|| Some(time(now))),
            observed_generation: generation,
        };
        match held {
            Some(index) => conditions[index] = new,
            None => conditions.push(new),
        }
    }
}

/// Plans one pass, up to where metrics are needed.
pub(super) fn plan(
    autoscaler: &HorizontalPodAutoscaler,
    target: Result<Target, &str>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan { status: autoscaler.status.clone().unwrap_or_default(), ..Plan::default() };
    plan.status.observed_generation = autoscaler.metadata.generation;
    let target = match target {
        Ok(target) => target,
        Err(error) => {
            let text = format!("the HPA controller was unable to get the target's current scale: {error}");
            plan.notes.push(Note::warning("FailedGetScale", error));
            plan.set(ABLE, false, "FailedGetScale", &text, now);
            return plan;
        }
    };
    let text = "the HPA controller was able to get the target's current scale";
    plan.set(ABLE, true, "SucceededGetScale", text, now);
    // Zero is what the server shows by saying nothing.
    plan.status.current_replicas = Some(target.actual).filter(|n| *n != 0);
    let (least, most) = (autoscaler.spec.min_replicas.unwrap_or(1), autoscaler.spec.max_replicas);
    if target.wanted == 0 && least != 0 {
        let text = "scaling is disabled since the replica count of the target is zero";
        plan.set(ACTIVE, false, "ScalingDisabled", text, now);
        plan.status.desired_replicas = 0;
    } else if target.wanted > most {
        (plan.resize, plan.why) = (Some(most), "Current number of replicas above Spec.MaxReplicas");
    } else if target.wanted < least {
        (plan.resize, plan.why) = (Some(least), "Current number of replicas below Spec.MinReplicas");
    } else {
        plan.wants_metrics = true;
    }
    plan
}

/// Says what became of a new size.
pub(super) fn resized(size: i32, failure: Option<&str>, now: Timestamp, plan: &mut Plan) {
    if let Some(error) = failure {
        let text = format!("New size: {size}; reason: {}; error: {error}", plan.why);
        plan.notes.push(Note::warning("FailedRescale", text));
        let text = format!("the HPA controller was unable to update the target scale: {error}");
        plan.set(ABLE, false, "FailedUpdateScale", &text, now);
        return;
    }
    let text = format!("New size: {size}; reason: {}", plan.why);
    plan.notes.push(Note::normal("SuccessfulRescale", text));
    let text = format!("the HPA controller was able to update the target scale to {size}");
    plan.set(ABLE, true, "SucceededRescale", &text, now);
    plan.status.desired_replicas = size;
    plan.status.last_scale_time = Some(time(now));
}

/// A metric in the words of its messages.
struct Words {
    /// The reason when it cannot be had.
    reason: &'static str,
    /// What failed, for the condition and its event.
    what: String,
    /// What failed, for the event about all metrics.
    outer: String,
}

fn words(metric: &MetricSpec, answer: &str) -> Words {
    let by_resource = |name: &str, target: &MetricTarget| {
        let sort = if target.average_value.is_some() { "usage" } else { "utilization" };
        format!(
            "failed to get {name} {sort}: unable to get metrics for resource {name}: unable to fetch metrics from \
             resource metrics API: {answer} (get pods.metrics.k8s.io)"
        )
    };
    if let Some(resource) = &metric.resource {
        let outer = format!("failed to get {} resource metric value", resource.name);
        let what = by_resource(&resource.name, &resource.target);
        return Words { reason: "FailedGetResourceMetric", what, outer };
    }
    if let Some(resource) = &metric.container_resource {
        let outer = format!("failed to get {} container metric value", resource.name);
        let what = by_resource(&resource.name, &resource.target);
        return Words { reason: "FailedGetContainerResourceMetric", what, outer };
    }
    let custom = "no custom metrics API (custom.metrics.k8s.io) registered";
    let by_name = |name: &str| {
        format!("unable to get metric {name}: unable to fetch metrics from custom metrics API: {custom}")
    };
    if let Some(pods) = &metric.pods {
        let what = by_name(&pods.metric.name);
        return Words {
            reason: "FailedGetPodsMetric",
            what,
            outer: "failed to get pods metric value".to_owned(),
        };
    }
    if let Some(object) = &metric.object {
        let what = by_name(&object.metric.name);
        return Words {
            reason: "FailedGetObjectMetric",
            what,
            outer: "failed to get object metric value".to_owned(),
        };
    }
    let name = metric.external.as_ref().map_or("", |e| e.metric.name.as_str());
    let what = format!(
        "unable to get external metric {name}: unable to fetch metrics from external metrics API: {answer} (get \
         {name}.external.metrics.k8s.io)"
    );
    let outer = format!("failed to get {name} external metric value");
    Words { reason: "FailedGetExternalMetric", what, outer }
}

/// Where a metric is asked for.
pub(super) fn metrics_path(metric: &MetricSpec, namespace: &str) -> String {
    match metric.type_.as_str() {
        "Resource" | "ContainerResource" => {
            format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods")
        }
        "External" => "/apis/external.metrics.k8s.io/v1beta1".to_owned(),
        _ => "/apis/custom.metrics.k8s.io/v1beta2".to_owned(),
    }
}

/// Says that none of the metrics could be had, each for its reason.
pub(super) fn without_metrics(
    autoscaler: &HorizontalPodAutoscaler,
    answers: &[String],
    now: Timestamp,
    plan: &mut Plan,
) {
    let metrics = autoscaler.spec.metrics.as_deref().unwrap_or_default();
    let all: Vec<Words> = metrics.iter().zip(answers).map(|(m, answer)| words(m, answer)).collect();
    let Some(first) = all.first() else { return };
    let text = format!("the HPA was unable to compute the replica count: {}", first.what);
    plan.set(ACTIVE, false, first.reason, &text, now);
    plan.notes.extend(all.iter().map(|w| Note::warning(w.reason, w.what.clone())));
    let text = format!(
        "invalid metrics ({0} invalid out of {0}), first error is: {1}: {2}",
        all.len(),
        first.outer,
        first.what
    );
    plan.notes.push(Note::warning("FailedComputeMetricsReplicas", text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn autoscaler(metrics: Value) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "ns"},
            "spec": {"minReplicas": 2, "maxReplicas": 5, "metrics": metrics,
                     "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
        }))
        .unwrap()
    }

    fn said(plan: &Plan) -> Vec<String> {
        (plan.status.conditions.iter().flatten())
            .map(|c| format!("{} {} {}", c.type_, c.status, c.reason.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn between_minimum_and_maximum() {
        let now = Timestamp::from_second(0).unwrap();
        let sized = |wanted| Ok(Target { wanted, actual: 1 });
        for (target, resize, metrics, conditions) in [
            (sized(7), Some(5), false, vec!["AbleToScale True SucceededGetScale"]),
            (sized(1), Some(2), false, vec!["AbleToScale True SucceededGetScale"]),
            (sized(3), None, true, vec!["AbleToScale True SucceededGetScale"]),
            (
                sized(0),
                None,
                false,
                vec!["AbleToScale True SucceededGetScale", "ScalingActive False ScalingDisabled"],
            ),
            (Err("not found"), None, false, vec!["AbleToScale False FailedGetScale"]),
        ] {
            let plan = plan(&autoscaler(json!([])), target, now);
            assert_eq!((plan.resize, plan.wants_metrics), (resize, metrics), "{target:?}");
            assert_eq!(said(&plan), conditions);
        }
        let mut changed = plan(&autoscaler(json!([])), sized(7), now);
        resized(5, None, now, &mut changed);
        assert_eq!(said(&changed), ["AbleToScale True SucceededRescale"]);
        let text = "New size: 5; reason: Current number of replicas above Spec.MaxReplicas";
        assert_eq!((changed.notes[0].message.as_str(), changed.status.desired_replicas), (text, 5));
    }

    #[test]
    fn without_a_metrics_server() {
        let now = Timestamp::from_second(0).unwrap();
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        let autoscaler = autoscaler(cpu);
        let mut plan = plan(&autoscaler, Ok(Target { wanted: 3, actual: 3 }), now);
        let answers = ["the server could not find the requested resource".to_owned()];
        without_metrics(&autoscaler, &answers, now, &mut plan);
        assert_eq!(
            said(&plan),
            ["AbleToScale True SucceededGetScale", "ScalingActive False FailedGetResourceMetric"]
        );
        let what = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics \
                    from resource metrics API: the server could not find the requested resource (get \
                    pods.metrics.k8s.io)";
        let conditions = plan.status.conditions.clone().unwrap();
        assert_eq!(
            conditions[1].message.as_deref(),
            Some(format!("the HPA was unable to compute the replica count: {what}").as_str())
        );
        let notes: Vec<_> = plan.notes.iter().map(|n| (n.reason, n.message.clone())).collect();
        let outer = format!(
            "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {what}"
        );
        assert_eq!(
            notes,
            [("FailedGetResourceMetric", what.to_owned()), ("FailedComputeMetricsReplicas", outer)]
        );
        // The second time nothing changes.
        let again = HorizontalPodAutoscaler { status: Some(plan.status.clone()), ..autoscaler.clone() };
        let later = Timestamp::from_second(15).unwrap();
        let mut second = super::plan(&again, Ok(Target { wanted: 3, actual: 3 }), later);
        without_metrics(&again, &answers, later, &mut second);
        assert_eq!(second.status, plan.status);
    }
}
