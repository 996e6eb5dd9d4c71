//! The rules for resource names, quantities, requests and limits.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, names, required};

const HUGE: &str = "hugepages-";

/// Names without a domain that mean something.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn quantity_of(value: &Value) -> Quantity {
    Quantity::from_json(value).unwrap_or_default()
}

fn is_standard(name: &str) -> bool {
    name.starts_with(HUGE) || name.starts_with("requests.hugepages-") || STANDARD.contains(&name)
}

/// Whether a resource counts pieces.
fn is_counted(name: &str) -> bool {
    is_extended(name)
        || matches!(
            name,
            "pods"
                | "resourcequotas"
                | "services"
                | "replicationcontrollers"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        )
}

/// Whether a resource is one that devices offer: it has a domain, and not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !is_native(name)
        && !name.starts_with("requests.")
        && labels::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_native(name: &str) -> bool {
    match name.split_once('/') {
        None => true,
        Some((domain, _)) => domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"),
    }
}

/// Whether more may be promised than there is.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE)
}

/// The name of a resource.
pub(crate) fn resource_name(errors: &mut Errors, path: &Path, name: &str) {
    let complaints = labels::qualified_name(name);
    let good = complaints.is_empty();
    names(errors, path, name, complaints);
    if good && !name.contains('/') && !is_standard(name) {
        let text = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, name, text));
    }
}

/// An amount of a resource.
pub(crate) fn quantity(errors: &mut Errors, path: &Path, name: &str, value: &Value) {
    let quantity = quantity_of(value);
    if quantity.sign() < 0 {
        let text = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path, quantity.to_string(), text));
    }
    if is_counted(name) && !quantity.is_integer() {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
    }
}

/// The name of a resource that a container may use.
pub(crate) fn container_resource_name(errors: &mut Errors, path: &Path, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with(HUGE) {
            errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// Requests and limits of a container.
pub(super) fn container(errors: &mut Errors, path: &Path, resources: &Value, claims: &HashSet<String>) {
    amounts(errors, path, resources, container_resource_name);
    let mut taken = HashSet::new();
    for (i, claim) in resources.items("claims").iter().enumerate() {
        let path = path.child("claims").index(i);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
            continue;
        }
        if !taken.insert((name, request)) {
            let shown = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            errors.push(FieldError::duplicate(&path, shown));
        }
        if !claims.contains(name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
    }
}

fn amounts(errors: &mut Errors, path: &Path, resources: &Value, check: fn(&mut Errors, &Path, &str)) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut plain, mut huge) = (false, false);
    for (name, value) in resources.entries("limits") {
        let path = limits_path.key(name);
        check(errors, &path, name);
        quantity(errors, &path, name, value);
        huge |= name.starts_with(HUGE);
        plain |= matches!(name, "cpu" | "memory");
    }
    for (name, value) in resources.entries("requests") {
        let path = requests_path.key(name);
        check(errors, &path, name);
        quantity(errors, &path, name, value);
        huge |= name.starts_with(HUGE);
        plain |= matches!(name, "cpu" | "memory");
        let request = quantity_of(value);
        let refuse = |text: String| FieldError::invalid(&requests_path, request.to_string(), text);
        match resources.at("limits").get(name).map(quantity_of) {
            Some(limit) if !may_overcommit(name) && request != limit => {
                errors.push(refuse(format!("must be equal to {name} limit of {limit}")));
            }
            Some(limit) if may_overcommit(name) && request > limit => {
                errors.push(refuse(format!("must be less than or equal to {name} limit of {limit}")));
            }
            None if !may_overcommit(name) => {
                let text = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, text));
            }
            _ => {}
        }
    }
    if huge && !plain {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Requests and limits of a whole pod.
pub(super) fn pod_level(errors: &mut Errors, path: &Path, spec: &Value) {
    let resources = spec.at("resources");
    amounts(errors, path, resources, |errors, path, name| {
        if !matches!(name, "cpu" | "memory") && !name.starts_with(HUGE) {
            let text = "supported values: \"cpu\", \"hugepages-\", \"memory\"";
            let mut error = FieldError::not_supported(path, name, &[]);
            text.clone_into(&mut error.detail);
            errors.push(error);
        }
    });
    if !resources.items("claims").is_empty() {
        errors.push(FieldError::forbidden(
            path.child("claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    for (name, value) in resources.entries("requests") {
        let request = quantity_of(value);
        let total = spec
            .items("containers")
            .iter()
            .filter_map(|c| c.at("resources.requests").get(name))
            .fold(Quantity::default(), |sum, q| sum + quantity_of(q));
        if total > request {
            let text = format!("must be greater than or equal to aggregate container requests of {total}");
            errors.push(FieldError::invalid(path.child("requests").key(name), request.to_string(), text));
        }
    }
    for (name, value) in resources.entries("limits") {
        let limit = quantity_of(value);
        for (i, c) in spec.items("containers").iter().enumerate() {
            if let Some(own) = c.at("resources.limits").get(name).map(quantity_of).filter(|own| *own > limit)
            {
                let text = format!("must be less than or equal to pod limits of {limit}");
                let path = Path::new("spec.containers").index(i).child("resources.limits").key(name);
                errors.push(FieldError::invalid(path, own.to_string(), text));
            }
        }
    }
}

/// The claims to devices of a pod; returns their names.
pub(super) fn pod_claims(errors: &mut Errors, path: &Path, claims: &[Value]) -> HashSet<String> {
    let mut taken = HashSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let name = claim.text("name");
        if required(errors, &path.child("name"), name) {
            if !taken.insert(name.to_owned()) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            names(errors, &path.child("name"), name, labels::dns_label(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|source| claim.has(source)).count() {
            0 => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(&path, crate::resources::rules::shown(claim), text));
            }
            1 => {}
            _ => {
                let text =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(&path, crate::resources::rules::shown(claim), text));
            }
        }
        for source in sources {
            if let Some(name) = claim.some_text(source) {
                names(errors, &path.child(source), name, labels::dns_subdomain(name));
            }
        }
    }
    taken
}
