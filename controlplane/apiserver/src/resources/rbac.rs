//! Roles and their bindings. Names are path segments, not DNS names.

use jiff::Timestamp;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::cells;
use super::fields::{Fields, default_text, items_mut, object_at};
use super::plain::Plain;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of `roles` and `clusterroles`.
pub(crate) static ROLES: Plain = Plain {
    cells: |object, _| vec![cells::name(object), cells::created_at(object)],
    name: labels::path_segment_name,
    ..Plain::NEW
};

/// The strategy of `rolebindings` and `clusterrolebindings`.
pub(crate) static BINDINGS: Plain =
    Plain { default: default_binding, cells: binding_cells, name: labels::path_segment_name, ..Plain::NEW };

fn default_binding(binding: &mut Value) {
    default_text(object_at(binding, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(binding, "subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let names = |kind: &str| {
        let of_kind = binding.items("subjects").iter().filter(|s| s.text("kind") == kind);
        let names: Vec<String> = of_kind
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
                _ => s.text("name").to_owned(),
            })
            .collect();
        names.join(", ")
    };
    vec![
        cells::name(binding),
        format!("{}/{}", binding.text("roleRef.kind"), binding.text("roleRef.name")).into(),
        cells::age(binding, now),
        names("User").into(),
        names("Group").into(),
        names("ServiceAccount").into(),
    ]
}
