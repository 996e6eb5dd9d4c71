//! Owner references: who an object belongs to.

use serde_json::{Value, json};

/// One entry of `metadata.ownerReferences`, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRef<'a> {
    /// The owner's `apiVersion`.
    pub api_version: &'a str,
    /// The owner's kind.
    pub kind: &'a str,
    /// The owner's name.
    pub name: &'a str,
    /// The owner's uid: its identity.
    pub uid: &'a str,
    /// Whether the owner is the one controller that manages the object.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this object.
    pub block_owner_deletion: bool,
}

impl<'a> OwnerRef<'a> {
    fn read(value: &'a Value) -> Self {
        let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let flag = |name| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        Self {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    }
}

/// All owners of an object.
pub fn owners(object: &Value) -> impl Iterator<Item = OwnerRef<'_>> {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(OwnerRef::read)
}

/// The owner that manages an object, if it has one.
pub fn controller_of(object: &Value) -> Option<OwnerRef<'_>> {
    owners(object).find(|owner| owner.controller)
}

/// Whether the object of that uid manages `object`.
pub fn is_controlled_by(object: &Value, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == uid)
}

/// The reference that makes `owner` the controller of something.
pub fn controller_reference(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "name": owner.pointer("/metadata/name"), "uid": owner.pointer("/metadata/uid"),
        "controller": true, "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_controller() {
        let owner = json!({"metadata": {"name": "rs", "uid": "2"}});
        let pod = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
            controller_reference("apps/v1", "ReplicaSet", &owner),
        ]}});
        assert_eq!(controller_of(&pod).map(|o| (o.kind, o.name, o.uid)), Some(("ReplicaSet", "rs", "2")));
        assert!(is_controlled_by(&pod, "2"));
        assert!(!is_controlled_by(&pod, "1"));
        assert_eq!(owners(&json!({})).count(), 0);
    }
}
