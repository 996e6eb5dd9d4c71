//! Roles and their bindings. Names are path segments, not DNS names.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::fields::same;
use super::fields::{Fields, default_text, items_mut, object_at};
use super::internal;
use super::plain::Plain;
use super::rules::{Errors, label_selector, names, nothing, one_of, required};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of `roles`.
pub(crate) static ROLES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), cells::created_at(object)],
    name: labels::path_segment_name,
    validate: |object| {
        let mut errors = Errors::new();
        rules(&mut errors, object, true);
        errors
    },
    ..Plain::NEW
};

/// The strategy of `clusterroles`.
pub(crate) static CLUSTER_ROLES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), cells::created_at(object)],
    name: labels::path_segment_name,
    validate: validate_cluster_role,
    ..Plain::NEW
};

/// The strategy of `rolebindings`.
pub(crate) static ROLE_BINDINGS: Plain = Plain {
    default: default_binding,
    cells: binding_cells,
    name: labels::path_segment_name,
    validate: |object| validate_binding(object, true),
    change: change_binding,
    ..Plain::NEW
};

/// The strategy of `clusterrolebindings`.
pub(crate) static CLUSTER_ROLE_BINDINGS: Plain = Plain {
    default: default_binding,
    cells: binding_cells,
    name: labels::path_segment_name,
    validate: |object| validate_binding(object, false),
    change: change_binding,
    ..Plain::NEW
};

fn rules(errors: &mut Errors, role: &Value, namespaced: bool) {
    for (i, rule) in role.items("rules").iter().enumerate() {
        let path = Path::new("rules").index(i);
        let has = |field: &str| !rule.items(field).is_empty();
        if !has("verbs") {
            errors.push(FieldError::required(path.child("verbs"), ""));
        }
        if has("nonResourceURLs") {
            let path = path.child("nonResourceURLs");
            let urls = || rule.at("nonResourceURLs").clone();
            if namespaced {
                let text = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&path, urls(), text));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&path, urls(), text));
            }
            continue;
        }
        for (field, noun) in [("apiGroups", "api group"), ("resources", "resource")] {
            if !has(field) {
                let text = format!("resource rules must supply at least one {noun}");
                errors.push(FieldError::required(path.child(field), text));
            }
        }
    }
}

fn validate_cluster_role(role: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    rules(&mut errors, role, false);
    if role.has("aggregationRule") {
        let path = Path::new("aggregationRule.clusterRoleSelectors");
        let selectors = role.items("aggregationRule.clusterRoleSelectors");
        if selectors.is_empty() {
            let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(FieldError::required(&path, text));
        }
        for (i, selector) in selectors.iter().enumerate() {
            let path = path.index(i);
            label_selector(&mut errors, &path, selector, false);
            if pagurus_controlplane_api::selectors::LabelSelector::from_json(selector).is_err() {
                errors.push(FieldError::invalid(&path, nothing(), "invalid label selector."));
            }
        }
    }
    errors
}

fn validate_binding(binding: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("roleRef");
    let reference = binding.at("roleRef");
    one_of(&mut errors, &path.child("apiGroup"), reference.text("apiGroup"), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(&mut errors, &path.child("kind"), reference.text("kind"), kinds);
    let name = reference.text("name");
    if required(&mut errors, &path.child("name"), name) {
        names(&mut errors, &path.child("name"), name, labels::path_segment_name(name, false));
    }
    for (i, subject) in binding.items("subjects").iter().enumerate() {
        self::subject(&mut errors, &Path::new("subjects").index(i), subject, namespaced);
    }
    errors
}

fn subject(errors: &mut Errors, path: &Path, subject: &Value, namespaced: bool) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    required(errors, &path.child("name"), name);
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                names(errors, &path.child("name"), name, labels::dns_subdomain(name));
            }
            one_of(errors, &path.child("apiGroup"), group, &[""]);
            if !namespaced {
                required(errors, &path.child("namespace"), subject.text("namespace"));
            }
        }
        "User" | "Group" => one_of(errors, &path.child("apiGroup"), group, &[GROUP]),
        other => {
            let known = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(path.child("kind"), other, &known));
        }
    }
}

fn change_binding(binding: &Value, old: &Value) -> Vec<FieldError> {
    if same(binding.at("roleRef"), old.at("roleRef")) {
        return Vec::new();
    }
    let text = "cannot change roleRef";
    vec![FieldError::invalid("roleRef", internal::shown(binding.at("roleRef"), internal::ROLE_REF), text)]
}

fn default_binding(binding: &mut Value) {
    default_text(object_at(binding, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let names = |kind: &str| {
        let of_kind = binding.items("subjects").iter().filter(|s| s.text("kind") == kind);
        let names: Vec<String> = of_kind
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
                _ => s.text("name").to_owned(),
            })
            .collect();
        names.join(", ")
    };
    vec![
        cells::name(binding),
        format!("{}/{}", binding.text("roleRef.kind"), binding.text("roleRef.name")).into(),
        cells::age(binding, now),
        names("User").into(),
        names("Group").into(),
        names("ServiceAccount").into(),
    ]
}
