//! The rules of `metadata`, the same for every kind: what the server sets, what may be given, what may change.

use std::collections::HashSet;

use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use pagurus_controlplane_api::{go, labels, time};
use rand::Rng;
use serde_json::{Map, Value};

use crate::strategy::Strategy;

/// Letters of generated names: no vowels, no look-alikes.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM: usize = 5;
/// How much of a `generateName` is used.
const MOST_PREFIX: usize = 63 - RANDOM;
/// The most bytes of all annotations together.
const MOST_ANNOTATIONS: usize = 256 << 10;

/// The metadata of an object, made if it is not there.
pub(super) fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { unreachable!("made an object above") };
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    let Value::Object(metadata) = metadata else { unreachable!("made an object above") };
    metadata
}

/// A field of the metadata.
pub(super) fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("metadata").and_then(|metadata| metadata.get(name))
}

/// A text of the metadata, empty if it is not there.
pub(super) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name).and_then(Value::as_str).unwrap_or_default()
}

/// A number of the metadata.
pub(super) fn number(object: &Value, name: &str) -> Option<i64> {
    field(object, name).and_then(Value::as_i64)
}

/// The finalizers.
pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = field(object, "finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the object has been marked for deletion.
pub(super) fn is_deleting(object: &Value) -> bool {
    field(object, "deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// Takes away what no client can set in a new object.
pub(super) fn wipe(object: &mut Value) {
    for gone in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        of(object).remove(gone);
    }
}

/// Sets what the server decides in a new object.
pub(super) fn fill(object: &mut Value) {
    wipe(object);
    of(object).insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    of(object).insert("creationTimestamp".to_owned(), time::now_text().into());
}

/// Drops owners that are named twice; their uids.
pub(super) fn dedup_owners(object: &mut Value) -> Vec<String> {
    let Some(list) = of(object).get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return Vec::new();
    };
    let mut seen = HashSet::with_capacity(list.len());
    let mut twice = Vec::new();
    list.retain(|owner| {
        if seen.insert(owner.to_string()) {
            return true;
        }
        if let Some(uid) = owner.get("uid").and_then(Value::as_str) {
            twice.push(uid.to_owned());
        }
        false
    });
    twice
}

/// Makes a name from `generateName`, if there is no name and there is a prefix.
pub(super) fn generate_name(object: &mut Value) {
    let prefix = text(object, "generateName");
    if !text(object, "name").is_empty() || prefix.is_empty() {
        return;
    }
    let mut rng = rand::rng();
    let mut name: String = prefix.chars().take(MOST_PREFIX).collect();
    name.extend((0..RANDOM).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])));
    of(object).insert("name".to_owned(), name.into());
}

/// What is wrong with the metadata of an object.
pub(super) fn validate(object: &Value, namespaced: bool, strategy: &dyn Strategy) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    let prefix = text(object, "generateName");
    if !prefix.is_empty() {
        let complaints = strategy.name_errors(prefix, true).into_iter();
        errors.extend(complaints.map(|c| FieldError::invalid(path.child("generateName"), prefix, c)));
    }
    let name = text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        let complaints = strategy.name_errors(name, false).into_iter();
        errors.extend(complaints.map(|c| FieldError::invalid(path.child("name"), name, c)));
    }
    let namespace = text(object, "namespace");
    if namespaced && namespace.is_empty() {
        errors.push(FieldError::required(path.child("namespace"), ""));
    } else if namespaced {
        let complaints = labels::dns_label(namespace).into_iter();
        errors.extend(complaints.map(|c| FieldError::invalid(path.child("namespace"), namespace, c)));
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden(path.child("namespace"), "not allowed on this type"));
    }
    errors.extend(validate_generation(object));
    errors.extend(validate_common(object));
    errors
}

/// What is wrong with the metadata of an object inside of another one, which may be without a name.
pub(crate) fn embedded(object: &Value) -> Vec<FieldError> {
    struct Embedded;
    impl Strategy for Embedded {
        fn name_errors(&self, name: &str, prefix: bool) -> Vec<String> {
            labels::path_segment_name(name, prefix)
        }
    }
    let mut named = object.clone();
    if text(object, "name").is_empty() {
        of(&mut named).insert("name".to_owned(), "name".into());
    }
    validate(&named, !text(object, "namespace").is_empty(), &Embedded)
}

