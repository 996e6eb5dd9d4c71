//! What may change in a Pod: images, a shorter deadline, more tolerations; and where it may go, while a gate holds it.

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

use crate::resources::fields::{Fields, same, set};
use crate::resources::internal::{self, NODE_SELECTOR_TERM, pod::SPEC};
use crate::resources::line_diff;
use crate::resources::rules::{Errors, in_range, required};

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// What is wrong with the change from `old` to `pod`.
pub(super) fn change(errors: &mut Errors, pod: &Value, old: &Value) {
    let path = Path::new("spec");
    let (new, old) = (pod.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        if new.items(list).len() != old.items(list).len() {
            let text = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(path.child(list), text));
            return;
        }
        for (i, container) in new.items(list).iter().enumerate() {
            required(errors, &path.child(list).index(i).child("image"), container.text("image"));
        }
    }
    deadline(errors, &path.child("activeDeadlineSeconds"), new, old);
    tolerations(errors, &path.child("tolerations"), new, old);
    gates(errors, &path.child("schedulingGates"), new, old);
    let allowed = with_allowed_changes_undone(errors, &path, new, old);
    if !same(&allowed, old) {
        let before = internal::indented(old, SPEC);
        let after = internal::indented(&allowed, SPEC);
        let text = format!("{UPDATABLE}\n{}", line_diff::unified(&before, &after));
        errors.push(FieldError::forbidden(&path, text));
    }
}

/// Ephemeral containers are only ever added.
pub(super) fn ephemeral_containers(errors: &mut Errors, pod: &Value, old: &Value) {
    let path = Path::new("spec.ephemeralContainers");
    let now = pod.items("spec.ephemeralContainers");
    for before in old.items("spec.ephemeralContainers") {
        let name = before.text("name");
        let text = match now.iter().find(|c| c.text("name") == name) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(container) if !same(container, before) => {
                format!("existing ephemeral containers {name:?} may not be changed\n")
            }
            Some(_) => continue,
        };
        errors.push(FieldError::forbidden(&path, text));
    }
}

fn deadline(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let field = "activeDeadlineSeconds";
    match (new.some_int(field), old.some_int(field)) {
        (Some(now), before) => {
            in_range(errors, path, now, 0, i64::from(i32::MAX));
            if before.is_some_and(|before| now > before) {
                errors.push(FieldError::invalid(path, now, "must be less than or equal to previous value"));
            }
        }
        (None, Some(_)) => {
            let text = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, text));
        }
        (None, None) => {}
    }
}

fn without_seconds(toleration: &Value) -> Value {
    let mut out = toleration.clone();
    set(&mut out, "tolerationSeconds", None);
    out
}

/// Tolerations may be added; of those that are there only the time may change.
fn tolerations(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let now: Vec<Value> = new.items("tolerations").iter().map(without_seconds).collect();
    let kept = old.items("tolerations").iter().all(|t| now.iter().any(|n| same(n, &without_seconds(t))));
    if !kept {
        let text = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, text));
    }
}

fn gates(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    for (i, gate) in new.items("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !old.items("schedulingGates").iter().any(|g| g.text("name") == name) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(path.index(i).child("name"), text));
        }
    }
}

/// The new specification with everything that may change as it was before.
fn with_allowed_changes_undone(errors: &mut Errors, path: &Path, new: &Value, old: &Value) -> Value {
    let mut out = new.clone();
    for list in ["containers", "initContainers"] {
        for (i, container) in old.items(list).iter().enumerate() {
            out[list][i]["image"] = container.at("image").clone();
        }
    }
    let mut undo = |field: &str| {
        let value = old.at(field);
        set(&mut out, field, (!value.is_null()).then(|| value.clone()));
    };
    undo("activeDeadlineSeconds");
    undo("tolerations");
    undo("schedulingGates");
    let grace = |spec: &Value| spec.some_int("terminationGracePeriodSeconds");
    if grace(old).is_some_and(|before| before < 0) && grace(new) == Some(1) {
        undo("terminationGracePeriodSeconds");
    }
    if !old.items("schedulingGates").is_empty() {
        if !same(new.at("nodeSelector"), old.at("nodeSelector")) {
            node_selector(errors, &path.child("nodeSelector"), new, old);
            undo("nodeSelector");
        }
        if !same(new.at("affinity.nodeAffinity"), old.at("affinity.nodeAffinity")) {
            node_affinity(errors, &path.child("affinity.nodeAffinity"), new, old);
            undo_node_affinity(&mut out, old);
        }
    }
    out
}

fn undo_node_affinity(spec: &mut Value, old: &Value) {
    let before = old.at("affinity.nodeAffinity");
    if !spec.has("affinity") {
        spec["affinity"] = Value::Object(serde_json::Map::new());
    }
    set(&mut spec["affinity"], "nodeAffinity", (!before.is_null()).then(|| before.clone()));
    if !old.has("affinity") && crate::resources::fields::is_zero(spec.at("affinity")) {
        set(spec, "affinity", None);
    }
}

fn node_selector(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let kept = old.entries("nodeSelector").all(|(k, v)| new.at("nodeSelector").get(k) == Some(v));
    if !kept {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(path, new.at("nodeSelector").clone(), text));
    }
}

fn node_affinity(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let terms =
        |spec: &Value| spec.at("affinity.nodeAffinity").at(REQUIRED).items("nodeSelectorTerms").to_vec();
    let (new, old) = (terms(new), terms(old));
    if old.is_empty() {
        return;
    }
    let path = path.child(REQUIRED).child("nodeSelectorTerms");
    if new.len() != old.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&path, Value::from(new), text));
        return;
    }
    for (i, (now, before)) in new.iter().zip(&old).enumerate() {
        let kept = |part: &str| {
            before.items(part).iter().all(|requirement| now.items(part).iter().any(|r| same(r, requirement)))
        };
        if !kept("matchExpressions") || !kept("matchFields") {
            let text = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(path.index(i), internal::shown(now, NODE_SELECTOR_TERM), text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, new: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        change(&mut errors, &json!({"spec": new}), &json!({"spec": old}));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn what_may_change() {
        let spec = |extra: Value| {
            let mut out = json!({"containers": [{"name": "c", "image": "a"}], "restartPolicy": "Always"});
            for (key, value) in extra.as_object().into_iter().flatten() {
                out[key] = value.clone();
            }
            out
        };
        check(spec(json!({})), spec(json!({"containers": [{"name": "c", "image": "b"}]})), &[]);
        check(spec(json!({})), spec(json!({"tolerations": [{"key": "k"}]})), &[]);
        check(
            spec(json!({"tolerations": [{"key": "k"}]})),
            spec(json!({})),
            &["spec.tolerations: Forbidden: existing toleration"],
        );
        check(
            spec(json!({"activeDeadlineSeconds": 5})),
            spec(json!({"activeDeadlineSeconds": 6})),
            &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal"],
        );
        check(spec(json!({})), spec(json!({"containers": []})), &["spec.containers: Forbidden"]);
        check(
            spec(json!({})),
            spec(json!({"restartPolicy": "Never"})),
            &["spec: Forbidden: pod updates may not change fields other than"],
        );
        let gated =
            |selector: Value| spec(json!({"schedulingGates": [{"name": "g"}], "nodeSelector": selector}));
        check(gated(json!({"a": "b"})), gated(json!({"a": "b", "c": "d"})), &[]);
        check(
            gated(json!({"a": "b"})),
            gated(json!({"a": "c"})),
            &["spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions"],
        );
    }
}
