//! The rules for admission policies and what binds them. Expressions that make patches are not looked at: they need types of the
//! objects they change.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::expressions::{Expressions, Wanted};
use super::rules::{conditions, rule};
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, label_selector, names, one_of, optional_one_of, required};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const NOT_FOUND_ACTIONS: [&str; 2] = ["Deny", "Allow"];
const VALIDATION_ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
/// Why a request may be refused, in an answer.
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// Audit annotations of a policy, at most (KEP-3488).
const MOST_ANNOTATIONS: i64 = 20;
/// Bytes of the messages of a validation, at most.
const LONGEST_MESSAGE: usize = 5 << 10;

/// What is wrong with a policy that validates.
pub(super) fn validating(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), object.at("spec"));
    common(&mut errors, &path, spec);
    let expressions = variables(&mut errors, &path, spec);
    let (validations, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(path.child(field), detail));
        }
    }
    for (i, entry) in validations.iter().enumerate() {
        validation(&mut errors, &path.child("validations").index(i), entry, &expressions);
    }
    let of = path.child("auditAnnotations");
    if annotations.len() as i64 > MOST_ANNOTATIONS {
        errors.push(FieldError::too_many(&of, annotations.len() as i64, MOST_ANNOTATIONS));
    }
    for (i, entry) in annotations.iter().enumerate() {
        let of = of.index(i);
        let key = entry.text("key");
        if annotations[..i].iter().any(|other| other.text("key") == key) {
            errors.push(FieldError::duplicate(of.child("key"), key));
        }
        // The whole key of an annotation begins with the policy's name.
        let policy = object.text("metadata.name");
        if policy.is_empty() {
            let detail = "requires metadata.name be non-empty";
            errors.push(FieldError::invalid(of.child("key"), key, detail));
        } else {
            let whole = format!("{policy}/{key}");
            names(&mut errors, &of.child("key"), &whole, labels::qualified_name(&whole));
        }
        let place = of.child("valueExpression");
        if expression(&mut errors, &of, entry, "valueExpression") {
            expressions.check(&mut errors, &place, entry.text("valueExpression"), Wanted::StringOrNull);
        }
    }
    errors
}

/// What is wrong with a policy that changes objects.
pub(super) fn mutating(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), object.at("spec"));
    common(&mut errors, &path, spec);
    variables(&mut errors, &path, spec);
    let of = path.child("mutations");
    if spec.items("mutations").is_empty() {
        errors.push(FieldError::required(&of, "mutations must contain at least one item"));
    }
    for (i, mutation) in spec.items("mutations").iter().enumerate() {
        let of = of.index(i);
        let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
        let patch = mutation.text("patchType");
        let Some((_, field)) = kinds.iter().find(|(kind, _)| *kind == patch) else {
            one_of(&mut errors, &of.child("patchType"), patch, &kinds.map(|(kind, _)| kind));
            continue;
        };
        if mutation.has(field) {
            expression(&mut errors, &of.child(field), mutation.at(field), "expression");
        } else {
            let detail = format!("must be specified when patchType is {patch}");
            errors.push(FieldError::required(of.child(field), detail));
        }
    }
    errors
}

/// What policies of both sorts have.
fn common(errors: &mut Errors, path: &Path, spec: &Value) {
    let policy = spec.some_text("failurePolicy");
    optional_one_of(errors, &path.child("failurePolicy"), policy, &FAILURE_POLICIES);
    if spec.has("paramKind") {
        let (of, kind) = (path.child("paramKind"), spec.at("paramKind"));
        let version = kind.text("apiVersion");
        if required(errors, &of.child("apiVersion"), version) {
            group_version(errors, &of.child("apiVersion"), version);
        }
        let name = kind.text("kind");
        if required(errors, &of.child("kind"), name) {
            let complaints = labels::dns1035_label(&name.to_lowercase());
            if !complaints.is_empty() {
                let text = "may have mixed case, but should otherwise match: ";
                let text = format!("{text}{}", complaints.join(","));
                errors.push(FieldError::invalid(of.child("kind"), name, text));
            }
        }
    }
    let of = path.child("matchConstraints");
    if spec.has("matchConstraints") {
        resources(errors, &of, spec.at("matchConstraints"));
        if spec.items("matchConstraints.resourceRules").is_empty() {
            errors.push(FieldError::required(of.child("resourceRules"), ""));
        }
        // Here, other than with webhooks, there is always one.
        if !spec.has("matchConstraints.matchPolicy") {
            errors.push(FieldError::required(of.child("matchPolicy"), ""));
        }
    } else {
        errors.push(FieldError::required(of, ""));
    }
    let expressions = Expressions::of_policy(spec.has("paramKind"), false);
    conditions(errors, &path.child("matchConditions"), spec.items("matchConditions"), &expressions);
}

/// The group and the version of a kind of parameters; a part that is wrong is shown alone.
fn group_version(errors: &mut Errors, path: &Path, text: &str) {
    let (group, version) = match text.split('/').collect::<Vec<_>>()[..] {
        [version] => ("", version),
        [group, version] => (group, version),
        _ => {
            let detail = format!("unexpected GroupVersion string: {text}");
            errors.push(FieldError::invalid(path, text, detail));
            return;
        }
    };
    let complaints = if group.is_empty() { Vec::new() } else { labels::dns_subdomain(group) };
    if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, group, complaints.join(",")));
    }
    let complaints = labels::dns1035_label(version);
    if version.is_empty() {
        errors.push(FieldError::invalid(path, text, "version must be specified"));
    } else if !complaints.is_empty() {
        errors.push(FieldError::invalid(path, version, complaints.join(",")));
    }
}

