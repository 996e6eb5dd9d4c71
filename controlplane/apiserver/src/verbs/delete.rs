//! DELETE of one object or of many: at once, or marked and kept while finalizers or a grace period hold it.

mod unreadable;

use std::sync::Arc;

use http::Response;
use jiff::{SignedDuration, Timestamp};
use pagurus_controlplane_api::key::GroupVersionKind;
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_api::time;
use serde_json::{Value, json};

use super::options::{DeleteOptions, Propagation};
use super::selection::Select;
use super::update::is_released;
use super::write::{admit, allow, mark, remove, unstored};
use super::{Request, WriteOptions, body, get, list, metadata};
use crate::admission::Operation;
use crate::cache::Cached;
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Output};

/// How often a deletion is tried when others keep coming between.
const ATTEMPTS: usize = 64;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let options = read_options(engine, call, content).await?;
    let request = request(call, target.clone(), &options);
    if let (None, Some(text)) = (options.propagation, target.kind.strategy.deletion_warning()) {
        call.warnings.add(text);
    }
    if options.unread {
        return Ok(response::value(call, output, 200, &unreadable::delete(engine, &request).await?));
    }
    let done = delete(engine, &request, &options).await?;
    // The API's one oddity: cascading asked for in the old way and not done yet.
    let accepted = !done.gone && options.orphan_dependents == Some(false);
    let code = if accepted { 202 } else { 200 };
    if done.gone && !target.kind.strategy.returns_deleted(&target.kind.resource) {
        return Ok(response::value(call, output, code, &status(&target, &done.object)));
    }
    response::object(call, output, &target, code, &done.object)
}

/// Deletes all objects of a selection; the answer lists them.
pub(super) async fn answer_collection(
    engine: &Arc<Engine>,
    call: &Call,
    target: Arc<Target>,
    output: &Output,
    content: Body,
) -> Result<Response<Body>, ApiError> {
    let options = read_options(engine, call, content).await?;
    let select = Select::read(call, &target)?;
    let page = list::Page::read(call)?;
    let (meta, objects) = list::chosen(&target, &select, &page).await?;
    let mut deleted = Vec::with_capacity(objects.len());
    for object in objects {
        let mut request = request(call, target.clone(), &options);
        request.name = Some(&object.key.name);
        request.namespace = object.key.namespace.as_deref();
        match delete(engine, &request, &options).await {
            Ok(done) => deleted.push(done.object),
            // Somebody else was faster.
            Err(error) if error.code == 404 => deleted.push(object.clone()),
            Err(error) => return Err(error),
        }
    }
    let list = response::list_value(output, &target, &meta, deleted.iter())?;
    Ok(response::value(call, output, 200, &list))
}

/// Deletes an object for the server itself.
pub(crate) async fn object(
    engine: &Engine,
    request: &Request<'_>,
    options: &Value,
) -> Result<Value, ApiError> {
    let options = DeleteOptions::read(options)?;
    let done = delete(engine, request, &options).await?;
    request.target.to_request_version(done.object.value())
}

fn request<'a>(call: &'a Call, target: Arc<Target>, options: &DeleteOptions) -> Request<'a> {
    let (dry_run, object, manager) = (options.dry_run, options.object.clone(), call.field_manager());
    let write = WriteOptions { dry_run, object, manager, ..WriteOptions::default() };
    Request::of(call, target, write)
}

/// The options of the body, else of the query.
async fn read_options(engine: &Engine, call: &Call, content: Body) -> Result<DeleteOptions, ApiError> {
    let bytes = body::read(content, engine.options().max_body).await?;
    if bytes.is_empty() {
        return DeleteOptions::read(&DeleteOptions::of_query(call)?);
    }
    let format = body::format(&call.headers)?;
    let table = engine.table();
    let gvk = GroupVersionKind::new("", "v1", "DeleteOptions");
    let id = table
        .kind_type("meta.k8s.io", "v1", "DeleteOptions")
        .or_else(|| table.kind_type("", "v1", "DeleteOptions"));
    let Some(id) = id else { return Err(ApiError::internal("the type table has no DeleteOptions")) };
    let expected = body::Expected { table, id, gvk };
    let value = body::delete_options(&expected, format, &bytes, &call.warnings)?;
    DeleteOptions::read(&value)
}

/// What a deletion came to.
struct Done {
    object: Arc<Cached>,
    /// Whether it is gone; else it is marked.
    gone: bool,
}

async fn delete(engine: &Engine, request: &Request<'_>, options: &DeleteOptions) -> Result<Done, ApiError> {
    let target = &request.target;
    let name = request.name.unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let found = get::newest(target, request.namespace, name).await?;
        let current = found.ok_or_else(|| request.not_found())?;
        let old = current.value();
        admit(engine, request, Operation::Delete, None, Some(&old)).await?;
        check_preconditions(target, &current, &old, options)?;
        allow(engine, request, Operation::Delete, None, Some(&old)).await?;
        match plan(target, &old, options, time::now()) {
            Plan::Nothing => return Ok(Done { object: current, gone: false }),
            Plan::Remove(last) => {
                if options.dry_run {
                    return Ok(Done { object: unstored(target, &last, current.revision), gone: true });
                }
                if let Some(revision) = remove(engine, request, "Delete", &current).await? {
                    return Ok(Done { object: unstored(target, &last, revision), gone: true });
                }
            }
            Plan::Mark(object) => {
                if options.dry_run {
                    return Ok(Done { object: unstored(target, &object, current.revision), gone: false });
                }
                if let Some(object) = mark(engine, request, &current, &object).await? {
                    return Ok(Done { object, gone: false });
                }
            }
        }
    }
    let resource = &target.resource;
    Err(ApiError::modified(&resource.group, &resource.plural, name))
}

