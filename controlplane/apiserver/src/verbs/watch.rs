//! WATCH: a stream of lines, each a change of an object that the selection means, or has meant until then.

mod socket;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::Response;
use pagurus_controlplane_api::field::FieldError;
use pagurus_controlplane_api::status::ApiError;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::list;
use super::options::bad_integer;
use super::selection::Select;
use crate::cache::{CacheError, Change, ChangeKind, Cursor, CursorError, Snapshot};
use crate::engine::{Engine, Target};
use crate::request::{Body, Call};
use crate::response::{self, Format, ListMeta, Output, Shape};
use socket::Framing;

/// How often clients that want to know hear how far the watch has come.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// For how long a watch lives when nothing is asked for: between this and twice this.
const LEAST_LIFE: u64 = 1800;
/// How many bytes are handed on at a time, about.
const CHUNK: usize = 64 << 10;
/// How many lines wait to be handed on one by one.
const FEW: usize = 16;
/// How many objects of the state are converted at a time where a webhook does that.
const AHEAD: usize = 256;

pub(super) async fn answer(
    engine: &Arc<Engine>,
    call: &Call,
    target: &Arc<Target>,
    output: &Output,
) -> Result<Response<Body>, ApiError> {
    let select = Select::read(call, target)?;
    let asked = Asked::read(call)?;
    let stream_type = output.stream_type()?;
    let cache = &target.kind.cache;
    // Whoever wants the state wants one that is not older than the request.
    let state = match asked.revision {
        None | Some(0) if !asked.initial => None,
        None => Some(cache.current().await?),
        Some(0) => Some(cache.snapshot()),
        Some(revision) if asked.initial => Some(cache.not_before(revision).await?),
        Some(_) => None,
    };
    let from = state.as_ref().map(|s| s.revision).or(asked.revision.filter(|r| *r > 0));
    let from = match (&state, from) {
        (None, None) => Some(cache.current().await?.revision),
        (_, from) => from,
    };
    let (_, cursor) = match cache.watch(from) {
        Ok(found) => found,
        Err(CacheError::Gone { asked }) => {
            let error =
                ApiError::expired(format!("too old resource version: {asked} ({})", cache.revision()));
            let event = response::status_event(output, &error);
            return send(engine, call, output, stream_type, stream::iter([event]));
        }
        Err(error) => return Err(error.into()),
    };
    let since = from.unwrap_or_default();
    let mut ticks = tokio::time::interval_at(Instant::now() + BOOKMARKS, BOOKMARKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if let Some(snapshot) = &state {
        select.convert_ahead(snapshot).await?;
    }
    let initial = state.map(|snapshot| (select.narrow(snapshot, target), None));
    let lines = Lines {
        target: target.clone(),
        output: *output,
        select,
        cursor,
        initial,
        since,
        bookmarks: asked.bookmarks.then_some(ticks),
        mark_initial: asked.mark_initial,
        marked: since,
        first: true,
        one_by_one: socket::wanted(call).is_some(),
        ready: VecDeque::new(),
        deadline: Box::pin(tokio::time::sleep(asked.life)),
        cancelled: Box::pin(engine.cancelled().cancelled_owned()),
        ended: false,
    };
    let lines = stream::unfold(lines, |mut lines| async move {
        let chunk = lines.next_chunk().await?;
        Some((chunk, lines))
    });
    send(engine, call, output, stream_type, lines)
}

/// Sends lines as they come: as the body of the answer, or over a WebSocket.
fn send(
    engine: &Engine,
    call: &Call,
    output: &Output,
    stream_type: &'static str,
    lines: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let Some(upgrade) = socket::wanted(call) else { return Ok(response::streamed(stream_type, lines)) };
    let framing = match output.format {
        Format::Json | Format::Yaml => Framing::Text,
        // Messages have an end of their own, and no length before them.
        Format::Protobuf => Framing::Binary { skip: 4 },
        Format::Cbor => Framing::Binary { skip: 0 },
    };
    socket::answer(engine, call, upgrade, framing, lines)
}

/// What the query says of the watch.
struct Asked {
    revision: Option<u64>,
    /// Whether the state comes first.
    initial: bool,
    /// Whether a bookmark tells where the state ends.
    mark_initial: bool,
    bookmarks: bool,
    life: Duration,
}

impl Asked {
    fn read(call: &Call) -> Result<Self, ApiError> {
        let query = |name: &str| call.query.get(name).filter(|v| !v.is_empty());
        let revision = query("resourceVersion").map(list::revision).transpose()?;
        let bookmarks = call.query.flag("allowWatchBookmarks");
        let asked = query("sendInitialEvents").map(|v| !matches!(v, "0" | "false"));
        check_options(query("resourceVersionMatch"), asked, bookmarks)?;
        let seconds: i64 =
            query("timeoutSeconds").map_or(Ok(0), |s| s.parse().map_err(|_| bad_integer(s)))?;
        let seconds = match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => seconds,
            _ => rand::rng().random_range(LEAST_LIFE..2 * LEAST_LIFE),
        };
        // Without a word on it, no revision or "0" means: the state first.
        let initial = asked.unwrap_or(matches!(revision, None | Some(0)));
        Ok(Self {
            revision,
            initial,
            mark_initial: asked == Some(true) && bookmarks,
            bookmarks,
            life: Duration::from_secs(seconds),
        })
    }
}

