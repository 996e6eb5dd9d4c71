//! The rules for how a pod sees DNS and hosts.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::fields::Fields;
use crate::resources::rules::{Errors, ip, names, required_one_of};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// DNS and `/etc/hosts` of a pod specification.
pub(super) fn check(errors: &mut Errors, path: &Path, spec: &Value) {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(errors, &path.child("dnsPolicy"), spec.text("dnsPolicy"), &policies);
    dns_config(errors, &path.child("dnsConfig"), spec);
    for (i, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        ip(errors, &path.child("ip"), alias.text("ip"));
        for (j, name) in alias.texts("hostnames").enumerate() {
            names(errors, &path.child("hostnames").index(j), name, labels::dns_subdomain(name));
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path, spec: &Value) {
    let config = spec.at("dnsConfig");
    let servers = config.items("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            let text = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(FieldError::required(path, text));
            return;
        }
        if servers.is_empty() {
            let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(path.child("nameservers"), text));
            return;
        }
    }
    let list = |field: &str| config.at(field).clone();
    if servers.len() > MAX_NAMESERVERS {
        let text = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(path.child("nameservers"), list("nameservers"), text));
    }
    for (i, server) in config.texts("nameservers").enumerate() {
        ip(errors, &path.child("nameservers").index(i), server);
    }
    let searches: Vec<&str> = config.texts("searches").collect();
    let search_path = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        let text = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(&search_path, list("searches"), text));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        let text = format!(
            "must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list"
        );
        errors.push(FieldError::invalid(&search_path, list("searches"), text));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        let complaints = labels::dns_subdomain_with_underscore(name);
        names(errors, &search_path.index(i), name, complaints);
    }
    for (i, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.push(FieldError::required(path.child("options").index(i), "must not be empty"));
        }
    }
}