fn validate_generation(object: &Value) -> Option<FieldError> {
    let generation = number(object, "generation").filter(|g| *g < 0)?;
    Some(FieldError::invalid("metadata.generation", generation, "must be greater than or equal to 0"))
}

/// Labels, annotations, owners, finalizers.
fn validate_common(object: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let map = |name: &str| object.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_object);
    let mut errors = Vec::new();
    for (key, value) in map("labels").into_iter().flatten() {
        let path = path.child("labels");
        let value = value.as_str().unwrap_or_default();
        let bad_key = labels::qualified_name(key).into_iter();
        errors.extend(bad_key.map(|c| FieldError::invalid(&path, key.as_str(), c)));
        let bad_value = labels::label_value(value).into_iter();
        errors.extend(bad_value.map(|c| FieldError::invalid(&path, value, c)));
    }
    let mut size = 0;
    for (key, value) in map("annotations").into_iter().flatten() {
        let complaints = labels::qualified_name(&key.to_lowercase()).into_iter();
        errors.extend(complaints.map(|c| FieldError::invalid(path.child("annotations"), key.as_str(), c)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST_ANNOTATIONS {
        errors.push(FieldError::too_long(path.child("annotations"), MOST_ANNOTATIONS as i64));
    }
    errors.extend(validate_owners(object));
    errors.extend(validate_finalizers(object));
    errors
}

fn validate_owners(object: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata").child("ownerReferences");
    let list = field(object, "ownerReferences").and_then(Value::as_array);
    let list = list.map_or(&[][..], Vec::as_slice);
    let mut errors = Vec::new();
    for (at, owner) in list.iter().enumerate() {
        let path = path.index(at);
        let text = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
        let api_version = text("apiVersion");
        if api_version.is_empty() || api_version.ends_with('/') {
            errors.push(FieldError::invalid(
                path.child("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if text(name).is_empty() {
                errors.push(FieldError::invalid(path.child(name), "", "must not be empty"));
            }
        }
        if (api_version, text("kind")) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&path, BadValue::Text(owner_text(owner)), detail));
        }
    }
    let controllers: Vec<String> = list
        .iter()
        .filter(|o| o.get("controller").and_then(Value::as_bool) == Some(true))
        .map(|o| {
            format!("{}/{}", o["kind"].as_str().unwrap_or_default(), o["name"].as_str().unwrap_or_default())
        })
        .collect();
    if let [first, second, ..] = &controllers[..] {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        let all = list.iter().map(owner_text).collect::<Vec<_>>().join(",");
        errors.push(FieldError::invalid(&path, BadValue::Text(format!("[{all}]")), detail));
    }
    errors
}

/// An owner reference with its fields in the order of the API definition, as messages show it.
fn owner_text(owner: &Value) -> String {
    let fields = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let fields = fields.iter().filter_map(|f| owner.get(*f).map(|v| format!("\"{f}\":{}", go::json(v))));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn validate_finalizers(object: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata").child("finalizers");
    let finalizers = finalizers(object);
    let mut errors = Vec::new();
    for finalizer in &finalizers {
        let complaints = labels::qualified_name(finalizer).into_iter();
        errors.extend(complaints.map(|c| FieldError::invalid(&path, *finalizer, c)));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer foregroundDeletion and orphan cannot be both set";
        let all: Vec<&str> = finalizers.clone();
        errors.push(FieldError::invalid(&path, Value::from(all), detail));
    }
    errors
}

/// The groups whose objects may have finalizers without a domain: those of the API's own machinery.
const LOOSE_GROUPS: [&str; 4] =
    ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];

/// Finalizers of a built-in kind that are neither the API's own nor say whose they are.
pub(super) fn unqualified_finalizers(group: &str, object: &Value) -> Vec<FieldError> {
    if LOOSE_GROUPS.contains(&group) {
        return Vec::new();
    }
    let path = Path::new("metadata").child("finalizers");
    let finalizers = finalizers(object).into_iter().enumerate();
    finalizers.filter_map(|(at, finalizer)| unqualified_finalizer(path.index(at), finalizer)).collect()
}

/// What is wrong with a finalizer that has no domain.
pub(crate) fn unqualified_finalizer(path: impl Into<Path>, finalizer: &str) -> Option<FieldError> {
    let known =
        finalizer.contains('/') || ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer);
    let detail = "name is neither a standard finalizer name nor is it fully qualified";
    (!known).then(|| FieldError::invalid(path, finalizer, detail))
}

