//! The body of a list, read object by object while it arrives: no more of it is in memory than the objects that are not yet complete.
//!
//! Must not know: who asked, what comes after the list.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

use super::Reader;
use crate::index::wire;

/// Why a list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is no JSON, or no list.
    #[error("the list is damaged after {at} bytes: {what}")]
    Damaged {
        /// Where.
        at: u64,
        /// In which way.
        what: String,
    },
    /// There was to be more of it.
    #[error("the answer ended before the list did, after {0} bytes")]
    Ended(u64),
    /// One object, or field, of it is too large.
    #[error(
        "something in the list, {at} bytes from the beginning of its page, is larger than the {limit} bytes that are read at most"
    )]
    LargeValue {
        /// Where it begins.
        at: u64,
        /// What is allowed.
        limit: usize,
    },
    /// It is too long.
    #[error("the list goes on after {0} bytes, the most that are read of all its pages together")]
    LongList(u64),
    /// There are too many objects.
    #[error("the list goes on after {0} objects, the most that are read of all its pages together")]
    ManyObjects(u64),
}

/// What is read at most: a server that never comes to an end must not take all memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of one object, which is what waits in memory until it is whole. API servers take requests of up to 3 MiB, and an object
    /// may be several times as long in JSON as it was sent.
    pub(super) value: usize,
    /// Bytes of all pages of a list. 250,000 EndpointSlices of one endpoint each have half a gigabyte.
    pub(super) bytes: u64,
    /// Objects of all pages of a list: something is kept of each.
    pub(super) objects: u64,
}

/// What is allowed to API servers.
pub(super) const LIMITS: Limits = Limits { value: 32 << 20, bytes: 8 << 30, objects: 2_000_000 };

/// What has been read of a list, in all its pages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    bytes: u64,
    objects: u64,
}

/// What is said of the whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ListMetadata {
    /// Its version, which is where to begin to watch.
    pub(super) resource_version: Option<String>,
    /// How to ask for the next page; none or empty: this is the last.
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// What is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The brace before everything.
    Start,
    /// A field of the list, or its closing brace.
    Field,
    /// An object, or the bracket after the last.
    Item,
    /// Nothing.
    End,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct List<R> {
    reader: Arc<R>,
    buffer: Vec<u8>,
    /// Where in the buffer to go on, and where in the body it begins.
    at: usize,
    passed: u64,
    /// So many bytes are needed from there on before it is worth another look.
    wanted: usize,
    place: Place,
    /// Nothing will be added.
    is_end: bool,
    limits: Limits,
    /// This page and those before it.
    pub(super) total: Total,
    pub(super) metadata: ListMetadata,
}

/// What is there.
enum Step<T> {
    Done(T),
    /// It is not all there.
    More,
}

impl<R: Reader> List<R> {
    /// A page of a list of which so much has been read before.
    pub(super) fn new(reader: Arc<R>, limits: Limits, total: Total) -> Self {
        let metadata = ListMetadata::default();
        Self {
            reader,
            buffer: Vec::new(),
            at: 0,
            passed: 0,
            wanted: 0,
            place: Place::Start,
            is_end: false,
            limits,
            total,
            metadata,
        }
    }

    /// More of the body.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), ListError> {
        self.total.bytes += bytes.len() as u64;
        if self.total.bytes > self.limits.bytes {
            return Err(ListError::LongList(self.limits.bytes));
        }
        self.buffer.drain(..self.at);
        self.passed += self.at as u64;
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the whole list has been read.
    pub(super) fn is_complete(&self) -> bool {
        self.place == Place::End
    }

    /// The next object; none: there is none (yet). `is_end`: nothing will be added.
    pub(super) fn next(&mut self, is_end: bool) -> Result<Option<R::Object>, ListError> {
        if !is_end && self.buffer.len() - self.at < self.wanted {
            return Ok(None);
        }
        self.wanted = 0;
        self.is_end = is_end;
        loop {
            let step = match self.place {
                Place::Start => self.start()?,
                Place::Field => self.field()?,
                Place::Item => match self.item()? {
                    Step::Done(Some(object)) => return self.counted(object).map(Some),
                    Step::Done(None) => Step::Done(()),
                    Step::More => Step::More,
                },
                Place::End => return Ok(None),
            };
            if let Step::More = step {
                if is_end {
                    return Err(ListError::Ended(self.passed + self.buffer.len() as u64));
                }
                let waiting = self.buffer.len() - self.at;
                let limit = self.limits.value;
                if waiting >= limit {
                    return Err(ListError::LargeValue { at: self.passed + self.at as u64, limit });
                }
                // What is large is not looked at again for every little piece of it.
                self.wanted = (waiting * 3 / 2).min(limit);
                return Ok(None);
            }
        }
    }

    fn counted(&mut self, object: R::Object) -> Result<R::Object, ListError> {
        self.total.objects += 1;
        if self.total.objects > self.limits.objects {
            return Err(ListError::ManyObjects(self.limits.objects));
        }
        Ok(object)
    }

