//! Expressions in schemas (`x-kubernetes-validations`).

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_schema::structural::Schema;
use serde_json::Value;

/// What is wrong with the expressions of a definition's schema, which is sound otherwise: whether they compile, and what they may cost.
pub(crate) fn definition(_path: &Path, _schema: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// What the rules of a schema say against an object of it, which is sound otherwise. `old` is what it was before.
pub(crate) fn object(_schema: &Schema, _object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