/// Takes over from the stored object what an update cannot change.
pub(super) fn carry_over(object: &mut Value, old: &Value) {
    let old_metadata = old.get("metadata").and_then(Value::as_object);
    let had = |name: &str| old_metadata.and_then(|m| m.get(name)).filter(|v| !v.is_null()).cloned();
    let metadata = of(object);
    metadata.remove("selfLink");
    match had("generation") {
        Some(generation) => metadata.insert("generation".to_owned(), generation),
        None => metadata.remove("generation"),
    };
    if metadata.get("uid").and_then(Value::as_str).is_none_or(str::is_empty)
        && let Some(uid) = had("uid")
    {
        metadata.insert("uid".to_owned(), uid);
    }
    for name in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = had(name) {
            metadata.insert(name.to_owned(), value);
        }
    }
    if !metadata.contains_key("deletionGracePeriodSeconds")
        && let Some(value) = had("deletionGracePeriodSeconds")
    {
        metadata.insert("deletionGracePeriodSeconds".to_owned(), value);
    }
}

/// What is wrong with the metadata of an update.
pub(super) fn validate_update(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_deleting(old) {
        let had = finalizers(old);
        let new: Vec<String> =
            finalizers(object).into_iter().filter(|f| !had.contains(f)).map(go::quote).collect();
        if !new.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let of = |o: &Value| o.get("metadata").and_then(|m| m.get(name)).cloned().unwrap_or(Value::Null);
        let (new, was) = (of(object), of(old));
        if new != was {
            errors.push(FieldError::invalid(Path::new("metadata").child(name), new, "field is immutable"));
        }
    }
    errors.extend(validate_common(object));
    errors
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::strategy::Generic;
    use serde_json::json;

    #[test]
    fn names_are_generated() {
        let mut object = json!({"metadata": {"generateName": "a".repeat(70)}});
        generate_name(&mut object);
        let name = text(&object, "name");
        assert_eq!(name.len(), 63);
        let mut named = json!({"metadata": {"generateName": "a-", "name": "b"}});
        generate_name(&mut named);
        assert_eq!(text(&named, "name"), "b");
    }

    #[test]
    fn rules() {
        let check = |metadata: Value, expected: &[&str]| {
            let object = json!({"metadata": metadata});
            let got: Vec<String> =
                validate(&object, true, &Generic).iter().map(ToString::to_string).collect();
            assert_eq!(got.len(), expected.len(), "{got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert!(got.starts_with(expected), "{got}");
            }
        };
        check(json!({"name": "a", "namespace": "n"}), &[]);
        check(
            json!({"name": "", "namespace": "n"}),
            &["metadata.name: Required value: name or generateName is required"],
        );
        check(json!({"name": "a"}), &["metadata.namespace: Required value"]);
        check(
            json!({"name": "a", "namespace": "n", "labels": {"a b": "c d"}}),
            &["metadata.labels: Invalid value: \"a b\"", "metadata.labels: Invalid value: \"c d\""],
        );
        check(
            json!({"name": "a", "namespace": "n", "finalizers": ["x y"]}),
            &["metadata.finalizers: Invalid value: \"x y\""],
        );
        check(
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
            &["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
        );
    }

    #[test]
    fn updates() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "generation": 3,
            "deletionTimestamp": "d", "deletionGracePeriodSeconds": 0, "finalizers": ["a/b"]}});
        let mut new = json!({"metadata": {"name": "a", "generation": 9, "finalizers": ["a/b", "c/d"]}});
        carry_over(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
        let errors = validate_update(&new, &old);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().ends_with("found new finalizers []string{\"c/d\"}"), "{}", errors[0]);
        new["metadata"]["uid"] = "other".into();
        new["metadata"]["finalizers"] = json!([]);
        assert_eq!(
            validate_update(&new, &old)[0].to_string(),
            "metadata.uid: Invalid value: \"other\": field is immutable"
        );
    }
}
