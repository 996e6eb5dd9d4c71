//! The rules for metadata, the same for all kinds. What a name may be is each kind's own business and comes as a function.

use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::labels;
use serde_json::Value;

use super::fields::{Fields, same};
use super::rules::{Errors, IMMUTABLE, annotations_map, labels_map, names, non_negative, shown};
use crate::strategy::Strategy;

const PATH: &str = "metadata";

/// What is wrong with the metadata of a new object.
pub fn create(object: &Value, namespaced: bool, strategy: &dyn Strategy) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new(PATH);
    let meta = object.at(PATH);
    let prefix = meta.text("generateName");
    if !prefix.is_empty() {
        names(&mut errors, &path.child("generateName"), prefix, strategy.name_errors(prefix, true));
    }
    match meta.text("name") {
        "" => errors.push(FieldError::required(path.child("name"), "name or generateName is required")),
        name => names(&mut errors, &path.child("name"), name, strategy.name_errors(name, false)),
    }
    let namespace = meta.text("namespace");
    let namespace_path = path.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required(namespace_path, "")),
        (true, namespace) => names(&mut errors, &namespace_path, namespace, labels::dns_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(namespace_path, "not allowed on this type")),
    }
    parts(&mut errors, &path, meta);
    errors
}

/// What is wrong with the metadata of an update.
pub fn update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let path = Path::new(PATH);
    let (meta, before) = (object.at(PATH), old.at(PATH));
    if meta.int("generation") < before.int("generation") {
        let text = "must not be decremented";
        errors.push(FieldError::invalid(path.child("generation"), meta.int("generation"), text));
    }
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if !same(meta.at(field), before.at(field)) {
            errors.push(FieldError::invalid(path.child(field), meta.at(field).clone(), IMMUTABLE));
        }
    }
    if before.has("deletionTimestamp") {
        let added: Vec<String> = meta
            .texts("finalizers")
            .filter(|f| !before.texts("finalizers").any(|known| known == *f))
            .map(pagurus_controlplane_api::go::quote)
            .collect();
        if !added.is_empty() {
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), text));
        }
    }
    parts(&mut errors, &path, meta);
    errors
}

fn parts(errors: &mut Errors, path: &Path, meta: &Value) {
    non_negative(errors, &path.child("generation"), meta.int("generation"));
    labels_map(errors, &path.child("labels"), meta.at("labels"));
    annotations_map(errors, &path.child("annotations"), meta.at("annotations"));
    owners(errors, &path.child("ownerReferences"), meta.items("ownerReferences"));
    finalizers(errors, &path.child("finalizers"), meta);
}

fn owners(errors: &mut Errors, path: &Path, owners: &[Value]) {
    let mut controller: Option<String> = None;
    for (i, owner) in owners.iter().enumerate() {
        let path_of = path.index(i);
        let gvk = GroupVersionKind::of(owner).unwrap_or_default();
        if gvk.version.is_empty() {
            let text = "version must not be empty";
            errors.push(FieldError::invalid(path_of.child("apiVersion"), owner.text("apiVersion"), text));
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                let text = if field == "kind" { "kind must not be empty" } else { "must not be empty" };
                errors.push(FieldError::invalid(path_of.child(field), owner.text(field), text));
            }
        }
        if gvk.kind == "Event" && gvk.version == "v1" && gvk.group.is_empty() {
            let text = format!("{gvk} is disallowed from being an owner");
            errors.push(FieldError::invalid(&path_of, shown(owner), text));
        }
        if owner.flag("controller") {
            let name = format!("{}/{}", owner.text("kind"), owner.text("name"));
            if let Some(first) = &controller {
                let text = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.push(FieldError::invalid(path, shown(&owners.to_vec().into()), text));
            } else {
                controller = Some(name);
            }
        }
    }
}

fn finalizers(errors: &mut Errors, path: &Path, meta: &Value) {
    for finalizer in meta.texts("finalizers") {
        names(errors, path, finalizer, labels::qualified_name(finalizer));
    }
    let has = |name: &str| meta.texts("finalizers").any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let text = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, meta.at("finalizers").clone(), text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Generic;
    use serde_json::json;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn new_objects() {
        for (meta, namespaced, expected) in [
            (json!({"name": "a", "namespace": "n"}), true, vec![]),
            (json!({"name": "a"}), false, vec![]),
            (json!({"name": "a"}), true, vec!["metadata.namespace: Required value"]),
            (
                json!({"name": "a", "namespace": "n"}),
                false,
                vec!["metadata.namespace: Forbidden: not allowed on this type"],
            ),
            (json!({}), false, vec!["metadata.name: Required value: name or generateName is required"]),
            (
                json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
                false,
                vec![
                    r#"metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and foregroundDeletion cannot be both set"#,
                ],
            ),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                false,
                vec!["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
            ),
        ] {
            let object = json!({"metadata": meta});
            assert_eq!(texts(&create(&object, namespaced, &Generic)), expected, "{object}");
        }
    }

    #[test]
    fn updates() {
        let old =
            json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let mut new = old.clone();
        new["metadata"]["uid"] = json!("2");
        new["metadata"]["finalizers"] = json!(["x/y", "x/z"]);
        assert_eq!(
            texts(&update(&new, &old)),
            [
                "metadata.uid: Invalid value: \"2\": field is immutable",
                r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/z"}"#,
            ]
        );
        assert!(update(&old, &old).is_empty());
    }
}
