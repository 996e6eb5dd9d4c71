//! The rules for ResourceSlices: what a driver says of the devices it has.

use std::collections::BTreeSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::devices::{self, at_most, driver, qualified};
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, nothing, required};

// Limits of the API (`resource.k8s.io/v1`).
const MOST_DEVICES: i64 = 128;
/// Attributes and capacities of a device together.
const MOST_ATTRIBUTES: i64 = 32;
const LONGEST_ATTRIBUTE: usize = 64;
const MOST_TAINTS: i64 = 16;

/// The sorts of values an attribute may have.
const VALUES: [&str; 8] = ["int", "bool", "string", "version", "ints", "bools", "strings", "versions"];

/// What is wrong with a slice.
pub(super) fn validate(slice: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let (path, spec) = (Path::new("spec"), slice.at("spec"));
    driver(&mut errors, &path.child("driver"), spec.text("driver"));
    pool(&mut errors, &path.child("pool"), spec.at("pool"));
    place(&mut errors, &path, spec);
    let devices = spec.items("devices");
    at_most(&mut errors, &path.child("devices"), devices.len(), MOST_DEVICES);
    let mut seen = BTreeSet::new();
    for (i, entry) in devices.iter().enumerate() {
        let of = path.child("devices").index(i);
        let name = entry.text("name");
        if required(&mut errors, &of.child("name"), name) {
            names(&mut errors, &of.child("name"), name, labels::dns_label(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(of.child("name"), name));
            }
        }
        device(&mut errors, &of, entry);
    }
    errors
}

fn pool(errors: &mut Errors, path: &Path, pool: &Value) {
    devices::pool(errors, &path.child("name"), pool.text("name"));
    let (count, generation) = (pool.int("resourceSliceCount"), pool.int("generation"));
    if count <= 0 {
        let of = path.child("resourceSliceCount");
        errors.push(FieldError::invalid(of, count, "must be greater than zero"));
    }
    if generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("generation"), generation, detail));
    }
}

/// Which nodes can reach the devices.
fn place(errors: &mut Errors, path: &Path, spec: &Value) {
    let ways = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given = ways.into_iter().filter(|way| match *way {
        "allNodes" | "perDeviceNodeSelection" => spec.flag(way),
        way => spec.has(way),
    });
    let text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.count() {
        0 => errors.push(FieldError::required(path, text)),
        1 => {}
        _ => {
            let detail = format!("{text}, but multiple fields are set");
            errors.push(FieldError::invalid(path, nothing(), detail));
        }
    }
    if let Some(name) = spec.some_text("nodeName") {
        let of = path.child("nodeName");
        if name.is_empty() {
            errors.push(FieldError::required(of, ""));
        } else {
            names(errors, &of, name, labels::dns_subdomain(name));
        }
    }
}

fn device(errors: &mut Errors, path: &Path, device: &Value) {
    let count = device.entries("attributes").count() + device.entries("capacity").count();
    if count as i64 > MOST_ATTRIBUTES {
        let detail =
            format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.push(FieldError::invalid(path, count, detail));
    }
    for (name, value) in device.entries("attributes") {
        let of = path.child("attributes").key(name);
        qualified(errors, &of, name);
        attribute(errors, &of, value);
    }
    for (name, _) in device.entries("capacity") {
        qualified(errors, &path.child("capacity").key(name), name);
    }
    let taints = device.items("taints");
    at_most(errors, &path.child("taints"), taints.len(), MOST_TAINTS);
    for (i, taint) in taints.iter().enumerate() {
        devices::taint(errors, &path.child("taints").index(i), taint);
    }
}

fn attribute(errors: &mut Errors, path: &Path, attribute: &Value) {
    let known = || VALUES.map(|value| format!("`{value}`")).join(", ");
    let given: Vec<&str> = VALUES.into_iter().filter(|value| attribute.has(value)).collect();
    match given[..] {
        [] => errors.push(FieldError::invalid(path, "", format!("must specify one of: {}", known()))),
        [value @ ("string" | "version")] => {
            let (of, text) = (path.child(value), attribute.text(value));
            if text.len() > LONGEST_ATTRIBUTE {
                errors.push(FieldError::too_long(of, LONGEST_ATTRIBUTE as i64));
            } else if value == "version" && !is_version(text) {
                let detail = "must be a string compatible with semver.org spec 2.0.0";
                errors.push(FieldError::invalid(of, text, detail));
            }
        }
        [_] => {}
        _ => errors.push(FieldError::invalid(path, "", format!("must specify only one of: {}", known()))),
    }
}

/// Whether a text is a version as semver.org describes them: three numbers, and what may come before a release and about the build.
fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (numbers, before) =
        rest.split_once('-').map_or((rest, None), |(numbers, before)| (numbers, Some(before)));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_before =
        |part: &str| is_word(part) && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()));
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_before))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["1.0.0", "0.0.4", "1.2.3-rc.1", "1.0.0-0A.is.legal", "2.0.0+build.1848", "1.1.1-a-b+001"]
        {
            assert!(is_version(good), "{good}");
        }
        for bad in
            ["", "1", "1.2", "01.1.1", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3.4", "1.2.3+a+b"]
        {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
