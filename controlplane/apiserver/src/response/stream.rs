//! Bodies that are made while they are sent: long lists from a snapshot, and watches. Memory does not grow with their length.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::Stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};

use super::shape::ListMeta;
use super::{GZIP_FROM, accepts_gzip, headers};
use crate::cache::{Cached, Snapshot};
use crate::engine::Target;
use crate::request::{Body, BoxError, Call, full_body};

/// How many bytes are handed on at a time.
const CHUNK: usize = 64 << 10;

/// Which objects of a snapshot a list shows.
pub(crate) struct Selection {
    pub(crate) snapshot: Snapshot,
    pub(crate) namespace: Option<String>,
    /// The key after which to begin.
    pub(crate) after: Option<String>,
    /// The key with which to end.
    pub(crate) last: Option<Arc<str>>,
    pub(crate) selects: Box<dyn Fn(&Cached) -> bool + Send>,
}

/// A list in the stored form, made of the bytes in the cache.
pub(crate) fn list_body(
    call: &Call,
    target: &Target,
    meta: &ListMeta,
    selection: Selection,
) -> Response<Body> {
    let resource = &target.resource;
    let meta = meta.to_value();
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
        resource.list_kind,
        resource.api_version()
    );
    let mut items = Items { selection, head: Some(BytesMut::from(head.as_str())), any: false, done: false };
    // Most lists are short: those go out whole, with their length.
    let mut start = Vec::new();
    let mut length = 0;
    while length < GZIP_FROM {
        let Some(bytes) = items.chunk() else { break };
        length += bytes.len();
        start.push(bytes);
    }
    let zip = length >= GZIP_FROM && accepts_gzip(&call.headers);
    let body = if items.done && !zip {
        full_body(start.concat())
    } else {
        let chunks = start.into_iter().chain(std::iter::from_fn(move || items.chunk()));
        if zip { framed(Zipped::new(chunks)) } else { framed(chunks) }
    };
    let mut response = Response::new(body);
    headers(response.headers_mut(), "application/json", zip);
    response
}

/// An answer whose body is a stream of lines of this type.
pub fn streamed(
    content_type: &'static str,
    lines: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    use futures::StreamExt;
    let frames = lines.map(|bytes| Ok::<_, BoxError>(http_body::Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    headers(response.headers_mut(), content_type, false);
    response
}

fn framed(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let frames = Yielding { chunks: Box::new(chunks), turn: false };
    StreamBody::new(frames).boxed_unsync()
}

/// Hands on one chunk per turn and lets others run in between.
struct Yielding {
    chunks: Box<dyn Iterator<Item = Bytes> + Send>,
    turn: bool,
}

impl Stream for Yielding {
    type Item = Result<http_body::Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::replace(&mut self.turn, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = true;
        Poll::Ready(self.chunks.next().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Walks a snapshot and joins the objects' bytes.
struct Items {
    selection: Selection,
    head: Option<BytesMut>,
    any: bool,
    done: bool,
}

impl Items {
    /// The next part of the list.
    fn chunk(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = self.head.take().unwrap_or_default();
        let Selection { snapshot, namespace, after, last, selects } = &mut self.selection;
        let at = after.take();
        let mut ended = true;
        for (key, object) in snapshot.below(namespace.as_deref(), at.as_deref()) {
            let reached = last.as_ref().is_some_and(|last| key > last);
            if reached {
                break;
            }
            if selects(object) {
                if std::mem::replace(&mut self.any, true) {
                    out.put_u8(b',');
                }
                out.put_slice(b"{");
                out.put_slice(object.body());
            }
            if out.len() >= CHUNK {
                *after = Some(key.to_string());
                ended = false;
                break;
            }
        }
        if ended {
            out.put_slice(b"]}\n");
            self.done = true;
        }
        Some(out.freeze())
    }
}

/// Compresses chunks as they come.
struct Zipped<I> {
    chunks: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Zipped<I> {
    fn new(chunks: I) -> Self {
        Self { chunks, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Zipped<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.chunks.next() {
                Some(bytes) => {
                    // Writing to memory cannot fail.
                    encoder.write_all(&bytes).ok()?;
                    if encoder.get_ref().len() >= CHUNK / 4 {
                        return Some(std::mem::take(encoder.get_mut()).into());
                    }
                }
                None => return self.encoder.take()?.finish().ok().map(Bytes::from),
            }
        }
    }
}

/// Compressed bytes.
pub(crate) fn gzip(bytes: &Bytes) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    match encoder.write_all(bytes).and_then(|()| encoder.finish()) {
        Ok(out) => out.into(),
        // Writing to memory cannot fail.
        Err(_) => Bytes::new(),
    }
}
