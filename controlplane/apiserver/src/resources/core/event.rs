//! Events, of the core group and of `events.k8s.io` (both are stored in the core form).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::cells;
use crate::resources::fields::Fields;
use crate::strategy::{Context, Strategy};

/// The strategy of `events`.
pub(crate) struct Events;

impl Strategy for Events {
    fn prepare_create(&self, _context: &Context<'_>, _object: &mut Value) {}

    fn prepare_update(&self, _context: &Context<'_>, _object: &mut Value, _old: &Value) {}

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
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
