//! What all versions of a definition have in common. kube-apiserver's own form has it once, above the versions, and its messages name
//! it there: `spec.validation` in place of `spec.versions[0].schema`.

use serde_json::Value;

use crate::resources::fields::Fields;

/// Which parts all versions have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hoisted {
    /// `schema`
    pub(super) schema: bool,
    /// `subresources`
    pub(super) subresources: bool,
    /// `additionalPrinterColumns`
    pub(super) columns: bool,
    /// `selectableFields`
    pub(super) selectable: bool,
}

impl Hoisted {
    /// Of a specification.
    pub(super) fn of(spec: &Value) -> Self {
        let versions = spec.items("versions");
        let same = |part: &str| match versions.split_first() {
            Some((first, rest)) => rest.iter().all(|other| other.at(part) == first.at(part)),
            None => false,
        };
        Self {
            schema: same("schema"),
            subresources: same("subresources"),
            columns: same("additionalPrinterColumns"),
            selectable: same("selectableFields"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_versions_share() {
        let check = |versions: Value, schema: bool, columns: bool| {
            let hoisted = Hoisted::of(&json!({"versions": versions}));
            assert_eq!((hoisted.schema, hoisted.columns), (schema, columns));
        };
        check(json!([]), false, false);
        check(json!([{"schema": 1}]), true, true);
        check(json!([{"schema": 1}, {"schema": 1, "additionalPrinterColumns": []}]), true, false);
    }
}
