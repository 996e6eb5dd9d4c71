//! The rules for probes and lifecycle hooks.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, non_negative, one_of, port_or_name, required};

/// All probes and hooks of a container.
pub(super) fn all(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    for hook in ["postStart", "preStop"] {
        let handler = container.at("lifecycle").at(hook);
        if !handler.is_null() {
            self::handler(errors, &path.child("lifecycle").child(hook), handler, spec);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if !probe.is_null() {
            self::probe(errors, &path.child(name), probe, name, spec);
        }
    }
}

fn probe(errors: &mut Errors, path: &Path, probe: &Value, name: &str, spec: &Value) {
    handler(errors, path, probe, spec);
    let numbers =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    for field in numbers {
        non_negative(errors, &path.child(field), probe.int(field));
    }
    if let Some(seconds) = probe.some_int("terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if seconds <= 0 {
            errors.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
        }
        if name == "readinessProbe" {
            errors.push(FieldError::invalid(&path, seconds, "must not be set for readinessProbes"));
        }
    }
    let successes = probe.int("successThreshold");
    if name != "readinessProbe" && successes != 1 {
        errors.push(FieldError::invalid(path.child("successThreshold"), successes, "must be 1"));
    }
}

/// What is done: exactly one of the ways.
fn handler(errors: &mut Errors, path: &Path, handler: &Value, spec: &Value) {
    let mut first = true;
    for way in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = handler.at(way);
        if action.is_null() {
            continue;
        }
        let path = path.child(way);
        if !std::mem::take(&mut first) {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        match way {
            "exec" if action.items("command").is_empty() => {
                errors.push(FieldError::required(path.child("command"), ""));
            }
            "httpGet" => http_get(errors, &path, action),
            "tcpSocket" => port_or_name(errors, &path.child("port"), action.at("port")),
            "grpc" => port_or_name(errors, &path.child("port"), action.at("port")),
            "sleep" => sleep(errors, &path, action, spec),
            _ => {}
        }
    }
    if first {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, path: &Path, get: &Value) {
    required(errors, &path.child("path"), get.text("path"));
    port_or_name(errors, &path.child("port"), get.at("port"));
    one_of(errors, &path.child("scheme"), get.text("scheme"), &["HTTP", "HTTPS"]);
    for header in get.items("httpHeaders") {
        let name = header.text("name");
        names(errors, &path.child("httpHeaders"), name, labels::http_header_name(name));
    }
}

fn sleep(errors: &mut Errors, path: &Path, sleep: &Value, spec: &Value) {
    let (seconds, grace) = (sleep.int("seconds"), spec.some_int("terminationGracePeriodSeconds"));
    let grace = grace.unwrap_or(30);
    if seconds < 0 || seconds > grace {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(path, seconds, text));
    }
}
