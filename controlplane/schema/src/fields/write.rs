//! The two ways a write changes `metadata.managedFields`: update and apply.

use super::managed::{Entry, Managed, Operation};
use super::merge::{merge, nothing};
use super::remove::{hollow, remove};
use super::set::{Set, shown};
use super::versions::{Form, Seen};
use super::view::{Place, TypedError};
use crate::normalize;
use crate::table::{Table, TypeId};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Where in the metadata the managers are listed.
const LIST: &str = "managedFields";

/// The annotation in which client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Nobody manages these: they name the object or are the server's own.
static UNMANAGED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The manager's name.
    pub manager: &'a str,
    /// The version of the request, `GROUP/VERSION`.
    pub api_version: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, whole seconds.
    pub now: &'a str,
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: Set) -> Entry {
        Entry {
            manager: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now.to_owned()),
            fields,
        }
    }
}

/// A field that an apply wants and somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as messages name it.
    pub owner: String,
    /// The field, as messages name it.
    pub path: String,
}

/// Why an apply is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The configuration does not fit its type.
    #[error(transparent)]
    Typed(#[from] TypedError),
    /// Others own fields of it.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.owner, only.path);
    }
    let mut owners: Vec<&str> = conflicts.iter().map(|c| c.owner.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut lines = Vec::new();
    for owner in owners {
        lines.push(format!("conflicts with {owner}:"));
        lines.extend(conflicts.iter().filter(|c| c.owner == owner).map(|c| format!("- {}", c.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The list of managed fields in an object.
fn list_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get(LIST)
}

/// Takes the list of managed fields out of an object.
fn take_list(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(LIST)
}

/// An object of a type with nothing set.
fn empty(table: &Table, id: TypeId) -> Value {
    let mut object = nothing();
    normalize(table, id, &mut object);
    object
}

fn set_managed(object: &mut Value, managed: Managed) {
    let list = managed.into_json();
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else { return };
    if list.as_array().is_some_and(|l| !l.is_empty()) {
        metadata.insert(LIST.to_owned(), list);
    } else {
        metadata.remove(LIST);
    }
}

/// The managers of a live object, whose list was written here.
fn managers(live: Option<&Value>) -> Managed {
    let list = live.and_then(list_of).cloned();
    list.and_then(|list| Managed::from_stored(list).ok()).unwrap_or_default()
}

/// What an update goes out from: the list the request carries, if it carries one that makes sense, else the live object's. An empty
/// list, or a list of one empty entry, starts afresh.
fn managed_before(live: Option<&Value>, given: Option<Value>, subresource: bool) -> Managed {
    match given {
        Some(given) if live.and_then(list_of) == Some(&given) => {
            Managed::from_stored(given).unwrap_or_else(|_| managers(live))
        }
        Some(Value::Array(list)) if !subresource => {
            if list.iter().all(|item| item.as_object().is_some_and(Map::is_empty)) {
                return Managed::default();
            }
            Managed::from_json(&Value::Array(list)).unwrap_or_else(|_| managers(live))
        }
        _ => managers(live),
    }
}

/// Takes changed and removed fields from the managers that had them, each told in the version the manager wrote. Whoever wrote a version
/// that is no more has nothing left. `who` keeps its own, and wants to know what was taken from whom.
fn take(managed: &mut Managed, seen: &mut Seen<'_>, who: Option<&Entry>) -> Vec<(String, Set)> {
    let mut taken = Vec::new();
    for entry in &mut managed.entries {
        if who.is_some_and(|who| entry.same_manager(who)) {
            continue;
        }
        let Some(comparison) = seen.comparison(&entry.api_version) else {
            entry.fields = Set::default();
            continue;
        };
        if who.is_some() {
            let conflict = entry.fields.intersection(&comparison.changed);
            if !conflict.is_empty() {
                taken.push((entry.shown(), conflict));
            }
        }
        entry.fields.subtract(&comparison.changed);
        entry.fields.subtract(&comparison.removed);
    }
    managed.entries.retain(|entry| !entry.fields.is_empty());
    taken
}

/// Gives what an update changed to its writer. `reset` are the fields that this kind of request cannot set.
pub fn update(form: &Form<'_>, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>, reset: &Set) {
    let given = take_list(new);
    let mut managed = managed_before(live, given, !writer.subresource.is_empty());
    let before = live.map_or_else(|| Cow::Owned(empty(form.table, form.id)), Cow::Borrowed);
    let mut seen = Seen::new(form, writer.api_version, &before, new, reset);
    take(&mut managed, &mut seen, None);
    let mut fields = seen.into_changed();
    fields.subtract(&UNMANAGED);
    if !fields.is_empty() {
        let mut entry = writer.entry(Operation::Update, Set::default());
        if let Some(mut earlier) = managed.remove(&entry) {
            earlier.fields.add(&fields);
            fields = earlier.fields;
        }
        entry.fields = fields;
        managed.entries.push(entry);
    }
    for entry in &mut managed.entries {
        entry.fields.subtract(&UNMANAGED);
    }
    managed.cap();
    set_managed(new, managed);
}

/// The live object with a configuration applied. Without `force`, fields that others own with other values are a conflict.
///
/// # Errors
/// The configuration does not fit its type, or conflicts.
pub fn apply(
    form: &Form<'_>,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
    reset: &Set,
) -> Result<Value, ApplyError> {
    let place = form.place();
    let mut config = Cow::Borrowed(config);
    if list_of(&config).is_some() {
        take_list(config.to_mut());
    }
    let mut fields = place.fields_of(&config)?;
    fields.subtract(&UNMANAGED);
    fields.retain_outside(reset);
    let before = live.map_or_else(|| Cow::Owned(empty(form.table, form.id)), Cow::Borrowed);
    let mut managed = managers(live);
    let who = writer.entry(Operation::Apply, Set::default());
    let last = managed.remove(&who);
    let mut new = merge(&place, before.clone().into_owned(), &config);
    take_list(&mut new);
    // Who applies at least what he applied before leaves nothing out.
    let left_out =
        |last: &&Entry| last.api_version != who.api_version || !last.fields.difference(&fields).is_empty();
    let pruned_for = last.as_ref().filter(left_out).cloned();
    managed.put(Entry { fields, ..who.clone() });
    if let Some(last) = pruned_for {
        new = prune(form, &new, &managed, &who, &last)?;
    }
    normalize(form.table, form.id, &mut new);
    let mut seen = Seen::new(form, writer.api_version, &before, &new, reset);
    let taken = take(&mut managed, &mut seen, Some(&who));
    refuse(&place, live, writer, force, &taken)?;
    let same = live.is_some_and(|live| same_but_list(live, &new));
    let entry = managed.entries.iter_mut().find(|entry| entry.same_manager(&who));
    if let (true, Some(entry)) = (same, entry) {
        // Nothing changed: the time stays that of the last change, if there was one.
        entry.time = last.and_then(|last| last.time);
    }
    keep_last_applied(live, &config, writer, &mut new);
    managed.cap();
    set_managed(&mut new, managed);
    Ok(new)
}

/// Whether two objects are equal but for the list of managed fields, which the second one does not have.
fn same_but_list(with: &Value, without: &Value) -> bool {
    let (Some(a), Some(b)) = (with.as_object(), without.as_object()) else { return with == without };
    let metadata = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            a.len() - usize::from(a.contains_key(LIST)) == b.len()
                && b.iter().all(|(name, value)| a.get(name) == Some(value))
        }
        _ => a == b,
    };
    a.len() == b.len()
        && a.iter().all(|(name, value)| match b.get(name) {
            Some(other) if name == "metadata" => metadata(value, other),
            other => other == Some(value),
        })
}

/// Refuses to take what others own, unless forced or it was client-side apply's own.
fn refuse(
    place: &Place<'_>,
    live: Option<&Value>,
    writer: &Writer<'_>,
    force: bool,
    taken: &[(String, Set)],
) -> Result<(), ApplyError> {
    if force {
        return Ok(());
    }
    // A user who moves from client-side to server-side apply goes on owning what the annotation says was applied.
    let mine =
        if writer.manager == "kubectl" { live.and_then(|live| last_applied(place, live)) } else { None };
    let mut conflicts = Vec::new();
    for (owner, set) in taken {
        let set = mine.as_ref().map_or_else(|| set.clone(), |mine| set.difference(mine));
        conflicts.extend(set.paths().iter().map(|path| Conflict { owner: owner.clone(), path: shown(path) }));
    }
    if conflicts.is_empty() { Ok(()) } else { Err(ApplyError::Conflicts(conflicts)) }
}

fn last_applied(place: &Place<'_>, live: &Value) -> Option<Set> {
    let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    place.fields_of(&serde_json::from_str(text).ok()?).ok()
}

/// Keeps client-side apply's annotation true when `kubectl apply --server-side` writes an object that has one.
fn keep_last_applied(live: Option<&Value>, config: &Value, writer: &Writer<'_>, new: &mut Value) {
    let has = live.is_some_and(|live| {
        live.pointer("/metadata/annotations").is_some_and(|a| a.get(LAST_APPLIED).is_some())
    });
    if writer.manager != "kubectl" || !has {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(annotations) = new.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{config}\n")));
    }
}

/// Takes out what the manager applied before, left out now, and nobody else owns. What was applied before is told in the version it was
/// applied in, and what somebody owns in that of its owner.
fn prune(
    form: &Form<'_>,
    merged: &Value,
    managed: &Managed,
    who: &Entry,
    last: &Entry,
) -> Result<Value, ApplyError> {
    let now = who.api_version.as_str();
    // Of a version that is no more nothing can be told, and nothing is taken out.
    let Some(there) = form.at(now, &last.api_version) else { return Ok(merged.clone()) };
    let place = there.place();
    let Some(merged_there) = form.converted(merged, now, &last.api_version) else {
        return Ok(merged.clone());
    };
    let fields = members(&place, &last.fields);
    let all = members(&place, &place.fields_of(&merged_there)?);
    let mut pruned = hollow(&place, &merged_there, &fields);
    // What somebody owns stays, this manager's new configuration included.
    let mut versions: Vec<&str> = managed.entries.iter().map(|e| e.api_version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if !versions.contains(&last.api_version.as_str()) {
        versions.insert(0, &last.api_version);
    }
    for version in versions {
        let of_version = managed.entries.iter().filter(|entry| entry.api_version == version);
        pruned = with_owned(form, merged, pruned, (now, &last.api_version, version), of_version)?;
    }
    // So does what the manager never applied, though it lies in something it did.
    let left = members(&place, &place.fields_of(&pruned)?);
    let pruned = remove(&place, &merged_there, &all.difference(&left).intersection(&fields));
    Ok(form.converted(&pruned, &last.api_version, now).unwrap_or(pruned))
}

/// Puts back what owners at one version have of the merged object. `pruned` is in the version it was applied in, and stays so.
fn with_owned<'e>(
    form: &Form<'_>,
    merged: &Value,
    pruned: Value,
    (now, last, version): (&str, &str, &str),
    entries: impl Iterator<Item = &'e Entry>,
) -> Result<Value, ApplyError> {
    let (Some(there), Some(merged), Some(seen)) =
        (form.at(now, version), form.converted(merged, now, version), form.converted(&pruned, last, version))
    else {
        return Ok(pruned);
    };
    let place = there.place();
    let owned = entries.fold(UNMANAGED.clone(), |owned, entry| owned.union(&members(&place, &entry.fields)));
    let all = members(&place, &place.fields_of(&merged)?);
    let left = members(&place, &place.fields_of(&seen)?);
    let kept = hollow(&place, &merged, &all.difference(&left.union(&owned)));
    Ok(form.converted(&kept, version, last).unwrap_or(pruned))
}

/// The set with every declared field on the way to a member a member itself.
fn members(place: &Place<'_>, set: &Set) -> Set {
    set.with_members(&|path, member| member || place.declares(path))
}
