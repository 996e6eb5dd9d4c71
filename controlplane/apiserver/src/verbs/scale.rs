//! The `scale` subresource: `spec.replicas` of a workload, seen as a `Scale` object.

use std::sync::Arc;

use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::selectors::LabelSelector;
use pagurus_controlplane_api::status::{ApiError, Reason};
use pagurus_controlplane_schema::{check, defaults, patch};
use serde_json::{Value, json};

use super::body::{self, Expected, Given};
use super::patch::Kind;
use super::update::{Proposal, change};
use super::{Request, WriteOptions, get, metadata, not_found};
use crate::engine::{Engine, Target};
use crate::request::{Body, Call, Verb};
use crate::response::{self, Output};

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: &Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let name = call.info.name.as_deref().unwrap_or_default();
    let scale = match call.info.verb {
        Verb::Get => {
            let namespace = call.info.namespace.as_deref();
            let found = get::newest(target, namespace, name).await?.ok_or_else(|| not_found(target, name))?;
            scale_of(&found.value())
        }
        Verb::Update => update(engine, call, target.clone(), content).await?,
        _ => patched(engine, call, target.clone(), content).await?,
    };
    Ok(response::value(call, output, 200, &scale))
}

async fn update(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    content: Body,
) -> Result<Value, ApiError> {
    let format = body::format(&call.headers)?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "UpdateOptions", false)?;
    let expected = expected(engine)?;
    let mut wanted = body::decode(&expected, format, &bytes, options.validation, &call.warnings)?;
    defaults::apply(expected.table, expected.id, &mut wanted);
    let request = Request::of(call, target, options);
    write(engine, &request, |_| Ok(wanted.clone())).await
}

async fn patched(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    content: Body,
) -> Result<Value, ApiError> {
    let kind = Kind::of(call)?;
    if kind == Kind::Apply {
        let message = "application/apply-patch+yaml is not supported on scale yet";
        return Err(ApiError::new(415, Reason::UnsupportedMediaType, message));
    }
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "PatchOptions", false)?;
    let expected = expected(engine)?;
    let parsed = patch::parse(&bytes).map_err(super::patch::patch_error);
    let request = Request::of(call, target, options);
    write(engine, &request, |scale| {
        let mut scale = scale.clone();
        let patch = parsed.as_ref().map_err(Clone::clone)?;
        let applied = match kind {
            Kind::Json => patch::json_patch::apply(&mut scale, &patch.value),
            Kind::Strategic => patch::strategic::apply(expected.table, expected.id, &mut scale, &patch.value),
            Kind::Merge | Kind::Apply => patch::merge::apply(&mut scale, &patch.value),
        };
        applied.map_err(super::patch::patch_error)?;
        let shown = scale.to_string();
        let found = check::structural(expected.table, expected.id, &mut scale);
        match found.errors.first() {
            Some(error) => {
                Err(ApiError::invalid("", "", "", vec![FieldError::invalid("patch", shown, error.as_str())]))
            }
            None => Ok(scale),
        }
    })
    .await
}

fn expected(engine: &Engine) -> Result<Expected<'static>, ApiError> {
    let table = engine.table();
    let id = table.kind_type("autoscaling", "v1", "Scale");
    let id = id.ok_or_else(|| ApiError::internal("the type table has no Scale"))?;
    Ok(Expected { table, id, gvk: GroupVersionKind::new("autoscaling", "v1", "Scale") })
}

/// Changes the workload to have as many replicas as the `Scale` that `wanted` makes of the present one.
async fn write(
    engine: &Engine,
    request: &Request<'_>,
    mut wanted: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Value, ApiError> {
    // The workload's own rules apply, as for an update of the whole object.
    let workload = Request {
        target: request.target.clone(),
        namespace: request.namespace,
        name: request.name,
        sub: None,
        user: request.user,
        warnings: request.warnings.clone(),
        options: request.options.clone(),
    };
    let resource = &request.target.resource;
    let done = change(engine, &workload, |old| {
        let Some(old) = old else { return Err(request.not_found()) };
        let scale = wanted(&scale_of(old))?;
        let name = metadata::text(&scale, "name");
        if name != metadata::text(old, "name") {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                metadata::text(old, "name")
            )));
        }
        let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let detail = "must be greater than or equal to 0";
            let error = FieldError::invalid("spec.replicas", replicas, detail);
            return Err(ApiError::invalid("autoscaling", "Scale", name, vec![error]));
        }
        let given = metadata::text(&scale, "resourceVersion");
        if !given.is_empty() && given != metadata::text(old, "resourceVersion") {
            return Err(ApiError::modified(&resource.group, &resource.plural, name));
        }
        let mut object = old.clone();
        object["spec"]["replicas"] = replicas.into();
        super::write::own(request, Some(old), &mut object)?;
        forget_time(request, &mut object);
        let uid = Some(metadata::text(&scale, "uid").to_owned()).filter(|u| !u.is_empty());
        let given = Given { object, emptied: Vec::new() };
        Ok(Proposal { given, uid, creates: false, owned: true })
    })
    .await?;
    Ok(scale_of(&done.object.value()))
}

/// What is owned through `scale` carries no time, as clients know it.
fn forget_time(request: &Request<'_>, object: &mut Value) {
    let managed = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in managed.into_iter().flatten() {
        let ours = entry["subresource"] == "scale" && entry["manager"] == *request.options.manager;
        if let Some(entry) = entry.as_object_mut().filter(|_| ours) {
            entry.remove("time");
        }
    }
}

/// A workload as a `Scale`.
fn scale_of(workload: &Value) -> Value {
    let of_metadata = |name: &str| workload.pointer(&format!("/metadata/{name}")).cloned();
    let names = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        names.iter().filter_map(|name| Some(((*name).to_owned(), of_metadata(name)?))).collect();
    let selector = workload.pointer("/spec/selector").cloned().unwrap_or_default();
    // Replication controllers have a plain map of labels for a selector.
    let is_map = selector.as_object().is_some_and(|s| s.values().all(Value::is_string));
    let selector = match selector.as_object() {
        Some(map) if is_map => LabelSelector::from_map(map).to_string(),
        _ => LabelSelector::from_json(&selector).map(|s| s.to_string()).unwrap_or_default(),
    };
    let replicas = |pointer: &str| workload.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = json!({});
    if replicas("/spec/replicas") != 0 {
        spec["replicas"] = replicas("/spec/replicas").into();
    }
    let mut status = json!({"replicas": replicas("/status/replicas")});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
