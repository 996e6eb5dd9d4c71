//! Events, of the core group and of `events.k8s.io` (both are stored in the core form).

use std::time::Duration;

use jiff::Timestamp;
use pagurus_controlplane_api::field::{FieldError, Path};
use pagurus_controlplane_api::labels;
use serde_json::{Value, json};

use crate::registry::{FieldName, named};
use crate::resources::cells;
use crate::resources::fields::{Fields, same};
use crate::resources::internal::{OBJECT_REFERENCE, shown};
use crate::resources::rules::{Errors, IMMUTABLE, names, required};
use crate::strategy::{Context, Strategy};

/// For how long an event is kept after it was last told.
const KEPT: Duration = Duration::from_secs(3600);

/// The strategy of `events`.
pub(crate) struct Events;

impl Strategy for Events {
    fn time_to_live(&self) -> Option<Duration> {
        Some(KEPT)
    }

    fn prepare_create(&self, _context: &Context<'_>, _object: &mut Value) {}

    fn prepare_update(&self, _context: &Context<'_>, _object: &mut Value, _old: &Value) {}

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        place(&mut errors, object);
        if is_new_style(object) {
            new_style(&mut errors, object);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if !is_new_style(old) {
            return self.validate(object);
        }
        let fixed = [
            ("involvedObject", "involvedObject"),
            ("reason", "reason"),
            ("message", "note"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ];
        for (field, name) in fixed {
            let value = object.at(field);
            if !same(value, old.at(field)) {
                let value = match field {
                    "involvedObject" | "related" => shown(value, OBJECT_REFERENCE),
                    _ => value.clone().into(),
                };
                errors.push(FieldError::invalid(name, value, IMMUTABLE));
            }
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &[FieldName] {
        const {
            &[
                named("involvedObject.kind"),
                named("involvedObject.namespace"),
                named("involvedObject.name"),
                named("involvedObject.uid"),
                named("involvedObject.apiVersion"),
                named("involvedObject.resourceVersion"),
                named("involvedObject.fieldPath"),
                named("reason"),
                named("reportingComponent"),
                named("source"),
                named("type"),
            ]
        }
    }

    fn field_names(&self, group: &str) -> &[(&str, &str)] {
        match group {
            "events.k8s.io" => &[
                ("reason", "reason"),
                ("regarding.kind", "involvedObject.kind"),
                ("regarding.namespace", "involvedObject.namespace"),
                ("regarding.name", "involvedObject.name"),
                ("regarding.uid", "involvedObject.uid"),
                ("regarding.apiVersion", "involvedObject.apiVersion"),
                ("regarding.resourceVersion", "involvedObject.resourceVersion"),
                ("regarding.fieldPath", "involvedObject.fieldPath"),
                ("reportingController", "reportingComponent"),
                ("type", "type"),
            ],
            _ => &[],
        }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        let text = match name {
            "source" => match object.text("source.component") {
                "" => object.text("reportingComponent"),
                component => component,
            },
            _ => object.text(name),
        };
        Some(text.to_owned())
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let first = match object.has("firstTimestamp") {
            true => cells::since(object, "firstTimestamp", now),
            false => cells::since(object, "eventTime", now),
        };
        let mut last = match object.has("lastTimestamp") {
            true => cells::since(object, "lastTimestamp", now),
            false => first.clone(),
        };
        let mut count = object.int("count");
        if object.has("series") {
            last = cells::since(object, "series.lastObservedTime", now);
            count = object.int("series.count");
        } else if count == 0 {
            count = 1;
        }
        let kind = object.text("involvedObject.kind").to_lowercase();
        let target = match object.text("involvedObject.name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        vec![
            last.into(),
            object.text("type").into(),
            object.text("reason").into(),
            target.into(),
            object.text("involvedObject.fieldPath").into(),
            source(object).into(),
            object.text("message").trim().into(),
            first.into(),
            json!(count),
            cells::name(object),
        ]
    }
}

fn source(object: &Value) -> String {
    let either = |a: &str, b: &str| match object.text(a) {
        "" => object.text(b).to_owned(),
        text => text.to_owned(),
    };
    let component = either("source.component", "reportingComponent");
    match either("source.host", "reportingInstance") {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    }
}

/// The longest of the short texts.
const SHORT: usize = 128;
/// The longest message.
const LONG: usize = 1024;

/// Whether the event was written by the rules of `events.k8s.io`: it has a time of its own, or none of the old ones.
fn is_new_style(event: &Value) -> bool {
    let old = ["firstTimestamp", "lastTimestamp", "count", "source"];
    event.has("eventTime")
        || (!event.text("reportingComponent").is_empty()
            && !event.text("action").is_empty()
            && old.iter().all(|field| crate::resources::fields::is_zero(event.at(field))))
}

/// An event lives where the object lives that it is about; those about the cluster's objects in `default`.
fn place(errors: &mut Errors, event: &Value) {
    let (own, about) = (event.text("metadata.namespace"), event.text("involvedObject.namespace"));
    let good = match (about, event.has("eventTime")) {
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (about, false) => about == own,
        (_, true) => true,
    };
    if !good {
        let path = "involvedObject.namespace";
        errors.push(FieldError::invalid(path, about, "does not match event.namespace"));
    }
}

fn new_style(errors: &mut Errors, event: &Value) {
    if !event.has("eventTime") {
        errors.push(FieldError::required("eventTime", ""));
    }
    let controller = event.text("reportingComponent");
    let path = Path::new("reportingController");
    required(errors, &path, controller);
    names(errors, &path, controller, labels::qualified_name(controller));
    for field in ["reportingInstance", "action", "reason"] {
        let text = event.text(field);
        if required(errors, &Path::new(field), text) && text.len() > SHORT {
            errors.push(FieldError::invalid(field, "", format!("can have at most {SHORT} characters")));
        }
    }
    if event.text("message").len() > LONG {
        errors.push(FieldError::invalid("note", "", format!("can have at most {LONG} characters")));
    }
    let kind = event.text("type");
    // Old clients may set an event time beside the old fields; they are free in what they call the type.
    let old_fields = event.has("firstTimestamp") || event.has("lastTimestamp") || event.int("count") != 0;
    if !matches!(kind, "Normal" | "Warning") && !old_fields {
        errors.push(FieldError::invalid("type", "", format!("has invalid value: {kind}")));
    }
}
