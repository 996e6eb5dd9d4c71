//! What a failed pod means by the Job's podFailurePolicy. Pure.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement as OnExitCodes, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;

use crate::runtime::object::{name, namespace};

/// What a failure does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// It counts as one more failure.
    Count,
    /// It counts as none; the pod is replaced.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The Job is given up, for this reason.
    FailJob(String),
}

/// The action of the first rule that matches.
pub(super) fn action(job: &Job, pod: &Pod) -> Action {
    let policy = job.spec.as_ref().and_then(|s| s.pod_failure_policy.as_ref());
    for (index, rule) in policy.iter().flat_map(|p| &p.rules).enumerate() {
        let Some(what) = what_matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{what} matching FailJob rule at index {index}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

/// What about the pod matches a rule, in words.
fn what_matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let place = || format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata));
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) = exit_that_matches(wanted, pod)?;
        return Some(format!("Container {container} for pod {} failed with exit code {code}", place()));
    }
    let has = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    for wanted in rule.on_pod_conditions.iter().flatten() {
        let status = wanted.status.as_deref().unwrap_or("True");
        if has.iter().any(|c| c.type_ == wanted.type_ && c.status == status) {
            return Some(format!("Pod {} has condition {}", place(), wanted.type_));
        }
    }
    None
}

fn exit_that_matches<'p>(wanted: &OnExitCodes, pod: &'p Pod) -> Option<(&'p str, i32)> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut exits = statuses.filter_map(|c| {
        let code = c.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some((c.name.as_str(), code))
    });
    exits.find(|(container, code)| {
        *code != 0
            && wanted.container_name.as_deref().is_none_or(|name| name == *container)
            && match wanted.operator.as_str() {
                "In" => wanted.values.contains(code),
                "NotIn" => !wanted.values.contains(code),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(rules: Value, codes: &[(&str, i32)], condition: &str, expected: Action) {
        let job: Job = serde_json::from_value(
            json!({"metadata": {}, "spec": {"template": {}, "podFailurePolicy": {"rules": rules}}}),
        )
        .unwrap();
        let statuses: Vec<Value> = (codes.iter())
            .map(|(name, code)| {
                json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                       "state": {"terminated": {"exitCode": code}}})
            })
            .collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "status": {"containerStatuses": statuses, "conditions": [{"type": condition, "status": "True"}]},
        }))
        .unwrap();
        assert_eq!(action(&job, &pod), expected, "{rules}");
    }

    #[test]
    fn rules_in_order() {
        let exit = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        let failed = |code: i32, index: usize| {
            Action::FailJob(format!(
                "Container c for pod ns/p failed with exit code {code} matching FailJob rule at index {index}"
            ))
        };
        check(json!([]), &[("c", 1)], "Ready", Action::Count);
        check(json!([exit("FailJob", "In", &[42])]), &[("c", 42)], "Ready", failed(42, 0));
        check(json!([exit("FailJob", "In", &[42])]), &[("c", 41)], "Ready", Action::Count);
        check(json!([exit("FailJob", "NotIn", &[42])]), &[("c", 41)], "Ready", failed(41, 0));
        check(json!([exit("FailJob", "NotIn", &[42])]), &[("c", 0)], "Ready", Action::Count);
        check(
            json!([disrupted, exit("FailJob", "In", &[137])]),
            &[("c", 137)],
            "DisruptionTarget",
            Action::Ignore,
        );
        check(json!([disrupted, exit("FailJob", "In", &[137])]), &[("c", 137)], "Ready", failed(137, 1));
        check(
            json!([exit("FailIndex", "In", &[1]), exit("FailJob", "In", &[1])]),
            &[("c", 1)],
            "",
            Action::FailIndex,
        );
        check(
            json!([exit("Count", "In", &[1]), exit("FailJob", "In", &[1])]),
            &[("c", 1)],
            "",
            Action::Count,
        );
        let only_main = json!([{"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [1]}}]);
        check(only_main, &[("c", 1), ("main", 2)], "", Action::Count);
        let condition =
            json!([{"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue", "status": "True"}]}]);
        let text = "Pod ns/p has condition ConfigIssue matching FailJob rule at index 0";
        check(condition.clone(), &[], "ConfigIssue", Action::FailJob(text.to_owned()));
        check(condition, &[], "Ready", Action::Count);
    }
}
