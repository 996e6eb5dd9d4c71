//! Ingresses, IngressClasses, NetworkPolicies, IPAddresses and ServiceCIDRs.

mod ingress;
mod ip_address;
mod network_policy;
mod service_cidr;

use jiff::Timestamp;
use pagurus_controlplane_api::key::qualified;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::fields::{Fields, default, items_mut, object_at};
use super::plain::Plain;

/// The strategy of `ingresses`.
pub(crate) static INGRESSES: Plain = Plain {
    cells: ingress_cells,
    validate: |ingress| ingress::ingress(ingress, true),
    change: |ingress, _| ingress::ingress(ingress, false),
    change_alone: true,
    warnings: ingress::warnings,
    generations: true,
    ..Plain::NEW
};

/// The strategy of `ingressclasses`.
pub(crate) static INGRESS_CLASSES: Plain = Plain {
    default: default_class,
    cells: class_cells,
    validate: ingress::class,
    change: ingress::change_class,
    generations: true,
    ..Plain::NEW
};

/// The strategy of `networkpolicies`.
pub(crate) static NETWORK_POLICIES: Plain = Plain {
    default: default_policy,
    validate: network_policy::policy,
    warnings: network_policy::warnings,
    cells: |object, now| {
        vec![cells::name(object), cells::selector(object, "spec.podSelector"), cells::age(object, now)]
    },
    generations: true,
    ..Plain::NEW
};

/// The strategy of `ipaddresses`.
pub(crate) static IP_ADDRESSES: Plain = Plain {
    validate: ip_address::check,
    change: ip_address::change,
    change_alone: true,
    name: |name, _| labels::canonical_ip(name),
    cells: |object, now| {
        let parent = object.at("spec.parentRef");
        let mut parts = vec![qualified(parent.text("resource"), parent.text("group"))];
        parts.extend(
            ["namespace", "name"].iter().map(|n| parent.text(n).to_owned()).filter(|p| !p.is_empty()),
        );
        vec![cells::name(object), parts.join("/").into(), cells::age(object, now)]
    },
    ..Plain::NEW
};

/// The strategy of `servicecidrs`.
pub(crate) static SERVICE_CIDRS: Plain = Plain {
    cells: |object, now| {
        vec![cells::name(object), cells::joined(object, "spec.cidrs").into(), cells::age(object, now)]
    },
    validate: service_cidr::check,
    change: service_cidr::change,
    change_alone: true,
    status_alone: true,
    ..Plain::NEW
};

/// How many hosts the row shows.
const SHOWN: usize = 3;

/// The first hosts of the rules; the rules after those that are shown are counted whether they have one or not.
fn hosts(ingress: &Value) -> String {
    let rules = ingress.items("spec.rules");
    let with_host: Vec<usize> = (0..rules.len()).filter(|i| !rules[*i].text("host").is_empty()).collect();
    let shown: Vec<&str> = with_host.iter().take(SHOWN).map(|i| rules[*i].text("host")).collect();
    match with_host.get(SHOWN - 1) {
        _ if shown.is_empty() => "*".to_owned(),
        Some(last) if last + 1 < rules.len() => {
            format!("{} + {} more...", shown.join(","), rules.len() - SHOWN)
        }
        _ => shown.join(","),
    }
}

fn ingress_cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let mut addresses: Vec<&str> = ingress
        .items("status.loadBalancer.ingress")
        .iter()
        .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") })
        .filter(|a| !a.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let ports = if ingress.items("spec.tls").is_empty() { "80" } else { "80, 443" };
    vec![
        cells::name(ingress),
        cells::or_none(ingress.text("spec.ingressClassName")),
        hosts(ingress).into(),
        addresses.join(",").into(),
        ports.into(),
        cells::age(ingress, now),
    ]
}

fn default_class(class: &mut Value) {
    if class.has("spec.parameters") {
        default(object_at(class, "spec.parameters"), "scope", "Cluster");
    }
}

fn class_cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = class.at("spec.parameters");
    let shown = if parameters.is_null() {
        cells::NONE.to_owned()
    } else {
        format!(
            "{}/{}",
            qualified(parameters.text("kind"), parameters.text("apiGroup")),
            parameters.text("name")
        )
    };
    vec![cells::name(class), class.text("spec.controller").into(), shown.into(), cells::age(class, now)]
}

fn default_policy(policy: &mut Value) {
    for (rules, peers) in [("spec.ingress", "ports"), ("spec.egress", "ports")] {
        for rule in items_mut(policy, rules) {
            for port in items_mut(rule, peers) {
                default(port, "protocol", "TCP");
            }
        }
    }
    if policy.items("spec.policyTypes").is_empty() && policy.has("spec") {
        let egress = !policy.items("spec.egress").is_empty();
        let types: &[&str] = if egress { &["Ingress", "Egress"] } else { &["Ingress"] };
        object_at(policy, "spec")["policyTypes"] = types.into();
    }
}
