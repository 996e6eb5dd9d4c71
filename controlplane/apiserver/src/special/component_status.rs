//! ComponentStatus: what the server knows of the parts beside it, which is its store. Long deprecated, still asked for.

use pagurus_controlplane_api::status::ApiError;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::request::Call;
use crate::response::{Include, Output, Shape};

const WARNING: &str = "v1 ComponentStatus is deprecated in v1.19+";
const STORE: &str = "etcd-0";

/// One status, or the list of all.
pub(super) async fn serve(engine: &Engine, call: &Call, output: &Output) -> Result<Value, ApiError> {
    call.warnings.add(WARNING);
    let store = status(STORE, engine.store().revision().await.map(|_| ()).map_err(|error| error.to_string()));
    let single = call.info.name.as_deref();
    let items = match single {
        None | Some(STORE) => vec![store],
        Some(name) => return Err(ApiError::not_found("", "componentstatuses", name)),
    };
    Ok(match output.shape {
        Shape::Table(version, include) => table(engine, version, include, &items),
        _ => match single.and_then(|_| items.first()) {
            Some(item) => item.clone(),
            None => {
                json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items})
            }
        },
    })
}

fn status(name: &str, health: Result<(), String>) -> Value {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

fn table(engine: &Engine, version: &str, include: Include, items: &[Value]) -> Value {
    let columns = engine.table().resource("", "v1", "componentstatuses").map(|r| r.columns.as_slice());
    let columns = columns.unwrap_or_default().iter().map(|column| {
        json!({
            "name": *column.name, "type": *column.type_, "format": *column.format,
            "description": "", "priority": column.priority,
        })
    });
    let rows = items.iter().map(|item| {
        let condition = &item["conditions"][0];
        let (health, text) = match condition["status"].as_str() {
            Some("True") => ("Healthy", "message"),
            _ => ("Unhealthy", "error"),
        };
        let said = |field: &str| if field == text { condition[field].clone() } else { json!("") };
        let object = match include {
            Include::None => Value::Null,
            Include::Object => item.clone(),
            Include::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": item["metadata"],
            }),
        };
        json!({"cells": [item["metadata"]["name"], health, said("message"), said("error")], "object": object})
    });
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {},
        "columnDefinitions": columns.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}