fn check_options(rule: Option<&str>, initial: Option<bool>, bookmarks: bool) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    match (rule, initial) {
        (None, Some(_)) => errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (Some(_), None) => errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        (Some(rule), Some(_)) if rule != "NotOlderThan" => {
            errors.push(FieldError::not_supported("resourceVersionMatch", rule, &["NotOlderThan"]));
        }
        _ => {}
    }
    if initial == Some(true) && !bookmarks {
        // Allowed: the client then cannot tell where the state ends.
        tracing::trace!("a watch asks for the state without bookmarks");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}

/// What is to be sent next. Changes are shared with the ring and with other watches until it is their turn: a reader who is slow holds
/// no bytes.
enum Ready {
    Line(Bytes),
    Change(Arc<Change>, ChangeKind),
}

/// A watch on its way.
struct Lines {
    target: Arc<Target>,
    output: Output,
    select: Select,
    cursor: Cursor,
    /// The state that is still to be sent, and the key up to which it has been.
    initial: Option<(Snapshot, Option<String>)>,
    /// Changes up to this revision are not told.
    since: u64,
    bookmarks: Option<Interval>,
    mark_initial: bool,
    /// The revision of the last bookmark or change.
    marked: u64,
    first: bool,
    /// Lines are not joined.
    one_by_one: bool,
    ready: VecDeque<Ready>,
    deadline: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl Lines {
    /// The next line with all those that are there already: what is handed on together is sent together. `None` ends the watch.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let first = self.next().await?;
        if self.one_by_one || self.ready.is_empty() {
            return Some(first);
        }
        let mut chunk = BytesMut::with_capacity(CHUNK.min(first.len() * (1 + self.ready.len())));
        chunk.extend_from_slice(&first);
        while chunk.len() < CHUNK
            && let Some(ready) = self.ready.pop_front()
        {
            chunk.extend_from_slice(&self.line(ready));
        }
        Some(chunk.freeze())
    }

