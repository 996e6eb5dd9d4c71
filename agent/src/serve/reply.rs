//! Answers of the node API: bodies and their kinds. Errors are a line of text, as the API server expects of a node.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

/// A body that ends well or breaks off.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A refusal with its status and text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// Something on this node failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(super) fn response(self) -> Response<Body> {
        let mut response = text(self.message);
        *response.status_mut() = self.status;
        response
    }
}

pub(super) fn empty() -> Body {
    full(Bytes::new())
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn text(text: impl Into<Bytes>) -> Response<Body> {
    with_type(text, HeaderValue::from_static("text/plain; charset=utf-8"))
}

pub(super) fn json(value: &serde_json::Value) -> Response<Body> {
    with_type(value.to_string(), HeaderValue::from_static("application/json"))
}

pub(super) fn with_type(bytes: impl Into<Bytes>, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
