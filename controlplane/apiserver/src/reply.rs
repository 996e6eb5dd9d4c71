//! Plain answers: a JSON document, a text, an error as a `Status`. The engine has richer ones of its own.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use pagurus_controlplane_api::status::ApiError;
use serde_json::Value;

use crate::request::{Body, full_body};

/// An answer of that type.
pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full_body(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A text.
pub fn text(code: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A JSON document.
pub fn json(code: StatusCode, body: &Value) -> Response<Body> {
    bytes(code, "application/json", body.to_string())
}

/// A JSON document for people to read.
pub fn pretty_json(code: StatusCode, body: &Value) -> Response<Body> {
    bytes(code, "application/json", format!("{body:#}"))
}

/// What the client has already.
pub fn not_modified() -> Response<Body> {
    empty(StatusCode::NOT_MODIFIED)
}

/// A code and nothing else.
pub fn empty(code: StatusCode) -> Response<Body> {
    let mut response = bytes(code, "", bytes::Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// The `Status` of an error, where nobody looks at what the client reads. Elsewhere: `response::failure`.
pub fn error(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &error.to_status());
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What a path that means nothing gets.
pub fn no_such_path() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
