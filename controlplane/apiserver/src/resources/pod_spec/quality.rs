//! The quality-of-service class of a pod: what it has been promised.

use pagurus_controlplane_api::quantity::Quantity;
use serde_json::Value;

use crate::resources::fields::Fields;

/// `Guaranteed`, `Burstable` or `BestEffort`, from the requests and limits of a pod specification.
pub(crate) fn class(spec: &Value) -> &'static str {
    if spec.has("resources.limits") || spec.has("resources.requests") {
        return of(std::slice::from_ref(spec));
    }
    let containers: Vec<Value> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.items(list))
        .map(|c| serde_json::json!({"resources": c.at("resources")}))
        .collect();
    of(&containers)
}

/// The total of a resource over all holders; `None` if a holder has none.
fn total(holders: &[Value], kind: &str, name: &str) -> (Quantity, bool) {
    let mut sum = Quantity::default();
    let mut everywhere = true;
    for holder in holders {
        match holder.at(kind).get(name).and_then(|q| Quantity::from_json(q).ok()) {
            Some(quantity) if quantity.sign() > 0 => sum = sum + quantity,
            _ => everywhere = false,
        }
    }
    (sum, everywhere)
}

fn of(holders: &[Value]) -> &'static str {
    let mut guaranteed = true;
    let mut anything = false;
    for name in ["cpu", "memory"] {
        let (requests, _) = total(holders, "resources.requests", name);
        let (limits, limited) = total(holders, "resources.limits", name);
        anything |= requests.sign() > 0 || limits.sign() > 0;
        guaranteed &= limited && requests == limits;
    }
    match (anything, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        for (spec, expected) in [
            (json!({"containers": [{"name": "a"}]}), "BestEffort"),
            (json!({"containers": [{"resources": full}]}), "Guaranteed"),
            (json!({"containers": [{"resources": full}, {}]}), "Burstable"),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1m"}}}]}), "Burstable"),
            (json!({"containers": [{"resources": {"requests": {"storage": "1"}}}]}), "BestEffort"),
            (json!({"containers": [{"resources": full}], "initContainers": [{}]}), "Burstable"),
            (json!({"containers": [{}], "resources": full}), "Guaranteed"),
        ] {
            assert_eq!(class(&spec), expected, "{spec}");
        }
    }
}