/// Words of CEL that name nothing.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The variables of a policy; what its expressions may use then.
fn variables(errors: &mut Errors, path: &Path, spec: &Value) -> Expressions {
    let mut expressions = Expressions::of_policy(spec.has("paramKind"), !spec.items("variables").is_empty());
    for (i, variable) in spec.items("variables").iter().enumerate() {
        let of = path.child("variables").index(i);
        let name = variable.text("name");
        if name.trim().is_empty() {
            errors.push(FieldError::required(of.child("name"), "name is not specified"));
        } else if !labels::c_identifier(name).is_empty() || RESERVED.contains(&name) {
            errors.push(FieldError::invalid(of.child("name"), name, "name is not a valid CEL identifier"));
        }
        if expression(errors, &of, variable, "expression") {
            expressions.define(errors, &of.child("expression"), name, variable.text("expression"));
        }
    }
    expressions
}

fn validation(errors: &mut Errors, path: &Path, validation: &Value, expressions: &Expressions) {
    if expression(errors, path, validation, "expression") {
        expressions.check(errors, &path.child("expression"), validation.text("expression"), Wanted::Bool);
    }
    let (of, message) = (path.child("message"), validation.text("message"));
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "message must be non-empty if specified";
        errors.push(FieldError::invalid(of, message, detail));
    } else if message.contains('\n') {
        errors.push(FieldError::invalid(of, message, "message must not contain line breaks"));
    } else if message.len() > LONGEST_MESSAGE {
        errors.push(FieldError::too_long(of, LONGEST_MESSAGE as i64));
    }
    let (of, text) = (path.child("messageExpression"), validation.text("messageExpression"));
    if !text.is_empty() && text.trim().is_empty() {
        errors.push(FieldError::invalid(of, text, "must be non-empty if specified"));
    } else if !text.is_empty() {
        expressions.check(errors, &of, text, Wanted::String);
    }
    optional_one_of(errors, &path.child("reason"), validation.some_text("reason"), &REASONS);
}

/// Whether there is an expression at all; an error if not.
fn expression(errors: &mut Errors, path: &Path, of: &Value, field: &str) -> bool {
    let there = !of.text(field).trim().is_empty();
    if !there {
        errors.push(FieldError::required(path.child(field), format!("{field} is not specified")));
    }
    there
}

/// Which requests a policy or a binding is for.
fn resources(errors: &mut Errors, path: &Path, resources: &Value) {
    let policy = resources.some_text("matchPolicy");
    optional_one_of(errors, &path.child("matchPolicy"), policy, &MATCH_POLICIES);
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(errors, &path.child(selector), resources.at(selector), false);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, entry) in resources.items(list).iter().enumerate() {
            let of = path.child(list).index(i);
            rule(errors, &of, entry, true);
            for (j, name) in entry.texts("resourceNames").enumerate() {
                let place = of.child("resourceNames").index(j);
                names(errors, &place, name, labels::path_segment_name(name, false));
                if entry.texts("resourceNames").take(j).any(|other| other == name) {
                    errors.push(FieldError::duplicate(place, name));
                }
            }
        }
    }
}

/// What is wrong with a binding of a policy that validates.
pub(super) fn validating_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    binding(&mut errors, object);
    let (of, spec) = (Path::new("spec").child("validationActions"), object.at("spec"));
    let actions: Vec<&str> = spec.texts("validationActions").collect();
    if actions.is_empty() {
        errors.push(FieldError::required(&of, ""));
    }
    for (i, action) in actions.iter().enumerate() {
        one_of(&mut errors, &of.index(i), action, &VALIDATION_ACTIONS);
        if actions[..i].contains(action) {
            errors.push(FieldError::duplicate(of.index(i), *action));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(of, spec.at("validationActions").clone(), detail));
    }
    errors
}

/// What is wrong with a binding of a policy that changes objects.
pub(super) fn mutating_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    binding(&mut errors, object);
    errors
}

fn binding(errors: &mut Errors, object: &Value) {
    let (path, spec) = (Path::new("spec"), object.at("spec"));
    let policy = spec.text("policyName");
    if required(errors, &path.child("policyName"), policy) {
        names(errors, &path.child("policyName"), policy, labels::dns_subdomain(policy));
    }
    if spec.has("paramRef") {
        parameters(errors, &path.child("paramRef"), spec.at("paramRef"));
    }
    if spec.has("matchResources") {
        // The path lacks a letter, which clients see.
        resources(errors, &path.child("matchResouces"), spec.at("matchResources"));
    }
}

fn parameters(errors: &mut Errors, path: &Path, reference: &Value) {
    let name = reference.text("name");
    match (name.is_empty(), reference.has("selector")) {
        (true, false) => {
            errors.push(FieldError::required(path, "one of name or selector must be specified"));
        }
        (false, true) => {
            for field in ["name", "selector"] {
                let detail = "name and selector are mutually exclusive";
                errors.push(FieldError::forbidden(path.child(field), detail));
            }
        }
        _ => {}
    }
    if !name.is_empty() {
        names(errors, &path.child("name"), name, labels::path_segment_name(name, false));
    }
    label_selector(errors, &path.child("selector"), reference.at("selector"), false);
    let of = path.child("parameterNotFoundAction");
    match reference.some_text("parameterNotFoundAction") {
        None | Some("") => errors.push(FieldError::required(of, "")),
        Some(action) => one_of(errors, &of, action, &NOT_FOUND_ACTIONS),
    }
}
