//! The `scale` subresource: `spec.replicas` of a workload, seen as a `Scale` object.

use std::sync::Arc;

use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::selectors::LabelSelector;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use pagurus_controlplane_schema::fields::{self, Form, Managed, OneVersion, Set, Writer};
use pagurus_controlplane_schema::{defaults, patch};
use serde_json::{Value, json};

use super::body::{self, Expected, Given};
use super::patch::Kind;
use super::update::{Proposal, change};
use super::write::{is_unowned, writer};
use super::{Request, WriteOptions, apply, get, metadata, not_found};
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
            target.convert_ahead(vec![found.clone()]).await?;
            scale_of(target, &target.to_request_version(found.value())?)?
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
    write(engine, &request, |scale| owned(&request, &expected, scale, wanted.clone())).await
}

async fn patched(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    content: Body,
) -> Result<Value, ApiError> {
    let kind = Kind::of(call, target.kind.strategy.custom().is_none())?;
    let bytes = body::read(content, engine.options().max_body).await?;
    let options = WriteOptions::read(call, "PatchOptions", matches!(kind, Kind::Apply(_)))?;
    let expected = expected(engine)?;
    let request = Request::of(call, target, options);
    if let Kind::Apply(format) = kind {
        let config = apply::read(&request, format, &bytes)?;
        apply::check(&request, &expected.gvk, &config)?;
        return write(engine, &request, |scale| applied(&request, &expected, scale, &config)).await;
    }
    let parsed = patch::parse(&bytes).map_err(super::patch::patch_error);
    write(engine, &request, |scale| {
        let patch = parsed.as_ref().map_err(Clone::clone)?;
        let patched = super::patch::patched(&expected, &request, kind, scale, patch)?;
        owned(&request, &expected, scale, patched)
    })
    .await
}

fn expected(engine: &Engine) -> Result<Expected<'static>, ApiError> {
    let table = engine.table();
    let id = table.kind_type("autoscaling", "v1", "Scale");
    let id = id.ok_or_else(|| ApiError::internal("the type table has no Scale"))?;
    Ok(Expected { table, id, gvk: GroupVersionKind::new("autoscaling", "v1", "Scale") })
}

/// What a `Scale` is, for ownership.
fn form<'a>(expected: &Expected<'a>) -> Form<'a> {
    Form { table: expected.table, id: expected.id, versions: &OneVersion }
}

/// A `Scale` that is about to be written, with what changes given to the writer.
fn owned(
    request: &Request<'_>,
    expected: &Expected<'_>,
    live: &Value,
    mut scale: Value,
) -> Result<Value, ApiError> {
    if is_unowned(live) {
        // Only an apply begins to tell owners apart.
        metadata::of(&mut scale).remove("managedFields");
        return Ok(scale);
    }
    let (version, now) = (expected.gvk.api_version(), time::now_text());
    let writer = writer(request, &version, &now);
    fields::update(&form(expected), Some(live), &mut scale, &writer, &Set::default());
    Ok(scale)
}

/// The live `Scale` with a configuration applied.
fn applied(
    request: &Request<'_>,
    expected: &Expected<'_>,
    live: &Value,
    config: &Value,
) -> Result<Value, ApiError> {
    let (version, now) = (expected.gvk.api_version(), time::now_text());
    let (writer, none) = (writer(request, &version, &now), Set::default());
    let mut live = live.clone();
    if is_unowned(&live) {
        // Whoever made the workload until now counts as one manager.
        let earlier = Writer { manager: "before-first-apply", ..writer };
        fields::update(&form(expected), None, &mut live, &earlier, &none);
    }
    let force = request.options.force;
    fields::apply(&form(expected), Some(&live), config, &writer, force, &none)
        .map_err(|error| apply::apply_error(&expected.gvk, config, error))
}

/// Changes the workload to have as many replicas as the `Scale` that `wanted` makes of the present one, and the managers it has.
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
        let managers = managers_of(old)?;
        let mut object = request.target.to_request_version(old.clone())?;
        let mut live = scale_of(&request.target, &object)?;
        let seen = fields::seen_by_scale(&managers, |version| replicas_path(&request.target, version));
        metadata::of(&mut live).insert("managedFields".to_owned(), seen.to_json());
        let scale = wanted(&live)?;
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
        let path = |version: &str| replicas_path(&request.target, version);
        let api_version = resource.api_version();
        set_replicas(&mut object, path(&api_version).unwrap_or(REPLICAS), replicas);
        let kept = fields::kept_by_parent(&managers, &managers_of(&scale)?, &api_version, path);
        metadata::of(&mut object).insert("managedFields".to_owned(), kept.to_json());
        let object = request.target.to_storage_version(object)?;
        let uid = Some(metadata::text(&scale, "uid").to_owned()).filter(|u| !u.is_empty());
        let given = Given { object, emptied: Vec::new() };
        Ok(Proposal { given, uid, creates: false, owned: true })
    })
    .await?;
    scale_of(&request.target, &request.target.to_request_version(done.object.value())?)
}

/// Where most workloads have their replicas.
const REPLICAS: &str = "spec.replicas";

/// Where a workload has its replicas in one of its versions, with dots.
fn replicas_path<'a>(target: &'a Target, api_version: &str) -> Option<&'a str> {
    let Some(custom) = target.kind.strategy.custom() else { return Some(REPLICAS) };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    custom.version(version).scale.as_ref().map(|scale| scale.spec.trim_start_matches('.'))
}

/// Sets a number at a path, with all that is on the way to it.
fn set_replicas(object: &mut Value, path: &str, replicas: i64) {
    let mut here = object;
    for name in path.split('.') {
        if !here.is_object() {
            *here = json!({});
        }
        here = &mut here[name];
    }
    *here = replicas.into();
}

fn managers_of(object: &Value) -> Result<Managed, ApiError> {
    let managed = object.pointer("/metadata/managedFields").unwrap_or(&Value::Null);
    Managed::from_json(managed).map_err(|error| {
        let name = metadata::text(object, "name");
        ApiError::internal(format!("the managed fields of {name} cannot be read: {error}"))
    })
}

/// A workload as a `Scale`.
fn scale_of(target: &Target, workload: &Value) -> Result<Value, ApiError> {
    let Some(custom) = target.kind.strategy.custom() else { return Ok(builtin_scale(workload)) };
    let Some(scale) = &custom.version(&target.resource.version).scale else {
        return Err(ApiError::no_such_resource());
    };
    let at = |path: &str| workload.pointer(&path.replace('.', "/")).cloned().unwrap_or_default();
    let Some(wanted) = at(&scale.spec).as_i64() else {
        let path = pagurus_controlplane_api::go::quote(&scale.spec);
        return Err(ApiError::internal(format!("the spec replicas field {path} does not exist")));
    };
    let selector = scale.selector.as_deref().map(at).unwrap_or_default();
    // What `builtin_scale` reads, put where it reads it.
    let mut plain = json!({
        "metadata": workload.get("metadata").cloned().unwrap_or_default(),
        "spec": {"replicas": wanted}, "status": {"replicas": at(&scale.status)},
    });
    plain = builtin_scale(&plain);
    if let Some(selector) = selector.as_str().filter(|selector| !selector.is_empty()) {
        plain["status"]["selector"] = selector.into();
    }
    Ok(plain)
}

fn builtin_scale(workload: &Value) -> Value {
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
