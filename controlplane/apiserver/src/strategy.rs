//! What a kind does differently from every other kind: the `Strategy` of its resource, called by the engine at fixed
//! steps of a write. The methods' own bodies are the generic behaviour.
//!
//! Strategies are pure: objects in, objects and errors out. They must not know the store, the caches or HTTP. Objects
//! are in the form of the storage version, whatever version the request used (`default` alone sees the request's).

use std::time::Duration;

use jiff::Timestamp;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::labels;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::table::Resource;
use serde_json::Value;

use crate::allocate::{Allocators, Reservation};
use crate::registry::FieldName;
use crate::request::UserInfo;

/// What a strategy may know of the request beside the objects.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The resource written to, in its storage version; a custom one in that of the request, since what it has beside its objects
    /// is told for each.
    pub resource: &'a Resource,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The time of the request.
    pub now: Timestamp,
}

/// The particular rules of one resource.
pub trait Strategy: Send + Sync + 'static {
    /// Fills in what the request left open, beyond the table's static defaults. Also run on patched objects.
    fn default(&self, _object: &mut Value) {}

    /// Sets what the server alone decides in a new object. Generic: a status is dropped where there is a subresource for it.
    fn prepare_create(&self, context: &Context<'_>, object: &mut Value) {
        drop_status(context.resource, object);
    }

    /// Takes back what an update may not change silently. Generic: the stored status stays.
    fn prepare_update(&self, context: &Context<'_>, object: &mut Value, old: &Value) {
        keep_status(context.resource, object, old);
    }

    /// The same for an update through a subresource. Generic: for every one, all but metadata and the part of
    /// that name (`status`) stays as stored.
    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        keep_all_but(object, old, &["metadata", sub]);
    }

    /// What is wrong with a new object. Metadata and the name have been looked at.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with an update. Generic: what would be wrong with the object if it were new.
    fn validate_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate(object)
    }

    /// What is wrong with an update through a subresource.
    fn validate_subresource_update(&self, _sub: &str, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Texts for the client's `Warning` headers.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// What to tell whoever uses the resource in a version at all, if that is going away.
    fn deprecation(&self, _version: &str) -> Option<&str> {
        None
    }

    /// The definition behind a custom resource, whose objects are of no type of the program.
    fn custom(&self) -> Option<&crate::crd::Custom> {
        None
    }

    /// The present form of a stored object, if it was stored in an older one.
    fn stored_form(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// What is wrong with a name; with `prefix` it is a `generateName`.
    fn name_errors(&self, name: &str, prefix: bool) -> Vec<String> {
        let name = if prefix { labels::mask_trailing_dash(name) } else { name.to_owned() };
        labels::dns_subdomain(&name)
    }

    /// The fields that field selectors may name, besides `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &[FieldName] {
        &[]
    }

    /// Those of them that requests for a version may name. Generic: all.
    fn selectable_in(&self, _version: &str) -> &[FieldName] {
        self.selectable_fields()
    }

    /// What a group calls the selectable fields (name, field), where it has names of its own for them; others it does not know then.
    fn field_names(&self, _group: &str) -> &[(&str, &str)] {
        &[]
    }

    /// The value of a selectable field; `None` counts as empty.
    fn field(&self, _object: &Value, _name: &str) -> Option<String> {
        None
    }

    /// What OpenAPI documents say of the objects in a version, for kinds that the types of the program do not tell of: a schema as
    /// the kind's definition has it.
    fn published_schema(&self, _version: &str) -> Option<Value> {
        None
    }

    /// Annotations that stand for a field of the kind, and so are not among those of its metadata alone.
    fn field_annotations(&self) -> &'static [&'static str] {
        &[]
    }

    /// The cells of the object's table row, one per column of the resource.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        generic_cells(object, now)
    }

    /// What a table's row says of the object beside its cells: a list of `TableRowCondition`.
    fn row_conditions(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// What a table's rows are ordered by before their names, where that is not by their names alone.
    fn row_order(&self) -> Option<fn(&Value) -> i64> {
        None
    }

    /// Whether `metadata.generation` counts the changes of the object (all but metadata and status).
    fn counts_generations(&self) -> bool {
        false
    }

    /// Whether the change from `old` to `object` is one that `metadata.generation` counts. Generic: anything outside
    /// metadata and status.
    fn generation_changes(&self, _resource: &Resource, object: &Value, old: &Value) -> bool {
        differs_outside(object, old, &["metadata", "status", "apiVersion", "kind"])
    }

    /// For kinds that are deleted in two steps: `Some(seconds)` marks the object and keeps it until someone confirms with
    /// zero seconds; `None` deletes it at once. `requested` is what the client asked for.
    fn graceful_delete(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something besides `metadata.finalizers` holds an object that is being deleted (a namespace's own finalizers).
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Told when an object without graceful deletion is marked as being deleted, after `metadata` says so.
    fn mark_deleted(&self, _object: &mut Value) {}

    /// Whether the answer to a deletion is the object that was; a `Status` otherwise.
    fn returns_deleted(&self, resource: &Resource) -> bool {
        RETURNED.contains(&(&resource.group, &resource.plural))
    }

    /// The fields that a write of the object (`sub` empty) or through a subresource cannot set, so that nobody comes to own
    /// them by it. Generic: the status is the `status` subresource's, all else is not.
    fn reset_fields(&self, resource: &Resource, sub: &str) -> &'static [&'static str] {
        match sub {
            "status" => &["spec"],
            "" if resource.subresource("status").is_some() => &["status"],
            _ => &[],
        }
    }

    /// Whether dependents are left alone by default when the object is deleted.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// For how long objects are kept after their last write; for ever by default.
    fn time_to_live(&self) -> Option<Duration> {
        None
    }

    /// What to tell who deletes an object without a word on its dependents.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// Whether a `PUT` to a name that is not there creates the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether a `PUT` without resourceVersion is taken as "whatever is there now".
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Reserves what must be unique in the cluster (addresses, ports) for the object about to be stored, writing it into the
    /// object. The engine commits the reservation after the object is stored and drops it when it is not.
    fn reserve(
        &self,
        _allocators: &Allocators,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<Reservation, ApiError> {
        Ok(Reservation::default())
    }

    /// Whether the kind reserves anything; if not, `release` and `restore` are never called.
    fn reserves(&self) -> bool {
        false
    }

    /// Gives back what a deleted object had reserved.
    fn release(&self, _allocators: &Allocators, _object: &Value) {}

    /// Tells the allocators what a stored object holds, at start.
    fn restore(&self, _allocators: &Allocators, _object: &Value) {}
}

/// The resources whose deletion answers with the object.
const RETURNED: [(&str, &str); 16] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

/// The strategy of kinds without rules of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Generic;

impl Strategy for Generic {}

/// Removes the status of an object whose resource has a `status` subresource.
pub fn drop_status(resource: &Resource, object: &mut Value) {
    if resource.subresource("status").is_some()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
}

/// Puts the stored status in place of the object's, where the resource has a `status` subresource.
pub fn keep_status(resource: &Resource, object: &mut Value, old: &Value) {
    if resource.subresource("status").is_some() {
        keep(object, old, "status");
    }
}

/// Puts the stored value of a top-level field in place of the object's.
pub fn keep(object: &mut Value, old: &Value, field: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// Puts the stored object in place of the object, but for the named top-level fields.
pub fn keep_all_but(object: &mut Value, old: &Value, changed: &[&str]) {
    let mut kept = old.clone();
    if let (Some(to), Some(from)) = (kept.as_object_mut(), object.as_object_mut()) {
        for field in changed {
            match from.remove(*field) {
                Some(value) => to.insert((*field).to_owned(), value),
                None => to.remove(*field),
            };
        }
    }
    *object = kept;
}

/// Whether two objects differ in a top-level field that is not among `ignored`. An absent field equals an empty one.
pub fn differs_outside(a: &Value, b: &Value, ignored: &[&str]) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a != b };
    let one_sided = |x: &serde_json::Map<String, Value>, y: &serde_json::Map<String, Value>| {
        x.iter().any(|(k, v)| !ignored.contains(&k.as_str()) && !same(Some(v), y.get(k)))
    };
    one_sided(a, b)
        || b.iter().any(|(k, v)| !ignored.contains(&k.as_str()) && !a.contains_key(k) && !empty(v))
}

fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || (empty(a) && empty(b)),
        (Some(x), None) | (None, Some(x)) => empty(x),
        (None, None) => true,
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Name and creation time: the row of kinds that have no other columns.
pub fn generic_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    let text = |pointer: &str| object.pointer(pointer).cloned().unwrap_or(Value::Null);
    vec![text("/metadata/name"), text("/metadata/creationTimestamp")]
}
