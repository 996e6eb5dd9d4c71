//! The rules for tolerations, gates and the spreading over topologies.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::internal::{TOLERATION, shown};
use crate::resources::rules::{Errors, label_name, label_selector, names, one_of, optional_one_of};

/// Tolerations, gates and spread constraints of a pod specification.
pub(super) fn check(errors: &mut Errors, path: &Path, spec: &Value) {
    tolerations(errors, &path.child("tolerations"), spec.items("tolerations"));
    for (i, gate) in spec.items("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        let path = path.child("readinessGates").index(i).child("conditionType");
        names(errors, &path, kind, labels::qualified_name(kind));
    }
    let mut taken = HashSet::new();
    for (i, gate) in spec.items("schedulingGates").iter().enumerate() {
        let (path, name) = (path.child("schedulingGates").index(i), gate.text("name"));
        names(errors, &path, name, labels::qualified_name(name));
        if !taken.insert(name) {
            errors.push(FieldError::duplicate(&path, name));
        }
    }
    let list = path.child("topologySpreadConstraints");
    let constraints = spec.items("topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let path = list.index(i);
        spread(errors, &path, constraint);
        let pair = |c: &Value| (c.text("topologyKey").to_owned(), c.text("whenUnsatisfiable").to_owned());
        let own = pair(constraint);
        if constraints[i + 1..].iter().any(|other| pair(other) == own) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(path, format!("{{{}, {}}}", own.0, own.1)));
        }
    }
}

/// A list of tolerations.
pub(crate) fn tolerations(errors: &mut Errors, path: &Path, tolerations: &[Value]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        self::toleration(errors, &path.index(i), toleration);
    }
}

fn toleration(errors: &mut Errors, path: &Path, toleration: &Value) {
    let (key, value) = (toleration.text("key"), toleration.text("value"));
    let (operator, effect) = (toleration.text("operator"), toleration.text("effect"));
    if !key.is_empty() {
        label_name(errors, &path.child("key"), key);
    } else if operator != "Exists" {
        let text =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(path.child("operator"), operator, text));
    }
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(path.child("effect"), effect, text));
    }
    let path_of = path.child("operator");
    match operator {
        "" | "Equal" => {
            let complaints = labels::label_value(value);
            if !complaints.is_empty() {
                errors.push(FieldError::invalid(path_of, value, complaints.join(";")));
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let text = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(path_of, shown(toleration, TOLERATION), text));
        }
        other => errors.push(FieldError::not_supported(path_of, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        taint_effect(errors, &path.child("effect"), effect);
    }
}

/// What a taint does.
pub(crate) fn taint_effect(errors: &mut Errors, path: &Path, effect: &str) {
    one_of(errors, path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

fn spread(errors: &mut Errors, path: &Path, constraint: &Value) {
    let more_than_none = |errors: &mut Errors, field: &str, number: i64| {
        if number <= 0 {
            errors.push(FieldError::invalid(path.child(field), number, "must be greater than zero"));
        }
    };
    more_than_none(errors, "maxSkew", constraint.int("maxSkew"));
    let key = constraint.text("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    let action = constraint.text("whenUnsatisfiable");
    one_of(errors, &path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
    if let Some(domains) = constraint.some_int("minDomains") {
        more_than_none(errors, "minDomains", domains);
        if action != "DoNotSchedule" {
            let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.push(FieldError::invalid(path.child("minDomains"), domains, text));
        }
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        optional_one_of(errors, &path.child(field), constraint.some_text(field), &["Honor", "Ignore"]);
    }
    let selector = constraint.at("labelSelector");
    let keys = path.child("matchLabelKeys");
    if selector.is_null() && !constraint.items("matchLabelKeys").is_empty() {
        let text = "must not be specified when labelSelector is not set";
        errors.push(FieldError::forbidden(&keys, text));
    }
    for (i, key) in constraint.texts("matchLabelKeys").enumerate() {
        label_name(errors, &keys.index(i), key);
        let selects = selector.entries("matchLabels").any(|(k, _)| k == key)
            || selector.items("matchExpressions").iter().any(|e| e.text("key") == key);
        if selects {
            let text = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(keys.index(i), key, text));
        }
    }
    label_selector(errors, &path.child("labelSelector"), selector, false);
}
