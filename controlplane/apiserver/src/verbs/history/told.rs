//! States of an object as a story: what each write was, whose, when, and which fields it changed; as JSON and as a table.
//!
//! Pure. The form is `ObjectHistory` of `pagurus.io/v1alpha1`, see ARCHITECTURE.md.

use super::Author;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_schema::fields::{self, Managed};
use pagurus_controlplane_schema::table::{Table, TypeId};
use serde_json::{Map, Value, json};

/// What the server itself keeps in the metadata: it says nothing of what somebody did.
const OWN: [&str; 7] =
    ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "name", "namespace"];
/// How much of a value a table's cell shows, in characters.
const CELL: usize = 60;

/// An object as it was written once.
#[derive(Debug)]
pub(super) struct State {
    /// The revision of the write.
    pub revision: u64,
    /// How often it had been written since it was created: 1 for the creation, 0 for a deletion.
    pub version: u64,
    /// The object; null after a deletion.
    pub object: Value,
    /// Who wrote it, where the object does not tell it.
    pub author: Option<Author>,
}

/// States in a row, the newest first.
#[derive(Debug, Default)]
pub(super) struct History {
    pub states: Vec<State>,
    /// Whether the store has still older ones.
    pub more: bool,
    /// What was overwritten or deleted up to this revision is forgotten.
    pub compacted: u64,
}

/// What a write was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Created,
    Modified,
    Deleted,
    /// The state before it is forgotten, so nobody can say what it changed.
    Retained,
}

/// One write.
#[derive(Debug)]
struct Item {
    revision: u64,
    kind: Kind,
    time: Option<String>,
    uid: String,
    managers: Vec<Manager>,
    changes: Vec<Changed>,
}

#[derive(Debug)]
struct Manager {
    name: String,
    operation: String,
    api_version: String,
    subresource: String,
    /// The user's name, of the author of a deletion.
    user: String,
}

#[derive(Debug)]
struct Changed {
    place: String,
    old: Option<Value>,
    new: Option<Value>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Told {
    items: Vec<Item>,
    compacted: u64,
    /// How many writes of the oldest told object are forgotten.
    forgotten: u64,
    /// Where to go on.
    next: Option<u64>,
}

/// Tells the `limit` newest states; the one after them is needed to tell what the last of them changed.
pub(super) fn tell(table: &Table, id: TypeId, history: &History, limit: usize) -> Told {
    let states = &history.states;
    // What was read last has nothing to be compared with, if there is more.
    let count =
        if history.more { limit.min(states.len().saturating_sub(1)).max(1) } else { limit.min(states.len()) };
    let items: Vec<Item> = (0..count).map(|at| item(table, id, &states[at], states.get(at + 1))).collect();
    let next = (count < states.len() || history.more).then(|| states[count - 1].revision);
    let oldest = states.last().filter(|_| next.is_none());
    let forgotten = oldest.map_or(0, |state| state.version.saturating_sub(1));
    Told { items, compacted: history.compacted, forgotten, next }
}

fn item(table: &Table, id: TypeId, state: &State, older: Option<&State>) -> Item {
    let object = &state.object;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let nothing = json!({"metadata": {}});
    let (kind, before) = match (state.version, older) {
        (0, _) => (Kind::Deleted, None),
        (1, _) => (Kind::Created, Some(&nothing)),
        (_, Some(older)) if older.version > 0 => (Kind::Modified, Some(&older.object)),
        _ => (Kind::Retained, None),
    };
    let mut found = before.map_or_else(Vec::new, |before| fields::changes(table, id, before, object));
    found.retain(|change| !is_own(&change.path));
    let managed = |object: &Value| {
        Managed::from_json(object.pointer("/metadata/managedFields").unwrap_or(&Value::Null))
            .unwrap_or_default()
    };
    let now = managed(object);
    let wrote = before.map_or_else(Vec::new, |before| fields::writers(&managed(before), &now, &found));
    let author = state.author.as_ref();
    let time =
        wrote.iter().filter_map(|entry| entry.time.clone()).chain(author.map(|a| a.time.clone())).max();
    Item {
        revision: state.revision,
        kind,
        time: if kind == Kind::Created { text("/metadata/creationTimestamp").or(time) } else { time },
        uid: text("/metadata/uid")
            .or_else(|| older?.object.pointer("/metadata/uid")?.as_str().map(str::to_owned))
            .unwrap_or_default(),
        managers: wrote.into_iter().map(Manager::of_fields).chain(author.map(Manager::of_author)).collect(),
        changes: found
            .into_iter()
            .map(|c| Changed { place: c.place(), old: c.old.cloned(), new: c.new.cloned() })
            .collect(),
    }
}

/// Whether nobody but the server writes there.
fn is_own(path: &[String]) -> bool {
    match path {
        [first] => matches!(first.as_str(), "f:apiVersion" | "f:kind"),
        [first, second, ..] => {
            first == "f:metadata" && second.strip_prefix("f:").is_some_and(|name| OWN.contains(&name))
        }
        [] => false,
    }
}

impl Told {
    fn metadata(&self) -> Value {
        let newest = self.items.first().map_or(0, |item| item.revision);
        let mut metadata = json!({"resourceVersion": newest.to_string()});
        if let Some(next) = self.next {
            metadata["continue"] = next.to_string().into();
        }
        metadata
    }

