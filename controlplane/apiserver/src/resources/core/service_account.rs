//! ServiceAccounts.

use jiff::Timestamp;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use crate::resources::cells;
use crate::strategy::Strategy;

/// The strategy of `serviceaccounts`.
pub(crate) struct ServiceAccounts;

/// The annotation that keeps pods to the secrets of their account.
const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";

impl Strategy for ServiceAccounts {
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |object: &Value| labels::annotation(object, ENFORCED).is_some();
        if !has(object) || old.is_some_and(has) {
            return Vec::new();
        }
        let text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        vec![format!("metadata.annotations[{ENFORCED}]: {text}")]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![cells::name(object), cells::age(object, now)]
    }
}