/// What is to be done with an object that somebody wants deleted.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It is being deleted as it is.
    Nothing,
    /// It goes at once, looking like this at last.
    Remove(Value),
    /// It stays, looking like this.
    Mark(Value),
}

fn plan(target: &Target, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let strategy = &target.kind.strategy;
    let mut object = old.clone();
    let finalizers = finalizers(target, old, options);
    let had = metadata::finalizers(old);
    let changed = finalizers.len() != had.len() || finalizers.iter().any(|f| !had.contains(&f.as_str()));
    let graceful = match grace(target, old, options, now) {
        Grace::Pending => return Plan::Nothing,
        Grace::None => None,
        Grace::Until(time, seconds) => Some((time, seconds)),
    };
    if changed {
        set(&mut object, "finalizers", (!finalizers.is_empty()).then(|| finalizers.into()));
    }
    let first = !metadata::is_deleting(old);
    if let Some((until, seconds)) = graceful {
        set(&mut object, "deletionTimestamp", Some(time::format(until).into()));
        set(&mut object, "deletionGracePeriodSeconds", Some(seconds.into()));
        if first {
            count(&mut object);
        }
        // The last finalizer and the grace period are both over: whoever asked for zero seconds ends it.
        return if is_released(target, &object) { Plan::Remove(object) } else { Plan::Mark(object) };
    }
    if metadata::finalizers(&object).is_empty() && !strategy.holds_deletion(&object) {
        return Plan::Remove(object);
    }
    if metadata::number(old, "deletionGracePeriodSeconds").is_none() && first {
        count(&mut object);
    }
    let later = |t: &str| time::parse(t).is_some_and(|t| t > now);
    if first || later(metadata::text(old, "deletionTimestamp")) {
        set(&mut object, "deletionTimestamp", Some(time::format(now).into()));
    }
    set(&mut object, "deletionGracePeriodSeconds", Some(0.into()));
    strategy.mark_deleted(&mut object);
    if object == *old { Plan::Nothing } else { Plan::Mark(object) }
}

enum Grace {
    /// The kind or this request has no grace period.
    None,
    /// It has one already, and not a longer one than is asked for.
    Pending,
    /// Until then, so many seconds.
    Until(Timestamp, i64),
}

fn grace(target: &Target, old: &Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    let Some(seconds) = target.kind.strategy.graceful_delete(old, options.grace) else { return Grace::None };
    let add =
        |time: Timestamp, seconds: i64| time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time);
    if !metadata::is_deleting(old) {
        return Grace::Until(add(now, seconds), seconds);
    }
    let Some(had) = metadata::number(old, "deletionGracePeriodSeconds") else { return Grace::None };
    match options.grace {
        // Only a shorter period may be asked for.
        Some(asked) if asked < had => {
            let until = time::parse(metadata::text(old, "deletionTimestamp")).unwrap_or(now);
            Grace::Until(add(until, asked - had), asked)
        }
        // A second deletion with nothing left to wait for is the end.
        _ if had == 0 && metadata::finalizers(old).is_empty() => Grace::None,
        _ => Grace::Pending,
    }
}

/// The finalizers with those that say what becomes of dependents.
fn finalizers(target: &Target, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let had = metadata::finalizers(old);
    let orphan = match options.propagation {
        Some(propagation) => propagation == Propagation::Orphan,
        None => {
            had.contains(&ORPHAN) || (target.kind.strategy.orphans_by_default() && !had.contains(&FOREGROUND))
        }
    };
    let foreground = match options.propagation {
        Some(propagation) => propagation == Propagation::Foreground,
        None => had.contains(&FOREGROUND) && !orphan,
    };
    let others = had.iter().filter(|f| ![ORPHAN, FOREGROUND].contains(*f)).map(|f| (*f).to_owned());
    let own = [(orphan, ORPHAN), (foreground, FOREGROUND)];
    others.chain(own.into_iter().filter(|(set, _)| *set).map(|(_, f)| f.to_owned())).collect()
}

fn count(object: &mut Value) {
    if let Some(generation) = metadata::number(object, "generation").filter(|g| *g > 0) {
        set(object, "generation", Some((generation + 1).into()));
    }
}

fn set(object: &mut Value, name: &str, value: Option<Value>) {
    match value {
        Some(value) => metadata::of(object).insert(name.to_owned(), value),
        None => metadata::of(object).remove(name),
    };
}

fn check_preconditions(
    target: &Target,
    current: &Cached,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let resource = &target.kind.resource;
    if target.kind.strategy.holds_deletion(old)
        && let Some(uid) = options.uid.as_ref().filter(|uid| **uid != current.uid)
    {
        // Kinds with finalizers of their own say it in other words.
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid);
        return Err(ApiError::conflict(&resource.group, &resource.plural, &current.key.name, &why));
    }
    let conflict = |why: &str| ApiError::conflict(&resource.group, &resource.kind, &current.key.name, why);
    if let Some(uid) = options.uid.as_ref().filter(|uid| **uid != current.uid) {
        return Err(conflict(&format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            current.uid
        )));
    }
    if let Some(revision) = options.resource_version.as_ref().filter(|r| **r != current.revision.to_string())
    {
        return Err(conflict(&format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object might have been modified",
            current.revision
        )));
    }
    Ok(())
}

/// The `Status` that says that something is gone.
fn status(target: &Target, object: &Cached) -> Value {
    let resource = &target.resource;
    let mut details = json!({"name": object.key.name, "kind": *resource.plural, "uid": object.uid});
    if !resource.group.is_empty() {
        details["group"] = (*resource.group).into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
