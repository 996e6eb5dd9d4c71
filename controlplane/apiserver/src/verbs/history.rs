//! GET with `view=history`: what became of one object, as far as the store still knows: each write with who, when and which fields.
//!
//! It must not know how two states are compared ([`told`]), nor any kind.

mod author;
mod told;

use http::Response;
use pagurus_controlplane_api::key::ObjectKey;
use pagurus_controlplane_api::status::{ApiError, Reason};
use pagurus_controlplane_store::{Event, Past, Revision};
use serde_json::Value;

use super::list::revision;
use super::not_found;
use super::options::bad_integer;
use crate::cache::CacheError;
use crate::engine::Target;
use crate::request::{Body, Call};
use crate::response::{self, Output, Shape};
pub(super) use author::Author;
pub(crate) use author::note_of_server;
use told::{History, State};

/// How many writes are told if nobody asks for a number, and how many at most.
const USUAL: usize = 50;
const MOST: usize = 500;
/// How many writes are read from the store at a time, and after how many bytes no more are.
const READ: usize = 16;
const MOST_BYTES: usize = 32 << 20;

/// Whether the request asks for the history. Other views are not known here, and what is not known in a query is passed over.
///
/// # Errors
/// It asks for the history of a subresource.
pub(super) fn is_asked(call: &Call) -> Result<bool, ApiError> {
    match call.query.get("view") {
        Some("history") if call.info.subresource.is_none() => Ok(true),
        Some("history") => Err(ApiError::bad_request("subresources have no history, ask for the object's")),
        _ => Ok(false),
    }
}

pub(super) async fn answer(
    call: &Call,
    target: &Target,
    output: &Output,
) -> Result<Response<Body>, ApiError> {
    let (limit, before) = page(call, target).await?;
    let name = call.info.name.clone().unwrap_or_default();
    let namespace = call.info.namespace.clone().filter(|_| target.resource.namespaced);
    let key = ObjectKey { namespace, name };
    let history = read(target, &key, before, limit).await?;
    if history.states.is_empty() {
        return Err(not_found(target, &key.name));
    }
    let told = told::tell(target.table(), target.resource.type_id, &history, limit);
    let api_version = target.resource.api_version();
    let shown = match output.shape {
        Shape::Object => told.to_json(&api_version, &target.resource.kind, &key),
        Shape::Table(version, _) => told.to_table(version, &key),
        Shape::Metadata(_) | Shape::MetadataList(_) => {
            let message = "a history has no metadata-only form, only its own and Table";
            return Err(ApiError::new(406, Reason::NotAcceptable, message));
        }
    };
    Ok(response::value(call, output, 200, &shown))
}

/// How many writes are wanted, before which revision.
async fn page(call: &Call, target: &Target) -> Result<(usize, Option<Revision>), ApiError> {
    let query = |name: &str| call.query.get(name).filter(|v| !v.is_empty());
    let limit: i64 = query("limit").map_or(Ok(0), |l| l.parse().map_err(|_| bad_integer(l)))?;
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(USUAL).min(MOST);
    let before = match (query("continue"), query("resourceVersion")) {
        (Some(_), Some(_)) => {
            let message = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(message));
        }
        (Some(token), None) => {
            let bad = |_| ApiError::bad_request(format!("continue key is not valid: {token:?}"));
            Some(token.parse().map_err(bad)?)
        }
        (None, Some(asked)) => {
            let asked = revision(asked)?;
            // There is no such revision yet, or there is: histories know all writes that were acknowledged.
            target.kind.cache.not_before(asked).await?;
            let exact = query("resourceVersionMatch") == Some("Exact");
            exact.then(|| asked.saturating_add(1))
        }
        (None, None) => None,
    };
    Ok((limit, before))
}

/// The states of an object before a revision: those that are to be told, and one more if there is one.
async fn read(
    target: &Target,
    key: &ObjectKey,
    mut before: Option<Revision>,
    limit: usize,
) -> Result<History, ApiError> {
    let mut history = History::default();
    let mut bytes = 0;
    loop {
        let want = READ.min(limit + 1 - history.states.len());
        let found = target.kind.cache.history(key, before, want).await?;
        history.compacted = found.compacted;
        before = found.writes.last().map(|past| past.event.revision());
        for past in found.writes {
            if let Event::Put(kv) = &past.event {
                bytes += kv.value.len();
            }
            history.states.push(state(target, past)?);
        }
        history.more = found.more;
        let enough = history.states.len() > limit || (bytes > MOST_BYTES && history.states.len() > 1);
        if enough || !found.more {
            return Ok(history);
        }
    }
}

/// One stored state, in the request's version.
fn state(target: &Target, past: Past) -> Result<State, ApiError> {
    let author = Author::read(&past.note);
    match past.event {
        Event::Delete { mod_revision, .. } => {
            Ok(State { revision: mod_revision, version: 0, object: Value::Null, author })
        }
        Event::Put(kv) => {
            let object = serde_json::from_slice(&kv.value).map_err(ApiError::internal)?;
            let object = target.to_request_version(object)?;
            Ok(State { revision: kv.mod_revision, version: kv.version, object, author })
        }
    }
}

impl crate::cache::Cache {
    /// What the store still knows of the writes of an object before a revision, the newest first.
    async fn history(
        &self,
        key: &ObjectKey,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<pagurus_controlplane_store::History, CacheError> {
        Ok(self.store().history(&self.store_key(key), before, limit).await?)
    }
}
