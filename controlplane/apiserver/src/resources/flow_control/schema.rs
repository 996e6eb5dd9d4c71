//! The rules for FlowSchemas.

use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use pagurus_controlplane_api::{go, labels};
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, required, shown};

const LAST: i64 = 10_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const URL_VERBS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];
/// What a subject may be: its kind, the member that describes it.
const SUBJECTS: [(&str, &str); 3] =
    [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// What is wrong with a FlowSchema.
pub(super) fn check(schema: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), schema.at("spec"));
    let precedence = spec.int("matchingPrecedence");
    let mut refuse = |text: String| {
        errors.push(FieldError::invalid(path.child("matchingPrecedence"), precedence, text));
    };
    if precedence <= 0 {
        refuse("must be a positive value".to_owned());
    }
    if precedence > LAST {
        refuse(format!("must not be greater than {LAST}"));
    }
    if precedence == 1 && schema.text("metadata.name") != "exempt" {
        refuse("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    let method = spec.at("distinguisherMethod");
    if !method.is_null() && !matches!(method.text("type"), "ByNamespace" | "ByUser") {
        let shown = BadValue::Text(format!("{{\"Type\":{}}}", go::json(&method.text("type").into())));
        let path = path.child("distinguisherMethod.type");
        errors.push(FieldError::not_supported(path, shown, &["ByNamespace", "ByUser"]));
    }
    let (level, of) =
        (spec.text("priorityLevelConfiguration.name"), path.child("priorityLevelConfiguration.name"));
    if level.is_empty() {
        errors.push(FieldError::required(&of, "must reference a priority level"));
    } else {
        names(&mut errors, &of, level, labels::dns_subdomain(level));
    }
    for (i, rule) in spec.items("rules").iter().enumerate() {
        self::rule(&mut errors, &path.child("rules").index(i), rule);
    }
    errors
}

fn rule(errors: &mut Errors, path: &Path, rule: &Value) {
    let subjects = rule.items("subjects");
    let of = path.child("subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(&of, "subjects must contain at least one value"));
    }
    for (i, subject) in subjects.iter().enumerate() {
        self::subject(errors, &of.index(i), subject);
    }
    let (resources, urls) = (rule.items("resourceRules"), rule.items("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        let text = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, text));
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(i), rule);
    }
    for (i, rule) in urls.iter().enumerate() {
        url_rule(errors, &path.child("nonResourceRules").index(i), rule);
    }
}

fn subject(errors: &mut Errors, path: &Path, subject: &Value) {
    let kind = subject.text("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(of, _)| *of == kind) else {
        errors.push(FieldError::not_supported(path.child("kind"), kind, &SUBJECTS.map(|(kind, _)| kind)));
        return;
    };
    for (of, member) in SUBJECTS {
        let path = path.child(member);
        match (subject.has(member), member == *own) {
            (true, false) => {
                let text = format!("{member} is forbidden when subject kind is not '{of}'");
                errors.push(FieldError::forbidden(path, text));
            }
            (false, true) => {
                let text = format!("{member} is required when subject kind is '{of}'");
                errors.push(FieldError::required(path, text));
            }
            _ => {}
        }
    }
    let (path, who) = (path.child(own), subject.at(own));
    if who.is_null() {
        return;
    }
    let name = who.text("name");
    if required(errors, &path.child("name"), name) && kind == "ServiceAccount" && name != "*" {
        names(errors, &path.child("name"), name, labels::dns_subdomain(name));
    }
    if kind == "ServiceAccount" {
        let (path, namespace) = (path.child("namespace"), who.text("namespace"));
        if namespace.is_empty() {
            errors.push(FieldError::required(path, "must specify namespace for service account"));
        } else {
            names(errors, &path, namespace, labels::dns_label(namespace));
        }
    }
}

/// A list that must not be empty, and in which `*` stands alone. Returns whether a `*` is in it.
fn wild(errors: &mut Errors, path: &Path, list: &Value, empty: &str, others: &str) -> bool {
    let list_of = list.as_array().map_or(&[][..], Vec::as_slice);
    let wild = list_of.iter().any(|v| v == "*");
    if list_of.is_empty() && !empty.is_empty() {
        errors.push(FieldError::required(path, empty));
    } else if wild && list_of.len() > 1 {
        let text = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, shown(list), text));
    }
    wild
}

fn verbs(errors: &mut Errors, path: &Path, rule: &Value, supported: &[&str]) {
    let path = path.child("verbs");
    let any = wild(errors, &path, rule.at("verbs"), "verbs must contain at least one value", "verbs");
    if !any && !rule.texts("verbs").all(|verb| supported.contains(&verb)) {
        errors.push(FieldError::not_supported(path, shown(rule.at("verbs")), supported));
    }
}

fn resource_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    verbs(errors, path, rule, &VERBS);
    let empty = "resource rules must supply at least one api group";
    wild(errors, &path.child("apiGroups"), rule.at("apiGroups"), empty, "api groups");
    let empty = "resource rules must supply at least one resource";
    wild(errors, &path.child("resources"), rule.at("resources"), empty, "resources");
    let path = path.child("namespaces");
    let empty = if rule.flag("clusterScope") {
        ""
    } else {
        "resource rules that are not cluster scoped must supply at least one namespace"
    };
    if !wild(errors, &path, rule.at("namespaces"), empty, "namespaces") {
        for (i, namespace) in rule.texts("namespaces").enumerate() {
            names(errors, &path.index(i), namespace, labels::dns_label(namespace));
        }
    }
}

fn url_rule(errors: &mut Errors, path: &Path, rule: &Value) {
    verbs(errors, path, rule, &URL_VERBS);
    let (path, urls) = (path.child("nonResourceURLs"), rule.at("nonResourceURLs"));
    let empty = "nonResourceURLs must contain at least one value";
    if wild(errors, &path, urls, empty, "non-resource URLs") {
        return;
    }
    for (i, url) in rule.texts("nonResourceURLs").enumerate() {
        let complaint = url_complaint(url);
        errors.extend(complaint.map(|text| FieldError::invalid(path.index(i), url, text)));
    }
}

/// What is wrong with the path of a request.
fn url_complaint(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("must not be empty");
    }
    if !url.starts_with('/') {
        return Some("must start with slash");
    }
    if url == "/" {
        return None;
    }
    let (last, others) = match url.rsplit_once('/') {
        Some((others, last)) => (last, others),
        None => (url, ""),
    };
    if url.contains(' ') {
        Some("must not contain white-space")
    } else if others.contains('*') || (last.contains('*') && last != "*") {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}