    fn start(&mut self) -> Result<Step<()>, ListError> {
        Ok(match self.peek() {
            Some(b'{') => {
                self.at += 1;
                self.place = Place::Field;
                Step::Done(())
            }
            Some(_) => return Err(self.damaged("it does not begin with a brace")),
            None => Step::More,
        })
    }

    fn field(&mut self) -> Result<Step<()>, ListError> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.place = Place::End;
                return Ok(Step::Done(()));
            }
            Some(b',') => self.at += 1,
            Some(_) => {}
            None => return Ok(Step::More),
        }
        // Until the value is there the name is not passed.
        let begin = self.at;
        let Step::Done(name) = self.value::<String>()? else { return Ok(Step::More) };
        let step = match self.peek() {
            Some(b':') => {
                self.at += 1;
                self.field_value(&name)?
            }
            Some(_) => return Err(self.damaged("a field has no value")),
            None => Step::More,
        };
        if let Step::More = step {
            self.at = begin;
        }
        Ok(step)
    }

    fn field_value(&mut self, name: &str) -> Result<Step<()>, ListError> {
        Ok(match (name, self.peek()) {
            (_, None) => Step::More,
            ("items", Some(b'[')) => {
                self.at += 1;
                self.place = Place::Item;
                Step::Done(())
            }
            ("metadata", Some(b'{')) => match self.value()? {
                Step::Done(metadata) => {
                    self.metadata = metadata;
                    Step::Done(())
                }
                Step::More => Step::More,
            },
            _ => match self.value::<IgnoredAny>()? {
                // A number at the end of what is there may go on.
                Step::Done(_) if self.at == self.buffer.len() => Step::More,
                Step::Done(_) => Step::Done(()),
                Step::More => Step::More,
            },
        })
    }

    /// The next object. None: it is not to be told, or the list of them has ended.
    fn item(&mut self) -> Result<Step<Option<R::Object>>, ListError> {
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                self.place = Place::Field;
                return Ok(Step::Done(None));
            }
            Some(b',') => self.at += 1,
            Some(_) => {}
            None => return Ok(Step::More),
        }
        let bytes = self.buffer.get(self.at..).unwrap_or_default();
        match read_one(&*self.reader, bytes, self.is_end).map_err(|error| self.damaged(&error.to_string()))? {
            Step::Done((object, length)) => {
                self.at += length;
                Ok(Step::Done(object))
            }
            Step::More => Ok(Step::More),
        }
    }

    /// A value, passed if it is all there.
    fn value<T: DeserializeOwned>(&mut self) -> Result<Step<T>, ListError> {
        let bytes = self.buffer.get(self.at..).unwrap_or_default();
        let mut values = Deserializer::from_slice(bytes).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(Step::Done(value))
            }
            None => Ok(Step::More),
            Some(Err(error)) if may_go_on(&error, self.is_end) => Ok(Step::More),
            Some(Err(error)) => Err(self.damaged(&error.to_string())),
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.buffer.get(self.at..)?;
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += blank;
        self.buffer.get(self.at).copied()
    }

    fn damaged(&self, what: &str) -> ListError {
        ListError::Damaged { at: self.passed + self.at as u64, what: what.to_owned() }
    }
}

/// An object, if there is anything to tell of it, and how long it is.
type Read<T> = Step<(Option<T>, usize)>;

/// Whether it may be only that something is not all there: a number that is cut off is no number to the parser.
fn may_go_on(error: &serde_json::Error, is_end: bool) -> bool {
    error.is_eof() || !is_end && error.is_syntax()
}

/// The object at the beginning of these bytes.
fn read_one<R: Reader>(reader: &R, bytes: &[u8], is_end: bool) -> Result<Read<R::Object>, serde_json::Error> {
    let mut values = Deserializer::from_slice(bytes).into_iter::<R::Raw<'_>>();
    let error = match values.next() {
        Some(Ok(raw)) => {
            let object = reader.read(raw);
            return Ok(Step::Done((Some(object), values.byte_offset())));
        }
        Some(Err(error)) if !may_go_on(&error, is_end) => error,
        _ => return Ok(Step::More),
    };
    // It is passed over as a whole, so that those after it are read.
    let mut heads = Deserializer::from_slice(bytes).into_iter::<wire::Head<'_>>();
    match heads.next() {
        Some(Ok(head)) => {
            let (namespace, name) = (head.metadata.namespace.as_deref(), head.metadata.name.as_deref());
            tracing::warn!(namespace, name, %error, "an object of a list cannot be read");
            return Ok(Step::Done((reader.unreadable(&head, &error), heads.byte_offset())));
        }
        Some(Err(error)) if may_go_on(&error, is_end) => return Ok(Step::More),
        _ => {}
    }
    let mut any = Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    match any.next() {
        Some(Ok(IgnoredAny)) => {
            tracing::warn!(%error, "something without a name is passed over in a list");
            Ok(Step::Done((None, any.byte_offset())))
        }
        Some(Err(error)) if !may_go_on(&error, is_end) => Err(error),
        _ => Ok(Step::More),
    }
}

#[cfg(test)]
mod tests;
