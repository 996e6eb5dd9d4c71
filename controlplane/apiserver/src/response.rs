//! What an answer looks like: which format and shape the client accepts, and how objects become it.
//!
//! A stored object in JSON is sent as the bytes it is kept in. It must not know verbs, the store or who asks.

mod accept;
mod columns;
mod list;
mod shape;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pagurus_controlplane_api::status::ApiError;
use pagurus_controlplane_schema::codec;
use pagurus_controlplane_schema::table::Table;
use serde_json::Value;

use crate::cache::Cached;
use crate::engine::Target;
use crate::request::{Body, Call, full_body};

pub use accept::{
    ACCEPTED, Asked, Clause, Format, Include, Offer, Output, Shape, accept, check_route, clauses,
};
pub(crate) use list::{Piece, Selection, list};
pub use shape::{ListMeta, event, event_bytes, line, list_value, status_event, view};
pub use stream::streamed;

/// Answers larger than this are compressed, if the client can read that.
pub(crate) const GZIP_ABOVE: usize = 128 << 10;

/// Turns what a verb came to into an answer; an error becomes a `Status`.
pub fn finish(call: &Call, answer: Result<Response<Body>, ApiError>) -> Response<Body> {
    answer.unwrap_or_else(|error| failure(call.into(), &error))
}

/// The `Status` of an error, in the format that is asked for if there is one.
pub fn failure(asked: Asked<'_>, error: &ApiError) -> Response<Body> {
    failure_as(&Output::for_errors(asked), error)
}

/// The `Status` of an error in that format.
pub fn failure_as(output: &Output, error: &ApiError) -> Response<Body> {
    let (content_type, bytes) = encode(output, &error.to_status());
    let mut response = whole(&HeaderMap::new(), content_type, error.code, bytes);
    let seconds = error.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Any document, in the format of the output but in no other shape than its own.
pub fn value(call: &Call, output: &Output, code: u16, value: &Value) -> Response<Body> {
    let (content_type, bytes) = encode(output, value);
    whole(&call.headers, content_type, code, bytes)
}

/// A stored object in the output's format and shape. `object` is in the storage version.
pub fn object(
    call: &Call,
    output: &Output,
    target: &Target,
    code: u16,
    object: &Arc<Cached>,
) -> Result<Response<Body>, ApiError> {
    let (content_type, bytes) = if output.is_plain() && target.is_storage_version() {
        (output.content_type(), object.bytes.clone())
    } else {
        encode(output, &view(output, target, object)?)
    };
    Ok(whole(&call.headers, content_type, code, bytes))
}

/// A document's bytes in the output's format, and what they are: documents that have no message in protobuf are JSON.
pub fn encode(output: &Output, value: &Value) -> (&'static str, Bytes) {
    let bytes: Bytes = match output.format {
        Format::Protobuf => match codec::protobuf::document(Table::builtin(), value) {
            Some(bytes) => bytes.into(),
            None => return encode(&Output { format: Format::Json, ..*output }, value),
        },
        Format::Yaml => codec::yaml::encode(value).into(),
        Format::Cbor => codec::cbor::document(Table::builtin(), value).into(),
        Format::Json if output.pretty => {
            // Encoding a JSON value into memory cannot fail.
            serde_json::to_vec_pretty(value).unwrap_or_default().into()
        }
        Format::Json => codec::json::encode(value).into(),
    };
    (output.content_type(), bytes)
}

/// An answer whose bytes are all there.
pub fn whole(asked: &HeaderMap, content_type: &'static str, code: u16, bytes: Bytes) -> Response<Body> {
    let zip = bytes.len() > GZIP_ABOVE && accepts_gzip(asked);
    let bytes = if zip { stream::gzip(&bytes) } else { bytes };
    let mut response = Response::new(full_body(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    headers(response.headers_mut(), content_type, zip);
    response
}

pub(crate) fn headers(headers: &mut HeaderMap, content_type: &'static str, zip: bool) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if zip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether the client can read compressed answers.
pub(crate) fn accepts_gzip(asked: &HeaderMap) -> bool {
    let encodings = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    encodings.flat_map(|v| v.split(',')).any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named && !parts.any(|q| matches!(q, "q=0" | "q=0.0"))
    })
}
