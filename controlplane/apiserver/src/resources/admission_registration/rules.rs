//! The rules that webhooks and policies share: which requests they are for, and on which conditions.
//!
//! Must not know: what is done with such a request. Whether an expression is one is not looked at here.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::expressions::{Expressions, Wanted};
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, one_of, optional_one_of, required, shown};

/// Conditions of one webhook or policy, at most (KEP-3716).
const MOST_CONDITIONS: i64 = 64;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// Which requests: operations, and groups, versions and resources.
pub(super) fn rule(errors: &mut Errors, path: &Path, rule: &Value, allows_subresources: bool) {
    let of = path.child("operations");
    list(errors, &of, rule.at("operations"), "operations", false);
    for (i, operation) in rule.texts("operations").enumerate() {
        one_of(errors, &of.index(i), operation, &OPERATIONS);
    }
    // The core group has no name.
    list(errors, &path.child("apiGroups"), rule.at("apiGroups"), "API groups", false);
    list(errors, &path.child("apiVersions"), rule.at("apiVersions"), "API versions", true);
    let of = path.child("resources");
    if rule.items("resources").is_empty() {
        errors.push(FieldError::required(&of, ""));
    } else if allows_subresources {
        resources(errors, &of, rule.at("resources"));
    } else {
        plain_resources(errors, &of, rule.at("resources"));
    }
    optional_one_of(errors, &path.child("scope"), rule.some_text("scope"), &SCOPES);
}

/// A list that is not empty, in which `*` stands alone.
fn list(errors: &mut Errors, path: &Path, list: &Value, what: &str, are_named: bool) {
    let items: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if items.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if items.len() > 1 && items.contains(&"*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, list.clone(), detail));
    }
    for (i, item) in items.iter().enumerate() {
        if are_named && item.is_empty() {
            errors.push(FieldError::required(path.index(i), ""));
        }
    }
}

/// Resources with or without a subresource, none of which another one says already.
fn resources(errors: &mut Errors, path: &Path, list: &Value) {
    let items: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // Subresources of everything, and resources with everything of theirs, that came so far.
    let (mut subresources, mut whole) = (Vec::new(), Vec::new());
    for (i, item) in items.iter().enumerate() {
        let of = path.index(i);
        match *item {
            "" => errors.push(FieldError::required(of, "")),
            "*/*" if items.len() > 1 => {
                let detail = "if '*/*' is present, must not specify other resources";
                errors.push(FieldError::invalid(of, list.clone(), detail));
            }
            "*" if items.iter().any(|other| !other.contains('/') && *other != "*") => {
                let detail = "if '*' is present, must not specify other resources without subresources";
                errors.push(FieldError::invalid(of, list.clone(), detail));
            }
            item => {
                let Some((resource, subresource)) = item.split_once('/') else { continue };
                for (seen, name) in [(&mut whole, resource), (&mut subresources, subresource)] {
                    let is_other = seen.contains(&name) && name != "*";
                    if is_other {
                        let all = if name == resource { format!("{name}/*") } else { format!("*/{name}") };
                        let detail = format!("if '{all}' is present, must not specify {item}");
                        errors.push(FieldError::invalid(of.clone(), item, detail));
                    }
                }
                match (resource, subresource) {
                    ("*", _) => subresources.push(subresource),
                    (_, "*") => whole.push(resource),
                    _ => {}
                }
            }
        }
    }
}

/// Resources without subresources.
fn plain_resources(errors: &mut Errors, path: &Path, list: &Value) {
    let items: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (i, item) in items.iter().enumerate() {
        if item.is_empty() {
            errors.push(FieldError::required(path.index(i), ""));
        } else if item.contains('/') {
            let detail = "must not specify subresources";
            errors.push(FieldError::invalid(path.index(i), list.clone(), detail));
        }
    }
    if items.len() > 1 && items.contains(&"*") {
        let detail = "if '*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, list.clone(), detail));
    }
}

/// Named conditions.
pub(super) fn conditions(errors: &mut Errors, path: &Path, conditions: &[Value], expressions: &Expressions) {
    if conditions.len() as i64 > MOST_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len() as i64, MOST_CONDITIONS));
    }
    let mut seen = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let of = path.index(i);
        let (place, text) = (of.child("expression"), condition.text("expression"));
        if required(errors, &place, text.trim()) {
            expressions.check(errors, &place, text, Wanted::Bool);
        }
        let name = condition.text("name");
        if required(errors, &of.child("name"), name) {
            names(errors, &of.child("name"), name, labels::qualified_name(name));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(of.child("name"), name));
            }
            seen.push(name);
        }
    }
}

/// Versions of the review objects that a webhook understands.
pub(super) fn review_versions(errors: &mut Errors, path: &Path, list: &Value) {
    const KNOWN: [&str; 2] = ["v1", "v1beta1"];
    let versions: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if versions.is_empty() {
        errors.push(FieldError::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.push(FieldError::invalid(path.index(i), *version, "duplicate version"));
            continue;
        }
        names(errors, &path.index(i), version, labels::dns1035_label(version));
    }
    if !versions.iter().any(|version| KNOWN.contains(version)) {
        errors.push(FieldError::invalid(path, shown(list), "must include at least one of v1, v1beta1"));
    }
}
