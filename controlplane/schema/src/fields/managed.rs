//! `metadata.managedFields`: who set which fields, by which kind of request, at which version and subresource.

use super::set::Set;
use serde_json::{Map, Value};

/// How a manager set its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Any other write.
    Update,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The manager's name.
    pub manager: String,
    /// How it wrote.
    pub operation: Operation,
    /// The API version it wrote, `GROUP/VERSION`.
    pub api_version: String,
    /// The subresource it wrote; empty for the object itself.
    pub subresource: String,
    /// RFC 3339; when its fields last changed.
    pub time: Option<String>,
    /// The fields.
    pub fields: Set,
}

impl Entry {
    /// Whether two entries are of the same manager. An applier is the same at every version.
    pub(crate) fn same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as conflict messages name it.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Every manager of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managed {
    /// Their entries.
    pub entries: Vec<Entry>,
}

/// So many managers by update are kept apart; the oldest beyond it are merged into one.
const MAX_UPDATERS: usize = 10;
/// The name of the merged ones.
pub(super) const ANCIENT: &str = "ancient-changes";

impl Managed {
    /// Reads `metadata.managedFields`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(list: &Value) -> Result<Self, String> {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(entry).collect::<Result<Vec<_>, _>>().map(|entries| Self { entries })
    }

    /// Takes what [`Self::into_json`] has written, without looking at every field.
    pub(crate) fn from_stored(list: Value) -> Result<Self, String> {
        let Value::Array(items) = list else { return Ok(Self::default()) };
        let trusted = |mut item: Value| {
            let fields = item.get_mut("fieldsV1").map(Value::take).unwrap_or_default();
            entry(&item).map(|entry| Entry { fields: Set::trusted(fields), ..entry })
        };
        items.into_iter().map(trusted).collect::<Result<Vec<_>, _>>().map(|entries| Self { entries })
    }

    /// Writes it, appliers first, then by time and name.
    pub fn to_json(&self) -> Value {
        self.clone().into_json()
    }

    /// Writes it, appliers first, then by time and name.
    pub fn into_json(self) -> Value {
        let mut entries: Vec<Entry> = self.entries.into_iter().filter(|e| !e.fields.is_empty()).collect();
        entries.sort_by(|a, b| {
            (a.operation, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
                b.operation,
                &b.time,
                &b.manager,
                &b.api_version,
                &b.subresource,
            ))
        });
        let items = entries.into_iter().map(|entry| {
            let mut item = Map::new();
            let mut put = |name: &str, value: Value| drop(item.insert(name.to_owned(), value));
            put("manager", Value::String(entry.manager));
            let operation = match entry.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            };
            put("operation", Value::from(operation));
            put("apiVersion", Value::String(entry.api_version));
            put("fieldsType", Value::from("FieldsV1"));
            put("fieldsV1", entry.fields.into_json());
            if let Some(time) = entry.time {
                put("time", Value::String(time));
            }
            if !entry.subresource.is_empty() {
                put("subresource", Value::String(entry.subresource));
            }
            Value::Object(item)
        });
        Value::Array(items.collect())
    }

    /// The entry of a manager.
    pub(crate) fn find(&self, who: &Entry) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.same_manager(who))
    }

    /// Takes the entry of a manager out.
    pub(crate) fn remove(&mut self, who: &Entry) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.same_manager(who))?;
        Some(self.entries.remove(at))
    }

    /// Puts an entry in the place of the manager's earlier one.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.entries.retain(|other| !other.same_manager(&entry));
        if !entry.fields.is_empty() {
            self.entries.push(entry);
        }
    }

    /// Merges the oldest updaters when there are too many.
    pub(crate) fn cap(&mut self) {
        if self.entries.len() <= MAX_UPDATERS {
            return;
        }
        let mut updaters: Vec<Entry> = Vec::new();
        let mut others: Vec<Entry> = Vec::new();
        for entry in self.entries.drain(..) {
            if entry.operation == Operation::Update && entry.subresource.is_empty() {
                updaters.push(entry)
            } else {
                others.push(entry)
            }
        }
        updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        let mut ancient: Vec<Entry> = Vec::new();
        let mut young = updaters.into_iter();
        while ancient.len() + young.len() > MAX_UPDATERS {
            let Some(oldest) = young.next() else { break };
            match ancient.iter_mut().find(|e| e.api_version == oldest.api_version) {
                Some(merged) => {
                    merged.fields.add(&oldest.fields);
                    merged.time = oldest.time.max(merged.time.take());
                }
                None => ancient.push(Entry { manager: ANCIENT.to_owned(), ..oldest }),
            }
        }
        ancient.extend(young);
        self.entries = others;
        self.entries.extend(ancient);
    }
}

fn entry(item: &Value) -> Result<Entry, String> {
    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
    let operation = match item["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        other => return Err(format!("invalid operation {:?}", other.unwrap_or_default())),
    };
    let fields = match &item["fieldsV1"] {
        Value::Null => Set::default(),
        fields => Set::from_json(fields)?,
    };
    Ok(Entry {
        manager: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: item["time"].as_str().map(str::to_owned),
        fields,
    })
}
