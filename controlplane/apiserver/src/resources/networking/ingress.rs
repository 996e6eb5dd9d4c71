//! The rules for Ingresses and IngressClasses.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, immutable, names, nothing, required};

/// The annotation that came before `ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const LONGEST_CONTROLLER: usize = 250;

/// What to tell of a new Ingress.
pub(super) fn warnings(ingress: &Value, old: Option<&Value>) -> Vec<String> {
    let annotated = labels::annotation(ingress, CLASS_ANNOTATION).is_some();
    if old.is_some() || !annotated || ingress.has("spec.ingressClassName") {
        return Vec::new();
    }
    let text = "is deprecated, please use 'spec.ingressClassName' instead";
    vec![format!("annotation \"{CLASS_ANNOTATION}\" {text}")]
}

/// What is wrong with an Ingress, a new one or a changed one.
pub(super) fn ingress(ingress: &Value, new: bool) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = ingress.at("spec");
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        let rules = if spec.has("rules") { spec.at("rules").clone().into() } else { nothing() };
        errors.push(FieldError::invalid(
            &path,
            rules,
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if spec.has("defaultBackend") {
        backend(&mut errors, &path.child("defaultBackend"), spec.at("defaultBackend"));
    }
    for (i, rule) in spec.items("rules").iter().enumerate() {
        self::rule(&mut errors, &path.child("rules").index(i), rule);
    }
    for (i, tls) in spec.items("tls").iter().enumerate() {
        let path = path.child("tls").index(i);
        for (j, name) in tls.texts("hosts").enumerate() {
            names(&mut errors, &path.child("hosts").index(j), name, host(name));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            names(&mut errors, &path.child("secretName"), secret, labels::dns_subdomain(secret));
        }
    }
    if let Some(class) = spec.some_text("ingressClassName") {
        names(&mut errors, &path.child("ingressClassName"), class, labels::dns_subdomain(class));
        let other = labels::annotation(ingress, CLASS_ANNOTATION).filter(|a| new && *a != class);
        if let Some(annotation) = other {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let text = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(path, annotation, text));
        }
    }
    errors
}

fn host(name: &str) -> Vec<String> {
    if name.contains('*') { labels::wildcard_dns_subdomain(name) } else { labels::dns_subdomain(name) }
}

fn rule(errors: &mut Errors, path: &Path, rule: &Value) {
    let name = rule.text("host");
    if !name.is_empty() {
        if labels::parse_ip(name).is_some() {
            let text = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(path.child("host"), name, text));
        }
        names(errors, &path.child("host"), name, host(name));
    }
    if !rule.has("http") {
        return;
    }
    let list = path.child("http.paths");
    if rule.items("http.paths").is_empty() {
        errors.push(FieldError::required(&list, ""));
    }
    for (i, entry) in rule.items("http.paths").iter().enumerate() {
        entry_path(errors, &list.index(i), entry);
    }
}

fn entry_path(errors: &mut Errors, path: &Path, entry: &Value) {
    let Some(kind) = entry.some_text("pathType") else {
        errors.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
        return;
    };
    let (text, place) = (entry.text("path"), path.child("path"));
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(FieldError::invalid(&place, text, "must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(bad) {
                    errors.push(FieldError::invalid(&place, text, format!("must not contain '{bad}'")));
                }
            }
            for bad in ["/..", "/."] {
                if text.ends_with(bad) {
                    errors.push(FieldError::invalid(&place, text, format!("cannot end with '{bad}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(FieldError::invalid(&place, text, "must be an absolute path"));
            }
        }
        _ => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(path.child("pathType"), kind, &known));
        }
    }
    backend(errors, &path.child("backend"), entry.at("backend"));
}

fn backend(errors: &mut Errors, path: &Path, backend: &Value) {
    let (resource, service) = (backend.at("resource"), backend.at("service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => {
            let text = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, "", text));
        }
        (true, true) => {
            errors.push(FieldError::invalid(path, "", "resource or service backend is required"));
        }
        (false, true) => {
            let path = path.child("resource");
            if let Some(group) = resource.some_text("apiGroup") {
                names(errors, &path.child("apiGroup"), group, labels::dns_subdomain(group));
            }
            for field in ["kind", "name"] {
                let text = resource.text(field);
                if required(errors, &path.child(field), text) {
                    names(errors, &path.child(field), text, labels::path_segment_name(text, false));
                }
            }
        }
        (true, false) => service_backend(errors, path, service),
    }
}

fn service_backend(errors: &mut Errors, path: &Path, service: &Value) {
    let name = service.text("name");
    let of = path.child("service");
    if required(errors, &of.child("name"), name) {
        names(errors, &of.child("name"), name, labels::dns_label(name));
    }
    let (port, number) = (service.text("port.name"), service.int("port.number"));
    match (port.is_empty(), number == 0) {
        (false, false) => {
            errors.push(FieldError::invalid(path, "", "cannot set both port name & port number"));
        }
        (false, true) => names(errors, &of.child("port.name"), port, labels::port_name(port)),
        (true, false) => {
            for complaint in labels::port_number(number) {
                errors.push(FieldError::invalid(of.child("port.number"), number, complaint));
            }
        }
        (true, true) => errors.push(FieldError::required(path, "port name or number is required")),
    }
}

/// What is wrong with an IngressClass.
pub(super) fn class(class: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let controller = class.text("spec.controller");
    let of = path.child("controller");
    if controller.len() > LONGEST_CONTROLLER {
        errors.push(FieldError::too_long(&of, LONGEST_CONTROLLER as i64));
    }
    if required(&mut errors, &of, controller) {
        match labels::domain_prefixed_path(controller) {
            Ok((domain, _)) => names(&mut errors, &of, domain, labels::dns_subdomain(domain)),
            Err(complaint) => errors.push(FieldError::invalid(&of, controller, complaint)),
        }
    }
    let parameters = class.at("spec.parameters");
    if !parameters.is_null() {
        self::parameters(&mut errors, &path.child("parameters"), parameters);
    }
    errors
}

fn parameters(errors: &mut Errors, path: &Path, parameters: &Value) {
    if let Some(group) = parameters.some_text("apiGroup") {
        names(errors, &path.child("apiGroup"), group, labels::dns_subdomain(group));
    }
    for field in ["kind", "name"] {
        let text = parameters.text(field);
        if required(errors, &path.child(field), text) {
            names(errors, &path.child(field), text, labels::path_segment_name(text, false));
        }
    }
    let namespace = parameters.some_text("namespace");
    let of = path.child("namespace");
    match (parameters.some_text("scope"), namespace) {
        (None, _) => errors.push(FieldError::required(path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(of, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(name)) => names(errors, &of, name, labels::dns_label(name)),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(of, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(scope), _) => {
            errors.push(FieldError::not_supported(path.child("scope"), scope, &["Cluster", "Namespace"]));
        }
    }
}

/// What may not change in an IngressClass.
pub(super) fn change_class(class: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec.controller");
    immutable(&mut errors, &path, class.at("spec.controller"), old.at("spec.controller"));
    errors
}
