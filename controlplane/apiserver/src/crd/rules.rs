//! Expressions in schemas (`x-kubernetes-validations`).

use pagurus_controlplane_api::field::{FieldError, Path};
use serde_json::Value;

/// What is wrong with the expressions of a definition's schema, which is sound otherwise: whether they compile, and what they may cost.
pub(crate) fn definition(_path: &Path, _schema: &Value) -> Vec<FieldError> {
    Vec::new()
}