    /// The next line or lines; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(self.line(ready));
            }
            if self.ended {
                return None;
            }
            self.convert_ahead().await;
            if let Some(lines) = self.initial_lines() {
                // The lines that wait one by one are before these.
                match (lines.is_empty(), self.ready.pop_front()) {
                    (true, None) => continue,
                    (false, None) => return Some(lines),
                    (none, Some(ready)) => {
                        self.ready.extend((!none).then_some(Ready::Line(lines)));
                        return Some(self.line(ready));
                    }
                }
            }
            self.wait().await;
        }
    }

    fn line(&mut self, ready: Ready) -> Bytes {
        let (change, kind) = match ready {
            Ready::Line(line) => return line,
            Ready::Change(change, kind) => (change, kind),
        };
        let first = std::mem::replace(&mut self.first, false);
        response::event_bytes(&self.output, &self.target, &change, kind, first).unwrap_or_else(|error| {
            self.ended = true;
            self.ready.clear();
            response::status_event(&self.output, &error)
        })
    }

    /// Has the next objects of the state converted, where somebody else does that.
    async fn convert_ahead(&mut self) {
        let Some((snapshot, after)) = self.initial.as_ref().filter(|_| self.target.is_mixed()) else {
            return;
        };
        let next = snapshot.below(self.select.namespace.as_deref(), after.as_deref());
        let next = next.map(|(_, object)| object).filter(|object| self.select.matches(object));
        let next = next.take(AHEAD).cloned().collect();
        if let Err(error) = self.target.convert_ahead(next).await {
            self.break_off(&error);
        }
    }

    /// Ends the watch with what went wrong.
    fn break_off(&mut self, error: &ApiError) {
        self.ready.push_back(Ready::Line(response::status_event(&self.output, error)));
        self.initial = None;
        self.ended = true;
    }

    /// Some of the state; `None` when there is none left.
    fn initial_lines(&mut self) -> Option<Bytes> {
        let (snapshot, after) = self.initial.take()?;
        let target = self.target.clone();
        let mut out = BytesMut::new();
        let mut left = None;
        for (key, object) in snapshot.below(self.select.namespace.as_deref(), after.as_deref()) {
            if !self.select.matches(object) {
                continue;
            }
            let first = std::mem::replace(&mut self.first, false);
            match response::event(&self.output, &target, object, ChangeKind::Added, first) {
                Ok(line) => out.extend_from_slice(&line),
                Err(error) => {
                    out.extend_from_slice(&response::status_event(&self.output, &error));
                    self.ended = true;
                    break;
                }
            }
            if self.one_by_one {
                self.ready.push_back(Ready::Line(out.split().freeze()));
            }
            if out.len() >= CHUNK || self.ready.len() >= FEW {
                left = Some(key.to_string());
                break;
            }
        }
        match left {
            Some(key) => self.initial = Some((snapshot, Some(key))),
            None if self.mark_initial => out.extend_from_slice(&self.bookmark(snapshot.revision, true)),
            None => {}
        }
        Some(out.freeze())
    }

    /// Waits for changes, the next bookmark or the end.
    async fn wait(&mut self) {
        let tick = async {
            match &mut self.bookmarks {
                Some(ticks) => drop(ticks.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = self.cursor.next() => match changes {
                Ok(changes) => self.told(&changes).await,
                Err(error) => self.fail(error),
            },
            () = tick => self.mark().await,
            () = &mut self.deadline => {
                if self.bookmarks.is_some() {
                    self.mark().await;
                }
                self.ended = true;
            }
            () = &mut self.cancelled => self.ended = true,
        }
    }

    /// Tells changes, converted all at once where somebody else does that.
    async fn told(&mut self, changes: &[Arc<Change>]) {
        if self.target.is_mixed() {
            let before = changes.iter().filter_map(|change| change.previous.clone());
            let objects = changes.iter().map(|change| change.object.clone()).chain(before).collect();
            if let Err(error) = self.target.convert_ahead(objects).await {
                return self.break_off(&error);
            }
        }
        self.tell(changes);
    }

    fn tell(&mut self, changes: &[Arc<Change>]) {
        for change in changes.iter().filter(|c| c.object.revision > self.since) {
            let Some(kind) = kind_told(change, &self.select) else { continue };
            self.ready.push_back(Ready::Change(change.clone(), kind));
            self.marked = change.object.revision;
        }
    }

    fn fail(&mut self, error: CursorError) {
        if error == CursorError::Overtaken {
            let error = ApiError::expired(format!(
                "too old resource version: {} ({})",
                self.marked,
                self.target.kind.cache.revision()
            ));
            self.ready.push_back(Ready::Line(response::status_event(&self.output, &error)));
        }
        self.ended = true;
    }

    /// Tells how far the watch has come, if that is further than the client knows.
    async fn mark(&mut self) {
        let Ok(current) = self.target.kind.cache.current().await else { return };
        // What has happened meanwhile goes first.
        match self.cursor.ready() {
            Ok(changes) if changes.is_empty() => {
                if current.revision > self.marked {
                    let line = self.bookmark(current.revision, false);
                    self.ready.push_back(Ready::Line(line));
                    self.marked = current.revision;
                }
            }
            Ok(changes) => self.told(&changes).await,
            Err(error) => self.fail(error),
        }
    }

    fn bookmark(&mut self, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object: Value = match self.output.shape {
            Shape::Object => json!({
                "kind": *self.target.resource.kind, "apiVersion": self.target.resource.api_version(), "metadata": metadata,
            }),
            Shape::Metadata(version) | Shape::MetadataList(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }),
            Shape::Table(version, _) => {
                let meta = ListMeta { revision, ..ListMeta::default() }.to_value();
                let row = json!({"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
                }});
                json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
                    "columnDefinitions": null, "rows": [row],
                })
            }
        };
        response::line(&self.output, "BOOKMARK", &object)
    }
}

/// How a change is told to those who see a selection: entering is being added, leaving is being deleted.
fn kind_told(change: &Change, select: &Select) -> Option<ChangeKind> {
    let before = change.previous.as_ref().is_some_and(|o| select.matches(o));
    let after = change.kind != ChangeKind::Deleted && select.matches(&change.object);
    match (before, after) {
        (false, true) => Some(ChangeKind::Added),
        (true, true) => Some(ChangeKind::Modified),
        (true, false) => Some(ChangeKind::Deleted),
        (false, false) => None,
    }
}
