//! EndpointSlices.

use std::collections::HashSet;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::core::service::ordinary;
use super::deprecations;
use super::fields::{Fields, default, items_mut};
use super::plain::Plain;
use super::rules::{Errors, immutable_unshown, ip, names, one_of, required_one_of};

/// How many ports or addresses the row shows.
const SHOWN: usize = 3;

/// The strategy of `endpointslices`.
pub(crate) static ENDPOINT_SLICES: Plain = Plain {
    default: default_slice,
    cells: slice_cells,
    validate: validate_slice,
    warnings: slice_warnings,
    change: change_slice,
    generations: true,
    metadata_generations: true,
    ..Plain::NEW
};

fn default_slice(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

fn slice_cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = slice.items("ports").iter().map(|port| match port.some_int("port") {
        Some(number) => number.to_string(),
        None => port.some_text("name").unwrap_or("*").to_owned(),
    });
    let addresses = slice.items("endpoints").iter().flat_map(|e| e.texts("addresses")).map(str::to_owned);
    vec![
        cells::name(slice),
        slice.text("addressType").into(),
        few(ports).into(),
        few(addresses).into(),
        cells::age(slice, now),
    ]
}

fn few(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    let shown = texts[..texts.len().min(SHOWN)].join(",");
    match texts.len() {
        0 => "<unset>".to_owned(),
        n if n > SHOWN => format!("{shown} + {} more...", n - SHOWN),
        _ => shown,
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_HINTS: usize = 8;

fn validate_slice(slice: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let kind = slice.text("addressType");
    required_one_of(&mut errors, &Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = slice.items("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        let error = FieldError::too_many("endpoints", endpoints.len() as i64, MAX_ENDPOINTS as i64);
        errors.push(error);
        return errors;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(&mut errors, &Path::new("endpoints").index(i), endpoint, kind);
    }
    ports(&mut errors, slice.items("ports"));
    errors
}

fn endpoint(errors: &mut Errors, path: &Path, endpoint: &Value, kind: &str) {
    let addresses = path.child("addresses");
    let count = endpoint.items("addresses").len();
    if count == 0 {
        errors.push(FieldError::required(&addresses, ""));
    } else if count > MAX_ADDRESSES {
        errors.push(FieldError::too_many(&addresses, count as i64, MAX_ADDRESSES as i64));
    }
    for (i, address) in endpoint.texts("addresses").enumerate() {
        let path = addresses.index(i);
        let parsed = labels::parse_ip(address).filter(|_| labels::ip(address).is_empty());
        match (kind, parsed) {
            ("IPv4" | "IPv6", None) => ip(errors, &path, address),
            ("IPv4" | "IPv6", Some(parsed)) => {
                if parsed.is_ipv4() != (kind == "IPv4") {
                    let noun = if kind == "IPv4" { "an IPv4" } else { "an IPv6" };
                    errors.push(FieldError::invalid(&path, address, format!("must be {noun} address")));
                }
                ordinary(errors, &path, address, parsed);
            }
            ("FQDN", _) => names(errors, &path, address, labels::dns_subdomain(address)),
            _ => {}
        }
    }
    if let Some(node) = endpoint.some_text("nodeName") {
        names(errors, &path.child("nodeName"), node, labels::dns_subdomain(node));
    }
    if let Some(host) = endpoint.some_text("hostname") {
        names(errors, &path.child("hostname"), host, labels::dns_label(host));
    }
    hints(errors, &path.child("hints"), endpoint.at("hints"));
}

fn hints(errors: &mut Errors, path: &Path, hints: &Value) {
    for field in ["forZones", "forNodes"] {
        let list = hints.items(field);
        let path = path.child(field);
        if list.len() > MAX_HINTS {
            errors.push(FieldError::too_many(&path, list.len() as i64, MAX_HINTS as i64));
            continue;
        }
        let mut taken = HashSet::new();
        for (i, hint) in list.iter().enumerate() {
            let (path, name) = (path.index(i).child("name"), hint.text("name"));
            if !taken.insert(name) {
                errors.push(FieldError::duplicate(&path, name));
            }
            names(errors, &path, name, labels::label_value(name));
        }
    }
}

fn ports(errors: &mut Errors, ports: &[Value]) {
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many("ports", ports.len() as i64, MAX_PORTS as i64));
        return;
    }
    let mut taken = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = Path::new("ports").index(i);
        let name = port.text("name");
        if !name.is_empty() {
            names(errors, &path.child("name"), name, labels::dns_label(name));
        }
        if !taken.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        one_of(errors, &path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(application) = port.some_text("appProtocol") {
            names(errors, &path.child("appProtocol"), application, labels::qualified_name(application));
        }
    }
}

/// Controllers that write addresses as they should be.
const CONTROLLERS: [&str; 2] =
    ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

fn slice_warnings(slice: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if slice.text("addressType") == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = slice.at("metadata.labels").get("endpointslice.kubernetes.io/managed-by");
    if manager.and_then(Value::as_str).is_some_and(|name| CONTROLLERS.contains(&name)) {
        return out;
    }
    for (i, endpoint) in slice.items("endpoints").iter().enumerate() {
        for (j, address) in endpoint.texts("addresses").enumerate() {
            let path = Path::new("endpoints").index(i).child("addresses").index(j);
            deprecations::ip(&mut out, &path, address);
        }
    }
    out
}

fn change_slice(slice: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    immutable_unshown(&mut errors, &Path::new("addressType"), slice.at("addressType"), old.at("addressType"));
    errors
}