    /// As `ObjectHistory` of an object of this version and kind.
    pub(super) fn to_json(&self, api_version: &str, kind: &str, key: &ObjectKey) -> Value {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "name": key.name});
        if let Some(namespace) = &key.namespace {
            object["namespace"] = namespace.as_str().into();
        }
        let items: Vec<Value> = self.items.iter().map(Item::to_json).collect();
        let mut out = json!({
            "kind": "ObjectHistory", "apiVersion": "pagurus.io/v1alpha1", "metadata": self.metadata(),
            "object": object, "compactedResourceVersion": self.compacted.to_string(), "items": items,
        });
        if self.forgotten > 0 {
            out["forgottenWrites"] = self.forgotten.into();
        }
        out
    }

    /// As a `Table` of that version of `meta.k8s.io`.
    pub(super) fn to_table(&self, version: &str, key: &ObjectKey) -> Value {
        let column = |name: &str, kind: &str, priority: u8, text: &str| json!({"name": name, "type": kind, "format": "", "description": text, "priority": priority});
        let columns = [
            column("Revision", "string", 0, "The resourceVersion that the write made."),
            column("Time", "string", 0, "When, as managedFields tell it."),
            column(
                "Event",
                "string",
                0,
                "Created, Modified, Deleted, or Retained: the state before it is forgotten.",
            ),
            column(
                "By",
                "string",
                0,
                "The field managers that wrote, as managedFields tell it, and who deleted.",
            ),
            column("Fields", "string", 0, "Which fields came, changed or went."),
            column("Changes", "string", 1, "The fields with their values before and after."),
        ];
        let rows: Vec<Value> = self.items.iter().map(|item| item.to_row(version, key)).collect();
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": self.metadata(),
            "columnDefinitions": columns, "rows": rows,
        })
    }
}

impl Item {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("resourceVersion", self.revision.to_string().into());
        put("event", self.kind.as_str().into());
        if let Some(time) = &self.time {
            put("time", time.as_str().into());
        }
        if !self.uid.is_empty() {
            put("uid", self.uid.as_str().into());
        }
        put("managers", self.managers.iter().map(Manager::to_json).collect());
        put("changes", self.changes.iter().map(Changed::to_json).collect());
        Value::Object(out)
    }

    fn to_row(&self, version: &str, key: &ObjectKey) -> Value {
        let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
        let join = |parts: Vec<String>, by: &str| or_none(parts.join(by));
        let cells = json!([
            self.revision.to_string(),
            self.time.as_deref().unwrap_or("<unknown>"),
            self.kind.as_str(),
            join(self.managers.iter().map(Manager::shown).collect(), ","),
            join(self.changes.iter().map(|c| c.place.clone()).collect(), ","),
            join(self.changes.iter().map(Changed::shown).collect(), "; "),
        ]);
        let mut metadata =
            json!({"name": key.name, "uid": self.uid, "resourceVersion": self.revision.to_string()});
        if let Some(namespace) = &key.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let api_version = format!("meta.k8s.io/{version}");
        json!({"cells": cells, "object": {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata}})
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Created => "Created",
            Kind::Modified => "Modified",
            Kind::Deleted => "Deleted",
            Kind::Retained => "Retained",
        }
    }
}

impl Manager {
    fn of_fields(entry: &fields::Entry) -> Self {
        let operation = match entry.operation {
            fields::Operation::Apply => "Apply",
            fields::Operation::Update => "Update",
        };
        Self {
            name: entry.manager.clone(),
            operation: operation.to_owned(),
            api_version: entry.api_version.clone(),
            subresource: entry.subresource.clone(),
            user: String::new(),
        }
    }

    fn of_author(author: &Author) -> Self {
        Self {
            name: author.manager.clone(),
            operation: author.operation.clone(),
            api_version: String::new(),
            subresource: String::new(),
            user: author.user.clone(),
        }
    }

    fn to_json(&self) -> Value {
        let mut out = json!({"manager": self.name, "operation": self.operation});
        let more =
            [("apiVersion", &self.api_version), ("subresource", &self.subresource), ("user", &self.user)];
        for (name, value) in more {
            if !value.is_empty() {
                out[name] = value.as_str().into();
            }
        }
        out
    }

    fn shown(&self) -> String {
        match (self.subresource.as_str(), self.user.as_str()) {
            ("", "") => format!("{} ({})", self.name, self.operation),
            ("", user) => format!("{} ({} as {user})", self.name, self.operation),
            (sub, _) => format!("{} ({} of {sub})", self.name, self.operation),
        }
    }
}

impl Changed {
    fn to_json(&self) -> Value {
        let mut out = json!({"path": self.place});
        for (name, value) in [("old", &self.old), ("new", &self.new)] {
            if let Some(value) = value {
                out[name] = value.clone();
            }
        }
        out
    }

    fn shown(&self) -> String {
        let short = |value: &Option<Value>| match value {
            None => "<none>".to_owned(),
            Some(value) => {
                let text = value.to_string();
                match text.char_indices().nth(CELL) {
                    Some((end, _)) => format!("{}...", &text[..end]),
                    None => text,
                }
            }
        };
        format!("{}: {} -> {}", self.place, short(&self.old), short(&self.new))
    }
}

#[cfg(test)]
mod tests;
