//! Endpoints: the addresses behind a Service, in the old form.

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::service::ordinary;
use crate::resources::cells;
use crate::resources::fields::{Fields, default_text, items_mut};
use crate::resources::rules::{Errors, ip, names, required_one_of};
use crate::strategy::Strategy;

/// The strategy of `endpoints`.
pub(crate) struct Endpoints;

/// How many addresses the row shows.
const SHOWN: usize = 3;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        for (i, subset) in object.items("subsets").iter().enumerate() {
            self::subset(&mut errors, &Path::new("subsets").index(i), subset);
        }
        errors
    }

    fn deprecation(&self, _version: &str) -> Option<&str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), summary(object).into(), cells::age(object, now)]
    }
}

fn summary(object: &Value) -> String {
    let subsets = object.items("subsets");
    if subsets.is_empty() {
        return cells::NONE.to_owned();
    }
    let (mut shown, mut count) = (Vec::new(), 0);
    for subset in subsets {
        let addresses = subset.items("addresses");
        if subset.items("ports").is_empty() {
            for address in addresses {
                if shown.len() < SHOWN {
                    shown.push(address.text("ip").to_owned());
                }
                count += 1;
            }
            continue;
        }
        for port in subset.items("ports") {
            for address in addresses {
                if shown.len() < SHOWN {
                    let ip = address.text("ip");
                    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
                    shown.push(format!("{ip}:{}", port.int("port")));
                }
                count += 1;
            }
        }
    }
    let text = shown.join(",");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn subset(errors: &mut Errors, path: &Path, subset: &Value) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| subset.items(list).is_empty()) {
        let text = "must specify `addresses` or `notReadyAddresses`";
        errors.push(FieldError::required(path, text));
    }
    for list in lists {
        for (i, address) in subset.items(list).iter().enumerate() {
            self::address(errors, &path.child(list).index(i), address);
        }
    }
    let ports = subset.items("ports");
    for (i, port) in ports.iter().enumerate() {
        let path = path.child("ports").index(i);
        match port.text("name") {
            "" if ports.len() > 1 => errors.push(FieldError::required(path.child("name"), "")),
            "" => {}
            name => names(errors, &path.child("name"), name, labels::dns_label(name)),
        }
        let number = port.int("port");
        for complaint in labels::port_number(number) {
            errors.push(FieldError::invalid(path.child("port"), number, complaint));
        }
        required_one_of(errors, &path.child("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(application) = port.some_text("appProtocol") {
            names(errors, &path.child("appProtocol"), application, labels::qualified_name(application));
        }
    }
}

fn address(errors: &mut Errors, path: &Path, address: &Value) {
    let (text, of) = (address.text("ip"), path.child("ip"));
    ip(errors, &of, text);
    match labels::parse_ip(text) {
        Some(parsed) => ordinary(errors, &of, text, parsed),
        None => errors.push(FieldError::invalid(&of, text, "must be a valid IP address")),
    }
    let host = address.text("hostname");
    if !host.is_empty() {
        names(errors, &path.child("hostname"), host, labels::dns_label(host));
    }
    if let Some(node) = address.some_text("nodeName") {
        names(errors, &path.child("nodeName"), node, labels::dns_subdomain(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn summaries() {
        let addresses = json!([{"ip": "1.1.1.1"}, {"ip": "2.2.2.2"}]);
        for (subsets, expected) in [
            (json!([]), "<none>"),
            (json!([{"addresses": addresses}]), "1.1.1.1,2.2.2.2"),
            (json!([{"addresses": [{"ip": "::1"}], "ports": [{"port": 80}]}]), "[::1]:80"),
            (
                json!([{"addresses": addresses, "ports": [{"port": 80}, {"port": 81}]}]),
                "1.1.1.1:80,2.2.2.2:80,1.1.1.1:81 + 1 more...",
            ),
        ] {
            assert_eq!(summary(&json!({"subsets": subsets})), expected);
        }
    }
}
