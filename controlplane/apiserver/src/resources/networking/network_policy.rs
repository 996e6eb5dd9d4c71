//! The rules for NetworkPolicies.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::deprecations;
use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, cidr, label_selector, names, one_of, optional_one_of, required};

/// What is wrong with a NetworkPolicy.
pub(super) fn policy(policy: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = policy.at("spec");
    label_selector(&mut errors, &path.child("podSelector"), spec.at("podSelector"), false);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in spec.items(direction).iter().enumerate() {
            let path = path.child(direction).index(i);
            for (j, port) in rule.items("ports").iter().enumerate() {
                self::port(&mut errors, &path.child("ports").index(j), port);
            }
            for (j, peer) in rule.items(peers).iter().enumerate() {
                self::peer(&mut errors, &path.child(peers).index(j), peer);
            }
        }
    }
    let types = path.child("policyTypes");
    if spec.items("policyTypes").len() > 2 {
        let text = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(types, spec.at("policyTypes").clone(), text));
        return errors;
    }
    for (i, kind) in spec.texts("policyTypes").enumerate() {
        one_of(&mut errors, &types.index(i), kind, &["Ingress", "Egress"]);
    }
    errors
}

/// What to tell of a NetworkPolicy.
pub(super) fn warnings(policy: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in policy.at("spec").items(direction).iter().enumerate() {
            for (j, peer) in rule.items(peers).iter().enumerate() {
                let path = Path::new("spec").child(direction).index(i).child(peers).index(j).child("ipBlock");
                deprecations::cidr(&mut out, &path.child("cidr"), peer.text("ipBlock.cidr"));
                for (k, except) in peer.texts("ipBlock.except").enumerate() {
                    deprecations::cidr(&mut out, &path.child("except").index(k), except);
                }
            }
        }
    }
    out
}

fn port(errors: &mut Errors, path: &Path, port: &Value) {
    let protocol = port.some_text("protocol");
    optional_one_of(errors, &path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    let end = port.some_int("endPort");
    let end_path = path.child("endPort");
    let refuse = |errors: &mut Errors, number: i64, text: &str| {
        errors.push(FieldError::invalid(&end_path, number, text));
    };
    match port.at("port") {
        Value::Null => {
            if let Some(end) = end {
                refuse(errors, end, "may not be specified when `port` is not specified");
            }
        }
        Value::String(name) => {
            names(errors, &path.child("port"), name, labels::port_name(name));
            if let Some(end) = end {
                refuse(errors, end, "may not be specified when `port` is non-numeric");
            }
        }
        number => {
            let first = number.as_i64().unwrap_or_default();
            for complaint in labels::port_number(first) {
                errors.push(FieldError::invalid(path.child("port"), first, complaint));
            }
            if let Some(end) = end {
                if end < first {
                    refuse(errors, end, "must be greater than or equal to `port`");
                }
                for complaint in labels::port_number(end) {
                    refuse(errors, end, &complaint);
                }
            }
        }
    }
}

fn peer(errors: &mut Errors, path: &Path, peer: &Value) {
    let selectors = ["podSelector", "namespaceSelector"];
    for field in selectors {
        label_selector(errors, &path.child(field), peer.at(field), false);
    }
    let selected = selectors.iter().any(|field| peer.has(field));
    if peer.has("ipBlock") {
        block(errors, &path.child("ipBlock"), peer.at("ipBlock"));
    }
    if selected && peer.has("ipBlock") {
        errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    if !selected && !peer.has("ipBlock") {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
}

fn block(errors: &mut Errors, path: &Path, block: &Value) {
    let text = block.text("cidr");
    if !required(errors, &path.child("cidr"), text) {
        return;
    }
    cidr(errors, &path.child("cidr"), text);
    for (i, except) in block.texts("except").enumerate() {
        let path = path.child("except").index(i);
        cidr(errors, &path, except);
        let inside = match (labels::parse_cidr(text), labels::parse_cidr(except)) {
            (Some(outer), Some(inner)) => is_inside(outer, inner),
            _ => continue,
        };
        if !inside {
            errors.push(FieldError::invalid(&path, except, "must be a strict subset of `cidr`"));
        }
    }
}

/// Whether the inner network is a smaller part of the outer one.
fn is_inside(outer: (std::net::IpAddr, u8), inner: (std::net::IpAddr, u8)) -> bool {
    let network = |(ip, length)| ipnet::IpNet::new(ip, length).ok();
    match (network(outer), network(inner)) {
        (Some(outer), Some(inner)) => inner.prefix_len() > outer.prefix_len() && outer.contains(&inner),
        _ => false,
    }
}
