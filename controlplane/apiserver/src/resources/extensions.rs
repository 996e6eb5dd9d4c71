//! CustomResourceDefinitions and APIServices.

use jiff::Timestamp;
use pagurus_controlplane_api::conditions;
use serde_json::{Value, json};

use super::cells;
use super::fields::{Fields, default, default_text, existing, object_at, set};
use super::plain::Plain;

/// The strategy of `customresourcedefinitions`.
pub(crate) static DEFINITIONS: Plain = Plain {
    default: default_definition,
    cells: definition_cells,
    warnings: |_| {
        vec![
            "this server does not serve custom resources yet: the definition is kept but has no effect"
                .to_owned(),
        ]
    },
    generations: true,
    unconditional_update: false,
    status_alone: true,
    ..Plain::NEW
};

/// The strategy of `apiservices`.
pub(crate) static API_SERVICES: Plain = Plain {
    default: |object| {
        if let Some(service) = existing(object, "spec.service") {
            default(service, "port", 443);
        }
    },
    cells: service_cells,
    warnings: |object| {
        let note = "this server does not pass requests to other API servers yet: the APIService is kept but has no effect";
        object.has("spec.service").then(|| note.to_owned()).into_iter().collect()
    },
    // The core group's is `v1.`, which is no DNS name.
    name: pagurus_controlplane_api::labels::path_segment_name,
    unconditional_update: false,
    status_alone: true,
    ..Plain::NEW
};

fn default_definition(definition: &mut Value) {
    let spec = object_at(definition, "spec");
    let kind = spec.text("names.kind").to_owned();
    let names = object_at(spec, "names");
    default_text(names, "singular", &kind.to_lowercase());
    if !kind.is_empty() {
        default_text(names, "listKind", &format!("{kind}List"));
    }
    if !spec.has("conversion") {
        set(spec, "conversion", Some(json!({"strategy": "None"})));
    }
    if let Some(service) = existing(spec, "conversion.webhook.clientConfig.service") {
        default(service, "port", 443);
    }
}

fn definition_cells(definition: &Value, _now: Timestamp) -> Vec<Value> {
    let versions: Vec<&str> = definition.items("spec.versions").iter().map(|v| v.text("name")).collect();
    vec![
        cells::name(definition),
        definition.text("spec.scope").into(),
        versions.join(",").into(),
        cells::created_at(definition),
        definition.text("spec.group").into(),
        definition.text("spec.names.kind").into(),
        cells::joined(definition, "spec.names.shortNames").into(),
        conditions::is_true(definition, "Established").into(),
    ]
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
