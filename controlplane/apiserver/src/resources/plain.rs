//! A strategy put together from functions, for kinds whose peculiarities are few.

use jiff::Timestamp;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::labels;
use pagurus_controlplane_schema::table::Resource;
use serde_json::Value;

use super::fields::{Fields, same, set};
use crate::registry::FieldName;
use crate::strategy::{Context, Strategy, differs_outside, generic_cells, keep_all_but};

/// What such a kind does differently; fields left alone in [`Plain::NEW`] do as every kind does.
pub(crate) struct Plain {
    /// Fills in what the request left open.
    pub(crate) default: fn(&mut Value),
    /// The table row.
    pub(crate) cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// What rows are ordered by before their names.
    pub(crate) row_order: Option<fn(&Value) -> i64>,
    /// What is wrong with an object.
    pub(crate) validate: fn(&Value) -> Vec<FieldError>,
    /// What is wrong with a change (beside what is wrong with the object).
    pub(crate) change: fn(&Value, &Value) -> Vec<FieldError>,
    /// Whether an update is judged by `change` alone.
    pub(crate) change_alone: bool,
    /// What is wrong with a name.
    pub(crate) name: fn(&str, bool) -> Vec<String>,
    /// Texts for the client, of a new object or a changed one.
    pub(crate) warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    /// Whether changes are counted.
    pub(crate) generations: bool,
    /// Whether changes of labels are counted too.
    pub(crate) metadata_generations: bool,
    /// Whether a write of the status can touch nothing else, not even labels.
    pub(crate) status_alone: bool,
    /// Whether a `PUT` may create the object.
    pub(crate) create_on_update: bool,
    /// Whether a `PUT` needs no resourceVersion.
    pub(crate) unconditional_update: bool,
    /// Selectable fields; the value is the text (or number, or boolean) at that path.
    pub(crate) fields: &'static [FieldName],
}

/// A name that is a DNS subdomain.
pub(crate) fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        labels::dns_subdomain(&labels::mask_trailing_dash(name))
    } else {
        labels::dns_subdomain(name)
    }
}

impl Plain {
    /// Nothing peculiar.
    pub(crate) const NEW: Plain = Plain {
        default: |_| {},
        cells: generic_cells,
        row_order: None,
        validate: |_| Vec::new(),
        change: |_, _| Vec::new(),
        change_alone: false,
        name: subdomain,
        warnings: |_, _| Vec::new(),
        generations: false,
        metadata_generations: false,
        status_alone: false,
        create_on_update: false,
        unconditional_update: true,
        fields: &[],
    };
}

impl Strategy for Plain {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = if self.change_alone { Vec::new() } else { (self.validate)(object) };
        errors.extend((self.change)(object, old));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(object, old)
    }

    fn name_errors(&self, name: &str, prefix: bool) -> Vec<String> {
        (self.name)(name, prefix)
    }

    fn prepare_subresource_update(&self, _context: &Context<'_>, sub: &str, object: &mut Value, old: &Value) {
        keep_all_but(object, old, &["metadata", sub]);
        if self.status_alone && sub == "status" {
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                let value = old.at("metadata").at(field);
                set(&mut object["metadata"], field, (!value.is_null()).then(|| value.clone()));
            }
        }
    }

    fn reset_fields(&self, resource: &Resource, sub: &str) -> &'static [&'static str] {
        match sub {
            "status" if self.status_alone => &["spec", "metadata"],
            "status" => &["spec"],
            "" if resource.subresource("status").is_some() => &["status"],
            _ => &[],
        }
    }

    fn generation_changes(&self, _resource: &Resource, object: &Value, old: &Value) -> bool {
        differs_outside(object, old, &["metadata", "status", "apiVersion", "kind"])
            || (self.metadata_generations && !same(object.at("metadata.labels"), old.at("metadata.labels")))
    }

    fn selectable_fields(&self) -> &[FieldName] {
        self.fields
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        match object.at(name) {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }

    fn row_order(&self) -> Option<fn(&Value) -> i64> {
        self.row_order
    }

    fn counts_generations(&self) -> bool {
        self.generations
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }
}
