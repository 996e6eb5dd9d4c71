//! A list, then a watch from there on, and again from the beginning when the API server says that it no longer knows what happened
//! since.
//!
//! Must not know: what the objects are, what was there before a list.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt as _;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::list::{LIMITS, List, ListError, Total};
use super::{Event, Reader, joined};
use crate::index::wire::{Head, Text};

/// So many objects are asked for at once.
const PAGE: u32 = 5000;
/// The API server ends a watch after so many seconds.
const WATCH: u32 = 290;
/// When nothing has come for so long, not even the end, nothing will.
const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 5);
/// The same in the middle of a list.
const LIST_SILENCE: Duration = Duration::from_secs(60);
/// So much of an answer that is none is kept, to be shown.
const SHOWN: usize = 64 << 10;
/// A line of a watch has no more bytes: it holds one object.
const LINE: usize = LIMITS.value;

/// Why a watch has to begin anew, or go on after a pause.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// There was no answer, or a refusal.
    #[error("ask the API server")]
    Request(#[from] kube::Error),
    /// The question could not be made.
    #[error("make the request")]
    Question(#[from] kube::core::request::Error),
    /// The list is of no use.
    #[error(transparent)]
    List(#[from] ListError),
    /// The answer broke off.
    #[error("read the answer of the API server")]
    Broken(#[source] kube::Error),
    /// Nothing more came.
    #[error("the API server has not gone on for {} s", LIST_SILENCE.as_secs())]
    Silent,
    /// The API server broke the rules of watches.
    #[error("a list has neither a version nor a next page")]
    NoVersion,
    /// An event that cannot be read.
    #[error("an event of the watch cannot be read: {0}")]
    Event(#[source] serde_json::Error),
    /// An event without an end.
    #[error("an event of the watch is larger than the {0} bytes that are read at most")]
    LongLine(usize),
    /// The API server said so in the watch.
    #[error("the watch was ended: {} ({})", .0.message, .0.code)]
    Told(Box<Status>),
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) fields: Option<String>,
    pub(super) labels: Option<String>,
}

/// An answer that is being read.
type Answer = Body;

enum State<R> {
    /// Nothing is known.
    Empty,
    /// A page is to be asked for, after so much; with no token the first.
    Page(Option<String>, Total),
    /// A page is being read.
    Listing(Answer, List<R>),
    /// Everything up to this version is known.
    Listed(String),
    /// And what happens after it is told.
    Watching(String, Answer, Lines),
}

/// What is asked, and who.
struct Question {
    client: kube::Client,
    path: String,
    selection: Selection,
}

struct Watch<R> {
    question: Question,
    reader: Arc<R>,
    state: State<R>,
}

/// The events of all objects below a path.
pub(super) fn watch<R: Reader>(
    client: kube::Client,
    path: String,
    selection: Selection,
    reader: R,
) -> impl Stream<Item = Result<Event<R::Object>, WatchError>> + Send {
    let question = Question { client, path, selection };
    let watch = Watch { question, reader: Arc::new(reader), state: State::Empty };
    futures::stream::unfold(Box::new(watch), async |mut watch| {
        let event = watch.next().await;
        Some((event, watch))
    })
}

impl<R: Reader> Watch<R> {
    async fn next(&mut self) -> Result<Event<R::Object>, WatchError> {
        loop {
            if let Some(event) = self.step().await.transpose() {
                return event;
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Event<R::Object>>, WatchError> {
        match &mut self.state {
            State::Empty => {
                self.state = State::Page(None, Total::default());
                Ok(None)
            }
            State::Page(token, total) => {
                let (token, total) = (token.take(), *total);
                // Told once there is an answer: what is told is a success, after which failures are waited out shortly again.
                let begun = token.is_none().then_some(Event::Init);
                // If this fails, what is left of the list is asked for no more.
                self.state = State::Empty;
                let answer = self.question.list(token).await?;
                self.state = State::Listing(answer, List::new(self.reader.clone(), LIMITS, total));
                Ok(begun)
            }
            State::Listing(answer, list) => match read_list(answer, list).await {
                Ok(Some(object)) => Ok(Some(Event::InitApply(object))),
                Ok(None) => self.page_is_read(),
                Err(error) => {
                    self.state = State::Empty;
                    Err(error)
                }
            },
            State::Listed(version) => {
                let version = version.clone();
                let answer = match self.question.watch(&version).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        if is_gone(&error) {
                            self.state = State::Empty;
                        }
                        return Err(error);
                    }
                };
                self.state = State::Watching(version, answer, Lines::default());
                Ok(None)
            }
            State::Watching(version, answer, lines) => {
                let told = match lines.next() {
                    Ok(Some(line)) => take(&*self.reader, &line, version),
                    Err(error) => Err(error),
                    Ok(None) => {
                        match frame(answer, SILENCE).await {
                            Ok(Some(bytes)) => lines.add(&bytes),
                            // It has ended as watches do.
                            Ok(None) | Err(WatchError::Silent) => self.state = State::Listed(version.clone()),
                            Err(error) => {
                                self.state = State::Listed(version.clone());
                                return Err(error);
                            }
                        }
                        return Ok(None);
                    }
                };
                if told.is_err() {
                    // What could not be read may have been a change, and what the API server gives up it does not take up again:
                    // a list tells what there is.
                    self.state = State::Empty;
                }
                told
            }
        }
    }

    fn page_is_read(&mut self) -> Result<Option<Event<R::Object>>, WatchError> {
        let State::Listing(_, list) = std::mem::replace(&mut self.state, State::Empty) else {
            return Ok(None);
        };
        let total = list.total;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        match (given(list.metadata.next), given(list.metadata.resource_version)) {
            (Some(token), _) => {
                self.state = State::Page(Some(token), total);
                Ok(None)
            }
            (None, Some(version)) => {
                self.state = State::Listed(version);
                Ok(Some(Event::InitDone))
            }
            (None, None) => Err(WatchError::NoVersion),
        }
    }
}

impl Question {
    async fn list(&self, token: Option<String>) -> Result<Answer, WatchError> {
        let parameters = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            continue_token: token,
            ..ListParams::default()
        };
        self.ask(Request::new(&self.path).list(&parameters)?).await
    }

    async fn watch(&self, version: &str) -> Result<Answer, WatchError> {
        let parameters = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(WATCH),
            bookmarks: true,
            send_initial_events: false,
        };
        let mut request = Request::new(&self.path).watch(&parameters, version)?;
        // Compressed events could wait in the compressor.
        let identity = http::HeaderValue::from_static("identity");
        request.headers_mut().insert(http::header::ACCEPT_ENCODING, identity);
        self.ask(request).await
    }

    async fn ask(&self, request: http::Request<Vec<u8>>) -> Result<Answer, WatchError> {
        let response = self.client.send(request.map(Body::from)).await?;
        let code = response.status();
        let mut answer = response.into_body();
        if code.is_success() {
            return Ok(answer);
        }
        let mut text = Vec::new();
        while text.len() < SHOWN
            && let Some(bytes) = frame(&mut answer, LIST_SILENCE).await?
        {
            text.extend_from_slice(&bytes);
        }
        let status = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| {
            // What answered is perhaps no API server.
            let message = String::from_utf8_lossy(&text).chars().take(200).collect::<String>();
            Status::failure(&message, code.canonical_reason().unwrap_or("Unknown"))
        });
        Err(kube::Error::Api(Status { code: code.as_u16(), ..status }.boxed()).into())
    }
}

/// The next object of a page; none: it has ended.
async fn read_list<R: Reader>(
    answer: &mut Answer,
    list: &mut List<R>,
) -> Result<Option<R::Object>, WatchError> {
    loop {
        if let Some(object) = list.next(false)? {
            return Ok(Some(object));
        }
        if list.is_complete() {
            return Ok(None);
        }
        match frame(answer, LIST_SILENCE).await? {
            Some(bytes) => list.add(&bytes)?,
            None => return Ok(list.next(true)?),
        }
    }
}

/// The next bytes of an answer; none: it has ended.
async fn frame(answer: &mut Answer, patience: Duration) -> Result<Option<Bytes>, WatchError> {
    loop {
        let frame = tokio::time::timeout(patience, answer.frame()).await.map_err(|_| WatchError::Silent)?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(WatchError::Broken(error)),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Whether the API server no longer knows what happened since the version it was asked about.
fn is_gone(error: &WatchError) -> bool {
    matches!(error, WatchError::Request(kube::Error::Api(status)) if status.code == 410)
}

/// The lines of a body.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no end of a line.
    searched: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line; none: it is not all there.
    fn next(&mut self) -> Result<Option<Vec<u8>>, WatchError> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > LINE { Err(WatchError::LongLine(LINE)) } else { Ok(None) };
        };
        let end = self.searched + end;
        let rest = self.buffer.split_off(end + 1);
        self.searched = 0;
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        Ok(Some(line))
    }
}

