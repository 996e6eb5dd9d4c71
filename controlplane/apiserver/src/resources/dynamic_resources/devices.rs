//! The rules for what claims and classes of devices share: requests, selectors, constraints and configuration.

use std::collections::BTreeSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::selector::expression;
use crate::resources::fields::Fields;
use crate::resources::rules::{
    Errors, label_name, names, nothing, one_of, positive, required, required_one_of, shown,
};

// Limits of the API (`resource.k8s.io/v1`).
const MOST_REQUESTS: i64 = 32;
const MOST_ALTERNATIVES: i64 = 8;
const MOST_SELECTORS: i64 = 32;
const MOST_CONSTRAINTS: i64 = 32;
const MOST_CONFIGURATIONS: i64 = 32;
const MOST_TOLERATIONS: i64 = 16;
const LONGEST_DRIVER: i64 = 63;
const LONGEST_POOL: i64 = 253;
const LONGEST_IDENTIFIER: usize = 32;

const MODES: [&str; 2] = ["All", "ExactCount"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// What is wrong with `spec.devices` of a claim.
pub(super) fn claim(errors: &mut Errors, path: &Path, devices: &Value) {
    let requests = devices.items("requests");
    at_most(errors, &path.child("requests"), requests.len(), MOST_REQUESTS);
    let mut known = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let of = path.child("requests").index(i);
        let name = request.text("name");
        if known.insert(name.to_owned()) {
            names(errors, &of.child("name"), name, labels::dns_label(name));
        } else {
            errors.push(FieldError::duplicate(&of, shown(request)));
        }
        self::request(errors, &of, request, &mut known);
    }
    let constraints = devices.items("constraints");
    at_most(errors, &path.child("constraints"), constraints.len(), MOST_CONSTRAINTS);
    for (i, constraint) in constraints.iter().enumerate() {
        let of = path.child("constraints").index(i);
        references(errors, &of.child("requests"), constraint, &known);
        self::constraint(errors, &of, constraint);
    }
    let configurations = devices.items("config");
    at_most(errors, &path.child("config"), configurations.len(), MOST_CONFIGURATIONS);
    for (i, configuration) in configurations.iter().enumerate() {
        let of = path.child("config").index(i);
        references(errors, &of.child("requests"), configuration, &known);
        self::configuration(errors, &of, configuration);
    }
}

/// One request, or alternatives of which the first that fits is taken; their names are added.
fn request(errors: &mut Errors, path: &Path, request: &Value, known: &mut BTreeSet<String>) {
    let alternatives = request.items("firstAvailable");
    match (request.has("exactly"), alternatives.is_empty()) {
        (true, false) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, nothing(), detail));
        }
        (false, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(path, detail));
        }
        (true, true) => devices(errors, &path.child("exactly"), request.at("exactly"), false),
        (false, false) => {
            let path = path.child("firstAvailable");
            at_most(errors, &path, alternatives.len(), MOST_ALTERNATIVES);
            let mut seen = BTreeSet::new();
            for (i, alternative) in alternatives.iter().enumerate() {
                let (of, name) = (path.index(i), alternative.text("name"));
                if seen.insert(name) {
                    names(errors, &of.child("name"), name, labels::dns_label(name));
                } else {
                    errors.push(FieldError::duplicate(&of, shown(alternative)));
                }
                known.insert(format!("{}/{name}", request.text("name")));
                devices(errors, &of, alternative, true);
            }
        }
    }
}

/// What is asked for; the rules for an alternative are declared, whose complaints count bytes.
fn devices(errors: &mut Errors, path: &Path, request: &Value, alternative: bool) {
    let class = request.text("deviceClassName");
    if required(errors, &path.child("deviceClassName"), class) {
        let complaints = labels::dns_subdomain(class);
        let complaints = if alternative { labels::in_bytes(complaints) } else { complaints };
        names(errors, &path.child("deviceClassName"), class, complaints);
    }
    selectors(errors, &path.child("selectors"), request.items("selectors"));
    let count = request.int("count");
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(path.child("count"), count, detail));
        }
        "All" => {}
        "ExactCount" => positive(errors, &path.child("count"), count),
        mode => one_of(errors, &path.child("allocationMode"), mode, &MODES),
    }
    let tolerations = request.items("tolerations");
    at_most(errors, &path.child("tolerations"), tolerations.len(), MOST_TOLERATIONS);
    for (i, entry) in tolerations.iter().enumerate() {
        toleration(errors, &path.child("tolerations").index(i), entry);
    }
}

fn toleration(errors: &mut Errors, path: &Path, toleration: &Value) {
    let (key, value) = (toleration.text("key"), toleration.text("value"));
    if !key.is_empty() {
        label_name(errors, &path.child("key"), key);
    }
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            errors.push(FieldError::invalid(path.child("value"), value, detail));
        }
        "Exists" => {}
        "Equal" => {
            required(errors, &path.child("key"), key);
            names(errors, &path.child("value"), value, labels::label_value(value));
        }
        "" => errors.push(FieldError::required(path.child("operator"), "")),
        operator => one_of(errors, &path.child("operator"), operator, &OPERATORS),
    }
    let effect = toleration.text("effect");
    if !effect.is_empty() {
        one_of(errors, &path.child("effect"), effect, &EFFECTS);
    }
}

