//! Endpoints: the addresses behind a Service, in the old form.

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cells;
use crate::resources::fields::{Fields, default_text, items_mut};
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

    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
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
