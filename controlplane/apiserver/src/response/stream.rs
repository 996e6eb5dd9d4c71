//! Bodies that are made while they are sent: long lists, and watches. Memory does not grow with their length.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::Stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};

use super::headers;
use crate::request::{Body, BoxError};

/// How many compressed bytes are handed on at a time.
const CHUNK: usize = 16 << 10;

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

pub(super) fn framed(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
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

/// Compresses chunks as they come.
pub(super) struct Zipped<I> {
    chunks: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I> Zipped<I> {
    pub(super) fn new(chunks: I) -> Self {
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
                    if encoder.get_ref().len() >= CHUNK {
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