/// An event of a watch.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What a line tells. `version` becomes that of its object.
fn take<R: Reader>(
    reader: &R,
    line: &[u8],
    version: &mut String,
) -> Result<Option<Event<R::Object>>, WatchError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let Line { kind, object } = serde_json::from_slice(line).map_err(WatchError::Event)?;
    let object = object.get();
    if &*kind == "ERROR" {
        let status: Status = serde_json::from_str(object).map_err(WatchError::Event)?;
        return Err(WatchError::Told(status.boxed()));
    }
    let head: Head<'_> = serde_json::from_str(object).map_err(WatchError::Event)?;
    let metadata = &head.metadata;
    let event = match &*kind {
        "BOOKMARK" => None,
        "DELETED" => Some(Event::Delete(joined(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        ))),
        // Added or modified.
        _ => match serde_json::from_str(object) {
            Ok(raw) => Some(Event::Apply(reader.read(raw))),
            Err(error) => {
                tracing::warn!(
                    namespace = metadata.namespace.as_deref(),
                    name = metadata.name.as_deref(),
                    %error,
                    "an object of a watch cannot be read"
                );
                reader.unreadable(&head, &error).map(Event::Apply)
            }
        },
    };
    if let Some(newer) = &metadata.resource_version {
        version.clear();
        version.push_str(newer);
    }
    Ok(event)
}

#[cfg(test)]
mod tests;
