//! CustomResourceDefinitions and APIServices.

mod ca_bundle;
mod definition;
pub(crate) mod embedded;
mod hoist;
mod names;
mod schema_rules;
mod shown;
mod spec_rules;
mod structural_rules;

use jiff::Timestamp;
use pagurus_controlplane_api::conditions;
use pagurus_controlplane_api::field::{BadValue, FieldError, Path};
use serde_json::Value;

use super::cells;
use super::fields::{Fields, default, existing};
use super::plain::Plain;

pub(crate) use definition::{CLEANUP, Definitions, set_condition};
pub(crate) use names::approval_condition;
pub(crate) use shown::rule as shown_rule;
pub(crate) use structural_rules::structural as structural_errors;

/// The strategy of `apiservices`.
pub(crate) static API_SERVICES: Plain = Plain {
    default: |object| {
        if let Some(service) = existing(object, "spec.service") {
            default(service, "port", 443);
        }
    },
    cells: service_cells,
    warnings: |object, _| {
        let note = "this server does not pass requests to other API servers yet: the APIService is kept but has no effect";
        object.has("spec.service").then(|| note.to_owned()).into_iter().collect()
    },
    // The core group's is `v1.`, which is no DNS name.
    name: pagurus_controlplane_api::labels::path_segment_name,
    unconditional_update: false,
    status_alone: true,
    ..Plain::NEW
};

/// What is wrong with the expressions of a schema that is sound otherwise.
fn expressions(path: &Path, schema: &Value) -> Vec<FieldError> {
    crate::crd::rules::definition(path, schema)
}

/// A list as messages show it: `null` if it is not there.
fn shown_list(list: &Value) -> BadValue {
    BadValue::Text(pagurus_controlplane_api::go::json(list))
}

fn service_cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let target = service.at("spec.service");
    let shown = if target.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", target.text("namespace"), target.text("name"))
    };
    let available = match conditions::get(service, "Available") {
        None => "Unknown".to_owned(),
        Some(c) if c.text("status") == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
    };
    vec![cells::name(service), shown.into(), available.into(), cells::age(service, now)]
}

#[cfg(test)]
mod tests;