/// What keeps pods off a device.
pub(super) fn taint(errors: &mut Errors, path: &Path, taint: &Value) {
    label_name(errors, &path.child("key"), taint.text("key"));
    let value = taint.text("value");
    if !value.is_empty() {
        names(errors, &path.child("value"), value, labels::label_value(value));
    }
    required_one_of(errors, &path.child("effect"), taint.text("effect"), &EFFECTS);
}

/// The name of a pool: subdomains with slashes between them.
pub(super) fn pool(errors: &mut Errors, path: &Path, name: &str) {
    if required(errors, path, name) {
        if name.len() as i64 > LONGEST_POOL {
            errors.push(FieldError::too_long(path, LONGEST_POOL));
        }
        for part in name.split('/') {
            names(errors, path, name, labels::dns_subdomain(part));
        }
    }
}

/// Selectors of devices.
pub(super) fn selectors(errors: &mut Errors, path: &Path, selectors: &[Value]) {
    at_most(errors, path, selectors.len(), MOST_SELECTORS);
    for (i, selector) in selectors.iter().enumerate() {
        if !selector.has("cel") {
            errors.push(FieldError::required(path.index(i).child("cel"), ""));
        } else {
            let place = path.index(i).child("cel").child("expression");
            expression(errors, &place, selector.text("cel.expression"));
        }
    }
}

/// The names of requests, all of which must be known.
fn references(errors: &mut Errors, path: &Path, of: &Value, known: &BTreeSet<String>) {
    let requests: Vec<&str> = of.texts("requests").collect();
    at_most(errors, path, requests.len(), MOST_REQUESTS);
    for (i, name) in requests.iter().enumerate() {
        let place = path.index(i);
        if requests[..i].contains(name) {
            errors.push(FieldError::duplicate(&place, *name));
            continue;
        }
        for part in name.splitn(2, '/') {
            names(errors, &place, name, labels::dns_label(part));
        }
        if !known.contains(*name) {
            let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            errors.push(FieldError::invalid(place, *name, detail));
        }
    }
}

fn constraint(errors: &mut Errors, path: &Path, constraint: &Value) {
    let fields = ["matchAttribute", "distinctAttribute"];
    let given: Vec<&str> = fields.into_iter().filter(|field| constraint.has(field)).collect();
    match given[..] {
        [] => {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(FieldError::required(path, detail));
        }
        [field] => fully_qualified(errors, &path.child(field), constraint.text(field)),
        _ => {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, nothing(), detail));
        }
    }
}

/// A name with the domain of whoever gives it: `domain/name`.
fn fully_qualified(errors: &mut Errors, path: &Path, text: &str) {
    let Some((domain, name)) = text.split_once('/') else {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, text, detail));
        identifier(errors, path, text);
        return;
    };
    driver(errors, path, domain);
    if required(errors, path, name) {
        identifier(errors, path, name);
    }
}

/// The name of an attribute or capacity, which may have a domain.
pub(super) fn qualified(errors: &mut Errors, path: &Path, text: &str) {
    match text.split_once('/') {
        Some((domain, name)) => {
            driver(errors, path, domain);
            identifier(errors, path, name);
        }
        None => identifier(errors, path, text),
    }
}

fn identifier(errors: &mut Errors, path: &Path, text: &str) {
    if text.len() > LONGEST_IDENTIFIER {
        errors.push(FieldError::too_long(path, LONGEST_IDENTIFIER as i64));
    }
    names(errors, path, text, labels::c_identifier(text));
}

/// The name of a driver.
pub(super) fn driver(errors: &mut Errors, path: &Path, name: &str) {
    if required(errors, path, name) {
        if name.len() as i64 > LONGEST_DRIVER {
            errors.push(FieldError::too_long(path, LONGEST_DRIVER));
        }
        names(errors, path, name, labels::dns_subdomain(name));
    }
}

/// What a driver is told.
pub(super) fn configuration(errors: &mut Errors, path: &Path, configuration: &Value) {
    let (of, opaque) = (path.child("opaque"), configuration.at("opaque"));
    if opaque.is_null() {
        errors.push(FieldError::required(of, ""));
        return;
    }
    let (place, name) = (of.child("driver"), opaque.text("driver"));
    if required(errors, &place, name) {
        names(errors, &place, name, labels::dns_subdomain_caseless(name));
        if name.chars().count() as i64 > LONGEST_DRIVER {
            errors.push(FieldError::too_long_text(&place, LONGEST_DRIVER));
        }
    }
    let (place, parameters) = (of.child("parameters"), opaque.at("parameters"));
    if parameters.is_null() {
        errors.push(FieldError::required(place, ""));
    } else if !parameters.is_object() {
        errors.push(FieldError::invalid(place, "<value omitted>", "parameters must be a valid JSON object"));
    }
}

/// All of these configurations.
pub(super) fn configurations(errors: &mut Errors, path: &Path, configurations: &[Value]) {
    at_most(errors, path, configurations.len(), MOST_CONFIGURATIONS);
    for (i, entry) in configurations.iter().enumerate() {
        configuration(errors, &path.index(i), entry);
    }
}

/// A list has no more items than this.
pub(super) fn at_most(errors: &mut Errors, path: &Path, items: usize, most: i64) {
    if items as i64 > most {
        errors.push(FieldError::too_many(path, items as i64, most));
    }
}
